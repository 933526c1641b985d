//! A chunk: a bounded number of records of one kind, written column by column.
//!
//! FORMAT
//!   Integers and streams as in [`stream`](super::stream), columns as in [`values`](super::values). *Distance*: an
//!   integer as its distance from the one expected.
//!   ```text
//!   chunk    = kind (an octet), stream
//!   kind 0   end of the body; the stream is empty
//!   kind 1   bases:    16 octets each: the entryUUIDs that a repair names entries of the replica by
//!   kind 2   deleted:  numbers
//!   kind 3   renamed:  numbers, names
//!   kind 4   added:    count of batches, 12 octets each; stream of batches, an integer each, an index;
//!                      stream of ordinals, each as distance from the one before in its batch plus one, at
//!                      first from 0; names
//!   kind 5   contents: numbers, attributes, shapes; stream of shapes, an integer each, an index;
//!                      stream of counts; a column for each attribute, in their order
//!
//!   numbers    = count of records; stream of numbers, each as distance from the one before plus one, at
//!                first from 0
//!   names      = stream of parents, each as distance from the one before, at first from 0: 0 for the topmost
//!                entry, else the parent's number plus one; column of the attribute types of the RDNs (what
//!                stands before the first `=`); column of the rest
//!   attributes = count; for each: operation (an octet: 0 set, 1 add values, 2 remove values), name (a stream)
//!   shapes     = count; for each: count of items; for each item: index of its attribute, count of values
//!                plus one, or 0: the count is the next in the stream of counts
//!   ```
//!   The columns of names have no pieces. In contents the name of a record, as a source of pieces, is that
//!   of an added entry, and empty for others. The items of a shape ascend by attribute.
//!
//! LIMITS
//!   [`CHUNK_RECORDS_MAX`] records, [`CHUNK_ITEMS_MAX`] items and [`CHUNK_VALUES_MAX`] values in all of them,
//!   [`CHUNK_BYTES_MAX`] octets as written and as many once expanded. All are checked before anything is allocated for them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::Malformed;
use super::stream::{Reader, put, put_distance, put_stream};
use super::values::{Budget, Column, Sources, Value};
use crate::directory::attributes::by_name;
use crate::directory::entry::{batch_of, from_batch};
use crate::limits::{ATTRIBUTE_NAME_BYTES_MAX, ATTRIBUTES_MAX, ENTRY_BYTES_MAX};

/// Records of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    End,
    Bases(Vec<Uuid>),
    Deleted(Vec<u64>),
    Renamed(Vec<(u64, Name)>),
    Added(Vec<(Uuid, Name)>),
    Contents(Vec<Record>),
}

/// Where an entry hangs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The number of the entry above; `None` for the topmost entry of the naming context.
    pub parent: Option<u64>,
    /// As text, not yet parsed.
    pub rdn: String,
}

/// What becomes of the attributes of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub number: u64,
    pub items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub attribute: Arc<str>,
    pub operation: Operation,
    pub values: Vec<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// These are the values; none removes the attribute.
    Set,
    /// These come after the others, in this order, wherever they were before.
    Add,
    /// These go.
    Remove,
}

/// Gives the name of a record for the pieces of its values; see [`source_of_rdn`].
pub type NameOf<'n> = &'n dyn Fn(u64) -> Vec<u8>;

impl Chunk {
    pub fn write(self, out: &mut Vec<u8>, name_of: NameOf) {
        let kind = self.kind();
        let mut body = Vec::new();
        match self {
            Chunk::End => {}
            Chunk::Bases(uuids) => uuids.iter().for_each(|uuid| body.extend_from_slice(uuid.as_bytes())),
            Chunk::Deleted(numbers) => write_numbers(&mut body, numbers.iter().copied()),
            Chunk::Renamed(renamed) => {
                write_numbers(&mut body, renamed.iter().map(|(number, _)| *number));
                write_names(&mut body, renamed.iter().map(|(_, name)| name));
            }
            Chunk::Added(added) => {
                write_batches(&mut body, added.iter().map(|(uuid, _)| *uuid));
                write_names(&mut body, added.iter().map(|(_, name)| name));
            }
            Chunk::Contents(records) => write_contents(&mut body, records, name_of),
        }
        out.push(kind);
        put_stream(out, &body);
    }

    /// Reads the body of a chunk of this kind.
    pub fn read(kind: u8, body: &[u8], name_of: NameOf) -> Result<Chunk, Malformed> {
        let mut input = Reader::new(body);
        let mut budget: Budget = CHUNK_BYTES_MAX;
        let chunk = match kind {
            END => Chunk::End,
            BASES => Chunk::Bases(read_bases(&mut input, body.len())?),
            DELETED => Chunk::Deleted(read_numbers(&mut input)?),
            RENAMED => {
                let numbers = read_numbers(&mut input)?;
                let names = read_names(&mut input, numbers.len(), &mut budget)?;
                Chunk::Renamed(numbers.into_iter().zip(names).collect())
            }
            ADDED => {
                let uuids = read_batches(&mut input)?;
                let names = read_names(&mut input, uuids.len(), &mut budget)?;
                Chunk::Added(uuids.into_iter().zip(names).collect())
            }
            CONTENTS => Chunk::Contents(read_contents(&mut input, name_of, &mut budget)?),
            _ => return Err(Malformed("a chunk of an unknown kind")),
        };
        input.end()?;
        if chunk.len() == 0 && kind != END {
            return Err(Malformed("a chunk without records"));
        }
        Ok(chunk)
    }

    fn kind(&self) -> u8 {
        match self {
            Chunk::End => END,
            Chunk::Bases(_) => BASES,
            Chunk::Deleted(_) => DELETED,
            Chunk::Renamed(_) => RENAMED,
            Chunk::Added(_) => ADDED,
            Chunk::Contents(_) => CONTENTS,
        }
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        match self {
            Chunk::End => 0,
            Chunk::Bases(uuids) => uuids.len(),
            Chunk::Deleted(numbers) => numbers.len(),
            Chunk::Renamed(renamed) => renamed.len(),
            Chunk::Added(added) => added.len(),
            Chunk::Contents(records) => records.len(),
        }
    }
}

/// Records of one chunk.
pub const CHUNK_RECORDS_MAX: usize = 8192;

/// Items of all records of a chunk.
pub const CHUNK_ITEMS_MAX: usize = 1 << 20;

/// Values of all records of a chunk; an entry with more cannot be replicated.
pub const CHUNK_VALUES_MAX: usize = 1 << 22;

/// Octets of a chunk, and of the values that it expands to: a chunk is closed once it has
/// [`CHUNK_BYTES_AIM`], and the record that does it may be as large as an entry can be.
pub const CHUNK_BYTES_MAX: usize = CHUNK_BYTES_AIM + 2 * ENTRY_BYTES_MAX;

/// Octets of values at which a writer closes a chunk.
pub const CHUNK_BYTES_AIM: usize = 4 << 20;

pub const END: u8 = 0;
const BASES: u8 = 1;
const DELETED: u8 = 2;
const RENAMED: u8 = 3;
const ADDED: u8 = 4;
pub const CONTENTS: u8 = 5;

const _: () = assert!(ATTRIBUTES_MAX <= CHUNK_ITEMS_MAX);

/// What of an RDN is a source of pieces: all that follows the first `=`.
pub fn source_of_rdn(rdn: &str) -> Vec<u8> {
    rdn.split_once('=').map_or(rdn, |(_, value)| value).as_bytes().to_vec()
}

fn read_bases(input: &mut Reader, length: usize) -> Result<Vec<Uuid>, Malformed> {
    if !length.is_multiple_of(16) || length / 16 > CHUNK_RECORDS_MAX {
        return Err(Malformed("bases that are no entryUUIDs"));
    }
    let octets = input.octets(length)?;
    Ok(octets.chunks_exact(16).filter_map(|uuid| Uuid::from_slice(uuid).ok()).collect())
}

fn write_numbers(out: &mut Vec<u8>, numbers: impl ExactSizeIterator<Item = u64>) {
    put(out, numbers.len() as u64);
    let mut stream = Vec::new();
    let mut expected = 0;
    for number in numbers {
        put_distance(&mut stream, number, expected);
        expected = number.wrapping_add(1);
    }
    put_stream(out, &stream);
}

fn read_numbers(input: &mut Reader) -> Result<Vec<u64>, Malformed> {
    let count = input.count(CHUNK_RECORDS_MAX)?;
    let mut stream = input.stream()?;
    let mut expected = 0u64;
    let mut numbers = Vec::with_capacity(count);
    for _ in 0..count {
        let number = stream.distance(expected)?;
        expected = number.wrapping_add(1);
        numbers.push(number);
    }
    stream.end()?;
    Ok(numbers)
}

fn write_batches(out: &mut Vec<u8>, uuids: impl Iterator<Item = Uuid>) {
    let mut batches: HashMap<[u8; 12], (u64, u64)> = HashMap::new();
    let (mut table, mut indices, mut ordinals) = (Vec::new(), Vec::new(), Vec::new());
    for uuid in uuids {
        let (batch, ordinal) = batch_of(uuid);
        let next = batches.len() as u64;
        let (index, expected) = batches.entry(batch).or_insert_with(|| {
            table.extend_from_slice(&batch);
            (next, 0)
        });
        put(&mut indices, *index);
        put_distance(&mut ordinals, u64::from(ordinal), *expected);
        *expected = u64::from(ordinal) + 1;
    }
    put(out, batches.len() as u64);
    out.extend_from_slice(&table);
    put_stream(out, &indices);
    put_stream(out, &ordinals);
}

fn read_batches(input: &mut Reader) -> Result<Vec<Uuid>, Malformed> {
    let count = input.count(CHUNK_RECORDS_MAX)?;
    let mut batches = Vec::with_capacity(count);
    for _ in 0..count {
        let mut batch = [0; 12];
        batch.copy_from_slice(input.octets(12)?);
        batches.push((batch, 0));
    }
    let (mut indices, mut ordinals) = (input.stream()?, input.stream()?);
    let mut uuids = Vec::new();
    while !indices.is_empty() {
        let index = indices.count(CHUNK_RECORDS_MAX)?;
        let (batch, expected) = batches.get_mut(index).ok_or(Malformed("a batch that is not there"))?;
        let ordinal = ordinals.distance(*expected)?;
        let ordinal = u32::try_from(ordinal).map_err(|_| Malformed("an ordinal beyond 32 bits"))?;
        *expected = u64::from(ordinal) + 1;
        uuids.push(from_batch(*batch, ordinal));
        if uuids.len() > CHUNK_RECORDS_MAX {
            return Err(Malformed("a count is beyond its bound"));
        }
    }
    ordinals.end()?;
    Ok(uuids)
}

fn write_names<'n>(out: &mut Vec<u8>, names: impl Iterator<Item = &'n Name>) {
    let (mut types, mut rest, mut parents) = (Column::default(), Column::default(), Vec::new());
    let mut before = 0;
    for (record, name) in (0..).zip(names) {
        let parent = name.parent.map_or(0, |number| number + 1);
        put_distance(&mut parents, parent, before);
        before = parent;
        let (attribute, value) = name.rdn.split_once('=').unwrap_or((&name.rdn, ""));
        types.push(record, Value::Octets(attribute.into()));
        rest.push(record, Value::Octets(value.into()));
    }
    put_stream(out, &parents);
    types.write(out, Sources::default());
    rest.write(out, Sources::default());
}

fn read_names(input: &mut Reader, count: usize, budget: &mut Budget) -> Result<Vec<Name>, Malformed> {
    let mut parents = input.stream()?;
    let records = || (0..count as u32).collect();
    let types = Column::read(input, records(), Sources::default(), budget)?;
    let rest = Column::read(input, records(), Sources::default(), budget)?;
    let mut before = 0;
    let mut names = Vec::with_capacity(count);
    for (attribute, value) in types.values.into_iter().zip(rest.values) {
        before = parents.distance(before)?;
        let (Value::Octets(mut rdn), Value::Octets(value)) = (attribute, value) else {
            return Err(Malformed("a name that is an entry"));
        };
        rdn.push(b'=');
        rdn.extend_from_slice(&value);
        let rdn = String::from_utf8(rdn).map_err(|_| Malformed("a name that is not UTF-8"))?;
        names.push(Name { parent: before.checked_sub(1), rdn });
    }
    parents.end()?;
    Ok(names)
}

/// Index of the attribute, and how many values follow.
type ShapeItem = (usize, usize);

fn write_contents(out: &mut Vec<u8>, records: Vec<Record>, name_of: NameOf) {
    let table = table_of(&records);
    let mut shapes = Shapes::default();
    let mut columns = vec![Column::default(); table.len()];
    let numbers: Vec<u64> = records.iter().map(|record| record.number).collect();
    for (number, record) in (0..).zip(records) {
        let mut shape = Vec::with_capacity(record.items.len());
        let mut next = 0;
        for item in record.items {
            let at = position(&table, &item, next);
            next = at + 1;
            shape.push((at, item.values.len()));
            item.values.into_iter().for_each(|value| columns[at].push(number, value));
        }
        shape.sort_unstable();
        shapes.push(shape);
    }
    write_numbers(out, numbers.iter().copied());
    put(out, table.len() as u64);
    for (attribute, operation) in &table {
        out.push(operation.code());
        put_stream(out, attribute.as_bytes());
    }
    shapes.write(out);
    let names: Vec<Vec<u8>> = numbers.into_iter().map(name_of).collect();
    for at in 0..columns.len() {
        let (before, rest) = columns.split_at(at);
        rest[0].write(out, Sources { names: &names, columns: before });
    }
}

/// The attributes and operations of all records, in canonical order of the names.
fn table_of(records: &[Record]) -> Vec<(Arc<str>, Operation)> {
    let mut table: Vec<(Arc<str>, Operation)> = Vec::new();
    let mut known: HashSet<(Arc<str>, Operation)> = HashSet::new();
    // Most records have the attributes of one before them: those are told without a look at the text.
    let mut seen: HashSet<(*const u8, Operation)> = HashSet::new();
    for item in records.iter().flat_map(|record| &record.items) {
        if seen.insert((item.attribute.as_ptr(), item.operation))
            && known.insert((item.attribute.clone(), item.operation))
        {
            table.push((item.attribute.clone(), item.operation));
        }
    }
    table.sort_by(|a, b| by_name(&a.0, &b.0).then_with(|| a.cmp(b)));
    table
}

/// Where an item's attribute stands in the table, most likely at `guess` or soon after.
fn position(table: &[(Arc<str>, Operation)], item: &Item, guess: usize) -> usize {
    let is_it = |(attribute, operation): &(Arc<str>, Operation)| {
        *operation == item.operation
            && (Arc::ptr_eq(attribute, &item.attribute) || *attribute == item.attribute)
    };
    let found = table.iter().skip(guess).take(NEAR).position(is_it).map(|at| guess + at);
    found.or_else(|| table.iter().position(is_it)).unwrap_or_default()
}

const NEAR: usize = 16;

/// The shapes met so far, and that of each record.
#[derive(Default)]
struct Shapes {
    known: HashMap<Vec<ShapeItem>, u64>,
    table: Vec<u8>,
    indices: Vec<u8>,
    counts: Vec<u8>,
}

impl Shapes {
    fn push(&mut self, mut shape: Vec<ShapeItem>) {
        for (_, count) in shape.iter_mut().filter(|(_, count)| *count > SHAPE_COUNT_MAX) {
            put(&mut self.counts, *count as u64);
            *count = usize::MAX;
        }
        let next = self.known.len() as u64;
        let index = *self.known.entry(shape).or_insert_with_key(|shape| {
            put(&mut self.table, shape.len() as u64);
            for &(attribute, count) in shape {
                put(&mut self.table, attribute as u64);
                put(&mut self.table, (count as u64).wrapping_add(1));
            }
            next
        });
        put(&mut self.indices, index);
    }

    fn write(self, out: &mut Vec<u8>) {
        put(out, self.known.len() as u64);
        out.extend_from_slice(&self.table);
        put_stream(out, &self.indices);
        put_stream(out, &self.counts);
    }
}

/// More values than this make shapes that few entries share.
const SHAPE_COUNT_MAX: usize = 8;

fn read_contents(input: &mut Reader, name_of: NameOf, budget: &mut Budget) -> Result<Vec<Record>, Malformed> {
    let numbers = read_numbers(input)?;
    let table = read_table(input)?;
    let shapes = read_shapes(input, table.len())?;
    let (mut indices, mut counts) = (input.stream()?, input.stream()?);
    let mut records = Vec::with_capacity(numbers.len());
    let mut per_column: Vec<Vec<(u32, usize)>> = vec![Vec::new(); table.len()];
    let mut items = 0;
    let mut values = 0;
    for (record, number) in (0..).zip(numbers) {
        let shape =
            shapes.get(indices.count(CHUNK_ITEMS_MAX)?).ok_or(Malformed("a shape that is not there"))?;
        items += shape.len();
        if items > CHUNK_ITEMS_MAX {
            return Err(Malformed("a chunk with too many items"));
        }
        for &(attribute, count) in shape {
            let count = count.map_or_else(|| counts.count(CHUNK_BYTES_MAX), Ok)?;
            values += count;
            if values > CHUNK_VALUES_MAX || values > input.left() {
                return Err(Malformed("a chunk with too many values"));
            }
            per_column[attribute].push((record, count));
        }
        records.push(Record { number, items: Vec::with_capacity(shape.len()) });
    }
    indices.end()?;
    counts.end()?;
    let names: Vec<Vec<u8>> = records.iter().map(|record| name_of(record.number)).collect();
    let mut columns = Vec::with_capacity(table.len());
    for counts in &per_column {
        let of = |&(record, count): &(u32, usize)| std::iter::repeat_n(record, count);
        let sources = Sources { names: &names, columns: &columns };
        let column = Column::read(input, counts.iter().flat_map(of).collect(), sources, budget)?;
        columns.push(column);
    }
    for ((column, counts), (attribute, operation)) in columns.into_iter().zip(per_column).zip(table) {
        let mut values = column.values.into_iter();
        for (record, count) in counts {
            let values = values.by_ref().take(count).collect();
            let item = Item { attribute: attribute.clone(), operation, values };
            records[record as usize].items.push(item);
        }
    }
    Ok(records)
}

fn read_table(input: &mut Reader) -> Result<Vec<(Arc<str>, Operation)>, Malformed> {
    let count = input.count(TABLE_MAX)?;
    let mut table = Vec::new();
    for _ in 0..count {
        let operation = Operation::of(input.octet()?)?;
        let mut name = input.stream()?;
        let length = name.left();
        if length > ATTRIBUTE_NAME_BYTES_MAX {
            return Err(Malformed("the name of an attribute is too long"));
        }
        let name = std::str::from_utf8(name.octets(length)?);
        table.push((
            Arc::from(name.map_err(|_| Malformed("the name of an attribute is not text"))?),
            operation,
        ));
    }
    Ok(table)
}

/// Items; a count of `None` is in the stream of counts.
type Shape = Vec<(usize, Option<usize>)>;

fn read_shapes(input: &mut Reader, attributes: usize) -> Result<Vec<Shape>, Malformed> {
    let mut shapes = Vec::new();
    for _ in 0..input.count(CHUNK_RECORDS_MAX)? {
        let mut items = Shape::new();
        for _ in 0..input.count(attributes)? {
            let attribute = input.count(attributes.saturating_sub(1))?;
            if items.last().is_some_and(|(before, _)| *before >= attribute) {
                return Err(Malformed("the attributes of a shape do not ascend"));
            }
            items.push((attribute, input.count(CHUNK_BYTES_MAX)?.checked_sub(1)));
        }
        shapes.push(items);
    }
    Ok(shapes)
}

/// Attributes and operations of one chunk: every item may have its own.
const TABLE_MAX: usize = CHUNK_ITEMS_MAX;

impl Operation {
    fn code(self) -> u8 {
        match self {
            Operation::Set => 0,
            Operation::Add => 1,
            Operation::Remove => 2,
        }
    }

    fn of(code: u8) -> Result<Operation, Malformed> {
        match code {
            0 => Ok(Operation::Set),
            1 => Ok(Operation::Add),
            2 => Ok(Operation::Remove),
            _ => Err(Malformed("an operation of an unknown kind")),
        }
    }
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;
