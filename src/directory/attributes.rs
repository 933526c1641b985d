//! The attributes of an entry: names sorted, spellings and the order of values kept.
//!
//! PROMISES
//!   Sorted by name in lower case, each name once; no attribute without values; no value twice in one
//!   attribute. The order of the values is their writer's: the first `mail` is the primary one. Of many values, those
//!   that a commit finds keep their places (`difference::keep_order`).
//! STANDARDS
//!   RFC 4512 section 2.5 (attribute descriptions with options, such as `userCertificate;binary`).
//! LIMITS
//!   `ATTRIBUTE_NAME_BYTES_MAX`, `ATTRIBUTES_MAX`, `VALUE_BYTES_MAX`.
//! BUGS
//!   Values are equal when their octets are; no matching rule is consulted.

use std::collections::HashSet;

use thiserror::Error;

use crate::limits::{ATTRIBUTE_NAME_BYTES_MAX, ATTRIBUTES_MAX, VALUE_BYTES_MAX};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    sorted: Vec<Attribute>,
}

/// One attribute with at least one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    pub(super) name: String,
    pub(super) values: Vec<Vec<u8>>,
}

/// Whoever wrote the attributes is at fault.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AttributeError {
    #[error("{0:?} is not an attribute name")]
    Name(String),
    #[error("more than {ATTRIBUTES_MAX} attributes")]
    TooMany,
    #[error("a value of {0} is longer than {VALUE_BYTES_MAX} octets")]
    TooLong(String),
    #[error("{0} has a value twice")]
    Duplicate(String),
    #[error("{0} has no value")]
    NoValue(String),
}

impl Attribute {
    pub fn new(name: &str, values: Vec<Vec<u8>>) -> Result<Attribute, AttributeError> {
        let attribute = Attribute { name: name.to_owned(), values };
        attribute.check()?;
        Ok(attribute)
    }

    fn check(&self) -> Result<(), AttributeError> {
        let Attribute { name, values } = self;
        if !is_attribute_name(name) || RESERVED.iter().any(|word| same_name(word, name)) {
            return Err(AttributeError::Name(name.clone()));
        }
        if values.is_empty() {
            return Err(AttributeError::NoValue(name.clone()));
        }
        if values.iter().any(|value| value.len() > VALUE_BYTES_MAX) {
            return Err(AttributeError::TooLong(name.clone()));
        }
        if has_duplicates(values) {
            return Err(AttributeError::Duplicate(name.clone()));
        }
        Ok(())
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn values(&self) -> &[Vec<u8>] {
        &self.values
    }

    pub fn into_values(self) -> Vec<Vec<u8>> {
        self.values
    }
}

impl Attributes {
    pub fn new() -> Attributes {
        Self::default()
    }

    /// From names and values in any order; the first spelling of a name is kept.
    pub fn from_pairs<N: AsRef<str> + Into<String>>(
        pairs: impl IntoIterator<Item = (N, Vec<u8>)>,
    ) -> Result<Attributes, AttributeError> {
        let mut found: Vec<Attribute> = Vec::new();
        let mut last = 0;
        for (name, value) in pairs {
            // Values of one attribute mostly stand together.
            let known = match found.get(last) {
                Some(attribute) if same_name(&attribute.name, name.as_ref()) => Some(last),
                _ => found.iter().position(|attribute| same_name(&attribute.name, name.as_ref())),
            };
            match known {
                Some(at) => {
                    found[at].values.push(value);
                    last = at;
                }
                None if found.len() == ATTRIBUTES_MAX => return Err(AttributeError::TooMany),
                None => {
                    last = found.len();
                    found.push(Attribute { name: name.into(), values: vec![value] });
                }
            }
        }
        Attributes::from_attributes(found)
    }

    /// From attributes in any order, each name once.
    pub fn from_attributes(attributes: Vec<Attribute>) -> Result<Attributes, AttributeError> {
        if attributes.len() > ATTRIBUTES_MAX {
            return Err(AttributeError::TooMany);
        }
        attributes.iter().try_for_each(Attribute::check)?;
        let mut sorted = attributes;
        sorted.sort_by(|a, b| by_name(&a.name, &b.name));
        match sorted.windows(2).find(|pair| same_name(&pair[0].name, &pair[1].name)) {
            Some(pair) => Err(AttributeError::Duplicate(pair[0].name.clone())),
            None => Ok(Attributes { sorted }),
        }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Attribute> {
        self.sorted.iter()
    }

    /// Names and the presence of values must stay as they are.
    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Attribute> {
        self.sorted.iter_mut()
    }

    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// How many attributes there are.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.sorted.binary_search_by(|attribute| by_name(&attribute.name, name))
    }

    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.position(name).ok().map(|at| &self.sorted[at])
    }

    /// The values of `name`; none if there is no such attribute.
    pub fn values(&self, name: &str) -> &[Vec<u8>] {
        self.attribute(name).map_or(&[], |attribute| &attribute.values)
    }

    /// The first value of `name` as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values(name).first().and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Adds or replaces a whole attribute.
    pub fn set(&mut self, attribute: Attribute) -> Result<(), AttributeError> {
        match self.position(&attribute.name) {
            Ok(at) => self.sorted[at] = attribute,
            Err(_) if self.sorted.len() == ATTRIBUTES_MAX => return Err(AttributeError::TooMany),
            Err(at) => self.sorted.insert(at, attribute),
        }
        Ok(())
    }

    /// Takes a whole attribute out.
    pub fn remove(&mut self, name: &str) -> Option<Attribute> {
        self.position(name).ok().map(|at| self.sorted.remove(at))
    }

    /// Appends values; a value that is there already is an error, and nothing is changed then.
    pub fn append(&mut self, name: &str, values: Vec<Vec<u8>>) -> Result<(), AttributeError> {
        let added = Attribute::new(name, values)?;
        let Ok(at) = self.position(name) else { return self.set(added) };
        let present = &self.sorted[at].values;
        let twice = if added.values.len() <= FEW {
            added.values.iter().any(|value| present.contains(value))
        } else {
            let present: HashSet<&Vec<u8>> = present.iter().collect();
            added.values.iter().any(|value| present.contains(value))
        };
        if twice {
            return Err(AttributeError::Duplicate(name.to_owned()));
        }
        self.sorted[at].values.extend(added.values);
        Ok(())
    }

    /// Takes values out, and the attribute with the last of them; says how many were there.
    pub fn remove_values(&mut self, name: &str, values: &[Vec<u8>]) -> usize {
        let Ok(at) = self.position(name) else { return 0 };
        let present = &mut self.sorted[at].values;
        let before = present.len();
        if values.len() <= FEW {
            present.retain(|value| !values.contains(value));
        } else {
            let gone: HashSet<&Vec<u8>> = values.iter().collect();
            present.retain(|value| !gone.contains(value));
        }
        let removed = before - present.len();
        if present.is_empty() {
            self.sorted.remove(at);
        }
        removed
    }
}

impl<'a> IntoIterator for &'a Attributes {
    type Item = &'a Attribute;
    type IntoIter = std::slice::Iter<'a, Attribute>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Attributes {
    type Item = Attribute;
    type IntoIter = std::vec::IntoIter<Attribute>;

    fn into_iter(self) -> Self::IntoIter {
        self.sorted.into_iter()
    }
}

/// Words of LDIF's own: an entry that had them as attributes would read as an instruction where it is written out.
const RESERVED: [&str; 2] = ["changetype", "control"];

/// Up to this many values, comparing each with each is faster than hashing them.
const FEW: usize = 8;

fn has_duplicates(values: &[Vec<u8>]) -> bool {
    if values.len() <= FEW {
        return values.iter().enumerate().any(|(i, value)| values[..i].contains(value));
    }
    let mut seen = HashSet::with_capacity(values.len());
    !values.iter().all(|value| seen.insert(value))
}

/// Whether two attribute names are one: ASCII letters in either case.
pub fn same_name(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

/// The canonical order of attribute names: their octets with ASCII letters in lower case.
pub fn by_name(a: &str, b: &str) -> std::cmp::Ordering {
    a.bytes().map(|b| b.to_ascii_lowercase()).cmp(b.bytes().map(|b| b.to_ascii_lowercase()))
}

fn is_attribute_name(name: &str) -> bool {
    let mut parts = name.split(';');
    let first = parts.next().unwrap_or_default();
    let keystring =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let numeric = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_digit())
            && part.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    };
    // An underscore is no RFC 4512 letter, but directories in the field have it.
    let named = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= ATTRIBUTE_NAME_BYTES_MAX && (named(first) || numeric(first)) && parts.all(keystring)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    #[test]
    fn names_are_sorted_and_spellings_and_values_keep_their_order() {
        let attributes = Attributes::from_pairs([
            ("mail", v("b")),
            ("CN", v("x")),
            ("Mail", v("a")),
            ("cn;lang-fr", v("y")),
        ])
        .unwrap();
        let names: Vec<&str> = attributes.iter().map(Attribute::name).collect();
        assert_eq!(names, ["CN", "cn;lang-fr", "mail"]);
        assert_eq!(attributes.values("MAIL"), [v("b"), v("a")]);
        assert_eq!(attributes.text("cn"), Some("x"));
    }

    #[test]
    fn what_is_refused() {
        let refused = |pairs: &[(&str, &str)]| {
            Attributes::from_pairs(pairs.iter().map(|(n, t)| (*n, v(t)))).unwrap_err()
        };
        assert_eq!(refused(&[("cn", "a"), ("CN", "a")]), AttributeError::Duplicate("cn".into()));
        assert_eq!(refused(&[("c n", "a")]), AttributeError::Name("c n".into()));
        assert_eq!(refused(&[("cn;", "a")]), AttributeError::Name("cn;".into()));
        assert_eq!(Attribute::new("cn", vec![]), Err(AttributeError::NoValue("cn".into())));
        let many: Vec<_> = (0..=ATTRIBUTES_MAX).map(|i| (format!("a{i}"), v("x"))).collect();
        assert_eq!(Attributes::from_pairs(many), Err(AttributeError::TooMany));
        let long = vec![0; VALUE_BYTES_MAX + 1];
        assert_eq!(Attribute::new("cn", vec![long]), Err(AttributeError::TooLong("cn".into())));
    }

    #[test]
    fn values_come_and_go() {
        let mut attributes = Attributes::new();
        let many: Vec<_> = (0..40).map(|i| v(&i.to_string())).collect();
        attributes.append("member", many.clone()).unwrap();
        assert_eq!(
            attributes.append("member", vec![v("7")]),
            Err(AttributeError::Duplicate("member".into()))
        );
        assert_eq!(
            attributes.append("member", many[..20].to_vec()),
            Err(AttributeError::Duplicate("member".into()))
        );
        assert_eq!(attributes.remove_values("MEMBER", &[v("7"), v("none")]), 1);
        assert_eq!(attributes.remove_values("member", &many), 39);
        assert!(attributes.is_empty());
    }
}
