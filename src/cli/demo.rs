//! `bridgehead demo`: two sites on loopback show what this is about.
//!
//! PROMISES
//!   Everything shown is real: two daemons, SMTP between them, the commands that are printed. It takes
//!   less than half a minute, uses free ports of 127.0.0.1, and leaves nothing behind unless asked to.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::arguments::Init;
use super::failure::{Failure, IO, OK, OrFail, TRY_AGAIN};
use super::{init, site};
use mailbox::Sink;

mod mailbox;

/// People in the sample directory.
const PEOPLE: u32 = 500;
/// How long any one step may take before the demo gives up.
const STEP: Duration = Duration::from_secs(20);

pub fn run(keep: bool) -> Result<u8, Failure> {
    let dir = tempfile::Builder::new()
        .prefix("bridgehead-demo-")
        .tempdir()
        .or_fail(IO, || "a directory".to_owned())?;
    let demo = Demo::set_up(dir.path())?;
    let shown = demo.show();
    let commands = demo.commands();
    drop(demo);
    match (keep, &shown) {
        (true, _) => {
            let path = dir.keep();
            println!("\nKept in {}. To go on:\n{commands}", path.display());
        }
        (false, Err(_)) => {
            let path = dir.keep();
            println!("\nThe logs are kept in {}", path.display());
        }
        (false, Ok(())) => {
            println!("\nDone; nothing is left behind. `bridgehead demo --keep` leaves the two sites.")
        }
    }
    shown.map(|()| OK)
}

/// The two sites, their daemons and a mailbox.
struct Demo {
    dir: PathBuf,
    program: PathBuf,
    daemons: Daemons,
    alpha_port: u16,
    sink: Sink,
    began: Instant,
}

/// The daemons, ended with the demo however it ends.
#[derive(Clone, Default)]
struct Daemons(Arc<Mutex<Vec<Child>>>);

impl Daemons {
    fn end(&self) {
        for child in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            if let Some(pid) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
                // A daemon that has ended by itself needs no signal.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            let _ = child.wait();
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.daemons.end();
    }
}

impl Demo {
    fn set_up(dir: &Path) -> Result<Demo, Failure> {
        let [alpha_port, beta_port] = free_ports().or_fail(IO, || "free ports".to_owned())?;
        let program = std::env::current_exe().or_fail(IO, || "this program".to_owned())?;
        let daemons = Daemons::default();
        let sink = Sink::start(dir.to_owned(), daemons.clone()).or_fail(IO, || "the mailbox".to_owned())?;
        let demo = Demo { dir: dir.to_owned(), program, daemons, alpha_port, sink, began: Instant::now() };
        demo.say("two sites, alpha and beta; each is the other's next hop, as two mail servers would be");
        demo.init("alpha", alpha_port, beta_port)?;
        demo.init("beta", beta_port, alpha_port)?;
        demo.route_to_mailbox("beta")?;
        demo.connect("alpha", "beta")?;
        demo.connect("beta", "alpha")?;
        demo.start("alpha")?;
        demo.start("beta")?;
        Ok(demo)
    }

    fn show(&self) -> Result<(), Failure> {
        self.say("both administrators have added the other's card; a word by mail makes the link");
        self.command("alpha", &["sync", "--wait", "20"])?;

        self.say("people are imported at alpha and cross to beta as mail, sealed and signed");
        self.import()?;
        self.command("alpha", &["sync", "--wait", "20"])?;

        self.say("an addition, a change and a deletion at alpha");
        let ada = "cn=Ada Lovelace,ou=alpha,o=Example";
        self.command(
            "alpha",
            &[
                "entry",
                "add",
                ada,
                "objectClass=inetOrgPerson",
                "cn=Ada Lovelace",
                "sn=Lovelace",
                "mail=ada@alpha.example",
            ],
        )?;
        self.command("alpha", &["sync", "--wait", "20"])?;
        self.command("beta", &["entry", "show", ada])?;
        self.command("alpha", &["entry", "modify", ada, "telephoneNumber=+44 20 7946 0000"])?;
        self.command("alpha", &["sync", "--wait", "20"])?;
        self.command(
            "beta",
            &["entry", "search", "(telephoneNumber=+44 20 7946 0000)", "cn", "telephoneNumber"],
        )?;
        self.command("alpha", &["entry", "delete", ada])?;
        self.command("alpha", &["sync", "--wait", "20"])?;
        self.command("beta", &["entry", "search", "(cn=Ada Lovelace)"])?;

        self.say("an ordinary message goes in at alpha, through both, to a mailbox behind beta");
        let unchanged =
            self.sink.pass_message(self.alpha_port, STEP).or_fail(TRY_AGAIN, || "the message".to_owned())?;
        println!("    {unchanged}");

        self.say("the replicas, proved equal");
        self.command("alpha", &["verify", "beta"])?;
        self.digests()
    }

    fn say(&self, what: &str) {
        println!("\n[{:5.1} s] {what}", self.began.elapsed().as_secs_f64());
    }

    fn config(&self, name: &str) -> PathBuf {
        self.dir.join(name).join("bridgehead.toml")
    }

    fn init(&self, name: &str, port: u16, next_port: u16) -> Result<(), Failure> {
        init::create(&Init {
            dir: self.dir.join(name),
            site: name.to_owned(),
            organization: "Example".to_owned(),
            mailbox: format!("replication@repl.{name}.example"),
            listen: format!("127.0.0.1:{port}"),
            next_hop: format!("127.0.0.1:{next_port}"),
            context: None,
        })?;
        // Nobody wants to wait for a demonstration: changes leave at once.
        self.edit(name, |text| {
            text.replace(
                "#batching = \"2s\"",
                "batching = \"50ms\"\nacknowledgement = \"50ms\"\ngap = \"1s\"",
            )
        })
    }

    fn route_to_mailbox(&self, name: &str) -> Result<(), Failure> {
        let route = format!(
            "\n[[route]]\nto = [\"{name}.example\"]\nnext_hop = [\"127.0.0.1:{}\"]\n",
            self.sink.port()
        );
        self.edit(name, |text| text + &route)
    }

    fn edit(&self, name: &str, change: impl FnOnce(String) -> String) -> Result<(), Failure> {
        let file = self.config(name);
        let text = fs::read_to_string(&file).or_fail(IO, || file.display().to_string())?;
        fs::write(&file, change(text)).or_fail(IO, || file.display().to_string())
    }

    fn connect(&self, name: &str, other: &str) -> Result<(), Failure> {
        let theirs = site::load(&self.config(other))?;
        let card = site::issue(&theirs, &site::read_key(&theirs)?)?;
        site::add_card(&site::load(&self.config(name))?, &card).map(drop)
    }

    fn start(&self, name: &str) -> Result<(), Failure> {
        let log = self.dir.join(name).join("log");
        let log = File::create(&log).or_fail(IO, || log.display().to_string())?;
        let child = Command::new(&self.program)
            .args(["run", "--config"])
            .arg(self.config(name))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .or_fail(IO, || "starting a daemon".to_owned())?;
        self.daemons.0.lock().unwrap_or_else(PoisonError::into_inner).push(child);
        let socket = self.dir.join(name).join("data/control.sock");
        let end = Instant::now() + STEP;
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            if Instant::now() >= end {
                return Err(Failure::new(TRY_AGAIN, format!("{name}'s daemon did not start")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn import(&self) -> Result<(), Failure> {
        let file = self.dir.join("people.ldif");
        let context =
            crate::directory::dn::Dn::parse("ou=alpha,o=Example").or_fail(IO, || "a DN".to_owned())?;
        let sample = crate::sample::Directory { people: PEOPLE, seed: 1, photos: 0.1 };
        let written =
            File::create(&file).and_then(|file| sample.write_ldif(&context, &mut io::BufWriter::new(file)));
        written.or_fail(IO, || file.display().to_string())?;
        self.command("alpha", &["import", "people.ldif"])
    }

    /// Runs this program as the reader could, shows what it says, and gives up when it fails.
    fn command(&self, name: &str, arguments: &[&str]) -> Result<(), Failure> {
        let config = format!("{name}/bridgehead.toml");
        let quoted = arguments.iter().map(|argument| quote(argument)).collect::<Vec<_>>().join(" ");
        println!("    $ bridgehead {quoted} --config {config}");
        let output = Command::new(&self.program)
            .args(arguments)
            .args(["--config", &config])
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .output()
            .or_fail(IO, || "running a command".to_owned())?;
        for line in String::from_utf8_lossy(&output.stdout)
            .lines()
            .chain(String::from_utf8_lossy(&output.stderr).lines())
        {
            println!("      {line}");
        }
        io::stdout().flush().or_fail(IO, || "standard output".to_owned())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(Failure::new(TRY_AGAIN, format!("that command failed: {}", output.status))),
        }
    }

    fn digests(&self) -> Result<(), Failure> {
        for name in ["alpha", "beta"] {
            let status = super::exchange::read(&site::load(&self.config(name))?)?;
            for context in &status.contexts {
                println!(
                    "    {name}: {}: {} entries, digest {}",
                    context.context, context.entries, context.digest
                );
            }
        }
        Ok(())
    }

    /// How to go on with what is kept.
    fn commands(&self) -> String {
        let run = |name: &str| format!("  bridgehead run --config {} &\n", self.config(name).display());
        let status = format!("  bridgehead status --config {}\n", self.config("beta").display());
        run("alpha") + &run("beta") + &status
    }
}

fn quote(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.=/@:,+".contains(c);
    if argument.chars().all(plain) { argument.to_owned() } else { format!("'{argument}'") }
}

fn free_ports() -> io::Result<[u16; 2]> {
    // Both are held before either is let go, so that they differ.
    let (first, second) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok([first.local_addr()?.port(), second.local_addr()?.port()])
}
