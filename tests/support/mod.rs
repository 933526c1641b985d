//! What the integration tests share.
//!
//! PROMISES
//!   Everything listens on loopback, on a port that was free; everything started is ended by its process id, also
//!   when the test fails; a failing test shows the tail of every log in its directory.
//!   Nothing waits without a deadline.
//!
//! A server that is not installed is an error: `contrib/test/run` installs what is needed.

mod client;
mod courier;
mod certificate;
mod disk;
mod dkim;
mod dns;
mod drain;
mod exposition;
mod jail;
mod ldif;
mod mangler;
mod messages;
mod pair;
mod postfix;
mod process;
mod recorder;
mod rewrite;
mod sample;
mod site;
mod slapd;

pub use certificate::Certificate;
pub use client::{Client, Reply};
pub use courier::{ByHand, deliver};
pub use disk::SmallDisk;
pub use dkim::Dkim;
pub use dns::{Dns, Record};
pub use drain::Drain;
pub use exposition::exposition;
pub use jail::{Jail, peers, recipe};
pub use ldif::{Entries, read_independently};
pub use mangler::{Faults, Mangler};
pub use messages::{ordinary_message, without_trace};
pub use pair::{BehindPostfix, Direct};
pub use postfix::{Plan, Postfix};
pub use process::{Process, tool};
pub use recorder::{Recorded, Recorder};
pub use rewrite::Rewrite;
pub use sample::{people, people_of};
pub use site::{Site, path_text};
pub use slapd::slapadd;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything may take that should be there at once; generous, for two busy cores.
pub const SOON: Duration = Duration::from_secs(60);

/// A directory that belongs to one test. It goes when the test ends; when the test failed it stays, and the tail of
/// each log in it is printed.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// `name` is the test's, and becomes part of the path.
    pub fn new(name: &str) -> Scratch {
        let path = tempfile::Builder::new()
            .prefix(&format!("bridgehead-{name}-"))
            .tempdir()
            .expect("a temporary directory")
            .keep();
        // Postfix's own user has to reach its queue below.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions of the directory");
        Scratch { path }
    }

    /// The path of a file or directory in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file and says where.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the test's directory is kept: {}", self.path.display());
            show_logs(&self.path);
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn show_logs(directory: &Path) {
    let Ok(listing) = fs::read_dir(directory) else { return };
    for file in listing.flatten() {
        let path = file.path();
        if path.is_dir() {
            show_logs(&path);
        } else if path.extension().is_some_and(|e| e == "log") {
            eprintln!("--- {}\n{}", path.display(), tail(&path, 40));
        }
    }
}

/// The last lines of a text file, as much as there is of them.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A loopback address with a port that is free now, below the range from which the kernel takes ports for outgoing
/// connections, so that none of those takes it before its server does. Processes of several test runs start from
/// different places.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 18_000;
    let start = (std::process::id() as u16).wrapping_mul(97);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + start.wrapping_add(step) % COUNT));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port on loopback");
}

/// Asks until there is an answer. When there is none in time the test fails and says what was awaited.
pub fn await_some<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for {what}");
        sleep(Duration::from_millis(20));
    }
}

/// Waits until it holds.
pub fn await_true(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    await_some(what, limit, || holds().then_some(()));
}
