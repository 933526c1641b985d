//! Reads the body of a transfer and says, entry by entry, what it does.
//!
//! FORMAT
//!   Chunks come in this order, any number of each: bases (only in a repair), deleted, renamed, added, contents, end.
//!   An entry that is deleted and added in one transfer is made anew. Numbers of parents and of values may name
//!   entries whose names come later; a value that is an entry means that entry's name after the transfer. In contents, records
//!   for entries of the base come before those of added entries, which come each once and in the order of their numbers.
//!
//!   An item *set* gives an attribute its values, or with none removes it. *Add* puts values behind
//!   the others, in this order, wherever they were before; *remove* takes values out, if they are there. An
//!   added entry has only items of the first kind, each with a value.
//!
//! LIMITS
//!   No more entries than the checkpoint counts, no larger than an entry may be. Memory is what the names of
//!   the added entries take, and one chunk.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::beside::{MANY_RECORDS, read_beside, source_of};
use super::body::{BodyError, BodyReader};
use super::chunk::{CONTENTS, Chunk, END, Item, Name, Operation, Record};
use super::dictionary;
use super::manifest::{Base, Manifest};
use super::names::{self, MANY, NewNames};
use super::values::Value;
use super::{Malformed, TransferError};
use crate::directory::attributes::{Attribute, Attributes};
use crate::directory::lookup;
use crate::directory::replica::{AttributeDelta, Delta};
use crate::directory::{ContextRecord, Entry, Rdn, Read};
use crate::limits::{DN_DEPTH_MAX, ENTRY_BYTES_MAX};
use crate::replication::parts::Source;

/// Who is told what a transfer does. Deletions come first, then changes, then additions.
pub trait Sink {
    /// The state that the transfer is applied to, with what this sink has done to it or without.
    fn read(&self) -> &dyn Read;
    fn delete(&mut self, uuid: Uuid) -> Result<(), TransferError>;
    fn change(&mut self, uuid: Uuid, delta: Delta) -> Result<(), TransferError>;
    fn add(&mut self, entry: Entry) -> Result<(), TransferError>;
}

/// Reads the whole body. `context` is where the replica stands, which the manifest's base must fit.
pub fn decode(
    context: &ContextRecord,
    manifest: &Manifest,
    source: &mut dyn Source,
    sink: &mut dyn Sink,
) -> Result<Arc<NewNames>, TransferError> {
    let mut decoder = Decoder::new(context, manifest, sink)?;
    let dictionary = match manifest.dictionary {
        Some(run) => dictionary::of_run(decoder.sink.read(), context, run)?,
        None => Some(Vec::new()),
    };
    let dictionary = dictionary.ok_or(Malformed("a dictionary of entries that the base has not"))?;
    let mut body = BodyReader::new(&dictionary)?;
    let many = manifest.added.saturating_add(manifest.changed) >= MANY_RECORDS;
    let taken = loop {
        let next = body.next(&mut || source.next(decoder.sink.read()))?;
        let Some((kind, octets)) = next else { break body.taken() };
        let chunk = Chunk::read(kind, &octets, &|number| decoder.source_of(number))?;
        decoder.chunk(kind, chunk)?;
        if kind == CONTENTS && many {
            let names = (decoder.new.clone(), decoder.base_entries());
            let decoder = RefCell::new(&mut decoder);
            let mut pieces = || source.next(decoder.borrow().sink.read());
            let mut take = |kind, chunk| decoder.borrow_mut().chunk(kind, chunk);
            break read_beside(body, names, &mut pieces, &mut take)?;
        }
    };
    if taken != manifest.body_bytes {
        return Err(Malformed("the body is not as long as its manifest says").into());
    }
    decoder.finish(manifest)
}

/// Entries of the replica that the transfer can name.
enum Known {
    Ranks { entries: u64, all: Option<Vec<Uuid>> },
    Bases(Vec<Uuid>),
}

struct Decoder<'s> {
    context: &'s ContextRecord,
    sink: &'s mut dyn Sink,
    known: Known,
    is_repair: bool,
    entries_max: u64,
    kind_before: u8,
    deleted: HashSet<Uuid>,
    changed: u64,
    renamed: BTreeMap<Uuid, Renamed>,
    new: Arc<NewNames>,
    names_are_complete: bool,
    /// Contents of added entries that have come.
    complete: usize,
    texts: HashMap<Place, String>,
}

struct Renamed {
    name: Name,
    /// The sink was told.
    is_done: bool,
}

/// An entry, by what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Old(Uuid),
    New(usize),
}

impl<'s> Decoder<'s> {
    fn new(
        context: &'s ContextRecord,
        manifest: &Manifest,
        sink: &'s mut dyn Sink,
    ) -> Result<Decoder<'s>, TransferError> {
        let known = match manifest.base {
            Base::Nothing => Known::Ranks { entries: 0, all: None },
            Base::Repair => Known::Bases(Vec::new()),
            Base::At(..) => {
                let many = manifest.changed.saturating_add(manifest.deleted) > context.entries / MANY;
                let all = if many { Some(names::all_uuids(sink.read(), context)?) } else { None };
                Known::Ranks { entries: context.entries, all }
            }
        };
        Ok(Decoder {
            context,
            sink,
            known,
            is_repair: manifest.base == Base::Repair,
            entries_max: manifest.checkpoint.claimed()?.entries,
            kind_before: 0,
            deleted: HashSet::new(),
            changed: 0,
            renamed: BTreeMap::new(),
            new: Arc::default(),
            names_are_complete: false,
            complete: 0,
            texts: HashMap::new(),
        })
    }

    fn chunk(&mut self, kind: u8, chunk: Chunk) -> Result<(), TransferError> {
        if kind != END && kind < self.kind_before {
            return Err(Malformed("the chunks are out of order").into());
        }
        self.kind_before = kind;
        if matches!(chunk, Chunk::Contents(_) | Chunk::End) && !self.names_are_complete {
            self.names_are_complete = true;
            Arc::make_mut(&mut self.new).sort();
        }
        match chunk {
            Chunk::End => self.finish_renames(),
            Chunk::Bases(uuids) => self.bases(uuids),
            Chunk::Deleted(numbers) => numbers.into_iter().try_for_each(|number| self.delete(number)),
            Chunk::Renamed(renamed) => {
                renamed.into_iter().try_for_each(|(number, name)| self.rename(number, name))
            }
            Chunk::Added(added) => added.into_iter().try_for_each(|(uuid, name)| self.name_added(uuid, name)),
            Chunk::Contents(records) => records.into_iter().try_for_each(|record| self.contents(record)),
        }
    }

    fn bases(&mut self, uuids: Vec<Uuid>) -> Result<(), TransferError> {
        let Known::Bases(bases) = &mut self.known else {
            return Err(Malformed("bases in a transfer that is no repair").into());
        };
        bases.extend(uuids);
        // What is gone here, what is new there, and what those hang on.
        let bound = self.entries_max.saturating_add(self.context.entries).saturating_mul(2);
        if !self.is_repair || bases.len() as u64 > bound {
            return Err(Malformed("more bases than entries").into());
        }
        Ok(())
    }

    fn delete(&mut self, number: u64) -> Result<(), TransferError> {
        let Place::Old(uuid) = self.place(number)? else {
            return Err(Malformed("an entry is deleted that the base has not").into());
        };
        if !self.deleted.insert(uuid) {
            return Err(Malformed("an entry is deleted twice").into());
        }
        self.sink.delete(uuid)
    }

    fn rename(&mut self, number: u64, name: Name) -> Result<(), TransferError> {
        let Place::Old(uuid) = self.place(number)? else {
            return Err(Malformed("an entry is renamed that the base has not").into());
        };
        if self.renamed.insert(uuid, Renamed { name, is_done: false }).is_some() {
            return Err(Malformed("an entry is renamed twice").into());
        }
        Ok(())
    }

    fn name_added(&mut self, uuid: Uuid, name: Name) -> Result<(), TransferError> {
        if self.new.len() as u64 >= self.entries_max {
            return Err(Malformed("more entries than the checkpoint counts").into());
        }
        Arc::make_mut(&mut self.new).push(uuid, name.parent, &name.rdn);
        Ok(())
    }

    fn contents(&mut self, record: Record) -> Result<(), TransferError> {
        match self.place(record.number)? {
            Place::Old(uuid) if self.complete == 0 => {
                let delta = self.delta(uuid, record.items)?;
                self.changed += 1;
                self.sink.change(uuid, delta)
            }
            Place::New(index) if index == self.complete => {
                self.complete += 1;
                let entry = self.added(index, record.items)?;
                self.sink.add(entry)
            }
            _ => Err(Malformed("contents are out of order").into()),
        }
    }

    fn delta(&mut self, uuid: Uuid, items: Vec<Item>) -> Result<Delta, TransferError> {
        let mut delta = self.rename_of(uuid)?;
        let mut room = ENTRY_BYTES_MAX;
        // Of each attribute, what goes and what comes.
        let mut values: BTreeMap<String, [Vec<Vec<u8>>; 2]> = BTreeMap::new();
        for item in items {
            let octets = self.octets(item.values, &mut room)?;
            match item.operation {
                Operation::Set if octets.is_empty() => {
                    delta.attributes.push(AttributeDelta::Remove(item.attribute.to_string()));
                }
                Operation::Set => {
                    delta.attributes.push(AttributeDelta::Set(attribute(&item.attribute, octets)?))
                }
                Operation::Add => {
                    let [remove, append] = values.entry(item.attribute.to_string()).or_default();
                    remove.extend(octets.iter().cloned());
                    append.extend(octets);
                }
                Operation::Remove => values.entry(item.attribute.to_string()).or_default()[0].extend(octets),
            }
        }
        let deltas = values.into_iter().map(|(name, [remove, append])| AttributeDelta::Values {
            name,
            remove,
            append,
        });
        delta.attributes.extend(deltas);
        Ok(delta)
    }

    /// The change of an entry's name, if there is one that the sink was not told of.
    fn rename_of(&mut self, uuid: Uuid) -> Result<Delta, TransferError> {
        let Some(renamed) = self.renamed.get_mut(&uuid).filter(|renamed| !renamed.is_done) else {
            return Ok(Delta::default());
        };
        renamed.is_done = true;
        let (parent, rdn) = (renamed.name.parent, rdn(&renamed.name.rdn)?);
        Ok(Delta { parent: Some(self.parent(parent)?), rdn: Some(rdn), attributes: Vec::new() })
    }

    /// Tells of those that nothing happened to but a new name.
    fn finish_renames(&mut self) -> Result<(), TransferError> {
        let left = self.renamed.iter().filter(|(_, renamed)| !renamed.is_done);
        let left: Vec<Uuid> = left.map(|(uuid, _)| *uuid).collect();
        for uuid in left {
            let delta = self.rename_of(uuid)?;
            self.changed += 1;
            self.sink.change(uuid, delta)?;
        }
        Ok(())
    }

    fn added(&mut self, index: usize, items: Vec<Item>) -> Result<Entry, TransferError> {
        let mut room = ENTRY_BYTES_MAX;
        let mut attributes = Vec::with_capacity(items.len());
        for item in items {
            if item.operation != Operation::Set {
                return Err(Malformed("values are added to a new entry").into());
            }
            let octets = self.octets(item.values, &mut room)?;
            attributes.push(attribute(&item.attribute, octets)?);
        }
        let attributes = Attributes::from_attributes(attributes);
        Ok(Entry {
            uuid: self.new.uuid(index).unwrap_or_default(),
            parent: self.parent(self.new.parent(index))?,
            rdn: rdn(self.new.rdn(index))?,
            attributes: attributes.map_err(|_| Malformed("an entry's attributes cannot be"))?,
        })
    }

    fn octets(&mut self, values: Vec<Value>, room: &mut usize) -> Result<Vec<Vec<u8>>, TransferError> {
        let mut all = Vec::with_capacity(values.len());
        for value in values {
            let octets = match value {
                Value::Octets(octets) => octets,
                Value::Entry(number) => self.text(number)?.into_bytes(),
            };
            *room = room.checked_sub(octets.len()).ok_or(Malformed("an entry is too large"))?;
            all.push(octets);
        }
        Ok(all)
    }

    fn place(&self, number: u64) -> Result<Place, TransferError> {
        let missing = Malformed("an entry is named that is not there");
        let (entries, uuid) = match &self.known {
            Known::Ranks { entries, all: Some(all) } => (*entries, all.get(number as usize).copied()),
            Known::Ranks { entries, all: None } if number < *entries => {
                (*entries, lookup::by_rank(self.sink.read(), self.context.number, number)?)
            }
            Known::Ranks { entries, all: None } => (*entries, None),
            Known::Bases(bases) => (bases.len() as u64, bases.get(number as usize).copied()),
        };
        match number.checked_sub(entries) {
            None => Ok(Place::Old(uuid.ok_or(missing)?)),
            Some(index) => {
                let index = usize::try_from(index).ok().filter(|index| *index < self.new.len());
                Ok(Place::New(index.ok_or(missing)?))
            }
        }
    }

    fn uuid(&self, place: Place) -> Uuid {
        match place {
            Place::Old(uuid) => uuid,
            Place::New(index) => self.new.uuid(index).unwrap_or_default(),
        }
    }

    fn parent(&self, number: Option<u64>) -> Result<Uuid, TransferError> {
        number.map_or(Ok(Uuid::nil()), |number| Ok(self.uuid(self.place(number)?)))
    }

    fn source_of(&self, number: u64) -> Vec<u8> {
        source_of(&self.new, self.base_entries(), number)
    }

    /// Entries of the base, which come first in the count.
    fn base_entries(&self) -> u64 {
        match &self.known {
            Known::Ranks { entries, .. } => *entries,
            Known::Bases(bases) => bases.len() as u64,
        }
    }

    /// The name of an entry as it will be, as text.
    fn text(&mut self, number: u64) -> Result<String, TransferError> {
        let place = self.place(number)?;
        let (mut text, parent) = self.step(place)?;
        if let Some(parent) = parent {
            text.push(',');
            text.push_str(self.parent_text(parent)?);
        } else if let Some(above) = self.context.dn.parent() {
            text.push(',');
            text.push_str(&above.to_string());
        }
        Ok(text)
    }

    fn parent_text(&mut self, place: Place) -> Result<&str, TransferError> {
        if !self.texts.contains_key(&place) {
            let (mut text, mut at) = self.step(place)?;
            let mut steps = 0;
            while let Some(above) = at {
                let (rdn, next) = self.step(above)?;
                text.push(',');
                text.push_str(&rdn);
                at = next;
                steps += 1;
                if steps > DN_DEPTH_MAX {
                    return Err(Malformed("an entry hangs too deep, or in a circle").into());
                }
            }
            if let Some(above) = self.context.dn.parent() {
                text.push(',');
                text.push_str(&above.to_string());
            }
            names::bounded(&mut self.texts);
            self.texts.insert(place, text);
        }
        Ok(self.texts.get(&place).map_or("", String::as_str))
    }

    /// An entry's RDN, and where it hangs; `None` for the topmost.
    fn step(&self, place: Place) -> Result<(String, Option<Place>), TransferError> {
        let named = |parent: Option<u64>, rdn: &str| {
            let parent = parent.map(|number| self.place(number)).transpose()?;
            Ok((rdn.to_owned(), parent))
        };
        match place {
            Place::New(index) => named(self.new.parent(index), self.new.rdn(index)),
            Place::Old(uuid) => {
                if let Some(Renamed { name, .. }) = self.renamed.get(&uuid) {
                    return named(name.parent, &name.rdn);
                }
                let entry = match self.new.index_of(uuid) {
                    // Deleted and made anew.
                    Some(index) => return named(self.new.parent(index), self.new.rdn(index)),
                    None => lookup::entry(self.sink.read(), self.context.number, uuid)?,
                };
                let entry = entry.ok_or(Malformed("an entry is named that is not there"))?;
                let parent = (!entry.parent.is_nil()).then_some(Place::Old(entry.parent));
                Ok((entry.rdn.as_str().to_owned(), parent))
            }
        }
    }

    fn finish(self, manifest: &Manifest) -> Result<Arc<NewNames>, TransferError> {
        if self.complete != self.new.len() {
            return Err(Malformed("an added entry has no contents").into());
        }
        let is_renewed =
            |index: &usize| self.new.uuid(*index).is_some_and(|uuid| self.deleted.contains(&uuid));
        let renewed = (0..self.new.len()).filter(is_renewed).count() as u64;
        let counts =
            (self.new.len() as u64 - renewed, self.changed + renewed, self.deleted.len() as u64 - renewed);
        if counts != (manifest.added, manifest.changed, manifest.deleted) {
            return Err(Malformed("the body does not do what its manifest says").into());
        }
        Ok(self.new)
    }
}

fn attribute(name: &str, values: Vec<Vec<u8>>) -> Result<Attribute, Malformed> {
    Attribute::new(name, values).map_err(|_| Malformed("an attribute cannot be"))
}

fn rdn(text: &str) -> Result<Rdn, Malformed> {
    Rdn::parse(text).map_err(|_| Malformed("a name cannot be"))
}

impl From<BodyError> for TransferError {
    fn from(error: BodyError) -> TransferError {
        match error {
            BodyError::Malformed(error) => error.into(),
            BodyError::Store(error) => error.into(),
        }
    }
}
