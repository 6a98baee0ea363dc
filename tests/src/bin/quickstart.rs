//! The product's main job in front of the user: traffic goes through the gateway, the auditor verifies the evidence
//! and prints what it cost, and a changed byte is found. Prints each command before it runs it.
#![expect(clippy::print_stdout, reason = "what it prints is its purpose")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tests::client::{Call, Got, Leave, send, send_until};
use tests::corpus;
use tests::provider::Provider;

/// The most recorded exchanges that are sent.
const RECORDED: usize = 60;

fn title(text: &str) {
    println!("\n=== {text}");
}

/// Runs one of our binaries, shows the command and its output; its exit code.
fn show(name: &str, args: &[&str], shown: &str) -> anyhow::Result<i32> {
    println!("\n$ {shown}");
    let status = Command::new(tests::binary(name)).args(args).stdin(Stdio::null()).status()?;
    Ok(status.code().unwrap_or(-1))
}

/// A child that is killed where the quick start fails half-way.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
    println!("\n$ gateway {}", args.join(" "));
    let output = Command::new(tests::binary("gateway")).args(args).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let key = String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .find(|w| w.starts_with("afk_"))
        .context("a gateway key")?
        .to_owned();
    print!("{}", String::from_utf8_lossy(&output.stderr));
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
    say(
        "a call with a wrong key",
        &send(address, &Call::post("/openai/v1/chat/completions", "afk_wrong_key", ask(false))).await,
    );
    let mut sent = 0;
    let mut different = 0;
    let step = (lines.len() / RECORDED).max(1);
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
        different += u32::from(got.body != line.response());
    }
    println!(
        "{sent} recorded exchanges replayed through it ({different} answers differ from the recorded bytes)"
    );

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

    title("4. The auditor, who trusts only the trust file");
    let base = ["--trust", &trust, "--state", &state];
    let run = |head: &[&str], tail: &[&str], shown: &str| {
        let args: Vec<&str> = head.iter().chain(&base).chain(tail).copied().collect();
        show("auditor", &args, shown)
    };
    let code = run(
        &["verify", &store],
        &["--key-table", &table],
        &format!("auditor verify {store} --trust {trust} --key-table {table}"),
    )?;
    ensure!(code == 0, "the evidence was not verified (exit {code})");
    run(
        &["cost", &store, "--by", "consumer,model"],
        &[],
        &format!("auditor cost {store} --trust {trust} --by consumer,model"),
    )?;
    let sql = "SELECT \"end\", count(*) AS exchanges, sum(output_tokens) AS output_tokens FROM exchanges GROUP BY 1 ORDER BY 2 DESC";
    run(&["query", &store, sql], &[], &format!("auditor query {store} '{sql}' --trust {trust}"))?;
    let controls = ["--pack", "soc2", "--control", "cc6.1-callers", "--control", "cc7.2-unbroken"];
    run(
        &["assess", &store],
        &controls,
        &format!("auditor assess {store} --trust {trust} {}", controls.join(" ")),
    )?;
    let exchange = chat.exchange().context("the first exchange's id")?.to_owned();
    run(
        &["show", &store, &exchange],
        &["--key-table", &table, "--reason", "quickstart"],
        &format!("auditor show {store} {exchange} --trust {trust} --key-table {table} --reason quickstart"),
    )?;
    let bundle = text(&dir.join("proof.json"));
    run(
        &["prove", &store, &exchange],
        &["--out", &bundle],
        &format!("auditor prove {store} {exchange} --trust {trust} --out {bundle}"),
    )?;
    show(
        "auditor",
        &["check-proof", &bundle, "--trust", &trust],
        &format!("auditor check-proof {bundle} --trust {trust}"),
    )?;

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
    let code = show(
        "auditor",
        &["verify", &forged, "--trust", &trust, "--state", &other],
        &format!("auditor verify {forged} --trust {trust}"),
    )?;
    if code != 1 {
        bail!("a changed byte was not found (exit {code})");
    }
    println!("\nEverything above is in {d}. Done.");
    Ok(())
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
