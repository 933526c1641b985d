//! Search filters: parsed from text, matched against entries.
//!
//! PROMISES
//!   Parsing is bounded in depth and never panics. Text is compared without regard to case and to repeated
//!   spaces, as caseIgnoreMatch does (RFC 4518 in its simplest form); other octets as they are.
//!
//! STANDARDS
//!   RFC 4515 (text form), RFC 4511 section 4.5.1.7 (meaning).
//!
//! BUGS
//!   No schema: `>=` and `<=` compare as text, `~=` is equality, extensible matches are refused.

use thiserror::Error;

use super::context::{ContextRecord, contexts};
use super::dn::Dn;
use super::entry::Entry;
use super::lookup::{self, Finder};
use super::store::{Read, StoreError};

/// Filters within filters.
const DEPTH_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    Present(String),
    Equal(String, Vec<u8>),
    AtLeast(String, Vec<u8>),
    AtMost(String, Vec<u8>),
    /// Pieces in order; whether the first has to begin and the last to end the value.
    Pieces {
        attribute: String,
        begins: bool,
        pieces: Vec<Vec<u8>>,
        ends: bool,
    },
}

/// Whoever wrote the filter is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("at character {at}: {reason}")]
pub struct FilterError {
    pub at: usize,
    pub reason: &'static str,
}

impl Filter {
    /// Reads the text form; the outermost parentheses may be left out.
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        let wrapped = if text.starts_with('(') { text.to_owned() } else { format!("({text})") };
        let mut parser = Parser { text: &wrapped, at: 0 };
        let filter = parser.filter(0)?;
        if parser.at != wrapped.len() {
            return Err(parser.error("something stands after the filter"));
        }
        Ok(filter)
    }

    pub fn matches(&self, entry: &Entry) -> bool {
        let some = |attribute: &str, test: &dyn Fn(&[u8]) -> bool| {
            entry.attributes.values(attribute).iter().any(|value| test(value))
        };
        match self {
            Filter::All(filters) => filters.iter().all(|filter| filter.matches(entry)),
            Filter::Any(filters) => filters.iter().any(|filter| filter.matches(entry)),
            Filter::Not(filter) => !filter.matches(entry),
            Filter::Present(name) => some(name, &|_| true),
            Filter::Equal(name, value) => some(name, &|known| folded(known) == *value),
            Filter::AtLeast(name, value) => some(name, &|known| folded(known) >= *value),
            Filter::AtMost(name, value) => some(name, &|known| folded(known) <= *value),
            Filter::Pieces { attribute, begins, pieces, ends } => {
                some(attribute, &|known| has_pieces(&folded(known), *begins, pieces, *ends))
            }
        }
    }
}

fn has_pieces(value: &[u8], begins: bool, pieces: &[Vec<u8>], ends: bool) -> bool {
    let mut rest = value;
    for (index, piece) in pieces.iter().enumerate() {
        let last = index + 1 == pieces.len();
        if index == 0 && begins {
            let Some(after) = rest.strip_prefix(&piece[..]) else { return false };
            rest = after;
        } else if last && ends {
            return rest.ends_with(piece);
        } else {
            let Some(at) = memchr::memmem::find(rest, piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
        if last && ends && !rest.is_empty() {
            return false;
        }
    }
    true
}

/// Lower case, runs of spaces as one, none at the ends; octets that are no text stay as they are.
fn folded(value: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(value) else { return value.to_vec() };
    let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
    words.join(" ").to_lowercase().into_bytes()
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl Parser<'_> {
    fn error(&self, reason: &'static str) -> FilterError {
        FilterError { at: self.text[..self.at].chars().count() + 1, reason }
    }

    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, octet: u8, reason: &'static str) -> Result<(), FilterError> {
        if self.next() != Some(octet) {
            return Err(self.error(reason));
        }
        self.at += 1;
        Ok(())
    }

    fn filter(&mut self, depth: usize) -> Result<Filter, FilterError> {
        if depth > DEPTH_MAX {
            return Err(self.error("too many filters within one another"));
        }
        self.expect(b'(', "a filter begins with (")?;
        let filter = match self.next() {
            Some(b'&') => Filter::All(self.list(depth)?),
            Some(b'|') => Filter::Any(self.list(depth)?),
            Some(b'!') => {
                self.at += 1;
                Filter::Not(Box::new(self.filter(depth + 1)?))
            }
            _ => self.item()?,
        };
        self.expect(b')', "a filter ends with )")?;
        Ok(filter)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Filter>, FilterError> {
        self.at += 1;
        let mut filters = Vec::new();
        while self.next() == Some(b'(') {
            filters.push(self.filter(depth + 1)?);
        }
        Ok(filters)
    }

    fn item(&mut self) -> Result<Filter, FilterError> {
        let rest = &self.text[self.at..];
        let end = rest.find(')').ok_or_else(|| self.error("a filter ends with )"))?;
        let (name, value) = rest[..end].split_once('=').ok_or_else(|| self.error("= is missing"))?;
        let begin = self.at + name.len() + 1;
        let (name, comparison) = match name.as_bytes().last() {
            Some(b'>' | b'<' | b'~') => name.split_at(name.len() - 1),
            Some(b':') => return Err(self.error("extensible matches are not known here")),
            _ => (name, ""),
        };
        let sound = |c: char| c.is_ascii_alphanumeric() || "-;.".contains(c);
        if name.is_empty() || !name.chars().all(sound) {
            return Err(self.error("that is no attribute"));
        }
        self.at = begin;
        let name = name.to_owned();
        let pieces: Result<Vec<_>, _> = value.split('*').map(|piece| self.unescape(piece)).collect();
        let mut pieces = pieces?;
        self.at = begin + value.len();
        Ok(match (comparison, pieces.len()) {
            (">", _) => Filter::AtLeast(name, folded(&pieces.join(&b'*'))),
            ("<", _) => Filter::AtMost(name, folded(&pieces.join(&b'*'))),
            (_, 1) => Filter::Equal(name, folded(&pieces.remove(0))),
            (_, 2) if pieces.iter().all(Vec::is_empty) => Filter::Present(name),
            (_, count) => {
                let (begins, ends) = (!pieces[0].is_empty(), !pieces[count - 1].is_empty());
                pieces.retain(|piece| !piece.is_empty());
                // A space at a piece's end stands for the space in the value; only case is folded here.
                let pieces = pieces.iter().map(|piece| lower(piece)).collect();
                Filter::Pieces { attribute: name, begins, pieces, ends }
            }
        })
    }

    /// RFC 4515 section 3: a backslash and two hexadecimal digits stand for an octet.
    fn unescape(&self, text: &str) -> Result<Vec<u8>, FilterError> {
        let mut octets = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(octet) = rest.next() {
            if octet != b'\\' {
                octets.push(octet);
                continue;
            }
            let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
            let (Some(high), Some(low)) = (digit(), digit()) else {
                return Err(self.error("a backslash is followed by two hexadecimal digits"));
            };
            octets.push((high << 4 | low) as u8);
        }
        Ok(octets)
    }
}

fn lower(octets: &[u8]) -> Vec<u8> {
    std::str::from_utf8(octets).map_or_else(|_| octets.to_vec(), |text| text.to_lowercase().into_bytes())
}

/// Visits the entries at and below `base` (everywhere when there is none) that match; `visit` may fail and end it.
pub fn search<E: From<StoreError>>(
    read: &dyn Read,
    base: Option<&Dn>,
    filter: &Filter,
    visit: &mut dyn FnMut(&Dn, &Entry) -> Result<(), E>,
) -> Result<(), E> {
    for context in contexts(read)? {
        if base.is_none_or(|base| base.is_under(&context.dn) || context.dn.is_under(base)) {
            search_context(read, &context, base, filter, visit)?;
        }
    }
    Ok(())
}

fn search_context<E: From<StoreError>>(
    read: &dyn Read,
    context: &ContextRecord,
    base: Option<&Dn>,
    filter: &Filter,
    visit: &mut dyn FnMut(&Dn, &Entry) -> Result<(), E>,
) -> Result<(), E> {
    let mut finder = Finder::new(context);
    let mut ended = Ok(());
    lookup::scan_entries(read, context.number, &mut |entry| {
        if filter.matches(&entry) {
            ended = finder.dn_of_entry(read, &entry).map_err(E::from).and_then(|dn| {
                if base.is_none_or(|base| dn.is_under(base)) { visit(&dn, &entry) } else { Ok(()) }
            });
        }
        ended.is_ok()
    })?;
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::attributes::Attributes;
    use crate::directory::dn::Rdn;
    use uuid::Uuid;

    fn entry() -> Entry {
        let mut attributes = Attributes::default();
        for (name, value) in
            [("cn", "Ada  King Lovelace"), ("mail", "Ada@Example.org"), ("roomNumber", "A3.17")]
        {
            attributes.append(name, vec![value.into()]).unwrap();
        }
        Entry { uuid: Uuid::nil(), parent: Uuid::nil(), rdn: Rdn::parse("cn=Ada").unwrap(), attributes }
    }

    #[test]
    fn filters_mean_what_ldap_means() {
        for (filter, expected) in [
            ("(cn=ada king lovelace)", true),
            ("cn=ada king lovelace", true),
            ("(MAIL=ada@example.ORG)", true),
            ("(cn=ada)", false),
            ("(cn=ada*)", true),
            ("(cn=*king*)", true),
            ("(cn=*lace)", true),
            ("(cn=a*k*e)", true),
            ("(cn=a*e*e)", true),
            ("(cn=ada*ada king lovelace)", false),
            ("(cn=*\\4cove*)", true),
            ("(cn=*)", true),
            ("(fax=*)", false),
            ("(!(fax=*))", true),
            ("(&(cn=ada*)(roomNumber=b*))", false),
            ("(|(cn=bob)(roomNumber=a3.17))", true),
            ("(&)", true),
            ("(|)", false),
            ("(roomNumber>=A3)", true),
            ("(roomNumber<=A3)", false),
        ] {
            assert_eq!(Filter::parse(filter).unwrap().matches(&entry()), expected, "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_with_its_place() {
        for text in
            ["(", "()", "(cn)", "(cn=a", "(cn=a)x", "(cn=\\zz)", "(c n=a)", "(cn:dn:=a)", &"(!".repeat(100)]
        {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
    }
}
