//! Timestamps of the registry, with OpenSSL as the authority and as a second judge of what is stored.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use auditor::finding::{Code, Effect};
use auditor::mandate::Mandate;
use auditor::report::{Report, Verdict};
use auditor::source::{DirectorySource, MemorySource};
use auditor::verify::{NoSink, Options, run};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas::names::AnchorKind;
use schemas::trust::{Trust, TrustedAuthority};
use schemas::{ObjectName, Sha256Hex};
use tests::deployment::Deployment;

const POLICY: &str = "1.3.6.1.4.1.99999.1";

fn openssl(dir: &Path, args: &[&str]) {
    let done = Command::new("openssl").args(args).current_dir(dir).output().expect("openssl is installed");
    assert!(done.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A root, a signing certificate from 2020 on, and one that ended in 2021.
struct Authority {
    dir: PathBuf,
}

impl Authority {
    fn make(dir: &Path) -> Self {
        std::fs::create_dir_all(dir.join("issued")).expect("a folder");
        let config = "[req]\ndistinguished_name=dn\n[dn]\n\
            [root]\nbasicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign\n\
            [ca]\ndefault_ca=c\n[c]\ndatabase=index\nnew_certs_dir=issued\nserial=serial\ndefault_md=sha256\npolicy=p\n\
            x509_extensions=tsa\nunique_subject=no\n[p]\ncommonName=supplied\n\
            [tsa]\nbasicConstraints=critical,CA:false\nextendedKeyUsage=critical,timeStamping\n\
            [one]\nserial=tsaserial\ncrypto_device=builtin\nsigner_digest=sha256\n\
            default_policy=1.3.6.1.4.1.99999.1\nother_policies=1.3.6.1.4.1.99999.2\ndigests=sha256\naccuracy=secs:1\n\
            ess_cert_id_alg=sha256\n";
        for (name, text) in [("cnf", config), ("index", ""), ("serial", "01\n"), ("tsaserial", "01\n")] {
            std::fs::write(dir.join(name), text).expect("a file");
        }
        let key =
            |name: &str| openssl(dir, &["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", name]);
        for name in ["root", "other"] {
            let (file, subject) = (format!("{name}.key"), format!("/CN=Timestamp {name}"));
            key(&file);
            let pem = format!("{name}.pem");
            let args =
                ["req", "-x509", "-new", "-key", &file, "-subj", &subject, "-days", "3650", "-config", "cnf"];
            openssl(dir, &[&args[..], &["-extensions", "root", "-out", &pem]].concat());
        }
        for (name, end) in [("tsa", "20400101000000Z"), ("ended", "20210101000000Z")] {
            let (file, request, pem) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
            key(&file);
            openssl(
                dir,
                &["req", "-new", "-key", &file, "-subj", "/CN=TSA", "-config", "cnf", "-out", &request],
            );
            let args =
                ["ca", "-batch", "-config", "cnf", "-cert", "root.pem", "-keyfile", "root.key", "-notext"];
            let times = ["-startdate", "20200101000000Z", "-enddate", end, "-in", &request, "-out", &pem];
            openssl(dir, &[&args[..], &times].concat());
        }
        Self { dir: dir.to_owned() }
    }

    /// The answer to a request, or the token in it.
    fn reply(&self, query: &[u8], more: &[&str]) -> Vec<u8> {
        std::fs::write(self.dir.join("query"), query).expect("a file");
        let args = ["ts", "-reply", "-config", "cnf", "-section", "one", "-queryfile", "query"];
        let signer = ["-signer", "tsa.pem", "-inkey", "tsa.key", "-out", "answer"];
        openssl(&self.dir, &[&args[..], &signer, more].concat());
        std::fs::read(self.dir.join("answer")).expect("an answer")
    }

    /// The answer to a request with a token that has other content.
    fn changed(&self, query: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let token = self.made(&self.reply(query, &["-token_out"]), "tsa", change);
        // SEQUENCE { SEQUENCE { INTEGER 0 }, token }
        let body = [&[0x30, 3, 2, 1, 0][..], &token].concat();
        let length = u16::try_from(body.len()).expect("a short answer").to_be_bytes();
        [&[0x30, 0x82][..], &length, &body].concat()
    }

    /// A token like this one with other content, by this certificate: what somebody with the authority's key makes.
    fn made(&self, token: &[u8], by: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        std::fs::write(self.dir.join("token"), token).expect("a file");
        openssl(
            &self.dir,
            &["cms", "-verify", "-noverify", "-inform", "DER", "-in", "token", "-out", "info"],
        );
        let mut info = std::fs::read(self.dir.join("info")).expect("its content");
        change(&mut info);
        std::fs::write(self.dir.join("info"), info).expect("a file");
        let (certificate, key) = (format!("{by}.pem"), format!("{by}.key"));
        let args = ["cms", "-sign", "-cades", "-binary", "-nodetach", "-md", "sha256", "-econtent_type"];
        let more = ["1.2.840.113549.1.9.16.1.4", "-signer", &certificate, "-inkey", &key];
        openssl(
            &self.dir,
            &[&args[..], &more, &["-in", "info", "-outform", "DER", "-out", "token"]].concat(),
        );
        std::fs::read(self.dir.join("token")).expect("a token")
    }

    /// As a trust file names it.
    fn trusted(&self, root: &str) -> TrustedAuthority {
        let pem = std::fs::read(self.dir.join(root)).expect("a root");
        let der = schemas::timestamp::certificates(&pem).expect("a certificate");
        TrustedAuthority {
            name: "openssl".into(),
            certificates: der.iter().map(|der| STANDARD.encode(der)).collect(),
            intermediates: vec![],
            policy: Some(POLICY.into()),
            signers: vec![],
        }
    }
}

/// Answers over HTTP; between good answers it is down, answers something else, or with tokens that must not be kept.
fn serve(authority: Arc<Authority>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().filter_map(Result::ok) {
            let query = request(&stream);
            let mut status = "200 OK";
            let body = match count.fetch_add(1, Ordering::SeqCst) {
                0 => {
                    status = "503 Service Unavailable";
                    Vec::new()
                }
                1 => b"<html>not a timestamp</html>".to_vec(),
                // The answer to another request: an old one, shown again.
                3 => authority.reply(&other_query(&query), &[]),
                // Made before the checkpoint; not made yet; under another policy than was asked for.
                4 => authority.changed(&query, |info| shift(info, -2)),
                6 => authority.changed(&query, |info| shift(info, 2)),
                7 => authority.changed(&query, |info| other_policy(info)),
                _ => authority.reply(&query, &[]),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/timestamp-reply\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let mut stream = stream;
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    (address, asked)
}

/// The same request with another nonce, in the last bytes before `certReq`.
fn other_query(query: &[u8]) -> Vec<u8> {
    let mut other = query.to_vec();
    let at = other.len() - 5;
    other[at] ^= 1;
    other
}

/// Moves the hour of `YYYYMMDDhhmmssZ` in the content of a token.
fn shift(info: &mut [u8], hours: i64) {
    let at = info.windows(2).position(|pair| pair == [0x18, 0x0f]).expect("a GeneralizedTime") + 2;
    let text = String::from_utf8_lossy(&info[at..at + 14]).into_owned();
    let time = format!(
        "{}-{}-{}T{}:{}:{}Z",
        &text[..4],
        &text[4..6],
        &text[6..8],
        &text[8..10],
        &text[10..12],
        &text[12..14]
    );
    let time: jiff::Timestamp = time.parse().expect("a time");
    let time = time.checked_add(jiff::SignedDuration::from_hours(hours)).expect("in range");
    info[at..at + 14].copy_from_slice(time.strftime("%Y%m%d%H%M%S").to_string().as_bytes());
}

/// `1.3.6.1.4.1.99999.1` becomes `1.3.6.1.4.1.99999.2`.
fn other_policy(info: &mut [u8]) {
    let policy = [0x2b, 6, 1, 4, 1, 0x86, 0x8d, 0x1f, 1];
    let at = info.windows(policy.len()).position(|part| part == policy).expect("the policy");
    info[at + policy.len() - 1] = 2;
}

fn request(mut stream: &TcpStream) -> Vec<u8> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            let length: usize = length.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            if bytes.len() >= head.len() + 4 + length {
                return bytes.split_off(bytes.len() - length);
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return Vec::new(),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

fn judged(store: &MemorySource, trust: &Trust, now: i64, require: &[&str]) -> Report {
    let mut mandate = Mandate::default();
    for text in require {
        mandate.require(text).expect("a requirement");
    }
    let mut options = Options::new(trust, &mandate, now);
    options.to = Some(now);
    run(store, &options, &mut NoSink).0
}

#[track_caller]
fn finds(report: &Report, code: Code, verdict: Verdict) {
    let codes: BTreeSet<_> =
        report.findings.iter().filter(|f| f.effect != Effect::Note).map(|f| f.code).collect();
    assert!(codes.contains(&code), "{code} not in {codes:?}");
    assert_eq!(report.verdict, verdict, "{}", auditor::render::text::report(report));
}

#[test]
fn a_registry_is_timestamped_and_every_wrong_token_is_found() {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = Arc::new(Authority::make(&dir.path().join("tsa")));
    let (address, asked) = serve(Arc::clone(&authority));
    let (deployment, mut gateway, mut registrar) = Deployment::with_gateway(dir.path());
    registrar.spawn_with(&format!(
        "timestamp: {{ url: \"http://{address}/\", every: 0s, policy: {POLICY}, roots: tsa/root.pem }}\n"
    ));
    let store = gateway.store();
    deployment.settle(&registrar, &store);
    let mut trust = deployment.trust();
    trust.timestamp_authorities = vec![authority.trusted("root.pem")];
    // Wrong answers come first: none is kept, and the registry goes on.
    registrar.until("a verdict with a timestamp", || {
        let (code, text) = deployment.verify(
            &store,
            &trust,
            &["--require", "timestamped", "--require", "timestamped_within=1h"],
        );
        assert!(
            code == 0 || text.contains("BATCH_IN_FLIGHT") || text.contains("CLAIM_NOT_REACHED"),
            "{text}"
        );
        code == 0 && text.contains("; timestamped up to 20")
    });
    for (n, gateway) in ["gw9", "gw10"].into_iter().enumerate() {
        let before = deployment.newest(&store).0;
        deployment.enroll(gateway, &schemas::trust::key_text(&[9 + n as u8; 32]));
        registrar.until("one more entry", || deployment.newest(&store).0 > before);
        registrar.until("its timestamp", || deployment.objects(&store, ".timestamp").len() >= n + 2);
    }
    assert!(asked.load(Ordering::SeqCst) >= 9, "the wrong answers were asked for");
    let metrics = registrar.metrics();
    for (result, count) in [("refused", 1), ("bad_answer", 5)] {
        let wanted = format!("anchor_requests_total{{by=\"timestamp\",result=\"{result}\"}} {count}\n");
        assert!(metrics.contains(&wanted), "{wanted}{metrics}");
    }
    let log = registrar.log();
    for wanted in [
        "503",
        "nonce",
        "over a checkpoint that was sealed at",
        "and now is",
        "asked for 1.3.6.1.4.1.99999.1",
    ] {
        assert!(log.contains(wanted), "{wanted} in {log}");
    }
    gateway.stop();
    registrar.kill();
    // OpenSSL takes what is stored.
    for token in deployment.objects(&store, ".timestamp") {
        let name = token.file_name().map(|name| name.to_string_lossy().into_owned()).expect("a name");
        let checkpoint = token.with_file_name(format!("{}.checkpoint", &name[..10]));
        let (data, token) = (checkpoint.display().to_string(), token.display().to_string());
        let root = authority.dir.join("root.pem").display().to_string();
        openssl(dir.path(), &["ts", "-verify", "-data", &data, "-token_in", "-in", &token, "-CAfile", &root]);
    }
    attacks(&deployment, &authority, &store, &trust);
}

fn attacks(deployment: &Deployment, authority: &Authority, store: &Path, trust: &Trust) {
    let whole = MemorySource::load(&DirectorySource::new(store).expect("the store")).expect("readable");
    // At the newest seal of the registry nothing is overdue.
    let now = deployment.newest(store).1;
    let sound = judged(&whole, trust, now, &["timestamped"]);
    let tail = |report: &Report| {
        report.findings.iter().any(|f| f.effect > Effect::Note && f.code != Code::TailUnproven)
    };
    assert!(!tail(&sound), "{}", auditor::render::text::report(&sound));
    let verdict = sound.verdict;
    let names: Vec<String> =
        whole.objects.keys().filter(|name| name.ends_with(".timestamp")).cloned().collect();
    let (first, last) = (&names[0], &names[names.len() - 1]);
    let token = whole.objects[last].to_vec();
    let batch = |name: &str| ObjectName::parse(name).expect("the name of an object").batch();
    let beside = |batch: u64, bytes: Vec<u8>| {
        let (origin, sha256) = (deployment.origin(), Sha256Hex::of(&bytes));
        let name = ObjectName::Anchor { origin, batch, sha256, kind: AnchorKind::Timestamp }.to_string();
        let mut store = whole.clone();
        store.put(name, bytes);
        judged(&store, trust, now, &[])
    };
    // A token of another checkpoint; one that was changed; no token.
    let moved = beside(batch(first), token.clone());
    finds(&moved, Code::TimestampInvalid, Verdict::Invalid);
    assert!(moved.findings.iter().any(|f| f.found.contains("over other bytes")));
    let mut changed = token.clone();
    let at = changed.len() - 3;
    changed[at] ^= 1;
    finds(&beside(batch(last), changed.clone()), Code::TimestampInvalid, Verdict::Invalid);
    finds(&beside(batch(last), b"rubbish".to_vec()), Code::TimestampInvalid, Verdict::Invalid);
    let mut renamed = whole.clone();
    renamed.put(last.clone(), changed);
    finds(&judged(&renamed, trust, now, &[]), Code::FileMismatch, Verdict::Invalid);
    // An authority that is not the trust file's, another policy, another signer.
    let with =
        |authority: TrustedAuthority| Trust { timestamp_authorities: vec![authority], ..trust.clone() };
    let own = authority.trusted("root.pem");
    let mut others = vec![authority.trusted("other.pem")];
    others.push(TrustedAuthority { policy: Some("1.3.6.1.4.1.99999.2".into()), ..own.clone() });
    others.push(TrustedAuthority { signers: vec![Sha256Hex([1; 32])], ..own.clone() });
    for other in others {
        let report = judged(&whole, &with(other), now, &[]);
        finds(&report, Code::TimestampUntrusted, verdict.max(Verdict::Policy));
        assert!(report.first_line().contains("NOT timestamped;"), "{}", report.first_line());
    }
    // Without a named authority tokens are not judged.
    let none = judged(&whole, &Trust { timestamp_authorities: vec![], ..trust.clone() }, now, &[]);
    assert!(none.findings.has(Code::UnknownSignature) && none.first_line().contains("NOT timestamped;"));
    // A certificate that had ended when it signed.
    let ended = authority.made(&token, "ended", |_| {});
    finds(&beside(batch(last), ended), Code::TimestampUntrusted, verdict.max(Verdict::Policy));
    // A time before the seal was made, and one that is not yet.
    let shifted = |hours: i64| authority.made(&token, "tsa", |info| shift(info, hours));
    for hours in [-2, 2] {
        finds(&beside(batch(last), shifted(hours)), Code::TimeContradiction, Verdict::Invalid);
    }
    // Years later, when the certificate has ended: what was good stays good, and asks for another token over it.
    let later = now + 20 * 365 * 86_400_000_000;
    let report = judged(&whole, trust, later, &[]);
    assert!(report.findings.has(Code::TimestampNeedsRenewal), "{}", auditor::render::text::report(&report));
    let stale = judged(&whole, trust, later, &["timestamped_within=1d"]);
    assert!(stale.findings.has(Code::StaleAnchor) && stale.first_line().contains("NOT timestamped up to"));
}
