//! Finds the entries in which two replicas differ, and repairs only those.
//!
//! PROMISES
//!   The side that begins follows: it is repaired, and only because its operator asked (`verify`). The other
//!   side answers without remembering anything, so a lost message costs the beginning again. What is repaired
//!   counts only if it has the digest that the master signed.
//!   Both sides count their entries anew before they compare, so that what was altered behind the program's back differs
//!   like anything else. Whoever asks for that too often is told what was counted last.
//!   Nothing is told of what is not sent to the site, but where we are the side that begins.

use super::Event;
use super::config::{Partner, same_context};
use super::turn::{Turn, point};
use crate::directory::{ContextRecord, StoreError, Table, recount};
use crate::replication::pacing::{in_vain, millis};
use crate::replication::parts::Outgoing;
use crate::replication::peer::{Millis, Peer};
use crate::replication::transfer::{self, Encoded};
use crate::replication::verify::{self, Answer, Differences, VerifyError};
use crate::replication::wire::{DigestItem, Message};

/// For others a naming context is counted once in this time: it costs a look at every entry.
const COUNT_AGAIN_MS: Millis = 3_600_000;

impl Turn<'_> {
    /// `verify`: every naming context is counted anew, here and by the site; what differs from what the site holds at
    /// the same position is compared with the site.
    pub(super) fn verify_with(&mut self, site: Option<&str>) -> Result<(), StoreError> {
        for record in self.contexts.clone().iter() {
            self.count_anew(record)?;
        }
        self.each_other_partner(None, |turn, partner, peer| {
            if site.is_some_and(|site| site != partner.site) {
                return false;
            }
            peer.recount = true;
            for link in &mut peer.links {
                let Some(record) = turn.context(&link.context) else { continue };
                if record.master == turn.config.site || !turn.takes(partner, &link.context) {
                    continue;
                }
                let own = point(record);
                if own != link.theirs && own.map(|own| own.0) == link.theirs.map(|theirs| theirs.0) {
                    (link.verify_at, link.asks) = (Some(turn.now), 0);
                }
            }
            true
        })?;
        self.ask_all(site)
    }

    /// The site's operator verifies: what we share with the site is counted anew, unless somebody had that done lately.
    pub(super) fn count_for(&mut self, partner: &Partner, peer: &mut Peer) -> Result<(), StoreError> {
        for record in self.contexts.clone().iter() {
            let name = record.dn.to_string();
            if !self.has_place(partner, Some(record), &name) || !self.may_count(record.number)? {
                continue;
            }
            let is_sound = self.count_anew(record)?;
            if !is_sound && record.master == self.config.site {
                let text =
                    format!("what {} stores of {name}, which it masters, is damaged", self.config.site);
                peer.notify(name, &text);
            }
        }
        Ok(())
    }

    /// Whether a naming context may be counted for others now; notes that it is.
    fn may_count(&mut self, number: u32) -> Result<bool, StoreError> {
        let key = [b"counted ", &number.to_be_bytes()[..]].concat();
        let last = self.tx.get(Table::Meta, &key)?.and_then(|octets| octets.try_into().ok());
        let last = last.map(Millis::from_be_bytes);
        if last.is_some_and(|last| (0..COUNT_AGAIN_MS).contains(&(self.now - last))) {
            return Ok(false);
        }
        self.tx.put(Table::Meta, &key, &self.now.to_be_bytes())?;
        Ok(true)
    }

    /// Whether the entries have the digest that is told of them. If not, a replica tells what they have from now on,
    /// so that what differs is found. A master goes on telling what it signed: nobody else can say what is right.
    fn count_anew(&mut self, record: &ContextRecord) -> Result<bool, StoreError> {
        if recount::is_sound(self.tx.as_read(), record)? {
            return Ok(true);
        }
        if record.master != self.config.site {
            recount::rebuild(self.tx, record)?;
            self.refresh(record.number)?;
        }
        self.tell_damaged(record);
        Ok(false)
    }

    pub(super) fn tell_damaged(&mut self, record: &ContextRecord) {
        let (context, master) = (record.dn.to_string(), record.master.clone());
        self.event(Event::Damaged { context, master, position: record.position.into() });
    }

    /// The comparisons that are due to begin, or to begin again.
    pub(super) fn comparisons(&mut self, peer: &mut Peer) -> Result<Vec<DigestItem>, StoreError> {
        let mut items = std::mem::take(&mut peer.digests);
        let wait = peer.timeout(&self.config.timing);
        for link in peer.links.iter_mut().filter(|link| link.verify_at.is_some_and(|at| at <= self.now)) {
            link.verify_at = None;
            let Some(record) = self.context(&link.context) else { continue };
            // Another site repaired it.
            if point(record) == link.theirs {
                continue;
            }
            // Who does not send it does not answer either.
            let least = wait.max(millis(self.config.timing.retry_min));
            let wait = in_vain(least, link.asks, &self.config.timing);
            link.verify_at = Some(self.now + wait.max(least));
            link.asks = link.asks.saturating_add(1);
            let body = verify::begin(self.tx.as_read(), record)?.into();
            items.push(DigestItem { context: link.context.clone(), position: record.position, body });
        }
        Ok(items)
    }

    /// Goes on with a comparison, or answers one. Whether the site may have that.
    pub(super) fn compare_digests(
        &mut self,
        partner: &Partner,
        peer: &mut Peer,
        item: &DigestItem,
    ) -> Result<bool, StoreError> {
        let Some(record) = self.context(&item.context).cloned() else {
            return Ok(!verify::begins(&item.body));
        };
        let follows = peer.link(&item.context).verify_at.is_some();
        let answers = follows || self.sends(partner, &record);
        // What goes on with a comparison of ours that is over is nothing that the site asks for.
        let denied = !answers && verify::begins(&item.body);
        // Digests cannot be sent in parts.
        let limit = usize::try_from(self.item_limit(partner, peer)).unwrap_or(usize::MAX);
        match verify::answer(self.tx.as_read(), &record, &item.body, !follows, limit) {
            Ok(_) if !answers => {}
            Ok(Answer::Equal(last)) => {
                peer.link(&item.context).verify_at = None;
                self.reply(peer, item, last);
            }
            Ok(Answer::Reply(body)) => self.reply(peer, item, Some(body)),
            Ok(Answer::Differ(found)) => self.repair(partner, peer, &item.context, &found)?,
            Ok(Answer::TooDifferent) if follows => {
                let link = peer.link(&item.context);
                link.verify_at = None;
                link.ask_full = true;
                link.ask_at = Some(self.now);
            }
            Ok(Answer::TooDifferent) => self.repair_whole(partner, peer, &item.context)?,
            Err(VerifyError::Store(error)) => return Err(error),
            Err(VerifyError::Malformed(error)) => {
                let mut message = Message::new(Vec::new());
                message.digests.push(item.clone());
                self.keep_copy(&partner.site, &error.to_string(), &message.encode())?;
                self.not_applied(&partner.site, &item.context, error.to_string());
            }
        }
        Ok(!denied)
    }

    fn reply(&mut self, peer: &mut Peer, item: &DigestItem, body: Option<Vec<u8>>) {
        let Some(body) = body else { return };
        // While nothing leaves they would pile up, and of a comparison only the last message counts.
        peer.digests.retain(|other| !same_context(&other.context, &item.context));
        peer.digests.push(DigestItem {
            context: item.context.clone(),
            position: item.position,
            body: body.into(),
        });
        peer.answer_at = Some(self.now);
    }

    /// So much differs that everything is sent.
    fn repair_whole(&mut self, partner: &Partner, peer: &mut Peer, context: &str) -> Result<(), StoreError> {
        let Some(record) = self.context(context).cloned() else { return Ok(()) };
        if !self.sends(partner, &record) {
            return Ok(());
        }
        let Some(encoded) = self.encode(&record, None, false)? else { return Ok(()) };
        self.replace_chain(partner, peer, &record, encoded)
    }

    fn replace_chain(
        &mut self,
        partner: &Partner,
        peer: &mut Peer,
        record: &ContextRecord,
        encoded: Encoded,
    ) -> Result<(), StoreError> {
        let limit = self.item_limit(partner, peer);
        let link = peer.link(&record.dn.to_string());
        let Some(flight) = self.cut(partner, record, encoded, link.theirs, limit)? else { return Ok(()) };
        for other in link.chain.drain(..).filter(|other| other.transfer != flight.transfer) {
            Outgoing::of(&partner.site, other.transfer).drop_all(self.tx)?;
        }
        link.chain.push(flight);
        Ok(())
    }

    /// We lead: sends what makes the site's entries ours.
    fn repair(
        &mut self,
        partner: &Partner,
        peer: &mut Peer,
        context: &str,
        found: &Differences,
    ) -> Result<(), StoreError> {
        let Some(record) = self.context(context).cloned() else { return Ok(()) };
        if !self.sends(partner, &record) {
            return Ok(());
        }
        let Some(checkpoint) = self.checkpoint(&record)? else { return Ok(()) };
        let (theirs, ours) = (&found.theirs, &found.ours);
        let encoded = match transfer::encode_repair(self.tx.as_read(), &record, theirs, ours, &checkpoint) {
            Ok(encoded) => encoded,
            Err(error) => return self.cannot_encode(&record, error, false),
        };
        let entries = (found.theirs.len() + found.ours.len()) as u64;
        self.event(Event::Repairing { site: partner.site.clone(), context: context.to_owned(), entries });
        self.replace_chain(partner, peer, &record, encoded)
    }
}
