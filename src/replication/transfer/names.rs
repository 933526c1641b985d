//! What the entries of a transfer are called in it: by number.
//!
//! FORMAT
//!   An entry that the replica has is named by its place among the base: in a delta its rank, the
//!   number of entries of the base state with a lower entryUUID; in a repair its index among the bases that
//!   the body begins with. An entry that the transfer adds is named by its place among those added, plus the number of
//!   the base's entries. A full load has no base.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;

use uuid::Uuid;

use crate::directory::digest::{self, Node, nibble};
use crate::directory::{ContextRecord, Dn, Read, StoreError};

/// The names of the entries that a transfer adds, in the order of their numbers, in little memory: about 50
/// octets and the RDN each.
#[derive(Clone, Default)]
pub struct NewNames {
    uuids: Vec<Uuid>,
    /// The parent's number plus one; 0 for the topmost entry.
    parents: Vec<u64>,
    rdns: String,
    rdn_ends: Vec<usize>,
    /// Indices in the order of the entryUUIDs.
    by_uuid: Vec<u32>,
}

impl NewNames {
    pub fn push(&mut self, uuid: Uuid, parent: Option<u64>, rdn: &str) {
        self.uuids.push(uuid);
        self.parents.push(parent.map_or(0, |number| number + 1));
        self.rdns.push_str(rdn);
        self.rdn_ends.push(self.rdns.len());
    }

    /// Call after the last push, before [`NewNames::index_of`].
    pub fn sort(&mut self) {
        self.by_uuid = (0..self.uuids.len() as u32).collect();
        self.by_uuid.sort_unstable_by_key(|&index| self.uuids[index as usize]);
    }

    pub fn len(&self) -> usize {
        self.uuids.len()
    }

    pub fn uuid(&self, index: usize) -> Option<Uuid> {
        self.uuids.get(index).copied()
    }

    pub fn parent(&self, index: usize) -> Option<u64> {
        self.parents.get(index).and_then(|parent| parent.checked_sub(1))
    }

    pub fn set_parent(&mut self, index: usize, parent: Option<u64>) {
        self.parents[index] = parent.map_or(0, |number| number + 1);
    }

    pub fn rdn(&self, index: usize) -> &str {
        let start = index.checked_sub(1).and_then(|before| self.rdn_ends.get(before)).copied().unwrap_or(0);
        self.rdn_ends.get(index).map_or("", |&end| &self.rdns[start..end])
    }

    pub fn index_of(&self, uuid: Uuid) -> Option<usize> {
        let at = self.by_uuid.binary_search_by_key(&uuid, |&index| self.uuids[index as usize]).ok()?;
        Some(self.by_uuid[at] as usize)
    }
}

/// Finds which added entry has a name, when so many are added that to ask the store for each is slow.
pub struct NamesByText {
    by_hash: HashMap<u64, u32>,
}

impl NamesByText {
    /// `names`: those of a full load, which has no base, so that every parent is among them.
    pub fn of(names: &NewNames, texts: &mut Texts) -> NamesByText {
        let mut by_hash = HashMap::with_capacity(names.len());
        for index in 0..names.len() {
            if let Some(above) = texts.above(names, index) {
                by_hash.insert(hash(&[names.rdn(index).as_bytes(), above.as_bytes()]), index as u32);
            }
        }
        NamesByText { by_hash }
    }

    /// The entry whose name is spelled exactly so.
    pub fn find(&self, names: &NewNames, texts: &mut Texts, value: &[u8]) -> Option<usize> {
        let index = *self.by_hash.get(&hash(&[value]))? as usize;
        let above = texts.above(names, index)?;
        let (rdn, rest) = value.split_at_checked(names.rdn(index).len())?;
        (rdn == names.rdn(index).as_bytes() && rest == above.as_bytes()).then_some(index)
    }
}

/// The names of the entries that others hang on, as text.
pub struct Texts {
    /// What stands above the topmost entry, with the comma before it.
    above_topmost: String,
    known: HashMap<u64, String>,
}

impl Texts {
    pub fn new(context: &Dn) -> Texts {
        let above_topmost = context.parent().map_or(String::new(), |above| format!(",{above}"));
        Texts { above_topmost, known: HashMap::new() }
    }

    /// What follows the entry's own RDN in its name, comma first; `None` if its parents go in a circle.
    fn above(&mut self, names: &NewNames, index: usize) -> Option<&str> {
        let Some(parent) = names.parent(index) else { return Some(&self.above_topmost) };
        if !self.known.contains_key(&parent) {
            let mut text = String::new();
            let mut at = Some(parent);
            let mut steps = 0;
            while let Some(number) = at {
                text.push(',');
                text.push_str(names.rdn(number as usize));
                at = names.parent(number as usize);
                steps += 1;
                if steps > crate::limits::DN_DEPTH_MAX {
                    return None;
                }
            }
            text.push_str(&self.above_topmost);
            bounded(&mut self.known);
            self.known.insert(parent, text);
        }
        self.known.get(&parent).map(String::as_str)
    }
}

/// Few entries have others beneath them; where many have, starting afresh costs little.
pub fn bounded<K, V>(map: &mut HashMap<K, V>) {
    if map.len() >= 10_000 {
        map.clear();
    }
}

fn hash(pieces: &[&[u8]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    pieces.iter().for_each(|piece| hasher.write(piece));
    hasher.finish()
}

/// The ranks in the base of a delta, told from the present state of the master.
pub struct Ranks {
    /// Entries of the base.
    pub entries: u64,
    /// In order: came since, and went since.
    added: Vec<Uuid>,
    deleted: Vec<Uuid>,
    /// All present entryUUIDs in order, when many ranks will be asked for.
    present: Option<Vec<Uuid>>,
}

impl Ranks {
    /// `None`: what was touched does not lead from a base of so many entries to the present state.
    pub fn new(
        read: &dyn Read,
        context: &ContextRecord,
        entries: u64,
        (mut added, mut deleted): (Vec<Uuid>, Vec<Uuid>),
        expected: usize,
    ) -> Result<Option<Ranks>, StoreError> {
        if context.entries + deleted.len() as u64 != entries + added.len() as u64 {
            return Ok(None);
        }
        added.sort_unstable();
        deleted.sort_unstable();
        let present = match expected as u64 > context.entries / MANY {
            true => Some(all_uuids(read, context)?),
            false => None,
        };
        Ok(Some(Ranks { entries, added, deleted, present }))
    }

    pub fn of(&self, read: &dyn Read, context: u32, uuid: Uuid) -> Result<u64, StoreError> {
        let below = match &self.present {
            Some(present) => present.partition_point(|other| *other < uuid) as u64,
            None => below(read, context, uuid)?,
        };
        let added = self.added.partition_point(|other| *other < uuid) as u64;
        let deleted = self.deleted.partition_point(|other| *other < uuid) as u64;
        Ok((below + deleted).saturating_sub(added))
    }
}

/// To read all entryUUIDs at once costs about as much as this share of them one by one.
pub const MANY: u64 = 64;

/// All entryUUIDs of the naming context, in order.
pub fn all_uuids(read: &dyn Read, context: &ContextRecord) -> Result<Vec<Uuid>, StoreError> {
    let mut uuids = Vec::with_capacity(context.entries as usize);
    digest::visit_items(read, context.number, &[], &mut |(uuid, _)| {
        uuids.push(uuid);
        true
    })?;
    Ok(uuids)
}

/// How many entries have a lower entryUUID, whether `uuid` is there or not.
fn below(read: &dyn Read, context: u32, uuid: Uuid) -> Result<u64, StoreError> {
    let mut prefix = Vec::new();
    let mut below = 0;
    loop {
        match digest::node(read, context, &prefix)? {
            None => return Ok(below),
            Some(Node::Leaf(items)) => {
                return Ok(below + items.partition_point(|(other, _)| *other < uuid) as u64);
            }
            Some(Node::Inner(children)) => {
                let nibble = nibble(uuid, prefix.len());
                below += children[..nibble as usize].iter().map(|child| child.entries).sum::<u64>();
                prefix.push(nibble);
            }
        }
    }
}
