//! A server that insists on the machine's own places (`/etc`, `/var/spool`, its own users), in a view of the file system
//! where those are private copies.
//!
//! PROMISES
//!   Nothing of the machine is changed: what is written below /etc, /var/spool, /var/lib and /run is seen by this server only
//!   and is gone with it. All of its processes end when the test does.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::{Process, SOON, Scratch, await_true, tool};

pub struct Jail {
    process: Process,
}

/// Users that Debian's packages would have made, under the names that are compiled into the servers.
const PRELUDE: &str = r#"
set -eu
cp -a /etc "$W/etc"
for user in Debian-exim opensmtpd opensmtpq smmta smmsp; do
    grep -q "^$user:" "$W/etc/passwd" && continue
    id=$((64800 + $(wc -l <"$W/etc/passwd")))
    echo "$user:x:$id:$id::/var/lib/$user/empty:/usr/sbin/nologin" >>"$W/etc/passwd"
    echo "$user:x:$id:" >>"$W/etc/group"
done
printf '127.0.0.1 localhost\n127.0.1.1 mx.paris.example %s\n' "$(hostname)" >"$W/etc/hosts"
mkdir -p "$W/etc/mail"
mount --bind "$W/etc" /etc
for place in /var/spool /var/lib /run /usr/libexec; do mount -t tmpfs -o mode=755 tmpfs "$place"; done
"#;

impl Jail {
    /// Runs a shell script in it, which ends in `exec` of the server. `$W` is a directory for the server's files, `$PEERS` where
    /// the unpacked packages are. Returns once something listens at `address`.
    pub fn start(scratch: &Scratch, name: &str, script: &str, address: SocketAddr) -> Jail {
        let directory = scratch.join(name);
        fs::create_dir_all(&directory).expect("a directory for the server");
        let file = directory.join("start.sh");
        fs::write(&file, format!("{PRELUDE}{script}")).expect("the script");
        let mut command = Command::new(tool("unshare"));
        command
            .args(["--mount", "--pid", "--mount-proc", "--fork", "--kill-child", "bash"])
            .arg(&file)
            .env("W", &directory)
            .env("PEERS", peers());
        let log = directory.join("server.log");
        let mut process = Process::start(name, &mut command, &log);
        await_true(&format!("{name} to listen"), SOON, || {
            process.assert_alive();
            TcpStream::connect(address).is_ok()
        });
        Jail { process }
    }

    pub fn assert_alive(&mut self) {
        self.process.assert_alive();
    }
}

impl Drop for Jail {
    /// Ends the first process of the jail's own process namespace, and with it all of them. `--kill-child` alone does not:
    /// a server that gives up root no longer hears of its parent's death (prctl(2), PR_SET_PDEATHSIG).
    fn drop(&mut self) {
        let pid = self.process.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)) {
            // One that ended meanwhile has ended.
            let _ = kill_process(child, Signal::KILL);
        }
    }
}

/// Where `contrib/test/run` unpacks packages. A missing one is an error.
pub fn peers() -> PathBuf {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers");
    assert!(place.is_dir(), "no {}; contrib/test/run unpacks what the tests need", place.display());
    place
}

/// A file of contrib/ with Paris's ports in place of those that are written there.
pub fn recipe(file: &str, bridgehead: SocketAddr) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(!text.is_empty(), "{} is empty", path.display());
    text.replace("10025", &bridgehead.port().to_string())
}
