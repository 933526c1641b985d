//! How much is kept of what a site has sent in part.
//!
//! PROMISES
//!   What the unfinished transfers of one site occupy is bounded, in number and in octets: what is more is let go, with an
//!   event that says so, and is asked for again, as if it had got lost on the way. The largest transfer counts for nothing, so
//!   that a load of any size arrives. The transfer that is worth most always finds room, at the cost of those worth
//!   less; so whatever else waits, one gets on.
//!
//! LIMITS
//!   [`limits::INBOX_BYTES`] octets of a site beside its largest transfer, which has at most
//!   [`TRANSFER_BYTES_MAX`](crate::replication::parts::TRANSFER_BYTES_MAX); [`ASSEMBLIES_MAX`] transfers.
//!
//! BUGS
//!   Of what is let go no copy is kept: it comes again. Over a link in one direction it does so when everything is repeated.

use std::collections::{BTreeMap, BTreeSet};

use super::Event;
use super::config::same_context;
use super::judge::{Asked, Verdict};
use super::turn::{Turn, sooner};
use crate::directory::StoreError;
#[cfg(doc)]
use crate::limits;
use crate::replication::pacing::{in_vain, millis};
use crate::replication::parts::{Assembly, Part, TransferId};
use crate::replication::peer::{Millis, Peer};
use crate::replication::provenance::Carrier;
use crate::replication::transfer::Manifest;
use crate::replication::wire::PartItem;

/// Transfers of one site that may wait for their parts at once, beyond which no new one is begun: each link has one
/// load of many parts at a time, and small ones come whole.
const ASSEMBLIES_MAX: usize = 256;

/// How much is lost when a transfer is let go. Of the same worth the one with more octets is worth more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// Waits for the operator, who may take weeks; approved, it is asked for again.
    Held,
    /// Part 0 is not here, so nobody has signed for it.
    Unsigned,
    /// Its sender has given it up for another one, or has sent nothing of it for long.
    Stale,
    /// Its base is not here yet.
    Waits,
    /// It leads on from what is held.
    Leads,
}

/// What is kept of one transfer, in the order of what it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    worth: Worth,
    bytes: u64,
    transfer: TransferId,
}

/// Octets that count: of all but the largest.
fn counted<'k>(all: impl Iterator<Item = &'k Kept> + Clone) -> u64 {
    let bytes = all.map(|kept| kept.bytes);
    bytes.clone().sum::<u64>() - bytes.max().unwrap_or(0)
}

/// The transfers to let go so that `new` finds room: those worth less, the least first, but the largest last if
/// it may be of use. None: there is no room for it. Without `new`: those to let go so that what is kept is within its room.
fn make_room(kept: &[Kept], new: Option<&Kept>, room: u64) -> Option<Vec<TransferId>> {
    let largest = kept.iter().map(|kept| kept.bytes).max();
    let mut less: Vec<&Kept> = kept.iter().filter(|kept| new.is_none_or(|new| *kept < new)).collect();
    let useful = |kept: &Kept| !matches!(kept.worth, Worth::Unsigned | Worth::Stale);
    less.sort_by_key(|kept| (Some(kept.bytes) == largest && useful(kept), **kept));
    let mut gone: Vec<TransferId> = Vec::new();
    let mut less = less.into_iter();
    while counted(kept.iter().filter(|kept| !gone.contains(&kept.transfer)).chain(new)) > room {
        gone.push(less.next()?.transfer);
    }
    Some(gone)
}

/// What is kept of a site's transfers, as octets, while a message of it is taken.
pub(super) struct Shelves {
    bytes: BTreeMap<TransferId, u64>,
    /// By naming context: parts that found no room, and their octets.
    refused: BTreeMap<String, (u32, u64)>,
}

impl Shelves {
    pub(super) fn note(&mut self, transfer: TransferId, bytes: u64) {
        self.bytes.insert(transfer, bytes);
    }
}

impl Turn<'_> {
    pub(super) fn shelves(&self, from: &str) -> Result<Shelves, StoreError> {
        let all = Assembly::all_from(self.tx.as_read(), from)?;
        let bytes = all.iter().map(|assembly| (assembly.transfer(), assembly.occupies())).collect();
        Ok(Shelves { bytes, refused: BTreeMap::new() })
    }

    /// Whether a part may be kept; what is worth less than its transfer makes room for it.
    pub(super) fn admits(
        &mut self,
        from: &str,
        peer: &mut Peer,
        item: &PartItem,
        carrier: &Carrier,
        shelves: &mut Shelves,
    ) -> Result<bool, StoreError> {
        let room = self.config.timing.inbox_bytes_max;
        let first = !shelves.bytes.contains_key(&item.part.transfer);
        let begun = if first { Assembly::none_of(from, &item.part).occupies() } else { 0 };
        let more = begun + Assembly::needs(&item.part);
        if shelves.bytes.values().sum::<u64>() + more <= room {
            return Ok(true);
        }
        let id = item.part.transfer;
        let mut kept = self.weigh(from, peer, Some((&item.part, carrier)))?;
        let (new, completes) = match kept.iter().position(|kept| kept.0.transfer == id) {
            Some(at) => kept.swap_remove(at),
            None => return Ok(false),
        };
        let kept: Vec<Kept> = kept.into_iter().map(|(kept, _)| kept).collect();
        // What is whole with this part and leads on is applied at once.
        if completes && new.worth == Worth::Leads {
            return Ok(true);
        }
        let Some(gone) = make_room(&kept, Some(&new), room) else {
            let refused = shelves.refused.entry(item.context.clone()).or_default();
            *refused = (refused.0 + 1, refused.1 + item.part.bytes.len() as u64);
            return Ok(false);
        };
        for transfer in gone {
            shelves.bytes.remove(&transfer);
            self.let_go(from, peer, transfer)?;
        }
        Ok(true)
    }

    /// Tells of the parts that found no room, and when they are asked for.
    pub(super) fn tell_refused(&mut self, from: &str, peer: &mut Peer, shelves: Shelves) {
        for (context, (parts, bytes)) in shelves.refused {
            self.crowded(from, peer, &context, parts, bytes);
        }
    }

    fn crowded(&mut self, from: &str, peer: &mut Peer, context: &str, parts: u32, bytes: u64) {
        let wait = peer.timeout(&self.config.timing);
        peer.crowded = true;
        // As often as anything that is asked for in vain, until there is room.
        if let Some(link) = peer.links.iter_mut().find(|link| same_context(&link.context, context)) {
            link.ask_at = Some(self.now + in_vain(wait, link.asks, &self.config.timing));
        }
        let bytes_max = self.config.timing.inbox_bytes_max;
        let (site, context) = (from.to_owned(), context.to_owned());
        self.event(Event::Crowded { site, context, parts, bytes, bytes_max });
    }

    /// A transfer is not there any more: what found no room beside it is asked for soon.
    pub(super) fn room_is_made(&self, peer: &mut Peer) {
        if !std::mem::take(&mut peer.crowded) {
            return;
        }
        let soon = self.now + millis(self.config.timing.gap);
        for link in peer.links.iter_mut().filter(|link| link.ask_at.is_some()) {
            (link.ask_at, link.asks) = (sooner(link.ask_at, soon), 0);
        }
    }

    fn let_go(&mut self, from: &str, peer: &mut Peer, transfer: TransferId) -> Result<(), StoreError> {
        let Some(assembly) = Assembly::load(self.tx.as_read(), from, transfer)? else { return Ok(()) };
        let said = assembly.manifest().ok().flatten().and_then(|manifest| manifest.checkpoint.claimed().ok());
        let context = said.map_or_else(String::new, |said| said.context.to_string());
        assembly.drop_all(self.tx)?;
        self.crowded(from, peer, &context, assembly.count().1, assembly.bytes());
        Ok(())
    }

    /// What each of the site's transfers is worth and occupies, the one of the new part with it, and whether it is whole.
    fn weigh(
        &mut self,
        from: &str,
        peer: &Peer,
        new: Option<(&Part, &Carrier)>,
    ) -> Result<Vec<(Kept, bool)>, StoreError> {
        let mut all = Assembly::all_from(self.tx.as_read(), from)?;
        if let Some((part, _)) = new
            && !all.iter().any(|assembly| assembly.transfer() == part.transfer)
        {
            all.push(Assembly::none_of(from, part));
        }
        // By naming context: the newest message that brought something that leads on.
        let mut newest: BTreeMap<String, u64> = BTreeMap::new();
        let mut weighed = Vec::new();
        for assembly in all {
            let new = new.filter(|(part, _)| part.transfer == assembly.transfer());
            let carriers = assembly.carriers().named.iter().chain(new.map(|(_, carrier)| carrier));
            let (seq, at) =
                carriers.fold((0, 0), |(seq, at), carrier| (seq.max(sent(carrier)), at.max(carrier.at)));
            let manifest = match (assembly.manifest(), new) {
                (Ok(None), Some((part, _))) if part.index == 0 => Manifest::from_bytes(&part.manifest).ok(),
                (manifest, _) => manifest.ok().flatten(),
            };
            let (mut worth, context) = self.worth(peer, manifest)?;
            let quiet =
                millis(self.config.timing.heartbeat) * Millis::from(self.config.timing.quiet_heartbeats);
            if worth > Worth::Stale && self.now - at >= quiet {
                worth = Worth::Stale;
            }
            if worth == Worth::Leads {
                let newest = newest.entry(context.clone()).or_default();
                *newest = seq.max(*newest);
            }
            let (count, present) = assembly.count();
            let (more, parts) = match new {
                Some((part, _)) if assembly.lacks(part.index) => (Assembly::needs(part), 1),
                _ => (0, 0),
            };
            let kept = Kept { worth, bytes: assembly.occupies() + more, transfer: assembly.transfer() };
            weighed.push((kept, present + parts >= count, context, seq));
        }
        let weighed = weighed.into_iter().map(|(mut kept, whole, context, seq)| {
            // Who sends another one that leads on from the same state has none of this any more.
            if kept.worth == Worth::Leads && newest.get(&context).is_some_and(|newest| *newest > seq) {
                kept.worth = Worth::Stale;
            }
            (kept, whole)
        });
        Ok(weighed.collect())
    }

    fn worth(&mut self, peer: &Peer, manifest: Option<Manifest>) -> Result<(Worth, String), StoreError> {
        let said = manifest.and_then(|manifest| Some((manifest.checkpoint.claimed().ok()?, manifest)));
        let Some((said, manifest)) = said else { return Ok((Worth::Unsigned, String::new())) };
        let context = said.context.to_string();
        let worth = match self.judge(&manifest, &said, asked(peer, &context))? {
            Verdict::Apply(said) | Verdict::Merge(said) if self.waits(&context, said.position)? => {
                Worth::Held
            }
            Verdict::Apply(_) | Verdict::Merge(_) => Worth::Leads,
            Verdict::Wait => Worth::Waits,
            Verdict::Obsolete | Verdict::Refuse(_) | Verdict::Parted | Verdict::Differs => Worth::Unsigned,
        };
        Ok((worth, context.to_ascii_lowercase()))
    }

    /// A transfer that never became whole makes room for a new one.
    pub(super) fn crowded_out(
        &mut self,
        from: &str,
        context: &str,
        transfer: TransferId,
    ) -> Result<(), StoreError> {
        if let Some(oldest) = Assembly::load(self.tx.as_read(), from, transfer)? {
            let reason = "the site has begun too many transfers".to_owned();
            self.refuse_transfer(from, context, &oldest, reason)?;
            oldest.drop_all(self.tx)?;
        }
        Ok(())
    }

    /// Forgets transfers that were begun with this message, if the site has begun more than it can ever need at once;
    /// and what is worth least, if what waits for the operator takes too much room.
    pub(super) fn bound_inbox(
        &mut self,
        from: &str,
        peer: &mut Peer,
        begun: &BTreeSet<TransferId>,
    ) -> Result<(), StoreError> {
        let all = Assembly::all_from(self.tx.as_read(), from)?;
        let mut surplus = all.len().saturating_sub(ASSEMBLIES_MAX);
        for assembly in all.iter().filter(|assembly| begun.contains(&assembly.transfer())) {
            if surplus == 0 {
                break;
            }
            surplus -= 1;
            let reason = "the site has begun too many transfers".to_owned();
            self.refuse_transfer(from, "", assembly, reason)?;
            assembly.drop_all(self.tx)?;
        }
        let room = self.config.timing.inbox_bytes_max;
        if all.iter().map(Assembly::occupies).sum::<u64>() <= room {
            return Ok(());
        }
        let kept: Vec<Kept> = self.weigh(from, peer, None)?.into_iter().map(|(kept, _)| kept).collect();
        for transfer in make_room(&kept, None, room).unwrap_or_default() {
            self.let_go(from, peer, transfer)?;
        }
        Ok(())
    }
}

/// In which order the site sent it. What the operator gives, from a file or once more, is wanted now.
fn sent(carrier: &Carrier) -> u64 {
    if carrier.seq == 0 { u64::MAX } else { carrier.seq }
}

/// What was asked of the site, as far as it decides on its transfers of this naming context.
pub(super) fn asked(peer: &Peer, context: &str) -> Asked {
    let link = peer.links.iter().find(|link| same_context(&link.context, context));
    let repair = link.is_some_and(|link| link.verify_at.is_some());
    let whole = link.is_some_and(|link| link.wants_whole()) || repair;
    Asked { whole, refresh: link.is_some_and(|link| link.refresh), repair }
}

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;
