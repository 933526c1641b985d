//! Applies transfers to a replica, or tells what they would do.
//!
//! PROMISES
//!   [`apply`] leads exactly to the checkpoint, or changes nothing. [`preview`] changes nothing.

use uuid::Uuid;

use super::TransferError;
use super::decode::{Sink, decode};
use super::manifest::{Base, Manifest};
use super::names;
use crate::directory::digest::Summary;
use crate::directory::lookup::{self, Finder};
use crate::directory::replica::{Applied, Delta, Replay, ReplayError};
use crate::directory::{ContextRecord, Dn, Entry, Read, Write};
use crate::replication::checkpoint::Checkpoint;
use crate::replication::parts::Source;

/// Takes the replica of `context` to `proved`, which is the manifest's checkpoint after
/// [`verify`](crate::replication::checkpoint::SignedCheckpoint::verify) under the master's key.
pub fn apply(
    tx: &mut dyn Write,
    context: &ContextRecord,
    manifest: &Manifest,
    proved: &Checkpoint,
    source: &mut dyn Source,
) -> Result<Applied, TransferError> {
    check(context, manifest)?;
    if manifest.checkpoint.claimed()? != *proved {
        return Err(TransferError::OtherCheckpoint);
    }
    tx.savepoint()?;
    let applied = replay(tx, context, manifest, proved, source);
    tx.end_savepoint(applied.is_ok())?;
    applied
}

fn replay(
    tx: &mut dyn Write,
    context: &ContextRecord,
    manifest: &Manifest,
    proved: &Checkpoint,
    source: &mut dyn Source,
) -> Result<Applied, TransferError> {
    let mut replay = Replay::begin(tx, context);
    if manifest.base == Base::Nothing {
        replay.clear()?;
    }
    decode(context, manifest, source, &mut replay)?;
    Ok(replay.finish(proved.position, Summary { entries: proved.entries, digest: proved.digest })?)
}

/// Whether the transfer is for this naming context, and for where the replica stands.
fn check(context: &ContextRecord, manifest: &Manifest) -> Result<(), TransferError> {
    if !manifest.checkpoint.claimed()?.context.matches(&context.dn) {
        return Err(TransferError::OtherContext);
    }
    match manifest.base {
        Base::At(position, digest) if (position, digest) != (context.position, context.digest) => {
            Err(TransferError::OtherBase { needed: position, held: context.position })
        }
        _ => Ok(()),
    }
}

impl Sink for Replay<'_> {
    fn read(&self) -> &dyn Read {
        self.tx().as_read()
    }

    fn delete(&mut self, uuid: Uuid) -> Result<(), TransferError> {
        Ok(Replay::delete(self, uuid)?)
    }

    fn change(&mut self, uuid: Uuid, delta: Delta) -> Result<(), TransferError> {
        Ok(Replay::change(self, uuid, delta)?)
    }

    fn add(&mut self, entry: Entry) -> Result<(), TransferError> {
        Ok(Replay::add(self, &entry)?)
    }
}

impl From<ReplayError> for TransferError {
    fn from(error: ReplayError) -> TransferError {
        match error {
            ReplayError::Store(error) => error.into(),
            ReplayError::Count { .. } | ReplayError::Digest { .. } => TransferError::Mismatch(error),
            error => TransferError::Impossible(error),
        }
    }
}

/// One entry that a transfer would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planned {
    Added(Entry),
    /// Was there, and is made anew.
    Replaced {
        dn: Dn,
        entry: Entry,
    },
    Changed {
        dn: Dn,
        delta: Delta,
    },
    Deleted {
        dn: Dn,
    },
}

/// Tells what a transfer would do to the replica of `context` as it stands, and counts it. Of a full
/// load only what differs is told.
pub fn preview(
    read: &dyn Read,
    context: &ContextRecord,
    manifest: &Manifest,
    source: &mut dyn Source,
    visit: &mut dyn FnMut(Planned),
) -> Result<Applied, TransferError> {
    check(context, manifest)?;
    let mut preview = Preview {
        read,
        context,
        is_full: manifest.base == Base::Nothing,
        finder: Finder::new(context),
        deleted: Default::default(),
        counts: Applied::default(),
        visit,
    };
    let names = decode(context, manifest, source, &mut preview)?;
    let mut gone: Vec<Uuid> = std::mem::take(&mut preview.deleted).into_iter().collect();
    if preview.is_full {
        gone = names::all_uuids(read, context)?;
    }
    for uuid in gone.into_iter().filter(|uuid| names.index_of(*uuid).is_none()) {
        let dn = preview.dn(uuid)?;
        preview.counts.deleted += 1;
        (preview.visit)(Planned::Deleted { dn });
    }
    Ok(preview.counts)
}

struct Preview<'p> {
    read: &'p dyn Read,
    context: &'p ContextRecord,
    is_full: bool,
    finder: Finder,
    deleted: std::collections::BTreeSet<Uuid>,
    counts: Applied,
    visit: &'p mut dyn FnMut(Planned),
}

impl Preview<'_> {
    fn dn(&mut self, uuid: Uuid) -> Result<Dn, TransferError> {
        let dn = self.finder.dn_of(self.read, uuid)?;
        dn.ok_or(TransferError::Impossible(ReplayError::Missing(uuid)))
    }
}

impl Sink for Preview<'_> {
    fn read(&self) -> &dyn Read {
        self.read
    }

    fn delete(&mut self, uuid: Uuid) -> Result<(), TransferError> {
        self.deleted.insert(uuid);
        Ok(())
    }

    fn change(&mut self, uuid: Uuid, delta: Delta) -> Result<(), TransferError> {
        let dn = self.dn(uuid)?;
        self.counts.changed += 1;
        (self.visit)(Planned::Changed { dn, delta });
        Ok(())
    }

    fn add(&mut self, entry: Entry) -> Result<(), TransferError> {
        let is_known = self.is_full || self.deleted.contains(&entry.uuid);
        match if is_known { lookup::entry(self.read, self.context.number, entry.uuid)? } else { None } {
            Some(same) if same == entry => {}
            Some(_) => {
                let dn = self.dn(entry.uuid)?;
                self.counts.changed += 1;
                (self.visit)(Planned::Replaced { dn, entry });
            }
            None => {
                self.counts.added += 1;
                (self.visit)(Planned::Added(entry));
            }
        }
        Ok(())
    }
}
