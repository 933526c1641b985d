//! Mail that the next hop refuses or that comes back: how often it is tried again.

use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use uuid::Uuid;

use crate::directory::change::Change;
use crate::directory::commit::Commit;
use crate::directory::context::create_context;
use crate::directory::memory::MemoryStore;
use crate::directory::{Attributes, Dn};
use crate::replication::engine::{
    Engine, EngineConfig, Event, Header, Input, Output, Partner, Succession, Timing,
};
use crate::replication::wire::{Message, Standing, VectorItem};

const CONTEXT: &str = "ou=paris,o=Example";
const START: i64 = 1_800_000_000_000;
const HOUR: i64 = 3_600_000;

/// Paris, in touch with Tokyo, has something for it; each mail is answered by its next hop with this reply.
/// How many mails left within the time, and how often parts became smaller.
fn sent_within(time: i64, (reply, enhanced): (u16, &str)) -> (usize, usize) {
    let mut store = MemoryStore::new();
    let mut tx = store.begin();
    create_context(&mut tx, &Dn::parse(CONTEXT).unwrap(), "paris", Uuid::from_u128(1)).unwrap();
    let mut commit = Commit::begin(&mut tx, 1, [7; 12]).unwrap();
    let attributes = Attributes::from_pairs([("description", b"x".to_vec())]).unwrap();
    commit.apply(&Change::Put { dn: Dn::parse(CONTEXT).unwrap(), uuid: None, attributes }).unwrap();
    commit.finish().unwrap();
    tx.commit();
    let mut engine = Engine::new(EngineConfig {
        site: "paris".into(),
        key: SigningKey::from_bytes(&[1; 32]),
        card: "paris".into(),
        succession: Succession::default(),
        known: Vec::new(),
        partners: vec![Partner { part_bytes_max: 64 << 10, ..Partner::new("tokyo") }],
        timing: Timing::default(),
    });
    let wanted =
        VectorItem { context: CONTEXT.into(), position: None, digest: None, standing: Standing::Follows };
    let header = Header { seq: START as u64, time: Timestamp::UNIX_EPOCH, message_id: None };
    let payload = Message::new(vec![wanted]).encode();
    let mut inputs = vec![Input::Received { from: "tokyo".into(), header, payload }, Input::Start];
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
    assert!((3..=HOUR as usize / 20_000 + 5).contains(&mails), "{mails} mails in an hour");
}

#[test]
fn a_full_mailbox_is_no_reason_for_smaller_parts() {
    let (mails, smaller) = sent_within(HOUR, (552, "5.2.2"));
    assert_eq!(smaller, 0);
    assert!((3..=HOUR as usize / 20_000 + 5).contains(&mails), "{mails} mails in an hour");
}
