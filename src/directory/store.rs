//! The store as the rest of the program sees it: ordered tables of byte strings, changed in
//! transactions.
//!
//! PROMISES
//!   Keys sort as unsigned bytes. What was committed survives a crash whole; what was not is gone
//!   whole. A savepoint that is rolled back leaves the transaction as it was before it.
//!
//! Everything that means something (entries, names, log, digest, peers) is written once, over these
//! few verbs, so that a second engine has little to get wrong.

use thiserror::Error;

/// The tables. Their names are those of the database file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// One-of-a-kind records: schema version, identity of this database.
    Meta,
    /// Naming contexts, by number.
    Context,
    /// Entries: context number, entryUUID.
    Entry,
    /// Names: context number, parent's entryUUID, normalized RDN.
    Name,
    /// What each commit touched: context number, USN, sequence.
    Log,
    /// The digest tree of each naming context.
    Digest,
    /// Signed checkpoints: context number, then position.
    Checkpoint,
    /// What is known of each connected site.
    Peer,
    /// Parts on their way out, kept until acknowledged.
    Outbox,
    /// Parts received, kept until applied.
    Inbox,
    /// Transfers that wait for an operator's word.
    Hold,
    /// Kept copies of what was refused or not understood.
    Quarantine,
    /// How each position of a naming context was reached: context number, USN.
    Provenance,
}

impl Table {
    pub const ALL: [Table; 13] = [
        Table::Meta,
        Table::Context,
        Table::Entry,
        Table::Name,
        Table::Log,
        Table::Digest,
        Table::Checkpoint,
        Table::Peer,
        Table::Outbox,
        Table::Inbox,
        Table::Hold,
        Table::Quarantine,
        Table::Provenance,
    ];
}

/// The visitor of a scan: key, value; `false` ends the scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> bool + 'a;

/// One consistent view of the store.
pub trait Read {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits the records with `from <= key < to` in ascending order.
    fn scan(&self, table: Table, from: &[u8], to: &[u8], visit: &mut Visit) -> Result<(), StoreError>;

    /// Visits the records with `from <= key < to` in descending order.
    fn scan_back(&self, table: Table, from: &[u8], to: &[u8], visit: &mut Visit) -> Result<(), StoreError>;
}

/// A transaction. Its end (commit or not) belongs to whoever began it.
pub trait Write: Read {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError>;

    /// Deleting what is not there is no error.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError>;

    /// Deletes the records with `from <= key < to`.
    fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), StoreError>;

    /// Begins a savepoint within the transaction; they nest.
    fn savepoint(&mut self) -> Result<(), StoreError>;

    /// Ends the innermost savepoint: `keep` keeps what was done since, else it is undone.
    fn end_savepoint(&mut self, keep: bool) -> Result<(), StoreError>;

    /// This transaction as a view.
    fn as_read(&self) -> &dyn Read;
}

/// This machine's fault: the database engine refused.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    #[error("the store is in use by another process ({0})")]
    Locked(String),
    #[error("the disk that holds the store is full ({0})")]
    Full(String),
    #[error("the store is damaged: {0}")]
    Damaged(String),
    #[error("the store failed: {0}")]
    Failed(String),
}
