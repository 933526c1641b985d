//! The store in memory: the reference model that the simulator runs on and the embedded store is
//! tested against.
//!
//! A transaction works on the maps in place and keeps an undo list, so that to roll back costs what
//! was written and to clone the whole store (a backup, a cloned machine) is one `clone`.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::store::{Read, StoreError, Table, Visit, Write};

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone)]
pub struct MemoryStore {
    tables: Vec<Records>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore { tables: vec![Records::new(); Table::ALL.len()] }
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn begin(&mut self) -> MemoryTransaction<'_> {
        MemoryTransaction { store: self, undo: Vec::new(), savepoints: Vec::new(), committed: false }
    }
}

/// Rolls back when dropped without [`MemoryTransaction::commit`].
pub struct MemoryTransaction<'s> {
    store: &'s mut MemoryStore,
    undo: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    savepoints: Vec<usize>,
    committed: bool,
}

impl MemoryTransaction<'_> {
    pub fn commit(mut self) {
        self.committed = true;
    }

    fn undo_to(&mut self, length: usize) {
        while self.undo.len() > length {
            let (table, key, before) = self.undo.pop().expect("longer than length");
            let records = &mut self.store.tables[table as usize];
            match before {
                Some(value) => records.insert(key, value),
                None => records.remove(&key),
            };
        }
    }
}

impl Drop for MemoryTransaction<'_> {
    fn drop(&mut self) {
        if !self.committed {
            self.undo_to(0);
        }
    }
}

type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

fn bounds(from: &[u8], to: &[u8]) -> Option<Bounds> {
    (from < to).then(|| (Bound::Included(from.to_vec()), Bound::Excluded(to.to_vec())))
}

impl Read for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables[table as usize].get(key).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], visit: &mut Visit) -> Result<(), StoreError> {
        if let Some(bounds) = bounds(from, to) {
            self.tables[table as usize].range(bounds).all(|(key, value)| visit(key, value));
        }
        Ok(())
    }

    fn scan_back(&self, table: Table, from: &[u8], to: &[u8], visit: &mut Visit) -> Result<(), StoreError> {
        if let Some(bounds) = bounds(from, to) {
            self.tables[table as usize].range(bounds).rev().all(|(key, value)| visit(key, value));
        }
        Ok(())
    }
}

impl Read for MemoryTransaction<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], visit: &mut Visit) -> Result<(), StoreError> {
        self.store.scan(table, from, to, visit)
    }

    fn scan_back(&self, table: Table, from: &[u8], to: &[u8], visit: &mut Visit) -> Result<(), StoreError> {
        self.store.scan_back(table, from, to, visit)
    }
}

impl Write for MemoryTransaction<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let before = self.store.tables[table as usize].insert(key.to_vec(), value.to_vec());
        self.undo.push((table, key.to_vec(), before));
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        if let Some(before) = self.store.tables[table as usize].remove(key) {
            self.undo.push((table, key.to_vec(), Some(before)));
        }
        Ok(())
    }

    fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        self.store.scan(table, from, to, &mut |key, _| {
            keys.push(key.to_vec());
            true
        })?;
        keys.iter().try_for_each(|key| self.delete(table, key))
    }

    fn savepoint(&mut self) -> Result<(), StoreError> {
        self.savepoints.push(self.undo.len());
        Ok(())
    }

    fn end_savepoint(&mut self, keep: bool) -> Result<(), StoreError> {
        let length = self.savepoints.pop().expect("a savepoint was begun");
        if !keep {
            self.undo_to(length);
        }
        Ok(())
    }

    fn as_read(&self) -> &dyn Read {
        self
    }
}
