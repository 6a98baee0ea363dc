//! The set-ups of `deploy/examples`, each in a folder of a test, with what is somebody else's put in its place.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::gateway::{Gateway, price_book};
use crate::process::{free_port, ran};

/// A set-up that was copied, with keys, prices and folders of its own.
#[derive(Debug)]
pub struct Example {
    /// Where it is.
    pub dir: PathBuf,
    text: String,
    addresses: [SocketAddr; 2],
    environment: Vec<(String, String)>,
}

impl Example {
    /// Copies `deploy/examples/NAME` to `dir`, and makes what its first lines tell to make. `listen` is its address in the file.
    ///
    /// # Panics
    /// Where a file cannot be written, or a command of the gateway fails.
    pub fn copy(name: &str, listen: &str, dir: &Path) -> Self {
        crate::copy(&crate::root().join("deploy/examples").join(name), dir);
        std::fs::copy(price_book(), dir.join("prices.csv")).expect("the price book");
        let trust = ran(Command::new(crate::binary("gateway"))
            .args(["keygen", "--deployment", "acme", "--gateway", "gw1", "--out"])
            .arg(dir.join("seal.key"))
            .arg("--promise-key")
            .arg(dir.join("promise.key"))
            .arg("--pseudonym-key")
            .arg(dir.join("pseudonym.key")));
        std::fs::write(dir.join("trust.yaml"), trust).expect("the trust file");
        let text = std::fs::read_to_string(dir.join("gateway.yaml")).expect("the configuration");
        let variables = text.split("env: ").skip(1).filter_map(|rest| rest.split(' ').next());
        let environment = variables.map(|name| (name.to_owned(), format!("sk-{name}-0123456789"))).collect();
        let addresses = [free_port(), free_port()];
        let mut example = Self { dir: dir.to_owned(), text, addresses, environment };
        let folder = dir.display().to_string();
        example.replace("key_table: /var/lib/affidavit/key-table", &format!("key_table: {folder}/keytable"));
        example.replace("/var/lib/affidavit/journal", &format!("{folder}/journal\n  segment: 8MiB"));
        example.replace("/var/lib/affidavit/spool", &format!("{folder}/spool"));
        if example.text.contains("/var/lib/affidavit/evidence") {
            example.replace("/var/lib/affidavit/evidence", &format!("{folder}/store"));
        }
        example.replace(listen, &addresses[0].to_string());
        example.replace("127.0.0.1:9090", &addresses[1].to_string());
        example.issue(&["--consumer", "tester", "--team", "quality"]);
        example
    }

    /// Puts `to` in the place of `from`, in the lines that are no comments.
    ///
    /// # Panics
    /// Where `from` is not there.
    pub fn replace(&mut self, from: &str, to: &str) {
        let lines = self.text.split('\n').map(|line| {
            if line.trim_start().starts_with('#') { line.to_owned() } else { line.replace(from, to) }
        });
        let new = lines.collect::<Vec<_>>().join("\n");
        assert_ne!(new, self.text, "`{from}` is not in the example");
        self.text = new;
    }

    /// Lets these providers be at `url`.
    ///
    /// # Panics
    /// As [`Example::replace`].
    pub fn provider(&mut self, is: &str, url: &str) {
        self.replace(&format!("base_url: \"{is}\""), &format!("base_url: \"{url}\""));
    }

    /// Adds variables of the process.
    pub fn set(&mut self, environment: Vec<(String, String)>) {
        self.environment.extend(environment);
    }

    /// Makes a key with these options; gives it.
    ///
    /// # Panics
    /// Where it is not made.
    pub fn issue(&self, more: &[&str]) -> String {
        let mut command = Command::new(crate::binary("gateway"));
        let said = ran(command.args(["keys", "issue", "--file"]).arg(self.dir.join("keys.yaml")).args(more));
        let key = said.split_whitespace().find(|word| word.starts_with("afk_"));
        key.expect("`keys issue` prints the key").to_owned()
    }

    /// The gateway of it, as `gateway check` finds it sound.
    ///
    /// # Panics
    /// Where `gateway check` does not.
    pub fn checked(&self, key: &str) -> Gateway {
        std::fs::write(self.dir.join("gateway.yaml"), &self.text).expect("the configuration");
        let gateway = Gateway::found(&self.dir, self.addresses, key, self.environment.clone());
        let (code, said) = gateway.run(&["check"]);
        assert!(code == 0 && said.contains("is sound"), "{said}\n{}", self.text);
        let warned = said.lines().find(|line| line.starts_with("warning") && !line.contains("price_as"));
        assert_eq!(warned, None);
        gateway
    }
}
