//! The envelope of one transaction: reverse path, forward paths, and what was said about each.

use super::{MailParameters, Path, RcptParameters};

/// One forward path of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipient {
    pub path: Path,
    pub parameters: RcptParameters,
}

/// What MAIL and RCPT established.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    pub reverse_path: Path,
    pub parameters: MailParameters,
    pub recipients: Vec<Recipient>,
}

impl Envelope {
    /// An envelope without parameters, as our own mail has.
    pub fn plain(reverse_path: Path, forward_path: Path) -> Envelope {
        let recipient = Recipient { path: forward_path, parameters: RcptParameters::default() };
        Envelope { reverse_path, parameters: MailParameters::default(), recipients: vec![recipient] }
    }

    /// Appends the MAIL command for a next hop with these extensions.
    pub fn write_mail(&self, out: &mut Vec<u8>, next_hop: &super::Extensions) {
        out.extend_from_slice(b"MAIL FROM:<");
        out.extend_from_slice(self.reverse_path.as_str().as_bytes());
        out.push(b'>');
        self.parameters.write_to(out, next_hop);
        out.extend_from_slice(b"\r\n");
    }
}

impl Recipient {
    /// Appends the RCPT command for a next hop with these extensions.
    pub fn write_rcpt(&self, out: &mut Vec<u8>, next_hop: &super::Extensions) {
        out.extend_from_slice(b"RCPT TO:<");
        out.extend_from_slice(self.path.as_str().as_bytes());
        out.push(b'>');
        self.parameters.write_to(out, next_hop);
        out.extend_from_slice(b"\r\n");
    }
}
