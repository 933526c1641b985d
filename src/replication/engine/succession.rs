//! Cards and keys change: what of ours is told to whom, by which key we sign, what the others tell.
//!
//! PROMISES
//!   A site is told of our new card until it says that it goes by it; until then what goes to it is signed by the
//!   key that it knows. A site that missed several cards gets the way from any of them to the present one.
//!   What we tell of others is told again until the site answers a message that told it; what does not fit one
//!   message goes with the next ones, each as soon as the one before was answered.
//!   After our keys were renewed, every naming context of ours is stated again under the new key, so that
//!   hubs need no word of the former one for long.
//!   What a site tells of itself or of others changes nothing here: it goes out for the pinned cards to decide.

use sha2::{Digest as _, Sha256};

use super::config::Partner;
use super::turn::{Turn, sooner};
use super::{Event, Output};
use crate::directory::context::put_context;
use crate::directory::{StoreError, Table, commit};
use crate::replication::checkpoint::SignedCheckpoint;
use crate::replication::pacing::millis;
use crate::replication::peer::Peer;
use crate::replication::wire::{self, Heard, Hello, KeyId, Pinned, key_id};

impl Turn<'_> {
    /// The site says who it is, what it takes, and whom it takes us for.
    pub(super) fn greeted(&mut self, from: &str, peer: &mut Peer, hello: &Hello, of: Option<Heard>) {
        let heard = card_name(&hello.card);
        let news = match self.config.known(from).and_then(|known| known.card.as_ref()) {
            Some(pinned) => {
                // Others get to its present card by way of us only if we know those before it.
                let known = |card: &String| pinned.former.iter().any(|former| former.trim() == card.trim());
                card_name(&pinned.text) != heard || !hello.former_cards.iter().all(known)
            }
            None => peer.greeting.card_heard != Some(heard),
        };
        peer.greeting.card_heard = Some(heard);
        if news && !hello.card.is_empty() {
            let cards = hello.former_cards.iter().chain([&hello.card]).cloned().collect();
            self.outputs.push_back(Output::Card { site: from.to_owned(), cards });
        }
        peer.takes_bytes_max = Some(hello.part_bytes_max);
        peer.greeting.pinned = hello.pinned;
        // An answer names our hello; no other word of the site says that it heard what we told of others.
        if let Some(of) = of.filter(|_| hello.answer) {
            peer.greeting.answered(of.seq);
        }
        // Nobody was told of what changed before the site answered for the first time, nor of what did not fit.
        let news = self.config.partner(from).is_some_and(|partner| {
            let rest =
                || peer.greeting.told_seq.is_none() && !self.introductions(partner, peer, false).is_empty();
            self.has_news(partner, peer) || rest()
        });
        if news {
            peer.greeting.begin(self.now);
        } else if self.goes_by_our_card(peer) && !peer.greeting.awaits_answer() {
            peer.greeting.rest();
            // What waited for our new key to be known.
            peer.links.iter_mut().filter(|link| link.wanted).for_each(|link| link.push_at = Some(self.now));
        } else {
            peer.greet_again(self.now, &self.config.timing);
        }
        // Either way it wants to know what we hold.
        peer.answer_at = Some(self.now);
    }

    /// A site that did not answer our hello yet is heard all the same: it can be reached, so it is told soon.
    pub(super) fn heard_without_answer(&self, peer: &mut Peer) {
        let timing = &self.config.timing;
        let again = millis(timing.retry_min).saturating_mul(1 << peer.greeting.tries.min(16));
        let wait = if !self.goes_by_our_card(peer) {
            again
        } else if peer.greeting.awaits_answer() {
            // Our hello or its answer may be on the way.
            again.max(peer.round_trip.expected(timing))
        } else {
            return;
        };
        peer.greeting.at = sooner(peer.greeting.at, self.now + wait);
    }

    /// Whether the site would refuse what our present key signs, until it has heard of it.
    pub(super) fn knows_another_key(&self, peer: &Peer) -> bool {
        let own = key_id(&self.config.key.verifying_key());
        !self.goes_by_our_card(peer) && peer.greeting.pinned.is_some_and(|pinned| pinned.key != own)
    }

    pub(super) fn goes_by_our_card(&self, peer: &Peer) -> bool {
        let serial = self.config.succession.serial;
        serial == 0 || peer.greeting.pinned.is_some_and(|pinned| pinned.serial >= serial)
    }

    /// What we tell of ourselves. A hash of it is kept, so that what changed is told again.
    pub(super) fn hello(&self, partner: &Partner, peer: &mut Peer, answer: bool) -> Hello {
        peer.greeting.card_told = Some(self.to_tell(partner));
        let takes = self.config.succession.takes_bytes_max;
        Hello {
            card: self.config.card.clone(),
            capabilities: 0,
            part_bytes_max: if takes == 0 { partner.part_bytes_max } else { takes },
            answer,
            former_cards: self.config.succession.former_cards.clone(),
            pinned: self.pinned(&partner.site),
        }
    }

    fn pinned(&self, site: &str) -> Option<Pinned> {
        let known = self.config.known(site)?;
        Some(Pinned { serial: known.card.as_ref()?.serial, key: key_id(&known.key) })
    }

    pub(super) fn to_tell(&self, partner: &Partner) -> u64 {
        let serial = self.pinned(&partner.site).map_or(0, |pinned| pinned.serial);
        let taken = self.config.known.iter().flat_map(|known| &known.contexts);
        let taken = taken.filter(|context| self.takes(partner, context)).cloned();
        let mut told = vec![self.config.card.clone(), serial.to_string()];
        told.extend(taken);
        told.extend(self.to_introduce(partner).cloned());
        card_name(&told.join("\n"))
    }

    /// Our word for the sites whose naming contexts we pass on to this one.
    fn to_introduce(&self, partner: &Partner) -> impl Iterator<Item = &String> {
        let passed = move |site: &str| {
            let mut theirs = self.contexts.iter().filter(|record| record.master == site);
            site != partner.site && theirs.any(|record| self.sends(partner, record))
        };
        let all = self.config.succession.introductions.iter();
        all.filter(move |(site, _)| passed(site)).map(|(_, text)| text)
    }

    /// Of our word for others, what the site did not say that it heard, as much as fits half a message. Who asked may
    /// have lost what it knew: an answer goes on with the rest, and not always with the same of it.
    pub(super) fn introductions(&self, partner: &Partner, peer: &Peer, answer: bool) -> Vec<String> {
        if self.knows_another_key(peer) {
            // Our word would not count there, and be taken for heard.
            return Vec::new();
        }
        let heard = |text: &&String| peer.greeting.heard_of.contains(&card_name(text));
        let (mut heard, mut texts): (Vec<&String>, Vec<&String>) =
            self.to_introduce(partner).partition(heard);
        if answer && !heard.is_empty() {
            let first = peer.sent_seq as usize % heard.len();
            heard.rotate_left(first);
            texts.append(&mut heard);
        }
        let mut room = self.part_limit(partner, peer) as usize / 2;
        let fitting = texts.into_iter().filter(|text| {
            let fits = text.len() <= room;
            room -= if fits { text.len() } else { 0 };
            fits
        });
        fitting.take(wire::INTRODUCTIONS_MAX).cloned().collect()
    }

    /// This mail goes out and asks; its answer says that what it tells of others was heard.
    pub(super) fn tells(&self, partner: &Partner, peer: &mut Peer, mail: u64, introductions: &[String]) {
        let all: Vec<u64> = self.to_introduce(partner).map(|text| card_name(text)).collect();
        let telling = introductions.iter().map(|text| card_name(text)).collect();
        peer.greeting.asks(mail, telling, &all);
    }

    /// What we tell of ourselves and others changed with what came from `giver`: whoever has not heard it gets a hello. So
    /// does the giver: it may know a master by a former card only.
    pub(super) fn tell_news(&mut self, giver: &Partner, peer: &mut Peer) -> Result<(), StoreError> {
        self.tell_if_news(giver, peer);
        self.each_other_partner(Some(&giver.site), |turn, partner, peer| turn.tell_if_news(partner, peer))
    }

    fn tell_if_news(&self, partner: &Partner, peer: &mut Peer) -> bool {
        let news = peer.answered && self.has_news(partner, peer);
        if news {
            peer.greeting.begin(self.now);
        }
        news
    }

    /// Whether there is something to tell of ourselves or others that this site was not told.
    fn has_news(&self, partner: &Partner, peer: &Peer) -> bool {
        peer.greeting.card_told != Some(self.to_tell(partner))
    }

    /// The key that the site knows us by. While it does not answer to our card, each hello tries another.
    pub(super) fn signer(&self, peer: &Peer, hello: bool) -> KeyId {
        let own = key_id(&self.config.key.verifying_key());
        let known = peer.greeting.pinned.map(|pinned| pinned.key);
        if !hello || self.goes_by_our_card(peer) {
            return known.filter(|key| self.is_ours(key)).unwrap_or(own);
        }
        let former = self.config.succession.former_keys.iter().map(key_id);
        let keys: Vec<KeyId> =
            known.into_iter().chain([own]).chain(former).filter(|key| self.is_ours(key)).collect();
        keys[peer.greeting.tries.saturating_sub(1) as usize % keys.len()]
    }

    fn is_ours(&self, id: &KeyId) -> bool {
        let own = [self.config.key.verifying_key()];
        own.iter().chain(&self.config.succession.former_keys).any(|key| key_id(key) == *id)
    }

    /// Sites get other names: a naming context of a site that is not known any more goes by the one whose pinned card
    /// says that it masters it. Its history goes on, if the key is the same.
    pub(super) fn rename_masters(&mut self) -> Result<(), StoreError> {
        for at in 0..self.contexts.len() {
            let record = &self.contexts[at];
            let (before, context) = (&record.master, record.dn.to_string());
            if *before == self.config.site || self.config.known(before).is_some() {
                continue;
            }
            let Some(master) = self.config.master(&context).map(|site| site.site.clone()) else { continue };
            self.contexts[at].master = master.clone();
            put_context(self.tx, &self.contexts[at])?;
            self.event(Event::MasterRenamed { context, master });
        }
        Ok(())
    }

    /// After our keys were renewed: each naming context of ours at its next USN, unchanged, for the new key to sign.
    pub(super) fn restate(&mut self) -> Result<(), StoreError> {
        let own = self.config.key.verifying_key();
        let ours = self
            .contexts
            .iter()
            .filter(|record| record.master == self.config.site && record.position.usn > 0);
        let numbers: Vec<u32> = ours.map(|record| record.number).collect();
        for number in numbers {
            let by_former = match self.tx.get(Table::Checkpoint, &number.to_be_bytes())? {
                Some(bytes) => {
                    SignedCheckpoint::from_bytes(&bytes).is_ok_and(|signed| signed.verify(&own).is_err())
                }
                // A store that was put back does not know what was signed after that day, and by which key.
                None => !self.config.succession.former_keys.is_empty(),
            };
            if by_former {
                self.tx.delete(Table::Checkpoint, &number.to_be_bytes())?;
                commit::restate(self.tx, number)?;
                self.committed(number)?;
                // At once, for what is signed is not stated again.
                if let Some(record) = self.contexts.iter().find(|record| record.number == number).cloned() {
                    self.checkpoint(&record)?;
                }
            }
        }
        Ok(())
    }
}

/// Enough of a card's hash to notice that it changed.
fn card_name(card: &str) -> u64 {
    let hash = Sha256::digest(card.trim().as_bytes());
    hash[..8].iter().fold(0, |name, octet| name << 8 | u64::from(*octet))
}

#[cfg(test)]
#[path = "succession_tests.rs"]
mod tests;
