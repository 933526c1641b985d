//! LDIF text to changes, one record at a time.

use std::io::BufRead;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;

use super::lines::Lines;
use super::{Fault, LdifError};
use crate::directory::attributes::Attributes;
use crate::directory::change::{Change, Modification, Operation};
use crate::directory::dn::{Dn, Rdn};
use crate::limits::LDIF_RECORD_BYTES_MAX;

/// Yields each record as a change with the line of its `dn:`; ends at the first error.
pub struct Reader<R> {
    lines: Lines<R>,
    /// Nothing but a version has been read yet.
    first: bool,
    failed: bool,
    /// Octets of the present record.
    octets: usize,
}

/// One line of a record.
struct Line {
    number: u64,
    /// In lower case only where it is compared.
    name: String,
    value: Vec<u8>,
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<(u64, Change), LdifError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let record = self.record().transpose();
        self.failed = matches!(record, None | Some(Err(_)));
        record
    }
}

impl<R: BufRead> Reader<R> {
    pub fn new(input: R) -> Self {
        Reader { lines: Lines::new(input), first: true, failed: false, octets: 0 }
    }

    fn record(&mut self) -> Result<Option<(u64, Change)>, LdifError> {
        let Some(head) = self.head()? else { return Ok(None) };
        if !head.is("dn") {
            return Err(head.error(Fault::NoDn(head.name.clone())));
        }
        let dn = head.dn()?;
        let change = match self.change_type()? {
            (None, first) => {
                let (uuid, attributes) = self.content(first, head.number)?;
                Change::Put { dn, uuid, attributes }
            }
            (Some(line), first) => match line.word()?.as_str() {
                "add" => {
                    let (uuid, attributes) = self.content(first, head.number)?;
                    Change::Add { dn, uuid, attributes }
                }
                "delete" => match first {
                    None => Change::Delete { dn },
                    Some(line) => return Err(line.error(Fault::NotEmpty)),
                },
                "modify" => Change::Modify { dn, modifications: self.modifications(first)? },
                "modrdn" | "moddn" => self.rename(dn, first, line.number)?,
                other => return Err(line.error(Fault::ChangeType(other.to_owned()))),
            },
        };
        Ok(Some((head.number, change)))
    }

    /// The first line of a record, past empty lines and the version.
    fn head(&mut self) -> Result<Option<Line>, LdifError> {
        loop {
            self.octets = 0;
            if !self.lines.advance()? {
                return Ok(None);
            }
            if self.lines.text.is_empty() {
                continue;
            }
            let line = self.parse()?;
            if !std::mem::replace(&mut self.first, false) || !line.is("version") {
                return Ok(Some(line));
            }
            if line.value != b"1" {
                return Err(line.error(Fault::Version(line.lossy())));
            }
        }
    }

    /// The next line of the record, None at its end.
    fn line(&mut self) -> Result<Option<Line>, LdifError> {
        if !self.lines.advance()? || self.lines.text.is_empty() {
            return Ok(None);
        }
        self.octets += self.lines.text.len();
        if self.octets > LDIF_RECORD_BYTES_MAX {
            return Err(self.lines.error(Fault::RecordTooLong));
        }
        self.parse().map(Some)
    }

    fn parse(&self) -> Result<Line, LdifError> {
        let text = self.lines.text.as_slice();
        let number = self.lines.number;
        if text == b"-" {
            return Ok(Line { number, name: "-".into(), value: Vec::new() });
        }
        let fail = |reason| self.lines.error(reason);
        let colon = memchr::memchr(b':', text).ok_or_else(|| fail(Fault::NoColon))?;
        let name = std::str::from_utf8(&text[..colon]).map_err(|_| fail(Fault::NotUtf8))?.to_owned();
        let value = match text.get(colon + 1) {
            Some(b':') => STANDARD.decode(text[colon + 2..].trim_ascii()).map_err(|_| fail(Fault::Base64))?,
            Some(b'<') => return Err(fail(Fault::Url)),
            _ => {
                let value = &text[colon + 1..];
                let value = &value[value.iter().take_while(|b| **b == b' ').count()..];
                if std::str::from_utf8(value).is_err() {
                    return Err(fail(Fault::NotUtf8));
                }
                if value.contains(&0) {
                    return Err(fail(Fault::Nul));
                }
                value.to_vec()
            }
        };
        Ok(Line { number, name, value })
    }

    /// Controls and the change type, and the line behind them.
    fn change_type(&mut self) -> Result<(Option<Line>, Option<Line>), LdifError> {
        let mut line = self.line()?;
        while let Some(control) = line.take_if(|line| line.is("control")) {
            let text = control.text()?.to_ascii_lowercase();
            let mut words = text.split([' ', ':']).filter(|word| !word.is_empty());
            let (oid, critical) = (words.next().unwrap_or_default(), words.next());
            if critical == Some("true") {
                return Err(control.error(Fault::Control(oid.to_owned())));
            }
            line = self.line()?;
        }
        match line {
            Some(line) if line.is("changetype") => {
                let first = self.line()?;
                Ok((Some(line), first))
            }
            line => Ok((None, line)),
        }
    }

    fn content(&mut self, first: Option<Line>, at: u64) -> Result<(Option<Uuid>, Attributes), LdifError> {
        let mut uuid = None;
        let mut pairs = Vec::new();
        let mut next = first;
        while let Some(line) = next {
            if line.is("entryUUID") {
                let value = line.text()?;
                let parsed = Uuid::try_parse(value).ok().filter(|uuid| value.len() == 36 && !uuid.is_nil());
                let (Some(parsed), None) = (parsed, uuid) else { return Err(line.error(Fault::EntryUuid)) };
                uuid = Some(parsed);
            } else if line.is("dn") {
                return Err(line.error(Fault::Expected("an empty line between records")));
            } else if line.name == "-" {
                return Err(line.error(Fault::Expected("an attribute")));
            } else {
                pairs.push((line.name, line.value));
            }
            next = self.line()?;
        }
        if pairs.is_empty() {
            return Err(LdifError { line: at, reason: Fault::Expected("an attribute") });
        }
        let attributes =
            Attributes::from_pairs(pairs).map_err(|e| LdifError { line: at, reason: e.into() })?;
        Ok((uuid, attributes))
    }

    fn modifications(&mut self, first: Option<Line>) -> Result<Vec<Modification>, LdifError> {
        let mut modifications = Vec::new();
        let mut next = first;
        while let Some(line) = next {
            let operation = match line.name.to_ascii_lowercase().as_str() {
                "add" => Operation::Add,
                "delete" => Operation::Delete,
                "replace" => Operation::Replace,
                _ => return Err(line.error(Fault::Expected("'add:', 'delete:' or 'replace:'"))),
            };
            let attribute = line.text()?.trim_end().to_owned();
            let mut values = Vec::new();
            loop {
                match self.line()? {
                    // The RFC wants a '-' behind the last one too; many writers leave it out.
                    None => {
                        next = None;
                        break;
                    }
                    Some(end) if end.name == "-" => {
                        next = self.line()?;
                        break;
                    }
                    Some(value) if value.name.eq_ignore_ascii_case(&attribute) => values.push(value.value),
                    Some(other) => {
                        return Err(
                            other.error(Fault::Expected("a value of the attribute named above, or '-',"))
                        );
                    }
                }
            }
            if operation == Operation::Add && values.is_empty() {
                return Err(line.error(Fault::Expected("a value")));
            }
            modifications.push(Modification { operation, attribute, values });
        }
        Ok(modifications)
    }

    fn rename(&mut self, dn: Dn, first: Option<Line>, at: u64) -> Result<Change, LdifError> {
        let expected = |line: Option<Line>, name: &'static str, shown: &'static str| match line {
            Some(line) if line.is(name) => Ok(line),
            Some(other) => Err(other.error(Fault::Expected(shown))),
            None => Err(LdifError { line: at, reason: Fault::Expected(shown) }),
        };
        let line = expected(first, "newrdn", "'newrdn:'")?;
        let new_rdn = Rdn::parse(line.text()?).map_err(|e| line.error(e.into()))?;
        let line = expected(self.line()?, "deleteoldrdn", "'deleteoldrdn:'")?;
        let delete_old_rdn = match line.text()?.trim_end() {
            "0" => false,
            "1" => true,
            _ => return Err(line.error(Fault::Expected("0 or 1"))),
        };
        let new_superior = match self.line()? {
            None => None,
            some => {
                let above = expected(some, "newsuperior", "'newsuperior:'")?.dn()?;
                if let Some(line) = self.line()? {
                    return Err(line.error(Fault::Expected("the end of the record")));
                }
                Some(above)
            }
        };
        Ok(Change::Rename { dn, new_rdn, delete_old_rdn, new_superior })
    }
}

impl Line {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    fn error(&self, reason: Fault) -> LdifError {
        LdifError { line: self.number, reason }
    }

    fn text(&self) -> Result<&str, LdifError> {
        std::str::from_utf8(&self.value).map_err(|_| self.error(Fault::NotUtf8))
    }

    fn word(&self) -> Result<String, LdifError> {
        Ok(self.text()?.trim_end().to_ascii_lowercase())
    }

    fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.value).into_owned()
    }

    fn dn(&self) -> Result<Dn, LdifError> {
        Dn::parse(self.text()?).map_err(|error| self.error(error.into()))
    }
}
