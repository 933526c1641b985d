//! One replication mail: from a payload to a sealed message, and back.
//!
//! Outbound a payload is sealed ([`seal`]) and dressed as mail ([`mime::compose`]); inbound the
//! attachment is found ([`mime::extract`]), opened and verified ([`open`]). Nothing of a message is
//! decoded before it is bounded, and nothing of a payload is touched before its signature is proved.
//!
//! ```text
//!   payload ──► seal ──► mime::compose ──► relay::submit
//!   engine  ◄── open ◄── mime::extract ◄── listen (replication mailbox)
//!                        bounce::parse ◄──┘ (null reverse path)
//! ```
//!
//! The formats are specified in bridgehead-replication(7); test vectors are in `tests/vectors/`.

pub mod bounce;
pub mod bundle;
pub mod card;
pub mod envelope;
pub mod introduction;
pub mod keyfile;
pub mod keys;
pub mod mime;
pub mod name;
pub mod open;
pub mod own;
pub mod pinned;
pub mod random;
pub mod seal;
pub mod statement;
pub mod token;

/// Whose fault a refused message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The site that sent it, or somebody who pretends to be one.
    Sender,
    /// The mail systems between.
    Transit,
    /// This site: its configuration or its machine.
    Us,
}

/// The SMTP reply that refuses a message (RFC 5321 section 4.2, RFC 3463).
///
/// `text` is for the sending side's postmaster and holds nothing that the sender does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: u16,
    pub enhanced: &'static str,
    pub text: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.code, self.enhanced, self.text)
    }
}
