//! A compose file whose services run as plain processes: commands, variables, mounts and secrets are the file's. What a
//! container would see at a path is a file on this machine, what it would reach by a name is a port of loopback, and
//! both are put in the place of the words in commands, variables, scripts and configurations.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use serde_json::Value;

use crate::process::{Process, free_port};

/// A compose file, copied into a folder with all that it mounts.
#[derive(Debug)]
pub struct Compose {
    /// What stands in for images, and for names of the world: a word and what takes its place.
    pub instead: Vec<(String, String)>,
    file: Value,
    dir: PathBuf,
    ports: Mutex<BTreeMap<(String, u16), SocketAddr>>,
}

impl Compose {
    /// Copies `deploy` of the checkout into `dir`, and reads its `compose.yaml`.
    ///
    /// # Panics
    /// Where it cannot be read.
    pub fn staged(dir: &Path) -> Self {
        let (from, deploy) = (crate::root().join("deploy"), dir.join("deploy"));
        std::fs::create_dir_all(&deploy).expect("a folder");
        std::fs::copy(from.join("compose.yaml"), deploy.join("compose.yaml")).expect("the compose file");
        crate::copy(&from.join("compose"), &deploy.join("compose"));
        // What somebody tried here has secrets of its own.
        let _ = std::fs::remove_dir_all(deploy.join("compose/secrets"));
        crate::copy(&crate::root().join("policies/prices"), &dir.join("policies/prices"));
        let text = std::fs::read_to_string(deploy.join("compose.yaml")).expect("the compose file");
        let file: Value = serde_saphyr::from_str(&text).expect("YAML");
        Self { instead: Vec::new(), file: merged(file), dir: dir.to_owned(), ports: Mutex::default() }
    }

    /// Names of the services that run `image`, in order.
    pub fn running(&self, image: &str) -> Vec<String> {
        let services = self.file["services"].as_object().into_iter().flatten();
        let mut names: Vec<String> =
            services.filter(|(_, service)| service["image"] == image).map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    /// What the file says of a service.
    ///
    /// # Panics
    /// Where there is none of this name.
    pub fn service(&self, name: &str) -> &Value {
        let service = &self.file["services"][name];
        assert!(service.is_object(), "`{name}` is no service");
        service
    }

    /// Where a port of a service is on this machine.
    ///
    /// # Panics
    /// Never: no holder of the lock panics.
    pub fn address(&self, service: &str, port: u16) -> SocketAddr {
        let mut ports = self.ports.lock().expect("no holder panics");
        *ports.entry((service.to_owned(), port)).or_insert_with(free_port)
    }

    /// What a service sees at a path.
    ///
    /// # Panics
    /// Where nothing is mounted there.
    pub fn path(&self, service: &str, path: &str) -> PathBuf {
        let seen = self.seen(service, path);
        assert_ne!(seen, path, "nothing is mounted at `{path}` of `{service}`");
        PathBuf::from(seen)
    }

    /// Text as it has to be outside of a container of this service: paths, addresses and `instead`.
    pub fn seen(&self, service: &str, text: &str) -> String {
        let mut text = text.to_owned();
        for (target, host) in self.mounts(service) {
            text = replaced(&text, &target, &host.display().to_string());
        }
        let names: Vec<String> =
            self.file["services"].as_object().into_iter().flatten().map(|(n, _)| n.clone()).collect();
        for name in names.iter().map(String::as_str).chain(["0.0.0.0"]) {
            text = with_ports(&text, name, |port| {
                self.address(if name == "0.0.0.0" { service } else { name }, port)
            });
        }
        for (word, other) in &self.instead {
            text = text.replace(word, other);
        }
        text
    }

    /// Changes a file of a service to what it has to be outside of its container.
    ///
    /// # Panics
    /// Where the file is not there.
    pub fn adapt(&self, service: &str, path: &Path) {
        let text = std::fs::read_to_string(path)
            .unwrap_or_else(|e| std::panic::panic_any(format!("{}: {e}", path.display())));
        std::fs::write(path, self.seen(service, &text)).expect("a file that can be written");
    }

    /// A service's process. The scripts that it runs are changed to what they have to be here.
    pub fn command(&self, service: &str, program: &Path) -> Command {
        let said = self.service(service);
        let mut words: Vec<String> = Vec::new();
        for part in ["entrypoint", "command"] {
            words.extend(
                said[part].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned),
            );
        }
        let has_own = said["entrypoint"].is_array();
        let mut command = if has_own { Command::new(words.remove(0)) } else { Command::new(program) };
        for word in words {
            let word = self.seen(service, &word);
            command.arg(if word.ends_with(".sh") {
                self.script(service, Path::new(&word))
            } else {
                PathBuf::from(word)
            });
        }
        command
            .env_clear()
            .envs(self.environment(service))
            .env("PATH", search_path(program))
            .current_dir(&self.dir);
        command
    }

    /// Starts a service.
    pub fn start(&self, service: &str, program: &Path) -> Process {
        Process::start(&mut self.command(service, program), &self.log(service))
    }

    /// Where its process logs to.
    pub fn log(&self, service: &str) -> PathBuf {
        self.dir.join(format!("{service}.log"))
    }

    /// The variables of a service, those of its files included.
    ///
    /// # Panics
    /// Where a file of variables is not there.
    pub fn environment(&self, service: &str) -> BTreeMap<String, String> {
        let said = self.service(service);
        let mut all = BTreeMap::new();
        for file in said["env_file"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let text = std::fs::read_to_string(self.resolved(file)).expect("a file of variables");
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            all.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        for (name, value) in said["environment"].as_object().into_iter().flatten() {
            all.insert(name.clone(), self.seen(service, value.as_str().expect("a variable in quotes")));
        }
        all
    }

    /// Targets and what is there, the longest first.
    fn mounts(&self, service: &str) -> Vec<(String, PathBuf)> {
        let said = self.service(service);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut mounts: Vec<(String, PathBuf)> = Vec::new();
        for volume in said["volumes"].as_array().into_iter().flatten() {
            let source = text(&volume["source"]);
            let host = match volume["type"].as_str() {
                Some("bind") => self.resolved(&source),
                _ => {
                    assert!(self.file["volumes"][&source].is_object(), "`{source}` is no volume");
                    let folder =
                        self.dir.join("volumes").join(&source).join(text(&volume["volume"]["subpath"]));
                    std::fs::create_dir_all(&folder).expect("a folder for a volume");
                    folder
                }
            };
            mounts.push((text(&volume["target"]), host));
        }
        for secret in said["secrets"].as_array().into_iter().flatten().map(text) {
            let file = text(&self.file["secrets"][&secret]["file"]);
            mounts.push((format!("/run/secrets/{secret}"), self.resolved(&file)));
        }
        mounts.sort_by_key(|(target, _)| std::cmp::Reverse(target.len()));
        mounts
    }

    fn resolved(&self, path: &str) -> PathBuf {
        self.dir.join("deploy").join(path)
    }

    fn script(&self, service: &str, path: &Path) -> PathBuf {
        let copy = self.dir.join(format!("{service}.sh"));
        std::fs::copy(path, &copy)
            .unwrap_or_else(|e| std::panic::panic_any(format!("{}: {e}", path.display())));
        self.adapt(service, &copy);
        copy
    }
}

/// The program's folder before all others.
fn search_path(program: &Path) -> std::ffi::OsString {
    let folder = program.parent().unwrap_or(Path::new("/")).to_owned();
    let rest = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&rest))).unwrap_or_default()
}

/// Merge keys (`<<`) put where they belong; what stands beside them rules.
fn merged(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut out = serde_json::Map::new();
            let mut below = serde_json::Map::new();
            for (key, value) in map {
                match merged(value) {
                    Value::Object(parent) if key == "<<" => below.extend(parent),
                    value => {
                        out.insert(key, value);
                    }
                }
            }
            for (key, value) in below {
                out.entry(key).or_insert(value);
            }
            Value::Object(out)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(merged).collect()),
        other => other,
    }
}

/// `path` and what is below it, wherever it stands as a whole path.
fn replaced(text: &str, path: &str, by: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(path) {
        let (before, after) = (&rest[..at], &rest[at + path.len()..]);
        let ends = !after.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        let begins =
            !before.ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/'));
        out.push_str(before);
        out.push_str(if ends && begins { by } else { path });
        rest = after;
    }
    out + rest
}

/// `name:<port>` as an address of this machine.
fn with_ports(text: &str, name: &str, address: impl Fn(u16) -> SocketAddr) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(name) {
        let (before, after) = (&rest[..at], &rest[at + name.len()..]);
        let begins = !before.ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        let digits: String =
            after.strip_prefix(':').unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
        out.push_str(before);
        match digits.parse() {
            Ok(port) if begins => {
                out.push_str(&address(port).to_string());
                rest = &after[1 + digits.len()..];
            }
            _ => {
                out.push_str(name);
                rest = after;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_paths_are_replaced_and_nothing_else() {
        let text = "cp /prices/a.csv \"$name/prices.csv\" /prices-old x/prices /prices";
        let wanted = "cp /h/a.csv \"$name/prices.csv\" /prices-old x/prices /h";
        assert_eq!(replaced(text, "/prices", "/h"), wanted);
    }

    #[test]
    fn names_with_a_port_are_replaced_and_nothing_else() {
        let to = |port: u16| SocketAddr::from(([127, 0, 0, 1], port + 1));
        let text = "1@s3:7070,http://s3:7070/x xs3:1 s3: here s3:";
        assert_eq!(with_ports(text, "s3", to), "1@127.0.0.1:7071,http://127.0.0.1:7071/x xs3:1 s3: here s3:");
    }

    #[test]
    fn what_stands_beside_a_merge_key_rules() {
        let value = serde_json::json!({ "<<": { "a": 1, "b": 2 }, "a": 3 });
        assert_eq!(merged(value), serde_json::json!({ "a": 3, "b": 2 }));
    }
}
