//! The product's main job in front of the user: traffic goes through the gateway, the auditor verifies the evidence
//! and prints what it cost, and a changed byte is found. Prints each command before it runs it.
#![expect(clippy::print_stdout, reason = "what it prints is its purpose")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tests::client::{Call, Got, Leave, send, send_until};
use tests::corpus;
use tests::provider::Provider;

/// The most recorded exchanges that are sent.
const RECORDED: usize = 60;

fn title(text: &str) {
    println!("\n=== {text}");
}

/// A command as a shell takes it.
fn shell(name: &str, args: &[&str]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    let quoted = |arg: &&str| match !arg.is_empty() && arg.chars().all(plain) {
        true => (*arg).to_owned(),
        false => format!("'{}'", arg.replace('\'', r"'\''")),
    };
    let words: Vec<String> = args.iter().map(quoted).collect();
    format!("{name} {}", words.join(" "))
}

/// Runs one of our binaries and shows its output below the command, which is all that runs.
///
/// # Errors
/// It ends with another exit code than `wanted`.
fn show(name: &str, args: &[&str], wanted: i32) -> anyhow::Result<()> {
    let shown = shell(name, args);
    println!("\n$ {shown}");
    ends_with(Command::new(tests::binary(name)).args(args), &shown, wanted)
}

fn ends_with(command: &mut Command, shown: &str, wanted: i32) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).status()?;
    let code = status.code().unwrap_or(-1);
    ensure!(code == wanted, "`{shown}` ended with exit code {code}, wanted {wanted}");
    Ok(())
}

/// A child that is killed where the quick start fails half-way.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a recorded stream tells usage that its caller did not ask for: the gateway asks for it itself, and takes it out.
fn tells_unasked(line: &corpus::Line) -> bool {
    let says = |body: Vec<u8>, word: &str| String::from_utf8_lossy(&body).contains(word);
    line.streaming && !says(line.request(), "include_usage") && says(line.response(), "\"usage\"")
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = PathBuf::from(std::env::args().nth(1).context("usage: quickstart DIR")?);
    if dir.join("gateway.yaml").exists() {
        // An earlier quick start's folder, made by this program: begin anew.
        std::fs::remove_dir_all(&dir)?;
    }
    let text = |path: &Path| path.display().to_string();
    let (d, store, trust, table, state) = (
        text(&dir),
        text(&dir.join("evidence")),
        text(&dir.join("trust.yaml")),
        text(&dir.join("key-table")),
        text(&dir.join("auditor-state")),
    );

    let binaries = tests::binary("gateway").parent().context("a folder of binaries")?.to_owned();
    println!("Commands are shown as they run, with the binaries of {}.", binaries.display());
    title("1. A provider, and a gateway in front of it");
    let lines = match corpus::set() {
        corpus::Set::Corpus(_) => corpus::lines(),
        corpus::Set::Own(_) => corpus::own_lines(),
    };
    let provider = Provider::start(lines.clone()).await;
    println!("a provider on loopback speaks the OpenAI and Anthropic APIs at {}", provider.url());
    println!(
        "(with keys of your own: `gateway quickstart DIR`, and put them into OPENAI_API_KEY and ANTHROPIC_API_KEY)"
    );
    let (port, admin) = (free_port()?, free_port()?);
    let listen = format!("127.0.0.1:{port}");
    let admin = format!("127.0.0.1:{admin}");
    let (openai, anthropic) = (format!("openai={}", provider.url()), format!("anthropic={}", provider.url()));
    let args = [
        "quickstart",
        &d,
        "--listen",
        &listen,
        "--admin",
        &admin,
        "--provider-url",
        &openai,
        "--provider-url",
        &anthropic,
    ];
    println!("\n$ {}", shell("gateway", &args));
    let output = Command::new(tests::binary("gateway")).args(args).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let key = String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .find(|w| w.starts_with("afk_"))
        .context("a gateway key")?
        .to_owned();
    // As a terminal shows both.
    let announced = "shown this once:\n";
    let told = String::from_utf8_lossy(&output.stderr);
    print!("{}", told.replacen(announced, &format!("{announced}{key}\n"), 1));
    println!("\n$ gateway serve -c {d}/gateway.yaml &");
    let log = std::fs::File::create(dir.join("gateway.log"))?;
    let mut gateway = Running(
        Command::new(tests::binary("gateway"))
            .args(["serve", "-c", &text(&dir.join("gateway.yaml"))])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?,
    );
    let address = listen.parse()?;
    let mut ready = false;
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        ready = tokio::net::TcpStream::connect(&listen).await.is_ok();
        if ready || gateway.0.try_wait()?.is_some() {
            break;
        }
    }
    ensure!(ready, "the gateway did not start:\n{}", std::fs::read_to_string(dir.join("gateway.log"))?);

    title("2. Traffic");
    let ask = |stream: bool| {
        serde_json::json!({ "model": "gpt-4o-mini", "stream": stream, "messages": [{ "role": "user", "content": "Is this kept?" }] }).to_string()
    };
    let say = |what: &str, got: &Got| {
        println!("{what:58} {} {:>7} bytes  {}", got.status, got.body.len(), got.exchange().unwrap_or("-"));
    };
    let chat = send(address, &Call::post("/openai/v1/chat/completions", &key, ask(false))).await;
    say("OpenAI chat completion", &chat);
    ensure!(chat.status == 200, "a call through the gateway got {}", chat.status);
    say(
        "OpenAI chat completion, streamed",
        &send(address, &Call::post("/openai/v1/chat/completions", &key, ask(true))).await,
    );
    let message = r#"{"model":"claude-sonnet-4-5","max_tokens":100,"messages":[{"role":"user","content":"Is this kept?"}]}"#;
    let call = Call::post("/anthropic/v1/messages", &key, message).header("anthropic-version", "2023-06-01");
    say("Anthropic message", &send(address, &call).await);
    let slow =
        Call::post("/openai/v1/chat/completions", &key, ask(true)).header("x-replay", "script:slow:200");
    let leave = Leave { after_bytes: Some(2_000), after_silence: None };
    say("OpenAI stream that its caller leaves", &send_until(address, &slow, leave).await);
    let cut = Call::post("/openai/v1/chat/completions", &key, ask(true)).header("x-replay", "script:cut:5");
    say("OpenAI stream that its provider cuts", &send(address, &cut).await);
    let refused =
        send(address, &Call::post("/openai/v1/chat/completions", "afk_wrong_key", ask(false))).await;
    say("a call with a wrong key", &refused);
    ensure!(refused.status == 401, "a wrong key got {}", refused.status);
    let mut sent = 0;
    let mut taken_out = 0;
    let mut different: Vec<&str> = Vec::new();
    let step = lines.len().div_ceil(RECORDED).max(1);
    for line in lines.iter().step_by(step).filter(|l| l.gateway_dialect() != Some("azure_openai")) {
        let path = format!(
            "/{}{}{}{}",
            line.gateway_dialect().unwrap_or("openai"),
            line.path,
            if line.query.is_empty() { "" } else { "?" },
            line.query
        );
        let mut call = Call { method: line.method.clone(), path, headers: Vec::new(), body: line.request() }
            .header("x-affidavit-key", &key)
            .header("x-replay", &line.id);
        if let Some(media) = line.request_headers.get("content-type") {
            call = call.header("content-type", media);
        }
        let got = send(address, &call).await;
        sent += 1;
        match got.body == line.response() {
            true => {}
            false if tells_unasked(line) && got.status == line.status => taken_out += 1,
            false => different.push(&line.id),
        }
    }
    ensure!(sent > 0, "no recorded exchange was sent");
    let count = different.len();
    ensure!(count == 0, "{count} of {sent} answers differ from the recorded bytes: {}", different.join(", "));
    println!("{sent} recorded exchanges replayed through it, every answer byte for byte as recorded");
    if taken_out > 0 {
        println!(
            "(of {taken_out} streams without the usage that the gateway asked for itself, and took out)"
        );
    }

    title("3. The gateway drains: its log is closed, sealed and archived");
    println!("\n$ kill -TERM {}", gateway.0.id());
    let _ = rustix::process::kill_process(
        rustix::process::Pid::from_child(&gateway.0),
        rustix::process::Signal::TERM,
    );
    let status = gateway.0.wait()?;
    ensure!(
        status.success(),
        "the gateway ended with {status}:\n{}",
        std::fs::read_to_string(dir.join("gateway.log"))?
    );
    take_out_of_service(&dir.join("trust.yaml"))?;
    println!("\n$ echo '    closed: true' >> {trust}");
    println!(
        "(It does not come back. Without that the auditor expects its next log, and says TAIL_UNPROVEN from five minutes on.)"
    );

    title("4. The auditor, who trusts only the trust file");
    let run = |head: &[&str], tail: &[&str]| {
        let base = ["--trust", trust.as_str(), "--state", state.as_str()];
        let args: Vec<&str> = head.iter().chain(&base).chain(tail).copied().collect();
        show("auditor", &args, 0)
    };
    run(&["verify", &store], &["--key-table", &table])?;
    run(&["cost", &store], &["--by", "consumer,model"])?;
    run(&["cost", &store], &["--forecast"])?;
    let focus = text(&dir.join("focus.csv"));
    run(&["export", &store], &["--format", "focus", "--out", &focus])?;
    let sql = "SELECT \"end\", count(*) AS exchanges, sum(output_tokens) AS output_tokens FROM exchanges GROUP BY 1 ORDER BY 2 DESC";
    run(&["query", &store, sql], &[])?;
    let controls = ["--pack", "soc2", "--control", "cc6.1-callers", "--control", "cc7.2-unbroken"];
    run(&["assess", &store], &controls)?;
    let report = text(&dir.join("report.html"));
    run(&["report", &store], &[&controls[..], &["--out", report.as_str()]].concat())?;
    run(&["reperform", &store], &[])?;
    let exchange = chat.exchange().context("the first exchange's id")?.to_owned();
    run(&["show", &store, &exchange], &["--key-table", &table, "--reason", "quickstart"])?;
    show("auditor", &["access", "list", "--state", &state], 0)?;
    let bundle = text(&dir.join("proof.json"));
    run(&["prove", &store, &exchange], &["--out", &bundle])?;
    show("auditor", &["check-proof", &bundle, "--trust", &trust], 0)?;

    title("5. One changed byte");
    let forged = dir.join("forged");
    let copied = Command::new("cp").args(["-r", &store]).arg(&forged).status()?;
    ensure!(copied.success(), "the copy failed");
    let victim = find_records(&forged)?.context("a records file")?;
    let mut bytes = std::fs::read(&victim)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let _ = std::fs::remove_file(&victim);
    std::fs::write(&victim, bytes)?;
    println!("(bit 0 of byte {middle} of {} was flipped in a copy)", victim.strip_prefix(&dir)?.display());
    let forged = text(&forged);
    let other = text(&dir.join("auditor-state-2"));
    show("auditor", &["verify", &forged, "--trust", &trust, "--state", &other], 1)?;
    println!("\nEverything above is in {d}. Done.");
    Ok(())
}

/// Marks the one gateway of a trust file as taken out of service.
fn take_out_of_service(trust: &Path) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().append(true).open(trust)?;
    Ok(file.write_all(b"    closed: true\n")?)
}

/// The largest records file: where the traffic is.
fn find_records(dir: &Path) -> anyhow::Result<Option<PathBuf>> {
    let mut best: Option<(u64, PathBuf)> = None;
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let length = entry.metadata()?.len();
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.file_name().to_string_lossy().ends_with("records.parquet")
                && best.as_ref().is_none_or(|b| b.0 < length)
            {
                best = Some((length, entry.path()));
            }
        }
    }
    Ok(best.map(|(_, path)| path))
}

#[cfg(test)]
mod checks {
    use super::shell;

    #[test]
    fn a_printed_command_is_what_runs() {
        let args = ["query", "a b", r#"SELECT "end" FROM x WHERE y = 'z'"#, "--state", "/tmp/s", ""];
        let shown = shell("printf", &[&["%s\\n"][..], &args].concat());
        let told = std::process::Command::new("sh").args(["-c", &shown]).output().unwrap();
        let lines: Vec<&str> = std::str::from_utf8(&told.stdout).unwrap().lines().collect();
        assert_eq!(lines, args, "{shown}");
    }

    #[test]
    fn another_exit_code_than_wanted_ends_it() {
        let ends_with = |wanted| {
            super::ends_with(std::process::Command::new("sh").args(["-c", "exit 2"]), "auditor cost", wanted)
        };
        assert!(ends_with(2).is_ok());
        let error = ends_with(0).unwrap_err().to_string();
        assert_eq!(error, "`auditor cost` ended with exit code 2, wanted 0");
    }
}
