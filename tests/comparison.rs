//! `verify` between two replicas of 100,000 entries: engine against engine, with a clock and without bad mail.
//!
//! The simulator shows that a comparison survives bad mail; this shows what it costs where much is equal. The same between two
//! daemons, with fewer entries unless `BRIDGEHEAD_VERIFY_ENTRIES` says how many.

use std::collections::VecDeque;

use bridgehead::directory::commit::Commit;
use bridgehead::directory::context::{context_by_number, context_of, create_context, put_context};
use bridgehead::directory::entry::batch_of;
use bridgehead::directory::ldif::Reader;
use bridgehead::directory::memory::MemoryStore;
use bridgehead::directory::sqlite::SqliteStore;
use bridgehead::directory::{ContextRecord, Dn, Read, Table, Write, lookup};
use bridgehead::replication::engine::{
    Engine, EngineConfig, Event, Header, Input, KnownSite, Output, Partner, Timing,
};
use bridgehead::replication::parts::{Part, TransferId};
use bridgehead::replication::peer::Peer;
use bridgehead::replication::verify;
use bridgehead::replication::wire::{DigestItem, Message, Notice, PartItem};
use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::support::{Direct, SOON, Site as Daemon, people};

const ENTRIES: u32 = 100_000;
const CONTEXT: &str = "ou=paris,o=Example";

struct Site {
    name: &'static str,
    store: MemoryStore,
    engine: Engine,
}

struct Mail {
    from: usize,
    seq: u64,
    payload: Vec<u8>,
}

/// Paris leads, Tokyo follows; every mail takes a second.
struct Pair {
    sites: [Site; 2],
    now: i64,
    on_the_way: VecDeque<Mail>,
    /// Of each mail handed over: sender, octets, whether it compares, octets of parts in it.
    sent: Vec<(usize, usize, bool, usize)>,
    events: Vec<Event>,
}

const HOUR: i64 = 3_600_000;
const PARIS: usize = 0;
const TOKYO: usize = 1;

impl Pair {
    fn new(store: &MemoryStore, part_bytes_max: u64) -> Pair {
        let keys = [[1; 32], [2; 32]].map(|seed| SigningKey::from_bytes(&seed));
        let names = ["paris", "tokyo"];
        let known = |n: usize, contexts: &[&str]| KnownSite {
            site: names[n].into(),
            key: keys[n].verifying_key(),
            contexts: contexts.iter().map(|&context| context.into()).collect(),
            former: Vec::new(),
            card: None,
        };
        let site = |n: usize| Site {
            name: names[n],
            store: store.clone(),
            engine: Engine::new(EngineConfig {
                site: names[n].into(),
                key: keys[n].clone(),
                card: format!("card of {}", names[n]),
                succession: Default::default(),
                known: vec![known(PARIS, &[CONTEXT]), known(TOKYO, &[])],
                partners: vec![Partner { part_bytes_max, ..Partner::new(names[1 - n]) }],
                timing: Timing::default(),
            }),
        };
        let (sites, now) = ([site(PARIS), site(TOKYO)], 1_800_000_000_000);
        let mut pair = Pair { sites, now, on_the_way: VecDeque::new(), sent: Vec::new(), events: Vec::new() };
        pair.input(PARIS, Input::Start);
        pair.input(TOKYO, Input::Start);
        pair
    }

    fn input(&mut self, n: usize, input: Input) {
        let Site { store, engine, .. } = &mut self.sites[n];
        let mut tx = store.begin();
        engine.handle(&mut tx, Timestamp::from_millisecond(self.now).unwrap(), input).unwrap();
        tx.commit();
        while let Some(output) = engine.output() {
            match output {
                Output::Mail { mail: seq, payload, .. } => {
                    let said = Message::decode(&payload).unwrap();
                    let parts = said.parts.iter().map(|item| item.part.bytes.len()).sum();
                    self.sent.push((n, payload.len(), !said.digests.is_empty(), parts));
                    self.on_the_way.push_back(Mail { from: n, seq, payload });
                }
                Output::Event(event) => self.events.push(event),
                Output::Card { .. } | Output::Introduced { .. } => {}
            }
        }
    }

    /// Until no mail is on the way and nothing is due within a minute.
    fn settle(&mut self) {
        for _ in 0..200 {
            if let Some(Mail { from, seq, payload }) = self.on_the_way.pop_front() {
                self.now += 1000;
                let time = Timestamp::from_millisecond(self.now).unwrap();
                let header = Header { seq, time, message_id: None };
                self.input(1 - from, Input::Received { from: self.sites[from].name.into(), header, payload });
                continue;
            }
            let due = (0..2).filter_map(|n| Some((self.sites[n].engine.deadline()?.as_millisecond(), n)));
            match due.min().filter(|(at, _)| *at <= self.now + 60_000) {
                Some((at, n)) => {
                    self.now = self.now.max(at);
                    self.input(n, Input::Tick);
                }
                None => return,
            }
        }
        panic!("they do not come to rest: {:?}", self.events);
    }

    fn record(&self, n: usize) -> ContextRecord {
        record(&self.sites[n].store)
    }
}

fn record(store: &MemoryStore) -> ContextRecord {
    context_by_number(store, 1).unwrap().unwrap()
}

fn commit(store: &mut MemoryStore, batch: u8, ldif: &str) {
    let mut tx = store.begin();
    let mut commit = Commit::begin(&mut tx, 1, [batch; 12]).unwrap();
    for change in Reader::new(ldif.as_bytes()) {
        commit.apply(&change.unwrap().1).unwrap();
    }
    commit.finish().unwrap();
    tx.commit();
}

fn company(entries: u32) -> MemoryStore {
    company_in(entries, |n| format!("B{}", n % 97))
}

/// Who is in which room.
fn company_in(entries: u32, room: impl Fn(u32) -> String) -> MemoryStore {
    let mut store = MemoryStore::new();
    let mut tx = store.begin();
    create_context(&mut tx, &Dn::parse(CONTEXT).unwrap(), "paris", Uuid::from_u128(7)).unwrap();
    tx.commit();
    let mut ldif = format!("version: 1\ndn: {CONTEXT}\nou: paris\n\n");
    for n in 1..entries {
        ldif += &format!("dn: uid=p{n},{CONTEXT}\nuid: p{n}\nroomNumber: {}\n\n", room(n));
    }
    commit(&mut store, 1, &ldif);
    store
}

/// Makes `count` entries otherwise behind the engine's back, everywhere in the tree: some altered, some gone, some
/// that nobody knows. Position and checkpoint stay as they were.
fn damage(store: &mut MemoryStore, count: u32) -> [u64; 3] {
    let before = record(store);
    let step = before.entries as u32 / count;
    let mut ldif = "version: 1\n".to_owned();
    let mut done = [0; 3];
    for n in 0..count {
        let person = n * step + 5;
        ldif += &match n % 3 {
            0 => format!(
                "dn: uid=p{person},{CONTEXT}\nchangetype: modify\nreplace: roomNumber\nroomNumber: X\n-\n\n"
            ),
            1 => format!("dn: uid=p{person},{CONTEXT}\nchangetype: delete\n\n"),
            _ => format!("dn: uid=x{person},{CONTEXT}\nchangetype: add\nuid: x{person}\nroomNumber: X\n\n"),
        };
        done[n as usize % 3] += 1;
    }
    commit(store, 2, &ldif);
    let spoiled = ContextRecord { position: before.position, ..record(store) };
    let mut tx = store.begin();
    put_context(&mut tx, &spoiled).unwrap();
    tx.commit();
    done
}

/// What verify costs: the number of differing entries, then the most that may be said, in octets of all messages but
/// the repair itself.
const COSTS: [(u32, usize); 3] = [(1, 5_000), (10, 40_000), (1000, 420_000)];

#[test]
fn verify_finds_the_differing_entries_of_100_000_in_three_messages_each_way() {
    let company = company(ENTRIES);
    for (count, octets_max) in COSTS {
        let mut pair = Pair::new(&company, 1 << 20);
        pair.settle();
        assert_eq!(pair.record(PARIS).entries, u64::from(ENTRIES));
        let sound = pair.record(PARIS).digest;
        assert_eq!(pair.record(TOKYO).digest, sound);
        let [altered, gone, unknown] = damage(&mut pair.sites[TOKYO].store, count);
        assert_ne!(pair.record(TOKYO).digest, sound);
        pair.input(TOKYO, Input::Sync { site: None });
        pair.settle();
        assert!(pair.events.iter().any(|event| matches!(event, Event::Differs { .. })));
        assert_ne!(pair.record(TOKYO).digest, sound, "a difference is repaired when that is asked for");

        (pair.sent, pair.events) = (Vec::new(), Vec::new());
        pair.input(TOKYO, Input::Verify { site: None });
        pair.settle();
        assert_eq!(pair.record(TOKYO).digest, sound);
        let applied = pair.events.iter().filter_map(|event| match event {
            Event::Applied { added, changed, deleted, .. } => Some([*added, *changed, *deleted]),
            _ => None,
        });
        // What was altered is made anew.
        let expected = [gone + altered, 0, unknown + altered];
        assert_eq!(
            applied.collect::<Vec<_>>(),
            [expected],
            "what differs is repaired, once, and nothing else"
        );

        // Up to the repair, which is the last of the leader's that says anything.
        let repaired = pair.sent.iter().position(|mail| mail.3 > 0).unwrap();
        let needed = &pair.sent[..=repaired];
        let messages = [PARIS, TOKYO].map(|n| needed.iter().filter(|mail| mail.0 == n).count());
        let repair: usize = needed.iter().map(|mail| mail.3).sum();
        let said = needed.iter().map(|mail| mail.1).sum::<usize>() - repair;
        eprintln!("{count} differ: {messages:?} messages, {said} octets and {repair} of repair");
        assert!(messages.iter().all(|messages| *messages <= 3), "{count} differ: {messages:?} messages");
        assert!(pair.sent[repaired + 1..].iter().all(|mail| !mail.2), "the comparison is over");
        assert!(said <= octets_max, "{count} differ: {said} octets to find out");
        assert!(repair <= 200 + 60 * count as usize, "{count} differ: {repair} octets of repair");
    }
}

/// Damages so many entries of this naming context as a failing disk or a hand in the database would: digests, names and
/// record stay as they were. Some are altered, some gone, some cannot be read, one is the topmost.
fn rot(tx: &mut dyn Write, number: u32, count: usize) {
    let mut rows = Vec::new();
    let (from, to) = (number.to_be_bytes(), (number + 1).to_be_bytes());
    tx.scan(Table::Entry, &from, &to, &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        true
    })
    .unwrap();
    let step = rows.len() / count;
    for (n, (key, value)) in rows.into_iter().step_by(step).take(count).enumerate() {
        match n % 3 {
            0 => tx.put(Table::Entry, &key, &value[..value.len() / 2]).unwrap(),
            1 => tx.delete(Table::Entry, &key).unwrap(),
            _ => tx.put(Table::Entry, &key, &altered(value)).unwrap(),
        }
    }
}

/// The same entry with another last octet of its last value.
fn altered(mut value: Vec<u8>) -> Vec<u8> {
    *value.last_mut().expect("an entry") ^= 1;
    value
}

impl Pair {
    fn rot(&mut self, n: usize, count: usize) {
        let mut tx = self.sites[n].store.begin();
        rot(&mut tx, 1, count);
        tx.commit();
    }

    fn count(&self, is: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| is(event)).count()
    }

    fn damaged(&self) -> usize {
        self.count(|event| matches!(event, Event::Damaged { .. }))
    }

    /// Entries, names and digest tree, as they are stored.
    fn stored(&self, n: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all = Vec::new();
        for table in [Table::Entry, Table::Name, Table::Digest] {
            let visit = &mut |key: &[u8], value: &[u8]| {
                all.push((key.to_vec(), value.to_vec()));
                true
            };
            self.sites[n].store.scan(table, &[], &[0xff; 5], visit).unwrap();
        }
        all
    }
}

#[test]
fn what_was_altered_in_the_replicas_database_is_all_that_is_repaired() {
    const HELD: u32 = 20_000;
    let company = company(HELD);
    for count in [1, 30] {
        let mut pair = Pair::new(&company, 1 << 20);
        pair.settle();
        pair.rot(TOKYO, count);
        assert!(pair.stored(TOKYO) != pair.stored(PARIS));
        (pair.sent, pair.events) = (Vec::new(), Vec::new());
        pair.input(TOKYO, Input::Verify { site: None });
        pair.settle();
        assert_eq!(pair.damaged(), 1, "{:?}", pair.events);
        assert!(pair.stored(TOKYO) == pair.stored(PARIS), "{:?}", pair.events);
        let whole = |event: &Event| {
            matches!(event, Event::Requested { full: true, .. } | Event::TransferSent { base: None, .. })
        };
        assert_eq!(pair.count(whole), 0, "{:?}", pair.events);
        assert_eq!(pair.count(|event| matches!(event, Event::Applied { .. })), 1, "{:?}", pair.events);
        let repaired = pair.sent.iter().position(|mail| mail.3 > 0).unwrap();
        let messages =
            [PARIS, TOKYO].map(|n| pair.sent[..=repaired].iter().filter(|mail| mail.0 == n).count());
        assert!(messages.iter().all(|messages| *messages <= 3), "{messages:?}");
        let octets: usize = pair.sent.iter().map(|mail| mail.1).sum();
        eprintln!("{count} of {HELD} altered: {messages:?} messages, {octets} octets in all");
        assert!(octets <= 10_000 + 3_000 * count, "{octets} octets");
        let equal = pair.count(|event| matches!(event, Event::Equal { .. }));
        assert_eq!(equal, 1, "{:?}", pair.events);
    }
}

/// The master's operator learns what is wrong there; it is repaired when it is asked for there.
#[test]
fn verify_at_the_master_finds_what_was_altered_at_the_replica() {
    let mut pair = Pair::new(&company(5_000), 1 << 20);
    pair.settle();
    let verify = |pair: &mut Pair, n: usize| {
        pair.events.clear();
        pair.input(n, Input::Verify { site: None });
        pair.settle();
        let of = |is: &dyn Fn(&Event) -> bool| pair.events.iter().filter(|event| is(event)).count();
        (pair.damaged(), of(&|event| matches!(event, Event::Equal { .. })))
    };
    assert_eq!(verify(&mut pair, PARIS), (0, 1));
    pair.now += HOUR;
    pair.rot(TOKYO, 5);
    assert_eq!(verify(&mut pair, PARIS), (1, 0), "found, and not equal");
    assert_eq!(pair.count(|event| matches!(event, Event::Differs { .. })), 2, "told on both sides");
    assert!(pair.stored(TOKYO) != pair.stored(PARIS), "nobody there asked for a repair");
    assert_eq!(verify(&mut pair, TOKYO), (0, 2), "Paris still waited for that");
    assert!(pair.stored(TOKYO) == pair.stored(PARIS));

    // Who asks again and again costs no more than one look at all entries in an hour.
    pair.rot(TOKYO, 5);
    assert_eq!(verify(&mut pair, PARIS), (0, 1));
    pair.now += HOUR;
    assert_eq!(verify(&mut pair, PARIS), (1, 0));
}

/// Nobody but the master can say what its own entries are: it goes on telling what it signed, and that they are damaged.
#[test]
fn what_was_altered_at_the_master_is_told_and_nothing_else() {
    let mut pair = Pair::new(&company(5_000), 1 << 20);
    pair.settle();
    let (before, sound) = (pair.record(PARIS), pair.stored(TOKYO));
    pair.rot(PARIS, 5);
    pair.events.clear();
    pair.input(PARIS, Input::Verify { site: None });
    pair.settle();
    assert!(
        matches!(&pair.events[0], Event::Damaged { master, .. } if master == "paris"),
        "{:?}",
        pair.events
    );
    pair.input(TOKYO, Input::Verify { site: None });
    pair.settle();
    assert_eq!(pair.damaged(), 2, "{:?}", pair.events);
    let noticed = |event: &Event| matches!(event, Event::Noticed { text, .. } if text.contains(CONTEXT));
    assert_eq!(pair.count(noticed), 1, "{:?}", pair.events);
    assert_eq!(pair.record(PARIS), before);
    assert!(pair.stored(TOKYO) == sound);
}

impl Pair {
    /// As a failing disk would, makes the row of each of these entries unreadable, or takes it away.
    fn spoil(&mut self, n: usize, persons: impl Iterator<Item = u32>, gone: bool) {
        let record = self.record(n);
        let mut tx = self.sites[n].store.begin();
        for person in persons {
            let dn = Dn::parse(&format!("uid=p{person},{CONTEXT}")).unwrap();
            let uuid = lookup::find(&tx, &record, &dn).unwrap().expect("an entry");
            let (batch, ordinal) = batch_of(uuid);
            let key = [&record.number.to_be_bytes()[..], &batch, &ordinal.to_be_bytes()].concat();
            match gone {
                true => tx.delete(Table::Entry, &key).unwrap(),
                false => tx.put(Table::Entry, &key, b"\xff no entry").unwrap(),
            }
        }
        tx.commit();
    }

    /// A commit of Paris, of which its engine has heard.
    fn commits(&mut self, batch: u8, ldif: &str) {
        commit(&mut self.sites[PARIS].store, batch, ldif);
        self.input(PARIS, Input::LocalCommit { context: 1 });
    }

    fn is_equal(&self) -> bool {
        self.record(PARIS) == ContextRecord { log_floor: self.record(PARIS).log_floor, ..self.record(TOKYO) }
    }
}

fn room(person: u32, room: &str) -> String {
    format!(
        "version: 1\ndn: uid=p{person},{CONTEXT}\nchangetype: modify\nreplace: roomNumber\nroomNumber: {room}\n-\n\n"
    )
}

fn written(person: u32, room: &str) -> String {
    format!("version: 1\ndn: uid=p{person},{CONTEXT}\nuid: p{person}\nroomNumber: {room}\n\n")
}

/// Where what a transfer could borrow words from cannot be read, it does without.
#[test]
fn a_change_leaves_beside_entries_that_cannot_be_read() {
    for gone in [false, true] {
        let mut pair = Pair::new(&company(500), 1 << 20);
        pair.settle();
        pair.spoil(PARIS, (1..500).filter(|n| n % 5 == 0), gone);
        pair.commits(3, &room(7, "X"));
        pair.settle();
        assert!(pair.is_equal(), "{:?}", pair.events);
    }
}

/// Only what has to be read keeps a change back, and that is told; what is imported anew goes to the others.
#[test]
fn what_cannot_be_read_keeps_nothing_else_back() {
    for gone in [false, true] {
        let mut pair = Pair::new(&company(500), 1 << 20);
        pair.settle();
        commit(&mut pair.sites[PARIS].store, 3, &room(7, "X"));
        pair.spoil(PARIS, [7].into_iter(), gone);
        pair.events.clear();
        pair.input(PARIS, Input::LocalCommit { context: 1 });
        pair.settle();
        assert_eq!(pair.damaged(), 1, "{:?}", pair.events);
        assert!(!pair.is_equal());
        pair.sites[PARIS].engine = Engine::new(pair.sites[PARIS].engine.config().clone());
        pair.input(PARIS, Input::Start);
        pair.commits(4, &room(8, "Y"));
        pair.settle();
        pair.events.clear();
        pair.input(PARIS, Input::Verify { site: None });
        assert!(pair.damaged() > 0, "{:?}", pair.events);
        pair.settle();
        pair.commits(5, &written(7, "Z"));
        pair.settle();
        assert!(pair.is_equal(), "{:?}", pair.events);
    }
}

/// An import that only puts back what was there is no change that anybody hears of.
#[test]
fn what_can_be_read_again_leaves_without_anybodys_word() {
    let mut pair = Pair::new(&company(500), 1 << 20);
    pair.settle();
    commit(&mut pair.sites[PARIS].store, 3, &room(7, "X"));
    pair.spoil(PARIS, [7].into_iter(), false);
    pair.input(PARIS, Input::LocalCommit { context: 1 });
    pair.settle();
    let before = pair.record(PARIS);
    commit(&mut pair.sites[PARIS].store, 4, &written(7, "X"));
    assert_eq!(pair.record(PARIS), before, "as it was");
    assert!(!pair.is_equal());
    let until = pair.now + HOUR;
    while pair.now < until {
        pair.now += 60_000;
        pair.settle();
    }
    assert!(pair.is_equal(), "{:?}", pair.events);
}

/// A load that lacks an entry would go by mail for nothing, as often as it is asked for.
#[test]
fn no_load_leaves_that_lacks_what_is_gone() {
    for gone in [false, true] {
        let mut pair = Pair::new(&company(500), 1 << 20);
        pair.spoil(PARIS, [7].into_iter(), gone);
        pair.sites[TOKYO].store = MemoryStore::new();
        pair.settle();
        let parts: usize = pair.sent.iter().map(|mail| mail.3).sum();
        assert_eq!(parts, 0);
        assert!(pair.damaged() > 0, "{:?}", pair.events);
        pair.commits(3, &written(7, "X"));
        pair.settle();
        assert_eq!(pair.record(TOKYO).digest, pair.record(PARIS).digest, "{:?}", pair.events);
    }
}

/// What a replica cannot read it gets anew.
#[test]
fn a_replica_that_cannot_read_what_it_holds_begins_anew() {
    let (touched, beside) = (room(10, "X"), written(500, "B12"));
    for (gone, change) in [(false, &touched), (true, &touched), (false, &beside), (true, &beside)] {
        let mut pair = Pair::new(&company(500), 1 << 20);
        pair.settle();
        pair.spoil(TOKYO, (1..500).filter(|n| n % 5 == 0), gone);
        pair.commits(3, change);
        pair.settle();
        assert!(pair.is_equal(), "{:?}", pair.events);
        assert!(pair.stored(TOKYO) == pair.stored(PARIS));
    }
}

/// Whoever asks hears each message's answers once, and what is pending for it does not grow.
#[test]
fn of_each_naming_context_one_answer_is_pending() {
    let company = company(500);
    let mut pair = Pair::new(&company, 1 << 20);
    pair.settle();
    damage(&mut pair.sites[TOKYO].store, 30);
    let position = pair.record(TOKYO).position;
    let body = verify::begin(&pair.sites[TOKYO].store, &pair.record(TOKYO)).unwrap();
    pair.input(PARIS, Input::Pause { site: "tokyo".into(), paused: true });
    let item = DigestItem { context: CONTEXT.into(), position, body: body.into() };
    for n in 0..3 {
        let mut message = Message::new(Vec::new());
        message.vector_digest = Some([0; 16].into());
        message.digests = vec![item.clone(); 256];
        pair.tokyo_says(n, &message);
        let pending = Peer::load(&pair.sites[PARIS].store, "tokyo").unwrap().unwrap().digests;
        assert_eq!(pending.len(), 1);
    }
}

impl Pair {
    /// A message to Paris under this number, from some time ahead.
    fn tokyo_says(&mut self, number: u64, message: &Message) {
        let time = Timestamp::from_millisecond(self.now).unwrap();
        let header = Header { seq: (self.now + HOUR) as u64 + number, time, message_id: None };
        let payload = message.encode();
        self.input(PARIS, Input::Received { from: "tokyo".into(), header, payload });
    }
}

/// A notice needs no key to be repeated, only the old mail.
#[test]
fn a_notice_is_told_once() {
    let mut pair = Pair::new(&company(20), 1 << 20);
    pair.settle();
    let mut message = Message::new(Vec::new());
    message.vector_digest = Some([0; 16].into());
    message.notices.push(Notice { code: 0, context: None, text: "it is damaged".into() });
    let part =
        Part { transfer: TransferId([1; 16]), index: 1, count: 3, manifest: Vec::new(), bytes: vec![1] };
    message.parts.push(PartItem { context: "ou=none,o=Example".into(), part });
    let told = |pair: &Pair| pair.count(|event| matches!(event, Event::Noticed { .. }));
    // What was overtaken is news all the same, unless it is older than all that is remembered.
    for (number, expected) in [(10, 1), (5, 2), (5, 2), (10, 2)] {
        pair.tokyo_says(number, &message);
        assert_eq!(told(&pair), expected, "after {number}");
    }
    (1_000..1_200).for_each(|number| pair.tokyo_says(number, &Message::new(Vec::new())));
    for number in [10, 5, 7] {
        pair.tokyo_says(number, &message);
        assert_eq!(told(&pair), 2, "after {number}");
    }
}

/// Digests travel in one piece. Where mail is small they go deeper one level at a time; where so much differs that not even
/// that fits, a full load in parts takes their place.
#[test]
fn where_mail_is_small_no_message_of_a_comparison_is_larger() {
    // That no compression makes small.
    let company = company_in(5000, |n| {
        let noise = Sha256::digest(n.to_be_bytes());
        noise.iter().map(|octet| format!("{octet:02x}")).collect()
    });
    let limit = 16 << 10;
    let octets = |differ: u32| {
        let mut pair = Pair::new(&company, limit);
        pair.settle();
        let sound = pair.record(PARIS).digest;
        damage(&mut pair.sites[TOKYO].store, differ);
        pair.sent.clear();
        pair.input(TOKYO, Input::Verify { site: None });
        pair.settle();
        assert_eq!(pair.record(TOKYO).digest, sound, "{:?}", pair.events);
        assert!(pair.sent.iter().any(|mail| mail.2), "they compared");
        assert!(pair.sent.iter().all(|mail| mail.1 as u64 <= limit), "{:?}", pair.sent);
        pair.sent.iter().map(|mail| mail.1).sum::<usize>()
    };
    let (some, everything) = (octets(21), octets(600));
    assert!(some < everything / 4, "{some} octets for 21 entries, {everything} for all");
}

/// Alters one entry in so many, deletes another and adds a third in what the stopped site holds of this naming context.
/// Position and checkpoint stay as they were. How many entries differ now.
fn damage_on_disk(site: &Daemon, context: &str, export: &str, every: usize) -> usize {
    let mut store = SqliteStore::open(&site.directory.join("data")).expect("the store of a stopped site");
    let before = context_of(&store, &Dn::parse(context).unwrap()).unwrap().expect("it is held");
    let people =
        export.lines().filter_map(|line| line.strip_prefix("dn: ")).filter(|dn| dn.starts_with("uid="));
    let mut ldif = "version: 1\n".to_owned();
    let mut differ = 0;
    for (n, dn) in people.step_by(every).enumerate() {
        ldif += &match n % 3 {
            0 => format!("dn: {dn}\nchangetype: modify\nreplace: roomNumber\nroomNumber: X\n-\n\n"),
            1 => format!("dn: {dn}\nchangetype: delete\n\n"),
            _ => format!("dn: uid=x{n},{context}\nchangetype: add\nuid: x{n}\nobjectClass: account\n\n"),
        };
        differ += 1;
    }
    let mut tx = store.begin().unwrap();
    let mut commit = Commit::begin(&mut tx, before.number, [9; 12]).unwrap();
    for change in Reader::new(ldif.as_bytes()) {
        commit.apply(&change.unwrap().1).unwrap();
    }
    commit.finish().unwrap();
    let after = context_by_number(&tx, before.number).unwrap().expect("it is held");
    put_context(&mut tx, &ContextRecord { position: before.position, ..after }).unwrap();
    tx.commit().unwrap();
    differ
}

#[test]
fn daemons_find_the_entries_that_differ_and_repair_those() {
    let entries =
        std::env::var("BRIDGEHEAD_VERIFY_ENTRIES").map_or(4_000, |count| count.parse().expect("a number"));
    let mut pair = Direct::start("verify-differs");
    pair.paris.import(&people(&pair.paris, entries));
    pair.paris.sync(20 * SOON);
    let sound = pair.paris.export(&pair.paris.context);
    assert!(pair.tokyo.export(&pair.paris.context) == sound);
    pair.tokyo.stop();
    let text = String::from_utf8(sound.clone()).expect("LDIF is ASCII");
    let differ = damage_on_disk(&pair.tokyo, &pair.paris.context, &text, entries as usize / 30);
    assert!(differ >= 20, "{differ}");
    pair.tokyo.start();
    pair.tokyo.run(&["sync", "--wait", "0"]);
    assert!(pair.tokyo.export(&pair.paris.context) != sound);

    let sizes = |site: &Daemon| -> Vec<usize> {
        let log = std::fs::read_to_string(site.log()).expect("a log");
        let sent = log.lines().filter(|line| line.contains("event=\"message-sent\""));
        sent.filter_map(|line| line.split(" bytes=").nth(1)?.split(' ').next()?.parse().ok()).collect()
    };
    let before = [sizes(&pair.paris).len(), sizes(&pair.tokyo).len()];
    pair.tokyo.ok(&["verify", "--wait", &(20 * SOON.as_secs()).to_string(), "paris"]);
    assert!(pair.tokyo.export(&pair.paris.context) == sound, "what differed is repaired");
    let sent = [&sizes(&pair.paris)[before[0]..], &sizes(&pair.tokyo)[before[1]..]].map(<[usize]>::to_vec);
    eprintln!("{differ} of {entries} differ: octets of the messages of paris and tokyo {sent:?}");
    // Three each way, and the last acknowledgements.
    assert!(sent.iter().all(|sent| sent.len() <= 4), "{sent:?}");
    let octets: usize = sent.iter().flatten().sum();
    assert!(octets < sound.len() / 4, "{octets} octets of mail, where everything is {}", sound.len());
}

/// Alters entries in the database of the stopped site, and nothing that is drawn from them.
fn rot_on_disk(site: &Daemon, context: &str, count: usize) {
    let mut store = SqliteStore::open(&site.directory.join("data")).expect("the store of a stopped site");
    let number = context_of(&store, &Dn::parse(context).unwrap()).unwrap().expect("it is held").number;
    let mut tx = store.begin().unwrap();
    rot(&mut tx, number, count);
    tx.commit().unwrap();
}

#[test]
fn daemons_find_and_repair_what_was_altered_in_a_database() {
    let mut pair = Direct::start("verify-rot");
    let context = pair.paris.context.clone();
    let people = people(&pair.paris, 4_000);
    pair.paris.import(&people);
    pair.paris.sync(20 * SOON);
    let sound = pair.paris.export(&context);
    let long = (20 * SOON.as_secs()).to_string();

    pair.tokyo.stop();
    rot_on_disk(&pair.tokyo, &context, 12);
    pair.tokyo.start();
    pair.tokyo.sync(20 * SOON);
    // Paris, which asks, finds it as well; Tokyo has it repaired.
    let found = pair.paris.run(&["verify", "--wait", "5", "tokyo"]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    let before = std::fs::read_to_string(pair.paris.log()).expect("a log").len();
    pair.tokyo.ok(&["verify", "--wait", &long, "paris"]);
    assert!(pair.tokyo.export(&context) == sound);
    let log = std::fs::read_to_string(pair.paris.log()).expect("a log").split_off(before);
    assert!(log.contains("event=\"repairing\"") && !log.contains("event=\"transfer-sent\""), "{log}");
    let sizes = log.lines().filter(|line| line.contains("event=\"message-sent\""));
    let sizes: Vec<usize> =
        sizes.filter_map(|line| line.split(" bytes=").nth(1)?.split(' ').next()?.parse().ok()).collect();
    assert!(sizes.len() <= 4 && sizes.iter().sum::<usize>() < sound.len() / 10, "{sizes:?}");
    pair.paris.ok(&["verify", "--wait", &long, "tokyo"]);
}

#[test]
fn a_daemon_says_what_was_altered_of_its_own_and_what_to_do() {
    let mut pair = Direct::start("verify-own-rot");
    let context = pair.paris.context.clone();
    pair.paris.import(&people(&pair.paris, 500));
    pair.paris.sync(20 * SOON);
    let sound = pair.paris.export(&context);
    let long = (20 * SOON.as_secs()).to_string();
    pair.paris.ok(&["verify", "--wait", &long, "tokyo"]);

    pair.paris.stop();
    let mut store = SqliteStore::open(&pair.paris.directory.join("data")).expect("the store");
    let number = context_of(&store, &Dn::parse(&context).unwrap()).unwrap().expect("it is held").number;
    let mut tx = store.begin().unwrap();
    let mut last = None;
    tx.scan_back(Table::Entry, &number.to_be_bytes(), &(number + 1).to_be_bytes(), &mut |key, value| {
        last = Some((key.to_vec(), value.to_vec()));
        false
    })
    .unwrap();
    let (key, value) = last.expect("an entry");
    tx.put(Table::Entry, &key, &altered(value)).unwrap();
    tx.commit().unwrap();
    drop(store);
    pair.paris.start();
    let found = pair.paris.run(&["verify", "--wait", &long, "tokyo"]);
    let said = String::from_utf8_lossy(&found.stderr);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    assert!(said.contains(&context) && said.contains("restore") && said.contains("import"), "{said}");
    pair.paris.import(&sound);
    pair.paris.ok(&["verify", "--wait", &long, "tokyo"]);
    assert!(pair.paris.export(&context) == sound && pair.tokyo.export(&context) == sound);
}
