//! A private Postfix: its own configuration, queue and data directories, on a loopback port.
//!
//! PROMISES
//!   The machine's own Postfix, if there is one, is not touched: nothing below /etc/postfix or /var/spool/postfix is
//!   read or written but the files of the package itself (`postfix-files`).
//!
//! Loopback has two sides here: 127.0.0.1 is the site's own network, and Postfix delivers from 127.0.0.2, so
//! that a message from another site's Postfix is from outside and is accepted only if the recipe says so.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Process, SOON, Scratch, await_true, free_address, tool};

/// A Postfix that was started; it ends when this is dropped.
pub struct Postfix {
    pub address: SocketAddr,
    directory: PathBuf,
    process: Option<Process>,
}

/// What it is to be, before it starts.
pub struct Plan {
    pub address: SocketAddr,
    name: String,
    directory: PathBuf,
    main: String,
    master: String,
    transport: String,
    listens: bool,
}

const MASTER: &str = "
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
tlsmgr    unix  - - n 1000? 1 tlsmgr
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
smtp      unix  - - n - - smtp
lmtp      unix  - - n - - lmtp
relay     unix  - - n - - smtp
showq     unix  n - n - - showq
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
";

impl Postfix {
    /// A Postfix of the site NAME: mail for NAME.example is its own, mail from 127.0.0.1 is relayed, mail from
    /// elsewhere is not.
    pub fn plan(scratch: &Scratch, name: &str) -> Plan {
        let directory = scratch.join(&format!("postfix-{name}"));
        for part in ["conf", "queue", "data"] {
            fs::create_dir_all(directory.join(part)).expect("a directory for Postfix");
        }
        let mut plan = Plan {
            address: free_address(),
            name: name.into(),
            main: String::new(),
            master: MASTER.into(),
            transport: String::new(),
            listens: true,
            directory,
        };
        let own = |part: &str| plan.directory.join(part).display().to_string();
        let (queue, data, log, conf) = (own("queue"), own("data"), own("mail.log"), own("conf"));
        let prefix = plan.directory.display().to_string();
        for (key, value) in [
            ("compatibility_level", "3.6"),
            ("queue_directory", &queue),
            ("data_directory", &data),
            ("maillog_file", &log),
            ("maillog_file_prefixes", &prefix),
            ("myhostname", &format!("mx.{name}.example")),
            ("mydestination", ""),
            ("local_recipient_maps", ""),
            ("alias_maps", ""),
            ("alias_database", ""),
            ("mynetworks", "127.0.0.1/32"),
            ("smtp_bind_address", "127.0.0.2"),
            ("relay_domains", &format!("{name}.example")),
            ("smtpd_relay_restrictions", "permit_mynetworks, reject_unauth_destination"),
            ("transport_maps", &format!("texthash:{conf}/transport")),
            ("inet_interfaces", "127.0.0.1"),
            ("inet_protocols", "ipv4"),
            ("smtp_dns_support_level", "disabled"),
            ("smtpd_peername_lookup", "no"),
            ("default_process_limit", "20"),
            ("queue_run_delay", "2s"),
            ("minimal_backoff_time", "1s"),
            ("maximal_backoff_time", "4s"),
            ("notify_classes", ""),
        ] {
            plan.set(key, value);
        }
        plan
    }
}

impl Plan {
    /// One more line of main.cf; the last one for a parameter counts.
    pub fn set(&mut self, parameter: &str, value: &str) {
        writeln!(self.main, "{parameter} = {value}").expect("write to a string");
    }

    /// Mail for this domain goes to this address: what MX records would do between sites.
    pub fn route(&mut self, domain: &str, to: SocketAddr) {
        writeln!(self.transport, "{domain} smtp:[{}]:{}", to.ip(), to.port()).expect("write to a string");
    }

    /// Applies a recipe of contrib/postfix as an operator would: its `main.cf` and `master.cf` are appended to ours, its
    /// `transport` to our map, with this site's name, directory and ports in place of those in the files.
    /// A recipe that has its own public listener replaces ours.
    pub fn apply(&mut self, recipe: &str, bridgehead: SocketAddr, back: SocketAddr) {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/postfix").join(recipe);
        assert!(place.is_dir(), "no recipe {}", place.display());
        let own_place = self.directory.join("conf").display().to_string();
        let read = |file: &str| {
            let text = fs::read_to_string(place.join(file)).unwrap_or_default();
            text.replace("paris.example", &format!("{}.example", self.name))
                .replace("/etc/postfix", &own_place)
                .replace(":10025", &format!(":{}", bridgehead.port()))
                .replace(":10026", &format!(":{}", back.port()))
        };
        let (main, mut master, transport) = (read("main.cf"), read("master.cf"), read("transport"));
        let public = "\nsmtp      inet ";
        if master.contains(public) {
            self.listens = false;
            master = master.replace(public, &format!("\n{} inet ", self.address));
        }
        // Postfix warns of a parameter that is set twice.
        let is_not_set_there = |line: &&str| {
            let name = line.split('=').next().unwrap_or_default().trim_end();
            !main.lines().any(|other| other.split_once('=').is_some_and(|(n, _)| n.trim_end() == name))
        };
        self.main = self.main.lines().filter(is_not_set_there).map(|line| format!("{line}\n")).collect();
        self.main.push_str(&main);
        self.master.push_str(&master);
        self.transport.push_str(&transport);
    }

    /// Whether a recipe has Postfix listen there, for mail that comes back.
    pub fn listens_at(&self, back: SocketAddr) -> bool {
        self.master.contains(&format!("\n{back} inet"))
    }

    /// Writes the files, starts it and waits until it greets.
    pub fn start(self) -> Postfix {
        let conf = self.directory.join("conf");
        let listener = format!("{} inet n - n - - smtpd\n", self.address);
        let master = if self.listens { listener + &self.master } else { self.master };
        for (file, text) in [("main.cf", &self.main), ("master.cf", &master), ("transport", &self.transport)]
        {
            fs::write(conf.join(file), text).expect("a Postfix file");
        }
        chown(self.directory.join("data"), Some(user_id("postfix")), None).expect("tests must run as root");
        let mut postfix = Postfix { address: self.address, directory: self.directory, process: None };
        // Creates the queue's directories; the mark then spares the same check at each start.
        let check = postfix.command().arg("check").output().expect("postfix check");
        assert!(check.status.success(), "postfix check: {}", String::from_utf8_lossy(&check.stderr));
        postfix.start();
        postfix
    }
}

impl Postfix {
    fn command(&self) -> Command {
        let mut command = Command::new(tool("postfix"));
        command.arg("-c").arg(self.directory.join("conf"));
        command
    }

    /// Starts it again after `stop`.
    pub fn start(&mut self) {
        fs::write(self.directory.join("queue/quick-start"), "").expect("the queue directory");
        // A group of its own: Postfix's master signals its whole group when it ends.
        let mut command = self.command();
        command.arg("start-fg").process_group(0);
        let mut process = Process::start("postfix", &mut command, &self.directory.join("start.log"));
        let address = self.address;
        await_true("Postfix to listen", SOON, || {
            process.assert_alive();
            TcpStream::connect(address).is_ok()
        });
        self.process = Some(process);
    }

    /// Ends it; what is in its queue stays there.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        if let Some(master) = self.master() {
            let _ = kill_process(master, Signal::TERM);
        }
        await_true("Postfix to end", Duration::from_secs(20), || process.ended().is_some());
    }

    /// The master's process id, as it wrote it down itself.
    fn master(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.directory.join("queue/pid/master.pid")).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    /// Whether nothing is waiting to be delivered.
    pub fn queue_is_empty(&self) -> bool {
        ["incoming", "active", "deferred", "maildrop"]
            .iter()
            .all(|queue| files_below(&self.directory.join("queue").join(queue)) == 0)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("mail.log")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // No second panic: as `stop`, without a deadline that could fail.
            if let Some(master) = self.master().filter(|_| self.process.is_some()) {
                let _ = kill_process(master, Signal::TERM);
                std::thread::sleep(Duration::from_millis(500));
            }
        } else {
            self.stop();
        }
    }
}

fn files_below(directory: &Path) -> usize {
    let Ok(listing) = fs::read_dir(directory) else { return 0 };
    listing.flatten().map(|f| if f.path().is_dir() { files_below(&f.path()) } else { 1 }).sum()
}

fn user_id(name: &str) -> u32 {
    let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let line = passwd.lines().find(|l| l.split(':').next() == Some(name));
    line.and_then(|l| l.split(':').nth(2)?.parse().ok())
        .unwrap_or_else(|| panic!("no user {name}; contrib/test/run installs what the tests need"))
}
