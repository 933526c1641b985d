//! A mail address as SMTP carries it between angle brackets.
//!
//! PROMISES
//!   The text is kept as it was written (quoting, case, address literals) and never re-quoted, so that
//!   what is sent on means what was received. A source route (`@a,@b:`) is accepted and left out.
//!
//! STANDARDS
//!   RFC 5321 section 4.1.2 (Path, Mailbox), 4.1.3 (address literals), appendix C (source routes);
//!   RFC 6531 section 3.3 (UTF-8 mailboxes).
//!
//! LIMITS
//!   `PATH_BYTES_MAX` for a path, 255 octets for a domain. Local parts longer than RFC 5321's 64 octets
//!   are let through: whether one exists is for its own domain to say.

use std::fmt;

use thiserror::Error;

use crate::limits::PATH_BYTES_MAX;

/// A reverse path or forward path, without its angle brackets.
///
/// The null reverse path `<>` is the empty path; `<Postmaster>` is the one path without a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Path {
    text: Box<str>,
    /// Where the `@` stands; equal to the length where there is none.
    at: usize,
}

/// Why a path is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    #[error("the path is too long")]
    TooLong,
    #[error("the local part is not a dot-string or quoted string")]
    LocalPart,
    #[error("the domain is missing or malformed")]
    Domain,
    #[error("control characters are not allowed in a path")]
    Control,
    #[error("the source route is malformed")]
    SourceRoute,
}

impl Path {
    /// The null reverse path, `<>`.
    pub fn null() -> Path {
        Path::default()
    }

    /// Parses what stands between the angle brackets.
    pub fn parse(text: &str) -> Result<Path, PathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if text.bytes().any(|b| b < b' ' || b == 0x7f) {
            return Err(PathError::Control);
        }
        let text = match text.strip_prefix('@') {
            Some(route) => route.split_once(':').ok_or(PathError::SourceRoute)?.1,
            None => text,
        };
        if text.is_empty() {
            return Ok(Path::null());
        }
        if text.eq_ignore_ascii_case("postmaster") {
            return Ok(Path { text: text.into(), at: text.len() });
        }
        let at = local_part_end(text).ok_or(PathError::LocalPart)?;
        match text.as_bytes().get(at) {
            Some(b'@') if is_domain(&text[at + 1..]) => Ok(Path { text: text.into(), at }),
            Some(b'@') | None => Err(PathError::Domain),
            Some(_) => Err(PathError::LocalPart),
        }
    }

    pub fn is_null(&self) -> bool {
        self.text.is_empty()
    }

    /// The path as written, without brackets.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The local part as written, quotes included.
    pub fn local_part(&self) -> &str {
        &self.text[..self.at]
    }

    /// The domain or address literal as written; empty for `<>` and `<Postmaster>`.
    pub fn domain(&self) -> &str {
        self.text.get(self.at + 1..).unwrap_or("")
    }

    /// Whether carrying it needs SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }

    /// Whether both name one mailbox as far as a relay can tell: local parts are compared as they
    /// are, without regard to ASCII case where `fold_local` says so, domains always without.
    pub fn same_mailbox(&self, other: &Path, fold_local: bool) -> bool {
        let local = if fold_local {
            self.local_part().eq_ignore_ascii_case(other.local_part())
        } else {
            self.local_part() == other.local_part()
        };
        local && self.domain().eq_ignore_ascii_case(other.domain())
    }

    /// The path without a `+detail` in its local part, for the comparison with a configured mailbox.
    pub fn without_detail(&self) -> Path {
        match self.local_part().find('+') {
            Some(plus) if plus > 0 && !self.local_part().starts_with('"') => {
                let text = format!("{}{}", &self.text[..plus], &self.text[self.at..]);
                Path { text: text.into(), at: plus }
            }
            _ => self.clone(),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.text)
    }
}

impl std::str::FromStr for Path {
    type Err = PathError;
    fn from_str(text: &str) -> Result<Path, PathError> {
        Path::parse(text)
    }
}

/// Where the local part ends: at the `@`, or at the end of the text. `None`: it is not a local part.
fn local_part_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.first() == Some(&b'"') {
        let mut i = 1;
        while i < bytes.len() {
            match bytes[i] {
                b'\\' => i += 2,
                b'"' => return Some(i + 1),
                _ => i += 1,
            }
        }
        return None;
    }
    let end = bytes.iter().position(|b| *b == b'@').unwrap_or(bytes.len());
    let local = &bytes[..end];
    // Dots at the edges or doubled are not RFC 5321, but mailboxes with them exist; the next hop decides.
    (!local.is_empty() && local.iter().all(|b| is_atom_text(*b) || *b == b'.')).then_some(end)
}

fn is_atom_text(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

/// A domain name or an address literal in brackets.
pub(crate) fn is_domain(text: &str) -> bool {
    if text.is_empty() || text.len() > 255 {
        return false;
    }
    if let Some(literal) = text.strip_prefix('[') {
        return literal.strip_suffix(']').is_some_and(|inner| {
            !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_graphic() && !b"[]\\<>".contains(&b))
        });
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    text.split('.').all(|label| {
        let label = label.as_bytes();
        !label.is_empty()
            && label.iter().all(|b| b.is_ascii_alphanumeric() || *b >= 0x80 || *b == b'-' || *b == b'_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_was_written() {
        for text in
            ["a@b", "\"a b\"@c.example", "\"a>b\"@c", "\"a\\\"@x\"@c", "x+y@[IPv6:::1]", "ü@büro.example"]
        {
            assert_eq!(Path::parse(text).unwrap().as_str(), text);
        }
        let quoted = Path::parse("\"a@b\"@c.example").unwrap();
        assert_eq!((quoted.local_part(), quoted.domain()), ("\"a@b\"", "c.example"));
    }

    #[test]
    fn knows_the_paths_without_domain() {
        assert!(Path::parse("").unwrap().is_null());
        assert_eq!(Path::parse("PostMaster").unwrap().domain(), "");
        assert_eq!(Path::parse("someone"), Err(PathError::Domain));
    }

    #[test]
    fn leaves_source_routes_out() {
        assert_eq!(Path::parse("@r1,@r2:a@c").unwrap().as_str(), "a@c");
        assert_eq!(Path::parse("@r1,@r2"), Err(PathError::SourceRoute));
    }

    #[test]
    fn refuses_what_is_not_a_path() {
        for text in
            ["a b@c", "a@b@c", "\"a@c", "a@", "@", "a@b..c", "a@[", "a\u{1}@c", "a\"b@c", "a@b>c", "\"a\"b@c"]
        {
            assert!(Path::parse(text).is_err(), "{text}");
        }
        assert_eq!(Path::parse(&format!("{}@b", "a".repeat(5000))), Err(PathError::TooLong));
    }

    #[test]
    fn compares_mailboxes() {
        let mailbox = Path::parse("repl@Corp.example").unwrap();
        let tagged = Path::parse("REPL+token@corp.EXAMPLE").unwrap();
        assert!(tagged.without_detail().same_mailbox(&mailbox, true));
        assert!(!tagged.without_detail().same_mailbox(&mailbox, false));
        assert!(!tagged.same_mailbox(&mailbox, true));
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_reads_its_own_output(text in "\\PC{0,40}") {
            if let Ok(path) = Path::parse(&text) {
                proptest::prop_assert_eq!(Path::parse(path.as_str()).unwrap(), path);
            }
        }
    }
}
