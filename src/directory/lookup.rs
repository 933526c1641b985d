//! Looking entries up: by entryUUID, by name, by place in the tree.
//!
//! LIMITS
//!   A name is at most `DN_DEPTH_MAX` steps deep; a store where it is deeper, or goes in a circle, is damaged.

use std::collections::HashMap;

use uuid::Uuid;

use super::context::{ContextRecord, range};
use super::digest;
use super::dn::{Dn, Rdn};
use super::entry::{self, Entry, batch_of, from_batch};
use super::store::{Read, StoreError, Table};
use crate::limits::DN_DEPTH_MAX;

pub use super::digest::{by_rank, rank_of};

/// The entry with this entryUUID.
pub fn entry(read: &dyn Read, context: u32, uuid: Uuid) -> Result<Option<Entry>, StoreError> {
    octets(read, context, uuid)?.map(|octets| decode(&octets)).transpose()
}

/// The canonical octets of the entry with this entryUUID.
pub fn octets(read: &dyn Read, context: u32, uuid: Uuid) -> Result<Option<Vec<u8>>, StoreError> {
    read.get(Table::Entry, &entry_key(context, uuid))
}

/// The entryUUID of the entry with this name.
pub fn find(read: &dyn Read, context: &ContextRecord, dn: &Dn) -> Result<Option<Uuid>, StoreError> {
    Finder::new(context).find(read, dn)
}

/// The name of the entry with this entryUUID.
pub fn dn_of(read: &dyn Read, context: &ContextRecord, uuid: Uuid) -> Result<Option<Dn>, StoreError> {
    Finder::new(context).dn_of(read, uuid)
}

/// The entry of this name.
pub fn entry_at(read: &dyn Read, context: &ContextRecord, dn: &Dn) -> Result<Option<Entry>, StoreError> {
    match find(read, context, dn)? {
        Some(uuid) => entry(read, context.number, uuid),
        None => Ok(None),
    }
}

/// Visits the entryUUIDs of the entries right beneath `parent`, by normalized RDN; the nil UUID
/// has the topmost entry beneath it. `false` ends the visit.
pub fn children(
    read: &dyn Read,
    context: u32,
    parent: Uuid,
    visit: &mut dyn FnMut(Uuid) -> bool,
) -> Result<(), StoreError> {
    let from = name_key(context, parent, &[]);
    let mut to = from.clone();
    to.push(0xff); // no RDN begins so
    let mut failure = None;
    read.scan(Table::Name, &from, &to, &mut |_, value| match uuid_from(value) {
        Ok(uuid) => visit(uuid),
        Err(error) => {
            failure = Some(error);
            false
        }
    })?;
    failure.map_or(Ok(()), Err)
}

/// Whether there are entries beneath this one.
pub fn has_children(read: &dyn Read, context: u32, uuid: Uuid) -> Result<bool, StoreError> {
    let mut found = false;
    children(read, context, uuid, &mut |_| {
        found = true;
        false
    })?;
    Ok(found)
}

/// How many steps down the deepest entry beneath this one is, counted no further than `bound`.
pub fn height(read: &dyn Read, context: u32, uuid: Uuid, bound: usize) -> Result<usize, StoreError> {
    let mut level = vec![uuid];
    for height in 0..bound {
        let mut below = Vec::new();
        for uuid in level {
            children(read, context, uuid, &mut |child| {
                below.push(child);
                true
            })?;
        }
        if below.is_empty() {
            return Ok(height);
        }
        level = below;
    }
    Ok(bound)
}

/// Visits all entries by batch, then ordinal: entries of one import in the order of its file.
pub fn scan_entries(
    read: &dyn Read,
    context: u32,
    visit: &mut dyn FnMut(Entry) -> bool,
) -> Result<(), StoreError> {
    let (from, to) = range(context);
    let mut failure = None;
    read.scan(Table::Entry, &from, &to, &mut |_, octets| match decode(octets) {
        Ok(entry) => visit(entry),
        Err(error) => {
            failure = Some(error);
            false
        }
    })?;
    failure.map_or(Ok(()), Err)
}

/// Visits entryUUID, parent and RDN of all entries, in the order of [`scan_entries`], for less.
pub fn scan_names(
    read: &dyn Read,
    context: u32,
    visit: &mut dyn FnMut(Uuid, Uuid, &str) -> bool,
) -> Result<(), StoreError> {
    let (from, to) = range(context);
    let mut failure = None;
    read.scan(Table::Entry, &from, &to, &mut |_, octets| match entry::read_name(octets) {
        Ok((uuid, parent, rdn)) => visit(uuid, parent, rdn),
        Err(error) => {
            failure = Some(StoreError::Damaged(format!("an entry: {error}")));
            false
        }
    })?;
    failure.map_or(Ok(()), Err)
}

/// The state digest computed anew from the entries, in 48 octets of memory each.
pub fn digest_from_entries(read: &dyn Read, context: u32) -> Result<digest::Summary, StoreError> {
    let mut items = Vec::new();
    let (from, to) = range(context);
    read.scan(Table::Entry, &from, &to, &mut |key, octets| {
        items.push((uuid_of_key(key).unwrap_or_default(), entry::hash_of(octets)));
        true
    })?;
    Ok(digest::of_items(items))
}

/// Finds many names of one naming context, remembering the entries that have others beneath them.
/// What it remembers must be forgotten when names change.
pub struct Finder {
    context: u32,
    root: Dn,
    /// By name as it was spelled.
    by_name: HashMap<String, Uuid>,
    by_uuid: HashMap<Uuid, Dn>,
}

impl Finder {
    pub fn new(context: &ContextRecord) -> Finder {
        Finder {
            context: context.number,
            root: context.dn.clone(),
            by_name: HashMap::new(),
            by_uuid: HashMap::new(),
        }
    }

    pub fn find(&mut self, read: &dyn Read, dn: &Dn) -> Result<Option<Uuid>, StoreError> {
        let Some(depth) = self.depth(dn) else { return Ok(None) };
        match self.find_above(read, dn, depth)? {
            Some(parent) => self.step(read, parent, dn.rdn()),
            None => Ok(None),
        }
    }

    /// The entryUUID of the entry above `dn`: nil for the topmost name of the naming context; None if
    /// there is no such entry or `dn` does not belong to the naming context.
    pub fn find_parent(&mut self, read: &dyn Read, dn: &Dn) -> Result<Option<Uuid>, StoreError> {
        match self.depth(dn) {
            Some(depth) => self.find_above(read, dn, depth),
            None => Ok(None),
        }
    }

    /// The entry of this RDN right beneath `parent`.
    pub fn step(&self, read: &dyn Read, parent: Uuid, rdn: &Rdn) -> Result<Option<Uuid>, StoreError> {
        let found = read.get(Table::Name, &name_key(self.context, parent, &rdn.normalized()))?;
        found.map(|value| uuid_from(&value)).transpose()
    }

    pub fn dn_of(&mut self, read: &dyn Read, uuid: Uuid) -> Result<Option<Dn>, StoreError> {
        let Some(entry) = entry(read, self.context, uuid)? else { return Ok(None) };
        self.dn_of_entry(read, &entry).map(Some)
    }

    /// The name of an entry whose parent is in the store.
    pub fn dn_of_entry(&mut self, read: &dyn Read, entry: &Entry) -> Result<Dn, StoreError> {
        let mut rdns = vec![entry.rdn.clone()];
        let mut above = entry.parent;
        while !above.is_nil() && rdns.len() <= DN_DEPTH_MAX {
            if let Some(known) = self.by_uuid.get(&above) {
                rdns.extend_from_slice(known.rdns());
                return self.remember_name(entry.parent, rdns);
            }
            let Some(parent) = self::entry(read, self.context, above)? else {
                return Err(StoreError::Damaged(format!("there is no entry {above} above {}", entry.uuid)));
            };
            rdns.push(parent.rdn);
            above = parent.parent;
        }
        rdns.extend_from_slice(&self.root.rdns()[1..]);
        self.remember_name(entry.parent, rdns)
    }

    /// Forgets the names, which have changed.
    pub fn forget(&mut self) {
        self.by_name.clear();
        self.by_uuid.clear();
    }

    fn remember_name(&mut self, parent: Uuid, rdns: Vec<Rdn>) -> Result<Dn, StoreError> {
        let damaged = |_| StoreError::Damaged(format!("the name of an entry beneath {parent} has no end"));
        let dn = Dn::from_rdns(rdns).map_err(damaged)?;
        if !parent.is_nil()
            && let Some(above) = dn.parent()
        {
            bounded(&mut self.by_uuid);
            self.by_uuid.insert(parent, above);
        }
        Ok(dn)
    }

    /// How many steps beneath the topmost name.
    fn depth(&self, dn: &Dn) -> Option<usize> {
        dn.is_under(&self.root).then(|| dn.rdns().len() - self.root.rdns().len())
    }

    /// The parent of `dn`, which lies `depth` steps beneath the topmost name.
    fn find_above(&mut self, read: &dyn Read, dn: &Dn, depth: usize) -> Result<Option<Uuid>, StoreError> {
        if depth == 0 {
            return Ok(Some(Uuid::nil()));
        }
        let key = dn.parent_text();
        if let Some(known) = self.by_name.get(&key) {
            return Ok(Some(*known));
        }
        let mut at = Uuid::nil();
        for rdn in dn.rdns()[1..=depth].iter().rev() {
            match self.step(read, at, rdn)? {
                Some(next) => at = next,
                None => return Ok(None),
            }
        }
        bounded(&mut self.by_name);
        self.by_name.insert(key, at);
        Ok(Some(at))
    }
}

/// Directories have few entries with others beneath them; where they have many, starting afresh is cheap.
fn bounded<K, V>(map: &mut HashMap<K, V>) {
    if map.len() >= 10_000 {
        map.clear();
    }
}

/// Context number, batch, ordinal: an import is written at one end of the table, in order.
pub(super) fn entry_key(context: u32, uuid: Uuid) -> [u8; 20] {
    let (batch, ordinal) = batch_of(uuid);
    let mut key = [0; 20];
    key[..4].copy_from_slice(&context.to_be_bytes());
    key[4..16].copy_from_slice(&batch);
    key[16..].copy_from_slice(&ordinal.to_be_bytes());
    key
}

/// None: it is not a key that this program wrote.
pub(super) fn uuid_of_key(key: &[u8]) -> Option<Uuid> {
    let (batch, ordinal) = key.get(4..)?.split_at_checked(12)?;
    Some(from_batch(batch.try_into().ok()?, u32::from_be_bytes(ordinal.try_into().ok()?)))
}

/// Context number, parent's entryUUID, normalized RDN.
pub(super) fn name_key(context: u32, parent: Uuid, normalized: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(20 + normalized.len() + 1);
    key.extend_from_slice(&context.to_be_bytes());
    key.extend_from_slice(parent.as_bytes());
    key.extend_from_slice(normalized);
    key
}

pub(super) fn uuid_from(value: &[u8]) -> Result<Uuid, StoreError> {
    Uuid::from_slice(value).map_err(|_| StoreError::Damaged("a record of the name index is malformed".into()))
}

fn decode(octets: &[u8]) -> Result<Entry, StoreError> {
    entry::read(octets).map_err(|error| StoreError::Damaged(format!("an entry: {error}")))
}
