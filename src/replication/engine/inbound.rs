//! A message arrives: what of it counts, in which order it takes effect.
//!
//! PROMISES
//!   A repeated message has no effect. A message that was overtaken gives only what cannot go stale:
//!   its parts, its wish for them, its notices, and its questions from where its site still is; vectors and round trips
//!   count from the newest message alone, hellos from the newest hello.
//!   So an old message, replayed, can cost a little mail, never state.

use std::collections::BTreeSet;

use super::arrive::Received;
use super::compose::PART_BYTES_MIN;
use super::config::Partner;
use super::turn::{Turn, sooner};
use super::{BounceStatus, Event, Header, Outcome, Output, Refusal};
use crate::directory::StoreError;
use crate::replication::pacing::{Freshness, millis};
use crate::replication::peer::{Millis, Peer, Trouble, TroubleKind};
use crate::replication::provenance::Carrier;
use crate::replication::wire::{Heard, Message};

impl Turn<'_> {
    pub(super) fn receive(
        &mut self,
        from: &str,
        header: Header,
        payload: &[u8],
    ) -> Result<Outcome, StoreError> {
        let Some(partner) = self.config.partner(from) else {
            return self.refuse(from, Refusal::NotAPartner { site: from.to_owned() }, payload);
        };
        let message = match Message::decode(payload) {
            Ok(message) => message,
            Err(error) => {
                return self.refuse(from, Refusal::Malformed { reason: error.to_string() }, payload);
            }
        };
        let mut peer = self.peer(from)?;
        let freshness = peer.window.hear(header.seq);
        if freshness == Freshness::Repeated || (freshness == Freshness::Old && message.parts.is_empty()) {
            self.put_back(from, peer);
            return Ok(Outcome::Repeated);
        }
        let newest = freshness == Freshness::Newest;
        peer.heard_at = Some(self.now);
        if !peer.answered {
            peer.answered = true;
            // It knows us; we may not know its limits yet.
            peer.greeting.begin(self.now);
            self.event(Event::SiteUp { site: from.to_owned() });
        }
        if newest {
            if let Some(heard) = message.heard {
                self.measure(&mut peer, heard);
            }
            if message.hello.is_none() {
                self.heard_without_answer(&mut peer);
            }
        }
        if freshness != Freshness::Old {
            self.hear_hello(from, &mut peer, header.seq, &message);
        }
        let only_hello = message.is_only_hello();
        let carrier = Carrier { seq: header.seq, message_id: header.message_id, at: self.now };
        let Received { any, contexts, begun } = self.take_parts(from, &mut peer, message.parts, &carrier)?;
        for context in contexts {
            self.apply_ready(from, &mut peer, &context)?;
        }
        if message.recount && freshness != Freshness::Old {
            self.count_for(partner, &mut peer)?;
        }
        if newest && !only_hello {
            self.take_vector(partner, &mut peer, message.vector, message.vector_digest)?;
        }
        let mut denied = Vec::new();
        if freshness != Freshness::Old {
            denied = self.serve_all(partner, &mut peer, &message.requests, newest)?;
        }
        if newest {
            let mut compared = BTreeSet::new();
            for item in &message.digests {
                // A message says one thing of a naming context; each answer costs a look at what is held.
                if compared.insert(item.context.to_ascii_lowercase())
                    && !self.compare_digests(partner, &mut peer, item)?
                {
                    denied.push(&item.context);
                }
            }
        }
        self.tell_denied(from, &denied);
        // Whether what is older than all that is remembered was told before nobody knows.
        if freshness != Freshness::Old {
            for notice in message.notices {
                self.event(Event::Noticed { site: from.to_owned(), code: notice.code, text: notice.text });
            }
        }
        if any {
            peer.answer_at = sooner(peer.answer_at, self.now + millis(self.config.timing.acknowledgement));
        }
        if message.answer_wanted && freshness != Freshness::Old {
            peer.answer_at = Some(self.now);
        }
        if message.vector_wanted && freshness != Freshness::Old {
            peer.said.forget();
            peer.answer_at = Some(self.now);
        }
        // A bare hello says nothing of what the site holds.
        if !only_hello {
            self.weigh_equality(partner, &mut peer)?;
        }
        if any {
            self.bound_inbox(from, &mut peer, &begun)?;
        }
        self.put_back(from, peer);
        let back = |output: &Output| matches!(output, Output::Event(Event::Recovered { .. }));
        if self.outputs.iter().any(back) {
            // What was taken back may be signed by a key that we had before.
            self.restate()?;
        }
        Ok(Outcome::Taken)
    }

    /// Heartbeats may overtake a hello, so what it says of the site counts unless a later one was heard; its question and
    /// its word for others count in any case.
    fn hear_hello(&mut self, from: &str, peer: &mut Peer, seq: u64, message: &Message) {
        // What is in a file is older than mail that came since.
        let Some(hello) = message.hello.as_ref().filter(|_| seq > 0) else { return };
        if seq > peer.greeting.heard_seq {
            peer.greeting.heard_seq = seq;
            self.greeted(from, peer, hello, message.heard);
        }
        if !hello.answer {
            peer.greeting.owed = peer.greeting.owed.max(Some((seq, self.now)));
            peer.answer_at = Some(self.now);
        }
        if !message.introductions.is_empty() {
            let (by, introductions) = (from.to_owned(), message.introductions.clone());
            self.outputs.push_back(Output::Introduced { by, introductions });
        }
    }

    fn refuse(&mut self, from: &str, refusal: Refusal, payload: &[u8]) -> Result<Outcome, StoreError> {
        self.keep_copy(from, &refusal.to_string(), payload)?;
        Ok(Outcome::Refused(refusal))
    }

    /// The site says which of our messages it heard last and how long ago. Our numbers follow our clock,
    /// so the number says when the message left.
    fn measure(&mut self, peer: &mut Peer, heard: Heard) {
        let believable = (self.now.max(0) as u64).saturating_add(CLOCK_AHEAD_MAX);
        if heard.seq > believable {
            return;
        }
        if heard.seq > peer.sent_seq {
            // It heard what we do not know to have sent: our store is from an earlier day.
            peer.sent_seq = heard.seq;
        }
        if heard.seq <= peer.echoed_seq {
            return;
        }
        peer.echoed_seq = heard.seq;
        (peer.trouble, peer.deferred) = (None, None);
        let held = Millis::try_from(heard.held_ms).unwrap_or(Millis::MAX);
        let left = Millis::try_from(heard.seq).unwrap_or(Millis::MAX);
        let sample = self.now.saturating_sub(left).saturating_sub(held);
        if sample >= 0 {
            peer.round_trip.measure(sample);
        }
    }

    pub(super) fn sent(&mut self, to: &str, _mail: u64) -> Result<(), StoreError> {
        let mut peer = self.peer(to)?;
        // That our next hop takes mail says nothing of what hangs behind it.
        peer.deferred = None;
        self.put_back(to, peer);
        Ok(())
    }

    pub(super) fn send_failed(
        &mut self,
        to: &str,
        mail: u64,
        reply: u16,
        enhanced: &str,
        text: &str,
    ) -> Result<(), StoreError> {
        let status = match (reply, enhanced) {
            (_, "5.3.4" | "5.2.3") => BounceStatus::TooLarge,
            // 552 is said of a full mailbox and by policies as well, where smaller mail does not help: the enhanced status
            // decides, if it says anything.
            (552, "" | "5.0.0" | "5.2.0" | "5.3.0") => BounceStatus::TooLarge,
            (400..500, _) => BounceStatus::Delayed,
            _ => BounceStatus::Failed,
        };
        self.troubled(to, mail, status, TroubleKind::Refused, enhanced, text).map(drop)
    }

    pub(super) fn bounced(
        &mut self,
        to: &str,
        mail: u64,
        status: BounceStatus,
        enhanced: &str,
        text: &str,
    ) -> Result<Outcome, StoreError> {
        self.troubled(to, mail, status, TroubleKind::Bouncing, enhanced, text)
    }

    /// A mail did not get through, or somebody says so: a hint about when to try again and how large.
    fn troubled(
        &mut self,
        to: &str,
        mail: u64,
        status: BounceStatus,
        failed: TroubleKind,
        enhanced: &str,
        text: &str,
    ) -> Result<Outcome, StoreError> {
        let Some(partner) = self.config.partner(to) else {
            return Ok(Outcome::Refused(Refusal::NotAPartner { site: to.to_owned() }));
        };
        let mut peer = self.peer(to)?;
        // A number that was never given out is somebody's invention, or our store is from an earlier day.
        if mail > peer.sent_seq {
            self.put_back(to, peer);
            return Ok(Outcome::Refused(Refusal::NeverSent { site: to.to_owned() }));
        }
        // The newest that it heard, and what was sent before, is old news, but for its size: nothing that it heard says
        // that larger mail arrived.
        let overtaken = mail <= peer.echoed_seq;
        if overtaken && !(status == BounceStatus::TooLarge && peer.has_under_way()) {
            self.put_back(to, peer);
            return Ok(Outcome::Repeated);
        }
        let kind = match (status, failed) {
            (BounceStatus::Delayed, TroubleKind::Refused) => TroubleKind::Deferred,
            (BounceStatus::Delayed, _) => TroubleKind::Delayed,
            (BounceStatus::Failed | BounceStatus::TooLarge, _) => failed,
        };
        let never_left = kind == TroubleKind::Deferred;
        if failed == TroubleKind::Refused && !never_left {
            // Our next hop gave another answer since.
            peer.deferred = None;
        }
        let trouble = if never_left { &mut peer.deferred } else { &mut peer.trouble };
        let since = trouble.as_ref().filter(|trouble| trouble.kind == kind).map_or(self.now, |t| t.since);
        let text: String = text.chars().take(300).collect();
        let coded = if enhanced.is_empty() || text.contains(enhanced) {
            text.clone()
        } else {
            format!("{enhanced} {text}")
        };
        *trouble = Some(Trouble { kind, since, text: coded });
        self.event(Event::Bounced { site: to.to_owned(), status, enhanced: enhanced.to_owned(), text });
        match status {
            BounceStatus::TooLarge if self.part_limit(partner, &peer) > PART_BYTES_MIN => {
                self.halve_parts(partner, &mut peer, mail)?;
            }
            // What is too large at the least size is tried again like anything else, not at once.
            BounceStatus::TooLarge | BounceStatus::Delayed | BounceStatus::Failed => {
                self.try_again(&mut peer, never_left.then_some(since));
                if never_left {
                    self.say_again(partner, &mut peer, since);
                }
            }
        }
        self.put_back(to, peer);
        Ok(Outcome::Taken)
    }

    /// What is under way is tried again sooner than if nobody had said anything, each time after twice as long. What never
    /// left, for our own next hop has taken nothing since then, costs nobody mail and says nothing about the way.
    fn try_again(&self, peer: &mut Peer, never_left: Option<Millis>) {
        let timing = &self.config.timing;
        let least = millis(timing.retry_min);
        let wait = match never_left {
            Some(since) => {
                peer.round_trip.backed_off = peer.round_trip.backed_off.saturating_sub(1);
                (self.now - since).min(millis(timing.retry_first)).max(least)
            }
            None => least.saturating_mul(1 << peer.round_trip.backed_off.min(20)),
        };
        if peer.has_under_way() {
            peer.retry_at = sooner(peer.retry_at, self.now + wait);
        }
    }

    /// Our own next hop takes nothing at present, and never got what was said: that is said again soon, each time after
    /// as long again as this has been going on, until that is no sooner than what is planned anyway.
    fn say_again(&self, partner: &Partner, peer: &mut Peer, since: Millis) {
        let lasts = self.now - since;
        if partner.one_way || lasts >= millis(self.config.timing.retry_first) {
            return;
        }
        let soon = self.now + lasts.max(AGAIN_MS);
        match peer.greeting.at {
            Some(at) if at > soon => {
                peer.greeting.at = Some(soon);
                // It was none.
                peer.greeting.tries = peer.greeting.tries.saturating_sub(1);
            }
            None if !peer.has_under_way() => {
                peer.answer_at = sooner(peer.answer_at, soon);
            }
            Some(_) | None => {}
        }
    }
}

/// What our own next hop refused is tried again after this.
const AGAIN_MS: Millis = 5_000;

/// A number this far ahead of our clock, in milliseconds, was never ours: ten years.
const CLOCK_AHEAD_MAX: u64 = 10 * 366 * 86_400_000;

#[cfg(test)]
#[path = "trouble_tests.rs"]
mod tests;
