//! Two states of one naming context that parted at a point of ours become one: what a restored master takes back.
//!
//! PROMISES
//!   What was not touched here since the parting becomes what it is there: entry by entry, attribute by attribute, and
//!   value by value where the log knows values. What was touched here stays as it is here; where that
//!   differs from what is there, a [`Conflict`] says so. Whatever both hold, the result is sound: conflicts do not end a merge,
//!   and their number costs nothing. No more entries go away than the caller allows: of more none does.
//!   An entry whose object class was changed here, and differs there, stays whole: half of each might fit neither class.
//! LIMITS
//!   The names of both states are held in memory. The log does not know what was there before, so an attribute that was
//!   changed here alone differs just as one that both changed; of a name it knows. Where it does not reach back to the
//!   parting, what is there and not here comes, though it may have been deleted here; a conflict says so.
//! FAILURE
//!   As of a replay: the caller takes the transaction back.

mod contents;
mod places;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use uuid::Uuid;

use super::context::ContextRecord;
use super::dn::Rdn;
use super::log::{self, EntryTouch, Touched, TouchedSet};
use super::lookup;
use super::replica::{Replay, ReplayError};
use super::store::{Read, StoreError, Write};
use crate::limits::ENTRY_BYTES_MAX;
use contents::Touch;
use places::{Place, Plan};

/// Up to where two states have the same history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parting {
    /// Of ours.
    pub usn: u64,
    /// Those of ours since then at which an earlier merge took something back.
    pub merges: BTreeSet<u64>,
    /// Those of them at which it took back what they passed, too: what that brought was not done here, and they know more.
    pub passed: BTreeSet<u64>,
}

/// An entry of which something was not taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub uuid: Uuid,
    pub kept: Vec<Kept>,
}

/// What stays as it is here, or may not be what was meant, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    Attributes(Vec<String>),
    Name,
    /// It is not here any more.
    Deleted,
    /// It is here, and not there any more.
    Undeleted,
    /// An earlier merge took it back, and it is not there: deleted, or never known to this partner.
    Brought,
    /// It is not there, and the log does not reach back to where the histories parted.
    NotThere,
    /// It came, and the log does not reach back to where the histories parted.
    NotHere,
    /// It is not there any more, nor are more others than may go away at once.
    TooMany,
    NameTaken,
    NoParent,
    NotLeaf,
    /// It would hang beneath itself, or too deep.
    Astray,
    TooLarge,
    /// Here one of its attributes went away, there the others.
    Empty,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, kept) in self.kept.iter().enumerate() {
            write!(f, "{}{kept}", if n > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kept::Attributes(names) => {
                write!(f, "changed here: {}", names[..names.len().min(NAMES_TOLD_MAX)].join(", "))?;
                match names.len().saturating_sub(NAMES_TOLD_MAX) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Kept::Name => f.write_str("renamed here, and there"),
            Kept::Deleted => f.write_str("deleted here"),
            Kept::Undeleted => f.write_str("changed here, deleted there"),
            Kept::Brought => f.write_str("taken back earlier, not there now"),
            Kept::NotThere => f.write_str("new here, or deleted there"),
            Kept::NotHere => f.write_str("new there, or deleted here: it came"),
            Kept::TooMany => f.write_str("deleted there, with more others than may go at once"),
            Kept::NameTaken => f.write_str("another entry has its name here"),
            Kept::NoParent => f.write_str("what it belongs beneath is not here"),
            Kept::NotLeaf => f.write_str("deleted there, but there are entries beneath it here"),
            Kept::Astray => f.write_str("it would hang beneath itself, or too deep"),
            Kept::Empty => f.write_str("nothing would be left in it"),
            Kept::TooLarge => write!(f, "more than {ENTRY_BYTES_MAX} octets with what was added here"),
        }
    }
}

/// A line of the log takes so many names of attributes.
const NAMES_TOLD_MAX: usize = 10;

/// Takes into `ours` what `theirs` holds. `parted`: None if that is not known, and then everything that is here stays.
/// If more than `deletions_max` entries would go away, all of them stay.
///
/// # Errors
/// The store's; others would be our own fault.
pub fn merge(
    tx: &mut dyn Write,
    ours: &ContextRecord,
    theirs: &ContextRecord,
    parted: Option<&Parting>,
    deletions_max: u64,
) -> Result<Vec<Conflict>, ReplayError> {
    let read = tx.as_read();
    let since = parted.map(|parted| Since::read(read, ours.number, parted)).transpose()?.flatten();
    let (here, _) = places(read, ours.number)?;
    let (there, order) = places(read, theirs.number)?;
    let mut kept = Conflicts::default();
    let plan = planned(ours, here, there, since.as_ref(), deletions_max, &mut kept);

    let mut replay = Replay::begin(tx, ours);
    for uuid in order {
        let Some(place) = plan.place(uuid) else { continue };
        let read = replay.tx().as_read();
        let (held, octets) =
            (lookup::octets(read, ours.number, uuid)?, lookup::octets(read, theirs.number, uuid)?);
        if held == octets {
            continue;
        }
        let Some(mut other) = lookup::entry(read, theirs.number, uuid)? else { continue };
        other.parent = place.parent;
        let Some(own) = lookup::entry(read, ours.number, uuid)? else {
            replay.add(&other)?;
            continue;
        };
        let touch = since.as_ref().map_or(Touch::Whole, |since| since.touch(uuid));
        let merged = contents::merged(&own, other, &touch, place.is_theirs);
        merged.kept.into_iter().for_each(|why| kept.note(uuid, why));
        if merged.entry != own {
            replay.replace(&merged.entry)?;
        }
    }
    plan.leaving().try_for_each(|uuid| replay.delete(uuid))?;
    replay.commit()?;
    Ok(kept.by_entry.into_iter().map(|(uuid, kept)| Conflict { uuid, kept }).collect())
}

/// What was touched here since the histories parted.
struct Since {
    touched: TouchedSet,
    /// Where an entry was before it got its first other name: its parent and normalized RDN.
    left: BTreeMap<Uuid, (Uuid, Vec<u8>)>,
    /// Also what only came after the parting: what an earlier merge brought and was deleted is not to come back.
    deleted: BTreeSet<Uuid>,
    /// Attributes of which a value was touched more than once: whether it was there at the parting is not known.
    again: BTreeMap<Uuid, BTreeSet<String>>,
    /// What came with earlier merges.
    brought: BTreeSet<Uuid>,
}

impl Since {
    fn read(read: &dyn Read, number: u32, parted: &Parting) -> Result<Option<Since>, StoreError> {
        let touched = log::touched_since_but(read, number, parted.usn, &parted.passed)?;
        let Some(touched) = touched else { return Ok(None) };
        let mut since = Since {
            touched,
            left: BTreeMap::new(),
            deleted: BTreeSet::new(),
            again: BTreeMap::new(),
            brought: BTreeSet::new(),
        };
        let mut values = HashSet::new();
        log::touched_back(read, number, &mut |at, touched| {
            match touched {
                _ if at <= parted.usn => return false,
                _ if parted.passed.contains(&at) => {}
                Touched::Added(uuid) if parted.merges.contains(&at) => drop(since.brought.insert(*uuid)),
                Touched::Deleted(uuid) => drop(since.deleted.insert(*uuid)),
                Touched::Left(uuid, parent, rdn) => drop(since.left.insert(*uuid, (*parent, rdn.clone()))),
                Touched::Value(uuid, name, _) if !values.insert(touched.clone()) => {
                    since.again.entry(*uuid).or_default().insert(name.to_ascii_lowercase());
                }
                _ => {}
            }
            true
        })?;
        Ok(Some(since))
    }

    fn touch(&self, uuid: Uuid) -> Touch<'_> {
        match self.touched.entries.get(&uuid) {
            None => Touch::Nothing,
            Some(EntryTouch::Changed(touches)) => Touch::Parts(touches, self.again.get(&uuid)),
            Some(_) => Touch::Whole,
        }
    }
}

#[derive(Default)]
struct Conflicts {
    by_entry: BTreeMap<Uuid, Vec<Kept>>,
}

impl Conflicts {
    fn note(&mut self, uuid: Uuid, why: Kept) {
        let known = self.by_entry.entry(uuid).or_default();
        if !known.contains(&why) {
            known.push(why);
        }
    }
}

/// Which entries there are afterwards, and where.
fn planned(
    ours: &ContextRecord,
    here: BTreeMap<Uuid, Place>,
    there: BTreeMap<Uuid, Place>,
    since: Option<&Since>,
    deletions_max: u64,
    kept: &mut Conflicts,
) -> Plan {
    let mut plan = Plan::new(here, there, ours.dn.rdns().len() - 1);
    for (uuid, other) in plan.there.clone() {
        let own = plan.here.get(&uuid);
        let touch = since.and_then(|since| since.touched.entries.get(&uuid));
        match (own, since) {
            (None, Some(since)) if since.deleted.contains(&uuid) => plan.stays_deleted(uuid),
            (None, _) => {
                plan.comes(uuid);
                if since.is_none() {
                    kept.note(uuid, Kept::NotHere);
                }
            }
            (Some(own), _) if *own == other => {}
            (Some(_), None) => kept.note(uuid, Kept::Name),
            (Some(_), Some(since)) => match touch {
                None => plan.moves(uuid),
                Some(EntryTouch::Changed(touches)) if !touches.named => plan.moves(uuid),
                Some(EntryTouch::Changed(_)) if since.left.get(&uuid).is_some_and(|left| other.is(left)) => {}
                Some(_) => kept.note(uuid, Kept::Name),
            },
        }
    }
    let mut leaving = Vec::new();
    for uuid in plan.here.keys().copied().collect::<Vec<_>>() {
        if plan.there.contains_key(&uuid) {
            continue;
        }
        let Some(since) = since else {
            kept.note(uuid, Kept::NotThere);
            continue;
        };
        match since.touched.entries.get(&uuid) {
            None => leaving.push(uuid),
            Some(EntryTouch::Added) if since.brought.contains(&uuid) => kept.note(uuid, Kept::Brought),
            Some(EntryTouch::Added) => {}
            Some(_) => kept.note(uuid, Kept::Undeleted),
        }
    }
    // Whoever put this store back to an earlier day may have done so for the sake of these.
    let too_many = leaving.len() as u64 > deletions_max;
    for uuid in leaving {
        if too_many {
            kept.note(uuid, Kept::TooMany);
        } else {
            plan.leaves(uuid);
        }
    }
    plan.settle(&mut |uuid, why| kept.note(uuid, why));
    plan
}

/// Where all entries hang, and which there are in the order of the store.
fn places(read: &dyn Read, number: u32) -> Result<(BTreeMap<Uuid, Place>, Vec<Uuid>), StoreError> {
    let (mut found, mut order, mut failure) = (BTreeMap::new(), Vec::new(), None);
    lookup::scan_names(read, number, &mut |uuid, parent, rdn| match Rdn::parse(rdn) {
        Ok(parsed) => {
            order.push(uuid);
            found.insert(uuid, Place::new(parent, rdn, parsed.normalized()));
            true
        }
        Err(error) => {
            failure = Some(StoreError::Damaged(format!("the name of an entry: {error}")));
            false
        }
    })?;
    failure.map_or(Ok((found, order)), Err)
}
