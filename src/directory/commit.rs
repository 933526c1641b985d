//! The master's commit: changes go in one by one, at the end the USN rises by one.
//!
//! PROMISES
//!   What `finish` returns is logged, counted and in the digest; a commit that changes nothing uses
//!   no USN. New entries get the entryUUIDs of the commit's batch, in the order they came, unless they bring their own.
//!   Of an attribute with many values, those that stay keep their places, whatever order a change names them in.
//!   An entry that cannot be read any more is put back by one that is put in its place.
//! STANDARDS
//!   RFC 4511 sections 4.6 to 4.9 (what modify, add, delete and modify DN mean); the reasons of a refusal are
//!   named as its result codes.
//! LIMITS
//!   Entries whose parent comes later wait in memory, up to `DEFERRED_BYTES_MAX`.
//! FAILURE
//!   After an error the transaction holds part of the commit: the caller rolls back.
//! BUGS
//!   No schema is enforced, and values are compared octet by octet.

use std::collections::HashMap;

use thiserror::Error;
use uuid::Uuid;

use super::attributes::{Attribute, AttributeError, Attributes};
use super::change::{Change, Modification, Operation};
use super::context::{ContextRecord, context_by_number, put_context};
use super::difference::{difference, keep_order};
use super::digest::{self, Summary};
use super::dn::{Dn, Rdn};
use super::entry::{self, Entry, uuid_in_batch};
use super::log::{Appender, Touched};
use super::lookup::{self, Finder, entry_key, name_key};
use super::position::{Digest, Position};
use super::store::{StoreError, Table, Write};
use crate::limits::{DEFERRED_BYTES_MAX, DN_DEPTH_MAX, ENTRY_BYTES_MAX};

pub struct Commit<'t> {
    tx: &'t mut dyn Write,
    context: ContextRecord,
    batch: [u8; 12],
    ordinal: u32,
    log: Appender,
    touched: Vec<(Uuid, Option<Digest>)>,
    finder: Finder,
    deferred: Deferred,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub position: Position,
    pub digest: Digest,
    pub entries: u64,
}

#[derive(Debug, Error)]
pub enum ChangeError {
    /// Whoever asked for the change is at fault.
    #[error("{dn}: {reason}")]
    Refused { dn: Dn, line: u64, reason: Refusal },
    #[error("there is no naming context {0}")]
    NoContext(u32),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    #[error("not in the naming context {0}")]
    OutsideContext(Dn),
    #[error("noSuchObject: there is no such entry")]
    NoSuchObject,
    #[error("noSuchObject: there is no entry {0} above it")]
    NoParent(Dn),
    #[error("entryAlreadyExists")]
    AlreadyExists,
    #[error("entryAlreadyExists: another entry has this entryUUID")]
    UuidTaken,
    #[error("the entry is there with another entryUUID; delete it first, or leave entryUUID out")]
    UuidDiffers,
    #[error("notAllowedOnNonLeaf: there are entries beneath it")]
    NotLeaf,
    #[error("an entry cannot be moved beneath itself")]
    Circle,
    #[error("the naming context's own entry cannot be renamed")]
    Topmost,
    #[error("the name would have more than {DN_DEPTH_MAX} parts")]
    TooDeep,
    #[error("the entry would have more than {ENTRY_BYTES_MAX} octets")]
    TooLarge,
    #[error("objectClassViolation: the entry would have no attribute")]
    Empty,
    #[error("noSuchAttribute: {0}")]
    NoSuchAttribute(String),
    #[error("noSuchAttribute: {0} has no such value")]
    NoSuchValue(String),
    #[error("notAllowedOnRDN: a value of {0} names the entry")]
    NamesEntry(String),
    #[error("constraintViolation: entryUUID cannot be changed")]
    EntryUuid,
    #[error(transparent)]
    Attributes(#[from] AttributeError),
    #[error("more than {DEFERRED_BYTES_MAX} octets of entries come before their parents; put parents first")]
    TooManyDeferred,
}

/// Why a change stops: refused, or the store failed.
enum Stop {
    Refused(Refusal),
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Stop {
        Stop::Store(error)
    }
}

impl<R: Into<Refusal>> From<R> for Stop {
    fn from(refusal: R) -> Stop {
        Stop::Refused(refusal.into())
    }
}

/// Entries that wait for their parent to come in the same commit.
#[derive(Default)]
struct Deferred {
    by_parent: HashMap<Vec<u8>, Vec<(u64, Change)>>,
    bytes: usize,
}

impl<'t> Commit<'t> {
    /// `batch`: random octets, fresh for each commit.
    pub fn begin(tx: &'t mut dyn Write, context: u32, batch: [u8; 12]) -> Result<Commit<'t>, ChangeError> {
        let record = context_by_number(tx.as_read(), context)?.ok_or(ChangeError::NoContext(context))?;
        Ok(Commit {
            tx,
            finder: Finder::new(&record),
            context: record,
            batch,
            ordinal: 0,
            log: Appender::new(),
            touched: Vec::new(),
            deferred: Deferred::default(),
        })
    }

    pub fn apply(&mut self, change: &Change) -> Result<(), ChangeError> {
        self.apply_at(0, change)
    }

    /// `line`: where the change stands, for the error.
    pub fn apply_at(&mut self, line: u64, change: &Change) -> Result<(), ChangeError> {
        let refused = |dn: &Dn, line, stop| match stop {
            Stop::Refused(reason) => ChangeError::Refused { dn: dn.clone(), line, reason },
            Stop::Store(error) => ChangeError::Store(error),
        };
        let put = self.apply_one(line, change).map_err(|stop| refused(change.dn(), line, stop))?;
        let mut arrived: Vec<Dn> = if put { vec![change.dn().clone()] } else { Vec::new() };
        while let (Some(dn), false) = (arrived.pop(), self.deferred.by_parent.is_empty()) {
            for (line, change) in self.deferred.by_parent.remove(&dn.normalized()).unwrap_or_default() {
                self.deferred.bytes -= change.weight();
                self.apply_one(line, &change).map_err(|stop| refused(change.dn(), line, stop))?;
                arrived.push(change.dn().clone());
            }
        }
        Ok(())
    }

    /// None: nothing changed, and no USN was used.
    pub fn finish(mut self) -> Result<Option<Committed>, ChangeError> {
        if let Some((line, change)) =
            self.deferred.by_parent.into_values().flatten().min_by_key(|(line, _)| *line)
        {
            let dn = change.dn().clone();
            let reason = Refusal::NoParent(dn.parent().unwrap_or_else(|| dn.clone()));
            return Err(ChangeError::Refused { dn, line, reason });
        }
        let number = self.context.number;
        let reached = digest::update(self.tx, number, self.touched)?;
        if (reached.entries, reached.digest) == (self.context.entries, self.context.digest) {
            return Ok(None);
        }
        self.context.position.usn += 1;
        self.context.entries = reached.entries;
        self.context.digest = reached.digest;
        self.log.finish(self.tx, number, self.context.position.usn, reached)?;
        put_context(self.tx, &self.context)?;
        Ok(Some(Committed {
            position: self.context.position,
            digest: reached.digest,
            entries: reached.entries,
        }))
    }

    /// Whether an entry came that others may wait for.
    fn apply_one(&mut self, line: u64, change: &Change) -> Result<bool, Stop> {
        match change {
            Change::Put { dn, uuid, attributes } | Change::Add { dn, uuid, attributes } => {
                if attributes.is_empty() {
                    return Err(Refusal::Empty.into());
                }
                if attributes.attribute(ENTRY_UUID).is_some() || uuid.is_some_and(|uuid| uuid.is_nil()) {
                    return Err(Refusal::EntryUuid.into());
                }
                let Some(parent) = self.parent_for(dn)? else {
                    self.defer(line, change)?;
                    return Ok(false);
                };
                let add = matches!(change, Change::Add { .. });
                self.put(parent, dn.rdn(), *uuid, attributes, add)?;
                return Ok(true);
            }
            Change::Modify { dn, modifications } => self.modify(dn, modifications)?,
            Change::Rename { dn, new_rdn, delete_old_rdn, new_superior } => {
                self.rename(dn, new_rdn, *delete_old_rdn, new_superior.as_ref())?;
            }
            Change::Delete { dn } => self.delete(dn)?,
        }
        Ok(false)
    }

    /// The entry that `dn` hangs on, nil for the topmost; None if it may come later. A naming context
    /// without its own entry gets one.
    fn parent_for(&mut self, dn: &Dn) -> Result<Option<Uuid>, Stop> {
        if !dn.is_under(&self.context.dn) {
            return Err(Refusal::OutsideContext(self.context.dn.clone()).into());
        }
        let found = self.finder.find_parent(self.tx.as_read(), dn)?;
        let root = self.context.dn.rdn().clone();
        if found.is_some() || self.finder.step(self.tx.as_read(), Uuid::nil(), &root)?.is_some() {
            return Ok(found);
        }
        self.put(Uuid::nil(), &root, None, &attributes_of_root(&root)?, true)?;
        Ok(self.finder.find_parent(self.tx.as_read(), dn)?)
    }

    fn defer(&mut self, line: u64, change: &Change) -> Result<(), Stop> {
        self.deferred.bytes += change.weight();
        if self.deferred.bytes > DEFERRED_BYTES_MAX {
            return Err(Refusal::TooManyDeferred.into());
        }
        let parent = change.dn().parent().map(|parent| parent.normalized()).unwrap_or_default();
        self.deferred.by_parent.entry(parent).or_default().push((line, change.clone()));
        Ok(())
    }

    fn put(
        &mut self,
        parent: Uuid,
        rdn: &Rdn,
        uuid: Option<Uuid>,
        attributes: &Attributes,
        add: bool,
    ) -> Result<(), Stop> {
        let there = self.finder.step(self.tx.as_read(), parent, rdn)?;
        let elsewhere = match uuid {
            Some(uuid) if there != Some(uuid) => lookup::entry(self.tx.as_read(), self.context.number, uuid)?,
            _ => None,
        };
        match (there, elsewhere) {
            (Some(_), _) if add => Err(Refusal::AlreadyExists.into()),
            (_, Some(_)) if add => Err(Refusal::UuidTaken.into()),
            (Some(there), None) if uuid.is_none_or(|uuid| uuid == there) => {
                let new = Entry { uuid: there, parent, rdn: rdn.clone(), attributes: attributes.clone() };
                match self.entry(there) {
                    Ok(old) => self.replace(old, new),
                    Err(StoreError::Damaged(_)) => self.renew(&new),
                    Err(error) => Err(error.into()),
                }
            }
            (Some(_), _) => Err(Refusal::UuidDiffers.into()),
            (None, Some(old)) => {
                let moved = self.moved(&old, parent, rdn.clone())?;
                self.replace(old, Entry { attributes: attributes.clone(), ..moved })
            }
            (None, None) => self.create(parent, rdn, uuid, attributes),
        }
    }

    fn create(
        &mut self,
        parent: Uuid,
        rdn: &Rdn,
        uuid: Option<Uuid>,
        attributes: &Attributes,
    ) -> Result<(), Stop> {
        let uuid = uuid.unwrap_or_else(|| {
            let next = uuid_in_batch(self.batch, self.ordinal);
            self.ordinal += 1;
            next
        });
        self.write(uuid, entry::encode(uuid, parent, rdn, attributes))?;
        let key = name_key(self.context.number, parent, &rdn.normalized());
        self.tx.put(Table::Name, &key, uuid.as_bytes())?;
        self.log.touch(&Touched::Added(uuid));
        Ok(())
    }

    fn modify(&mut self, dn: &Dn, modifications: &[Modification]) -> Result<(), Stop> {
        let old = self.entry_at(dn)?;
        let mut new = old.clone();
        for modification in modifications {
            modify(&mut new.attributes, modification)?;
        }
        if new.attributes.is_empty() {
            return Err(Refusal::Empty.into());
        }
        for (name, value) in old.rdn.pairs() {
            if old.attributes.values(name).contains(&value) && !new.attributes.values(name).contains(&value) {
                return Err(Refusal::NamesEntry(name.to_owned()).into());
            }
        }
        self.replace(old, new)
    }

    fn rename(
        &mut self,
        dn: &Dn,
        new_rdn: &Rdn,
        delete_old_rdn: bool,
        new_superior: Option<&Dn>,
    ) -> Result<(), Stop> {
        let old = self.entry_at(dn)?;
        let parent = match new_superior {
            None => old.parent,
            Some(above) if !above.is_under(&self.context.dn) => {
                return Err(Refusal::OutsideContext(self.context.dn.clone()).into());
            }
            Some(above) => self
                .finder
                .find(self.tx.as_read(), above)?
                .ok_or_else(|| Stop::from(Refusal::NoParent(above.clone())))?,
        };
        let mut new = self.moved(&old, parent, new_rdn.clone())?;
        for (name, value) in new_rdn.pairs() {
            if !new.attributes.values(name).contains(&value) {
                new.attributes.append(name, vec![value]).map_err(Refusal::from)?;
            }
        }
        if delete_old_rdn {
            let named = new_rdn.pairs();
            for (name, value) in old.rdn.pairs() {
                if !named.iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && *v == value) {
                    new.attributes.remove_values(name, &[value]);
                }
            }
        }
        self.replace(old, new)
    }

    fn delete(&mut self, dn: &Dn) -> Result<(), Stop> {
        let old = self.entry_at(dn)?;
        let number = self.context.number;
        if lookup::has_children(self.tx.as_read(), number, old.uuid)? {
            return Err(Refusal::NotLeaf.into());
        }
        self.tx.delete(Table::Entry, &entry_key(number, old.uuid))?;
        self.tx.delete(Table::Name, &name_key(number, old.parent, &old.rdn.normalized()))?;
        self.touched.push((old.uuid, None));
        self.log.touch(&Touched::Left(old.uuid, old.parent, old.rdn.normalized()));
        self.log.touch(&Touched::Deleted(old.uuid));
        self.finder.forget();
        Ok(())
    }

    /// `old` under another name, if it may go there.
    fn moved(&mut self, old: &Entry, parent: Uuid, rdn: Rdn) -> Result<Entry, Stop> {
        if old.parent.is_nil() && (!parent.is_nil() || !rdn.matches(&old.rdn)) {
            return Err(Refusal::Topmost.into());
        }
        if self.finder.step(self.tx.as_read(), parent, &rdn)?.is_some_and(|there| there != old.uuid) {
            return Err(Refusal::AlreadyExists.into());
        }
        if parent != old.parent {
            self.check_new_place(old, parent)?;
        }
        Ok(Entry { parent, rdn, ..old.clone() })
    }

    /// Not beneath itself, and not too deep with what hangs on it.
    fn check_new_place(&mut self, old: &Entry, parent: Uuid) -> Result<(), Stop> {
        let mut depth = self.context.dn.rdns().len();
        let mut at = parent;
        while !at.is_nil() {
            if at == old.uuid {
                return Err(Refusal::Circle.into());
            }
            at = self.entry(at)?.parent;
            depth += 1;
        }
        let height = lookup::height(self.tx.as_read(), self.context.number, old.uuid, DN_DEPTH_MAX)?;
        if depth + height > DN_DEPTH_MAX { Err(Refusal::TooDeep.into()) } else { Ok(()) }
    }

    /// Writes `new` over `old`, which has the same entryUUID.
    fn replace(&mut self, old: Entry, mut new: Entry) -> Result<(), Stop> {
        keep_order(&old.attributes, &mut new.attributes);
        if old == new {
            return Ok(());
        }
        if (old.parent, &old.rdn) != (new.parent, &new.rdn) {
            let number = self.context.number;
            self.tx.delete(Table::Name, &name_key(number, old.parent, &old.rdn.normalized()))?;
            let key = name_key(number, new.parent, &new.rdn.normalized());
            self.tx.put(Table::Name, &key, new.uuid.as_bytes())?;
            self.log.touch(&Touched::Left(old.uuid, old.parent, old.rdn.normalized()));
            self.log.touch(&Touched::Named(new.uuid));
            self.finder.forget();
        }
        let log = &mut self.log;
        difference(new.uuid, &old.attributes, &new.attributes, &mut |touched| log.touch(&touched));
        self.write(new.uuid, new.encode())
    }

    /// What was there cannot be read, so nobody knows what of it changes: it is made anew everywhere.
    fn renew(&mut self, entry: &Entry) -> Result<(), Stop> {
        self.log.touch(&Touched::Deleted(entry.uuid));
        self.log.touch(&Touched::Added(entry.uuid));
        self.write(entry.uuid, entry.encode())
    }

    fn write(&mut self, uuid: Uuid, octets: Vec<u8>) -> Result<(), Stop> {
        if octets.len() > ENTRY_BYTES_MAX {
            return Err(Refusal::TooLarge.into());
        }
        self.touched.push((uuid, Some(entry::hash_of(&octets))));
        Ok(self.tx.put(Table::Entry, &entry_key(self.context.number, uuid), &octets)?)
    }

    fn entry_at(&mut self, dn: &Dn) -> Result<Entry, Stop> {
        if !dn.is_under(&self.context.dn) {
            return Err(Refusal::OutsideContext(self.context.dn.clone()).into());
        }
        match self.finder.find(self.tx.as_read(), dn)? {
            Some(uuid) => Ok(self.entry(uuid)?),
            None => Err(Refusal::NoSuchObject.into()),
        }
    }

    /// An entry that the name index knows.
    fn entry(&self, uuid: Uuid) -> Result<Entry, StoreError> {
        lookup::entry(self.tx.as_read(), self.context.number, uuid)?.ok_or_else(|| {
            StoreError::Damaged(format!("the name index knows an entry {uuid} that is not there"))
        })
    }
}

const ENTRY_UUID: &str = "entryUUID";

fn modify(attributes: &mut Attributes, modification: &Modification) -> Result<(), Refusal> {
    let Modification { operation, attribute: name, values } = modification;
    if name.eq_ignore_ascii_case(ENTRY_UUID) {
        return Err(Refusal::EntryUuid);
    }
    match operation {
        Operation::Add => attributes.append(name, values.clone())?,
        Operation::Delete if values.is_empty() => {
            attributes.remove(name).ok_or_else(|| Refusal::NoSuchAttribute(name.clone()))?;
        }
        Operation::Delete => {
            if attributes.attribute(name).is_none() {
                return Err(Refusal::NoSuchAttribute(name.clone()));
            }
            // Checks the values themselves too: no duplicates.
            let gone = Attribute::new(name, values.clone())?;
            if attributes.remove_values(name, gone.values()) != values.len() {
                return Err(Refusal::NoSuchValue(name.clone()));
            }
        }
        Operation::Replace if values.is_empty() => {
            attributes.remove(name);
        }
        Operation::Replace => {
            let name = attributes.attribute(name).map_or(name.as_str(), Attribute::name);
            let attribute = Attribute::new(name, values.clone())?;
            attributes.set(attribute)?;
        }
    }
    Ok(())
}

/// What the topmost entry gets if nobody wrote it: the values of its RDN and an object class that goes with it.
fn attributes_of_root(rdn: &Rdn) -> Result<Attributes, Refusal> {
    let pairs = rdn.pairs();
    let class = match pairs.first().map(|(name, _)| name.to_ascii_lowercase()).as_deref() {
        Some("ou") => "organizationalUnit",
        Some("o") => "organization",
        Some("dc") => "domain",
        Some("l" | "st") => "locality",
        Some("c") => "country",
        _ => "extensibleObject",
    };
    let class = [("objectClass", class.as_bytes().to_vec())];
    Ok(Attributes::from_pairs(class.into_iter().chain(pairs))?)
}
/// The same state at the next USN, for it to be signed anew.
pub fn restate(tx: &mut dyn Write, number: u32) -> Result<(), StoreError> {
    let Some(mut context) = context_by_number(tx.as_read(), number)? else { return Ok(()) };
    context.position.usn += 1;
    let reached = Summary { entries: context.entries, digest: context.digest };
    Appender::new().finish(tx, number, context.position.usn, reached)?;
    put_context(tx, &context)
}
