//! A transaction on a disk that fills up: after so many writes it refuses every other. It says what it wrote.

use std::cell::Cell;
use std::collections::BTreeSet;

use bridgehead::directory::memory::MemoryTransaction;
use bridgehead::directory::store::Visit;
use bridgehead::directory::{Read, StoreError, Table, Write};

/// What a transaction wrote, for the observers to look at.
#[derive(Default)]
pub struct Written {
    tables: BTreeSet<u8>,
    /// Naming contexts with entries that were written.
    contexts: BTreeSet<u32>,
}

impl Written {
    pub fn table(&self, table: Table) -> bool {
        self.tables.contains(&(table as u8))
    }

    pub fn entries_of(&self, context: u32) -> bool {
        self.contexts.contains(&context)
    }

    fn note(&mut self, table: Table, key: &[u8]) {
        self.tables.insert(table as u8);
        if let (Table::Entry, Some(number)) = (table, key.first_chunk()) {
            self.contexts.insert(u32::from_be_bytes(*number));
        }
    }
}

pub struct Faulty<'s> {
    tx: MemoryTransaction<'s>,
    /// Writes that still succeed.
    left: u64,
    /// Whether one was refused.
    pub refused: bool,
    /// Reads, records and writes, and the octets of all of them.
    work: Cell<u64>,
    written: Written,
}

impl<'s> Faulty<'s> {
    pub fn new(tx: MemoryTransaction<'s>, writes: u64) -> Faulty<'s> {
        Faulty { tx, left: writes, refused: false, work: Cell::new(0), written: Written::default() }
    }

    pub fn commit(self) -> Written {
        self.tx.commit();
        self.written
    }

    pub fn work(&self) -> u64 {
        self.work.get()
    }

    fn worked(&self, bytes: usize) {
        self.work.set(self.work.get() + 1 + bytes as u64);
    }

    fn one(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        if self.left == 0 {
            self.refused = true;
            return Err(StoreError::Full("the simulated disk".into()));
        }
        self.left -= 1;
        self.written.note(table, key);
        Ok(())
    }
}

impl Read for Faulty<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.tx.get(table, key)?;
        self.worked(found.as_ref().map_or(0, Vec::len));
        Ok(found)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], visit: &mut Visit) -> Result<(), StoreError> {
        self.worked(0);
        self.tx.scan(table, from, to, &mut |key, value| {
            self.worked(value.len());
            visit(key, value)
        })
    }

    fn scan_back(&self, table: Table, from: &[u8], to: &[u8], visit: &mut Visit) -> Result<(), StoreError> {
        self.worked(0);
        self.tx.scan_back(table, from, to, &mut |key, value| {
            self.worked(value.len());
            visit(key, value)
        })
    }
}

impl Write for Faulty<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.one(table, key)?;
        self.worked(value.len());
        self.tx.put(table, key, value)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.one(table, key)?;
        self.tx.delete(table, key)
    }

    fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.one(table, from)?;
        self.tx.delete_range(table, from, to)
    }

    fn savepoint(&mut self) -> Result<(), StoreError> {
        self.tx.savepoint()
    }

    fn end_savepoint(&mut self, keep: bool) -> Result<(), StoreError> {
        self.tx.end_savepoint(keep)
    }

    fn as_read(&self) -> &dyn Read {
        self
    }
}
