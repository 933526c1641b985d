//! Writes transfers: what a replica lacks, as the master or a hub has it now.
//!
//! PROMISES
//!   A delta carries the present state of what was touched since the base, at the grain that the log
//!   keeps: whole entries that are new, whole attributes, single values of large attributes. It leads exactly
//!   from the base to the checkpoint. Memory is what the names of the new entries take, and one chunk.
//!
//! FAILURE
//!   `Ok(None)`: the base is unknown, or the log was trimmed past it; a full load is due. An error is the fault of
//!   this machine, or of an entry that no transfer can carry.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use thiserror::Error;
use uuid::Uuid;

use super::beside::{MANY_RECORDS, WriterBeside, source_of};
use super::body::BodyWriter;
use super::chunk::{
    CHUNK_BYTES_AIM, CHUNK_ITEMS_MAX, CHUNK_RECORDS_MAX, CHUNK_VALUES_MAX, Chunk, Item, Name, Operation,
    Record,
};
use super::dictionary::{self, Run};
use super::manifest::{Base, Manifest};
use super::names::{NamesByText, NewNames, Ranks, Texts};
use super::values::Value;
use crate::directory::attributes::Attribute;
use crate::directory::digest::Summary;
use crate::directory::log::{self, AttributeTouch, EntryTouch, Touches};
use crate::directory::lookup::{self, Finder};
use crate::directory::{ContextRecord, Dn, Entry, Lineage, Position, Read, StoreError};
use crate::replication::checkpoint::{CheckpointError, SignedCheckpoint};

/// A transfer as written.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub manifest: Manifest,
    pub body: Vec<u8>,
}

#[derive(Debug, Error)]
pub enum EncodeError {
    /// Our fault: the caller signs what is there.
    #[error("the checkpoint is not of the naming context's present state")]
    OtherCheckpoint,
    /// This site's operator must divide the entry.
    #[error("entry {0} has more than {CHUNK_VALUES_MAX} values")]
    TooManyValues(Uuid),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes what leads from `base` (or from nothing) to the present state, which `checkpoint` vouches for.
pub fn encode(
    read: &dyn Read,
    context: &ContextRecord,
    base: Option<Position>,
    checkpoint: &SignedCheckpoint,
) -> Result<Option<Encoded>, EncodeError> {
    check(context, checkpoint)?;
    let Some(base) = base else { return full(read, context, checkpoint).map(Some) };
    let Some((summary, plan)) = Plan::since(read, context, &base)? else { return Ok(None) };
    let base = Base::At(base, summary.digest);
    let Some(ranks) = plan.ranks(read, context, summary)? else { return Ok(None) };
    let dictionary = match plan.touched_few().map(|few| dictionary::choose(read, context, &ranks, &few)) {
        // What it would be made of cannot be read: the body is longer without, and as right.
        None | Some(Err(StoreError::Damaged(_))) => None,
        Some(chosen) => chosen?,
    };
    let mut encoder = Encoder::new(read, context, Known::Ranks(ranks));
    encoder.dictionary = dictionary;
    encoder.write(plan, base, checkpoint).map(Some)
}

/// Writes what makes these entries on a replica what they are here: `theirs` are those that the replica
/// has, `ours` those that are here, of all those that differ.
pub fn encode_repair(
    read: &dyn Read,
    context: &ContextRecord,
    theirs: &[Uuid],
    ours: &[Uuid],
    checkpoint: &SignedCheckpoint,
) -> Result<Encoded, EncodeError> {
    check(context, checkpoint)?;
    let plan = Plan { added: ours.to_vec(), deleted: theirs.to_vec(), changed: Vec::new() };
    let mut bases: Vec<Uuid> = theirs.to_vec();
    for uuid in ours {
        if let Some(entry) = lookup::entry(read, context.number, *uuid)? {
            bases.push(entry.parent);
        }
    }
    bases.sort_unstable();
    bases.dedup();
    bases.retain(|uuid| !uuid.is_nil());
    let mut encoder = Encoder::new(read, context, Known::Bases(bases.clone()));
    for uuids in bases.chunks(CHUNK_RECORDS_MAX) {
        encoder.body.chunk(Chunk::Bases(uuids.to_vec()), &|_| Vec::new())?;
    }
    encoder.write(plan, Base::Repair, checkpoint)
}

fn full(
    read: &dyn Read,
    context: &ContextRecord,
    checkpoint: &SignedCheckpoint,
) -> Result<Encoded, EncodeError> {
    Encoder::new(read, context, Known::Nothing).write_full(checkpoint)
}

fn check(context: &ContextRecord, checkpoint: &SignedCheckpoint) -> Result<(), EncodeError> {
    let claimed = checkpoint.claimed()?;
    let same = claimed.position == context.position
        && claimed.digest == context.digest
        && claimed.entries == context.entries
        && claimed.context.matches(&context.dn);
    same.then_some(()).ok_or(EncodeError::OtherCheckpoint)
}

/// What a transfer will say.
struct Plan {
    /// In the order of batch and ordinal. An entry that was there and is there anew is in both lists.
    added: Vec<Uuid>,
    deleted: Vec<Uuid>,
    changed: Vec<(Uuid, Touches)>,
}

impl Plan {
    fn since(
        read: &dyn Read,
        context: &ContextRecord,
        base: &Position,
    ) -> Result<Option<(Summary, Plan)>, StoreError> {
        if !context.is_on_history(base) {
            return Ok(None);
        }
        let Some(summary) = log::held(read, context.number, base.usn)? else { return Ok(None) };
        let Some(touched) = log::touched_since(read, context.number, base.usn)? else { return Ok(None) };
        let mut plan = Plan { added: Vec::new(), deleted: Vec::new(), changed: Vec::new() };
        for (uuid, touch) in touched.entries {
            if matches!(touch, EntryTouch::Added | EntryTouch::Replaced) {
                plan.added.push(uuid);
            }
            if matches!(touch, EntryTouch::Deleted | EntryTouch::Replaced) {
                plan.deleted.push(uuid);
            }
            if let EntryTouch::Changed(touches) = touch {
                plan.changed.push((uuid, *touches));
            }
        }
        Ok(Some((summary, plan)))
    }

    fn ranks(
        &self,
        read: &dyn Read,
        context: &ContextRecord,
        base: Summary,
    ) -> Result<Option<Ranks>, StoreError> {
        let expected = self.added.len() + self.deleted.len() + self.changed.len();
        Ranks::new(read, context, base.entries, (self.added.clone(), self.deleted.clone()), expected)
    }
}

/// What the replica has, and how it is named.
enum Known {
    Nothing,
    Ranks(Ranks),
    /// In order of the entryUUIDs.
    Bases(Vec<Uuid>),
}

struct Encoder<'r> {
    read: &'r dyn Read,
    context: &'r ContextRecord,
    known: Known,
    new: Arc<NewNames>,
    /// For a full load.
    by_text: Option<NamesByText>,
    texts: Texts,
    finder: Finder,
    body: BodyWriter,
    /// Writes the contents of many entries in place of `body`.
    beside: Option<WriterBeside>,
    gathered: Gathered,
    spellings: HashMap<String, Arc<str>>,
    dictionary: Option<(Run, Vec<u8>)>,
}

/// Records of the chunk in the making.
#[derive(Default)]
struct Gathered {
    records: Vec<Record>,
    items: usize,
    values: usize,
    bytes: usize,
}

impl<'r> Encoder<'r> {
    fn new(read: &'r dyn Read, context: &'r ContextRecord, known: Known) -> Encoder<'r> {
        Encoder {
            read,
            context,
            known,
            new: Arc::default(),
            by_text: None,
            texts: Texts::new(&context.dn),
            finder: Finder::new(context),
            body: BodyWriter::new(),
            beside: None,
            gathered: Gathered::default(),
            spellings: HashMap::new(),
            dictionary: None,
        }
    }

    fn write_full(mut self, checkpoint: &SignedCheckpoint) -> Result<Encoded, EncodeError> {
        let mut parents = Vec::new();
        lookup::scan_names(self.read, self.context.number, &mut |uuid, parent, rdn| {
            Arc::make_mut(&mut self.new).push(uuid, None, rdn);
            parents.push(parent);
            true
        })?;
        let (stored, counted) = (self.new.len() as u64, self.context.entries);
        if stored != counted {
            return Err(StoreError::Damaged(format!("{stored} entries are stored, not {counted}")).into());
        }
        Arc::make_mut(&mut self.new).sort();
        for (index, parent) in parents.into_iter().enumerate() {
            let parent = self.new.index_of(parent);
            Arc::make_mut(&mut self.new).set_parent(index, parent.map(|index| index as u64));
        }
        self.by_text = Some(NamesByText::of(&self.new, &mut self.texts));
        self.added_names()?;
        self.go_beside(self.new.len())?;
        let mut failure = None;
        let mut number = 0;
        lookup::scan_entries(self.read, self.context.number, &mut |entry| {
            let written = self.added_entry(number, entry);
            number += 1;
            failure = written.err();
            failure.is_none()
        })?;
        failure.map_or(Ok(()), Err)?;
        let added = self.new.len() as u64;
        self.finish(Base::Nothing, checkpoint, (added, 0, 0))
    }

    fn write(
        mut self,
        mut plan: Plan,
        base: Base,
        checkpoint: &SignedCheckpoint,
    ) -> Result<Encoded, EncodeError> {
        plan.added.sort_unstable_by_key(|uuid| crate::directory::entry::batch_of(*uuid));
        let renewed = plan.renewed();
        let (added, deleted) = (plan.added.len() as u64, plan.deleted.len() as u64);
        let counts = (added - renewed, plan.changed.len() as u64 + renewed, deleted - renewed);
        self.deleted(&plan.deleted)?;
        let mut entries = Vec::with_capacity(plan.added.len());
        for uuid in &plan.added {
            let entry = self.entry(*uuid)?;
            Arc::make_mut(&mut self.new).push(*uuid, None, entry.rdn.as_str());
            entries.push(entry.parent);
        }
        Arc::make_mut(&mut self.new).sort();
        for (index, parent) in entries.into_iter().enumerate() {
            let parent = self.number_of_parent(parent)?;
            Arc::make_mut(&mut self.new).set_parent(index, parent);
        }
        let mut changed = Vec::with_capacity(plan.changed.len());
        for (uuid, touches) in plan.changed {
            changed.push((self.number_in_base(uuid)?, uuid, touches));
        }
        changed.sort_unstable_by_key(|(number, _, _)| *number);
        self.renamed(&changed)?;
        self.added_names()?;
        self.go_beside(plan.added.len() + changed.len())?;
        for (number, uuid, touches) in changed {
            let entry = self.entry(uuid)?;
            let record = self.changed_record(number, &entry, &touches)?;
            if !record.items.is_empty() {
                self.gather(record, uuid)?;
            }
        }
        for (index, uuid) in plan.added.iter().enumerate() {
            let entry = self.entry(*uuid)?;
            self.added_entry(index, entry)?;
        }
        self.finish(base, checkpoint, counts)
    }

    fn finish(
        mut self,
        base: Base,
        checkpoint: &SignedCheckpoint,
        (added, changed, deleted): (u64, u64, u64),
    ) -> Result<Encoded, EncodeError> {
        self.flush()?;
        let body = self.beside.map_or(Ok(self.body), WriterBeside::finish)?;
        let context = self.context;
        let lineage = match base {
            Base::At(from, _) if from.invocation == context.position.invocation => Lineage::default(),
            Base::At(from, _) => context.lineage.told_to(Some(&from)),
            Base::Nothing | Base::Repair => context.lineage.told_to(None),
        };
        let (run, dictionary) =
            self.dictionary.map_or((None, Vec::new()), |(run, octets)| (Some(run), octets));
        let (body, used) = body.finish(&dictionary)?;
        let manifest = Manifest {
            checkpoint: checkpoint.clone(),
            base,
            body_bytes: body.len() as u64,
            added,
            changed,
            deleted,
            lineage,
            dictionary: run.filter(|_| used),
        };
        Ok(Encoded { manifest, body })
    }

    fn entry(&self, uuid: Uuid) -> Result<Entry, StoreError> {
        let entry = lookup::entry(self.read, self.context.number, uuid)?;
        entry.ok_or_else(|| StoreError::Damaged(format!("entry {uuid} was touched, but is not there")))
    }

    /// Entries of the base, which come first in the count.
    fn base_entries(&self) -> u64 {
        match &self.known {
            Known::Nothing => 0,
            Known::Ranks(ranks) => ranks.entries,
            Known::Bases(bases) => bases.len() as u64,
        }
    }

    fn number_in_base(&self, uuid: Uuid) -> Result<u64, StoreError> {
        match &self.known {
            Known::Nothing => Err(StoreError::Damaged(format!("entry {uuid} is not in the base"))),
            Known::Ranks(ranks) => ranks.of(self.read, self.context.number, uuid),
            Known::Bases(bases) => {
                let found = bases.binary_search(&uuid).map(|index| index as u64);
                found.map_err(|_| StoreError::Damaged(format!("entry {uuid} is not in the base")))
            }
        }
    }

    /// The number of an entry that is there now.
    fn number_of(&self, uuid: Uuid) -> Result<u64, StoreError> {
        match self.new.index_of(uuid) {
            Some(index) => Ok(self.base_entries() + index as u64),
            None => self.number_in_base(uuid),
        }
    }

    fn number_of_parent(&self, parent: Uuid) -> Result<Option<u64>, StoreError> {
        if parent.is_nil() { Ok(None) } else { self.number_of(parent).map(Some) }
    }

    fn deleted(&mut self, deleted: &[Uuid]) -> Result<(), StoreError> {
        let mut numbers = Vec::with_capacity(deleted.len());
        for uuid in deleted {
            numbers.push(self.number_in_base(*uuid)?);
        }
        numbers.sort_unstable();
        numbers
            .chunks(CHUNK_RECORDS_MAX)
            .try_for_each(|numbers| self.body.chunk(Chunk::Deleted(numbers.to_vec()), &|_| Vec::new()))
    }

    fn renamed(&mut self, changed: &[(u64, Uuid, Touches)]) -> Result<(), StoreError> {
        let mut renamed = Vec::new();
        for (number, uuid, _) in changed.iter().filter(|(_, _, touches)| touches.named) {
            let entry = self.entry(*uuid)?;
            let parent = self.number_of_parent(entry.parent)?;
            renamed.push((*number, Name { parent, rdn: entry.rdn.as_str().to_owned() }));
        }
        renamed
            .chunks(CHUNK_RECORDS_MAX)
            .try_for_each(|renamed| self.body.chunk(Chunk::Renamed(renamed.to_vec()), &|_| Vec::new()))
    }

    fn added_names(&mut self) -> Result<(), StoreError> {
        let name =
            |index: usize| Name { parent: self.new.parent(index), rdn: self.new.rdn(index).to_owned() };
        let uuid = |index| self.new.uuid(index).unwrap_or_default();
        for start in (0..self.new.len()).step_by(CHUNK_RECORDS_MAX) {
            let end = self.new.len().min(start + CHUNK_RECORDS_MAX);
            let names = (start..end).map(|index| (uuid(index), name(index))).collect();
            self.body.chunk(Chunk::Added(names), &|_| Vec::new())?;
        }
        Ok(())
    }

    fn added_entry(&mut self, index: usize, entry: Entry) -> Result<(), EncodeError> {
        let uuid = entry.uuid;
        let mut items = Vec::with_capacity(entry.attributes.len());
        for attribute in entry.attributes {
            items.push(self.item(attribute, Operation::Set)?);
        }
        self.gather(Record { number: self.base_entries() + index as u64, items }, uuid)
    }

    fn changed_record(
        &mut self,
        number: u64,
        entry: &Entry,
        touches: &Touches,
    ) -> Result<Record, StoreError> {
        let mut items = Vec::with_capacity(touches.attributes.len());
        for (name, touch) in &touches.attributes {
            let Some(attribute) = entry.attributes.attribute(name) else {
                items.push(Item {
                    attribute: self.spelled(name),
                    operation: Operation::Set,
                    values: Vec::new(),
                });
                continue;
            };
            let AttributeTouch::Values(touched) = touch else {
                items.push(self.item(attribute.clone(), Operation::Set)?);
                continue;
            };
            // Values that were touched and are there stand behind the others, in their order.
            let there = attribute.values().iter().skip_while(|value| !touched.contains(*value));
            let there: Vec<Vec<u8>> = there.cloned().collect();
            if !there.iter().all(|value| touched.contains(value)) {
                items.push(self.item(attribute.clone(), Operation::Set)?);
                continue;
            }
            let gone = touched.iter().filter(|value| !there.contains(value)).cloned().collect();
            for (operation, values) in [(Operation::Add, there), (Operation::Remove, gone)] {
                if !values.is_empty() {
                    let name = self.spelled(attribute.name());
                    items.push(self.item_of(name, values, operation)?);
                }
            }
        }
        Ok(Record { number, items })
    }

    fn item(&mut self, attribute: Attribute, operation: Operation) -> Result<Item, StoreError> {
        let name = self.spelled(attribute.name());
        self.item_of(name, attribute.into_values(), operation)
    }

    fn item_of(
        &mut self,
        attribute: Arc<str>,
        values: Vec<Vec<u8>>,
        operation: Operation,
    ) -> Result<Item, StoreError> {
        let values = values.into_iter().map(|value| self.value(value)).collect::<Result<_, _>>()?;
        Ok(Item { attribute, operation, values })
    }

    fn spelled(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.spellings.get(name) {
            return known.clone();
        }
        super::names::bounded(&mut self.spellings);
        let spelled: Arc<str> = name.into();
        self.spellings.insert(name.to_owned(), spelled.clone());
        spelled
    }

    /// A value that is exactly the name of an entry travels as the entry's number.
    fn value(&mut self, octets: Vec<u8>) -> Result<Value, StoreError> {
        // In a repair only few entries have numbers.
        if matches!(self.known, Known::Bases(_)) || !octets.contains(&b'=') {
            return Ok(Value::Octets(octets));
        }
        if let Some(by_text) = &self.by_text {
            let found = by_text.find(&self.new, &mut self.texts, &octets);
            return Ok(found.map_or(Value::Octets(octets), |index| Value::Entry(index as u64)));
        }
        let dn = std::str::from_utf8(&octets).ok().and_then(|text| Dn::parse(text).ok());
        let Some(dn) = dn else { return Ok(Value::Octets(octets)) };
        let Some(uuid) = self.finder.find(self.read, &dn)? else { return Ok(Value::Octets(octets)) };
        let spelled = match self.finder.dn_of(self.read, uuid) {
            // Its octets are right without the entry.
            Err(StoreError::Damaged(_)) => None,
            found => found?.map(|dn| dn.to_string().into_bytes()),
        };
        if spelled.as_ref() != Some(&octets) {
            return Ok(Value::Octets(octets));
        }
        self.number_of(uuid).map(Value::Entry)
    }

    /// From here on, if there is much to come, another thread writes it. The names are complete.
    fn go_beside(&mut self, records: usize) -> Result<(), StoreError> {
        if records as u64 >= MANY_RECORDS {
            let body = std::mem::replace(&mut self.body, BodyWriter::new());
            self.beside = Some(WriterBeside::start(body, self.new.clone(), self.base_entries())?);
        }
        Ok(())
    }

    fn gather(&mut self, record: Record, uuid: Uuid) -> Result<(), EncodeError> {
        let values: usize = record.items.iter().map(|item| item.values.len()).sum();
        if values > CHUNK_VALUES_MAX {
            return Err(EncodeError::TooManyValues(uuid));
        }
        let full = self.gathered.records.len() == CHUNK_RECORDS_MAX
            || self.gathered.items + record.items.len() > CHUNK_ITEMS_MAX
            || self.gathered.values + values > CHUNK_VALUES_MAX
            || self.gathered.bytes >= CHUNK_BYTES_AIM;
        if full {
            self.flush()?;
        }
        self.gathered.items += record.items.len();
        self.gathered.values += values;
        self.gathered.bytes += record.items.iter().flat_map(|item| &item.values).map(weight).sum::<usize>();
        self.gathered.records.push(record);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let gathered = std::mem::take(&mut self.gathered);
        if gathered.records.is_empty() {
            return Ok(());
        }
        let chunk = Chunk::Contents(gathered.records);
        if let Some(beside) = &self.beside {
            beside.chunk(chunk);
            return Ok(());
        }
        let base_entries = self.base_entries();
        self.body.chunk(chunk, &|number| source_of(&self.new, base_entries, number))
    }
}

impl Plan {
    /// All that is touched, unless it is so much that a dictionary saves nothing to speak of.
    fn touched_few(&self) -> Option<HashSet<Uuid>> {
        let count = self.added.len() + self.deleted.len() + self.changed.len();
        let changed = self.changed.iter().map(|(uuid, _)| uuid);
        (count <= FEW).then(|| self.added.iter().chain(&self.deleted).chain(changed).copied().collect())
    }

    /// Entries that are deleted and added anew.
    fn renewed(&self) -> u64 {
        let deleted: HashSet<&Uuid> = self.deleted.iter().collect();
        self.added.iter().filter(|uuid| deleted.contains(uuid)).count() as u64
    }
}

/// Entries touched up to which a dictionary is made.
const FEW: usize = 4096;

/// Octets of a value, and what its form and its like take.
fn weight(value: &Value) -> usize {
    match value {
        Value::Octets(octets) => octets.len() + 8,
        Value::Entry(_) => 8,
    }
}
