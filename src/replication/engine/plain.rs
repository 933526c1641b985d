//! A plain codec for transfers: whole entries. It stands in until the columnar one has landed.

use crate::directory::context::{self, ContextRecord};
use crate::directory::digest::Summary;
use crate::directory::entry::Entry;
use crate::directory::log::{self, EntryTouch};
use crate::directory::replica::{Applied, AttributeDelta, Delta, Replay, ReplayError};
use crate::directory::{Digest, Position, Read, StoreError, Write, lookup};
use crate::replication::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::replication::parts::Source;
use crate::replication::transfer::{Base, Manifest};

pub struct Encoded {
    pub manifest: Manifest,
    pub body: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Malformed(String),
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

type Item = (u8, minicbor::bytes::ByteVec);

pub fn encode(
    read: &dyn Read,
    record: &ContextRecord,
    base: Option<(Position, Digest)>,
    checkpoint: SignedCheckpoint,
) -> Result<Option<Encoded>, TransferError> {
    let mut items: Vec<Item> = Vec::new();
    let base = match base {
        None => {
            lookup::scan_entries(read, record.number, &mut |entry| {
                items.push((0, entry.encode().into()));
                true
            })?;
            Base::Nothing
        }
        Some((position, _)) => {
            let Some(set) = log::touched_since(read, record.number, position.usn)? else { return Ok(None) };
            let Some(held) = log::held(read, record.number, position.usn)? else { return Ok(None) };
            for (uuid, touch) in set.entries {
                let kind = if touch == EntryTouch::Added { 0 } else { 1 };
                match lookup::entry(read, record.number, uuid)? {
                    Some(entry) => items.push((kind, entry.encode().into())),
                    None => items.push((2, uuid.as_bytes().to_vec().into())),
                }
            }
            Base::At(position, held.digest)
        }
    };
    let body = minicbor::to_vec(&items).unwrap_or_default();
    let count = |kind| items.iter().filter(|item| item.0 == kind).count() as u64;
    let (added, changed, deleted) = (count(0), count(1), count(2));
    let manifest = Manifest { checkpoint, base, body_bytes: body.len() as u64, added, changed, deleted };
    Ok(Some(Encoded { manifest, body }))
}

pub fn apply(
    tx: &mut dyn Write,
    number: u32,
    manifest: &Manifest,
    checkpoint: &Checkpoint,
    mut body: impl Source,
) -> Result<Applied, TransferError> {
    let malformed = |what: String| TransferError::Malformed(what);
    let mut bytes = Vec::new();
    while let Some(more) = body.next(tx.as_read())? {
        bytes.extend(more);
    }
    let items: Vec<Item> = minicbor::decode(&bytes).map_err(|error| malformed(error.to_string()))?;
    let Some(record) = context::context_by_number(tx.as_read(), number)? else {
        return Err(malformed("no such naming context".into()));
    };
    let mut replay = Replay::begin(tx, &record);
    if manifest.base == Base::Nothing {
        replay.clear()?;
    }
    for (kind, bytes) in items {
        if kind == 2 {
            let uuid = uuid::Uuid::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
            replay.delete(uuid)?;
            continue;
        }
        let entry = Entry::decode(&bytes).map_err(|error| malformed(error.to_string()))?;
        match lookup::entry(replay.tx().as_read(), number, entry.uuid)? {
            Some(old) if kind == 1 => replay.change(entry.uuid, delta(&old, &entry))?,
            _ => replay.add(&entry)?,
        }
    }
    let expected = Summary { entries: checkpoint.entries, digest: checkpoint.digest };
    Ok(replay.finish(checkpoint.position, expected)?)
}

fn delta(old: &Entry, new: &Entry) -> Delta {
    let gone = old.attributes.iter().filter(|old| new.attributes.attribute(old.name()).is_none());
    let set = new.attributes.iter().filter(|new| old.attributes.attribute(new.name()) != Some(new));
    Delta {
        parent: Some(new.parent),
        rdn: Some(new.rdn.clone()),
        attributes: gone
            .map(|attribute| AttributeDelta::Remove(attribute.name().to_owned()))
            .chain(set.map(|attribute| AttributeDelta::Set(attribute.clone())))
            .collect(),
    }
}
