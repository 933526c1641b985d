//! A self-signed certificate, in files.

use std::path::PathBuf;

use super::Scratch;

pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificate {
    pub fn new(scratch: &Scratch, name: &str) -> Certificate {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        Certificate {
            certificate: scratch.write("certificate.pem", made.cert.pem()),
            key: scratch.write("key.pem", made.signing_key.serialize_pem()),
        }
    }
}
