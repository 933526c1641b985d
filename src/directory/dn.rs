//! Distinguished names: text in, comparison and the name index's keys out.
//!
//! PROMISES
//!   The text of each RDN is kept as it was given (spaces around the separators are dropped), so a
//!   name is shown and signed as its owner wrote it. `normalized` is what two spellings of one name
//!   share. Derived equality compares the text; `matches` compares the name.
//! STANDARDS
//!   RFC 4514 sections 2 and 3 (string form); RFC 4518 in part (case, spaces).
//! LIMITS
//!   `DN_DEPTH_MAX` RDNs of `RDN_BYTES_MAX` octets each.
//! BUGS
//!   Unicode is not brought to one normal form before comparison. Attribute types are compared as
//!   written: `cn` and `2.5.4.3` are two types. The quoted and `;` forms of RFC 1779 are refused.

use std::fmt;

use thiserror::Error;

use crate::limits::{DN_DEPTH_MAX, ENTRY_DN_BYTES_MAX, RDN_BYTES_MAX};

/// A distinguished name; the first RDN is the entry's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dn {
    rdns: Vec<Rdn>,
}

/// A relative distinguished name, for example `cn=Ada Lovelace` or `cn=Ada+uid=7`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rdn {
    text: String,
}

/// Whoever wrote the name is at fault.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DnError {
    #[error("the name is empty")]
    Empty,
    #[error("the name, or a part of it with more than {RDN_BYTES_MAX} octets, is too long")]
    TooLong,
    #[error("the name has more than {DN_DEPTH_MAX} parts")]
    TooDeep,
    #[error("{0:?} is not an attribute type")]
    Type(String),
    #[error("{0:?} has no '='")]
    NoEquals(String),
    #[error("{0:?} must be escaped with '\\' in a name")]
    Unescaped(char),
    #[error("a '\\' escapes nothing")]
    Escape,
    #[error("the escaped octets are not UTF-8, or '#' is not followed by pairs of hexadecimal digits")]
    Octets,
}

impl Dn {
    /// Reads the string form of a name with at least one RDN.
    pub fn parse(text: &str) -> Result<Dn, DnError> {
        if text.len() > ENTRY_DN_BYTES_MAX {
            return Err(DnError::TooLong);
        }
        let rdns = split(text, b',').map(Rdn::parse).collect::<Result<Vec<_>, _>>()?;
        Dn::from_rdns(rdns)
    }

    /// `rdns`: the entry's own RDN first.
    pub fn from_rdns(rdns: Vec<Rdn>) -> Result<Dn, DnError> {
        match rdns.len() {
            0 => Err(DnError::Empty),
            n if n > DN_DEPTH_MAX => Err(DnError::TooDeep),
            _ => Ok(Dn { rdns }),
        }
    }

    pub fn rdn(&self) -> &Rdn {
        &self.rdns[0]
    }

    /// The entry's own RDN first.
    pub fn rdns(&self) -> &[Rdn] {
        &self.rdns
    }

    /// The name above, or None above the topmost.
    pub fn parent(&self) -> Option<Dn> {
        (self.rdns.len() > 1).then(|| Dn { rdns: self.rdns[1..].to_vec() })
    }

    /// The name of a child of this one.
    pub fn child(&self, rdn: Rdn) -> Result<Dn, DnError> {
        let mut rdns = Vec::with_capacity(self.rdns.len() + 1);
        rdns.push(rdn);
        rdns.extend_from_slice(&self.rdns);
        Dn::from_rdns(rdns)
    }

    /// Whether this name is `above` or lies beneath it.
    pub fn is_under(&self, above: &Dn) -> bool {
        let (mine, theirs) = (self.rdns.len(), above.rdns.len());
        mine >= theirs && self.rdns[mine - theirs..].iter().zip(&above.rdns).all(|(a, b)| a.matches(b))
    }

    /// Whether both are spellings of one name.
    pub fn matches(&self, other: &Dn) -> bool {
        self.rdns.len() == other.rdns.len() && self.is_under(other)
    }

    /// The text of the name above; empty above the topmost.
    pub(super) fn parent_text(&self) -> String {
        let mut text = String::with_capacity(64);
        for rdn in &self.rdns[1..] {
            text.push_str(&rdn.text);
            text.push(',');
        }
        text.pop();
        text
    }

    /// One byte string for all spellings of this name, for maps in memory.
    pub fn normalized(&self) -> Vec<u8> {
        let mut key = Vec::new();
        for rdn in &self.rdns {
            key.extend_from_slice(&rdn.normalized());
            key.push(b',');
        }
        key
    }
}

impl fmt::Display for Dn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, rdn) in self.rdns.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            f.write_str(&rdn.text)?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Dn {
    type Err = DnError;

    fn from_str(text: &str) -> Result<Dn, DnError> {
        Dn::parse(text)
    }
}

impl Rdn {
    pub fn parse(text: &str) -> Result<Rdn, DnError> {
        let text = trim(text);
        if text.is_empty() {
            return Err(DnError::Empty);
        }
        if text.len() > RDN_BYTES_MAX {
            return Err(DnError::TooLong);
        }
        for pair in split(text, b'+') {
            let (_, value) = typed(pair)?;
            octets(value)?;
        }
        Ok(Rdn { text: text.to_owned() })
    }

    /// An RDN of one attribute; `value` is escaped as needed.
    pub fn of(attribute: &str, value: &str) -> Result<Rdn, DnError> {
        Rdn::parse(&format!("{attribute}={}", escape(value)))
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Attribute type and value octets of each pair, in the order written.
    pub fn pairs(&self) -> Vec<(&str, Vec<u8>)> {
        split(&self.text, b'+')
            .filter_map(|pair| {
                let (name, value) = typed(pair).ok()?;
                Some((name, octets(value).ok()?))
            })
            .collect()
    }

    /// Whether both are spellings of one name.
    pub fn matches(&self, other: &Rdn) -> bool {
        self.text == other.text || self.normalized() == other.normalized()
    }

    /// One byte string for all spellings of this RDN: types and values in lower case, runs of spaces
    /// as one, escapes resolved, pairs in order. Two different names never share it.
    pub fn normalized(&self) -> Vec<u8> {
        let mut pairs: Vec<Vec<u8>> = split(&self.text, b'+').map(normalized_pair).collect();
        if pairs.len() == 1 {
            return pairs.remove(0);
        }
        pairs.sort();
        pairs.join(&b'+')
    }
}

impl fmt::Display for Rdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `value` as it stands in a name (RFC 4514 section 2.4).
pub fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len() + 4);
    for (i, c) in value.char_indices() {
        let last = i + c.len_utf8() == value.len();
        match c {
            '\0' => escaped.push_str("\\00"),
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => escaped.extend(['\\', c]),
            ' ' | '#' if i == 0 => escaped.extend(['\\', c]),
            ' ' if last => escaped.extend(['\\', c]),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// Splits at a separator that no '\' precedes.
fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let current = rest?;
        let bytes = current.as_bytes();
        let mut at = 0;
        while at < bytes.len() && bytes[at] != separator {
            at += if bytes[at] == b'\\' { 2 } else { 1 };
        }
        // `at` stands on an ASCII separator, hence on a character boundary, or past the end.
        if at < bytes.len() {
            rest = Some(&current[at + 1..]);
            Some(&current[..at])
        } else {
            rest = None;
            Some(current)
        }
    })
}

/// Drops spaces around a part, but for a trailing one that is escaped.
fn trim(text: &str) -> &str {
    let text = text.trim_start_matches(' ');
    let bare = text.trim_end_matches(' ');
    let backslashes = bare.bytes().rev().take_while(|&b| b == b'\\').count();
    if backslashes % 2 == 1 && bare.len() < text.len() { &text[..bare.len() + 1] } else { bare }
}

/// Type and value text of one pair.
fn typed(pair: &str) -> Result<(&str, &str), DnError> {
    let pair = trim(pair);
    let Some((name, value)) = pair.split_once('=') else { return Err(DnError::NoEquals(pair.to_owned())) };
    let name = name.trim_end_matches(' ');
    if !is_attribute_type(name) {
        return Err(DnError::Type(name.to_owned()));
    }
    Ok((name, value.trim_start_matches(' ')))
}

/// RFC 4512 section 1.4: a short name or a dotted number, here without options.
fn is_attribute_type(name: &str) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty()
        && (bytes[0].is_ascii_alphabetic() && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
            || bytes[0].is_ascii_digit() && bytes.iter().all(|b| b.is_ascii_digit() || *b == b'.'))
}

/// The octets that a value's text stands for. `#` and hexadecimal digits stay as written, in lower case.
fn octets(value: &str) -> Result<Vec<u8>, DnError> {
    if let Some(digits) = value.strip_prefix('#') {
        let sound =
            !digits.is_empty() && digits.len() % 2 == 0 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        return if sound { Ok(value.to_ascii_lowercase().into_bytes()) } else { Err(DnError::Octets) };
    }
    let bytes = value.as_bytes();
    let mut octets = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => {
                let next = *bytes.get(at + 1).ok_or(DnError::Escape)?;
                match (hex(next), bytes.get(at + 2).copied().and_then(hex)) {
                    (Some(high), Some(low)) => {
                        octets.push(high << 4 | low);
                        at += 3;
                    }
                    _ if b" \"#+,;<=>\\".contains(&next) => {
                        octets.push(next);
                        at += 2;
                    }
                    _ => return Err(DnError::Escape),
                }
            }
            b @ (b'"' | b'+' | b',' | b';' | b'<' | b'>' | 0) => {
                return Err(DnError::Unescaped(char::from(b)));
            }
            b => {
                octets.push(b);
                at += 1;
            }
        }
    }
    if std::str::from_utf8(&octets).is_err() { Err(DnError::Octets) } else { Ok(octets) }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|d| d as u8)
}

fn normalized_pair(pair: &str) -> Vec<u8> {
    // An `Rdn` was checked when it was made; what cannot happen stays as written.
    let Ok((name, value)) = typed(pair) else { return pair.as_bytes().to_vec() };
    let octets = octets(value).unwrap_or_default();
    let mut key = name.to_ascii_lowercase().into_bytes();
    key.push(b'=');
    // `\#` and `#` differ: only the second is in hexadecimal.
    if !value.starts_with('#') && octets.first() == Some(&b'#') {
        key.push(b'\\');
    }
    let text = String::from_utf8_lossy(&octets);
    let mut buffer = [0; 4];
    for (i, word) in text.split(' ').filter(|word| !word.is_empty()).enumerate() {
        if i > 0 {
            key.push(b' ');
        }
        for c in word.chars().flat_map(char::to_lowercase) {
            if matches!(c, '+' | ',' | '\\') {
                key.push(b'\\');
            }
            key.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dn(text: &str) -> Dn {
        Dn::parse(text).unwrap()
    }

    #[test]
    fn the_text_is_kept_and_the_name_is_compared() {
        let a = dn("CN=Ada  Lovelace , ou=People,o=Example");
        assert_eq!(a.to_string(), "CN=Ada  Lovelace,ou=People,o=Example");
        assert!(a.matches(&dn("cn=ada lovelace,OU=people,O=EXAMPLE")));
        assert!(!a.matches(&dn("cn=ada lovelace,OU=people")));
        assert!(a.is_under(&dn("o=example")));
        assert!(a.is_under(&a));
        assert!(!dn("o=example").is_under(&a));
        assert_eq!(a.parent().unwrap().to_string(), "ou=People,o=Example");
        assert!(dn("o=x").parent().is_none());
    }

    #[test]
    fn escapes_of_rfc_4514_section_4() {
        assert_eq!(
            dn(r"CN=James \22Jim\22 Smith\, III,DC=x").rdn().pairs(),
            [("CN", b"James \"Jim\" Smith, III".to_vec())]
        );
        assert_eq!(dn(r"CN=Before\0dAfter,DC=x").rdn().pairs()[0].1, b"Before\rAfter");
        assert_eq!(dn(r"CN=Lu\C4\8Di\C4\87").rdn().pairs()[0].1, "Lučić".as_bytes());
        assert!(dn(r"CN=Lu\C4\8Di\C4\87").matches(&dn("cn=LUČIĆ")));
        assert_eq!(dn("1.3.6.1.4.1.1466.0=#04024869").rdns().len(), 1);
        assert!(dn("OU=Sales+CN=J.  Smith,DC=x").matches(&dn("cn=j. smith+ou=sales,dc=x")));
        assert_eq!(dn(r"cn=a\ ,o=x").rdn().pairs()[0].1, b"a ");
        assert_eq!(dn(r"cn=a\\ ,o=x").rdn().pairs()[0].1, b"a\\");
    }

    #[test]
    fn what_is_refused() {
        for (text, error) in [
            ("", DnError::Empty),
            ("cn=a,", DnError::Empty),
            ("cn", DnError::NoEquals("cn".into())),
            ("=x", DnError::Type("".into())),
            ("c n=x", DnError::Type("c n".into())),
            ("cn=a;o=b", DnError::Unescaped(';')),
            ("cn=\"a\"", DnError::Unescaped('"')),
            ("cn=a\\", DnError::Escape),
            ("cn=a\\zz", DnError::Escape),
            ("cn=\\ff", DnError::Octets),
            ("cn=#0", DnError::Octets),
            ("cn=\0", DnError::Unescaped('\0')),
        ] {
            assert_eq!(Dn::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(Dn::parse(&format!("cn={}", "a".repeat(RDN_BYTES_MAX))), Err(DnError::TooLong));
        assert_eq!(Dn::parse(&vec!["a=b"; DN_DEPTH_MAX + 1].join(",")), Err(DnError::TooDeep));
    }

    #[test]
    fn different_names_have_different_keys() {
        let rdns = [
            r"cn=a\+b=c",
            "cn=a+b=c",
            r"cn=a\\+b=c",
            r"cn=\#00",
            "cn=#00",
            "cn=a",
            "cn=a b",
            "cn=ab",
            "sn=a",
        ];
        for (i, a) in rdns.iter().enumerate() {
            for b in &rdns[i + 1..] {
                assert!(!Rdn::parse(a).unwrap().matches(&Rdn::parse(b).unwrap()), "{a} {b}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_survives_printing(text in ".{0,60}") {
            if let Ok(dn) = Dn::parse(&text) {
                let again = Dn::parse(&dn.to_string()).unwrap();
                prop_assert!(again.matches(&dn));
                prop_assert_eq!(again, dn);
            }
        }

        #[test]
        fn any_value_can_be_named(value in ".{1,40}") {
            let rdn = Rdn::of("cn", &value).unwrap();
            prop_assert_eq!(rdn.pairs(), [("cn", value.into_bytes())]);
        }
    }
}
