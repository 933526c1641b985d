//! Mail that the next hop refuses or that comes back: how often it is tried again.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use uuid::Uuid;

use crate::directory::change::Change;
use crate::directory::commit::Commit;
use crate::directory::context::create_context;
use crate::directory::memory::MemoryStore;
use crate::directory::{Attributes, Dn};
use crate::message::random::{Rng as _, Seeded};
use crate::replication::engine::config::Passage;
use crate::replication::engine::{
    BounceStatus, Engine, EngineConfig, Event, Header, Input, Outcome, Output, Partner, Refusal, Succession,
    Timing,
};
use crate::replication::peer::Peer;
use crate::replication::schedule::Schedule;
use crate::replication::status::{PeerState, status};
use crate::replication::wire::{Heard, Message, Request, Standing, VectorItem};

const CONTEXT: &str = "ou=paris,o=Example";
const START: i64 = 1_800_000_000_000;
const HOUR: i64 = 3_600_000;

/// Paris, with something for Tokyo, which is about to be heard first: what to give the engine, last first.
fn paris(tokyo: Partner) -> (MemoryStore, Engine, Vec<Input>) {
    let mut store = MemoryStore::new();
    let mut tx = store.begin();
    create_context(&mut tx, &Dn::parse(CONTEXT).unwrap(), "paris", Uuid::from_u128(1)).unwrap();
    let mut commit = Commit::begin(&mut tx, 1, [7; 12]).unwrap();
    let attributes = Attributes::from_pairs([("description", b"x".to_vec())]).unwrap();
    commit.apply(&Change::Put { dn: Dn::parse(CONTEXT).unwrap(), uuid: None, attributes }).unwrap();
    commit.finish().unwrap();
    tx.commit();
    let engine = Engine::new(EngineConfig {
        site: "paris".into(),
        key: SigningKey::from_bytes(&[1; 32]),
        card: "paris".into(),
        succession: Succession::default(),
        known: Vec::new(),
        partners: vec![tokyo],
        timing: Timing::default(),
    });
    let wanted =
        VectorItem { context: CONTEXT.into(), position: None, digest: None, standing: Standing::Follows };
    let header = Header { seq: START as u64, time: Timestamp::UNIX_EPOCH, message_id: None };
    let payload = Message::new(vec![wanted]).encode();
    (store, engine, vec![Input::Received { from: "tokyo".into(), header, payload }, Input::Start])
}

/// Each mail is answered by the next hop with this reply: how many mails left within the time, and how often parts
/// became smaller.
fn sent_within(time: i64, (reply, enhanced): (u16, &str)) -> (usize, usize) {
    let (mut store, mut engine, mut inputs) =
        paris(Partner { part_bytes_max: 64 << 10, ..Partner::new("tokyo") });
    let (mut mails, mut smaller, mut now) = (0, 0, START);
    while now < START + time && mails < 10_000 {
        let mut tx = store.begin();
        let input = inputs.pop().unwrap_or(Input::Tick);
        engine.handle(&mut tx, Timestamp::from_millisecond(now).unwrap(), input).unwrap();
        tx.commit();
        while let Some(output) = engine.output() {
            match output {
                Output::Mail { to, mail, .. } => {
                    mails += 1;
                    let (enhanced, text) = (enhanced.to_owned(), "no".to_owned());
                    inputs.push(Input::SendFailed { to, mail, reply, enhanced, text });
                }
                Output::Event(Event::PartsHalved { .. }) => smaller += 1,
                _ => {}
            }
        }
        // A next hop on the same machine answers at once.
        let due = engine.deadline().map_or(START + time, |at| at.as_millisecond());
        now = if inputs.is_empty() { due.max(now + 1) } else { now + 1 };
    }
    (mails, smaller)
}

#[test]
fn what_is_too_large_at_the_least_size_is_tried_now_and_then() {
    let (mails, smaller) = sent_within(HOUR, (552, "5.3.4"));
    assert_eq!(smaller, 2, "64, 32, 16 KiB, and no smaller");
    assert!((3..=12).contains(&mails), "{mails} mails in an hour");
}

#[test]
fn a_site_that_refuses_for_days_is_tried_ever_less() {
    let (mails, _) = sent_within(10 * 24 * HOUR, (550, "5.1.1"));
    let heartbeats = 10 * 4;
    assert!((heartbeats + 8..=heartbeats + 24).contains(&mails), "{mails} mails in ten days");
}

#[test]
fn a_next_hop_that_takes_nothing_for_days_is_asked_every_five_minutes() {
    let (mails, _) = sent_within(24 * HOUR, (451, "4.4.1"));
    let every = 24 * 12;
    assert!((every - 12..=every + 24).contains(&mails), "{mails} mails in a day");
}

#[test]
fn a_full_mailbox_is_no_reason_for_smaller_parts() {
    let (mails, smaller) = sent_within(HOUR, (552, "5.2.2"));
    assert_eq!(smaller, 0);
    assert!((3..=12).contains(&mails), "{mails} mails in an hour");
}

#[test]
fn a_policy_that_is_told_with_552_is_no_reason_for_smaller_parts() {
    assert_eq!(sent_within(HOUR, (552, "5.7.0")).1, 0);
    assert_eq!(sent_within(HOUR, (552, "")).1, 2, "the code alone speaks of size");
}

#[test]
fn a_large_mail_that_comes_back_late_makes_parts_smaller_all_the_same() {
    let (mut store, mut engine, mut inputs) = paris(Partner::new("tokyo"));
    let (mut sent, mut smaller, mut now) = (Vec::new(), 0, START);
    let wanted =
        VectorItem { context: CONTEXT.into(), position: None, digest: None, standing: Standing::Follows };
    for step in 0..6 {
        let input = inputs.pop().unwrap_or(match step {
            3 => Input::Sync { site: None },
            4 => {
                // Tokyo heard the question, and nothing of the parts before it.
                let mut answer = Message::new(vec![wanted.clone()]);
                answer.heard = sent.last().map(|(mail, _)| Heard { seq: *mail, held_ms: 0 });
                let header = Header { seq: START as u64 + 9, time: Timestamp::UNIX_EPOCH, message_id: None };
                Input::Received { from: "tokyo".into(), header, payload: answer.encode() }
            }
            5 => {
                let (mail, _) = sent.iter().find(|(_, parts)| *parts > 0).expect("parts left");
                assert!(*mail < sent.last().unwrap().0, "something left after them");
                let status = BounceStatus::TooLarge;
                let (to, enhanced, text) = ("tokyo".into(), "5.3.4".into(), "no".into());
                Input::Bounced { to, mail: *mail, status, enhanced, text }
            }
            _ => Input::Tick,
        });
        let mut tx = store.begin();
        engine.handle(&mut tx, Timestamp::from_millisecond(now).unwrap(), input).unwrap();
        tx.commit();
        while let Some(output) = engine.output() {
            match output {
                Output::Mail { mail, payload, .. } => {
                    sent.push((mail, Message::decode(&payload).unwrap().parts.len()));
                }
                Output::Event(Event::PartsHalved { .. }) => smaller += 1,
                _ => {}
            }
        }
        now += 3_000;
    }
    assert_eq!(smaller, 1, "{sent:?}");
}

const DAY: i64 = 24 * HOUR;

/// How parts changed over so many days, each with the day: their size from then on. Every other day 150 kB are committed that
/// do not compress; the next hop refuses what is larger than `hop` says for the day, and Tokyo acknowledges what passes.
fn sizes_over(days: i64, hop: impl Fn(i64) -> usize) -> Vec<(i64, u64)> {
    let (mut store, mut engine, mut inputs) =
        paris(Partner { part_bytes_max: 128 << 10, ..Partner::new("tokyo") });
    let (mut sizes, mut dice, mut came) = (Vec::new(), Seeded::new(1), BTreeMap::new());
    let (mut now, mut next, mut seq) = (START, START + HOUR, START as u64 + 1);
    while now < START + days * DAY {
        let mut tx = store.begin();
        let input = inputs.pop().unwrap_or(if now < next {
            Input::Tick
        } else {
            next += 2 * DAY;
            let mut octets = vec![0; 150_000];
            dice.fill_bytes(&mut octets);
            let mut commit = Commit::begin(&mut tx, 1, [8; 12]).unwrap();
            let attributes = Attributes::from_pairs([("jpegPhoto", octets)]).unwrap();
            commit.apply(&Change::Put { dn: Dn::parse(CONTEXT).unwrap(), uuid: None, attributes }).unwrap();
            commit.finish().unwrap();
            Input::LocalCommit { context: 1 }
        });
        engine.handle(&mut tx, Timestamp::from_millisecond(now).unwrap(), input).unwrap();
        tx.commit();
        while let Some(output) = engine.output() {
            match output {
                Output::Mail { to, mail, payload, .. } if payload.len() > hop((now - START) / DAY) => {
                    let (enhanced, text) = ("5.3.4".to_owned(), "too large".to_owned());
                    inputs.push(Input::SendFailed { to, mail, reply: 552, enhanced, text });
                }
                Output::Mail { mail, payload, .. } => {
                    let message = Message::decode(&payload).unwrap();
                    for item in &message.parts {
                        let parts: &mut BTreeSet<u32> = came.entry(item.part.transfer).or_default();
                        parts.insert(item.part.index);
                        if parts.len() as u32 == item.part.count {
                            let mut answer = Message::new(message.vector.clone());
                            answer.heard = Some(Heard { seq: mail, held_ms: 0 });
                            seq = (seq + 1).max(now as u64);
                            let header = Header { seq, time: Timestamp::UNIX_EPOCH, message_id: None };
                            let payload = answer.encode();
                            inputs.push(Input::Received { from: "tokyo".into(), header, payload });
                        }
                    }
                }
                Output::Event(
                    Event::PartsHalved { part_bytes_max, .. } | Event::PartsDoubled { part_bytes_max, .. },
                ) => sizes.push(((now - START) / DAY, part_bytes_max >> 10)),
                _ => {}
            }
        }
        let due = engine.deadline().map_or(i64::MAX, |at| at.as_millisecond()).min(next);
        now = if inputs.is_empty() { due.max(now + 1) } else { now + 1 };
    }
    sizes
}

#[test]
fn parts_become_larger_again_once_the_way_takes_them() {
    // A week of 40 kB, and then whatever comes.
    let sizes = sizes_over(40, |day| if day < 7 { 40_000 } else { usize::MAX });
    let (first, then) = sizes.split_at(2);
    assert_eq!(first, [(0, 64), (0, 32)]);
    let [(twice, 64), (whole, 128)] = then else { panic!("{sizes:?}") };
    assert!((7..=10).contains(twice) && (twice + 7..=twice + 10).contains(whole), "{sizes:?}");
}

#[test]
fn a_firm_limit_is_tried_ever_less() {
    let sizes = sizes_over(400, |_| 40_000);
    let tries: Vec<i64> = sizes[2..].iter().filter(|(_, size)| *size == 64).map(|(day, _)| *day).collect();
    let falls = sizes[2..].iter().filter(|(_, size)| *size == 32).count();
    assert!(sizes.iter().all(|(_, size)| [64, 32].contains(size)), "{sizes:?}");
    assert_eq!((tries.len(), falls), (5, 5), "after 1, 2, 4, 8 and 16 weeks: {sizes:?}");
    let waits: Vec<i64> = tries.windows(2).map(|two| two[1] - two[0]).collect();
    for (wait, weeks) in waits.iter().zip([2, 4, 8, 16]) {
        assert!((7 * weeks..=7 * weeks + 4).contains(wait), "{waits:?}");
    }
}

/// By log and counters an operator sees how much of the mail is repetition.
#[test]
fn each_part_that_leaves_is_told_as_the_first_time_or_as_again() {
    let (mut store, mut engine, mut inputs) = paris(Partner::new("tokyo"));
    let (mut left, mut first, mut again, mut now) = (0, 0, 0, START);
    let mut asked = false;
    while now < START + HOUR {
        let mut tx = store.begin();
        let input = inputs.pop().unwrap_or(Input::Tick);
        engine.handle(&mut tx, Timestamp::from_millisecond(now).unwrap(), input).unwrap();
        tx.commit();
        while let Some(output) = engine.output() {
            match output {
                Output::Mail { mail, payload, .. } => {
                    let parts = Message::decode(&payload).unwrap().parts;
                    left += parts.len() as u32;
                    let Some(part) = parts.first().filter(|_| !asked) else { continue };
                    asked = true;
                    let (context, standing) = (CONTEXT.into(), Standing::Follows);
                    let wanted = VectorItem { context, position: None, digest: None, standing };
                    let mut message = Message::new(vec![wanted]);
                    message.heard = Some(Heard { seq: mail, held_ms: 0 });
                    message.requests = vec![Request {
                        context: CONTEXT.into(),
                        base: None,
                        base_digest: None,
                        transfer: Some(part.part.transfer),
                        missing: vec![(0, 0)],
                    }];
                    let header =
                        Header { seq: START as u64 + 1, time: Timestamp::UNIX_EPOCH, message_id: None };
                    inputs.push(Input::Received { from: "tokyo".into(), header, payload: message.encode() });
                }
                Output::Event(Event::TransferSent { parts, .. }) => first += parts,
                Output::Event(Event::Resent { parts, .. }) => again += parts,
                _ => {}
            }
        }
        let due = engine.deadline().map_or(START + HOUR, |at| at.as_millisecond());
        now = if inputs.is_empty() { due.max(now + 1) } else { now + 1 };
    }
    assert_eq!((left, first), (first + again, 1));
    assert!(again > 2, "asked for once, and repeated since: {again}");
}

/// Lets everything happen that is due before `until`, and tells the events. What leaves is heard by nobody.
fn run(store: &mut MemoryStore, engine: &mut Engine, inputs: &mut Vec<Input>, until: i64) -> Vec<Event> {
    let (mut events, mut now) = (Vec::new(), until - 10_000);
    while now < until {
        let input = inputs.pop().unwrap_or(Input::Tick);
        let mut tx = store.begin();
        engine.handle(&mut tx, Timestamp::from_millisecond(now).unwrap(), input).unwrap();
        tx.commit();
        events.extend(std::iter::from_fn(|| engine.output()).filter_map(|output| match output {
            Output::Event(event) => Some(event),
            _ => None,
        }));
        let due = engine.deadline().map_or(until, |at| at.as_millisecond());
        now = if inputs.is_empty() { due.max(now + 1) } else { now + 1 };
    }
    events
}

/// Commits, ten seconds apart, of which Tokyo hears nothing: for each transfer that was cut, the USN that it leads to.
fn targets_of_commits(
    count: u8,
    store: &mut MemoryStore,
    engine: &mut Engine,
    inputs: &mut Vec<Input>,
) -> Vec<u64> {
    let mut events = run(store, engine, inputs, START);
    for n in 1..=count {
        let mut tx = store.begin();
        let mut commit = Commit::begin(&mut tx, 1, [n; 12]).unwrap();
        let attributes = Attributes::from_pairs([("description", vec![n])]).unwrap();
        commit.apply(&Change::Put { dn: Dn::parse(CONTEXT).unwrap(), uuid: None, attributes }).unwrap();
        commit.finish().unwrap();
        tx.commit();
        inputs.push(Input::LocalCommit { context: 1 });
        events.extend(run(store, engine, inputs, START + i64::from(n) * 10_000));
    }
    targets(&events)
}

/// Tokyo has heard the first of what is on its way.
fn acknowledge_first(store: &MemoryStore, inputs: &mut Vec<Input>) {
    let first = Peer::load(store, "tokyo").unwrap().unwrap().link(CONTEXT).chain[0].target;
    let (position, digest) = (Some(first.0), Some(first.1));
    let item = VectorItem { context: CONTEXT.into(), position, digest, standing: Standing::Follows };
    let header = Header { seq: START as u64 + 1, time: Timestamp::UNIX_EPOCH, message_id: None };
    let payload = Message::new(vec![item]).encode();
    inputs.push(Input::Received { from: "tokyo".into(), header, payload });
}

fn targets(events: &[Event]) -> Vec<u64> {
    let target = |event: &Event| match event {
        Event::TransferSent { target, .. } => Some(target.usn),
        _ => None,
    };
    events.iter().filter_map(target).collect()
}

/// What is behind a chain of the greatest length waits, and all of it goes as one.
#[test]
fn what_is_committed_behind_a_long_chain_goes_with_the_first_acknowledgement() {
    let (mut store, mut engine, mut inputs) = paris(Partner::new("tokyo"));
    let timing = &mut engine.config.timing;
    // Mail that takes days.
    timing.retry_first = timing.retry_max;
    let most = timing.chain_max as u64;
    let sent = targets_of_commits(40, &mut store, &mut engine, &mut inputs);
    assert_eq!(sent, (1..=most).collect::<Vec<u64>>());
    acknowledge_first(&store, &mut inputs);
    let events = run(&mut store, &mut engine, &mut inputs, START + 410_000);
    assert_eq!(targets(&events), [41], "all that waited");
}

/// Of two changes on their way the second got lost; the first is acknowledged, and nothing else happens.
#[test]
fn what_left_behind_an_acknowledged_change_is_sent_again_in_time() {
    let (mut store, mut engine, mut inputs) = paris(Partner::new("tokyo"));
    let mut commits = targets_of_commits(1, &mut store, &mut engine, &mut inputs);
    assert_eq!((commits.remove(0), commits.as_slice()), (1, &[2][..]));
    acknowledge_first(&store, &mut inputs);
    let events = run(&mut store, &mut engine, &mut inputs, START + 30_000);
    assert_eq!(targets(&events), [0; 0]);
    let events = run(&mut store, &mut engine, &mut inputs, START + HOUR);
    assert!(events.iter().any(|event| matches!(event, Event::Resent { .. })), "{events:?}");
}

/// Nothing of the day's bytes is left: what waits for the next day is the present state however much was committed.
#[test]
fn what_never_left_gives_way_to_the_present_state() {
    let tokyo = Partner { day_bytes_max: Some(0), ..Partner::new("tokyo") };
    let (mut store, mut engine, mut inputs) = paris(tokyo);
    let sent = targets_of_commits(40, &mut store, &mut engine, &mut inputs);
    assert_eq!(sent.last(), Some(&41));
    let chain = std::mem::take(&mut Peer::load(&store, "tokyo").unwrap().unwrap().link(CONTEXT).chain);
    assert_eq!(chain.last().map(|flight| flight.target.0.usn), Some(41));
    assert!(chain.windows(2).all(|pair| pair[1].base == Some(pair[0].target)), "each begins where one ends");
}

/// What `status` says of Tokyo a while after something was to leave for it: the state, why, what is next, and how it is with
/// the naming context.
fn told(tokyo: Partner, replies: &str) -> (PeerState, [String; 3]) {
    let (mut store, mut engine, mut inputs) = paris(tokyo);
    let mut now = START;
    for _ in 0..5 {
        let mut tx = store.begin();
        let input = inputs.pop().unwrap_or(Input::Tick);
        engine.handle(&mut tx, Timestamp::from_millisecond(now).unwrap(), input).unwrap();
        tx.commit();
        while let Some(output) = engine.output() {
            if let (Output::Mail { to, mail, .. }, false) = (output, replies.is_empty()) {
                let (enhanced, text) = (replies.to_owned(), "no".to_owned());
                inputs.push(Input::SendFailed { to, mail, reply: 550, enhanced, text });
            }
        }
        now += 2_000;
    }
    let status = status(&store, engine.config(), Timestamp::from_millisecond(now).unwrap()).unwrap();
    let partner = status.partners.into_iter().next().unwrap();
    let context = partner.contexts[0].reason.clone().unwrap_or_default();
    (partner.state, [partner.reason, partner.next, context])
}

#[test]
fn status_says_what_keeps_a_change_and_what_is_next() {
    let tokyo = Partner::new("tokyo");
    let (state, [_, next, context]) = told(tokyo.clone(), "");
    assert_eq!(state, PeerState::Up);
    assert!(next.starts_with("what was not acknowledged is sent again at 20"), "{next}");
    assert!(context.contains("not there yet") && context.contains("not acknowledged"), "{context}");
    let (state, [reason, next, _]) = told(tokyo.clone(), "5.7.1");
    assert_eq!(state, PeerState::Refused);
    assert!(reason.contains("since 20") && reason.ends_with("5.7.1 no"), "{reason}");
    assert!(next.contains("sent again at 20") && next.contains("filter or policy"), "{next}");
    let (_, [_, next, context]) = told(Partner { schedule: Schedule::Never, ..tokyo.clone() }, "");
    assert!(
        next.contains("its schedule is never") && context.contains("waits to be sent"),
        "{next} {context}"
    );
    let window = "Mon 10:00-11:00".parse().unwrap();
    let (_, [_, next, _]) = told(Partner { schedule: window, ..tokyo.clone() }, "");
    assert!(next.contains("T10:00:00"), "{next}");
    let (_, [_, _, context]) = told(Partner { day_bytes_max: Some(0), ..tokyo.clone() }, "");
    assert!(context.contains("not there yet") && context.contains("bytes of today are spent"), "{context}");
    let (state, [reason, _, context]) = told(Partner { one_way: true, ..tokyo.clone() }, "");
    assert_eq!(
        (state, reason.as_str(), context.as_str()),
        (PeerState::Up, "nothing comes back over this link", "")
    );
    // What the link is configured not to carry is nothing to wait for.
    let (_, [_, _, context]) = told(Partner { outbound: Passage::Only(Vec::new()), ..tokyo }, "");
    assert!(context.is_empty(), "{context}");
}

/// Tokyo and the mail to it, one thing after the other: what `status` says then.
struct Tokyo {
    store: MemoryStore,
    engine: Engine,
    now: i64,
    /// The last mail to it.
    mail: u64,
}

impl Tokyo {
    fn new() -> Tokyo {
        let (store, engine, inputs) = paris(Partner::new("tokyo"));
        let mut tokyo = Tokyo { store, engine, now: START, mail: 0 };
        inputs.into_iter().rev().for_each(|input| drop(tokyo.tell(input)));
        assert!(tokyo.mail > 0);
        tokyo
    }

    fn tell(&mut self, input: Input) -> Outcome {
        self.now += 1_000;
        let mut tx = self.store.begin();
        let now = Timestamp::from_millisecond(self.now).unwrap();
        let outcome = self.engine.handle(&mut tx, now, input).unwrap();
        tx.commit();
        while let Some(output) = self.engine.output() {
            if let Output::Mail { mail, .. } = output {
                self.mail = mail;
            }
        }
        outcome
    }

    fn reports(&mut self, mail: u64, status: BounceStatus) -> Outcome {
        let (to, enhanced, text) = ("tokyo".into(), "4.4.1".into(), "still trying".into());
        self.tell(Input::Bounced { to, mail, status, enhanced, text })
    }

    fn defers(&mut self) {
        self.answers(451, "4.4.1");
    }

    /// Our next hop, to the last mail to it.
    fn answers(&mut self, reply: u16, enhanced: &str) {
        let (to, mail) = ("tokyo".into(), self.mail);
        self.tell(Input::SendFailed { to, mail, reply, enhanced: enhanced.into(), text: "no route".into() });
    }

    fn takes(&mut self) {
        self.tell(Input::Sent { to: "tokyo".into(), mail: self.mail });
    }

    /// Its newest message names the last mail to it.
    fn hears(&mut self) {
        let mut message = Message::new(Vec::new());
        message.heard = Some(Heard { seq: self.mail, held_ms: 0 });
        let header = Header { seq: self.now as u64, time: Timestamp::UNIX_EPOCH, message_id: None };
        self.tell(Input::Received { from: "tokyo".into(), header, payload: message.encode() });
    }

    fn status(&self) -> (PeerState, String, String) {
        let now = Timestamp::from_millisecond(self.now).unwrap();
        let status = status(&self.store, self.engine.config(), now).unwrap();
        let partner = status.partners.into_iter().next().unwrap();
        (partner.state, partner.reason, partner.next)
    }

    fn expect(&self, expected: PeerState, said: &str) {
        let (state, reason, next) = self.status();
        assert!(state == expected && reason.starts_with(said), "{state:?} {reason}");
        assert!(next.contains(" at 20"), "{next}");
    }
}

const ON_THE_WAY: &str = "mail to it is delayed on the way since 20";
const NEXT_HOP: &str = "our next hop does not take mail to it for now since 20";

#[test]
fn mail_that_hangs_downstream_hangs_until_the_site_hears() {
    let mut tokyo = Tokyo::new();
    assert_eq!(tokyo.reports(tokyo.mail, BounceStatus::Delayed), Outcome::Taken);
    tokyo.expect(PeerState::Delayed, ON_THE_WAY);
    tokyo.takes();
    tokyo.expect(PeerState::Delayed, ON_THE_WAY);
    // Our next hop is away in between.
    tokyo.defers();
    tokyo.expect(PeerState::Delayed, NEXT_HOP);
    tokyo.takes();
    tokyo.expect(PeerState::Delayed, ON_THE_WAY);
    tokyo.tell(Input::Sync { site: None });
    let last = tokyo.mail;
    tokyo.hears();
    tokyo.expect(PeerState::Up, "it answers");
    // The report was slower than what it is about.
    assert_eq!(tokyo.reports(last, BounceStatus::Delayed), Outcome::Repeated);
    tokyo.expect(PeerState::Up, "it answers");
    let never = Refusal::NeverSent { site: "tokyo".into() };
    assert_eq!(tokyo.reports(u64::MAX, BounceStatus::Delayed), Outcome::Refused(never));
    tokyo.expect(PeerState::Up, "it answers");
}

#[test]
fn what_our_next_hop_defers_is_over_once_it_takes_mail() {
    let mut tokyo = Tokyo::new();
    tokyo.defers();
    tokyo.expect(PeerState::Delayed, NEXT_HOP);
    tokyo.takes();
    tokyo.expect(PeerState::Up, "it answers");
}

#[test]
fn what_our_next_hop_said_last_counts() {
    let mut tokyo = Tokyo::new();
    tokyo.defers();
    tokyo.answers(550, "5.7.1");
    tokyo.expect(PeerState::Refused, "our next hop refuses mail to it since 20");
    tokyo.defers();
    tokyo.expect(PeerState::Delayed, NEXT_HOP);
}

#[test]
fn who_is_silent_for_three_heartbeats_is_quiet() {
    let mut tokyo = Tokyo::new();
    tokyo.hears();
    let heard = tokyo.now;
    tokyo.now = heard + 18 * HOUR - 2_000;
    tokyo.tell(Input::Tick);
    tokyo.expect(PeerState::Up, "it answers");
    tokyo.now = heard + 18 * HOUR;
    tokyo.tell(Input::Tick);
    tokyo.expect(PeerState::Quiet, "not heard since 20");
}
