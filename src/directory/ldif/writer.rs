//! Entries and changes to LDIF text.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;

use crate::directory::attributes::Attributes;
use crate::directory::change::{Change, Operation};
use crate::directory::dn::Dn;

/// Writes `version: 1`, then records, each behind an empty line.
pub struct Writer<W> {
    out: W,
    line: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(b"version: 1\n")?;
        Ok(Writer { out, line: Vec::new() })
    }

    /// A content record.
    pub fn entry(&mut self, dn: &Dn, uuid: Option<Uuid>, attributes: &Attributes) -> io::Result<()> {
        self.head(dn)?;
        self.body(uuid, attributes)
    }

    /// A change record; for `Change::Put`, a content record.
    pub fn change(&mut self, change: &Change) -> io::Result<()> {
        self.head(change.dn())?;
        match change {
            Change::Put { uuid, attributes, .. } => self.body(*uuid, attributes),
            Change::Add { uuid, attributes, .. } => {
                self.text("changetype", "add")?;
                self.body(*uuid, attributes)
            }
            Change::Delete { .. } => self.text("changetype", "delete"),
            Change::Modify { modifications, .. } => {
                self.text("changetype", "modify")?;
                for modification in modifications {
                    let verb = match modification.operation {
                        Operation::Add => "add",
                        Operation::Delete => "delete",
                        Operation::Replace => "replace",
                    };
                    self.text(verb, &modification.attribute)?;
                    for value in &modification.values {
                        self.pair(&modification.attribute, value)?;
                    }
                    self.out.write_all(b"-\n")?;
                }
                Ok(())
            }
            Change::Rename { new_rdn, delete_old_rdn, new_superior, .. } => {
                self.text("changetype", "modrdn")?;
                self.text("newrdn", new_rdn.as_str())?;
                self.text("deleteoldrdn", if *delete_old_rdn { "1" } else { "0" })?;
                new_superior.iter().try_for_each(|above| self.text("newsuperior", &above.to_string()))
            }
        }
    }

    /// The output, after the last record.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    fn head(&mut self, dn: &Dn) -> io::Result<()> {
        self.out.write_all(b"\n")?;
        self.text("dn", &dn.to_string())
    }

    fn body(&mut self, uuid: Option<Uuid>, attributes: &Attributes) -> io::Result<()> {
        if let Some(uuid) = uuid {
            self.text("entryUUID", &uuid.to_string())?;
        }
        for attribute in attributes {
            for value in attribute.values() {
                self.pair(attribute.name(), value)?;
            }
        }
        Ok(())
    }

    fn text(&mut self, name: &str, value: &str) -> io::Result<()> {
        self.pair(name, value.as_bytes())
    }

    fn pair(&mut self, name: &str, value: &[u8]) -> io::Result<()> {
        self.line.clear();
        self.line.extend_from_slice(name.as_bytes());
        if is_safe(value) {
            self.line.extend_from_slice(b": ");
            self.line.extend_from_slice(value);
        } else {
            self.line.extend_from_slice(b":: ");
            self.line.extend_from_slice(STANDARD.encode(value).as_bytes());
        }
        self.fold()
    }

    /// Lines of at most 76 octets; those that go on begin with a space.
    fn fold(&mut self) -> io::Result<()> {
        let (first, mut rest) = self.line.split_at(self.line.len().min(LINE_OCTETS));
        self.out.write_all(first)?;
        while !rest.is_empty() {
            let (next, more) = rest.split_at(rest.len().min(LINE_OCTETS - 1));
            self.out.write_all(b"\n ")?;
            self.out.write_all(next)?;
            rest = more;
        }
        self.out.write_all(b"\n")
    }
}

const LINE_OCTETS: usize = 76;

/// Whether a value stands for itself: SAFE-STRING of RFC 2849, without a space at its end.
fn is_safe(value: &[u8]) -> bool {
    let begins = !matches!(value.first(), Some(b' ' | b':' | b'<'));
    begins && value.last() != Some(&b' ') && value.iter().all(|b| !matches!(b, 0 | b'\n' | b'\r' | 0x80..))
}
