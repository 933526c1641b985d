//! Messages to a site: what is due is packed into as few as the byte limit allows.
//!
//! PROMISES
//!   Every message carries our vector. Small transfers go before large ones. A message is within the
//!   smallest of our limit for the site, the site's own, and what bounces taught, but for a vector that takes half of
//!   that, and for questions about hundreds of naming contexts.

use super::config::{Partner, same_context};
use super::serve::in_flight;
use super::turn::{Turn, point};
use super::{Event, Output};
use crate::directory::StoreError;
use crate::directory::context::ContextRecord;
use crate::replication::pacing::{in_vain, millis};
use crate::replication::parts::{self, Assembly, Outgoing, TransferId};
use crate::replication::peer::{Flight, Link, Millis, Peer, Point};
use crate::replication::transfer::{self, Base, EncodeError, Encoded};
use crate::replication::wire::{self, DigestItem, Heard, Message, PartItem, Request};

/// Parts are never smaller than this.
pub const PART_BYTES_MIN: u64 = 16 << 10;
/// Bytes of parts in one turn; the rest follows in the next, so that memory stays bounded.
const TURN_BYTES_MAX: usize = 16 << 20;
/// After so many questions for lost parts the question is for what leads from our base, too.
const IN_VAIN_ASKS: u32 = 3;
/// What a message needs besides the vector and what is listed in it: its head, and what sealing adds.
const OVERHEAD_BYTES: usize = 512;
/// What an item of a list needs besides its names and octets.
const ITEM_BYTES: usize = 64;
/// The same of the vector's: an invocation id, a USN, a digest.
const VECTOR_ITEM_BYTES: usize = 80;

impl Turn<'_> {
    /// The largest message of parts that may go to the site.
    pub(super) fn part_limit(&self, partner: &Partner, peer: &Peer) -> u64 {
        let limits = [Some(partner.part_bytes_max), peer.takes_bytes_max, peer.passes_bytes_max];
        limits.into_iter().flatten().min().unwrap_or(PART_BYTES_MIN).max(PART_BYTES_MIN)
    }

    /// The largest part, or answer about digests, that is within the limit in a message of its own.
    pub(super) fn item_limit(&self, partner: &Partner, peer: &Peer) -> u64 {
        let limit = self.part_limit(partner, peer);
        let names = self.contexts.iter().map(|record| record.dn.to_string().len() + VECTOR_ITEM_BYTES);
        let vector = names.sum::<usize>() as u64;
        limit - (vector + (OVERHEAD_BYTES + ITEM_BYTES) as u64).min(limit / 2)
    }

    /// None: it cannot be made; why is told, unless that was `told` already.
    pub(super) fn encode(
        &mut self,
        record: &ContextRecord,
        base: Option<Point>,
        told: bool,
    ) -> Result<Option<Encoded>, StoreError> {
        let Some(checkpoint) = self.checkpoint(record)? else { return Ok(None) };
        let base = base.filter(|(position, _)| record.is_on_history(position));
        let read = self.tx.as_read();
        let delta = transfer::encode(read, record, base.map(|(position, _)| position), &checkpoint);
        let fits = |encoded: &Encoded| match (encoded.manifest.base, base) {
            (Base::At(position, digest), Some(base)) => (position, digest) == base,
            _ => true,
        };
        let result = match delta {
            Ok(Some(encoded)) if fits(&encoded) => Ok(Some(encoded)),
            // The log does not reach back to the base, or the site holds something else there.
            Ok(_) if base.is_some() => transfer::encode(read, record, None, &checkpoint),
            other => other,
        };
        match result {
            Ok(encoded) => Ok(encoded),
            Err(error) => self.cannot_encode(record, error, told).map(|()| None),
        }
    }

    /// What cannot be read of a naming context keeps back what it is needed for, and nothing else.
    pub(super) fn cannot_encode(
        &mut self,
        record: &ContextRecord,
        error: EncodeError,
        told: bool,
    ) -> Result<(), StoreError> {
        match error {
            EncodeError::Store(error) if !matches!(error, StoreError::Damaged(_)) => return Err(error),
            _ if told => {}
            EncodeError::Store(_) => self.tell_damaged(record),
            error => {
                let site = self.config.site.clone();
                self.not_applied(&site, &record.dn.to_string(), error.to_string());
            }
        }
        Ok(())
    }

    /// Cuts a transfer and keeps its parts until they are acknowledged.
    pub(super) fn cut(
        &mut self,
        partner: &Partner,
        record: &ContextRecord,
        encoded: Encoded,
        base: Option<Point>,
        part_bytes_max: u64,
    ) -> Result<Option<Flight>, StoreError> {
        let Some(target) = point(record) else { return Ok(None) };
        let parts = match parts::cut(&encoded.manifest, &encoded.body, part_bytes_max as usize) {
            Ok(parts) => parts,
            Err(error) => {
                let (context, reason) = (record.dn.to_string(), error.to_string());
                self.event(Event::NotApplied { site: partner.site.clone(), context, reason });
                return Ok(None);
            }
        };
        let Some(first) = parts.first() else { return Ok(None) };
        Outgoing::keep(self.tx, &partner.site, &parts)?;
        Ok(Some(Flight {
            transfer: first.transfer,
            base,
            target,
            parts: first.count,
            bytes: encoded.body.len() as u64,
            next: 0,
            again: Vec::new(),
            seq: 0,
            first_seq: 0,
            at: self.now,
            arrived: 0,
            astray: base.is_some_and(|(position, _)| !record.is_on_history(&position)),
        }))
    }

    pub(super) fn compose_hello(&mut self, partner: &Partner, peer: &mut Peer) {
        let mut message = Message::new(Vec::new());
        message.hello = Some(self.hello(partner, peer, false));
        message.introductions = self.introductions(partner, peer, false);
        self.mail(partner, peer, message);
    }

    /// Everything that is due to a site that answered.
    pub(super) fn compose(&mut self, partner: &Partner, peer: &mut Peer) -> Result<(), StoreError> {
        let requests = self.requests(partner, peer)?;
        let digests = self.comparisons(peer)?;
        let (items, flown) = self.parts_to_send(partner, peer)?;
        if !flown && requests.is_empty() && digests.is_empty() && !self.has_to_speak(peer) {
            return Ok(());
        }
        // Who never answers cannot ask for what it does not know.
        let heard = if partner.one_way { 0 } else { peer.echoed_seq };
        let seqs = (peer.coming_seq(self.now), heard);
        let whole_max = self.config.timing.vector_whole_max;
        let (vector, digest) = peer.said.tell(self.vector(partner, peer), seqs, whole_max);
        let mut bare = Message::new(vector);
        bare.vector_digest = digest;
        let mut first = bare.clone();
        first.requests = requests;
        first.notices = std::mem::take(&mut peer.notices);
        if let Some((seq, at)) = peer.greeting.owed.take() {
            first.hello = Some(self.hello(partner, peer, true));
            first.heard = Some(Heard { seq, held_ms: held_ms(at, self.now) });
        } else if peer.greeting.is_due(self.now) {
            first.hello = Some(self.hello(partner, peer, false));
            peer.greeting.tries += 1;
            peer.greet_again(self.now, &self.config.timing);
        }
        if peer.vector_at.is_some_and(|at| at <= self.now) {
            first.vector_wanted = true;
            peer.vector_at = Some(peer.vector_again(self.now, &self.config.timing));
            peer.vector_asks += 1;
        }
        if let Some(hello) = &first.hello {
            first.introductions = self.introductions(partner, peer, hello.answer);
        }
        let mut packing = Packing::new(first, &bare, self.part_limit(partner, peer));
        digests.into_iter().for_each(|item| packing.digests(item));
        items.into_iter().for_each(|item| packing.part(item));
        let mut messages = packing.messages;
        let asking = peer.ask_again_at.is_some_and(|at| at <= self.now);
        let stalled = flown && peer.links.iter().any(|link| link.chain.iter().any(Flight::has_unsent));
        if let Some(last) = messages.last_mut() {
            last.answer_wanted = asking || stalled;
            last.recount = asking && peer.recount;
        }
        for message in messages {
            self.mail(partner, peer, message);
        }
        if asking {
            peer.asked_seq = peer.asked_seq.or(Some(peer.sent_seq));
            let wait = in_vain(peer.timeout(&self.config.timing), peer.questions, &self.config.timing);
            peer.ask_again_at = Some(self.now + wait);
            peer.questions += 1;
        }
        if flown {
            let retry = self.now + peer.timeout(&self.config.timing);
            peer.retry_at = Some(retry);
        }
        peer.answer_at = None;
        Ok(())
    }

    /// Besides parts and questions: a greeting, an acknowledgement, a heartbeat.
    fn has_to_speak(&self, peer: &Peer) -> bool {
        let due = |at: Option<Millis>| at.is_some_and(|at| at <= self.now);
        let heartbeat = peer.sent_at.is_none_or(|at| at + millis(self.config.timing.heartbeat) <= self.now);
        let timers = due(peer.answer_at) || due(peer.ask_again_at) || peer.greeting.is_due(self.now);
        let timers = timers || due(peer.vector_at);
        timers || heartbeat || peer.greeting.owed.is_some() || !peer.notices.is_empty()
    }

    fn mail(&mut self, partner: &Partner, peer: &mut Peer, mut message: Message) {
        let highest = peer.window.highest().zip(peer.heard_at);
        let highest = highest.map(|(seq, at)| Heard { seq, held_ms: held_ms(at, self.now) });
        // An answer names the hello that it answers.
        message.heard = message.heard.or(highest);
        let mail = peer.next_seq(self.now);
        let asks = message.hello.as_ref().is_some_and(|hello| !hello.answer);
        if asks {
            self.tells(partner, peer, mail, &message.introductions);
        }
        peer.sent_at = Some(self.now);
        for item in &message.parts {
            let flights = peer.links.iter_mut().flat_map(|link| &mut link.chain);
            for flight in flights.filter(|flight| flight.transfer == item.part.transfer) {
                flight.seq = mail;
                if flight.first_seq == 0 && item.part.index + 1 == flight.parts {
                    flight.first_seq = mail;
                }
            }
        }
        let signer = self.signer(peer, message.hello.is_some());
        let payload = message.encode();
        let today = self.now.div_euclid(86_400_000);
        let spent = if peer.day.0 == today { peer.day.1 } else { 0 };
        peer.day = (today, spent + payload.len() as u64);
        self.outputs.push_back(Output::Mail { to: partner.site.clone(), mail, payload, signer });
    }

    /// The questions that are due, after a last look at whether they are still worth asking.
    fn requests(&mut self, partner: &Partner, peer: &mut Peer) -> Result<Vec<Request>, StoreError> {
        let mut requests = Vec::new();
        let due = |link: &Link, now| link.ask_at.is_some_and(|at| at <= now);
        let names: Vec<String> =
            peer.links.iter().filter(|link| due(link, self.now)).map(|link| link.context.clone()).collect();
        for name in names {
            self.apply_ready(&partner.site, peer, &name)?;
            let timeout = peer.timeout(&self.config.timing);
            let own = self.context(&name).and_then(point);
            let taken = self.takes(partner, &name);
            let link = peer.link(&name);
            if !taken {
                // It was, before our list became narrower.
                (link.ask_at, link.ask_full, link.refresh) = (None, false, false);
                continue;
            }
            let refused = link.refused;
            let held = self.held.iter().any(|held| same_context(held, &name));
            if held || (own == link.theirs && !link.wants_whole()) {
                link.ask_at = None;
                continue;
            }
            link.ask_at = Some(self.now + in_vain(timeout, link.asks, &self.config.timing));
            link.asks += 1;
            let asks = link.asks;
            let whole = link.wants_whole();
            let base = own.filter(|_| !whole);
            if asks > IN_VAIN_ASKS {
                // What comes and is not taken may be in the way of itself.
                peer.finished.clear();
            }
            let incomplete = self.incomplete(&partner.site, &name, refused)?;
            self.event(Event::Requested {
                site: partner.site.clone(),
                context: name.clone(),
                full: base.is_none() && incomplete.is_empty(),
            });
            // Parts of a transfer that the site has given up are asked for in vain.
            if incomplete.is_empty() || asks > IN_VAIN_ASKS {
                requests.push(Request {
                    context: name,
                    base: base.map(|(position, _)| position),
                    base_digest: base.map(|(_, digest)| digest),
                    transfer: None,
                    missing: Vec::new(),
                });
            }
            requests.extend(incomplete);
        }
        Ok(requests)
    }

    /// What is missing of transfers of which something has arrived. Of the one that was `refused` the first part is not
    /// asked for; if it comes, and is not refused again, the others are.
    fn incomplete(
        &self,
        site: &str,
        context: &str,
        refused: Option<TransferId>,
    ) -> Result<Vec<Request>, StoreError> {
        let mut requests = Vec::new();
        for assembly in Assembly::all_from(self.tx.as_read(), site)? {
            let other = match assembly.manifest() {
                Ok(Some(manifest)) => manifest
                    .checkpoint
                    .claimed()
                    .is_ok_and(|said| !same_context(&said.context.to_string(), context)),
                // Without part 0 nobody knows; to ask for it is the way to know.
                _ => Some(assembly.transfer()) == refused,
            };
            if other || assembly.is_complete() {
                continue;
            }
            let missing = assembly.missing(wire::RANGES_MAX);
            requests.push(Request {
                context: context.to_owned(),
                base: None,
                base_digest: None,
                transfer: Some(assembly.transfer()),
                missing: missing.into_iter().map(|range| (range.start, range.end - 1)).collect(),
            });
        }
        Ok(requests)
    }

    /// What the day's budget leaves.
    fn bytes_left(&self, partner: &Partner, peer: &Peer) -> u64 {
        let today = self.now.div_euclid(86_400_000);
        let spent = if peer.day.0 == today { peer.day.1 } else { 0 };
        partner.day_bytes_max.map_or(u64::MAX, |budget| budget.saturating_sub(spent))
    }

    /// The parts whose turn it is, small transfers first, and whether there are any.
    fn parts_to_send(
        &mut self,
        partner: &Partner,
        peer: &mut Peer,
    ) -> Result<(Vec<PartItem>, bool), StoreError> {
        let mut items = Vec::new();
        let mut bytes = 0;
        let window = self.config.timing.window_bytes;
        let room = self.bytes_left(partner, peer).min(TURN_BYTES_MAX as u64) as usize;
        let now = self.now;
        peer.links.sort_by_key(|link| link.chain.iter().map(|flight| flight.bytes).sum::<u64>());
        for link in &mut peer.links {
            let mut flying = in_flight(&link.chain);
            let mut resent = 0;
            for flight in &mut link.chain {
                while bytes < room {
                    let sent = flight.next;
                    let Some(index) = next_part(flight, flying < window) else { break };
                    let outgoing = Outgoing::of(&partner.site, flight.transfer);
                    let Some(part) = outgoing.part(self.tx.as_read(), index)? else { continue };
                    resent += u32::from(index < sent);
                    flight.at = now;
                    flying += part.bytes.len() as u64;
                    bytes += part.bytes.len();
                    items.push(PartItem { context: link.context.clone(), part });
                }
            }
            if resent > 0 {
                let (site, context) = (partner.site.clone(), link.context.clone());
                self.event(Event::Resent { site, context, parts: resent });
            }
        }
        let any = !items.is_empty();
        Ok((items, any))
    }
}

/// Takes the next part's index off a flight: lost ones first, new ones if the window has room.
fn next_part(flight: &mut Flight, room: bool) -> Option<u32> {
    if let Some((first, last)) = flight.again.first_mut() {
        let index = *first;
        if first == last {
            flight.again.remove(0);
        } else {
            *first += 1;
        }
        return Some(index);
    }
    (room && flight.next < flight.parts).then(|| {
        flight.next += 1;
        flight.next - 1
    })
}

/// Messages that are being filled, each within the limit. What does not fit beside anything leaves alone.
struct Packing<'m> {
    /// What each message says besides.
    bare: &'m Message,
    /// And what that takes.
    alone: usize,
    limit: usize,
    messages: Vec<Message>,
    used: usize,
}

impl<'m> Packing<'m> {
    fn new(first: Message, bare: &'m Message, limit: u64) -> Packing<'m> {
        let used = bytes_of(&first);
        Packing { bare, alone: bytes_of(bare), limit: limit as usize, messages: vec![first], used }
    }

    /// The message that has room for so many bytes more.
    fn with_room(&mut self, bytes: usize) -> &mut Message {
        if self.used + bytes > self.limit && self.used > self.alone {
            self.messages.push(self.bare.clone());
            self.used = self.alone;
        }
        self.used += bytes;
        self.messages.last_mut().expect("there is one")
    }

    fn digests(&mut self, item: DigestItem) {
        self.with_room(item.body.len() + item.context.len() + ITEM_BYTES).digests.push(item);
    }

    fn part(&mut self, item: PartItem) {
        let bytes = item.part.bytes.len() + item.part.manifest.len() + item.context.len();
        self.with_room(bytes + ITEM_BYTES).parts.push(item);
    }
}

fn bytes_of(message: &Message) -> usize {
    message.encode().len() + OVERHEAD_BYTES
}

fn held_ms(since: Millis, now: Millis) -> u64 {
    now.saturating_sub(since).max(0) as u64
}

#[cfg(test)]
#[path = "compose_tests.rs"]
mod tests;
