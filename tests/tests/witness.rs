//! Witnesses of the registry, as processes: what a registrar asks of them, what they refuse, what the auditor makes of
//! it. One that is not ours stands on either side in `a_witness_and_a_log_that_are_not_ours`.

use std::process::Command;

use tests::copy;
use tests::deployment::Deployment;
use tests::process::{Process, free_port, http};
use tests::registrar::directory;
use tests::witness::Witness;

#[test]
fn two_witnesses_cosign_and_one_that_was_killed_catches_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let (deployment, mut gateway, mut registrar) = Deployment::with_gateway(dir.path());
    let (origin, log) = (deployment.origin().to_string(), [deployment.log_key()]);
    let first = Witness::start(&dir.path().join("w1"), "w1.example/w", &log);
    let mut second = Witness::start(&dir.path().join("w2"), "w2.example/w", &log);
    registrar.spawn_with(&Witness::asked(&[&first, &second]));
    let store = gateway.store();
    deployment.settle(&registrar, &store);
    let mut trust = deployment.trust();
    trust.witnesses = vec![first.trusted("bank"), second.trusted("auditors")];
    let both =
        |second: &Witness, wanted: u64| first.size(&origin) >= wanted && second.size(&origin) >= wanted;
    registrar.until("both witnesses", || both(&second, deployment.newest(&store).0));
    // What both saw is a moment old where the gateway seals meanwhile.
    registrar.until("a verdict with two witnesses", || {
        let (code, text) = deployment.verify(&store, &trust, &["--require", "witnessed=2"]);
        assert!(
            code == 0 || text.contains("BATCH_IN_FLIGHT") || text.contains("CLAIM_NOT_REACHED"),
            "{text}"
        );
        code == 0 && text.contains("; witnessed by 2 organisations up to 20")
    });
    let (code, text) = deployment.verify(&store, &trust, &["--require", "witnessed=3"]);
    assert!(code == 1 && text.starts_with("POLICY") && text.contains("CLAIM_NOT_REACHED"), "{text}");
    // One is killed; the registry goes on, and the other cosigns on.
    second.kill();
    let before = deployment.newest(&store).0;
    for n in 0..3_u8 {
        deployment.enroll(&format!("gw{}", n + 10), &schemas::trust::key_text(&[n + 10; 32]));
    }
    registrar.until("the registry to go on", || deployment.newest(&store).0 >= before + 3);
    registrar.until("the other witness", || first.size(&origin) >= before + 3);
    registrar.until("the failure in the metrics", || {
        let by = r#"gateway_registrar_anchor_requests_total{by="w2.example/w",result="no_answer"}"#;
        registrar.metrics().contains(by)
    });
    second.serve();
    registrar.until("the one that was killed", || second.size(&origin) >= before + 3);
    registrar.until("a verdict with both again", || {
        let (code, text) =
            deployment.verify(&store, &trust, &["--require", "witnessed=2", "--ask-witnesses"]);
        assert!(!text.contains("REGISTRY_ROLLBACK") && !text.contains("EQUIVOCATION"), "{text}");
        code == 0
    });
    // A registrar that starts anew knows nothing, and goes on where the witnesses are.
    registrar.spawn_with(&Witness::asked(&[&first, &second]));
    let before = deployment.newest(&store).0;
    deployment.enroll("gw20", &schemas::trust::key_text(&[20; 32]));
    registrar.until("both after a restart", || both(&second, before + 1));
    gateway.stop();
}

#[test]
fn a_registry_that_was_cut_back_gets_no_cosignature_and_is_shown_to_a_first_visitor() {
    let dir = tempfile::tempdir().expect("a folder");
    let (deployment, mut gateway, mut registrar) = Deployment::with_gateway(dir.path());
    let origin = deployment.origin().to_string();
    let witness = Witness::start(&dir.path().join("w1"), "w1.example/w", &[deployment.log_key()]);
    let store = gateway.store();
    // What somebody put there keeps the registrar from nothing, and is told.
    let foreign = store.join("test/gw1/20200101t000000z-00000000");
    std::fs::create_dir_all(&foreign).expect("a log's folder");
    let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
    rustix::fs::mknodat(rustix::fs::CWD, foreign.join("0000000000.seal"), fifo, mode, 0).expect("a FIFO");
    registrar.spawn_with(&Witness::asked(&[&witness]));
    deployment.settle(&registrar, &store);
    registrar.until("what was set aside, in the metrics", || {
        registrar.metrics().contains("gateway_registrar_set_aside_total 1\n")
    });
    assert_eq!(registrar.log().matches("20200101t000000z-00000000/0000000000.seal").count(), 1);
    for n in 0..4_u8 {
        let before = deployment.newest(&store).0;
        deployment.enroll(&format!("gw{}", n + 10), &schemas::trust::key_text(&[n + 10; 32]));
        registrar.until("the entry", || deployment.newest(&store).0 > before);
    }
    gateway.stop();
    registrar.until("the witness", || witness.size(&origin) == deployment.newest(&store).0);
    registrar.kill();
    let (whole, seen) = (deployment.newest(&store).0, witness.size(&origin));
    assert_eq!(whole, seen);
    // The operator cuts the registry back in a copy, with keys and all, and goes on from there.
    let cut = dir.path().join("cut");
    copy(&store, &cut);
    let newest = deployment.objects(&cut, ".seal").len() - 1;
    for batch in newest - 2..=newest {
        for path in deployment.objects(&cut, "") {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with(&format!("{batch:010}")) {
                std::fs::remove_file(&path).expect("removed");
            }
        }
    }
    let kept = deployment.objects(&cut, ".cosignature").len();
    let mut forged = deployment.registrar("forged", &directory(&cut), &[]);
    forged.spawn_with(&Witness::asked(&[&witness]));
    forged.until("the registrar to see it", || {
        let metrics = forged.metrics();
        ["ahead", "fork", "refused"].iter().any(|result| metrics.contains(&format!("result=\"{result}\"")))
    });
    // It grows beyond what the witness saw: a fork, by now.
    for n in 0..6_u8 {
        deployment.enroll(&format!("gw{}", n + 30), &schemas::trust::key_text(&[n + 30; 32]));
    }
    forged.until("a longer registry", || deployment.newest(&cut).0 > seen);
    std::thread::sleep(std::time::Duration::from_secs(3));
    forged.kill();
    assert_eq!(witness.size(&origin), seen, "nothing of it was cosigned");
    assert_eq!(deployment.objects(&cut, ".cosignature").len(), kept);
    assert!(forged.log().contains("no word on the registry") || forged.log().contains("does not continue"));
    let mut trust = deployment.trust();
    trust.witnesses = vec![witness.trusted("bank")];
    // Without a word from outside the fork is sound in itself; with it, it is none.
    let (_, alone) = deployment.verify(&cut, &trust, &[]);
    assert!(!alone.contains("EQUIVOCATION") && !alone.contains("REGISTRY_ROLLBACK"), "{alone}");
    let (code, text) = deployment.verify(&cut, &trust, &["--ask-witnesses"]);
    assert!(code == 1 && text.starts_with("DIVERGED"), "{text}");
    assert!(text.contains("EQUIVOCATION") || text.contains("REGISTRY_ROLLBACK"), "{text}");
    // The same from a file, and on the registry as it was before it grew again.
    let answer = http(witness.address, &format!("GET /checkpoint/{origin}"), b"");
    let note = dir.path().join("from-the-bank");
    std::fs::write(&note, answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)).expect("a file");
    let note = note.display().to_string();
    for path in deployment.objects(&cut, "") {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.as_str() >= format!("{:010}", newest - 2).as_str() {
            std::fs::remove_file(&path).expect("removed");
        }
    }
    let (code, text) = deployment.verify(&cut, &trust, &["--witness-note", &note]);
    assert!(code == 1 && text.contains("REGISTRY_ROLLBACK"), "{text}");
    let (_, text) = deployment.verify(&store, &trust, &["--witness-note", &note]);
    assert!(!text.contains("REGISTRY_ROLLBACK") && !text.contains("EQUIVOCATION"), "{text}");
}

#[test]
fn hostile_requests_get_their_status_and_the_witness_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = schemas::note::Ed25519Signer::from_seed([5; 32]);
    let public = schemas::note::Signer::public_key(&log);
    let key = schemas::note::VerifyingKey::new("a/b/c", public).expect("a name").to_string();
    let mut witness = Witness::start(&dir.path().join("w"), "w.example/w", &[key]);
    let address = witness.address;
    let post = |body: &[u8]| http(address, "POST /add-checkpoint", body);
    let head = |size: u64| format!("a/b/c\n{size}\nBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=\n");
    let signed = |text: &str, by: &schemas::note::Ed25519Signer| {
        String::from_utf8(schemas::note::sign(text, &[("a/b/c", by)]).expect("a note")).expect("text")
    };
    let good = signed(&head(5), &log);
    assert!(post(format!("old 0\n\n{good}").as_bytes()).starts_with("HTTP/1.1 200"));
    let answer = post(format!("old 3\n\n{good}").as_bytes()).to_ascii_lowercase();
    assert!(
        answer.starts_with("http/1.1 409") && answer.contains("content-type: text/x.tlog.size"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\n5\n"), "{answer}");
    let other = schemas::note::Ed25519Signer::from_seed([6; 32]);
    let cases: &[(String, &str)] = &[
        (format!("old 5\n\n{}", signed(&head(5), &other)), "403"),
        (format!("old 5\n\n{}", signed(&head(9), &log)), "422"),
        (format!("old 9\n\n{good}"), "400"),
        (format!("old 5\n\n{}", good.replace("a/b/c", "a/b/d")), "404"),
        (format!("old 5\n\n{}", signed(&head(5).replace("BQUF", "CQUF"), &log)), "409"),
        ("old 5\n".into(), "400"),
        ("\u{0}".repeat(100), "400"),
        ("x".repeat(100_000), "400"),
    ];
    for (body, status) in cases {
        let answer = post(body.as_bytes());
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) || (body.len() > 65_536 && answer.is_empty()),
            "{status}: {answer}"
        );
    }
    assert!(http(witness.address, "GET /add-checkpoint", b"").starts_with("HTTP/1.1 405"));
    assert!(http(witness.address, "GET /checkpoint/nothing", b"").starts_with("HTTP/1.1 404"));
    assert_eq!(witness.size("a/b/c"), 5);
    let serve = || {
        let mut again = Command::new(tests::binary("auditor"));
        let again = again.args(["witness", "serve", "-c"]).arg(dir.path().join("w/witness.yaml")).output();
        let again = again.expect("the auditor starts");
        assert_eq!(again.status.code(), Some(2));
        String::from_utf8_lossy(&again.stderr).into_owned()
    };
    // A second process on the same state does not start; nor does one that would have to begin anew.
    assert!(serve().contains("used by another process"));
    witness.kill();
    let state = dir.path().join("w/state").join(schemas::Sha256Hex::of(b"a/b/c").to_string());
    let kept = std::fs::read(&state).expect("the state of the log");
    std::fs::remove_file(&state).expect("removed");
    assert!(serve().contains("log `a/b/c` was cosigned, and how far is not known"));
    std::fs::write(&state, kept).expect("put back");
    witness.serve();
    assert_eq!(witness.size("a/b/c"), 5);
}

fn text(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
#[ignore = "needs Go"]
fn a_witness_and_a_log_that_are_not_ours() {
    let dir = tempfile::tempdir().expect("a folder");
    let program = dir.path().join("theirs");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(tests::root().join("tests/witness"))
        .status()
        .expect("Go is installed");
    assert!(built.success());
    // Their log, with their client and their verifier, against our witness.
    let made = Command::new(&program).arg("keygen").output().expect("their program");
    let keys = String::from_utf8_lossy(&made.stdout).into_owned();
    let (secret, public) = keys.trim().split_once('\n').expect("two keys");
    let ours = Witness::start(&dir.path().join("w1"), "w1.example/w", &[public.to_owned()]);
    let grown = Command::new(&program)
        .args(["log", "-url", &format!("http://{}", ours.address), "-witness", &ours.key, "-key", secret])
        .output()
        .expect("their program");
    let told = String::from_utf8_lossy(&grown.stdout).into_owned() + &String::from_utf8_lossy(&grown.stderr);
    assert!(grown.status.success(), "{told}");
    // Our registrar and our auditor against their witness.
    let (deployment, mut gateway, mut registrar) = Deployment::with_gateway(&dir.path().join("d"));
    let address = free_port();
    let mut command = Command::new(&program);
    command.args(["witness", "-listen", &address.to_string(), "-log", &deployment.log_key()]);
    let log = dir.path().join("theirs.log");
    let mut theirs = Process::start(&mut command, &log);
    theirs.until("their witness tells its key", || text(&log).contains('+'));
    let key = theirs.log().lines().find(|line| line.contains('+')).expect("its key").trim().to_owned();
    registrar.spawn_with(&format!("witnesses:\n  - {{ key: \"{key}\", url: \"http://{address}\" }}\n"));
    let store = gateway.store();
    deployment.settle(&registrar, &store);
    let mut trust = deployment.trust();
    trust.witnesses =
        vec![schemas::trust::TrustedWitness { key: key.clone(), organisation: "theirs".into(), url: None }];
    registrar.until("a verdict with their witness", || {
        let (code, text) = deployment.verify(&store, &trust, &["--require", "witnessed"]);
        code == 0 && text.contains("; witnessed by 1 organisation up to")
    });
    for n in 0..2_u8 {
        let before = deployment.objects(&store, ".cosignature").len();
        deployment.enroll(&format!("gw{}", n + 10), &schemas::trust::key_text(&[n + 10; 32]));
        registrar.until("one more cosignature", || deployment.objects(&store, ".cosignature").len() > before);
    }
    // Their note verifier takes what we store.
    for path in deployment.objects(&store, ".cosignature") {
        let held = Command::new(&program)
            .args(["check", "-witness", &key, "-log", &deployment.log_key(), "-note"])
            .arg(&path)
            .status()
            .expect("their program");
        assert!(held.success(), "{}", path.display());
    }
    gateway.stop();
}
