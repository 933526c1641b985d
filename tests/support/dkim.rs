//! DKIM signatures, made and checked by dkimpy: a check of byte-exactness that is not ours.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::{Scratch, tool};

pub struct Dkim {
    key: PathBuf,
}

impl Dkim {
    /// With a new key.
    pub fn new(scratch: &Scratch) -> Dkim {
        let key = scratch.join("dkim.pem");
        let status = Command::new(tool("openssl"))
            .args(["genrsa", "-traditional", "-out"])
            .arg(&key)
            .arg("2048")
            .stderr(Stdio::null())
            .status();
        assert!(status.expect("openssl").success(), "openssl makes a key");
        Dkim { key }
    }

    /// The message with a signature in front, over header fields and body as they are ("simple").
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let output = self.run("sign", message);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    pub fn verifies(&self, message: &[u8]) -> bool {
        self.run("verify", message).status.success()
    }

    fn run(&self, verb: &str, message: &[u8]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/dkim_tool.py");
        let mut child = Command::new("/usr/bin/python3")
            .arg(script)
            .arg(verb)
            .arg(&self.key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Debian's python3; contrib/test/run installs what the tests need");
        child.stdin.take().expect("a pipe").write_all(message).expect("write to dkimpy");
        child.wait_with_output().expect("dkimpy ends")
    }
}
