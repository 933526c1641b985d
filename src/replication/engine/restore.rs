//! A master whose store was put back to an earlier day takes back what its partners still have.
//!
//! PROMISES
//!   The first commit after each start begins a new invocation id, so what is committed after a restore, or
//!   on a clone, never claims a position that was taken before. A partner that stands where our history does
//!   not pass shows that we lost something: nothing is sent over it; it is asked for, proved by
//!   our own signature, and taken back. What was changed here since stays as it is here, attribute by attribute; where
//!   that differs from what the partner has, an event says so. What was deleted there stays, and is told, if that is more
//!   than the link's share. However much differs, the naming context goes on.
//!   A second life that goes on elsewhere shows as losses again and again, signed later than it was merged last; after
//!   [`MERGES_MAX`] in a day the naming context is held as forked, and reported, until an operator decides or nobody shows
//!   the other life any more.
//!
//! LIMITS
//!   Changes that nobody received before the restore are gone. [`LINEAGE_MAX`](crate::directory::lineage::LINEAGE_MAX)
//!   invocations are remembered: what a partner holds that stands further back is taken for old, not for lost.

use minicbor::{Decode, Encode};
use sha2::Digest as _;
use sha2::Sha256;
use uuid::Uuid;

use super::Event;
use super::config::{Partner, same_context};
use super::hold::deletions_max;
use super::turn::Turn;
use crate::directory::context::{self, ContextError, ContextRecord};
use crate::directory::dn::Dn;
use crate::directory::merge::{self, Conflict, Parting};
use crate::directory::replica::ReplayError;
use crate::directory::{Digest, Lineage, Position, Read, StoreError, Table, log, lookup};
use crate::replication::checkpoint::Checkpoint;
use crate::replication::parts::Source;
use crate::replication::peer::{Link, Millis, Point, Told};
use crate::replication::provenance::{self, Step};
use crate::replication::transfer::{self, Manifest, TransferError};

/// What is remembered of losses of one naming context of ours, in `Table::Meta`.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Loss {
    /// Where a partner stands; None: nothing is missed at present.
    #[n(0)]
    pub seen: Option<Position>,
    /// When histories were merged lately, of which the later ones went on after the one before.
    #[n(1)]
    #[cbor(default)]
    pub merges: Vec<Millis>,
    /// It was taken for a fork, and nobody decided on that since.
    #[n(2)]
    #[cbor(default)]
    pub forked: bool,
}

/// So often in a day a history that goes on is merged before it is taken for a fork.
pub const MERGES_MAX: usize = 3;
/// So many entries are named of which something was not taken back.
const CONFLICTS_TOLD_MAX: usize = 20;
const DAY_MS: Millis = 86_400_000;

/// Why a merge was given up; all of it is undone.
enum Stop {
    Store(StoreError),
    Other(String),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Stop {
        match error {
            // Of ours or theirs something cannot be read; that is no reason to do nothing else.
            StoreError::Damaged(_) => Stop::Other(error.to_string()),
            error => Stop::Store(error),
        }
    }
}

/// What is remembered of losses of a naming context.
///
/// # Errors
/// The store's.
pub fn loss(read: &dyn Read, number: u32) -> Result<Loss, StoreError> {
    let Some(bytes) = read.get(Table::Meta, &key(number))? else { return Ok(Loss::default()) };
    minicbor::decode(&bytes).map_err(|error| StoreError::Damaged(format!("the record of a loss: {error}")))
}

impl Turn<'_> {
    /// The first commit since the start gets a new invocation id, before anybody hears of it.
    pub(super) fn begin_invocation(&mut self, number: u32) -> Result<(), StoreError> {
        let found = self.contexts.iter().find(|record| record.number == number).cloned();
        let Some(mut record) = found.filter(|record| record.master == self.config.site) else {
            return Ok(());
        };
        if self.renewed.get(&number) != Some(&record.position.invocation) {
            let before = Position { usn: record.position.usn.saturating_sub(1), ..record.position };
            if let Some(held) = log::held(self.tx.as_read(), number, before.usn)? {
                continue_from(&mut record.lineage, before, held.digest);
            }
            record.position.invocation = self.fresh_invocation(&before, &record.digest);
            context::put_context(self.tx, &record)?;
            self.renewed.insert(number, record.position.invocation);
            self.refresh(number)?;
        }
        Ok(())
    }

    /// A new id without a source of chance. Two lives of a store that leave the same point in the same millisecond share it
    /// only if `state` is the same.
    fn fresh_invocation(&self, before: &Position, state: &Digest) -> Uuid {
        let mut hash = Sha256::new();
        hash.update(b"bridgehead invocation 1\0");
        hash.update(self.config.site.as_bytes());
        hash.update(before.invocation.as_bytes());
        hash.update(before.usn.to_be_bytes());
        hash.update(self.now.to_be_bytes());
        hash.update(state.0);
        let mut octets = [0; 16];
        octets.copy_from_slice(&hash.finalize()[..16]);
        uuid::Builder::from_custom_bytes(octets).into_uuid()
    }

    pub(super) fn loss(&self, number: u32) -> Result<Loss, StoreError> {
        loss(self.tx.as_read(), number)
    }

    /// Which naming contexts of ours are being taken back, and which go on in two lives.
    pub(super) fn find_losses(&mut self) -> Result<(), StoreError> {
        let mut lost = Vec::new();
        for record in self.contexts.iter().filter(|record| record.master == self.config.site) {
            let loss = loss(self.tx.as_read(), record.number)?;
            if loss.seen.is_some() {
                lost.push((record.clone(), loss));
            }
        }
        let records: Vec<&ContextRecord> = lost.iter().map(|(record, _)| record).collect();
        let missed = if lost.is_empty() { Vec::new() } else { self.missed(&records)? };
        for ((record, loss), missed) in lost.into_iter().zip(missed) {
            if !missed {
                // Who showed it was put back, too, or is no partner any more: nobody is left to take it back from.
                self.nothing_lost(&record, loss)?;
            } else if self.is_forked(&loss) {
                self.forked.push(record.dn.to_string());
            } else {
                self.recovering.push(record.dn.to_string());
            }
        }
        Ok(())
    }

    /// Of which of these naming contexts of ours some partner stands where its history does not pass.
    fn missed(&mut self, records: &[&ContextRecord]) -> Result<Vec<bool>, StoreError> {
        let names: Vec<String> = records.iter().map(|record| record.dn.to_string()).collect();
        let mut missed = vec![false; records.len()];
        self.each_other_partner(None, |_, _, peer| {
            for link in peer.links.iter().filter(|link| link.wanted) {
                let Some(at) = names.iter().position(|name| same_context(name, &link.context)) else {
                    continue;
                };
                let record = records[at];
                let beside = |at: &Position| *at != record.position && !record.is_on_history(at);
                missed[at] |= link.theirs.is_some_and(|(at, _)| beside(&at));
            }
            false
        })?;
        Ok(missed)
    }

    /// No partner shows anything any more that is missed here, so there is no other life either.
    fn nothing_lost(&mut self, record: &ContextRecord, loss: Loss) -> Result<(), StoreError> {
        self.put_loss(record.number, &Loss { seen: None, forked: false, ..loss })?;
        self.resolve_fork(&record.dn.to_string(), None)
    }

    fn put_loss(&mut self, number: u32, loss: &Loss) -> Result<(), StoreError> {
        let bytes = minicbor::to_vec(loss).expect("writing to memory does not fail");
        self.tx.put(Table::Meta, &key(number), &bytes)
    }

    /// Whether no more is merged: too often of late, or too often once, and nobody decided on that since.
    fn is_forked(&self, loss: &Loss) -> bool {
        loss.forked || loss.merges.iter().filter(|&&at| self.now - at < DAY_MS).count() >= MERGES_MAX
    }

    /// A partner stands where our own history does not pass.
    pub(super) fn lost(
        &mut self,
        partner: &Partner,
        record: &ContextRecord,
        theirs: Point,
        link: &mut Link,
    ) -> Result<(), StoreError> {
        if !link.wanted {
            // What it held when it told of it last.
            return Ok(());
        }
        let mut loss = self.loss(record.number)?;
        let forked = self.is_forked(&loss);
        if loss.seen != Some(theirs.0) || loss.forked != forked {
            (loss.seen, loss.forked) = (Some(theirs.0), forked);
            self.put_loss(record.number, &loss)?;
        }
        if !forked && !self.recovering.contains(&link.context) {
            self.recovering.push(link.context.clone());
        }
        let is_new = forked && self.hold_fork(&partner.site, &link.context, theirs.0, record.entries)?;
        let tells = if forked { Told::Forked } else { Told::Lost };
        if link.told.replace(tells) != Some(tells) || is_new {
            let (site, context) = (partner.site.clone(), link.context.clone());
            let (ours, theirs) = (record.position.into(), theirs.0.into());
            self.event(match forked {
                true => Event::Forked { site, context, ours, theirs },
                false => Event::Lost { site, context, ours, theirs },
            });
        }
        if !forked && link.ask_at.is_none() {
            link.ask_at = Some(self.now);
        }
        Ok(())
    }

    /// The operator wants what a second life did taken back once more.
    pub(super) fn merge_again(&mut self, number: u32) -> Result<(), StoreError> {
        let mut loss = self.loss(number)?;
        loss.merges.clear();
        loss.forked = false;
        self.put_loss(number, &loss)?;
        let name = self.contexts.iter().find(|record| record.number == number);
        if let Some(name) = name.map(|record| record.dn.to_string()) {
            self.forked.retain(|forked| !same_context(forked, &name));
            self.recovering.push(name);
        }
        Ok(())
    }

    /// What was lost came back as it was: the next commit begins a new invocation.
    pub(super) fn taken_back(
        &mut self,
        from: &str,
        number: u32,
        checkpoint: &Checkpoint,
    ) -> Result<(), StoreError> {
        self.renewed.remove(&number);
        // Else another partner holds more.
        if let Some(record) = context::context_by_number(self.tx.as_read(), number)?
            && !self.missed(&[&record])?[0]
        {
            self.nothing_lost(&record, self.loss(number)?)?;
            self.recovering.retain(|name| !same_context(name, &checkpoint.context.to_string()));
        }
        self.event(Event::Recovered {
            site: from.to_owned(),
            context: checkpoint.context.to_string(),
            position: checkpoint.position.into(),
        });
        Ok(())
    }

    /// We changed something since the restore: takes from the partner's state what was not changed here.
    /// Whether that worked; if not, nothing was changed.
    pub(super) fn merge(
        &mut self,
        from: &str,
        record: &ContextRecord,
        manifest: &Manifest,
        checkpoint: &Checkpoint,
        body: &mut dyn Source,
    ) -> Result<bool, StoreError> {
        self.tx.savepoint()?;
        let merged = self.merge_within(from, record, manifest, checkpoint, body);
        self.tx.end_savepoint(merged.is_ok())?;
        match merged {
            Ok(()) => {
                let mut loss = self.loss(record.number)?;
                loss.merges.retain(|at| self.now - at < DAY_MS);
                // Partners that had got so far before the restore, one further than the other, are no second life.
                let signed = checkpoint.time.as_millisecond();
                if loss.merges.last().is_none_or(|&last| signed > last) {
                    loss.merges.push(self.now);
                }
                self.put_loss(record.number, &loss)?;
                self.taken_back(from, record.number, checkpoint)?;
                self.refresh(record.number)?;
                if let Some(merged) = self.contexts.iter().find(|merged| merged.number == record.number) {
                    self.renewed.insert(record.number, merged.position.invocation);
                }
                Ok(true)
            }
            Err(Stop::Store(error)) => Err(error),
            Err(Stop::Other(reason)) => {
                self.not_applied(from, &checkpoint.context.to_string(), reason);
                Ok(false)
            }
        }
    }

    fn merge_within(
        &mut self,
        from: &str,
        record: &ContextRecord,
        manifest: &Manifest,
        checkpoint: &Checkpoint,
        body: &mut dyn Source,
    ) -> Result<(), Stop> {
        let theirs = self.unpack(record, manifest, checkpoint, body)?;
        let read = self.tx.as_read();
        let parted = parting(read, record, checkpoint, &manifest.lineage)?;

        let mut own = record.clone();
        let common = record.lineage.ends().iter().rposition(|end| manifest.lineage.ends().contains(end));
        for &(end, digest) in manifest.lineage.ends() {
            // Who stopped on the way to what was lost is led on, too.
            if !record.is_on_history(&end) {
                continue_from(&mut own.lineage, end, digest);
            }
        }
        continue_from(&mut own.lineage, checkpoint.position, checkpoint.digest);
        continue_from(&mut own.lineage, record.position, record.digest);
        own.lineage.merged(common.map_or(0, |last| last + 1));
        own.position.invocation = self.fresh_invocation(&record.position, &checkpoint.digest);
        own.position.usn = own.position.usn.max(checkpoint.position.usn);
        context::put_context(self.tx, &own)?;
        // It may have been put back for the sake of what was deleted.
        let most = self.config.partner(from).map_or(0, |partner| deletions_max(partner, record.entries));
        let merged = merge::merge(self.tx, &own, &theirs, parted.as_ref(), most);
        let conflicts = merged.map_err(|error| match error {
            ReplayError::Store(error) => error.into(),
            error => Stop::Other(error.to_string()),
        })?;
        self.tell_conflicts(&own, &theirs, &conflicts)?;
        Ok(context::remove_context(self.tx, theirs.number)?)
    }

    /// Names the first of them, and says how many there are.
    fn tell_conflicts(
        &mut self,
        own: &ContextRecord,
        theirs: &ContextRecord,
        conflicts: &[Conflict],
    ) -> Result<(), StoreError> {
        let context = own.dn.to_string();
        for conflict in conflicts.iter().take(CONFLICTS_TOLD_MAX) {
            let dn = match lookup::dn_of(self.tx.as_read(), own, conflict.uuid)? {
                None => lookup::dn_of(self.tx.as_read(), theirs, conflict.uuid)?,
                here => here,
            };
            let dn = dn.map(|dn| dn.to_string()).unwrap_or_default();
            self.event(Event::Conflict { context: context.clone(), dn, reason: conflict.to_string() });
        }
        if conflicts.len() > CONFLICTS_TOLD_MAX {
            self.event(Event::Conflicts { context, entries: conflicts.len() as u64 });
        }
        Ok(())
    }

    /// The partner's state as a naming context of its own, for the time of the merge.
    fn unpack(
        &mut self,
        record: &ContextRecord,
        manifest: &Manifest,
        checkpoint: &Checkpoint,
        body: &mut dyn Source,
    ) -> Result<ContextRecord, Stop> {
        let name = Dn::parse("cn=what was lost").map_err(|error| Stop::Other(error.to_string()))?;
        let created = context::create_context(self.tx, &name, &record.master, Uuid::nil());
        let mut scratch = created.map_err(|error| match error {
            ContextError::Store(error) => error.into(),
            error => Stop::Other(error.to_string()),
        })?;
        scratch.dn = record.dn.clone();
        match transfer::apply(self.tx, &scratch, manifest, checkpoint, body) {
            Ok(_) => Ok(scratch),
            Err(TransferError::Store(error)) => Err(error.into()),
            Err(error) => Err(Stop::Other(error.to_string())),
        }
    }
}

/// Notes where an earlier invocation of this history ended.
fn continue_from(lineage: &mut Lineage, end: Position, digest: Digest) {
    if end.usn > 0 {
        lineage.push(end, digest);
    }
}

/// Where our own commits last stood on a state that both histories passed, ours and that of the checkpoint, and what merges
/// took back since.
fn parting(
    read: &dyn Read,
    record: &ContextRecord,
    checkpoint: &Checkpoint,
    lineage: &Lineage,
) -> Result<Option<Parting>, StoreError> {
    let Some(usn) = parted_at(read, record, checkpoint, lineage)? else { return Ok(None) };
    let steps = provenance::sent_since(read, record.number, usn)?;
    let passes = |at: Position| at.is_passed_by(&checkpoint.position) || lineage.passes(&at);
    let passed = steps.iter().filter(|step| step.taken_back.is_some_and(passes));
    let usns = |step: &Step| step.position.usn;
    Ok(Some(Parting { usn, passed: passed.map(usns).collect(), merges: steps.iter().map(usns).collect() }))
}

/// The last USN at which our own commits stood on a state that both passed. A life that was merged into ours passed its
/// USNs beside ours, where our log tells of other commits; so it is the state that counts, not the number.
fn parted_at(
    read: &dyn Read,
    record: &ContextRecord,
    checkpoint: &Checkpoint,
    lineage: &Lineage,
) -> Result<Option<u64>, StoreError> {
    let (here, there) = ((record.position, record.digest), (checkpoint.position, checkpoint.digest));
    // If our log goes back to the beginning, they parted there at the latest: nothing was here then.
    let mut last = (record.log_floor == 0).then_some(0);
    for ours in record.lineage.ends().iter().chain([&here]) {
        let theirs = lineage.ends().iter().chain([&there]);
        for theirs in theirs.filter(|(end, _)| end.invocation == ours.0.invocation) {
            let &(end, digest) = if theirs.0.usn < ours.0.usn { theirs } else { ours };
            let passed = log::held(read, record.number, end.usn)?.is_some_and(|held| held.digest == digest);
            last = last.max(passed.then_some(end.usn));
        }
    }
    Ok(last)
}

fn key(number: u32) -> Vec<u8> {
    [b"loss ", &number.to_be_bytes()[..]].concat()
}
