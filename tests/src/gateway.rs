//! The real gateway and auditor binaries in a folder of their own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{Process, free_port, ran};

/// A folder with a configuration, keys, evidence, and a gateway that runs in it.
#[derive(Debug)]
pub struct Gateway {
    /// The folder.
    pub dir: PathBuf,
    /// Where callers connect.
    pub address: SocketAddr,
    /// Where `/readyz` and `/metrics` are.
    pub admin: SocketAddr,
    /// The gateway key of the consumer `tester`.
    pub key: String,
    store: PathBuf,
    environment: Vec<(String, String)>,
    process: Option<Process>,
}

/// What a test changes in the configuration.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// The deployment's name; empty: `test`.
    pub deployment: String,
    /// The gateway's name; empty: `gw1`.
    pub name: String,
    /// Base URL of the provider (`http://...`).
    pub provider: String,
    /// `exchange`, `consumer_day` or `subject_day`; empty: `exchange`.
    pub keys: String,
    /// Text for the `evidence` section, indented by two.
    pub evidence: String,
    /// Text for the `limits` section, indented by two.
    pub limits: String,
    /// Text added to each route, indented by four.
    pub route: String,
    /// Further dialects: each gets a provider and a route of its name.
    pub further: Vec<&'static str>,
    /// Further providers, each an item of the list, indented by two.
    pub providers: String,
    /// Further routes likewise.
    pub routes: String,
    /// Text at the end of the configuration.
    pub rest: String,
    /// The value of `evidence.out`; empty: a folder.
    pub out: String,
    /// Variables of the gateway's process.
    pub environment: Vec<(String, String)>,
    /// Where the evidence goes; empty: folders in `dir`.
    pub evidence_dir: Option<PathBuf>,
}

impl Gateway {
    /// Writes configuration and keys into `dir`; does not start.
    ///
    /// # Panics
    /// Where a command of the gateway fails.
    pub fn prepare(dir: &Path, setup: &Setup) -> Self {
        std::fs::create_dir_all(dir).expect("a folder for the gateway");
        let address = free_port();
        let admin = free_port();
        let name = if setup.name.is_empty() { "gw1" } else { &setup.name };
        let deployment = if setup.deployment.is_empty() { "test" } else { &setup.deployment };
        let evidence = setup.evidence_dir.clone().unwrap_or_else(|| dir.to_owned());
        let keys = if setup.keys.is_empty() { "exchange" } else { &setup.keys };
        let route = |name: &str| {
            format!(
                "  - name: {name}\n    path: /{name}\n    provider: {name}\n    keys: {keys}\n{}",
                setup.route
            )
        };
        let provider = |name: &str, dialect: &str| {
            format!(
                "  - name: {name}\n    dialect: {dialect}\n    base_url: {}\n    credential: {{ file: {}/provider.key }}\n",
                setup.provider,
                dir.display()
            )
        };
        let config = format!(
            "deployment: {deployment}\ngateway: {name}\nlisten:\n  - address: {address}\nadmin: {admin}\n\
             evidence:\n  journal: {e}/journal\n  spool: {e}/spool\n  key_table: {d}/keytable\n  seal_key: {d}/seal.key\n  \
             out: {out}\n  batch_age: 1s\n{segment}{evidence}\
             limits:\n  drain: 50s\n{limits}\
             providers:\n{p1}{p2}{p3}{further}{more_p}routes:\n{r1}{r2}{r3}{ways}{more_r}\
             keys: {d}/keys.yaml\nprices: {prices}\n{rest}",
            d = dir.display(),
            e = evidence.display(),
            out = if setup.out.is_empty() {
                format!("{{ directory: {}/store }}", evidence.display())
            } else {
                setup.out.clone()
            },
            // Small, so that a start does not write 64 MiB.
            segment = if setup.evidence.contains("segment:") { "" } else { "  segment: 8MiB\n" },
            evidence = setup.evidence,
            limits = setup.limits,
            p1 = provider("openai", "openai"),
            p2 = provider("azure", "azure_openai"),
            p3 = provider("anthropic", "anthropic"),
            more_p = setup.providers,
            more_r = setup.routes,
            r1 = route("openai"),
            r2 = route("azure"),
            r3 = route("anthropic"),
            further = setup.further.iter().map(|dialect| provider(dialect, dialect)).collect::<String>(),
            ways = setup.further.iter().map(|dialect| route(dialect)).collect::<String>(),
            prices = price_book().display(),
            rest = setup.rest,
        );
        std::fs::write(dir.join("gateway.yaml"), config).expect("the configuration is written");
        let provider_key = dir.join("provider.key");
        std::fs::write(&provider_key, "sk-provider-secret-0123456789")
            .expect("the provider's key is written");
        std::fs::set_permissions(&provider_key, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("its mode");
        let bin = crate::binary("gateway");
        let trust = ran(Command::new(&bin)
            .args(["keygen", "--deployment", deployment, "--gateway", name, "--out"])
            .arg(dir.join("seal.key")));
        std::fs::write(dir.join("trust.yaml"), trust).expect("the trust file is written");
        let key =
            ran(Command::new(&bin).args(["keys", "issue", "--file"]).arg(dir.join("keys.yaml")).args([
                "--consumer",
                "tester",
                "--team",
                "quality",
                "--cost-centre",
                "cc-1",
                "--system",
                "sys-1",
                "--purpose",
                "testing",
                "--data-class",
                "public",
            ]));
        let key = key
            .split_whitespace()
            .find(|w| w.starts_with("afk_"))
            .expect("`keys issue` prints the key")
            .to_owned();
        let (store, environment) = (evidence.join("store"), setup.environment.clone());
        Self { dir: dir.to_owned(), address, admin, key, store, environment, process: None }
    }

    /// One whose `gateway.yaml`, `trust.yaml`, keys and `store` are in `dir` already; does not start.
    pub fn found(
        dir: &Path,
        [address, admin]: [SocketAddr; 2],
        key: &str,
        environment: Vec<(String, String)>,
    ) -> Self {
        let (dir, key) = (dir.to_owned(), key.to_owned());
        Self { store: dir.join("store"), dir, address, admin, key, environment, process: None }
    }

    /// As [`Gateway::prepare`], with receipts for callers on every route and the key that they need.
    ///
    /// # Panics
    /// Where a command of the gateway fails.
    pub fn prepare_promising(dir: &Path, setup: &Setup) -> Self {
        let setup = Setup {
            evidence: format!("{}  promise_key: promise.key\n", setup.evidence),
            route: format!("{}    receipts: true\n", setup.route),
            ..setup.clone()
        };
        let gateway = Self::prepare(dir, &setup);
        ran(Command::new(crate::binary("gateway"))
            .args(["keygen", "--deployment", "test", "--gateway", "gw1", "--out"])
            .arg(dir.join("unused.key"))
            .arg("--promise-key")
            .arg(dir.join("promise.key")));
        gateway
    }

    /// Prepares and starts, and waits until it is ready.
    pub fn start(dir: &Path, setup: &Setup) -> Self {
        let mut gateway = Self::prepare(dir, setup);
        gateway.serve();
        gateway
    }

    /// Starts the process and waits until it is ready.
    ///
    /// # Panics
    /// Where it does not become ready within 60 s; its log is in `gateway.log`.
    pub fn serve(&mut self) {
        self.serve_with(&[]);
    }

    /// As [`Gateway::serve`], with more arguments.
    ///
    /// # Panics
    /// As there.
    pub fn serve_with(&mut self, more: &[&str]) {
        self.process = Some(self.start_with(more));
        let admin = self.admin;
        if let Some(process) = &mut self.process {
            process.until("the gateway is ready", || ready(admin));
        }
    }

    /// As [`Gateway::serve`], and starts the process again where it ends before it is ready, as a supervisor does: a
    /// store that does not answer in time ends a start. Gives how many starts it took.
    ///
    /// # Panics
    /// Where it does not become ready within 60 s.
    pub fn serve_supervised(&mut self) -> u64 {
        let begun = Instant::now();
        let mut starts = 0;
        loop {
            self.kill();
            self.spawn();
            starts += 1;
            while self.process.as_mut().is_some_and(Process::is_alive) {
                if self.ready() {
                    return starts;
                }
                assert!(
                    begun.elapsed() < Duration::from_secs(60),
                    "the gateway is not ready:\n{}",
                    self.log()
                );
                std::thread::sleep(Duration::from_millis(10));
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "the gateway does not stay:\n{}", self.log());
        }
    }

    /// From the next start on its process has these variables.
    pub fn set_environment(&mut self, environment: &[(&str, &str)]) {
        let owned = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.environment = owned.collect();
    }

    /// Starts the process and does not wait.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn spawn(&mut self) {
        self.process = Some(self.start_with(&[]));
    }

    /// Starts another process that takes the place of the one that serves; gives the old one, which is to end by itself.
    ///
    /// # Panics
    /// Where it cannot be started, or does not serve within a minute.
    pub fn take_over(&mut self, more: &[&str]) -> Option<Process> {
        let served = |log: &str| log.lines().filter(|line| line.contains("serving")).count();
        let before = served(&self.log());
        let old = self.process.take();
        let (mut new, log) =
            (self.start_with(&[&["--take-over"], more].concat()), self.dir.join("gateway.log"));
        // Two lines say it: the old process hears of it, the new one serves.
        new.until("the new gateway serves", || {
            served(&std::fs::read_to_string(&log).unwrap_or_default()) > before
        });
        self.process = Some(new);
        old
    }

    /// Starts a process that is to take the place of the one that serves, and does not wait.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn spawn_take_over(&self) -> Process {
        self.start_with(&["--take-over"])
    }

    /// The process, where one was started.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Waits until it logged `text` for the `count`th time.
    ///
    /// # Panics
    /// Where that takes longer than a minute.
    pub async fn wait_for_log(&self, text: &str, count: usize) {
        let begun = Instant::now();
        while self.log().matches(text).count() < count {
            assert!(begun.elapsed() < Duration::from_secs(60), "`{text}` does not come:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs another command of the gateway on this configuration: exit code, stdout and stderr.
    ///
    /// # Panics
    /// Where the binary cannot be started.
    pub fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(arguments).output().expect("the gateway's binary");
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        (output.status.code().unwrap_or(-1), said.concat())
    }

    /// Another command of the gateway on this configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(crate::binary("gateway"));
        command.args(arguments).arg("-c").arg(self.dir.join("gateway.yaml"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command
    }

    /// Starts `serve` with more arguments.
    fn start_with(&self, more: &[&str]) -> Process {
        let mut command = Command::new(crate::binary("gateway"));
        command.args(["serve", "-c"]).arg(self.dir.join("gateway.yaml")).args(more);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Process::start(&mut command, &self.dir.join("gateway.log"))
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("gateway.log")).unwrap_or_default()
    }

    /// Whether `/readyz` says 200.
    pub fn ready(&self) -> bool {
        ready(self.admin)
    }

    /// A raw GET on the admin port.
    pub fn admin_get(&self, path: &str) -> Option<String> {
        admin_get(self.admin, path)
    }

    /// The process id.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        self.process.iter().for_each(|process| process.signal(signal));
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGTERM, and waits for the end; its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.process.take()?.stop()
    }

    /// The file of its seal key; the public key is in it too.
    pub fn seal_key(&self) -> String {
        self.dir.join("seal.key").display().to_string()
    }

    /// The store's folder.
    pub fn store(&self) -> PathBuf {
        self.store.clone()
    }

    /// Runs the auditor on this store with the content keys; exit code, stdout, stderr.
    pub fn verify(&self, more: &[&str]) -> (i32, String, String) {
        let mut args = vec!["verify".to_owned(), self.store().display().to_string()];
        args.extend(["--trust".to_owned(), self.dir.join("trust.yaml").display().to_string()]);
        args.extend(["--key-table".to_owned(), self.dir.join("keytable").display().to_string()]);
        args.extend(["--state".to_owned(), self.dir.join("auditor-state").display().to_string()]);
        args.extend(more.iter().map(|s| (*s).to_owned()));
        self.auditor(&args)
    }

    /// Runs the auditor; exit code, stdout, stderr.
    ///
    /// # Panics
    /// Where the binary cannot be started.
    pub fn auditor(&self, args: &[String]) -> (i32, String, String) {
        let output = Command::new(crate::binary("auditor"))
            .args(args)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .output()
            .expect("the auditor starts");
        (
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}

fn ready(admin: SocketAddr) -> bool {
    admin_get(admin, "/readyz").is_some_and(|text| text.starts_with("HTTP/1.1 200"))
}

fn admin_get(admin: SocketAddr, path: &str) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(admin).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// The starter price book of this checkout.
pub fn price_book() -> PathBuf {
    let dir = crate::root().join("policies/prices");
    let mut books: Vec<_> = std::fs::read_dir(&dir)
        .map(|list| {
            list.filter_map(Result::ok)
                .map(|e| e.path())
                .filter(|p| p.extension().is_some_and(|e| e == "csv"))
                .collect()
        })
        .unwrap_or_default();
    books.sort();
    books.pop().unwrap_or_else(|| dir.join("2026-11.csv"))
}
