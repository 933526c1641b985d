//! Naming contexts: which there are, who masters them, and where this store stands in their history.
//!
//! PROMISES
//!   A naming context has one number in this store for as long as the store lives; the number means
//!   nothing elsewhere. `position`, `digest` and `entries` are those of the entries in the store.

use thiserror::Error;
use uuid::Uuid;

use super::dn::{Dn, DnError};
use super::lineage::Lineage;
use super::position::{Digest, Position};
use super::store::{Read, StoreError, Table, Write};
use crate::limits::{CONTEXTS_MAX, DN_BYTES_MAX};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextRecord {
    /// The key of this naming context in this store.
    pub number: u32,
    pub dn: Dn,
    /// Name of the site that masters it.
    pub master: String,
    pub position: Position,
    /// Where each earlier invocation ended and this history goes on from it, oldest first.
    pub lineage: Lineage,
    pub entries: u64,
    pub digest: Digest,
    /// The lowest USN from which the log can tell what was touched since.
    pub log_floor: u64,
}

#[derive(Debug, Error)]
pub enum ContextError {
    #[error("there is a naming context {0} already")]
    Exists(Dn),
    /// It cannot be this site's own.
    #[error(
        "{dn} is held here as that of the site {master}: if this site had that name, list it in `site.former_names`"
    )]
    OfAnother { dn: Dn, master: String },
    #[error("the name of a naming context has more than {DN_BYTES_MAX} octets")]
    TooLong,
    #[error("more than {CONTEXTS_MAX} naming contexts")]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ContextRecord {
    /// Whether `position` is a point of this history: of the present invocation, or of an earlier one
    /// before it ended, as far as that is remembered.
    pub fn is_on_history(&self, position: &Position) -> bool {
        let passed = position.is_passed_by(&self.position) || self.lineage.passes(position);
        passed || self.lineage.is_too_old(position)
    }

    /// Whether `position` is of another history than this one: neither a point of it nor ahead in its present invocation.
    pub fn is_beside(&self, position: &Position) -> bool {
        position.invocation != self.position.invocation && !self.is_on_history(position)
    }
}

/// Creates a naming context without entries. A master passes a fresh invocation id; a replica that
/// knows nothing yet passes the nil UUID.
pub fn create_context(
    tx: &mut dyn Write,
    dn: &Dn,
    master: &str,
    invocation: Uuid,
) -> Result<ContextRecord, ContextError> {
    if dn.to_string().len() > DN_BYTES_MAX {
        return Err(ContextError::TooLong);
    }
    let known = contexts(tx.as_read())?;
    if known.iter().any(|record| record.dn.matches(dn)) {
        return Err(ContextError::Exists(dn.clone()));
    }
    if known.len() >= CONTEXTS_MAX {
        return Err(ContextError::TooMany);
    }
    let record = ContextRecord {
        number: next_number(tx)?,
        dn: dn.clone(),
        master: master.to_owned(),
        position: Position { invocation, usn: 0 },
        lineage: Lineage::default(),
        entries: 0,
        digest: Digest::EMPTY,
        log_floor: 0,
    };
    put_context(tx, &record)?;
    Ok(record)
}

/// A number that was never used, for checkpoints and holds may outlive their naming context.
fn next_number(tx: &mut dyn Write) -> Result<u32, StoreError> {
    let last = tx.get(Table::Meta, LAST_NUMBER)?;
    let last = last.and_then(|octets| octets.try_into().ok()).map_or(0, u32::from_be_bytes);
    tx.put(Table::Meta, LAST_NUMBER, &(last + 1).to_be_bytes())?;
    Ok(last + 1)
}

const LAST_NUMBER: &[u8] = b"last context number";

/// All naming contexts, by number.
pub fn contexts(read: &dyn Read) -> Result<Vec<ContextRecord>, StoreError> {
    let mut records = Vec::new();
    read.scan(Table::Context, &[], &[0xff; 5], &mut |_, value| {
        records.push(decode(value));
        true
    })?;
    records.into_iter().collect()
}

/// The naming context of exactly this name.
pub fn context(read: &dyn Read, dn: &Dn) -> Result<Option<ContextRecord>, StoreError> {
    Ok(contexts(read)?.into_iter().find(|record| record.dn.matches(dn)))
}

/// The naming context that an entry of this name belongs to: the deepest at or above it.
pub fn context_of(read: &dyn Read, dn: &Dn) -> Result<Option<ContextRecord>, StoreError> {
    let above = contexts(read)?.into_iter().filter(|record| dn.is_under(&record.dn));
    Ok(above.max_by_key(|record| record.dn.rdns().len()))
}

pub fn context_by_number(read: &dyn Read, number: u32) -> Result<Option<ContextRecord>, StoreError> {
    read.get(Table::Context, &number.to_be_bytes())?.map(|value| decode(&value)).transpose()
}

pub fn put_context(tx: &mut dyn Write, record: &ContextRecord) -> Result<(), StoreError> {
    tx.put(Table::Context, &record.number.to_be_bytes(), &encode(record))
}

/// Forgets a naming context with all that is stored under its number but checkpoints and holds.
pub fn remove_context(tx: &mut dyn Write, number: u32) -> Result<(), StoreError> {
    for table in [Table::Entry, Table::Name, Table::Log, Table::Digest, Table::Provenance] {
        let (from, to) = range(number);
        tx.delete_range(table, &from, &to)?;
    }
    tx.delete(Table::Context, &number.to_be_bytes())
}

/// The keys of one naming context in any table whose keys begin with its number.
pub(super) fn range(number: u32) -> ([u8; 4], [u8; 4]) {
    // Numbers count up from 1 and stay far below the end.
    (number.to_be_bytes(), (number + 1).to_be_bytes())
}

/// As stored; fields are numbered, so that later versions can add some.
#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct Stored {
    #[n(0)]
    number: u32,
    #[n(1)]
    dn: String,
    #[n(2)]
    master: String,
    #[n(3)]
    position: StoredPosition,
    #[n(4)]
    lineage: Lineage,
    #[n(5)]
    entries: u64,
    #[n(6)]
    digest: Octets<32>,
    #[n(7)]
    log_floor: u64,
}

type Octets<const N: usize> = minicbor::bytes::ByteArray<N>;

#[derive(minicbor::Encode, minicbor::Decode)]
struct StoredPosition {
    #[n(0)]
    invocation: Octets<16>,
    #[n(1)]
    usn: u64,
}

impl StoredPosition {
    fn of(position: Position) -> StoredPosition {
        StoredPosition { invocation: position.invocation.into_bytes().into(), usn: position.usn }
    }

    fn meant(self) -> Position {
        Position { invocation: Uuid::from_bytes(self.invocation.into()), usn: self.usn }
    }
}

fn encode(record: &ContextRecord) -> Vec<u8> {
    let stored = Stored {
        number: record.number,
        dn: record.dn.to_string(),
        master: record.master.clone(),
        position: StoredPosition::of(record.position),
        lineage: record.lineage.clone(),
        entries: record.entries,
        digest: record.digest.0.into(),
        log_floor: record.log_floor,
    };
    minicbor::to_vec(stored).expect("writing to a Vec does not fail")
}

/// What [`put_context`] wrote.
pub fn decode(octets: &[u8]) -> Result<ContextRecord, StoreError> {
    let damaged = |what: String| StoreError::Damaged(format!("naming context record: {what}"));
    let stored: Stored = minicbor::decode(octets).map_err(|e| damaged(e.to_string()))?;
    Ok(ContextRecord {
        number: stored.number,
        dn: Dn::parse(&stored.dn).map_err(|e: DnError| damaged(e.to_string()))?,
        master: stored.master,
        position: stored.position.meant(),
        lineage: stored.lineage,
        entries: stored.entries,
        digest: Digest(stored.digest.into()),
        log_floor: stored.log_floor,
    })
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::*;

    fn dn(text: &str) -> Dn {
        Dn::parse(text).unwrap()
    }

    #[test]
    fn contexts_are_kept_and_found_by_name() {
        let mut store = MemoryStore::new();
        let mut tx = store.begin();
        let life = Uuid::from_u128(7);
        let mut a = create_context(&mut tx, &dn("ou=Paris,o=Org"), "paris", life).unwrap();
        let b = create_context(&mut tx, &dn("ou=Lab,ou=Paris,o=Org"), "lab", Uuid::nil()).unwrap();
        assert!(matches!(
            create_context(&mut tx, &dn("OU=paris, o=org"), "x", life),
            Err(ContextError::Exists(_))
        ));
        a.lineage.push(a.position, Digest([9; 32]));
        a.position = Position { invocation: Uuid::from_u128(8), usn: 3 };
        a.entries = 12;
        a.log_floor = 2;
        put_context(&mut tx, &a).unwrap();
        assert_eq!(contexts(&tx).unwrap(), [a.clone(), b.clone()]);
        assert_eq!(context(&tx, &dn("ou=PARIS,o=Org")).unwrap(), Some(a.clone()));
        assert_eq!(context_by_number(&tx, b.number).unwrap(), Some(b.clone()));
        assert_eq!(context_of(&tx, &dn("cn=x,ou=lab,ou=paris,o=org")).unwrap(), Some(b.clone()));
        assert_eq!(context_of(&tx, &dn("cn=x,ou=paris,o=org")).unwrap(), Some(a));
        assert_eq!(context_of(&tx, &dn("o=org")).unwrap(), None);
        remove_context(&mut tx, b.number).unwrap();
        assert_eq!(context(&tx, &b.dn).unwrap(), None);
        let c = create_context(&mut tx, &b.dn, "lab", Uuid::nil()).unwrap();
        assert!(c.number > b.number, "a number is never used again");
    }

    #[test]
    fn a_history_goes_on_over_invocations() {
        let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut store = MemoryStore::new();
        let mut record = create_context(&mut store.begin(), &dn("o=x"), "x", new).unwrap();
        record.position.usn = 9;
        record.lineage.push(Position { invocation: old, usn: 5 }, Digest::EMPTY);
        for (invocation, usn, on) in
            [(new, 9, true), (new, 10, false), (old, 5, true), (old, 6, false), (Uuid::nil(), 1, false)]
        {
            assert_eq!(record.is_on_history(&Position { invocation, usn }), on);
        }
    }
}
