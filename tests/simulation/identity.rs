//! What sites are known by: keys, cards and mailboxes that change, and what the others have pinned of them.
//!
//! Cards, successions and introductions are the real ones, and what becomes of them here is what `daemon::trust` does
//! by the policy `accept`. Of sealing and signing single messages only the ids of the keys are simulated.

use std::collections::BTreeMap;
use std::time::Duration;

use bridgehead::directory::{Read, Table};
use bridgehead::message::card::CardFields;
use bridgehead::message::introduction::{self, Introduction};
use bridgehead::message::keys::SiteKey;
use bridgehead::message::own::{self, OwnCards};
use bridgehead::message::pinned::{Pinned, Word};
use bridgehead::message::random::Seeded;
use bridgehead::replication::checkpoint::SignedCheckpoint;
use bridgehead::replication::engine::config::Passage;
use bridgehead::replication::engine::{EngineConfig, FormerKey, KnownSite, PinnedCard, Succession};
use bridgehead::replication::wire::{KeyId, key_id};
use jiff::Timestamp;

use super::dice::Dice;
use super::knobs::Knobs;
use super::site::Site;
use super::world::DAY;

/// What of a message's seal and address decides whether it is taken.
#[derive(Clone, Debug)]
pub struct Cover {
    signer: KeyId,
    /// The id of the sealing key.
    sealed_to: [u8; 8],
    mailbox: String,
}

/// Cards that a site told, to be looked at after the transaction.
#[derive(Clone, Debug)]
pub enum Told {
    Cards { site: String, cards: Vec<String> },
    Introductions { by: String, introductions: Vec<String> },
}

/// Why a message does not reach the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Nobody reads that mailbox any more.
    NoMailbox,
    /// Its seal or its signature is of no key that counts.
    Unproved(&'static str),
}

/// One site's keys, its cards, and what it knows of the others.
#[derive(Clone)]
pub struct Identity {
    key: SiteKey,
    own: OwnCards,
    fields: CardFields,
    /// Mailboxes that its mail system hands over, and until when.
    served: Vec<(String, i64)>,
    /// The files of `sites.d`.
    pinned: BTreeMap<String, Pinned>,
    /// Its word for others, by the text of the card.
    words: BTreeMap<String, String>,
}

/// The files of `sites.d` of some day.
pub struct Pins(BTreeMap<String, Pinned>);

/// How long what a former key signed counts.
const FORMER_KEYS: Duration = Duration::from_millis(30 * DAY as u64);

/// Every site with its first card, and with those of all others pinned.
pub fn all(knobs: &Knobs, names: &[String], now: Timestamp, dice: &mut Dice) -> Vec<Identity> {
    let new = |name: &String| {
        let key = SiteKey::generate(&mut Seeded::new(dice.next()));
        let fields = CardFields {
            name: name.clone(),
            organization: "Example".into(),
            mailbox: format!("m1@{name}.example"),
            contexts: vec![format!("ou={name},o=Example")],
            address_spaces: Vec::new(),
            part_bytes_max: knobs.part_bytes_max,
            serial: 0,
            issued: now,
        };
        let (own, _) = own::settle_text("", &key, &fields, now).expect("a sound card");
        let served = vec![(fields.mailbox.clone(), i64::MAX)];
        Identity { key, own, fields, served, pinned: BTreeMap::new(), words: BTreeMap::new() }
    };
    let mut all: Vec<Identity> = names.iter().map(new).collect();
    let cards: Vec<(String, Pinned)> =
        all.iter().map(|site| (site.fields.name.clone(), site.as_pinned())).collect();
    for site in &mut all {
        site.pinned = cards.iter().filter(|(name, _)| *name != site.fields.name).cloned().collect();
    }
    all
}

impl Identity {
    fn as_pinned(&self) -> Pinned {
        Pinned::new(self.own.current().clone(), self.own.text().to_owned())
    }

    /// `bridgehead key roll`.
    pub fn roll(&mut self, now: Timestamp, dice: &mut Dice) {
        self.key = self.key.renew(&mut Seeded::new(dice.next()));
        self.words.clear();
        self.issue(now);
    }

    /// `bridgehead card move`: mail to the former mailbox arrives until then.
    pub fn move_mailbox(&mut self, now: Timestamp, until: i64) {
        if let Some(last) = self.served.last_mut() {
            last.1 = until;
        }
        self.fields.mailbox = format!("m{}@{}.example", self.served.len() + 1, self.fields.name);
        self.served.push((self.fields.mailbox.clone(), i64::MAX));
        self.issue(now);
    }

    /// Another `name`, under which nobody has its card yet.
    pub fn rename(&mut self, name: String, now: Timestamp) {
        self.fields.name = name;
        self.words.clear();
        self.issue(now);
    }

    /// `bridgehead site detach`.
    pub fn forget(&mut self, other: &str) {
        self.pinned.remove(other);
    }

    fn issue(&mut self, now: Timestamp) {
        let settled = own::settle_text(&self.own.print(), &self.key, &self.fields, now);
        self.own = settled.expect("a sound card").0;
    }

    /// What is pinned of the others: a copy of `sites.d`.
    pub fn pins(&self) -> Pins {
        Pins(self.pinned.clone())
    }

    pub fn put_back(&mut self, pins: Pins) {
        self.pinned = pins.0;
    }

    /// `bridgehead site add`: the other's operator hands over the present card.
    pub fn add(&mut self, other: &Identity) {
        self.pinned.insert(other.fields.name.clone(), other.as_pinned());
    }

    /// What the engine is told of all this.
    pub fn describe(&mut self, config: &mut EngineConfig) {
        let hub = config.partners.iter().any(|partner| partner.outbound != Passage::Own);
        let mut introductions = Vec::new();
        for (name, pinned) in self.pinned.iter().filter(|_| hub) {
            let former = pinned.former.iter().map(|former| (&former.card, &former.text));
            for (card, text) in former.chain([(&pinned.card, &pinned.text)]) {
                let word = self.words.entry(text.clone()).or_insert_with(|| {
                    let (key, by) = (&self.key, &self.fields.name);
                    Introduction::issue(key, by, card.fields.issued, text).expect("a sound card")
                });
                introductions.push((name.clone(), word.clone()));
            }
        }
        config.key = self.key.signing().clone();
        config.card = self.own.text().to_owned();
        config.succession = Succession {
            serial: self.own.current().fields.serial,
            former_cards: self.own.former_texts().map(str::to_owned).collect(),
            former_keys: self.key.former_signing(),
            introductions,
            takes_bytes_max: self.fields.part_bytes_max,
        };
        let known = self.pinned.values().map(|pinned| KnownSite {
            site: pinned.card.name().to_owned(),
            key: pinned.card.public.signing,
            contexts: pinned.card.fields.contexts.clone(),
            former: pinned
                .former
                .iter()
                .map(|former| FormerKey {
                    key: former.card.public.signing,
                    until: former.until.as_millisecond(),
                })
                .collect(),
            card: Some(PinnedCard {
                serial: pinned.card.fields.serial,
                text: pinned.text.clone(),
                former: pinned.former.iter().map(|former| former.text.clone()).collect(),
            }),
        });
        config.known = known.collect();
    }

    /// Looks at what a site told; whether anything was pinned.
    pub fn consider(&mut self, told: &Told, now: i64) -> bool {
        match told {
            Told::Cards { site, cards } => {
                let cards: Vec<&str> = cards.iter().map(String::as_str).collect();
                self.succeed(site, &cards, Word::Own, now)
            }
            Told::Introductions { by, introductions } => {
                let Some(introducer) = self.pinned.get(by).map(|pinned| pinned.card.clone()) else {
                    return false;
                };
                let lookup = |name: &str| (name == by).then(|| introducer.clone());
                let read = introductions.iter().map(|text| Introduction::parse_verified(text, lookup));
                let mut any = false;
                for (site, cards) in
                    introduction::by_site(read.flatten().filter(|read| read.introducer == *by))
                {
                    let cards: Vec<&str> = cards.values().map(String::as_str).collect();
                    any |= self.succeed(&site, &cards, Word::Others, now);
                }
                any
            }
        }
    }

    fn succeed(&mut self, site: &str, cards: &[&str], word: Word, now: i64) -> bool {
        let Some(pinned) = self.pinned.get_mut(site) else { return false };
        let now = Timestamp::from_millisecond(now).expect("a world's time");
        let Ok(next) = pinned.told(cards, word, now, FORMER_KEYS) else { return false };
        std::mem::replace(pinned, next.clone()) != next
    }

    /// How a message to this site is sealed, signed and addressed.
    pub fn cover(&self, to: &str, signer: KeyId) -> Cover {
        let card = &self.pinned[to].card;
        Cover { signer, sealed_to: card.public.sealing.id(), mailbox: card.fields.mailbox.clone() }
    }

    /// Whether a message reaches the engine; `now` is the world's time, `clock` this site's.
    pub fn takes(&self, from: &str, cover: &Cover, now: i64, clock: i64) -> Result<(), Stop> {
        if !self.served.iter().any(|(mailbox, until)| *mailbox == cover.mailbox && now < *until) {
            return Err(Stop::NoMailbox);
        }
        let mut keys = std::iter::successors(Some(self.key.clone()), SiteKey::former);
        if !keys.any(|key| key.public().sealing.id() == cover.sealed_to) {
            return Err(Stop::Unproved("sealed to a key that is not held any more"));
        }
        let Some(pinned) = self.pinned.get(from) else { return Err(Stop::Unproved("of a stranger")) };
        let former = pinned.former.iter().filter(|former| clock < former.until.as_millisecond());
        let mut cards = std::iter::once(&pinned.card).chain(former.map(|former| &former.card));
        match cards.any(|card| key_id(&card.public.signing) == cover.signer) {
            true => Ok(()),
            false => Err(Stop::Unproved("forged: signed by a key that does not count")),
        }
    }

    /// Whether it goes by the other's present card.
    pub fn goes_by(&self, other: &Identity) -> bool {
        let pinned = self.pinned.get(&other.fields.name);
        pinned.is_some_and(|pinned| pinned.card.fields.serial == other.own.current().fields.serial)
    }
}

/// After all became equal: every site goes by the present cards, and what it holds is signed by the present keys.
pub fn problem(sites: &[Site], mute: Option<usize>) -> Option<String> {
    // Whom nobody hears tells nobody.
    let heard = || sites.iter().enumerate().filter(|(n, _)| Some(*n) != mute).map(|(_, site)| site);
    for site in sites {
        for other in heard().filter(|other| other.name != site.name) {
            let (Some(ours), Some(theirs)) = (&site.identity, &other.identity) else { continue };
            let own = other.own();
            if own.position.usn == 0 {
                continue;
            }
            if !ours.goes_by(theirs) {
                return Some(format!("{} does not go by the present card of {}", site.name, other.name));
            }
            let all = bridgehead::directory::context::contexts(&site.store).expect("the store is sound");
            let Some(record) = all.into_iter().find(|record| record.dn == own.dn) else { continue };
            let held =
                site.store.get(Table::Checkpoint, &record.number.to_be_bytes()).expect("the store is sound");
            let key = theirs.key.signing().verifying_key();
            let signed = held.and_then(|octets| SignedCheckpoint::from_bytes(&octets).ok());
            if signed.is_none_or(|signed| signed.verify(&key).is_err()) {
                let (name, of) = (&site.name, &own.dn);
                return Some(format!("what {name} holds of {of} is not signed by its master's present key"));
            }
        }
    }
    None
}
