//! A site: a directory with the real `bridgehead` binary's configuration, key and data, and its daemon.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use super::{Client, Process, SOON, Scratch, await_true};

pub struct Site {
    pub name: String,
    /// Where its daemon listens for SMTP.
    pub address: SocketAddr,
    /// The address to which other sites send replication mail.
    pub mailbox: String,
    /// Its naming context.
    pub context: String,
    pub directory: PathBuf,
    /// Variables for its daemon's environment.
    pub environment: Vec<(String, String)>,
    daemon: Option<Process>,
}

impl Site {
    /// `bridgehead init` for a site of the organization Example, with the mailbox `directory@repl.NAME.example`.
    pub fn init(scratch: &Scratch, name: &str, address: SocketAddr, next_hop: SocketAddr) -> Site {
        let site = Site {
            name: name.into(),
            address,
            mailbox: format!("directory@repl.{name}.example"),
            context: format!("ou={name},o=Example"),
            directory: scratch.join(name),
            environment: Vec::new(),
            daemon: None,
        };
        let output = binary()
            .arg("init")
            .arg("--dir")
            .arg(&site.directory)
            .args(["--site", name, "--organization", "Example", "--mailbox", &site.mailbox])
            .args(["--listen", &site.address.to_string(), "--next-hop", &next_hop.to_string()])
            .output()
            .expect("the bridgehead binary");
        assert_success("init", &output);
        site
    }

    pub fn config(&self) -> PathBuf {
        self.directory.join("bridgehead.toml")
    }

    /// Puts a line below the header of a table of the configuration file, and whole tables at its end.
    pub fn configure(&self, table: &str, line: &str, tables: &str) {
        let text = fs::read_to_string(self.config()).expect("the configuration");
        let header = format!("{table}\n");
        let at = text.find(&header).or_else(|| text.find(table)).expect("the table is there");
        let at = at + text[at..].find('\n').expect("an end of line") + 1;
        let text = format!("{}{line}\n{}\n{tables}\n", &text[..at], &text[at..]);
        fs::write(self.config(), text).expect("the configuration");
        self.ok(&["check"]);
    }

    /// Exchanges cards in both directions, as the two administrators would.
    pub fn introduce(&self, other: &Site) {
        self.accept_card_of(other);
        other.accept_card_of(self);
    }

    /// Writes the other's card to a file and adds it here.
    pub fn accept_card_of(&self, other: &Site) {
        let card = other.ok(&["card"]);
        let file = self.directory.join(format!("{}.card", other.name));
        fs::write(&file, card).expect("a card file");
        self.ok(&["site", "add", path_text(&file)]);
    }

    /// A command of this site; `--config FILE` is appended.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = binary();
        command.args(arguments).arg("--config").arg(self.config());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the bridgehead binary")
    }

    /// Runs a command that must succeed, and gives its standard output.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.ok_bytes(arguments)).expect("UTF-8 on standard output")
    }

    #[track_caller]
    pub fn ok_bytes(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.run(arguments);
        assert_success(&format!("{} {}", self.name, arguments.join(" ")), &output);
        output.stdout
    }

    /// Starts the daemon and waits until it greets.
    pub fn start(&mut self) {
        self.spawn();
        let address = self.address;
        let daemon = self.daemon.as_mut().expect("just started");
        await_true("the daemon's greeting", SOON, || {
            daemon.assert_alive();
            TcpStream::connect(address).is_ok()
        });
        Client::connect(address).command("QUIT").expect(221);
    }

    /// Starts the daemon without waiting for anything.
    pub fn spawn(&mut self) {
        let mut command = self.command(&["run"]);
        command.env("RUST_BACKTRACE", "1").envs(self.environment.iter().cloned());
        self.daemon = Some(Process::start(&self.name, &mut command, &self.log()));
    }

    pub fn log(&self) -> PathBuf {
        self.directory.join("daemon.log")
    }

    pub fn daemon(&mut self) -> &mut Process {
        self.daemon.as_mut().expect("the daemon was started")
    }

    /// SIGTERM; the daemon must end with status 0.
    pub fn stop(&mut self) {
        let status = self.daemon().terminate(SOON);
        assert!(status.success(), "{} ended with {status} after SIGTERM", self.name);
        self.daemon = None;
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.daemon().kill();
        self.daemon = None;
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["status", "--json"])).expect("status --json prints JSON")
    }

    /// What `status --json` says of one naming context.
    pub fn context_status(&self, context: &str) -> Option<Value> {
        let status = self.status();
        let contexts = status["contexts"].as_array().expect("`contexts` is an array");
        contexts.iter().find(|c| c["context"] == context).cloned()
    }

    /// The canonical LDIF of one naming context.
    pub fn export(&self, context: &str) -> Vec<u8> {
        self.ok_bytes(&["export", "--context", context])
    }

    /// Writes LDIF to a file and imports it.
    pub fn import(&self, ldif: &[u8]) {
        let file = self.directory.join("import.ldif");
        fs::write(&file, ldif).expect("an LDIF file");
        self.ok(&["import", path_text(&file)]);
    }

    /// `sync --wait`: returns once both sides are proved equal.
    pub fn sync(&self, limit: Duration) {
        self.ok(&["sync", "--wait", &limit.as_secs().to_string()]);
    }
}

fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bridgehead"))
}

pub fn path_text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[track_caller]
fn assert_success(what: &str, output: &Output) {
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
}
