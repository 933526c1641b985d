//! Announcements of cards that are repeated, overtaken or lost, between an engine and mail that the test makes up.

use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::directory::change::Change;
use crate::directory::commit::Commit;
use crate::directory::context::{context_by_number, contexts, create_context};
use crate::directory::memory::MemoryStore;
use crate::directory::{Attributes, Digest, Dn, Position, Table, Write as _};
use crate::replication::checkpoint::Checkpoint;
use crate::replication::engine::config::{FormerKey, KnownSite, PinnedCard};
use crate::replication::engine::{
    Engine, EngineConfig, Header, Input, Outcome, Output, Partner, Passage, Succession, Timing,
};
use crate::replication::parts;
use crate::replication::peer::Peer;
use crate::replication::transfer::{self, Manifest};
use crate::replication::wire::{
    Heard, Hello, KeyId, Message, PartItem, Pinned, Request, Standing, VectorItem, key_id,
};

const CONTEXT: &str = "ou=paris,o=Example";
const START: i64 = 1_800_000_000_000;
const DAY: i64 = 86_400_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn id(seed: u8) -> KeyId {
    key_id(&key(seed).verifying_key())
}

/// Paris, which renews key 1 to key 2, and what it gets from and sends to Tokyo.
struct Paris {
    store: MemoryStore,
    engine: Engine,
    now: i64,
}

/// A mail of Paris: what it says, and which key signs it.
type Sent = (Message, KeyId);

impl Paris {
    /// With something to tell, and nobody heard so far.
    fn alone() -> Paris {
        let mut store = MemoryStore::new();
        let mut tx = store.begin();
        create_context(&mut tx, &Dn::parse(CONTEXT).unwrap(), "paris", Uuid::from_u128(1)).unwrap();
        tx.commit();
        let mut paris = Paris { store, engine: Engine::new(config(1)), now: START };
        paris.tell(Input::Start);
        paris.put(CONTEXT);
        paris
    }

    /// In touch with Tokyo, by the first card.
    fn new() -> Paris {
        let mut paris = Paris::alone();
        paris.hears(1, &hello("tokyo 1", Some(1)));
        paris.wait(DAY);
        paris
    }

    /// As after `key roll`.
    fn renew(&mut self) {
        self.starts(config(2));
    }

    fn starts(&mut self, config: EngineConfig) {
        self.engine = Engine::new(config);
        self.tell(Input::Start);
    }

    /// A message of Tokyo, the one of this number.
    fn receives(&mut self, number: u64, message: &Message) -> Outcome {
        let time = Timestamp::from_millisecond(self.now).unwrap();
        let header = Header { seq: START as u64 + number, time, message_id: None };
        self.tell(Input::Received { from: "tokyo".into(), header, payload: message.encode() })
    }

    fn tell(&mut self, input: Input) -> Outcome {
        let mut tx = self.store.begin();
        let now = Timestamp::from_millisecond(self.now).unwrap();
        let outcome = self.engine.handle(&mut tx, now, input).unwrap();
        tx.commit();
        outcome
    }

    fn put(&mut self, name: &str) {
        let mut tx = self.store.begin();
        let mut commit = Commit::begin(&mut tx, 1, [name.len() as u8; 12]).unwrap();
        let attributes = Attributes::from_pairs([("description", name.as_bytes().to_vec())]).unwrap();
        commit.apply(&Change::Put { dn: Dn::parse(name).unwrap(), uuid: None, attributes }).unwrap();
        commit.finish().unwrap();
        tx.commit();
        self.tell(Input::LocalCommit { context: 1 });
    }

    /// A hello of Tokyo, the one of this number; the cards that went out for the trust to decide.
    fn hears(&mut self, number: u64, hello: &Hello) -> (Outcome, Vec<Vec<String>>) {
        let mut message = Message::new(vec![wanted()]);
        message.hello = Some(hello.clone());
        let sent = Peer::load(&self.store, "tokyo").unwrap().map(|peer| peer.sent_seq);
        message.heard = sent.filter(|_| hello.answer).map(|seq| Heard { seq, held_ms: 0 });
        let outcome = self.receives(number, &message);
        let mut cards = Vec::new();
        // Mail waits for `wait`.
        let mut kept = Vec::new();
        while let Some(output) = self.engine.output() {
            match output {
                Output::Card { site, cards: told } => {
                    assert_eq!(site, "tokyo");
                    cards.push(told);
                }
                other => kept.push(other),
            }
        }
        self.engine.outputs.extend(kept);
        (outcome, cards)
    }

    /// What is sent until so much time has passed.
    fn wait(&mut self, time: i64) -> Vec<Sent> {
        let end = self.now + time;
        loop {
            let due = self.engine.deadline().map_or(end, |at| at.as_millisecond());
            if due > end {
                break;
            }
            self.now = self.now.max(due);
            self.tell(Input::Tick);
            if due == end {
                break;
            }
        }
        self.now = end;
        let mails = std::iter::from_fn(|| self.engine.output()).filter_map(|output| match output {
            Output::Mail { payload, signer, .. } => Some((Message::decode(&payload).unwrap(), signer)),
            _ => None,
        });
        mails.collect()
    }
}

/// It passes on what others master, and says these words for Kyoto.
fn hub(serial: u64, words: &[&str]) -> EngineConfig {
    let mut hub = config(serial);
    hub.partners[0].outbound = Passage::All;
    hub.succession.introductions = words.iter().map(|&word| ("kyoto".into(), word.into())).collect();
    hub
}

fn config(serial: u64) -> EngineConfig {
    let known = |site: &str, seed, contexts: &[&str], card: &str| KnownSite {
        site: site.into(),
        key: key(seed).verifying_key(),
        contexts: contexts.iter().map(|&context| context.into()).collect(),
        former: Vec::new(),
        card: Some(PinnedCard { serial: 1, text: card.into(), former: Vec::new() }),
    };
    let renewed = serial > 1;
    EngineConfig {
        site: "paris".into(),
        key: key(serial as u8),
        card: format!("paris {serial}"),
        succession: Succession {
            serial,
            former_cards: renewed.then(|| "paris 1".to_owned()).into_iter().collect(),
            former_keys: renewed.then(|| key(1).verifying_key()).into_iter().collect(),
            introductions: Vec::new(),
            takes_bytes_max: 1 << 20,
        },
        known: vec![known("tokyo", 7, &[], "tokyo 1")],
        partners: vec![Partner::new("tokyo")],
        timing: Timing::default(),
    }
}

/// Tokyo says who it is, and that it goes by this card of Paris.
fn hello(card: &str, pinned: Option<u64>) -> Hello {
    Hello {
        card: card.into(),
        capabilities: 0,
        part_bytes_max: 1 << 20,
        answer: true,
        former_cards: Vec::new(),
        pinned: pinned.map(|serial| Pinned { serial, key: id(serial as u8) }),
    }
}

/// Tokyo holds nothing of it and takes it.
fn wanted() -> VectorItem {
    VectorItem { context: CONTEXT.into(), position: None, digest: None, standing: Standing::Follows }
}

fn hellos(sent: &[Sent]) -> Vec<&Sent> {
    sent.iter().filter(|(message, _)| message.hello.is_some()).collect()
}

#[test]
fn a_repeated_announcement_is_looked_at_once() {
    let mut paris = Paris::new();
    let second = Hello { former_cards: vec!["tokyo 1".into()], ..hello("tokyo 2", Some(1)) };
    let whole = vec![vec!["tokyo 1".to_owned(), "tokyo 2".to_owned()]];
    assert_eq!(paris.hears(2, &second), (Outcome::Taken, whole.clone()));
    assert_eq!(paris.hears(2, &second), (Outcome::Repeated, Vec::new()), "the same message");
    // Said again while the former one is pinned: the file may not have been written.
    assert_eq!(paris.hears(3, &second).1, whole);
    // Once it is pinned it is no news.
    let mut pinned = config(1);
    pinned.known[0].card =
        Some(PinnedCard { serial: 2, text: "tokyo 2\n".into(), former: vec!["tokyo 1".into()] });
    paris.engine = Engine::new(pinned.clone());
    assert_eq!(paris.hears(4, &second), (Outcome::Taken, Vec::new()));
    // Unless the one before is not known, which others may need to get there.
    pinned.known[0].card = Some(PinnedCard { serial: 2, text: "tokyo 2".into(), former: Vec::new() });
    paris.engine = Engine::new(pinned);
    assert_eq!(paris.hears(5, &second).1, whole);
}

#[test]
fn an_announcement_that_was_overtaken_is_no_news() {
    let mut paris = Paris::new();
    assert_eq!(paris.hears(9, &hello("tokyo 3", Some(1))).1, [["tokyo 3".to_owned()]]);
    assert_eq!(paris.hears(5, &hello("tokyo 2", Some(1))).1, Vec::<Vec<String>>::new());
    // What it said of our cards does not count either, once a later word is known.
    paris.renew();
    paris.wait(DAY);
    paris.hears(20, &hello("tokyo 1", Some(2)));
    paris.hears(15, &hello("tokyo 1", Some(1)));
    paris.put("cn=after,ou=paris,o=Example");
    let sent = paris.wait(DAY);
    assert!(!sent.is_empty() && sent.iter().all(|(_, signer)| *signer == id(2)), "{sent:?}");
    assert!(hellos(&sent).is_empty(), "it was told: {sent:?}");
}

#[test]
fn a_lost_announcement_is_told_again_at_growing_intervals() {
    let mut paris = Paris::new();
    paris.renew();
    // All of it is lost.
    let sent = paris.wait(2 * DAY);
    let told = hellos(&sent);
    assert!((4..=14).contains(&told.len()), "{} hellos in two days", told.len());
    assert_eq!(told[0].1, id(1), "the first is signed by the key that Tokyo knows");
    for (message, _) in &told {
        let hello = message.hello.as_ref().unwrap();
        assert_eq!((hello.card.as_str(), &hello.former_cards[..]), ("paris 2", &["paris 1".to_owned()][..]));
    }
    let both = [id(1), id(2)].map(|key| told.iter().any(|(_, signer)| *signer == key));
    assert_eq!(both, [true, true], "whichever was pinned meanwhile, one of them opens");
    let others = || sent.iter().filter(|(message, _)| message.hello.is_none());
    assert!(others().count() > 0 && others().all(|(_, signer)| *signer == id(1)), "heartbeats open");
    // Then its answer comes through.
    paris.hears(30, &hello("tokyo 1", Some(2)));
    let sent = paris.wait(2 * DAY);
    assert!(hellos(&sent).is_empty(), "{sent:?}");
    assert!(!sent.is_empty() && sent.iter().all(|(_, signer)| *signer == id(2)));
}

/// The keys among these that signed what the parts of these mails lead to.
fn stated_by(sent: &[Sent], keys: [u8; 2]) -> Vec<u8> {
    let parts = sent.iter().flat_map(|(message, _)| &message.parts);
    let manifests = parts.filter_map(|item| Manifest::from_bytes(&item.part.manifest).ok());
    let signer = |manifest: Manifest| {
        keys.into_iter().find(|seed| manifest.checkpoint.verify(&key(*seed).verifying_key()).is_ok())
    };
    let mut signers: Vec<u8> = manifests.filter_map(signer).collect();
    signers.dedup();
    signers
}

/// What the new key signs waits until Tokyo knows that key, and then goes without being asked for.
#[test]
fn changes_wait_until_the_new_key_is_known() {
    let mut paris = Paris::new();
    paris.renew();
    paris.put("cn=after,ou=paris,o=Example");
    assert_eq!(stated_by(&paris.wait(DAY), [1, 2]), [1], "what was under way is repeated, nothing else");
    paris.hears(40, &hello("tokyo 1", Some(2)));
    assert_eq!(stated_by(&paris.wait(DAY), [1, 2]), [2], "all of it is stated anew");
}

/// The store is of a day before the first signature; what was signed since then by the former key is still about.
#[test]
fn what_had_not_been_signed_when_the_store_was_copied_is_stated_anew() {
    let mut paris = Paris::alone();
    let copied = paris.store.clone();
    paris.hears(1, &hello("tokyo 1", Some(1)));
    assert_eq!(stated_by(&paris.wait(DAY), [1, 2]), [1]);
    let usn = |paris: &Paris| context_by_number(&paris.store, 1).unwrap().unwrap().position.usn;
    let before = usn(&paris);
    paris.store = copied;
    assert_eq!(usn(&paris), before, "that state is the one that Tokyo holds");
    paris.renew();
    assert_eq!(usn(&paris), before + 1);
    paris.renew();
    assert_eq!(usn(&paris), before + 1, "once");
    let mut unrenewed = Paris::alone();
    unrenewed.tell(Input::Start);
    assert_eq!(usn(&unrenewed), before, "no former key signed anything");
}

impl Paris {
    /// It passes on what Kyoto masters, and has a word for it.
    fn becomes_a_hub(&mut self) {
        self.starts(hub(1, &["a word for kyoto"]));
    }

    /// A naming context that Kyoto masters.
    fn holds_kyoto(&mut self) {
        let mut tx = self.store.begin();
        create_context(&mut tx, &Dn::parse("ou=kyoto,o=Example").unwrap(), "kyoto", Uuid::nil()).unwrap();
        tx.commit();
    }

    /// What is remembered of Tokyo is this.
    fn keeps(&mut self, peer: &Peer) {
        let mut tx = self.store.begin();
        tx.put(Table::Peer, b"tokyo", &peer.encode()).unwrap();
        tx.commit();
    }
}

fn told_of_others(sent: Vec<Sent>) -> bool {
    sent.iter().any(|(message, _)| !message.introductions.is_empty())
}

/// A hub says hello, comes to hold another site's naming context, and is answered only then.
#[test]
fn what_changed_before_the_first_answer_is_told_after_it() {
    let mut paris = Paris::alone();
    paris.becomes_a_hub();
    assert!(!told_of_others(paris.wait(60_000)), "nothing of kyoto is held");
    paris.holds_kyoto();
    paris.hears(2, &hello("tokyo 1", Some(1)));
    assert!(told_of_others(paris.wait(60_000)));
}

#[test]
fn what_is_told_of_others_is_told_until_that_very_message_was_heard() {
    let mut paris = Paris::new();
    paris.holds_kyoto();
    paris.becomes_a_hub();
    assert!(told_of_others(paris.wait(60_000)));

    // A hello that crossed ours goes by our card, and says nothing of what we told.
    paris.hears(2, &Hello { answer: false, ..hello("tokyo 1", Some(1)) });
    assert!(told_of_others(paris.wait(DAY)), "it is told again");
    let seq =
        Peer::load(&paris.store, "tokyo").unwrap().unwrap().greeting.told_seq.expect("not heard so far");
    let mut message = Message::new(vec![wanted()]);
    message.hello = Some(hello("tokyo 1", Some(1)));
    message.heard = Some(Heard { seq, held_ms: 0 });
    paris.receives(3, &message);
    assert!(!told_of_others(paris.wait(30 * DAY)), "heard");
}

/// All of Kyoto's naming context, which holds this, as Kyoto signed it with this key.
fn kyotos(seed: u8, description: &[u8]) -> Vec<PartItem> {
    kyotos_since(seed, &[description], None, Digest::EMPTY)
}

fn kyotos_since(seed: u8, held: &[&[u8]], base: Option<u64>, wrong: Digest) -> Vec<PartItem> {
    load_of("ou=kyoto,o=Example", seed, held, base, wrong)
}

/// A naming context that held all this, one after the other; from this USN on. Its entries lead to a digest that differs
/// from the one that is signed in these bits.
fn load_of(name: &str, seed: u8, held: &[&[u8]], base: Option<u64>, wrong: Digest) -> Vec<PartItem> {
    let mut store = MemoryStore::new();
    let mut tx = store.begin();
    create_context(&mut tx, &Dn::parse(name).unwrap(), "kyoto", Uuid::from_u128(2)).unwrap();
    for description in held {
        let mut commit = Commit::begin(&mut tx, 1, [7; 12]).unwrap();
        let attributes = Attributes::from_pairs([("description", description.to_vec())]).unwrap();
        commit.apply(&Change::Put { dn: Dn::parse(name).unwrap(), uuid: None, attributes }).unwrap();
        commit.finish().unwrap();
    }
    tx.commit();
    let mut record = context_by_number(&store, 1).unwrap().unwrap();
    record.digest = Digest(std::array::from_fn(|at| record.digest.0[at] ^ wrong.0[at]));
    let signed = Checkpoint::of(&record, Timestamp::from_millisecond(START).unwrap()).sign(&key(seed));
    let base = base.map(|usn| Position { usn, ..record.position });
    let encoded = transfer::encode(&store, &record, base, &signed).unwrap().unwrap();
    let parts = parts::cut(&encoded.manifest, &encoded.body, 1 << 14).unwrap();
    parts.into_iter().map(|part| PartItem { context: name.into(), part }).collect()
}

/// Paris, that takes Kyoto's naming context from its hub and goes by Kyoto's key 9.
fn follows_kyoto() -> (Paris, EngineConfig) {
    let mut paris = Paris::new();
    let mut hub = hub(1, &[]);
    hub.partners[0].inbound = Passage::All;
    let contexts = vec!["ou=kyoto,o=Example".into()];
    let (key, former) = (key(9).verifying_key(), Vec::new());
    hub.known.push(KnownSite { site: "kyoto".into(), key, contexts, former, card: None });
    paris.starts(hub.clone());
    paris.wait(DAY);
    (paris, hub)
}

/// The hub's message that says that it holds all of Kyoto's.
fn holds_kyotos() -> Message {
    let position = Some(Position { invocation: Uuid::from_u128(2), usn: 1 });
    let (context, digest) = ("ou=kyoto,o=Example".into(), Some(Digest([1; 32])));
    Message::new(vec![VectorItem { context, position, digest, standing: Standing::Follows }])
}

fn noise(seed: u32) -> Vec<u8> {
    (seed..seed + 2_000).flat_map(|n| Sha256::digest(n.to_be_bytes())).collect()
}

/// Whoever has some parts asks for the others, and those would be refused for ever.
#[test]
fn of_what_no_key_counts_for_no_part_is_asked_for() {
    let (mut paris, mut hub) = follows_kyoto();
    let parts = kyotos(8, &noise(0));
    let transfer = parts[0].part.transfer;
    let mut message = holds_kyotos();
    message.parts = parts.clone();
    paris.receives(2, &message);
    // One of them once more.
    message.parts = vec![parts[1].clone()];
    paris.receives(3, &message);
    let asked: Vec<Request> = paris.wait(DAY / 24).into_iter().flat_map(|(sent, _)| sent.requests).collect();
    assert!(asked.iter().any(|request| request.transfer.is_none()), "{asked:?}");
    assert!(!asked.iter().any(|request| request.transfer == Some(transfer)), "{asked:?}");
    // Its key becomes known, and the first part comes again.
    hub.known[1].key = key(8).verifying_key();
    paris.starts(hub);
    message.parts = vec![parts[0].clone()];
    paris.receives(4, &message);
    let sent = paris.wait(2 * DAY);
    let named = |request: &&Request| request.transfer == Some(transfer);
    let asked: Vec<&Request> = sent.iter().flat_map(|(sent, _)| &sent.requests).filter(named).collect();
    assert!(
        asked.iter().all(|request| request.missing == [(2, parts.len() as u32 - 1)]) && !asked.is_empty()
    );
}

/// For days its beginning came and was refused, each time that something was asked for.
#[test]
fn what_a_key_counts_for_at_last_is_asked_for_soon() {
    let (mut paris, mut hub) = follows_kyoto();
    let parts = kyotos(8, &noise(0));
    let mut message = holds_kyotos();
    let times = answered(&mut paris, message.clone(), 5, |_| vec![parts[1].clone(), parts[0].clone()]);
    assert!(times.len() > 10, "{times:?}");
    // What it asks then is not answered before the key is known.
    paris.wait(60_000);
    hub.known[1].key = key(8).verifying_key();
    paris.starts(hub);
    message.parts = vec![parts[0].clone()];
    paris.receives(100_000, &message);
    let sent = paris.wait(DAY / 24);
    let named = |request: &Request| request.transfer == Some(parts[0].part.transfer);
    assert!(sent.iter().any(|(sent, _)| sent.requests.iter().any(named)));
}

/// A part is here of what the hub has given up, and something else that is refused comes again and again.
#[test]
fn what_is_refused_again_and_again_lets_questions_be_in_vain() {
    let (mut paris, _) = follows_kyoto();
    let (given_up, refused) = (kyotos(8, &noise(0)), kyotos(8, &noise(5_000)));
    let mut message = holds_kyotos();
    message.parts = vec![given_up[1].clone()];
    paris.receives(2, &message);
    let mut asked = Vec::new();
    for (n, part) in (3..20).zip(refused.into_iter().cycle()) {
        message.parts = vec![part];
        paris.receives(n, &message);
        asked.extend(paris.wait(60_000).into_iter().flat_map(|(sent, _)| sent.requests));
    }
    assert!(asked.iter().any(|request| request.transfer == Some(given_up[0].part.transfer)), "{asked:?}");
    assert!(asked.iter().any(|request| request.transfer.is_none()), "{asked:?}");
}

/// Each question is answered at once with what the closure gives for its number, a part a message that says no more than
/// this one: when Paris asked.
fn answered(
    paris: &mut Paris,
    mut message: Message,
    days: i64,
    answer: impl Fn(u64) -> Vec<PartItem>,
) -> Vec<i64> {
    let (end, mut seq, mut times) = (paris.now + days * DAY, 100, Vec::new());
    let mut parts = answer(0);
    loop {
        for part in &parts {
            (message.parts, seq) = (vec![part.clone()], seq + 1);
            paris.receives(seq, &message);
        }
        parts.clear();
        while parts.is_empty() {
            if paris.now > end {
                return times;
            }
            let sent = paris.wait(30_000);
            if sent.iter().any(|(sent, _)| !sent.requests.is_empty()) {
                times.push(paris.now);
                parts = answer(times.len() as u64);
            }
        }
    }
}

/// Growing intervals: some ten of five minutes, ten, twenty and so on are ten days; and the first question comes at once.
fn assert_ever_less(times: &[i64], start: i64) {
    assert!((4..=16).contains(&times.len()), "{} in ten days", times.len());
    assert!(times[0] <= start + 60_000, "the first comes at once");
}

/// The key of who signed it is not known here, whether it is one part or many; once it is, it is asked for at once.
#[test]
fn what_no_key_counts_for_is_asked_for_ever_less() {
    for octets in [&noise(0)[..100], &noise(0)] {
        let (mut paris, mut hub) = follows_kyoto();
        let (start, parts) = (paris.now, kyotos(8, octets));
        let times = answered(&mut paris, holds_kyotos(), 10, |_| parts.clone());
        assert!((8..=20).contains(&times.len()), "{} in ten days", times.len());
        assert!(times[0] <= start + 60_000 && times[3] <= start + 10 * 60_000, "{times:?} from {start}");
        hub.known[1].key = key(8).verifying_key();
        paris.starts(hub);
        let sent = paris.wait(60_000);
        let mut asked = sent.iter().flat_map(|(sent, _)| &sent.requests);
        assert!(asked.any(|request| request.context == "ou=kyoto,o=Example"), "{sent:?}");
        let mut message = holds_kyotos();
        message.parts = parts;
        paris.receives(9_000, &message);
        assert!(contexts(&paris.store).unwrap().iter().any(|record| record.master == "kyoto"));
    }
}

#[test]
fn what_never_fits_is_asked_for_ever_less() {
    let (one, wrong) = (noise(0), Digest([1; 32]));
    // The same again and again, or always another.
    let same = kyotos_since(9, &[&one], None, wrong);
    for other in [false, true] {
        let (mut paris, _) = follows_kyoto();
        let start = paris.now;
        let load = |n: u64| match other {
            false => same.clone(),
            true => kyotos_since(9, &[&one], None, Digest([1 + n as u8; 32])),
        };
        let times = answered(&mut paris, holds_kyotos(), 10, load);
        assert_ever_less(&times, start);
        // What fits is taken as it comes.
        let mut message = holds_kyotos();
        message.parts = kyotos_since(9, &[&one, &noise(5_000)], None, Digest::EMPTY);
        paris.receives(9_000, &message);
        let record = contexts(&paris.store).unwrap().into_iter().find(|record| record.master == "kyoto");
        assert_eq!(record.map(|record| record.position.usn), Some(2));
        let link = Peer::load(&paris.store, "tokyo").unwrap().unwrap().link("ou=kyoto,o=Example").clone();
        assert_eq!((link.ask_full, link.misfits), (false, 0));
    }
}

/// An increment from another state than ours, and in place of everything that increment again.
#[test]
fn what_begins_elsewhere_is_asked_for_ever_less() {
    let (mut paris, _) = follows_kyoto();
    let (one, other, two) = (noise(0), noise(2_000), noise(5_000));
    let mut message = holds_kyotos();
    message.parts = kyotos(9, &one);
    paris.receives(2, &message);
    let increment = kyotos_since(9, &[&other, &two], Some(1), Digest::EMPTY);
    assert!(increment.len() > 2);
    let start = paris.now;
    let times = answered(&mut paris, holds_kyotos(), 10, |_| increment.clone());
    assert_ever_less(&times, start);
}

/// What Paris lost of its own, and cannot take back.
#[test]
fn what_cannot_be_merged_is_asked_for_ever_less() {
    let mut paris = Paris::new();
    let mut message = holds_kyotos();
    message.vector[0].context = CONTEXT.into();
    let load = load_of(CONTEXT, 1, &[&noise(0)], None, Digest([1; 32]));
    paris.receives(2, &message);
    let start = paris.now;
    let times = answered(&mut paris, message, 10, |_| load.clone());
    assert_ever_less(&times, start);
}

/// Tokyo heard what came after it and still asks for everything: nothing of it was of use there, however lately it was
/// repeated.
#[test]
fn a_load_that_was_of_no_use_gives_way_to_what_is_newer() {
    let mut paris = Paris::new();
    let peer = |paris: &Paris| Peer::load(&paris.store, "tokyo").unwrap().unwrap();
    let chain = |paris: &Paris| peer(paris).link(CONTEXT).chain.clone();
    let transfer = chain(&paris)[0].transfer;
    assert!(chain(&paris)[0].seq > chain(&paris)[0].first_seq, "it was repeated");
    let request = |transfer, missing| {
        let context = CONTEXT.into();
        Request { context, base: None, base_digest: None, transfer, missing }
    };
    let (all, part) = (request(None, vec![]), request(Some(transfer), vec![(0, 0)]));
    paris.put("cn=newer,ou=paris,o=Example");
    paris.wait(60_000);
    let left = chain(&paris)[0].first_seq;
    let asked = [(left - 1, vec![all.clone()], 2), (left, vec![all.clone(), part], 2), (left, vec![all], 1)];
    for (number, (seq, requests, flights)) in (2..).zip(asked) {
        let mut message = Message::new(vec![wanted()]);
        message.heard = Some(Heard { seq, held_ms: 0 });
        message.requests = requests;
        paris.receives(number, &message);
        paris.wait(60_000);
        let chain = chain(&paris);
        assert_eq!((chain.len(), chain[0].transfer == transfer), (flights, flights == 2), "{chain:?}");
    }
}

/// Tokyo knows Kyoto by its former card, and goes on so if nobody tells it.
#[test]
fn who_gives_what_a_former_key_signed_is_told_of_the_present_one() {
    let mut paris = Paris::new();
    let mut hub = hub(1, &["a word for kyoto"]);
    hub.partners[0].inbound = Passage::All;
    let former = vec![FormerKey { key: key(8).verifying_key(), until: i64::MAX }];
    let card = Some(PinnedCard { serial: 2, text: "kyoto 2".into(), former: Vec::new() });
    let contexts = vec!["ou=kyoto,o=Example".into()];
    hub.known.push(KnownSite { site: "kyoto".into(), key: key(9).verifying_key(), contexts, former, card });
    paris.starts(hub);
    paris.wait(DAY);
    paris.hears(2, &hello("tokyo 1", Some(1)));
    assert!(hellos(&paris.wait(DAY)).is_empty(), "there is nothing to tell");

    let mut message = Message::new(vec![wanted()]);
    message.parts = kyotos(8, b"x");
    paris.receives(3, &message);
    assert!(context_by_number(&paris.store, 2).unwrap().is_some(), "it is taken");
    let sent = paris.wait(60_000);
    assert_eq!(hellos(&sent)[0].0.introductions, ["a word for kyoto"]);
}

/// With words of which one message holds four.
fn hub_of_many_words() -> (EngineConfig, Vec<String>) {
    let words: Vec<String> = (0..12).map(|n| format!("{n:02000}")).collect();
    let mut hub = hub(1, &words.iter().map(String::as_str).collect::<Vec<_>>());
    hub.partners[0].part_bytes_max = 16 << 10;
    (hub, words)
}

#[test]
fn what_is_told_of_others_takes_as_many_messages_as_it_needs() {
    let mut paris = Paris::new();
    paris.holds_kyoto();
    let (hub, words) = hub_of_many_words();
    paris.starts(hub);
    let mut told: Vec<String> = Vec::new();
    for number in 2..6 {
        let sent = paris.wait(60_000);
        let words: Vec<String> = sent.into_iter().flat_map(|(message, _)| message.introductions).collect();
        assert!(words.iter().map(String::len).sum::<usize>() <= 8 << 10, "half a message");
        told.extend(words);
        let mut message = Message::new(vec![wanted()]);
        message.hello = Some(hello("tokyo 1", Some(1)));
        let seq = Peer::load(&paris.store, "tokyo").unwrap().unwrap().greeting.told_seq;
        message.heard = seq.map(|seq| Heard { seq, held_ms: 0 });
        paris.receives(number, &message);
    }
    assert_eq!(told, words, "each of them once");
    // Who asks may have lost what it heard.
    let asks = Hello { answer: false, ..hello("tokyo 1", Some(1)) };
    paris.hears(9, &asks);
    assert!(paris.wait(60_000).iter().any(|(message, _)| message.introductions.len() == 4));
}

#[test]
fn all_that_is_told_of_others_goes_at_once_where_nobody_answers() {
    let mut paris = Paris::new();
    paris.holds_kyoto();
    let (mut hub, words) = hub_of_many_words();
    hub.partners[0].one_way = true;
    paris.starts(hub);
    for days in [1, 7] {
        let sent = paris.wait(days * DAY);
        let told = sent.into_iter().flat_map(|(message, _)| message.introductions);
        assert_eq!(told.collect::<Vec<_>>(), words, "each of them once a week");
    }
}

/// It may have been put back to an earlier day, with what it pinned; it only says so when it is asked.
#[test]
fn whoever_starts_says_hello_until_it_is_heard() {
    let mut paris = Paris::new();
    assert!(hellos(&paris.wait(DAY)).is_empty());
    let before = Peer::load(&paris.store, "tokyo").unwrap().unwrap().sent_seq;
    paris.starts(config(1));
    assert_eq!(hellos(&paris.wait(60_000)).len(), 1);
    assert!(!hellos(&paris.wait(DAY)).is_empty());
    // An answer to what it said before was under way when it was put back.
    let mut late = Message::new(vec![wanted()]);
    late.hello = Some(hello("tokyo 1", Some(1)));
    late.heard = Some(Heard { seq: before, held_ms: 0 });
    paris.receives(2, &late);
    assert!(!hellos(&paris.wait(2 * DAY)).is_empty());
    paris.hears(3, &hello("tokyo 1", Some(1)));
    assert!(hellos(&paris.wait(30 * DAY)).is_empty());
}

/// The link was cut for days, and every hello got lost. What Tokyo sends now shows that the way is open again.
#[test]
fn whoever_is_heard_without_an_answer_gets_hello_soon() {
    let mut paris = Paris::new();
    paris.starts(config(1));
    assert!(hellos(&paris.wait(5 * DAY)).len() > 5);
    while hellos(&paris.wait(DAY / 24)).is_empty() {}
    assert!(hellos(&paris.wait(DAY)).is_empty(), "every second day");
    let word = Message::new(vec![wanted()]);
    paris.receives(2, &word);
    assert_eq!(hellos(&paris.wait(DAY / 2)).len(), 1);
    paris.receives(3, &word);
    assert!(hellos(&paris.wait(DAY / 24)).is_empty(), "not with each mail of a lively site");
    paris.hears(4, &Hello { answer: true, ..hello("tokyo 1", Some(1)) });
    paris.receives(5, &word);
    assert!(hellos(&paris.wait(9 * DAY)).is_empty());
}

/// Tokyo would refuse what the new key says of others, and yet say that it heard the message.
#[test]
fn what_is_told_of_others_waits_until_our_key_is_known() {
    let mut paris = Paris::new();
    paris.holds_kyoto();
    let hub = hub(2, &["a word of the new key for kyoto"]);
    paris.starts(hub);
    let sent = paris.wait(DAY);
    assert!(!hellos(&sent).is_empty() && !told_of_others(sent), "by the former key");
    paris.hears(2, &hello("tokyo 1", Some(2)));
    assert!(told_of_others(paris.wait(60_000)));
}

/// The other site may have been put back since, and wants to hear what it heard before.
#[test]
fn a_hello_that_was_overtaken_is_answered() {
    let mut paris = Paris::new();
    let answers = |sent: &[Sent]| {
        let hellos = sent.iter().filter_map(|(message, _)| message.hello.as_ref());
        hellos.filter(|hello| hello.answer).count()
    };
    paris.hears(9, &Hello { answer: true, ..hello("tokyo 1", Some(1)) });
    assert_eq!(answers(&paris.wait(DAY)), 0);
    paris.hears(8, &Hello { answer: true, ..hello("tokyo 1", Some(1)) });
    assert_eq!(answers(&paris.wait(DAY)), 0, "an answer wants none");
    paris.hears(7, &Hello { answer: false, ..hello("tokyo 1", Some(1)) });
    assert_eq!(answers(&paris.wait(DAY)), 1);
}

/// Where an answer takes days, a hello every few minutes would only cost mail.
#[test]
fn hello_waits_for_as_long_as_an_answer_takes() {
    let hellos_a_day = |round_trip: Option<i64>| {
        let mut paris = Paris::new();
        let mut peer = Peer::load(&paris.store, "tokyo").unwrap().unwrap();
        round_trip.into_iter().for_each(|measured| peer.round_trip.measure(measured));
        paris.keeps(&peer);
        paris.starts(config(1));
        hellos(&paris.wait(DAY)).len()
    };
    assert!(hellos_a_day(None) > 5);
    assert_eq!(hellos_a_day(Some(DAY / 2)), 1);
}

/// Each hello is answered for what it told, not for what one before it told.
#[test]
fn a_hello_that_tells_of_nobody_is_no_word_on_what_was_told_before() {
    let mut paris = Paris::new();
    paris.holds_kyoto();
    let hub = hub(2, &["a word of the new key for kyoto"]);
    // Nothing is known of what Tokyo goes by: it is told, and that is lost.
    let mut peer = Peer::load(&paris.store, "tokyo").unwrap().unwrap();
    peer.greeting.pinned = None;
    paris.keeps(&peer);
    paris.starts(hub);
    assert!(told_of_others(paris.wait(60_000)));
    // It goes by the former key, so it is told nothing more; then it answers that hello, by the new key.
    paris.hears(2, &Hello { answer: false, ..hello("tokyo 1", Some(1)) });
    let sent = paris.wait(DAY);
    let asked = hellos(&sent).len();
    assert!(asked > 0 && !told_of_others(sent));
    let mut message = Message::new(vec![wanted()]);
    message.hello = Some(Hello { answer: true, ..hello("tokyo 1", Some(2)) });
    let seq = Peer::load(&paris.store, "tokyo").unwrap().unwrap().sent_seq;
    message.heard = Some(Heard { seq, held_ms: 0 });
    paris.receives(3, &message);
    assert!(told_of_others(paris.wait(60_000)));
}
