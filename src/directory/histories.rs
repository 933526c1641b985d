//! Tests over random histories: a master commits, a replica replays what was touched, both are equal
//! and every index says the same as the entries.

use proptest::prelude::*;
use uuid::Uuid;

use super::attributes::Attributes;
use super::change::{Change, Modification, Operation};
use super::commit::{ChangeError, Commit};
use super::context::{ContextRecord, context_by_number, contexts, create_context};
use super::digest::{self, Summary};
use super::dn::{Dn, Rdn};
use super::log::{AttributeTouch, EntryTouch, touched_since};
use super::lookup::{self, Finder, digest_from_entries};
use super::memory::MemoryStore;
use super::replica::{Applied, AttributeDelta, Delta, Replay, ReplayError};
use super::store::{Read, Table, Write};

/// The simplest transfer: the current state of what was touched.
pub fn carry(
    master: &dyn Read,
    from: &ContextRecord,
    replica: &mut dyn Write,
    to: &ContextRecord,
) -> Result<Applied, ReplayError> {
    let set = touched_since(master, from.number, to.position.usn).unwrap();
    let mut replay = Replay::begin(replica, to);
    let entry = |uuid| lookup::entry(master, from.number, uuid).unwrap().unwrap();
    match set {
        None => {
            replay.clear()?;
            let mut entries = Vec::new();
            lookup::scan_entries(master, from.number, &mut |entry| {
                entries.push(entry);
                true
            })?;
            entries.iter().try_for_each(|entry| replay.add(entry))?;
        }
        Some(set) => {
            for (uuid, touch) in &set.entries {
                match touch {
                    EntryTouch::Added => replay.add(&entry(*uuid))?,
                    EntryTouch::Deleted => replay.delete(*uuid)?,
                    EntryTouch::Replaced => {
                        replay.delete(*uuid)?;
                        replay.add(&entry(*uuid))?;
                    }
                    EntryTouch::Changed(touches) => {
                        let now = entry(*uuid);
                        let attributes = touches.attributes.iter().map(|(name, touch)| {
                            let current = now.attributes.attribute(name);
                            match (touch, current) {
                                (AttributeTouch::Values(values), Some(current)) => AttributeDelta::Values {
                                    name: current.name().to_owned(),
                                    remove: values.iter().cloned().collect(),
                                    append: current
                                        .values()
                                        .iter()
                                        .filter(|v| values.contains(*v))
                                        .cloned()
                                        .collect(),
                                },
                                (_, Some(current)) => AttributeDelta::Set(current.clone()),
                                (_, None) => AttributeDelta::Remove(name.clone()),
                            }
                        });
                        let attributes = attributes.collect();
                        let (parent, rdn) = (now.parent, now.rdn.clone());
                        let named = touches.named;
                        let delta =
                            Delta { parent: named.then_some(parent), rdn: named.then_some(rdn), attributes };
                        replay.change(*uuid, delta)?;
                    }
                }
            }
        }
    }
    replay.finish(from.position, Summary { entries: from.entries, digest: from.digest })
}

/// Every index says what the entries say.
pub fn check_sound(read: &dyn Read, context: &ContextRecord) {
    assert_eq!(
        digest_from_entries(read, context.number).unwrap(),
        digest::root(read, context.number).unwrap()
    );
    assert_eq!(digest::root(read, context.number).unwrap().digest, context.digest);
    let mut entries = 0;
    let mut finder = Finder::new(context);
    lookup::scan_entries(read, context.number, &mut |entry| {
        entries += 1;
        let dn = finder.dn_of_entry(read, &entry).unwrap();
        assert_eq!(lookup::find(read, context, &dn).unwrap(), Some(entry.uuid), "{dn}");
        true
    })
    .unwrap();
    let mut names = 0;
    let key = context.number.to_be_bytes();
    read.scan(Table::Name, &key, &[0xff; 5], &mut |name, _| {
        names += u64::from(name.starts_with(&key));
        true
    })
    .unwrap();
    assert_eq!((entries, names), (context.entries, context.entries));
}

pub fn record(read: &dyn Read) -> ContextRecord {
    contexts(read).unwrap().remove(0)
}

pub fn dn(text: &str) -> Dn {
    Dn::parse(text).unwrap()
}

/// Names close together, so that random changes meet.
pub fn any_dn() -> impl Strategy<Value = Dn> {
    let level = prop_oneof!["cn=[abAB]", "ou=[x-z]"];
    proptest::collection::vec(level, 0..4).prop_map(|mut rdns| {
        rdns.push("o=Org".into());
        dn(&rdns.join(","))
    })
}

pub fn any_values() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let small = proptest::collection::btree_set(0u32..5, 1..4).prop_map(Vec::from_iter);
    let large = (0u32..5, 30u32..50).prop_map(|(from, to)| (from..to).collect::<Vec<_>>());
    prop_oneof![3 => small, 1 => large]
        .prop_map(|values| values.into_iter().map(|n| format!("value {n}").into_bytes()).collect())
}

fn any_attributes() -> impl Strategy<Value = Attributes> {
    proptest::collection::btree_map("[a-c]|member", any_values(), 1..4).prop_map(|map| {
        let pairs =
            map.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value.clone())));
        Attributes::from_pairs(pairs).unwrap()
    })
}

fn any_modification() -> impl Strategy<Value = Modification> {
    let operation = prop_oneof![Just(Operation::Add), Just(Operation::Delete), Just(Operation::Replace)];
    let one = (0u32..60).prop_map(|n| vec![format!("value {n}").into_bytes()]);
    let values = prop_oneof![any_values(), one, Just(vec![])];
    (operation, "[a-cA]|member|member", values).prop_map(|(operation, attribute, values)| Modification {
        operation,
        attribute,
        values,
    })
}

pub fn any_change() -> impl Strategy<Value = Change> {
    let uuid = || proptest::option::weighted(0.1, (1u128..6).prop_map(Uuid::from_u128));
    prop_oneof![
        4 => (any_dn(), uuid(), any_attributes()).prop_map(|(dn, uuid, attributes)| Change::Put { dn, uuid, attributes }),
        2 => (any_dn(), uuid(), any_attributes()).prop_map(|(dn, uuid, attributes)| Change::Add { dn, uuid, attributes }),
        4 => (any_dn(), proptest::collection::vec(any_modification(), 1..3))
            .prop_map(|(dn, modifications)| Change::Modify { dn, modifications }),
        2 => (any_dn(), "cn=[abAB]|ou=[x-z]", any::<bool>(), proptest::option::of(any_dn())).prop_map(
            |(dn, rdn, delete_old_rdn, new_superior)| {
                Change::Rename { dn, new_rdn: Rdn::parse(&rdn).unwrap(), delete_old_rdn, new_superior }
            }
        ),
        2 => any_dn().prop_map(|dn| Change::Delete { dn }),
    ]
}

/// Applies each change under a savepoint, so that those that are refused cost nothing.
pub fn commit(tx: &mut dyn Write, context: u32, batch: u8, changes: &[Change]) {
    for (i, change) in changes.iter().enumerate() {
        tx.savepoint().unwrap();
        let mut octets = [batch; 12];
        octets[11] = i as u8;
        let mut commit = Commit::begin(tx, context, octets).unwrap();
        let done = commit.apply(change).and_then(|()| commit.finish());
        assert!(!matches!(done, Err(ChangeError::Store(_))), "{done:?}");
        tx.end_savepoint(done.is_ok()).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_replica_that_replays_what_was_touched_is_equal(
        history in proptest::collection::vec((proptest::collection::vec(any_change(), 1..12), any::<bool>()), 1..10),
        trim in proptest::option::weighted(0.2, 0u64..20),
    ) {
        let (mut master, mut replica, mut third) = (MemoryStore::new(), MemoryStore::new(), MemoryStore::new());
        for store in [&mut master, &mut replica, &mut third] {
            let mut tx = store.begin();
            create_context(&mut tx, &dn("o=Org"), "m", Uuid::from_u128(77)).unwrap();
            tx.commit();
        }
        for (i, (changes, send)) in history.iter().enumerate() {
            let mut tx = master.begin();
            commit(&mut tx, 1, i as u8, changes);
            let now = record(&tx);
            check_sound(&tx, &now);
            if let (Some(usn), true) = (trim, i % 3 == 2) {
                super::log::trim(&mut tx, 1, usn).unwrap();
            }
            tx.commit();
            if *send || i + 1 == history.len() {
                let mut tx = replica.begin();
                let before = record(&tx);
                carry(&master, &now, &mut tx, &before).unwrap();
                let after = record(&tx);
                check_sound(&tx, &after);
                prop_assert_eq!((after.position, after.digest, after.entries), (now.position, now.digest, now.entries));
                tx.commit();
            }
            // A third site hears only the replica, and not every time.
            if i % 2 == 1 || i + 1 == history.len() {
                let now = record(&replica);
                let mut tx = third.begin();
                let before = record(&tx);
                carry(&replica, &now, &mut tx, &before).unwrap();
                let after = record(&tx);
                check_sound(&tx, &after);
                prop_assert_eq!(after.digest, now.digest);
                tx.commit();
            }
        }
        let dump = |read: &dyn Read, table| {
            let mut all = Vec::new();
            read.scan(table, &[], &[0xff; 5], &mut |key, value| { all.push((key.to_vec(), value.to_vec())); true }).unwrap();
            all
        };
        for table in [Table::Entry, Table::Name, Table::Digest] {
            prop_assert_eq!(dump(&master, table), dump(&third, table));
        }
    }
}

#[test]
fn a_replay_that_does_not_end_at_the_digest_is_refused() {
    let mut master = MemoryStore::new();
    let mut tx = master.begin();
    create_context(&mut tx, &dn("o=Org"), "m", Uuid::from_u128(77)).unwrap();
    let attributes = Attributes::from_pairs([("cn", b"a".to_vec())]).unwrap();
    commit(&mut tx, 1, 1, &[Change::Add { dn: dn("cn=a,o=Org"), uuid: None, attributes }]);
    let mut now = record(&tx);
    tx.commit();
    let mut replica = MemoryStore::new();
    let mut tx = replica.begin();
    let before = create_context(&mut tx, &dn("o=Org"), "m", Uuid::nil()).unwrap();
    now.digest.0[31] ^= 1;
    assert!(matches!(carry(&master, &now, &mut tx, &before), Err(ReplayError::Digest { .. })));
    now.entries += 1;
    tx.savepoint().unwrap();
    drop(tx);
    let mut tx = replica.begin();
    let before = create_context(&mut tx, &dn("o=Org"), "m", Uuid::nil()).unwrap();
    assert!(matches!(carry(&master, &now, &mut tx, &before), Err(ReplayError::Count { .. })));
    assert_eq!(context_by_number(&tx, 1).unwrap().unwrap().position.usn, 0);
}
