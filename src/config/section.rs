//! Reading TOML tables key by key, so that every problem is found in one pass and each names its line.
//!
//! PROMISES
//!   A key that nobody asked for is a problem, with the nearest known key as its hint. A value that is
//!   missing, of the wrong type or refused by its reader is a problem at its line; reading goes on.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, Problems};

/// One configuration file while it is read.
pub struct Document<'t> {
    path: PathBuf,
    text: &'t str,
    root: Spanned<DeTable<'t>>,
    problems: RefCell<Vec<Problem>>,
}

impl<'t> Document<'t> {
    /// Parses TOML; syntax errors become problems and what could be read is still read.
    pub fn parse(path: &Path, text: &'t str) -> Document<'t> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let document = Document { path: path.to_owned(), text, root, problems: RefCell::default() };
        for error in errors {
            document.report(error.span().unwrap_or(0..0), error.message(), "");
        }
        document
    }

    pub fn root(&self) -> Section<'_, 't> {
        Section {
            document: self,
            name: String::new(),
            table: self.root.get_ref(),
            span: 0..0,
            asked: RefCell::default(),
        }
    }

    pub fn report(&self, span: Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        let line = self.text[..span.start.min(self.text.len())].matches('\n').count() + 1;
        let problem = Problem { file: self.path.clone(), line, message: message.into(), hint: hint.into() };
        self.problems.borrow_mut().push(problem);
    }

    /// The value, unless anything was wrong.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Problems> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line);
        problems.dedup();
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => Err(Problems(problems)),
        }
    }
}

/// One table of a document. Ask for its keys, then [`Section::finish`] it.
pub struct Section<'d, 't> {
    document: &'d Document<'t>,
    name: String,
    table: &'d DeTable<'t>,
    span: Range<usize>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'d, 't> Section<'d, 't> {
    fn value(&self, key: &'static str) -> Option<&'d Spanned<DeValue<'t>>> {
        self.asked.borrow_mut().push(key);
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    fn qualified(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn missing(&self, key: &str, hint: &str) {
        self.document.report(self.span.clone(), format!("`{}` is missing", self.qualified(key)), hint);
    }

    fn wrong(&self, key: &str, value: &Spanned<DeValue>, wanted: &str) {
        let message =
            format!("`{}` is to be {wanted}, not a {}", self.qualified(key), value.get_ref().type_str());
        self.document.report(value.span(), message, "");
    }

    /// Reports a problem with the value of `key`, or with the section when the key is absent.
    pub fn refuse(&self, key: &'static str, message: impl AsRef<str>, hint: impl Into<String>) {
        let span = self.value(key).map_or(self.span.clone(), Spanned::span);
        self.document.report(span, format!("`{}`: {}", self.qualified(key), message.as_ref()), hint);
    }

    pub fn string(&self, key: &'static str) -> Option<&'d str> {
        let value = self.value(key)?;
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong(key, value, "a string");
        }
        text
    }

    /// A string that `read` understands; its error message becomes the problem.
    pub fn parsed<T, E: std::fmt::Display>(
        &self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.string(key)?;
        read(text).map_err(|error| self.refuse(key, format!("\"{text}\": {error}"), "")).ok()
    }

    pub fn required<T, E: std::fmt::Display>(
        &self,
        key: &'static str,
        hint: &str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        if self.value(key).is_none() {
            self.missing(key, hint);
        }
        self.parsed(key, read)
    }

    /// A list of strings, each understood by `read`; a single string counts as a list of one.
    pub fn list<T, E: std::fmt::Display>(
        &self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let single = std::slice::from_ref(value);
        let items: Vec<_> = match value.get_ref() {
            DeValue::Array(array) => array.iter().collect(),
            _ => single.iter().collect(),
        };
        let mut read_items = Vec::new();
        for item in items {
            let Some(text) = item.get_ref().as_str() else {
                self.wrong(key, item, "a string or a list of strings");
                continue;
            };
            match read(text) {
                Ok(item) => read_items.push(item),
                Err(error) => {
                    let message = format!("`{}`: \"{text}\": {error}", self.qualified(key));
                    self.document.report(item.span(), message, "");
                }
            }
        }
        Some(read_items)
    }

    pub fn boolean(&self, key: &'static str) -> Option<bool> {
        let value = self.value(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong(key, value, "true or false");
        }
        flag
    }

    /// A whole number within bounds.
    pub fn number(&self, key: &'static str, bounds: Range<u64>) -> Option<u64> {
        let value = self.value(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong(key, value, "a whole number");
            return None;
        };
        let number = u64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok();
        self.bounded(key, number, bounds)
    }

    /// A number of octets: `1048576`, `"1 MiB"`, `"64KiB"`.
    pub fn octets(&self, key: &'static str, bounds: Range<u64>) -> Option<u64> {
        let value = self.value(key)?;
        let number = match value.get_ref() {
            DeValue::Integer(integer) => integer.as_str().replace('_', "").parse().ok(),
            DeValue::String(text) => parse_octets(text),
            _ => None,
        };
        if number.is_none() {
            self.wrong(key, value, "a number of octets such as 65536 or \"64 KiB\"");
            return None;
        }
        self.bounded(key, number, bounds)
    }

    /// A length of time: `"30s"`, `"2h 30m"`, `"1d"`.
    pub fn duration(&self, key: &'static str, bounds: Range<Duration>) -> Option<Duration> {
        let length = self.parsed(key, parse_duration)?;
        if bounds.contains(&length) {
            return Some(length);
        }
        let (least, most) = (bounds.start.as_secs_f64(), bounds.end.as_secs_f64());
        self.refuse(key, format!("is to be from {least}s to below {most}s"), "");
        None
    }

    fn bounded(&self, key: &'static str, number: Option<u64>, bounds: Range<u64>) -> Option<u64> {
        match number {
            Some(number) if bounds.contains(&number) => Some(number),
            _ => {
                self.refuse(key, format!("is to be from {} to {}", bounds.start, bounds.end - 1), "");
                None
            }
        }
    }

    /// A table below this one.
    pub fn section(&self, key: &'static str) -> Option<Section<'d, 't>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(self.below(key, table, value.span())),
            _ => {
                self.wrong(key, value, &format!("a table, [{}]", self.qualified(key)));
                None
            }
        }
    }

    /// An array of tables below this one, `[[key]]`; empty when absent.
    pub fn sections(&self, key: &'static str) -> Vec<Section<'d, 't>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong(key, value, &format!("a list of tables, [[{}]]", self.qualified(key)));
            return Vec::new();
        };
        let tables = array.iter().filter_map(|item| match item.get_ref() {
            DeValue::Table(table) => Some(self.below(key, table, item.span())),
            _ => {
                self.wrong(key, item, "a table");
                None
            }
        });
        tables.collect()
    }

    fn below(&self, key: &str, table: &'d DeTable<'t>, span: Range<usize>) -> Section<'d, 't> {
        Section { document: self.document, name: self.qualified(key), table, span, asked: RefCell::default() }
    }

    /// Reports the keys that nobody asked for. Call it after the last key was read.
    pub fn finish(self) {
        let asked = self.asked.borrow();
        for (key, _) in self.table.iter() {
            let name = key.get_ref().as_ref();
            if asked.contains(&name) {
                continue;
            }
            let hint = match nearest(name, &asked) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("known here: {}", asked.join(", ")),
            };
            self.document.report(key.span(), format!("`{}` is not known", self.qualified(name)), hint);
        }
    }
}

fn parse_octets(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(factor)
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let unreadable = |_| "is not a length of time such as \"30s\", \"5m\" or \"2h 30m\"".to_owned();
    let text = text.trim();
    // jiff's absolute durations know hours at most; a day here is 24 hours.
    let (days, rest) = match text.split_once('d') {
        Some((days, rest)) if days.bytes().all(|byte| byte.is_ascii_digit()) && !days.is_empty() => {
            (days.parse::<u64>().map_err(|_| "is too long".to_owned())?, rest.trim())
        }
        _ => (0, text),
    };
    let rest = match rest {
        "" if days > 0 => Duration::ZERO,
        rest => {
            let signed: jiff::SignedDuration = rest.parse().map_err(|_| unreadable(()))?;
            Duration::try_from(signed).map_err(|_| "is negative".to_owned())?
        }
    };
    let days = days.checked_mul(86_400).ok_or("is too long")?;
    Duration::from_secs(days).checked_add(rest).ok_or_else(|| "is too long".to_owned())
}

/// The known key within two edits, if there is one.
fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let closest = known.iter().map(|key| (edits(name, key), *key)).min()?;
    (closest.0 <= 2).then_some(closest.1)
}

fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str, read: impl Fn(&Section)) -> Vec<String> {
        let document = Document::parse(Path::new("f.toml"), text);
        let root = document.root();
        read(&root);
        root.finish();
        match document.finish(Some(())) {
            Ok(()) => Vec::new(),
            Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn every_problem_is_reported_with_its_line() {
        let found = problems("size = \"lots\"\nnmae = 1\n\nname = 2\nwait = \"-3s\"\n", |root| {
            root.string("name");
            root.octets("size", 0..10);
            root.duration("wait", Duration::ZERO..Duration::from_secs(9));
        });
        assert_eq!(found.len(), 4, "{found:#?}");
        assert!(found[0].starts_with("f.toml:1: `size` is to be a number of octets"), "{found:#?}");
        assert_eq!(found[1], "f.toml:2: `nmae` is not known (did you mean `name`?)");
        assert!(found[2].starts_with("f.toml:4: `name` is to be a string"), "{found:#?}");
        assert!(found[3].starts_with("f.toml:5: `wait`: \"-3s\": is negative"), "{found:#?}");
    }

    #[test]
    fn a_syntax_error_does_not_hide_the_rest() {
        let found = problems("a = [\nb = 7\n", |root| {
            root.string("a");
        });
        assert!(!found.is_empty() && found[0].contains("f.toml:"), "{found:#?}");
    }

    #[test]
    fn lengths_of_time_and_octets() {
        assert_eq!(parse_duration("1d"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("2h 30m"), Ok(Duration::from_secs(9_000)));
        assert_eq!(parse_duration("1d 1h"), Ok(Duration::from_secs(90_000)));
        assert!(parse_duration("soon").is_err());
        assert_eq!(parse_octets("64 KiB"), Some(65_536));
        assert_eq!(parse_octets("18446744073709551615G"), None);
    }
}
