//! Signed text: statements that people read, keep in files and send by any channel.
//!
//! A statement is TOML followed by lines of signatures. What is signed is the *canonical text* above the first
//! signature line: line ends as LF, blanks at line ends removed, since mail and editors change those. The statement is
//! parsed from that text and from nothing else.
//!
//! ```text
//!   name = "alpha"                     <- TOML, signed as it stands
//!   ...
//!   signature = "ed25519:BASE64"       <- by the key that the statement names
//!   endorsed = "ed25519:BASE64"        <- optional: by the former key, over all above
//! ```
//!
//! LIMITS
//!   64 KiB; ASCII control characters other than TAB and line ends are refused, so that a terminal shows what is signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, VerifyingKey};
use thiserror::Error;

use super::keys::{self, SiteKey};

/// Octets of a statement.
pub const STATEMENT_BYTES_MAX: usize = 64 << 10;

const SIGNATURE: &str = "signature = \"ed25519:";
const ENDORSEMENT: &str = "endorsed = \"ed25519:";

/// The fault of whoever made or carried the statement.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StatementError {
    #[error("it has more than 64 KiB")]
    TooLarge,
    #[error("line {0} holds a control character")]
    Control(usize),
    #[error("it has no `signature = \"ed25519:...\"` line; was it cut off?")]
    Unsigned,
    #[error("line {0} is not the base64 of a signature")]
    NotASignature(usize),
    #[error("line {0} stands below the signature, where nothing may stand")]
    Trailing(usize),
    #[error("{0}")]
    Toml(String),
    #[error("the signature does not fit the text: it was altered, or signed by another key")]
    BadSignature,
}

/// A statement taken apart; nothing is verified yet.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    /// The canonical text that the signature covers.
    text: String,
    signature: Signature,
    endorsement: Option<Signature>,
}

/// Signs a statement. `domain` names what kind it is, so that none passes for another.
pub(super) fn sign(key: &SiteKey, domain: &[u8], text: &str) -> String {
    let text = canonical(text);
    let signature = BASE64.encode(key.sign(domain, text.as_bytes()).to_bytes());
    format!("{text}{SIGNATURE}{signature}\"\n")
}

/// Adds the former key's endorsement to a signed statement.
pub(super) fn endorse(former: &SiteKey, domain: &[u8], signed: &str) -> String {
    let signed = canonical(signed);
    let endorsement = BASE64.encode(former.sign(domain, signed.as_bytes()).to_bytes());
    format!("{signed}{ENDORSEMENT}{endorsement}\"\n")
}

impl Statement {
    pub(super) fn parse(text: &str) -> Result<Self, StatementError> {
        if text.len() > STATEMENT_BYTES_MAX {
            return Err(StatementError::TooLarge);
        }
        let text = canonical(text);
        if let Some(at) = text.lines().position(|line| line.chars().any(|c| c.is_control() && c != '\t')) {
            return Err(StatementError::Control(at + 1));
        }
        let first =
            text.lines().position(|line| line.starts_with(SIGNATURE)).ok_or(StatementError::Unsigned)?;
        let signed = text.lines().take(first).map(|line| line.len() + 1).sum();
        let (mut signature, mut endorsement) = (None, None);
        for (at, line) in text.lines().enumerate().skip(first) {
            let slot = match line {
                line if line.starts_with(SIGNATURE) && signature.is_none() => &mut signature,
                line if line.starts_with(ENDORSEMENT) && endorsement.is_none() => &mut endorsement,
                "" => continue,
                line if line.starts_with('#') => continue,
                _ => return Err(StatementError::Trailing(at + 1)),
            };
            *slot = Some(read_signature(line).ok_or(StatementError::NotASignature(at + 1))?);
        }
        let signature = signature.ok_or(StatementError::Unsigned)?;
        Ok(Statement { text: text[..signed].to_owned(), signature, endorsement })
    }

    /// The TOML that was signed.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn verify(&self, key: &VerifyingKey, domain: &[u8]) -> Result<(), StatementError> {
        let sound = keys::verify(key, domain, self.text.as_bytes(), &self.signature);
        if sound { Ok(()) } else { Err(StatementError::BadSignature) }
    }

    /// Whether `former` endorsed this very text and signature.
    pub(super) fn is_endorsed(&self, former: &VerifyingKey, domain: &[u8]) -> bool {
        let signature = BASE64.encode(self.signature.to_bytes());
        let signed = format!("{}{SIGNATURE}{signature}\"\n", self.text);
        self.endorsement
            .is_some_and(|endorsement| keys::verify(former, domain, signed.as_bytes(), &endorsement))
    }
}

/// Line ends as LF, no blanks before them, no byte order mark, no blank lines at the end.
fn canonical(text: &str) -> String {
    let mut canonical = String::with_capacity(text.len() + 1);
    for line in text.strip_prefix('\u{feff}').unwrap_or(text).lines() {
        canonical.push_str(line.trim_end_matches([' ', '\t', '\r']));
        canonical.push('\n');
    }
    canonical.truncate(canonical.trim_end_matches('\n').len() + 1);
    canonical
}

fn read_signature(line: &str) -> Option<Signature> {
    let (_, text) = line.split_once("ed25519:")?;
    let octets = BASE64.decode(text.strip_suffix('"')?).ok()?;
    Signature::from_slice(&octets).ok()
}

/// A public key as statements write it: `KIND:BASE64`.
pub(super) fn print_key(kind: &str, octets: &[u8; 32]) -> String {
    format!("{kind}:{}", BASE64.encode(octets))
}

/// Reads what [`print_key`] writes.
pub(super) fn read_key(kind: &str, text: &str) -> Option<[u8; 32]> {
    let octets = BASE64.decode(text.strip_prefix(kind)?.strip_prefix(':')?).ok()?;
    octets.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::random::Seeded;

    const KIND: &[u8] = b"test statement\0";

    fn key(seed: u64) -> SiteKey {
        SiteKey::generate(&mut Seeded::new(seed))
    }

    fn signed() -> String {
        sign(&key(1), KIND, "a = 1\nb = \"x\"\n")
    }

    #[test]
    fn changes_that_mail_makes_are_harmless() {
        let text = signed();
        let crlf = text.replace('\n', "\r\n");
        let blanks = text.replace('\n', "  \t\n");
        for form in [text.clone(), crlf, blanks, format!("\u{feff}{text}\n\n"), text.trim_end().to_owned()] {
            let statement = Statement::parse(&form).unwrap();
            assert_eq!(statement.verify(&key(1).public().signing, KIND), Ok(()), "{form:?}");
            assert_eq!(statement.text(), "a = 1\nb = \"x\"\n");
        }
    }

    #[test]
    fn every_other_change_is_refused() {
        let text = signed();
        for at in 0..text.len() {
            for byte in [b'x', b'\n', b' ', b'"'] {
                let mut altered = text.clone().into_bytes();
                altered[at] = byte;
                let altered = String::from_utf8(altered).unwrap();
                if canonical(&altered) != text {
                    let verified = Statement::parse(&altered)
                        .and_then(|statement| statement.verify(&key(1).public().signing, KIND));
                    assert!(verified.is_err(), "{altered:?}");
                }
            }
            let cut = Statement::parse(&text[..at]);
            assert!(cut.is_err() || at == text.len() - 1);
        }
        let statement = Statement::parse(&text).unwrap();
        assert_eq!(statement.verify(&key(2).public().signing, KIND), Err(StatementError::BadSignature));
        assert_eq!(statement.verify(&key(1).public().signing, b"other\0"), Err(StatementError::BadSignature));
    }

    #[test]
    fn each_fault_has_its_words() {
        let text = signed();
        let parse = |text: &str| Statement::parse(text).unwrap_err();
        assert_eq!(parse(&"#".repeat(STATEMENT_BYTES_MAX + 1)), StatementError::TooLarge);
        assert_eq!(parse("a = 1\n"), StatementError::Unsigned);
        assert_eq!(parse("a = \"\u{1b}[2J\"\n"), StatementError::Control(1));
        assert_eq!(parse(&format!("{text}c = 2\n")), StatementError::Trailing(4));
        assert_eq!(parse(&format!("{text}{text}")), StatementError::Trailing(4));
        assert_eq!(parse("signature = \"ed25519:AAAA\"\n"), StatementError::NotASignature(1));
    }

    #[test]
    fn an_endorsement_covers_text_and_signature() {
        let text = endorse(&key(2), KIND, &signed());
        let statement = Statement::parse(&text).unwrap();
        assert_eq!(statement.verify(&key(1).public().signing, KIND), Ok(()));
        assert!(statement.is_endorsed(&key(2).public().signing, KIND));
        assert!(!statement.is_endorsed(&key(1).public().signing, KIND));
        // The endorsement of one text does not carry over to another.
        let other = sign(&key(1), KIND, "a = 2\n") + text.lines().last().unwrap();
        assert!(!Statement::parse(&other).unwrap().is_endorsed(&key(2).public().signing, KIND));
        assert!(!Statement::parse(&signed()).unwrap().is_endorsed(&key(2).public().signing, KIND));
    }
}
