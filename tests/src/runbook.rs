//! `deploy/RUNBOOK.md`: its sections with their commands, and a host on which the commands run as an operator runs them.
//!
//! A block marked `sh` is a step; the lines of a block marked `text` behind it are looked for in what it prints.
//! `systemctl` and `journalctl` are small programs here that start, stop and read the real binaries.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a step that only looks is repeated until it shows what it should.
const PATIENCE: Duration = Duration::from_secs(40);

/// A block of commands, and what it must print.
#[derive(Debug, Clone)]
pub struct Step {
    /// For `bash`.
    pub commands: String,
    /// Texts that must all be in what it prints.
    pub prints: Vec<String>,
}

impl Step {
    /// Whether it changes nothing, so that it may be run again.
    fn looks(&self) -> bool {
        !["systemctl", "mv ", "keygen", "salvage", "rotate-key", "revoke-key"]
            .iter()
            .any(|word| self.commands.contains(word))
    }
}

/// A section.
#[derive(Debug, Clone)]
pub struct Section {
    /// The anchor that alerts link to.
    pub anchor: String,
    /// Its steps, in order.
    pub steps: Vec<Step>,
}

/// The anchor of a heading, as it is made of it where Markdown is shown.
fn anchor(heading: &str) -> String {
    heading.trim().to_lowercase().replace(' ', "-")
}

/// All sections of the runbook.
///
/// # Panics
/// Where it cannot be read, or a block stands where none can.
pub fn sections() -> Vec<Section> {
    let path = crate::root().join("deploy/RUNBOOK.md");
    let text = std::fs::read_to_string(path).expect("the runbook");
    let mut sections: Vec<Section> = Vec::new();
    let mut block: Option<(&str, String)> = None;
    for line in text.lines() {
        match (&mut block, line.strip_prefix("```")) {
            (None, Some(kind)) => block = Some((kind, String::new())),
            (Some(_), Some(_)) => {
                let Some((kind, body)) = block.take() else { continue };
                let section = sections.last_mut();
                match (kind, section) {
                    ("sh", Some(section)) => {
                        section.steps.push(Step { commands: body, prints: Vec::new() });
                    }
                    ("text", Some(section)) => {
                        let step = section.steps.last_mut().expect("a text block stands behind commands");
                        step.prints.extend(body.lines().map(str::to_owned));
                    }
                    _ => {}
                }
            }
            (Some((_, body)), None) => *body += &format!("{line}\n"),
            (None, None) => {
                if let Some(heading) = line.strip_prefix("## ") {
                    sections.push(Section { anchor: anchor(heading), steps: Vec::new() });
                }
            }
        }
    }
    sections
}

/// One section.
///
/// # Panics
/// Where there is none of that anchor.
pub fn section(anchor: &str) -> Section {
    let found = sections().into_iter().find(|section| section.anchor == anchor);
    found.unwrap_or_else(|| panic!("no section `{anchor}` in the runbook"))
}

/// A machine as an operator sees it: variables, `systemctl`, `journalctl`.
#[derive(Debug)]
pub struct Host {
    dir: PathBuf,
    variables: Vec<(String, String)>,
}

/// Starts and stops `affidavit-NAME` by the commands in `NAME.unit`; waits as systemd would.
const SYSTEMCTL: &str = r#"#!/bin/bash
set -u
name=${2#affidavit-}
unit=$UNITS/$name
alive() { [[ -s $unit.pid ]] && [[ -d /proc/$(<"$unit.pid") ]] && ! grep -q '^State:.Z' "/proc/$(<"$unit.pid")/status" 2>/dev/null; }
case $1 in
stop)
    ended() { alive && return 1; rm -f "$unit.pid"; }
    ended && exit 0
    kill -TERM "$(<"$unit.pid")"
    for _ in {1..600}; do ended && exit 0; sleep 0.1; done
    echo "affidavit-$name does not end" >&2
    exit 1
    ;;
start)
    alive && exit 0
    setsid bash "$unit.unit" >>"$unit.log" 2>&1 </dev/null &
    echo $! >"$unit.pid"
    ;;
restart) "$0" stop "$2" && "$0" start "$2" ;;
*) exit 2 ;;
esac
"#;

/// Prints what the unit of `-u` logged.
const JOURNALCTL: &str = "#!/bin/bash\nname=${2#affidavit-}\ncat \"$UNITS/$name.log\"\n";

impl Host {
    /// A machine whose files are in a folder.
    ///
    /// # Panics
    /// Where they cannot be written.
    pub fn new(dir: &Path) -> Self {
        let units = dir.join("units");
        std::fs::create_dir_all(units.join("bin")).expect("a folder");
        for (name, text) in [("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)] {
            let path = units.join("bin").join(name);
            std::fs::write(&path, text).expect("a program");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).expect("its mode");
        }
        let binaries = crate::binary("gateway");
        let path = format!(
            "{}:{}:{}",
            units.join("bin").display(),
            binaries.parent().unwrap_or(Path::new("/")).display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let mut host = Self { dir: dir.to_owned(), variables: Vec::new() };
        for (name, value) in [("PATH", path), ("UNITS", units.display().to_string())] {
            host.set(name, value);
        }
        host.set("HOME", dir.display().to_string());
        host.set("XDG_STATE_HOME", dir.join("state").display().to_string());
        host.set("KEPT", dir.join("kept").display().to_string());
        host
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_string()));
    }

    /// Names a unit: `affidavit-NAME` runs `command`.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn unit(&self, name: &str, command: &str) {
        let path = self.dir.join(format!("units/{name}.unit"));
        std::fs::write(path, format!("exec {command}\n")).expect("a unit");
    }

    /// The gateway that `prepare` made: its variables, and its unit.
    pub fn serves(&mut self, gateway: &crate::gateway::Gateway, evidence: &Path) {
        let config = gateway.dir.join("gateway.yaml");
        self.set("CONFIG", config.display());
        self.set("ADMIN", gateway.admin);
        self.set("JOURNAL", evidence.join("journal").display());
        self.set("SPOOL", evidence.join("spool").display());
        self.set("STORE", gateway.store().display());
        self.set("TRUST", gateway.dir.join("trust.yaml").display());
        self.set("SEAL_KEY", gateway.seal_key());
        self.set("DEPLOYMENT", "test");
        self.set("GATEWAY", "gw1");
        self.unit("gateway", &format!("gateway serve -c {}", config.display()));
    }

    /// Runs commands: whether they ended with success, and what they printed.
    ///
    /// # Panics
    /// Where there is no `bash`.
    pub fn run(&self, commands: &str) -> (bool, String) {
        let mut bash = Command::new("timeout");
        bash.args(["120", "bash", "-eu", "-c", commands]).current_dir(&self.dir).stdin(Stdio::null());
        bash.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let output = bash.output().expect("bash");
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        (output.status.success(), said.concat())
    }

    /// Runs commands that must succeed; what they printed.
    ///
    /// # Panics
    /// Where they do not.
    pub fn does(&self, commands: &str) -> String {
        let (done, said) = self.run(commands);
        assert!(done, "{commands}\n{said}\n{}", self.log("gateway"));
        said
    }

    /// Follows steps of a section.
    ///
    /// # Panics
    /// Where a step fails, or does not print what the section says.
    pub fn follow(&self, anchor: &str, steps: std::ops::Range<usize>) {
        let section = section(anchor);
        for n in steps {
            let step = section.steps.get(n).unwrap_or_else(|| panic!("`{anchor}` has no step {n}"));
            let begun = Instant::now();
            loop {
                let (done, said) = self.run(&step.commands);
                let missing: Vec<_> = step.prints.iter().filter(|text| !said.contains(*text)).collect();
                if done && missing.is_empty() {
                    break;
                }
                assert!(
                    step.looks() && begun.elapsed() < PATIENCE,
                    "`{anchor}`, step {n}, success {done}, not printed {missing:?}:\n{}\n{said}\nthe gateway:\n{}",
                    step.commands,
                    self.log("gateway")
                );
                std::thread::sleep(Duration::from_millis(300));
            }
        }
    }

    /// Follows a section from a step to its end.
    pub fn follow_from(&self, anchor: &str, step: usize) {
        self.follow(anchor, step..section(anchor).steps.len());
    }

    /// Starts the gateway, and waits until its `/readyz` says 200.
    pub fn start_gateway(&self) {
        self.does("systemctl start affidavit-gateway\nfor _ in {1..300}; do curl -sf \"http://$ADMIN/readyz\" && exit 0; sleep 0.1; done; exit 1");
    }

    /// The process of a unit, where one was started.
    pub fn pid(&self, unit: &str) -> Option<i32> {
        std::fs::read_to_string(self.dir.join(format!("units/{unit}.pid"))).ok()?.trim().parse().ok()
    }

    /// Sends a signal to a unit's process.
    pub fn signal(&self, unit: &str, signal: rustix::process::Signal) {
        if let Some(pid) = self.pid(unit).and_then(rustix::process::Pid::from_raw) {
            // One that is gone needs no signal.
            let _ = rustix::process::kill_process(pid, signal);
            if signal == rustix::process::Signal::KILL {
                // Its number may be another's soon.
                let _ = std::fs::remove_file(self.dir.join(format!("units/{unit}.pid")));
            }
        }
    }

    /// What a unit logged.
    pub fn log(&self, unit: &str) -> String {
        std::fs::read_to_string(self.dir.join(format!("units/{unit}.log"))).unwrap_or_default()
    }
}

/// Nothing that was started outlives its test.
impl Drop for Host {
    fn drop(&mut self) {
        let units = std::fs::read_dir(self.dir.join("units"));
        if units.is_err() && !std::thread::panicking() {
            panic!("the host's folder went before the host: what runs in it cannot be ended");
        }
        for path in units.into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "pid") {
                let unit = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                self.signal(&unit, rustix::process::Signal::KILL);
            }
        }
    }
}
