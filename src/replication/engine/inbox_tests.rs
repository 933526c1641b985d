//! What finds room among the unfinished transfers of a site.

use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::directory::change::Change;
use crate::directory::commit::Commit;
use crate::directory::context::{context_by_number, contexts, create_context};
use crate::directory::memory::MemoryStore;
use crate::directory::{Attributes, Digest, Dn, Position};
use crate::replication::checkpoint::Checkpoint;
use crate::replication::engine::{
    Engine, EngineConfig, Header, Input, KnownSite, Output, Partner, Succession, Timing,
};
use crate::replication::parts;
use crate::replication::transfer;
use crate::replication::wire::{Message, Request, Standing, VectorItem};

fn kept(worth: Worth, bytes: u64, id: u8) -> Kept {
    Kept { worth, bytes, transfer: TransferId([id; 16]) }
}

#[test]
fn what_is_worth_more_displaces_what_is_worth_less_and_a_large_one_last() {
    use Worth::{Held, Leads, Stale, Unsigned, Waits};
    let ids = |ids: &[u8]| Some(ids.iter().map(|id| TransferId([*id; 16])).collect::<Vec<_>>());
    // The largest counts for nothing.
    assert_eq!(make_room(&[kept(Waits, 1000, 1)], Some(&kept(Leads, 100, 2)), 100), ids(&[]));
    assert_eq!(make_room(&[], Some(&kept(Leads, 1000, 2)), 100), ids(&[]));
    assert_eq!(make_room(&[kept(Leads, 101, 1)], Some(&kept(Unsigned, 101, 2)), 100), None);
    assert_eq!(make_room(&[kept(Unsigned, 1000, 1)], Some(&kept(Leads, 101, 2)), 100), ids(&[1]));
    // Of two large ones the one that has got further goes on.
    assert_eq!(make_room(&[kept(Leads, 1000, 1)], Some(&kept(Leads, 101, 2)), 100), None);
    assert_eq!(make_room(&[kept(Leads, 100, 1)], Some(&kept(Leads, 1000, 2)), 100), ids(&[]));
    assert_eq!(make_room(&[kept(Leads, 101, 1)], Some(&kept(Leads, 1000, 2)), 100), ids(&[1]));
    let full = [kept(Waits, 5000, 1), kept(Held, 40, 2), kept(Stale, 30, 3), kept(Waits, 30, 4)];
    assert_eq!(make_room(&full, Some(&kept(Leads, 35, 9)), 100), ids(&[2]));
    assert_eq!(make_room(&full, Some(&kept(Leads, 100, 9)), 100), ids(&[2, 3, 4]));
    assert_eq!(make_room(&full, Some(&kept(Leads, 101, 9)), 100), ids(&[2, 3, 4, 1]));
    assert_eq!(make_room(&full, Some(&kept(Unsigned, 35, 9)), 100), ids(&[2]));
    assert_eq!(make_room(&full, Some(&kept(Held, 35, 9)), 100), None);
    assert_eq!(make_room(&full, None, 60), ids(&[2]));
}

fn any_worth() -> impl Strategy<Value = Worth> {
    prop::sample::select(vec![Worth::Held, Worth::Unsigned, Worth::Stale, Worth::Waits, Worth::Leads])
}

proptest! {
    #[test]
    fn what_is_worth_most_always_finds_room_and_the_room_is_never_exceeded(
        all in prop::collection::vec((any_worth(), 0u64..300), 1..12), room in 0u64..400,
    ) {
        let mut all: Vec<Kept> = (0u8..).zip(all).map(|(id, (worth, bytes))| kept(worth, bytes, id)).collect();
        let new = all.pop().expect("one at least");
        match make_room(&all, Some(&new), room) {
            Some(gone) => {
                let stay = || all.iter().filter(|kept| !gone.contains(&kept.transfer));
                prop_assert!(counted(stay().chain([&new])) <= room);
                prop_assert!(all.iter().filter(|kept| gone.contains(&kept.transfer)).all(|kept| *kept < new));
            }
            None => prop_assert!(all.iter().any(|kept| *kept > new)),
        }
    }
}

const START: i64 = 1_800_000_000_000;
const ROOM: u64 = 20_000;

/// Loads of naming contexts of Paris, with bodies of about so many octets, cut to parts.
fn loads(sizes: &[usize], part_bytes: usize) -> Vec<Vec<PartItem>> {
    let mut store = MemoryStore::new();
    let mut tx = store.begin();
    let mut noise = 1u64;
    for (n, size) in sizes.iter().enumerate() {
        let dn = Dn::parse(&name(n)).unwrap();
        let number = create_context(&mut tx, &dn, "paris", Uuid::from_u128(n as u128 + 1)).unwrap().number;
        let mut octets = || {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (noise >> 56) as u8
        };
        let photo: Vec<u8> = (0..*size).map(|_| octets()).collect();
        let mut commit = Commit::begin(&mut tx, number, [7; 12]).unwrap();
        let attributes = Attributes::from_pairs([("jpegPhoto", photo)]).unwrap();
        commit.apply(&Change::Put { dn, uuid: None, attributes }).unwrap();
        commit.finish().unwrap();
    }
    tx.commit();
    let load = |n: usize| {
        let record = context_by_number(&store, contexts(&store).unwrap()[n].number).unwrap().unwrap();
        let signed = Checkpoint::of(&record, Timestamp::from_millisecond(START).unwrap())
            .sign(&SigningKey::from_bytes(&[1; 32]));
        let encoded = transfer::encode(&store, &record, None, &signed).unwrap().unwrap();
        let parts = parts::cut(&encoded.manifest, &encoded.body, part_bytes).unwrap();
        parts.into_iter().map(|part| PartItem { context: name(n), part }).collect()
    };
    (0..sizes.len()).map(load).collect()
}

fn name(n: usize) -> String {
    format!("ou=paris{n},o=Example")
}

/// Tokyo, to which Paris sends.
struct Tokyo {
    store: MemoryStore,
    engine: Engine,
    contexts: usize,
    seq: u64,
    now: i64,
}

impl Tokyo {
    fn new(count: usize) -> Tokyo {
        let key = SigningKey::from_bytes(&[1; 32]).verifying_key();
        let contexts = (0..count).map(name).collect();
        let paris = KnownSite { site: "paris".into(), key, former: Vec::new(), card: None, contexts };
        let engine = Engine::new(EngineConfig {
            site: "tokyo".into(),
            key: SigningKey::from_bytes(&[2; 32]),
            card: "tokyo".into(),
            succession: Succession::default(),
            known: vec![paris],
            partners: vec![Partner { delete_percent_max: 30, ..Partner::new("paris") }],
            timing: Timing { inbox_bytes_max: ROOM, ..Timing::default() },
        });
        Tokyo { store: MemoryStore::new(), engine, contexts: count, seq: START as u64, now: START }
    }

    /// What happens when Paris sends this, or nothing: the events, and what is asked for.
    fn hears(&mut self, parts: &[PartItem]) -> (Vec<Event>, Vec<Request>) {
        // Paris holds more of each than Tokyo does.
        let holds = |n: usize| VectorItem {
            context: name(n),
            position: Some(Position { invocation: Uuid::from_u128(n as u128 + 1), usn: 9 }),
            digest: Some(Digest([9; 32])),
            standing: Standing::Follows,
        };
        let mut message = Message::new((0..self.contexts).map(holds).collect());
        message.parts = parts.to_vec();
        self.seq += 1;
        let header = Header { seq: self.seq, time: Timestamp::UNIX_EPOCH, message_id: None };
        self.handle(Input::Received { from: "paris".into(), header, payload: message.encode() })
    }

    fn handle(&mut self, input: Input) -> (Vec<Event>, Vec<Request>) {
        let mut tx = self.store.begin();
        self.engine.handle(&mut tx, Timestamp::from_millisecond(self.now).unwrap(), input).unwrap();
        tx.commit();
        let (mut events, mut requests) = (Vec::new(), Vec::new());
        while let Some(output) = self.engine.output() {
            match output {
                Output::Event(event) => events.push(event),
                Output::Mail { payload, .. } => requests.extend(Message::decode(&payload).unwrap().requests),
                _ => {}
            }
        }
        (events, requests)
    }

    /// What happens when an operator gives it from a file.
    fn reads(&mut self, parts: &[PartItem]) -> Vec<Event> {
        let mut message = Message::new(Vec::new());
        message.parts = parts.to_vec();
        let header = Header { seq: 0, time: Timestamp::UNIX_EPOCH, message_id: None };
        self.handle(Input::Received { from: "paris".into(), header, payload: message.encode() }).0
    }

    /// What is asked for in this time.
    fn asks_within(&mut self, time: i64) -> Vec<Request> {
        let end = self.now + time;
        let mut asked = Vec::new();
        while let Some(due) = self.engine.deadline().map(|at| at.as_millisecond()).filter(|at| *at <= end) {
            self.now = due.max(self.now + 1);
            asked.extend(self.handle(Input::Tick).1);
        }
        self.now = end;
        asked
    }

    /// Octets of each transfer that is kept.
    fn kept(&self) -> Vec<u64> {
        let mut kept: Vec<u64> =
            Assembly::all_from(&self.store, "paris").unwrap().iter().map(Assembly::occupies).collect();
        kept.sort_unstable();
        kept
    }

    fn holds(&self) -> usize {
        contexts(&self.store).unwrap().iter().filter(|record| record.position.usn > 0).count()
    }
}

fn crowded<'e>(events: &'e [Event]) -> Vec<(&'e str, u32)> {
    let crowded = |event: &'e Event| match event {
        Event::Crowded { context, parts, .. } => Some((context.as_str(), *parts)),
        _ => None,
    };
    events.iter().filter_map(crowded).collect()
}

#[test]
fn what_finds_no_room_is_told_and_asked_for_when_there_is_room() {
    let loads = loads(&[60_000, 50_000, 100], 2_000);
    let mut tokyo = Tokyo::new(3);
    let (large, other, small) = (&loads[0], &loads[1], &loads[2]);
    for part in &large[..large.len() - 1] {
        assert!(crowded(&tokyo.hears(std::slice::from_ref(part)).0).is_empty(), "a load of any size arrives");
    }
    let mut refused = 0;
    for part in &other[..other.len() - 1] {
        let (events, _) = tokyo.hears(std::slice::from_ref(part));
        refused += crowded(&events).iter().inspect(|(context, _)| assert_eq!(*context, name(1))).count();
    }
    let kept = tokyo.kept();
    assert!(kept[0] > ROOM - 2_500 && kept[0] <= ROOM && kept[1] > 60_000, "{kept:?}");
    assert!(refused > 10, "{refused} parts found no room");
    // What is small and whole never waits behind what is not.
    tokyo.hears(small);
    assert_eq!(tokyo.holds(), 1);
    tokyo.hears(&large[large.len() - 1..]);
    assert_eq!((tokyo.holds(), tokyo.kept().len()), (2, 1));
    // In as long as a gap is given to fill, not only after the next time-out.
    let asked = tokyo.asks_within(11_000);
    let of_other: Vec<_> =
        asked.iter().filter(|request| request.transfer == Some(other[0].part.transfer)).collect();
    assert_eq!(of_other.len(), 1, "{asked:?}");
    let missing = &of_other[0].missing;
    let count: u32 = missing.iter().map(|(first, last)| last - first + 1).sum();
    assert_eq!(count as usize, refused + 1, "{missing:?}");
    for (first, last) in missing.clone() {
        tokyo.hears(&other[first as usize..=last as usize]);
    }
    assert_eq!((tokyo.holds(), tokyo.kept().len()), (3, 0));
}

#[test]
fn what_nobody_signed_for_gives_way() {
    let loads = loads(&[60_000, 60_000], 2_000);
    let mut tokyo = Tokyo::new(2);
    for part in &loads[0][1..] {
        tokyo.hears(std::slice::from_ref(part));
    }
    assert!(tokyo.kept()[0] > 60_000, "part 0 is late");
    let told: Vec<Event> =
        loads[1].iter().flat_map(|part| tokyo.hears(std::slice::from_ref(part)).0).collect();
    assert_eq!((crowded(&told), tokyo.holds(), tokyo.kept().len()), (vec![("", 32)], 1, 0), "{told:?}");
}

#[test]
fn what_its_sender_has_given_up_stands_in_nobodys_way() {
    // Cut anew in smaller parts, as after a bounce, while another load is under way.
    let (first, again) = (loads(&[60_000, 60_000], 4_000), loads(&[60_000, 60_000], 2_000));
    let mut tokyo = Tokyo::new(2);
    tokyo.hears(&first[0][..12]);
    for (one, two) in again[0].iter().zip(&again[1]) {
        tokyo.hears(std::slice::from_ref(one));
        tokyo.hears(std::slice::from_ref(two));
    }
    assert_eq!(tokyo.holds(), 1, "{:?}", tokyo.kept());
    // The same load comes from a file, in another cut.
    let mut tokyo = Tokyo::new(2);
    tokyo.hears(&first[0][..14]);
    again[0].iter().for_each(|part| drop(tokyo.reads(std::slice::from_ref(part))));
    assert_eq!((tokyo.holds(), tokyo.kept().len()), (1, 0), "{:?}", tokyo.kept());
    // Of a naming context that is not sent any more.
    let mut tokyo = Tokyo::new(2);
    tokyo.hears(&first[0][..14]);
    let day = 86_400_000;
    for part in &again[1][..12] {
        tokyo.hears(std::slice::from_ref(part));
    }
    assert_eq!(tokyo.kept().len(), 2);
    tokyo.now += day;
    for part in &again[1] {
        tokyo.hears(std::slice::from_ref(part));
    }
    assert_eq!((tokyo.holds(), tokyo.kept().len()), (1, 0), "{:?}", tokyo.kept());
}
