//! Where a naming context stands: its position and its state digest.

use std::fmt;

use uuid::Uuid;

/// A point in the history of one naming context.
///
/// The master raises `usn` by one for each commit. `invocation` names one life of the master's
/// database; a database that was restored, cloned or re-created takes a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    pub invocation: Uuid,
    pub usn: u64,
}

impl Position {
    /// Whether whoever stands at `other`, in the same life, has got here or further.
    pub fn is_passed_by(&self, other: &Position) -> bool {
        self.invocation == other.invocation && self.usn <= other.usn
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.invocation, self.usn)
    }
}

/// SHA-256 (FIPS 180-4) over the canonical state of a naming context, or of a part of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of a naming context without entries.
    pub const EMPTY: Digest = Digest([0; 32]);
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}
