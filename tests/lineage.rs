//! A hub that is not honest, and a replica that has nothing but what the master signed to go by.
//!
//! The master lived three lives in a row, and a fourth beside the last two that was given up: its states were signed
//! too, and the hub has kept them. The replica must go onward in the first three, whatever the hub tells.

use bridgehead::directory::change::Change;
use bridgehead::directory::commit::Commit;
use bridgehead::directory::context::{context_by_number, contexts, create_context, put_context};
use bridgehead::directory::memory::MemoryStore;
use bridgehead::directory::{Attributes, ContextRecord, Digest, Dn, Lineage, Position};
use bridgehead::replication::checkpoint::{Checkpoint, SignedCheckpoint};
use bridgehead::replication::engine::hold::{Hold, HoldKind, HoldVerdict, holds};
use bridgehead::replication::engine::quarantine::{kept, payload};
use bridgehead::replication::engine::{
    Engine, EngineConfig, Event, FormerKey, Header, Input, KnownSite, Output, Partner, Succession, Timing,
};
use bridgehead::replication::parts;
use bridgehead::replication::transfer::{Base, Encoded, encode, encode_repair};
use bridgehead::replication::verify::{self, Answer};
use bridgehead::replication::wire::{DigestItem, Message, PartItem, Standing, VectorItem};
use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use uuid::Uuid;

const CONTEXT: &str = "ou=paris,o=Example";

/// The master's store at one time; clones go on by themselves.
#[derive(Clone)]
struct Master {
    store: MemoryStore,
    key: SigningKey,
}

impl Master {
    fn new() -> Master {
        let mut store = MemoryStore::new();
        let mut tx = store.begin();
        create_context(&mut tx, &dn(CONTEXT), "paris", Uuid::from_u128(1)).unwrap();
        tx.commit();
        let mut master = Master { store, key: SigningKey::from_bytes(&[1; 32]) };
        master.put(CONTEXT);
        master
    }

    fn put(&mut self, name: &str) {
        let batch = [self.record().position.usn as u8 + 1; 12];
        let attributes = Attributes::from_pairs([("description", name.as_bytes().to_vec())]).unwrap();
        let mut tx = self.store.begin();
        let mut commit = Commit::begin(&mut tx, 1, batch).unwrap();
        commit.apply(&Change::Put { dn: dn(name), uuid: None, attributes }).unwrap();
        commit.finish().unwrap();
        tx.commit();
    }

    /// Another life begins where this one stands.
    fn begin(&mut self, life: u128, name: &str) {
        let mut record = self.record();
        record.lineage.push(record.position, record.digest);
        record.position.invocation = Uuid::from_u128(life);
        let mut tx = self.store.begin();
        put_context(&mut tx, &record).unwrap();
        tx.commit();
        self.put(name);
    }

    fn record(&self) -> ContextRecord {
        context_by_number(&self.store, 1).unwrap().unwrap()
    }

    fn signed_by(&self, key: &SigningKey) -> SignedCheckpoint {
        Checkpoint::of(&self.record(), Timestamp::from_second(1_800_000_000).unwrap()).sign(key)
    }

    fn transfer(&self, base: Option<Position>) -> Encoded {
        encode(&self.store, &self.record(), base, &self.signed_by(&self.key)).unwrap().unwrap()
    }
}

/// The lives: 1, then 2, then 3; and 9, which went on from 1 and was given up.
struct Lives {
    first: Master,
    second: Master,
    third: Master,
    other: Master,
}

fn lives() -> Lives {
    let mut first = Master::new();
    first.put("cn=one,ou=paris,o=Example");
    let (mut second, mut other) = (first.clone(), first.clone());
    second.begin(2, "cn=two,ou=paris,o=Example");
    let mut third = second.clone();
    third.begin(3, "cn=three,ou=paris,o=Example");
    other.begin(9, "cn=stale,ou=paris,o=Example");
    for _ in 0..5 {
        other.put("cn=staler,ou=paris,o=Example");
        other.put("cn=stale,ou=paris,o=Example");
    }
    Lives { first, second, third, other }
}

/// Takes what the hub sends.
struct Replica {
    store: MemoryStore,
    engine: Engine,
    seq: u64,
}

impl Replica {
    fn new() -> Replica {
        let known = KnownSite {
            site: "paris".into(),
            key: SigningKey::from_bytes(&[1; 32]).verifying_key(),
            contexts: vec![CONTEXT.into()],
            former: Vec::new(),
            card: None,
        };
        let config = EngineConfig {
            site: "tokyo".into(),
            key: SigningKey::from_bytes(&[2; 32]),
            card: String::new(),
            succession: Succession::default(),
            known: vec![known],
            partners: vec![Partner::new("hub")],
            timing: Timing::default(),
        };
        Replica { store: MemoryStore::new(), engine: Engine::new(config), seq: 1_800_000_000_000 }
    }

    /// One that took this by honest means.
    fn at(master: &Master) -> Replica {
        let mut replica = Replica::new();
        replica.takes(&master.transfer(None));
        replica.stands_with(master);
        replica
    }

    fn told(&mut self, input: Input) -> Vec<Event> {
        let now = Timestamp::from_millisecond(self.seq as i64).unwrap();
        let mut tx = self.store.begin();
        self.engine.handle(&mut tx, now, input).unwrap();
        tx.commit();
        let events = std::iter::from_fn(|| self.engine.output()).filter_map(|output| match output {
            Output::Event(event) => Some(event),
            _ => None,
        });
        events.collect()
    }

    fn hears(&mut self, message: &Message) -> Vec<Event> {
        self.hears_from("hub", message)
    }

    fn hears_from(&mut self, site: &str, message: &Message) -> Vec<Event> {
        self.seq += 60_000;
        let time = Timestamp::from_millisecond(self.seq as i64).unwrap();
        let header = Header { seq: self.seq, time, message_id: None };
        self.told(Input::Received { from: site.into(), header, payload: message.encode() })
    }

    fn takes(&mut self, transfer: &Encoded) -> Vec<Event> {
        self.hears(&brings(transfer))
    }

    fn record(&self) -> Option<ContextRecord> {
        contexts(&self.store).unwrap().into_iter().find(|record| record.dn.to_string() == CONTEXT)
    }

    #[track_caller]
    fn stands_with(&self, master: &Master) {
        let (held, there) = (self.record().expect("it holds something"), master.record());
        assert_eq!((held.position, held.digest), (there.position, there.digest));
        assert_eq!(held.lineage.digest(), there.lineage.digest());
    }

    /// Nothing of `transfer` is applied, and an event of this name says so.
    #[track_caller]
    fn refuses(&mut self, transfer: &Encoded, event: &str) {
        let before = self.record();
        let events = self.takes(transfer);
        assert!(!events.iter().any(|event| matches!(event, Event::Applied { .. })), "{events:?}");
        let said = format!("{events:?}");
        assert!(said.contains(event), "{said}");
        assert_eq!(self.record(), before);
    }
}

fn dn(text: &str) -> Dn {
    Dn::parse(text).unwrap()
}

/// The end of what this master holds, as a lineage would have it.
fn end(master: &Master) -> (Position, Digest) {
    let record = master.record();
    (record.position, record.digest)
}

/// A message with this transfer, of a site that stands where it leads.
fn brings(transfer: &Encoded) -> Message {
    let cut = parts::cut(&transfer.manifest, &transfer.body, 1 << 20).unwrap();
    let said = transfer.manifest.checkpoint.claimed().unwrap();
    let mut message = Message::new(vec![stands_at((said.position, said.digest))]);
    message.parts = cut.into_iter().map(|part| PartItem { context: CONTEXT.into(), part }).collect();
    message
}

/// A site's word that it stands there.
fn stands_at((position, digest): (Position, Digest)) -> VectorItem {
    VectorItem {
        context: CONTEXT.into(),
        position: Some(position),
        digest: Some(digest),
        standing: Standing::Follows,
    }
}

const NOT_SIGNED: &str = "not the one that its master signed";

#[test]
fn an_honest_hub_leads_from_one_life_into_the_next() {
    let Lives { first, second, third, .. } = lives();
    let mut by_deltas = Replica::at(&first);
    by_deltas.takes(&second.transfer(Some(first.record().position)));
    by_deltas.stands_with(&second);
    by_deltas.takes(&third.transfer(Some(second.record().position)));
    by_deltas.stands_with(&third);
    assert_eq!(by_deltas.record().unwrap().lineage, third.record().lineage);
    // One delta over two lives, and a full load.
    for base in [Some(first.record().position), None] {
        let mut replica = Replica::at(&first);
        replica.takes(&third.transfer(base));
        replica.stands_with(&third);
    }
}

#[test]
fn an_older_state_is_no_news_whatever_is_told_of_it() {
    let Lives { first, second, third, .. } = lives();
    for old in [&first, &second] {
        let mut replica = Replica::at(&third);
        let told = Lineage::default();
        for lineage in [old.record().lineage, told, third.record().lineage] {
            let mut transfer = old.transfer(None);
            transfer.manifest.lineage = lineage;
            let events = replica.takes(&transfer);
            assert!(
                !events.iter().any(|event| matches!(event, Event::Forked { .. })),
                "it is past: {events:?}"
            );
            replica.stands_with(&third);
        }
    }
}

#[test]
fn a_life_that_was_given_up_is_not_put_behind_a_newer_one() {
    let Lives { second, third, other, .. } = lives();
    for newer in [&second, &third] {
        let mut transfer = other.transfer(None);
        let mut spliced = newer.record().lineage;
        spliced.push(end(newer).0, end(newer).1);
        transfer.manifest.lineage = spliced;
        Replica::at(newer).refuses(&transfer, NOT_SIGNED);
        // Without the lie it is a fork, which is reported and held.
        Replica::at(newer).refuses(&other.transfer(None), "Forked");
    }
}

#[test]
fn a_delta_into_a_life_that_was_given_up_is_refused() {
    let Lives { third, other, .. } = lives();
    // The hub has the keys to nothing, but both states: it makes the delta between them by itself.
    let mut made = third.clone();
    let mut record = made.record();
    let mut tx = made.store.begin();
    record.lineage.push(record.position, record.digest);
    record.position = Position { usn: record.position.usn, invocation: other.record().position.invocation };
    put_context(&mut tx, &record).unwrap();
    tx.commit();
    while made.record().position.usn < other.record().position.usn {
        made.put("cn=stale,ou=paris,o=Example");
    }
    let mut delta = made.transfer(Some(third.record().position));
    assert!(matches!(delta.manifest.base, Base::At(..)));
    delta.manifest.checkpoint = other.signed_by(&other.key);
    Replica::at(&third).refuses(&delta, NOT_SIGNED);
    delta.manifest.lineage = other.record().lineage;
    Replica::at(&third).refuses(&delta, "Forked");
    delta.manifest.lineage = Lineage::default();
    Replica::at(&third).refuses(&delta, NOT_SIGNED);
}

#[test]
fn a_replica_that_was_made_to_start_over_still_goes_onward_only() {
    let Lives { first, third, other, .. } = lives();
    let mut replica = Replica::at(&third);
    let mut nonsense = third.transfer(None);
    let mut onward = third.clone();
    onward.put("cn=four,ou=paris,o=Example");
    nonsense.manifest.checkpoint = onward.signed_by(&onward.key);
    nonsense.manifest.base = Base::At(third.record().position, Digest([7; 32]));
    replica.refuses(&nonsense, "its base is not what we hold");
    replica.refuses(&other.transfer(None), "Forked");
    let mut spliced = other.transfer(None);
    spliced.manifest.lineage = third.record().lineage;
    replica.refuses(&spliced, NOT_SIGNED);
    replica.takes(&first.transfer(None));
    replica.stands_with(&third);
    replica.takes(&onward.transfer(None));
    replica.stands_with(&onward);
}

#[test]
fn a_repair_does_not_lead_into_another_life() {
    let Lives { third, other, .. } = lives();
    let mut replica = Replica::at(&third);
    let question = verify::begin(&third.store, &third.record()).unwrap();
    let Answer::Differ(found) =
        verify::answer(&other.store, &other.record(), &question, true, verify::MESSAGE_BYTES_MAX).unwrap()
    else {
        panic!("so few entries are told at once");
    };
    let checkpoint = other.signed_by(&other.key);
    let repair =
        encode_repair(&other.store, &other.record(), &found.theirs, &found.ours, &checkpoint).unwrap();
    replica.refuses(&repair, "nobody asked for a repair");
    // The hub stands at our position with another digest, and the operator asks for a comparison.
    replica.hears(&Message::new(vec![stands_at((third.record().position, Digest([7; 32])))]));
    replica.told(Input::Verify { site: None });
    replica.refuses(&repair, "");
    let mut spliced = repair.clone();
    spliced.manifest.lineage = third.record().lineage;
    replica.refuses(&spliced, NOT_SIGNED);
}

#[test]
fn mixed_and_forged_states_are_refused() {
    let Lives { first, third, other, .. } = lives();
    let mut mixed = other.transfer(None);
    mixed.manifest.checkpoint = third.signed_by(&third.key);
    mixed.manifest.lineage = third.record().lineage;
    Replica::at(&first).refuses(&mixed, "NotApplied");
    let mut forged = third.transfer(None);
    forged.manifest.checkpoint = third.signed_by(&SigningKey::from_bytes(&[66; 32]));
    Replica::at(&first).refuses(&forged, "not signed by the master");
    // The very first load has to tell the truth, too: what it says is passed on.
    let mut embellished = third.transfer(None);
    embellished.manifest.lineage.push(end(&other).0, end(&other).1);
    Replica::new().refuses(&embellished, NOT_SIGNED);
    embellished.manifest.lineage = Lineage::default();
    Replica::new().refuses(&embellished, NOT_SIGNED);
}

#[test]
fn two_signed_pasts_of_one_life_are_a_fork() {
    let Lives { second, third, other, .. } = lives();
    let mut twin = other;
    twin.begin(3, "cn=twin,ou=paris,o=Example");
    assert_eq!(twin.record().position.invocation, third.record().position.invocation);
    let mut replica = Replica::at(&second);
    replica.takes(&third.transfer(None));
    replica.refuses(&twin.transfer(None), "Forked");
}

#[test]
fn what_is_withheld_comes_later_and_nothing_else_takes_its_place() {
    let Lives { first, second, third, other } = lives();
    let mut replica = Replica::at(&first);
    replica.refuses(&third.transfer(Some(second.record().position)), "[");
    replica.stands_with(&first);
    replica.takes(&second.transfer(Some(first.record().position)));
    replica.stands_with(&third);
    replica.refuses(&other.transfer(None), "Forked");
}

#[test]
fn the_operators_word_alone_leads_out_of_a_fork() {
    let Lives { third, other, .. } = lives();
    let mut replica = Replica::at(&third);
    replica.refuses(&other.transfer(None), "Forked");
    let dry = replica.told(Input::Refresh { site: None, context: None, dry_run: true });
    assert!(format!("{dry:?}").contains("Refreshing"), "{dry:?}");
    replica.refuses(&other.transfer(None), "[");
    replica.told(Input::Refresh { site: None, context: Some(CONTEXT.into()), dry_run: false });
    let mut spliced = other.transfer(None);
    spliced.manifest.lineage = third.record().lineage;
    replica.refuses(&spliced, NOT_SIGNED);
    replica.takes(&other.transfer(None));
    replica.stands_with(&other);
}

/// Whether an event of this name is among them.
fn has(events: &[Event], name: &str) -> bool {
    events.iter().any(|event| format!("{event:?}").starts_with(name))
}

/// The fork is told once; that nothing came of what was sent, each time.
#[test]
fn every_forked_transfer_is_told_and_each_is_kept_once() {
    let Lives { third, mut other, .. } = lives();
    let mut replica = Replica::at(&third);
    let events = replica.takes(&other.transfer(None));
    assert!(["Forked", "NotApplied", "Kept"].iter().all(|name| has(&events, name)), "{events:?}");
    let events = replica.takes(&other.transfer(None));
    assert!(has(&events, "NotApplied"), "{events:?}");
    assert!(!has(&events, "Forked") && !has(&events, "Kept"), "{events:?}");
    assert_eq!(kept(&replica.store).unwrap().len(), 1);
    other.put("cn=one more,ou=paris,o=Example");
    let events = replica.takes(&other.transfer(None));
    assert!(has(&events, "NotApplied") && has(&events, "Kept"), "{events:?}");
    let copies = kept(&replica.store).unwrap();
    assert_eq!(copies.len(), 2);
    assert!(copies.iter().all(|copy| copy.site == "hub" && copy.reason.contains("different ways")));
    let copy = Message::decode(&payload(&replica.store, &copies[1]).unwrap()).unwrap();
    assert_eq!(copy.parts[0].part.index, 0);
}

#[test]
fn a_difference_is_told_after_a_fork_and_a_fork_after_a_difference() {
    let Lives { third, other, .. } = lives();
    let mut replica = Replica::at(&third);
    let differs = Message::new(vec![stands_at((end(&third).0, Digest([9; 32])))]);
    assert!(has(&replica.takes(&other.transfer(None)), "Forked"));
    assert!(has(&replica.hears(&differs), "Differs"));
    assert!(!has(&replica.hears(&differs), "Differs"), "as long as it lasts it is told once");
    assert!(has(&replica.takes(&other.transfer(None)), "Forked"));
    replica.hears(&Message::new(vec![stands_at(end(&third))]));
    assert!(has(&replica.hears(&differs), "Differs"), "it had ended");
}

/// The master, at home, is told of another life of its own that does not prove to be what it says.
#[test]
fn what_cannot_be_taken_back_is_kept() {
    let Lives { second, other, .. } = lives();
    let mut home = Replica::new();
    let config = EngineConfig {
        site: "paris".into(),
        key: second.key.clone(),
        known: Vec::new(),
        ..home.engine.config().clone()
    };
    (home.store, home.engine) = (second.store.clone(), Engine::new(config));
    let mut transfer = other.transfer(None);
    let said = ContextRecord { digest: Digest([9; 32]), ..other.record() };
    transfer.manifest.checkpoint =
        Checkpoint::of(&said, Timestamp::from_second(1_800_000_000).unwrap()).sign(&other.key);
    assert!(has(&home.hears(&Message::new(vec![stands_at(end(&other))])), "Lost"));
    for copies in [1, 0] {
        let events = home.takes(&transfer);
        assert!(has(&events, "NotApplied"), "{events:?}");
        assert_eq!(usize::from(has(&events, "Kept")), copies, "{events:?}");
        assert_eq!(kept(&home.store).unwrap().len(), 1);
    }
    home.stands_with(&second);
}

/// A transfer of several parts, cut small.
fn of_many_parts() -> (Master, Vec<PartItem>) {
    let mut master = lives().third;
    for n in 0..120u32 {
        let unlike = format!("{:?}", Checkpoint::of(&master.record(), Timestamp::UNIX_EPOCH).digest);
        master.put(&format!("cn={n} {unlike},ou=paris,o=Example"));
    }
    let transfer = master.transfer(None);
    let cut = parts::cut(&transfer.manifest, &transfer.body, 1 << 10).unwrap();
    assert!(cut.len() > 3, "{}", cut.len());
    (master, cut.into_iter().map(|part| PartItem { context: CONTEXT.into(), part }).collect())
}

#[test]
fn parts_that_contradict_one_another_are_kept() {
    let (master, cut) = of_many_parts();
    let mut replica = Replica::new();
    let mut message = Message::new(vec![stands_at(end(&master))]);
    message.parts = vec![cut[1].clone()];
    assert!(!has(&replica.hears(&message), "Kept"));
    message.parts = vec![cut[2].clone()];
    message.parts[0].part.bytes.pop();
    let events = replica.hears(&message);
    assert!(has(&events, "NotApplied") && has(&events, "Kept"), "{events:?}");
    let copies = kept(&replica.store).unwrap();
    assert_eq!(copies.len(), 1, "{copies:?}");
    let copy = Message::decode(&payload(&replica.store, &copies[0]).unwrap()).unwrap();
    assert_eq!(copy.parts, [cut[1].clone()], "what was there before");
    message.parts = cut;
    replica.hears(&message);
    replica.stands_with(&master);
}

#[test]
fn what_its_sender_gave_up_is_told() {
    let (master, cut) = of_many_parts();
    let mut replica = Replica::at(&lives().third);
    let mut message = Message::new(vec![stands_at(end(&master))]);
    message.parts = cut[..2].to_vec();
    replica.hears(&message);
    let stands = replica.record().map(|record| (record.position, record.digest)).unwrap();
    let events = replica.hears(&Message::new(vec![stands_at(stands)]));
    let gone = events.iter().filter_map(|event| match event {
        Event::GivenUp { site, context, received, expected } => {
            Some((site.as_str(), context.as_str(), *received, *expected))
        }
        _ => None,
    });
    assert_eq!(gone.collect::<Vec<_>>(), [("hub", CONTEXT, 2, cut.len() as u32)]);
    let events = replica.hears(&Message::new(vec![stands_at(stands)]));
    assert!(!has(&events, "GivenUp"), "there is nothing more to let go");
}

#[test]
fn a_comparison_that_cannot_be_read_is_kept() {
    let Lives { third, .. } = lives();
    let mut replica = Replica::at(&third);
    let mut message = Message::new(vec![stands_at(end(&third))]);
    let (context, position) = (CONTEXT.to_owned(), end(&third).0);
    message.digests = vec![DigestItem { context, position, body: b"\x07nonsense".to_vec().into() }];
    let events = replica.hears(&message);
    assert!(has(&events, "NotApplied") && has(&events, "Kept"), "{events:?}");
}

/// A fork waits as a transfer that deletes too much does, and is decided on in the same way.
#[test]
fn a_fork_is_a_hold_that_the_operator_decides_on() {
    let Lives { third, other, .. } = lives();
    let mut replica = Replica::at(&third);
    let forks = |replica: &Replica| -> Vec<Hold> {
        holds(&replica.store).unwrap().into_iter().filter(|hold| hold.kind == HoldKind::Fork).collect()
    };
    replica.refuses(&other.transfer(None), "Forked");
    replica.refuses(&other.transfer(None), "[");
    let found = forks(&replica);
    assert_eq!(found.len(), 1, "once: {found:?}");
    assert_eq!((found[0].site.as_str(), found[0].entries), ("hub", third.record().entries));
    let hold = found[0].id;
    replica.told(Input::Hold { hold, approve: false });
    replica.refuses(&other.transfer(None), "[");
    assert_eq!(forks(&replica)[0].verdict, HoldVerdict::Rejected);
    replica.told(Input::Hold { hold, approve: true });
    replica.takes(&other.transfer(None));
    replica.stands_with(&other);
    assert_eq!(forks(&replica), [], "it is resolved");
}

/// Who comes back to our history has resolved the fork.
#[test]
fn a_fork_goes_when_the_site_holds_what_we_hold() {
    let Lives { third, other, .. } = lives();
    let mut replica = Replica::at(&third);
    replica.refuses(&other.transfer(None), "Forked");
    assert_eq!(holds(&replica.store).unwrap().len(), 1);
    replica.hears(&Message::new(vec![stands_at(end(&third))]));
    assert_eq!(holds(&replica.store).unwrap(), []);
}

/// What a third site holds, or sends, says nothing of whether two others have met again.
#[test]
fn a_fork_stays_while_another_site_follows() {
    let Lives { second, third, other, .. } = lives();
    let mut replica = Replica::at(&second);
    let mut config = replica.engine.config().clone();
    config.partners.push(Partner::new("west"));
    replica.engine = Engine::new(config);
    replica.refuses(&other.transfer(None), "Forked");
    let hold = holds(&replica.store).unwrap()[0].id;
    replica.told(Input::Hold { hold, approve: false });
    let rejected = |replica: &Replica| {
        let found = holds(&replica.store).unwrap();
        found.len() == 1 && found[0].verdict == HoldVerdict::Rejected
    };
    replica.hears_from("west", &Message::new(vec![stands_at(end(&second))]));
    assert!(rejected(&replica), "west is equal");
    replica.hears_from("west", &brings(&third.transfer(None)));
    replica.stands_with(&third);
    assert!(rejected(&replica), "west brings what its master did since");
    replica.hears(&Message::new(vec![stands_at(end(&third))]));
    assert_eq!(holds(&replica.store).unwrap(), []);
}

/// What a master signed by the key that it renewed counts for the stated time, and no longer.
#[test]
fn a_former_key_counts_until_its_time_and_no_longer() {
    let Lives { first, mut second, .. } = lives();
    let renewed = SigningKey::from_bytes(&[3; 32]);
    for (hours, counts) in [(1, true), (-1, false)] {
        let mut replica = Replica::at(&first);
        let mut config = replica.engine.config().clone();
        let former = config.known[0].key;
        config.known[0].key = renewed.verifying_key();
        config.known[0].former =
            vec![FormerKey { key: former, until: replica.seq as i64 + hours * 3_600_000 }];
        replica.engine = Engine::new(config);
        if counts {
            replica.takes(&second.transfer(None));
            replica.stands_with(&second);
            continue;
        }
        replica.refuses(&second.transfer(None), "not signed by the master");
        second.key = renewed.clone();
        replica.takes(&second.transfer(None));
        replica.stands_with(&second);
    }
}
