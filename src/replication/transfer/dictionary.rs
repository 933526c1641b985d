//! The dictionary of a delta: octets that both ends make of the same proved base, so that a small body need not repeat
//! what any entry says.
//!
//! The sender names a run of entries of the base that the transfer does not touch, by the rank of the first and their
//! number. Entries stand in the order of their entryUUIDs, so a run is as good as a sample.
//!
//! FORMAT
//!   The attributes of the entries in the run, each name once, in canonical order, as in the table of a chunk of contents
//!   (operation 0, name as a stream); then, for each attribute in that order, the first value of each entry that has
//!   it, in order of rank, each text once. A value is written as the pattern without pieces that a column would have;
//!   one of more than [`VALUE_BYTES_MAX`] octets is left out, and so is what would make the dictionary longer than
//!   [`DICTIONARY_BYTES_MAX`] octets, all of it from there on.
//!
//! LIMITS
//!   [`RUN_ENTRIES_MAX`] entries are read. The dictionary is raw content (RFC 8878 section 5) and adds
//!   nothing to what a frame may expand to.

use std::collections::{BTreeMap, HashSet};

use minicbor::{Decode, Encode};
use uuid::Uuid;

use super::names::Ranks;
use super::stream::put_stream;
use super::values::{is_plain, take_digits};
use crate::directory::{ContextRecord, Read, StoreError, lookup};

/// Entries of the base, by rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Run {
    #[n(0)]
    pub first: u64,
    #[n(1)]
    pub entries: u64,
}

/// Entries of a run.
pub const RUN_ENTRIES_MAX: u64 = 32;

pub const DICTIONARY_BYTES_MAX: usize = 32 << 10;

const VALUE_BYTES_MAX: usize = 128;

/// What a run costs in a manifest at most, beside the octet that says that there is none.
pub const RUN_BYTES_MAX: usize = 12;

/// The dictionary that a run makes on a replica at the base; `None` if the base has no such entries.
pub fn of_run(read: &dyn Read, context: &ContextRecord, run: Run) -> Result<Option<Vec<u8>>, StoreError> {
    let end = run.first.checked_add(run.entries).filter(|end| *end <= context.entries);
    if end.is_none() || run.entries == 0 || run.entries > RUN_ENTRIES_MAX {
        return Ok(None);
    }
    let mut uuids = Vec::new();
    for rank in run.first..run.first + run.entries {
        let Some(uuid) = lookup::by_rank(read, context.number, rank)? else { return Ok(None) };
        uuids.push(uuid);
    }
    of_entries(read, context, &uuids).map(Some)
}

/// The longest run that the sender finds in a few places, and its dictionary. `touched`: by entryUUID, what the transfer
/// adds, changes or deletes, for of that the base is not known any more.
pub fn choose(
    read: &dyn Read,
    context: &ContextRecord,
    ranks: &Ranks,
    touched: &HashSet<Uuid>,
) -> Result<Option<(Run, Vec<u8>)>, StoreError> {
    let mut best: Option<(u64, Vec<Uuid>)> = None;
    for place in 0..PLACES {
        let start = context.entries / PLACES * place;
        let mut uuids = Vec::new();
        let mut first = 0;
        for present in start..context.entries.min(start + RUN_ENTRIES_MAX) {
            let Some(uuid) = lookup::by_rank(read, context.number, present)? else { break };
            if touched.contains(&uuid) {
                break;
            }
            let rank = ranks.of(read, context.number, uuid)?;
            // Something was deleted in between.
            if !uuids.is_empty() && rank != first + uuids.len() as u64 {
                break;
            }
            if uuids.is_empty() {
                first = rank;
            }
            uuids.push(uuid);
        }
        if best.as_ref().is_none_or(|(_, others)| others.len() < uuids.len()) {
            best = Some((first, uuids));
        }
        if best.as_ref().is_some_and(|(_, uuids)| uuids.len() as u64 == RUN_ENTRIES_MAX) {
            break;
        }
    }
    let Some((first, uuids)) = best.filter(|(_, uuids)| !uuids.is_empty()) else { return Ok(None) };
    let dictionary = of_entries(read, context, &uuids)?;
    Ok(Some((Run { first, entries: uuids.len() as u64 }, dictionary)))
}

/// Where a run is looked for, spread evenly.
const PLACES: u64 = 8;

/// The dictionary of these entries, which ascend.
fn of_entries(read: &dyn Read, context: &ContextRecord, uuids: &[Uuid]) -> Result<Vec<u8>, StoreError> {
    // By canonical name, then by spelling.
    let mut attributes: BTreeMap<(String, String), Vec<Vec<u8>>> = BTreeMap::new();
    for uuid in uuids {
        let Some(entry) = lookup::entry(read, context.number, *uuid)? else {
            return Err(StoreError::Damaged(format!("entry {uuid} is in the digest tree, but not there")));
        };
        for attribute in entry.attributes {
            let name = (attribute.name().to_ascii_lowercase(), attribute.name().to_owned());
            let first = attribute.into_values().into_iter().next();
            let short = first.filter(|value| value.len() <= VALUE_BYTES_MAX).map(as_pattern);
            attributes.entry(name).or_default().extend(short);
        }
    }
    let mut dictionary = Vec::new();
    let mut piece = Vec::new();
    for (_, name) in attributes.keys() {
        piece.push(0);
        put_stream(&mut piece, name.as_bytes());
        if !push(&mut dictionary, &mut piece) {
            return Ok(dictionary);
        }
    }
    for values in attributes.into_values() {
        let mut seen = HashSet::new();
        for mut value in values {
            if seen.insert(value.clone()) && !push(&mut dictionary, &mut value) {
                return Ok(dictionary);
            }
        }
    }
    Ok(dictionary)
}

/// Moves a piece to the end of the dictionary, if there is room.
fn push(dictionary: &mut Vec<u8>, piece: &mut Vec<u8>) -> bool {
    let fits = dictionary.len() + piece.len() <= DICTIONARY_BYTES_MAX;
    if fits {
        dictionary.append(piece);
    }
    fits
}

fn as_pattern(mut value: Vec<u8>) -> Vec<u8> {
    if is_plain(&value) {
        take_digits(&mut value, &mut |_, _| ());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::super::histories::{company, new_store};
    use super::*;
    use crate::directory::histories::record;

    #[test]
    fn a_run_says_names_then_values_each_once() {
        let store = company(200);
        let context = record(&store);
        let run = Run { first: 3, entries: 20 };
        let dictionary = of_run(&store, &context, run).unwrap().unwrap();
        // All have five digits in the one, and one or two in the other.
        let (one, other) = (
            *b"\0\x02cn\0\x0aroomNumberPerson \x14B\x10B\x11",
            *b"\0\x02cn\0\x0aroomNumberPerson \x14B\x11B\x10",
        );
        assert!(dictionary == one || dictionary == other, "{}", dictionary.escape_ascii());
    }

    #[test]
    fn a_run_is_bounded_and_within_the_base() {
        let store = company(200);
        let context = record(&store);
        for (first, entries) in [
            (0, 0),
            (0, RUN_ENTRIES_MAX + 1),
            (context.entries, 1),
            (context.entries - 1, 2),
            (u64::MAX, 2),
            (2, u64::MAX),
        ] {
            assert_eq!(of_run(&store, &context, Run { first, entries }).unwrap(), None, "{first} {entries}");
        }
        let empty = new_store();
        assert_eq!(of_run(&empty, &record(&empty), Run { first: 0, entries: 1 }).unwrap(), None);
        let widest = Run { first: u64::MAX, entries: RUN_ENTRIES_MAX };
        assert!(minicbor::to_vec(widest).unwrap().len() <= RUN_BYTES_MAX);
    }
}
