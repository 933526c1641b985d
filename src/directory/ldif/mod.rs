//! LDIF in and out.
//!
//! PROMISES
//!   The reader takes every form of RFC 2849 but values in other files, and names the line of what it refuses. The
//!   writer's output is a function of the entries, and the reader takes it back without loss.
//! STANDARDS
//!   RFC 2849: content and change records, folding, comments, base64, controls. RFC 4530: `entryUUID` in a content
//!   or add record names the entry.
//! LIMITS
//!   `LDIF_LINE_BYTES_MAX` and `LDIF_RECORD_BYTES_MAX`, unfolded.
//! BUGS
//!   Content and change records may stand in one file. Values may hold UTF-8 without base64, as many files
//!   do. `attr:< URL` is refused, because a file from elsewhere must not name files here. Controls
//!   that are not critical are ignored, critical ones are refused.

mod lines;
mod reader;
mod writer;

use thiserror::Error;

use super::attributes::AttributeError;
use super::dn::DnError;
use crate::limits::{LDIF_LINE_BYTES_MAX, LDIF_RECORD_BYTES_MAX};

pub use reader::Reader;
pub use writer::Writer;

/// Whoever wrote the file is at fault, but for `Fault::Io`.
#[derive(Debug, Error)]
#[error("line {line}: {reason}")]
pub struct LdifError {
    /// Counted from 1.
    pub line: u64,
    pub reason: Fault,
}

#[derive(Debug, Error)]
pub enum Fault {
    #[error("reading failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("the line has more than {LDIF_LINE_BYTES_MAX} octets")]
    LineTooLong,
    #[error("the record has more than {LDIF_RECORD_BYTES_MAX} octets")]
    RecordTooLong,
    #[error("a line that begins with a space continues nothing")]
    ContinuesNothing,
    #[error("version {0:?} is not known; version 1 is")]
    Version(String),
    #[error("no ':' after the attribute's name")]
    NoColon,
    #[error("values in other files (':<') are not read")]
    Url,
    #[error("not base64")]
    Base64,
    #[error("the value is neither UTF-8 nor base64")]
    NotUtf8,
    #[error("the value holds a NUL and is not base64")]
    Nul,
    #[error("a record begins with 'dn:', not with {0:?}")]
    NoDn(String),
    #[error("not a name: {0}")]
    Name(#[from] DnError),
    #[error("change type {0:?} is not known")]
    ChangeType(String),
    #[error("critical control {0:?} is not known")]
    Control(String),
    #[error("{0} is expected here")]
    Expected(&'static str),
    #[error("a deletion has no attributes")]
    NotEmpty,
    #[error("a record has one entryUUID, in the form 00000000-0000-0000-0000-000000000000")]
    EntryUuid,
    #[error(transparent)]
    Attributes(#[from] AttributeError),
}

#[cfg(test)]
mod tests;
