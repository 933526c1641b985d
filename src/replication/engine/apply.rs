//! Transfers are proved and applied.
//!
//! PROMISES
//!   What a transfer changes becomes visible whole, after the result's digest was found to be the one that the
//!   master of the naming context signed; else nothing of it is kept.
//!   A transfer whose base is not here yet waits for it. A position never goes back in its master's history.
//!
//! BUGS
//!   A full load leaves no log of what it changed. So where a hub takes one, its neighbours that stand further back
//!   get everything too, once, even if the hub's former log led from where they stand.

use super::Event;
use super::config::{Partner, same_context};
use super::inbox::asked;
use super::judge::{Verdict, is_signed};
use super::turn::{Turn, point, sooner};
use crate::directory::context::{self, ContextError, ContextRecord};
use crate::directory::{StoreError, Table};
use crate::replication::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::replication::pacing::{in_vain, millis};
use crate::replication::parts::{Assembly, PartError};
use crate::replication::peer::{Peer, Told};
use crate::replication::provenance::{self, Carriers, Step};
use crate::replication::transfer::{self, Base, Manifest, TransferError};
use crate::replication::wire::PartItem;

/// What became of a transfer that was to be applied.
enum Done {
    Applied,
    /// Its parts stay until the operator has decided.
    Held,
    Not,
}

impl Turn<'_> {
    /// A transfer takes no effect; how it begins is kept for the operator.
    pub(super) fn refuse_transfer(
        &mut self,
        from: &str,
        context: &str,
        assembly: &Assembly,
        reason: String,
    ) -> Result<(), StoreError> {
        self.keep_beginning(from, context, assembly, &reason)?;
        self.not_applied(from, context, reason);
        Ok(())
    }

    /// Keeps the first of a transfer's parts that are here, for the operator.
    fn keep_beginning(
        &mut self,
        from: &str,
        context: &str,
        assembly: &Assembly,
        reason: &str,
    ) -> Result<(), StoreError> {
        match assembly.first_part(self.tx.as_read())? {
            Some(part) => self.keep_part(from, PartItem { context: context.to_owned(), part }, reason),
            None => Ok(()),
        }
    }

    /// Applies what can be applied of this naming context, until nothing more can.
    pub(super) fn apply_ready(
        &mut self,
        from: &str,
        peer: &mut Peer,
        context: &str,
    ) -> Result<(), StoreError> {
        while self.apply_one(from, peer, context)? {}
        Ok(())
    }

    fn apply_one(&mut self, from: &str, peer: &mut Peer, context: &str) -> Result<bool, StoreError> {
        for assembly in Assembly::all_from(self.tx.as_read(), from)? {
            let said = match assembly.manifest() {
                Ok(None) => continue,
                Ok(Some(manifest)) => {
                    manifest.checkpoint.claimed().map_err(|e| e.to_string()).map(|said| (manifest, said))
                }
                Err(error) => Err(error.to_string()),
            };
            let (manifest, said) = match said {
                Ok(said) => said,
                Err(reason) => {
                    // Not remembered as finished: nobody knows yet whether the sender meant it so.
                    self.refuse_transfer(from, context, &assembly, reason)?;
                    assembly.drop_all(self.tx)?;
                    continue;
                }
            };
            if !same_context(&said.context.to_string(), context) {
                continue;
            }
            match self.judge(&manifest, &said, asked(peer, context))? {
                Verdict::Wait => {}
                Verdict::Obsolete => {
                    if self.is_beside(context, &manifest, &said) {
                        let reason = "its master went on another way from where it begins".to_owned();
                        self.refuse_transfer(from, context, &assembly, reason)?;
                    }
                    self.discard(peer, &assembly)?;
                }
                Verdict::Parted => {
                    let reason = self.why_parted(context, &manifest);
                    self.refuse_transfer(from, context, &assembly, reason)?;
                    assembly.drop_all(self.tx)?;
                    self.parted(from, peer, context, &said)?;
                    self.ask_ever_less(peer, context, &assembly);
                }
                Verdict::Refuse(reason) => {
                    self.refuse_transfer(from, context, &assembly, reason)?;
                    assembly.drop_all(self.tx)?;
                    self.ask_ever_less(peer, context, &assembly);
                }
                Verdict::Differs => {
                    let reason = "its base is not what we hold at that position".to_owned();
                    self.refuse_transfer(from, context, &assembly, reason)?;
                    assembly.drop_all(self.tx)?;
                    self.start_over(peer, context, &assembly);
                }
                Verdict::Apply(_) | Verdict::Merge(_) if !assembly.is_complete() => {
                    let link = peer.link(context);
                    if link.refused == Some(assembly.transfer()) && link.misfits == 0 {
                        // A key counts by now that did not: questions are not in vain any more.
                        (link.refused, link.asks) = (None, 0);
                        link.ask_at = Some(self.now + millis(self.config.timing.gap));
                    }
                }
                Verdict::Merge(checkpoint) => {
                    let before = self.context(context).map(|record| record.position.usn);
                    if self.merge_from(from, &assembly, &manifest, &checkpoint)? {
                        // One that changed nothing is no commit: what stands at its USN is what was done here.
                        let merged =
                            self.context(context).filter(|record| Some(record.position.usn) > before);
                        if let Some(number) = merged.map(|record| record.number) {
                            let carriers = assembly.carriers().clone();
                            self.note_step(number, Some(from), carriers, Some(&checkpoint), false)?;
                        }
                        self.discard(peer, &assembly)?;
                        self.moved(from, peer, context)?;
                        peer.link(context).push_at = Some(self.now);
                        return Ok(true);
                    }
                    assembly.drop_all(self.tx)?;
                    self.misfits(peer, context, &assembly);
                }
                Verdict::Apply(checkpoint) if self.waits(context, checkpoint.position)? => {}
                Verdict::Apply(checkpoint) => {
                    match self.apply(from, peer, &assembly, &manifest, &checkpoint)? {
                        Done::Applied => {
                            self.discard(peer, &assembly)?;
                            return Ok(true);
                        }
                        Done::Held => {}
                        // Not remembered as finished: the same transfer may come again and fit then.
                        Done::Not => assembly.drop_all(self.tx)?,
                    }
                }
            }
        }
        Ok(false)
    }

    /// What was refused may come again as it is. A start, after which other keys may count, asks at once, and so does the
    /// operator who ends a fork.
    fn ask_ever_less(&mut self, peer: &mut Peer, context: &str, refused: &Assembly) {
        let (first, link) = (millis(self.config.timing.gap), peer.link(context));
        link.refused = Some(refused.transfer());
        let wait = in_vain(first, link.asks, &self.config.timing);
        link.ask_at = sooner(link.ask_at, self.now + wait);
    }

    /// Whether a transfer that begins behind us leads away from our history, as that of a store that was put back or of a
    /// copy does: what it brings is nowhere in what we hold.
    fn is_beside(&self, context: &str, manifest: &Manifest, said: &Checkpoint) -> bool {
        self.context(context).is_some_and(|record| {
            let away = record.is_beside(&said.position) && !manifest.lineage.passes(&record.position);
            away && is_signed(manifest, said)
        })
    }

    fn why_parted(&self, context: &str, manifest: &Manifest) -> String {
        let joins = |record: &ContextRecord| record.lineage.joined_by(&manifest.lineage).is_some();
        let told = manifest.lineage.ends().len();
        match self.context(context).is_none_or(joins) {
            true => "its history and ours went different ways".to_owned(),
            false => {
                format!("its master began anew more than {told} times since, or its history went another way")
            }
        }
    }

    /// The site's history and ours went different ways, and neither knows the other's.
    fn parted(
        &mut self,
        from: &str,
        peer: &mut Peer,
        context: &str,
        said: &Checkpoint,
    ) -> Result<(), StoreError> {
        let record = self.context(context).map(|record| (record.position, record.entries));
        let Some((ours, entries)) = record else { return Ok(()) };
        let is_new = self.hold_fork(from, context, said.position, entries)?;
        let link = peer.link(context);
        if link.told.replace(Told::Forked) != Some(Told::Forked) || is_new {
            self.event(Event::Forked {
                site: from.to_owned(),
                context: context.to_owned(),
                ours: ours.into(),
                theirs: said.position.into(),
            });
        }
        Ok(())
    }

    fn merge_from(
        &mut self,
        from: &str,
        assembly: &Assembly,
        manifest: &Manifest,
        checkpoint: &Checkpoint,
    ) -> Result<bool, StoreError> {
        let Some(record) = self.context(&checkpoint.context.to_string()).cloned() else { return Ok(false) };
        match assembly.open(self.tx.as_read()) {
            Ok((_, mut body)) => {
                let merged = self.merge(from, &record, manifest, checkpoint, &mut body)?;
                if !merged {
                    // Why is in the event that was told already.
                    let reason = "what was lost could not be taken back from it";
                    self.keep_beginning(from, &record.dn.to_string(), assembly, reason)?;
                }
                Ok(merged)
            }
            Err(PartError::Store(error)) => Err(error),
            Err(error) => {
                self.refuse_transfer(from, &record.dn.to_string(), assembly, error.to_string())?;
                Ok(false)
            }
        }
    }

    /// If it was not applied, nothing of it is left in the naming context.
    fn apply(
        &mut self,
        from: &str,
        peer: &mut Peer,
        assembly: &Assembly,
        manifest: &Manifest,
        checkpoint: &Checkpoint,
    ) -> Result<Done, StoreError> {
        let name = checkpoint.context.to_string();
        let mut body = match assembly.open(self.tx.as_read()) {
            Ok((_, body)) => body,
            Err(PartError::Store(error)) => return Err(error),
            Err(error) => {
                self.refuse_transfer(from, &name, assembly, error.to_string())?;
                self.misfits(peer, &name, assembly);
                return Ok(Done::Not);
            }
        };
        let known = self.contexts.len();
        let record = match self.record_of(checkpoint)? {
            Ok(record) => record,
            Err(reason) => {
                self.refuse_transfer(from, &name, assembly, reason)?;
                self.misfits(peer, &name, assembly);
                return Ok(Done::Not);
            }
        };
        let (number, is_new) = (record.number, self.contexts.len() > known);
        let Some(partner) = self.config.partner(from) else { return Ok(Done::Not) };
        let before = self.entries_before(partner, &record, manifest)?;
        self.tx.savepoint()?;
        let result = transfer::apply(self.tx, &record, manifest, checkpoint, &mut body);
        let deletions = match &result {
            Ok(applied) => applied.deleted.max(self.entries_gone(number, &before)?),
            Err(_) => 0,
        };
        let held = self.needs_word(partner, &name, deletions, record.entries)?;
        self.tx.end_savepoint(result.is_ok() && !held)?;
        match result {
            Ok(_) if held && record.master == self.config.site => {
                // Our own, of which we lost something: all of it, for a merge keeps what would be too much to delete.
                let link = peer.link(&name);
                link.ask_full = true;
                link.ask_at = Some(self.now);
                Ok(Done::Not)
            }
            Ok(_) if held => {
                self.hold(partner, &name, checkpoint.position, deletions, record.entries)?;
                // Tells the site that it need not repeat itself.
                peer.answer_at = Some(self.now);
                Ok(Done::Held)
            }
            Ok(applied) => {
                self.keep_checkpoint(number, &manifest.checkpoint)?;
                self.keep_lineage(&record, manifest, checkpoint)?;
                self.refresh(number)?;
                let full = manifest.base == Base::Nothing;
                self.note_step(number, Some(from), assembly.carriers().clone(), Some(checkpoint), full)?;
                self.trim_log(number)?;
                self.got_further(&name, from)?;
                self.event(Event::Applied {
                    site: from.to_owned(),
                    context: name.clone(),
                    position: checkpoint.position.into(),
                    added: applied.added,
                    changed: applied.changed,
                    deleted: applied.deleted,
                });
                if record.master == self.config.site {
                    self.taken_back(from, number, checkpoint)?;
                }
                self.moved(from, peer, &name)?;
                if is_new {
                    self.tell_news(partner, peer)?;
                }
                Ok(Done::Applied)
            }
            // What cannot be read of what is held comes anew like what differs.
            Err(TransferError::Store(error)) if !matches!(error, StoreError::Damaged(_)) => Err(error),
            Err(error) => {
                self.refuse_transfer(from, &name, assembly, error.to_string())?;
                self.start_over(peer, &name, assembly);
                Ok(Done::Not)
            }
        }
    }

    /// Puts on record how the naming context came to where it stands.
    pub(super) fn note_step(
        &mut self,
        number: u32,
        from: Option<&str>,
        carriers: Carriers,
        checkpoint: Option<&Checkpoint>,
        full: bool,
    ) -> Result<(), StoreError> {
        let Some(record) = self.contexts.iter().find(|record| record.number == number) else { return Ok(()) };
        let step = Step {
            position: record.position,
            at: self.now,
            from: from.map(str::to_owned),
            carriers,
            signed_at: checkpoint.map(|checkpoint| checkpoint.time.as_millisecond()),
            full,
            // A merge leads elsewhere than what was sent.
            taken_back: checkpoint.map(|sent| sent.position).filter(|sent| *sent != record.position),
        };
        provenance::put(self.tx, number, &step)
    }

    /// What is held now has this history, so that it is known when somebody stands on it.
    fn keep_lineage(
        &mut self,
        before: &ContextRecord,
        manifest: &Manifest,
        checkpoint: &Checkpoint,
    ) -> Result<(), StoreError> {
        let Some(mut record) = context::context_by_number(self.tx.as_read(), before.number)? else {
            return Ok(());
        };
        if record.lineage.digest() == checkpoint.lineage {
            return Ok(());
        }
        record.lineage.learn(manifest.lineage.clone());
        context::put_context(self.tx, &record)
    }

    /// The entryUUIDs that a full load may make vanish, if that matters.
    fn entries_before(
        &self,
        partner: &Partner,
        record: &ContextRecord,
        manifest: &Manifest,
    ) -> Result<Vec<[u8; 16]>, StoreError> {
        let mut before = Vec::new();
        if manifest.base == Base::Nothing && partner.delete_percent_max < 100 {
            let (from, to) = (record.number.to_be_bytes(), (record.number + 1).to_be_bytes());
            self.tx.scan(Table::Entry, &from, &to, &mut |key, _| {
                before.extend(key.get(4..20).and_then(|uuid| <[u8; 16]>::try_from(uuid).ok()));
                true
            })?;
        }
        Ok(before)
    }

    fn entries_gone(&self, number: u32, before: &[[u8; 16]]) -> Result<u64, StoreError> {
        let mut gone = 0;
        for uuid in before {
            let key = [&number.to_be_bytes()[..], uuid].concat();
            gone += u64::from(self.tx.get(Table::Entry, &key)?.is_none());
        }
        Ok(gone)
    }

    /// Tells the site that we hold nothing, so that it sends everything.
    fn start_over(&self, peer: &mut Peer, context: &str, assembly: &Assembly) {
        self.misfits(peer, context, assembly);
        peer.link(context).ask_full = true;
    }

    /// What came does not fit, and may not fit when it comes again: the first time something else is asked for at once,
    /// then each time after twice as long. What fits is taken whenever it comes.
    fn misfits(&self, peer: &mut Peer, context: &str, assembly: &Assembly) {
        let timeout = peer.timeout(&self.config.timing);
        let link = peer.link(context);
        let wait = match link.misfits {
            0 => 0,
            times => in_vain(timeout, times - 1, &self.config.timing),
        };
        link.misfits = link.misfits.saturating_add(1);
        link.refused = Some(assembly.transfer());
        link.ask_at = Some(self.now + wait);
    }

    /// The naming context's record, which is made when it is new to this store; or why it cannot be made.
    fn record_of(&mut self, checkpoint: &Checkpoint) -> Result<Result<ContextRecord, String>, StoreError> {
        let name = checkpoint.context.to_string();
        if let Some(record) = self.context(&name) {
            return Ok(Ok(record.clone()));
        }
        let Some(master) = self.config.master(&name) else {
            return Ok(Err("no pinned card says who masters it".into()));
        };
        match context::create_context(self.tx, &checkpoint.context, &master.site, uuid::Uuid::nil()) {
            Ok(record) => {
                self.event(Event::ContextAdded { context: name, master: master.site.clone() });
                self.add_context(record.clone());
                Ok(Ok(record))
            }
            Err(ContextError::Store(error)) => Err(error),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    fn keep_checkpoint(&mut self, number: u32, signed: &SignedCheckpoint) -> Result<(), StoreError> {
        self.tx.put(Table::Checkpoint, &number.to_be_bytes(), &signed.to_bytes())
    }

    /// What we hold of a naming context got further: acknowledge it, and pass it on.
    fn moved(&mut self, from: &str, peer: &mut Peer, context: &str) -> Result<(), StoreError> {
        let record = self.context(context).cloned();
        let own = record.as_ref().and_then(point);
        let link = peer.link(context);
        (link.asks, link.misfits) = (0, 0);
        link.gave = true;
        link.ask_full = false;
        link.refresh = false;
        link.verify_at = None;
        if own == link.theirs {
            link.ask_at = None;
        }
        peer.answer_at = sooner(peer.answer_at, self.now + millis(self.config.timing.acknowledgement));
        match record {
            Some(record) => self.push_to_all(&record, Some(from)),
            None => Ok(()),
        }
    }

    fn discard(&mut self, peer: &mut Peer, assembly: &Assembly) -> Result<(), StoreError> {
        assembly.drop_all(self.tx)?;
        peer.finish(assembly.transfer());
        self.room_is_made(peer);
        Ok(())
    }

    pub(super) fn not_applied(&mut self, from: &str, context: &str, reason: String) {
        self.event(Event::NotApplied { site: from.to_owned(), context: context.to_owned(), reason });
    }
}
