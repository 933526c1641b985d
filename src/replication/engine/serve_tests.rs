//! Questions of a site about what is not offered to it.

use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use uuid::Uuid;

use crate::directory::change::Change;
use crate::directory::commit::Commit;
use crate::directory::context::{context_by_number, create_context};
use crate::directory::memory::MemoryStore;
use crate::directory::{Attributes, ContextRecord, Dn, Position, Table, Write as _};
use crate::replication::checkpoint::Checkpoint;
use crate::replication::engine::config::KnownSite;
use crate::replication::engine::{
    Engine, EngineConfig, Event, Header, Input, Output, Partner, Passage, Succession, Timing,
};
use crate::replication::wire::{DigestItem, Message, Request, Standing, VectorItem};

const CONTEXT: &str = "ou=kyoto,o=Example";
const START: i64 = 1_800_000_000_000;
const MINUTE: i64 = 60_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// One more commit of Kyoto's, as if it had come from there.
fn commit(store: &mut MemoryStore, n: u8) -> ContextRecord {
    let mut tx = store.begin();
    let mut commit = Commit::begin(&mut tx, 1, [n; 12]).unwrap();
    let attributes = Attributes::from_pairs([("description", vec![b'a' + n])]).unwrap();
    commit.apply(&Change::Put { dn: Dn::parse(CONTEXT).unwrap(), uuid: None, attributes }).unwrap();
    commit.finish().unwrap();
    let record = context_by_number(&tx, 1).unwrap().unwrap();
    let signed = Checkpoint::of(&record, Timestamp::UNIX_EPOCH).sign(&key(2));
    tx.put(Table::Checkpoint, &1u32.to_be_bytes(), &signed.to_bytes()).unwrap();
    tx.commit();
    record
}

/// Paris, which holds what Kyoto masters and is linked to Tokyo: where it stands with that, at first and now.
fn paris(outbound: Passage) -> (MemoryStore, Engine, [ContextRecord; 2]) {
    let mut store = MemoryStore::new();
    let mut tx = store.begin();
    create_context(&mut tx, &Dn::parse(CONTEXT).unwrap(), "kyoto", Uuid::from_u128(1)).unwrap();
    tx.commit();
    let held = [commit(&mut store, 1), commit(&mut store, 2)];
    let kyoto = KnownSite {
        site: "kyoto".into(),
        key: key(2).verifying_key(),
        contexts: vec![CONTEXT.into()],
        former: Vec::new(),
        card: None,
    };
    let engine = Engine::new(EngineConfig {
        site: "paris".into(),
        key: key(1),
        card: "paris".into(),
        succession: Succession::default(),
        known: vec![kyoto],
        partners: vec![Partner { outbound, ..Partner::new("tokyo") }],
        timing: Timing::default(),
    });
    (store, engine, held)
}

/// What Paris does about a message of Tokyo, within minutes.
fn outputs(store: &mut MemoryStore, engine: &mut Engine, message: &Message) -> Vec<Output> {
    outputs_of(store, engine, &[message])
}

/// What Paris does about messages of Tokyo, within minutes. Each overtook those before it in the list.
fn outputs_of(store: &mut MemoryStore, engine: &mut Engine, sent: &[&Message]) -> Vec<Output> {
    let received = |(seq, message): (u64, &&Message)| {
        let header = Header { seq, time: Timestamp::UNIX_EPOCH, message_id: None };
        Input::Received { from: "tokyo".into(), header, payload: message.encode() }
    };
    let mut inputs: Vec<Input> = (START as u64..).zip(sent).map(received).collect();
    inputs.push(Input::Start);
    let (mut outputs, mut now) = (Vec::new(), START);
    while now < START + 10 * MINUTE {
        let mut tx = store.begin();
        let input = inputs.pop().unwrap_or(Input::Tick);
        engine.handle(&mut tx, Timestamp::from_millisecond(now).unwrap(), input).unwrap();
        tx.commit();
        outputs.extend(std::iter::from_fn(|| engine.output()));
        let due = engine.deadline().map_or(i64::MAX, |at| at.as_millisecond());
        now = if inputs.is_empty() { due.max(now + 1) } else { now + 1 };
    }
    outputs
}

fn mails(outputs: &[Output]) -> impl Iterator<Item = Message> {
    outputs.iter().filter_map(|output| match output {
        Output::Mail { payload, .. } => Some(Message::decode(payload).unwrap()),
        _ => None,
    })
}

/// Tokyo holds this, and wants what leads from there to the present, or everything.
fn asks(held: &ContextRecord, whole: bool) -> Message {
    let (position, digest) = (Some(held.position), Some(held.digest));
    let context = CONTEXT.to_owned();
    let item = VectorItem { context: context.clone(), position, digest, standing: Standing::Follows };
    let mut message = Message::new(vec![item]);
    let (base, base_digest) = if whole { (None, None) } else { (position, digest) };
    message.requests = vec![Request { context, base, base_digest, transfer: None, missing: Vec::new() }];
    message
}

/// Where we stand is in every message to it, so what it says of itself proves nothing.
#[test]
fn who_says_to_hold_what_is_not_offered_gets_nothing_of_it() {
    for whole in [false, true] {
        let parts = |outbound: Passage, invented: bool| {
            let (mut store, mut engine, [mut before, _]) = paris(outbound);
            if invented {
                before.position.invocation = Uuid::from_u128(7);
            }
            let outputs = outputs(&mut store, &mut engine, &asks(&before, whole));
            mails(&outputs).map(|mail| mail.parts.len()).sum::<usize>()
        };
        for invented in [false, true] {
            assert_eq!(parts(Passage::Own, invented), 0, "{whole} {invented}");
            assert_eq!(parts(Passage::Only(Vec::new()), invented), 0);
            assert!(parts(Passage::All, invented) > 0);
        }
    }
}

/// Where mail takes days, a heartbeat overtakes nearly every question.
#[test]
fn a_question_that_was_overtaken_counts_while_the_site_stands_where_it_asked_from() {
    let parts = |asked: u128, whole: bool, stands: u128| {
        let (mut store, mut engine, [mut held, _]) = paris(Passage::All);
        // On a history that Paris does not know, so that it sends nothing unless it is asked.
        held.position.invocation = Uuid::from_u128(asked);
        let mut question = asks(&held, whole);
        question.vector[0].position = question.vector[0].position.filter(|_| !whole);
        let mut word = question.clone();
        word.requests.clear();
        word.vector[0].position = Some(Position { invocation: Uuid::from_u128(stands), ..held.position });
        let told = outputs_of(&mut store, &mut engine, &[&question, &word]);
        mails(&told).map(|mail| mail.parts.len()).sum::<usize>()
    };
    assert!(parts(7, false, 7) > 0);
    assert_eq!(parts(7, false, 8), 0, "it went on since");
    assert_eq!(parts(7, true, 7), 0, "it does not want everything any more");
}

#[test]
fn digests_of_what_is_not_offered_are_not_told() {
    let told = |outbound: Passage| {
        let (mut store, mut engine, [_, now]) = paris(outbound);
        // Round 1, digests of one level at the root: nothing is there.
        let body = [&[1, 1, 1, 1, 1, 0][..], &[0; 16 * 8]].concat().into();
        let mut message = Message::new(Vec::new());
        message.digests = vec![DigestItem { context: CONTEXT.into(), position: now.position, body }];
        let outputs = outputs(&mut store, &mut engine, &message);
        let denied =
            |output: &&Output| matches!(output, Output::Event(Event::NotOffered { requests: 1, .. }));
        let denied = outputs.iter().filter(denied).count();
        (mails(&outputs).map(|mail| mail.digests.len()).sum::<usize>(), denied)
    };
    assert_eq!(told(Passage::All), (1, 0));
    assert_eq!(told(Passage::Own), (0, 1));
    assert_eq!(told(Passage::Only(Vec::new())), (0, 1));
}

#[test]
fn who_asks_for_what_is_not_offered_is_told_once_a_message() {
    let told = |outbound: Passage| {
        let (mut store, mut engine, [before, _]) = paris(outbound);
        let mut message = asks(&before, true);
        let request = Request { context: "o=nobody".into(), ..message.requests[0].clone() };
        message.requests.extend([request, message.requests[0].clone()]);
        let requests = |output: Output| match output {
            Output::Event(Event::NotOffered { context, requests, .. }) => Some((context, requests)),
            _ => None,
        };
        let told: Vec<_> =
            outputs(&mut store, &mut engine, &message).into_iter().filter_map(requests).collect();
        told
    };
    assert_eq!(told(Passage::Own), [(CONTEXT.to_owned(), 3)]);
    assert_eq!(told(Passage::All), [("o=nobody".to_owned(), 1)]);
}
