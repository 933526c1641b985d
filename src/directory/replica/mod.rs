//! The write side of a replica: takes a naming context from one checkpoint to another, in any order
//! of steps, and believes the result only if its digest is the master's.
//!
//! PROMISES
//!   After `finish` the naming context has exactly the digest and the number of entries expected, every
//!   entry hangs on the topmost one by sound names, and the log knows what was touched.
//! FAILURE
//!   On any error the transaction is in pieces: the caller wraps the replay in a savepoint and takes it back.
//!   All errors but `Store` are the fault of whoever made the transfer.

use std::collections::{BTreeSet, HashMap};

use thiserror::Error;
use uuid::Uuid;

use crate::directory::attributes::{Attribute, AttributeError, Attributes};
use crate::directory::context::{ContextRecord, put_context, range};
use crate::directory::difference::difference;
use crate::directory::digest::{self, Summary};
use crate::directory::dn::Rdn;
use crate::directory::entry::{self, Entry};
use crate::directory::log::{self, Appender, Touched};
use crate::directory::lookup::{self, entry_key, name_key};
use crate::directory::position::{Digest, Position};
use crate::directory::store::{StoreError, Table, Write};
use crate::limits::{DN_DEPTH_MAX, ENTRY_BYTES_MAX};

/// Until `finish` the digest tree, and with it the ranks, still tell the state before.
pub struct Replay<'t> {
    tx: &'t mut dyn Write,
    context: ContextRecord,
    /// Nothing was there at the beginning, so nothing can be in the way.
    fresh: bool,
    cleared: bool,
    log: Appender,
    /// Steps seen for each entry.
    steps: HashMap<Uuid, Step>,
    touched: Vec<(Uuid, Option<Digest>)>,
    names_gone: Vec<Vec<u8>>,
    names_new: Vec<(Vec<u8>, Uuid)>,
    /// Entries that were added or moved hang here.
    parents: BTreeSet<Uuid>,
    moved: Vec<Uuid>,
    deleted: Vec<Uuid>,
    applied: Applied,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Added,
    Changed,
    Deleted,
}

/// What changes in one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    pub parent: Option<Uuid>,
    pub rdn: Option<Rdn>,
    pub attributes: Vec<AttributeDelta>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeDelta {
    /// The whole attribute, added or replaced.
    Set(Attribute),
    Remove(String),
    /// Values out (those that are not there are no error), then values behind the others.
    Values {
        name: String,
        remove: Vec<Vec<u8>>,
        append: Vec<Vec<u8>>,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub added: u64,
    pub changed: u64,
    pub deleted: u64,
}

#[derive(Debug, Error)]
pub enum ReplayError {
    #[error("entry {0} is there already")]
    Exists(Uuid),
    #[error("there is no entry {0}")]
    Missing(Uuid),
    #[error("entry {0} is changed twice")]
    Twice(Uuid),
    #[error("the name of entry {0} is taken")]
    NameTaken(Uuid),
    #[error("there is no entry {0} to hang others on, or it does not hang on the topmost one")]
    Adrift(Uuid),
    #[error("entry {0} is deleted, but not those beneath it")]
    HasChildren(Uuid),
    #[error("entry {0} is topmost, but has not the naming context's name")]
    NotTopmost(Uuid),
    #[error("entry {0} is too deep or too large")]
    TooLarge(Uuid),
    #[error("entry {0} has no entryUUID or no attribute")]
    Empty(Uuid),
    #[error("entry {0}: {1}")]
    Attributes(Uuid, AttributeError),
    #[error("USN {0} lies behind the one reached")]
    Backwards(u64),
    #[error("{found} entries, not {expected}")]
    Count { expected: u64, found: u64 },
    #[error("the digest is {found}, not {expected}")]
    Digest { expected: Digest, found: Digest },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<'t> Replay<'t> {
    pub fn begin(tx: &'t mut dyn Write, context: &ContextRecord) -> Replay<'t> {
        Replay {
            tx,
            fresh: context.entries == 0,
            context: context.clone(),
            cleared: false,
            log: Appender::new(),
            steps: HashMap::new(),
            touched: Vec::new(),
            names_gone: Vec::new(),
            names_new: Vec::new(),
            parents: BTreeSet::new(),
            moved: Vec::new(),
            deleted: Vec::new(),
            applied: Applied::default(),
        }
    }

    /// Begins a full load: forgets all entries, and what the log knows. The first step, if at all.
    pub fn clear(&mut self) -> Result<(), ReplayError> {
        let number = self.context.number;
        let (from, to) = range(number);
        self.tx.delete_range(Table::Entry, &from, &to)?;
        self.tx.delete_range(Table::Name, &from, &to)?;
        digest::clear(self.tx, number)?;
        log::clear(self.tx, number)?;
        (self.fresh, self.cleared) = (true, true);
        self.context.entries = 0;
        Ok(())
    }

    /// The transaction, for reading between the steps.
    pub fn tx(&self) -> &dyn Write {
        self.tx
    }

    pub fn add(&mut self, entry: &Entry) -> Result<(), ReplayError> {
        let uuid = entry.uuid;
        match self.steps.insert(uuid, Step::Added) {
            None if !self.fresh && self.octets(uuid)?.is_some() => return Err(ReplayError::Exists(uuid)),
            None | Some(Step::Deleted) => {}
            Some(_) => return Err(ReplayError::Twice(uuid)),
        }
        if uuid.is_nil() || entry.attributes.is_empty() {
            return Err(ReplayError::Empty(uuid));
        }
        self.place(entry)?;
        self.write(entry)?;
        self.log.touch(&Touched::Added(uuid));
        self.applied.added += 1;
        Ok(())
    }

    pub fn change(&mut self, uuid: Uuid, delta: Delta) -> Result<(), ReplayError> {
        if self.steps.insert(uuid, Step::Changed).is_some() {
            return Err(ReplayError::Twice(uuid));
        }
        let mut entry = self.entry(uuid)?;
        if delta.parent.is_some() || delta.rdn.is_some() {
            self.names_gone.push(self.name_key(&entry));
            self.log.touch(&Touched::Left(uuid, entry.parent, entry.rdn.normalized()));
            if let Some(parent) = delta.parent {
                entry.parent = parent;
                self.moved.push(uuid);
            }
            entry.rdn = delta.rdn.unwrap_or(entry.rdn);
            self.place(&entry)?;
            self.log.touch(&Touched::Named(uuid));
        }
        for attribute in delta.attributes {
            let changed = change_attribute(&mut entry.attributes, attribute, &mut |name, value| {
                self.log.touch(&match value {
                    Some(value) => Touched::Value(uuid, name.to_owned(), value.to_vec()),
                    None => Touched::Attribute(uuid, name.to_owned()),
                });
            });
            changed.map_err(|error| ReplayError::Attributes(uuid, error))?;
        }
        if entry.attributes.is_empty() {
            return Err(ReplayError::Empty(uuid));
        }
        self.write(&entry)?;
        self.applied.changed += 1;
        Ok(())
    }

    /// The entry is as it is here from now on; only what differs is touched.
    pub fn replace(&mut self, entry: &Entry) -> Result<(), ReplayError> {
        let uuid = entry.uuid;
        if self.steps.insert(uuid, Step::Changed).is_some() {
            return Err(ReplayError::Twice(uuid));
        }
        if entry.attributes.is_empty() {
            return Err(ReplayError::Empty(uuid));
        }
        let old = self.entry(uuid)?;
        if (old.parent, &old.rdn) != (entry.parent, &entry.rdn) {
            self.names_gone.push(self.name_key(&old));
            self.log.touch(&Touched::Left(uuid, old.parent, old.rdn.normalized()));
            if old.parent != entry.parent {
                self.moved.push(uuid);
            }
            self.place(entry)?;
            self.log.touch(&Touched::Named(uuid));
        }
        let log = &mut self.log;
        difference(uuid, &old.attributes, &entry.attributes, &mut |touched| log.touch(&touched));
        self.write(entry)?;
        self.applied.changed += 1;
        Ok(())
    }

    pub fn delete(&mut self, uuid: Uuid) -> Result<(), ReplayError> {
        if self.steps.insert(uuid, Step::Deleted).is_some() {
            return Err(ReplayError::Twice(uuid));
        }
        let entry = self.entry(uuid)?;
        self.names_gone.push(self.name_key(&entry));
        self.tx.delete(Table::Entry, &entry_key(self.context.number, uuid))?;
        self.touched.push((uuid, None));
        self.deleted.push(uuid);
        self.log.touch(&Touched::Left(uuid, entry.parent, entry.rdn.normalized()));
        self.log.touch(&Touched::Deleted(uuid));
        self.applied.deleted += 1;
        Ok(())
    }

    /// Checks the result against what the master signed, and makes it the naming context's state.
    pub fn finish(mut self, position: Position, expected: Summary) -> Result<Applied, ReplayError> {
        if position.usn < self.context.position.usn && !self.cleared {
            return Err(ReplayError::Backwards(position.usn));
        }
        let found = self.reached()?;
        if found.entries != expected.entries {
            return Err(ReplayError::Count { expected: expected.entries, found: found.entries });
        }
        if found.digest != expected.digest {
            return Err(ReplayError::Digest { expected: expected.digest, found: found.digest });
        }
        if self.cleared {
            self.context.log_floor = position.usn;
            // What a full load brought is no increment to anybody.
            self.log = Appender::new();
        }
        let applied = self.applied;
        self.log_at(position, found)?;
        Ok(applied)
    }

    /// Ends the steps of the master itself, to whom nobody else says where they lead: at its next USN, if anything changed.
    pub fn commit(mut self) -> Result<(), ReplayError> {
        let found = self.reached()?;
        let mut position = self.context.position;
        if (found.entries, found.digest) != (self.context.entries, self.context.digest) {
            position.usn += 1;
        } else if position.usn == 0
            || log::held(self.tx.as_read(), self.context.number, position.usn)?.is_some()
        {
            return Ok(());
        }
        // Where it stands is in the log in any case: partners will stand there.
        self.log_at(position, found)
    }

    /// What the steps lead to, with sound names.
    fn reached(&mut self) -> Result<Summary, ReplayError> {
        self.write_names()?;
        self.check_places()?;
        let touched = std::mem::take(&mut self.touched);
        Ok(digest::update(self.tx, self.context.number, touched)?)
    }

    fn log_at(mut self, position: Position, found: Summary) -> Result<(), ReplayError> {
        self.log.finish(self.tx, self.context.number, position.usn, found)?;
        self.context.position = position;
        self.context.digest = found.digest;
        self.context.entries = found.entries;
        Ok(put_context(self.tx, &self.context)?)
    }

    fn octets(&self, uuid: Uuid) -> Result<Option<Vec<u8>>, StoreError> {
        lookup::octets(self.tx.as_read(), self.context.number, uuid)
    }

    fn entry(&self, uuid: Uuid) -> Result<Entry, ReplayError> {
        lookup::entry(self.tx.as_read(), self.context.number, uuid)?.ok_or(ReplayError::Missing(uuid))
    }

    fn name_key(&self, entry: &Entry) -> Vec<u8> {
        name_key(self.context.number, entry.parent, &entry.rdn.normalized())
    }

    /// Notes where an entry hangs from now on; whether it can is seen at the end.
    fn place(&mut self, entry: &Entry) -> Result<(), ReplayError> {
        if entry.parent.is_nil() && !entry.rdn.matches(self.context.dn.rdn()) {
            return Err(ReplayError::NotTopmost(entry.uuid));
        }
        self.parents.insert(entry.parent);
        self.names_new.push((self.name_key(entry), entry.uuid));
        Ok(())
    }

    fn write(&mut self, entry: &Entry) -> Result<(), ReplayError> {
        let octets = entry.encode();
        if octets.len() > ENTRY_BYTES_MAX {
            return Err(ReplayError::TooLarge(entry.uuid));
        }
        self.touched.push((entry.uuid, Some(entry::hash_of(&octets))));
        Ok(self.tx.put(Table::Entry, &entry_key(self.context.number, entry.uuid), &octets)?)
    }

    /// Names are exchanged between entries by taking all old ones out first.
    fn write_names(&mut self) -> Result<(), ReplayError> {
        self.names_gone.sort();
        for key in &self.names_gone {
            self.tx.delete(Table::Name, key)?;
        }
        self.names_new.sort();
        if let Some(pair) = self.names_new.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(ReplayError::NameTaken(pair[1].1));
        }
        for (key, uuid) in std::mem::take(&mut self.names_new) {
            if !self.fresh && self.tx.get(Table::Name, &key)?.is_some() {
                return Err(ReplayError::NameTaken(uuid));
            }
            self.tx.put(Table::Name, &key, uuid.as_bytes())?;
        }
        Ok(())
    }

    /// Every entry hangs on the topmost one, in no circle, and not too deep.
    fn check_places(&mut self) -> Result<(), ReplayError> {
        for uuid in &self.deleted {
            let gone = self.steps.get(uuid) == Some(&Step::Deleted);
            if gone && lookup::has_children(self.tx.as_read(), self.context.number, *uuid)? {
                return Err(ReplayError::HasChildren(*uuid));
            }
        }
        let mut depths = HashMap::from([(Uuid::nil(), self.context.dn.rdns().len() - 1)]);
        for parent in &self.parents {
            if self.depth(*parent, &mut depths)? >= DN_DEPTH_MAX {
                return Err(ReplayError::TooLarge(*parent));
            }
        }
        for uuid in &self.moved {
            let depth = self.depth(*uuid, &mut depths)?;
            let height = lookup::height(self.tx.as_read(), self.context.number, *uuid, DN_DEPTH_MAX)?;
            if depth + height > DN_DEPTH_MAX {
                return Err(ReplayError::TooLarge(*uuid));
            }
        }
        Ok(())
    }

    /// RDNs in the name of an entry.
    fn depth(&self, uuid: Uuid, depths: &mut HashMap<Uuid, usize>) -> Result<usize, ReplayError> {
        let mut path = Vec::new();
        let mut at = uuid;
        let mut depth = loop {
            if let Some(depth) = depths.get(&at) {
                break *depth;
            }
            path.push(at);
            if path.len() > DN_DEPTH_MAX {
                return Err(ReplayError::Adrift(uuid));
            }
            let entry = lookup::entry(self.tx.as_read(), self.context.number, at)?;
            at = entry.ok_or(ReplayError::Adrift(at))?.parent;
        };
        for uuid in path.into_iter().rev() {
            depth += 1;
            depths.insert(uuid, depth);
        }
        Ok(depth)
    }
}

/// Applies one delta and tells what to log: a name, and a value if it goes by values.
fn change_attribute(
    attributes: &mut Attributes,
    delta: AttributeDelta,
    touch: &mut dyn FnMut(&str, Option<&[u8]>),
) -> Result<(), AttributeError> {
    match delta {
        AttributeDelta::Set(attribute) => {
            touch(attribute.name(), None);
            attributes.set(attribute)
        }
        AttributeDelta::Remove(name) => {
            touch(&name, None);
            attributes.remove(&name);
            Ok(())
        }
        AttributeDelta::Values { name, remove, append } => {
            remove.iter().chain(&append).for_each(|value| touch(&name, Some(value)));
            attributes.remove_values(&name, &remove);
            if append.is_empty() { Ok(()) } else { attributes.append(&name, append) }
        }
    }
}

#[cfg(test)]
mod tests;
