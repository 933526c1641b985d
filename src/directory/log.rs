//! The log: what each commit touched, never what it held then.
//!
//! PROMISES
//!   `touched_since` names every entry, attribute and value that differs between a USN that this store
//!   held and now; it may name some that are the same again. It answers only for USNs that this store held,
//!   because what was "added" since another point would be a guess. A replica logs each checkpoint that it reached
//!   as one commit, so it can pass increments on.
//! LIMITS
//!   One run of new entries of one batch takes one short record however many they are.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decoder, Encoder};
use uuid::Uuid;

use super::context::{context_by_number, put_context};
use super::digest::Summary;
use super::entry::{batch_of, from_batch};
use super::position::Digest;
use super::store::{Read, StoreError, Table, Write};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Touched {
    Added(Uuid),
    Deleted(Uuid),
    /// Its RDN, its parent, or both.
    Named(Uuid),
    /// It was deleted or renamed: the parent that it had, and its normalized RDN. Increments do not need it; people ask.
    Left(Uuid, Uuid, Vec<u8>),
    /// A whole attribute: added, replaced or removed.
    Attribute(Uuid, String),
    /// One value, taken out or appended: where an attribute has many. Values that were not touched
    /// keep their order, those that were touched and are there stand behind them.
    Value(Uuid, String, Vec<u8>),
}

impl Touched {
    /// The entry that was touched.
    pub fn uuid(&self) -> Uuid {
        match self {
            Touched::Added(uuid)
            | Touched::Deleted(uuid)
            | Touched::Named(uuid)
            | Touched::Left(uuid, ..)
            | Touched::Attribute(uuid, _)
            | Touched::Value(uuid, ..) => *uuid,
        }
    }
}

/// What was touched since some USN, coalesced, by entryUUID.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TouchedSet {
    pub entries: BTreeMap<Uuid, EntryTouch>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryTouch {
    /// Was not there, is there.
    Added,
    /// Was there, is gone.
    Deleted,
    /// Was there, was deleted, and is there anew: nothing of it can be relied on.
    Replaced,
    /// Was there and is there.
    Changed(Box<Touches>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touches {
    pub named: bool,
    /// By name in lower case.
    pub attributes: BTreeMap<String, AttributeTouch>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeTouch {
    Whole,
    Values(BTreeSet<Vec<u8>>),
}

/// Gathers what one commit touches; nothing is written before [`Appender::finish`].
#[derive(Default)]
pub struct Appender {
    records: Vec<Vec<u8>>,
    buffer: Vec<u8>,
    /// Batch, first ordinal, count.
    run: Option<([u8; 12], u32, u32)>,
}

impl Appender {
    pub fn new() -> Appender {
        Self::default()
    }

    pub fn touch(&mut self, touched: &Touched) {
        if let Touched::Added(uuid) = touched {
            let (batch, ordinal) = batch_of(*uuid);
            match &mut self.run {
                Some((of, first, count)) if *of == batch && first.checked_add(*count) == Some(ordinal) => {
                    *count += 1
                }
                _ => {
                    self.end_run();
                    self.run = Some((batch, ordinal, 1));
                }
            }
        } else {
            self.end_run();
            encode(touched, &mut self.buffer);
        }
        if self.buffer.len() >= RECORD_BYTES {
            self.records.push(std::mem::take(&mut self.buffer));
        }
    }

    /// Writes the records. `reached`: the state that the commit leads to. A repair that ends at the USN
    /// where the store already stands is logged behind what is there.
    pub fn finish(
        mut self,
        tx: &mut dyn Write,
        context: u32,
        usn: u64,
        reached: Summary,
    ) -> Result<(), StoreError> {
        self.end_run();
        if !self.buffer.is_empty() {
            self.records.push(self.buffer);
        }
        let mut last = 0;
        tx.scan_back(Table::Log, &key(context, usn, 0), &key(context, usn + 1, 0), &mut |key, _| {
            last = sequence_of(key);
            false
        })?;
        for (sequence, record) in (last + 1..).zip(&self.records) {
            tx.put(Table::Log, &key(context, usn, sequence), record)?;
        }
        let mut head = reached.entries.to_be_bytes().to_vec();
        head.extend_from_slice(&reached.digest.0);
        tx.put(Table::Log, &key(context, usn, 0), &head)
    }

    fn end_run(&mut self) {
        if let Some((batch, first, count)) = self.run.take() {
            encode_run(&mut self.buffer, &batch, first, count);
        }
    }
}

/// Logs one commit.
pub fn append(
    tx: &mut dyn Write,
    context: u32,
    usn: u64,
    reached: Summary,
    touched: &[Touched],
) -> Result<(), StoreError> {
    let mut appender = Appender::new();
    touched.iter().for_each(|touched| appender.touch(touched));
    appender.finish(tx, context, usn, reached)
}

/// What was touched since `usn`; None if this store never stood there, or the log was trimmed past it.
pub fn touched_since(read: &dyn Read, context: u32, usn: u64) -> Result<Option<TouchedSet>, StoreError> {
    touched_since_but(read, context, usn, &BTreeSet::new())
}

/// As [`touched_since`], as if the commits at these USNs had touched nothing.
pub fn touched_since_but(
    read: &dyn Read,
    context: u32,
    usn: u64,
    left_out: &BTreeSet<u64>,
) -> Result<Option<TouchedSet>, StoreError> {
    let Some(record) = context_by_number(read, context)? else { return Ok(None) };
    let held = usn == record.log_floor || held(read, context, usn)?.is_some();
    if !held || usn < record.log_floor || usn > record.position.usn {
        return Ok(None);
    }
    let mut set = TouchedSet::default();
    let mut failure = None;
    let (from, to) = (key(context, usn + 1, 0), key(context + 1, 0, 0));
    read.scan(Table::Log, &from, &to, &mut |key, octets| {
        // A key that ends so is that of the head of a commit.
        if key.ends_with(&[0; 4]) || left_out.contains(&usn_of(key)) {
            return true;
        }
        match decode(octets, &mut |touched| set.note(touched)) {
            Ok(()) => true,
            Err(error) => {
                failure = Some(StoreError::Damaged(format!("a record of the log: {error}")));
                false
            }
        }
    })?;
    failure.map_or(Ok(Some(set)), Err)
}

/// The state at a USN that the log still knows. Two histories that differ here are a fork.
pub fn held(read: &dyn Read, context: u32, usn: u64) -> Result<Option<Summary>, StoreError> {
    let Some(head) = read.get(Table::Log, &key(context, usn, 0))? else { return Ok(None) };
    let (Some((entries, digest)), true) = (head.split_first_chunk::<8>(), head.len() == 40) else {
        return Err(StoreError::Damaged("the head of a commit in the log is malformed".into()));
    };
    let mut octets = [0; 32];
    octets.copy_from_slice(digest);
    Ok(Some(Summary { entries: u64::from_be_bytes(*entries), digest: Digest(octets) }))
}

/// Visits what was touched, newest first, with the USN of the commit; `false` ends the visit.
pub fn touched_back(
    read: &dyn Read,
    context: u32,
    visit: &mut dyn FnMut(u64, &Touched) -> bool,
) -> Result<(), StoreError> {
    let mut failure = None;
    read.scan_back(Table::Log, &key(context, 0, 0), &key(context + 1, 0, 0), &mut |key, octets| {
        if key.ends_with(&[0; 4]) {
            return true; // the head of a commit
        }
        let mut touched = Vec::new();
        match decode(octets, &mut |one| touched.push(one)) {
            Ok(()) => touched.iter().rev().all(|one| visit(usn_of(key), one)),
            Err(error) => {
                failure = Some(StoreError::Damaged(format!("a record of the log: {error}")));
                false
            }
        }
    })?;
    failure.map_or(Ok(()), Err)
}

/// Forgets all; the floor is then for the caller to set.
pub(super) fn clear(tx: &mut dyn Write, context: u32) -> Result<(), StoreError> {
    tx.delete_range(Table::Log, &key(context, 0, 0), &key(context + 1, 0, 0))
}

/// Forgets what is needed only for USNs below `usn`.
pub fn trim(tx: &mut dyn Write, context: u32, usn: u64) -> Result<(), StoreError> {
    let Some(mut record) = context_by_number(tx.as_read(), context)? else { return Ok(()) };
    // The floor must be a USN that this store held.
    let mut floor = record.log_floor;
    let (from, to) = (key(context, 0, 0), key(context, usn.saturating_add(1), 0));
    tx.scan_back(Table::Log, &from, &to, &mut |key, _| {
        floor = usn_of(key).max(floor);
        false
    })?;
    // The head of the floor stays, for it tells the digest there.
    tx.delete_range(Table::Log, &from, &key(context, floor, 0))?;
    tx.delete_range(Table::Log, &key(context, floor, 1), &key(context, floor + 1, 0))?;
    tx.delete_range(Table::Provenance, &key(context, 0, 0)[..12], &key(context, floor, 0)[..12])?;
    record.log_floor = floor;
    put_context(tx, &record)
}

impl TouchedSet {
    /// Adds what came next.
    pub fn note(&mut self, touched: Touched) {
        use EntryTouch::{Added, Deleted, Replaced};
        match touched {
            Touched::Added(uuid) => {
                let state = if self.entries.contains_key(&uuid) { Replaced } else { Added };
                self.entries.insert(uuid, state);
            }
            Touched::Deleted(uuid) => {
                if self.entries.get(&uuid) == Some(&Added) {
                    self.entries.remove(&uuid);
                } else {
                    self.entries.insert(uuid, Deleted);
                }
            }
            Touched::Named(uuid) => {
                if let Some(touches) = self.touches(uuid) {
                    touches.named = true;
                }
            }
            Touched::Left(..) => {}
            Touched::Attribute(uuid, name) => {
                if let Some(touches) = self.touches(uuid) {
                    touches.attributes.insert(name.to_ascii_lowercase(), AttributeTouch::Whole);
                }
            }
            Touched::Value(uuid, name, value) => {
                let Some(touches) = self.touches(uuid) else { return };
                let attribute = touches.attributes.entry(name.to_ascii_lowercase());
                let none = || AttributeTouch::Values(BTreeSet::new());
                if let AttributeTouch::Values(values) = attribute.or_insert_with(none) {
                    values.insert(value);
                }
            }
        }
    }

    /// The grain of an entry that is wholly new or gone does not matter.
    fn touches(&mut self, uuid: Uuid) -> Option<&mut Touches> {
        match self.entries.entry(uuid).or_insert_with(|| EntryTouch::Changed(Box::default())) {
            EntryTouch::Changed(touches) => Some(touches),
            EntryTouch::Added | EntryTouch::Deleted | EntryTouch::Replaced => None,
        }
    }
}

/// A record is written when it has grown to this.
const RECORD_BYTES: usize = 16 << 10;

const ADDED: u8 = 1;
const DELETED: u8 = 2;
const NAMED: u8 = 3;
const ATTRIBUTE: u8 = 4;
const VALUE: u8 = 5;
const LEFT: u8 = 6;

/// Context number, USN, sequence; 0 is the head of the commit.
fn key(context: u32, usn: u64, sequence: u32) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&context.to_be_bytes());
    key[4..12].copy_from_slice(&usn.to_be_bytes());
    key[12..].copy_from_slice(&sequence.to_be_bytes());
    key
}

fn sequence_of(key: &[u8]) -> u32 {
    let mut sequence = [0; 4];
    sequence.copy_from_slice(&key[12..16]);
    u32::from_be_bytes(sequence)
}

fn usn_of(key: &[u8]) -> u64 {
    let mut usn = [0; 8];
    usn.copy_from_slice(&key[4..12]);
    u64::from_be_bytes(usn)
}

fn encode_run(buffer: &mut Vec<u8>, batch: &[u8; 12], first: u32, count: u32) {
    let mut e = Encoder::new(buffer);
    let _ = e.u8(ADDED).and_then(|e| e.bytes(batch)).and_then(|e| e.u32(first)).and_then(|e| e.u32(count));
}

/// One CBOR item after another. Writing to a Vec cannot fail.
fn encode(touched: &Touched, buffer: &mut Vec<u8>) {
    let mut e = Encoder::new(&mut *buffer);
    let _ = match touched {
        Touched::Added(uuid) => {
            let (batch, ordinal) = batch_of(*uuid);
            return encode_run(buffer, &batch, ordinal, 1);
        }
        Touched::Deleted(uuid) => e.u8(DELETED).and_then(|e| e.bytes(uuid.as_bytes())),
        Touched::Named(uuid) => e.u8(NAMED).and_then(|e| e.bytes(uuid.as_bytes())),
        Touched::Left(uuid, parent, rdn) => e
            .u8(LEFT)
            .and_then(|e| e.bytes(uuid.as_bytes()))
            .and_then(|e| e.bytes(parent.as_bytes()))
            .and_then(|e| e.bytes(rdn)),
        Touched::Attribute(uuid, name) => {
            e.u8(ATTRIBUTE).and_then(|e| e.bytes(uuid.as_bytes())).and_then(|e| e.str(name))
        }
        Touched::Value(uuid, name, value) => e
            .u8(VALUE)
            .and_then(|e| e.bytes(uuid.as_bytes()))
            .and_then(|e| e.str(name))
            .and_then(|e| e.bytes(value)),
    };
}

fn decode(octets: &[u8], note: &mut dyn FnMut(Touched)) -> Result<(), minicbor::decode::Error> {
    let mut d = Decoder::new(octets);
    let uuid = |d: &mut Decoder<'_>| {
        Uuid::from_slice(d.bytes()?).map_err(|_| minicbor::decode::Error::message("not an entryUUID"))
    };
    while d.position() < octets.len() {
        match d.u8()? {
            ADDED => {
                let batch =
                    d.bytes()?.try_into().map_err(|_| minicbor::decode::Error::message("not a batch"))?;
                let (first, count) = (d.u32()?, d.u32()?);
                for ordinal in first..first.saturating_add(count) {
                    note(Touched::Added(from_batch(batch, ordinal)));
                }
            }
            DELETED => note(Touched::Deleted(uuid(&mut d)?)),
            NAMED => note(Touched::Named(uuid(&mut d)?)),
            LEFT => note(Touched::Left(uuid(&mut d)?, uuid(&mut d)?, d.bytes()?.to_vec())),
            ATTRIBUTE => note(Touched::Attribute(uuid(&mut d)?, d.str()?.to_owned())),
            VALUE => note(Touched::Value(uuid(&mut d)?, d.str()?.to_owned(), d.bytes()?.to_vec())),
            kind => return Err(minicbor::decode::Error::message(format!("kind {kind}"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::context::create_context;
    use super::super::dn::Dn;
    use super::super::entry::uuid_in_batch;
    use super::super::memory::MemoryStore;
    use super::*;

    fn set_of(touched: &[Touched]) -> TouchedSet {
        let mut set = TouchedSet::default();
        touched.iter().cloned().for_each(|touched| set.note(touched));
        set
    }

    fn reached(n: u64) -> Summary {
        Summary { entries: n, digest: Digest([n as u8; 32]) }
    }

    #[test]
    fn touches_coalesce() {
        let u = Uuid::from_u128(1);
        let only = |set: TouchedSet| set.entries.get(&u).cloned();
        use Touched::{Added, Attribute, Deleted, Named, Value};
        assert_eq!(only(set_of(&[Added(u), Named(u), Deleted(u)])), None);
        assert_eq!(only(set_of(&[Added(u), Attribute(u, "cn".into())])), Some(EntryTouch::Added));
        assert_eq!(only(set_of(&[Named(u), Deleted(u)])), Some(EntryTouch::Deleted));
        assert_eq!(only(set_of(&[Deleted(u), Added(u), Named(u)])), Some(EntryTouch::Replaced));
        assert_eq!(only(set_of(&[Deleted(u), Added(u), Deleted(u)])), Some(EntryTouch::Deleted));
        let value = |v: u8| Value(u, "Member".into(), vec![v]);
        let Some(EntryTouch::Changed(touches)) = only(set_of(&[value(1), Named(u), value(2), value(1)]))
        else {
            panic!("changed")
        };
        assert!(touches.named);
        assert_eq!(touches.attributes["member"], AttributeTouch::Values([vec![1], vec![2]].into()));
        let Some(EntryTouch::Changed(touches)) =
            only(set_of(&[value(1), Attribute(u, "MEMBER".into()), value(2)]))
        else {
            panic!("changed")
        };
        assert_eq!(touches.attributes["member"], AttributeTouch::Whole);
    }

    #[test]
    fn the_log_answers_for_the_usns_it_held() {
        let mut store = MemoryStore::new();
        let mut tx = store.begin();
        let mut record =
            create_context(&mut tx, &Dn::parse("o=x").unwrap(), "x", Uuid::from_u128(9)).unwrap();
        let ctx = record.number;
        let u: Vec<Uuid> = (0..5).map(|i| uuid_in_batch([3; 12], i)).collect();
        append(
            &mut tx,
            ctx,
            1,
            reached(1),
            &[Touched::Added(u[0]), Touched::Added(u[1]), Touched::Added(u[2])],
        )
        .unwrap();
        append(&mut tx, ctx, 5, reached(5), &[Touched::Deleted(u[1]), Touched::Added(u[4])]).unwrap();
        append(&mut tx, ctx, 6, reached(6), &[Touched::Value(u[0], "m".into(), b"v".to_vec())]).unwrap();
        record.position.usn = 6;
        put_context(&mut tx, &record).unwrap();

        let since = |tx: &dyn Read, usn| touched_since(tx, ctx, usn).unwrap().map(|set| set.entries.len());
        assert_eq!(since(&tx, 0), Some(3), "added and deleted since is nothing");
        assert_eq!(since(&tx, 1), Some(3));
        assert_eq!(since(&tx, 3), None, "never stood there");
        assert_eq!(since(&tx, 5), Some(1));
        assert_eq!(since(&tx, 6), Some(0));
        assert_eq!(since(&tx, 7), None);
        assert_eq!(held(&tx, ctx, 5).unwrap(), Some(reached(5)));

        trim(&mut tx, ctx, 4).unwrap();
        assert_eq!((since(&tx, 0), since(&tx, 1), since(&tx, 5)), (None, Some(3), Some(1)));
        trim(&mut tx, ctx, 6).unwrap();
        assert_eq!((since(&tx, 5), since(&tx, 6)), (None, Some(0)));
        assert_eq!(held(&tx, ctx, 6).unwrap(), Some(reached(6)));
    }

    #[test]
    fn an_import_takes_one_short_record() {
        let mut store = MemoryStore::new();
        let mut tx = store.begin();
        let record = create_context(&mut tx, &Dn::parse("o=x").unwrap(), "x", Uuid::from_u128(9)).unwrap();
        let touched: Vec<_> = (0..100_000).map(|i| Touched::Added(uuid_in_batch([3; 12], i))).collect();
        append(&mut tx, record.number, 1, reached(1), &touched).unwrap();
        let mut octets = 0;
        tx.scan(Table::Log, &[], &[0xff], &mut |_, value| {
            octets += value.len();
            true
        })
        .unwrap();
        assert!(octets < 100, "{octets}");
        put_context(
            &mut tx,
            &super::super::ContextRecord {
                position: super::super::Position { usn: 1, ..record.position },
                ..record.clone()
            },
        )
        .unwrap();
        assert_eq!(touched_since(&tx, record.number, 0).unwrap().unwrap().entries.len(), 100_000);
    }
}
