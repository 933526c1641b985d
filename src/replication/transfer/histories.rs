//! Transfers over random histories: a master commits, a replica applies what was encoded, both are
//! equal at every checkpoint, whatever the base.

use ed25519_dalek::SigningKey;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use uuid::Uuid;

use super::dictionary::of_run;
use super::*;
use crate::directory::context::{context_by_number, create_context, put_context};
use crate::directory::histories::{any_dn, any_values, check_sound, commit, dn, record};
use crate::directory::memory::MemoryStore;
use crate::directory::replica::Applied;
use crate::directory::{
    Attributes, Change, ContextRecord, Modification, Operation, Rdn, Read, Write, log, lookup,
};
use crate::message::random::Seeded;
use crate::replication::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::replication::parts::Source;

/// Values that are names, well spelled or not, beside plain ones.
fn any_mixed_values() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let names =
        vec(any_dn(), 1..4).prop_map(|names| names.iter().map(|dn| dn.to_string().into_bytes()).collect());
    let shouted = any_dn().prop_map(|dn| vec![dn.to_string().to_uppercase().into_bytes()]);
    let octets = vec(vec(any::<u8>(), 0..9), 1..3);
    prop_oneof![4 => any_values(), 3 => names, 1 => shouted, 1 => octets].prop_map(
        |mut values: Vec<Vec<u8>>| {
            values.sort();
            values.dedup();
            values
        },
    )
}

fn any_attributes() -> impl Strategy<Value = Attributes> {
    btree_map("[a-c]|member", any_mixed_values(), 1..4).prop_map(|map| {
        let pairs =
            map.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value.clone())));
        Attributes::from_pairs(pairs).unwrap()
    })
}

pub fn any_change() -> impl Strategy<Value = Change> {
    let uuid = || proptest::option::weighted(0.1, (1u128..6).prop_map(Uuid::from_u128));
    let operation = prop_oneof![Just(Operation::Add), Just(Operation::Delete), Just(Operation::Replace)];
    let modification = (operation, "[a-cA]|member|member", any_mixed_values())
        .prop_map(|(operation, attribute, values)| Modification { operation, attribute, values });
    prop_oneof![
        5 => (any_dn(), uuid(), any_attributes()).prop_map(|(dn, uuid, attributes)| Change::Put { dn, uuid, attributes }),
        5 => (any_dn(), vec(modification, 1..3)).prop_map(|(dn, modifications)| Change::Modify { dn, modifications }),
        2 => (any_dn(), "cn=[abAB]|ou=[x-z]", any::<bool>(), proptest::option::of(any_dn())).prop_map(
            |(dn, rdn, delete_old_rdn, new_superior)| {
                Change::Rename { dn, new_rdn: Rdn::parse(&rdn).unwrap(), delete_old_rdn, new_superior }
            }
        ),
        2 => any_dn().prop_map(|dn| Change::Delete { dn }),
    ]
}

pub fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub fn checkpoint(context: &ContextRecord) -> SignedCheckpoint {
    Checkpoint::of(context, jiff::Timestamp::from_second(1_700_000_000).unwrap()).sign(&key())
}

pub fn new_store() -> MemoryStore {
    let mut store = MemoryStore::new();
    let mut tx = store.begin();
    create_context(&mut tx, &dn("o=Org"), "m", Uuid::from_u128(77)).unwrap();
    tx.commit();
    store
}

pub fn encode_from(read: &dyn Read, base: Option<crate::directory::Position>) -> Encoded {
    let now = record(read);
    let delta = base.and_then(|base| encode(read, &now, Some(base), &checkpoint(&now)).unwrap());
    delta.unwrap_or_else(|| encode(read, &now, None, &checkpoint(&now)).unwrap().unwrap())
}

pub fn apply_all(tx: &mut dyn Write, transfer: &Encoded) -> Result<Applied, TransferError> {
    let before = record(tx.as_read());
    let proved = transfer.manifest.checkpoint.verify(&key().verifying_key())?;
    apply(tx, &before, &transfer.manifest, &proved, &mut &transfer.body[..])
}

fn dump(read: &dyn Read) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    for table in crate::directory::Table::ALL {
        read.scan(table, &[], &[0xff; 40], &mut |key, value| {
            all.push((key.to_vec(), value.to_vec()));
            true
        })
        .unwrap();
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_replica_that_applies_transfers_is_equal(
        history in vec((vec(any_change(), 1..12), any::<bool>()), 1..10),
        trim in proptest::option::weighted(0.2, 0u64..20),
        full in proptest::option::weighted(0.2, 0usize..10),
    ) {
        let (mut master, mut replica, mut third) = (new_store(), new_store(), new_store());
        for (i, (changes, send)) in history.iter().enumerate() {
            let mut tx = master.begin();
            commit(&mut tx, 1, i as u8, changes);
            let now = record(&tx);
            if let (Some(usn), true) = (trim, i % 3 == 2) {
                log::trim(&mut tx, 1, usn).unwrap();
            }
            tx.commit();
            if *send || i + 1 == history.len() {
                let base = (full != Some(i)).then(|| record(&replica).position);
                let transfer = encode_from(&master, base);
                let mut tx = replica.begin();
                let mut planned = Vec::new();
                let before = record(&tx);
                let counts = preview(&tx, &before, &transfer.manifest, &mut &transfer.body[..], &mut |p| planned.push(p)).unwrap();
                let applied = apply_all(&mut tx, &transfer).unwrap();
                let after = record(&tx);
                check_sound(&tx, &after);
                prop_assert_eq!((after.position, after.digest, after.entries), (now.position, now.digest, now.entries));
                prop_assert_eq!(before.entries + counts.added - counts.deleted, after.entries);
                prop_assert_eq!(planned.len() as u64, counts.added + counts.changed + counts.deleted);
                if transfer.manifest.base != Base::Nothing {
                    let manifest = &transfer.manifest;
                    let renewed = applied.added - manifest.added;
                    prop_assert_eq!(applied.deleted, manifest.deleted + renewed);
                    prop_assert_eq!(applied.changed + renewed, manifest.changed);
                }
                tx.commit();
            }
            // A third site hears only the replica, and not every time.
            if i % 2 == 1 || i + 1 == history.len() {
                let transfer = encode_from(&replica, Some(record(&third).position));
                let mut tx = third.begin();
                apply_all(&mut tx, &transfer).unwrap();
                prop_assert_eq!(record(&tx).digest, record(&replica).digest);
                tx.commit();
            }
        }
    }

    #[test]
    fn damage_changes_nothing(
        first in vec(any_change(), 1..20),
        second in vec(any_change(), 1..20),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        is_full: bool,
    ) {
        let (mut master, mut replica) = (new_store(), new_store());
        let mut tx = master.begin();
        commit(&mut tx, 1, 1, &first);
        tx.commit();
        let mut tx = replica.begin();
        let transfer = encode_from(&master, None);
        apply_all(&mut tx, &transfer).unwrap();
        tx.commit();
        let base = record(&master).position;
        let mut tx = master.begin();
        commit(&mut tx, 1, 2, &second);
        tx.commit();
        let transfer = encode_from(&master, (!is_full).then_some(base));
        let before = dump(&replica);
        // Damage to what is compressed is mostly noise; damage to what is said is what codecs fear.
        let run = transfer.manifest.dictionary;
        let dictionary = run.map_or(Vec::new(), |run| of_run(&replica, &record(&replica), run).unwrap().unwrap());
        let mut plain = zstd::bulk::Decompressor::with_dictionary(&dictionary).unwrap();
        let mut said = plain.decompress(&transfer.body, 1 << 24).unwrap();
        for (at, with) in &damage {
            let at = at.index(said.len());
            said[at] = *with;
        }
        let body = zstd::bulk::compress(&said, 1).unwrap();
        let manifest =
            Manifest { body_bytes: body.len() as u64, dictionary: None, ..transfer.manifest.clone() };
        let mut tx = replica.begin();
        let now = record(&tx);
        let _ = preview(&tx, &now, &manifest, &mut &body[..], &mut |_| {});
        match apply_all(&mut tx, &Encoded { manifest, body }) {
            Ok(_) => prop_assert_eq!(record(&tx).digest, record(&master).digest),
            Err(_) => prop_assert_eq!(dump(&tx), before),
        }
    }
}

fn add(dn_text: &str, pairs: &[(&str, String)]) -> Change {
    let pairs = pairs.iter().map(|(name, value)| (*name, value.clone().into_bytes()));
    Change::Add { dn: dn(dn_text), uuid: None, attributes: Attributes::from_pairs(pairs).unwrap() }
}

/// A topmost entry, people, and a group of them all.
pub fn company(people: u32) -> MemoryStore {
    let mut store = new_store();
    let mut tx = store.begin();
    let mut changes = vec![add("ou=People,o=Org", &[("ou", "People".into())])];
    for n in 0..people {
        let cn = format!("Person {n:05}");
        changes.push(add(
            &format!("uid=p{n},ou=People,o=Org"),
            &[("cn", cn), ("roomNumber", format!("B{}", n % 97))],
        ));
    }
    let members = (0..people).map(|n| ("member", format!("uid=p{n},ou=People,o=Org")));
    let pairs: Vec<(&str, String)> = std::iter::once(("cn", "all".to_owned())).chain(members).collect();
    changes.push(add("cn=all,o=Org", &pairs));
    let mut commit = crate::directory::commit::Commit::begin(&mut tx, 1, [9; 12]).unwrap();
    changes.iter().for_each(|change| commit.apply(change).unwrap());
    commit.finish().unwrap();
    tx.commit();
    store
}

fn modify(store: &mut MemoryStore, dn_text: &str, operation: Operation, attribute: &str, value: &str) {
    let values = vec![value.as_bytes().to_vec()];
    let modification = Modification { operation, attribute: attribute.into(), values };
    let change = Change::Modify { dn: dn(dn_text), modifications: vec![modification] };
    let mut tx = store.begin();
    commit(&mut tx, 1, 0x55, &[change]);
    tx.commit();
}

#[test]
fn small_changes_are_small() {
    let mut master = company(5000);
    let mut replica = new_store();
    let mut tx = replica.begin();
    let full = encode_from(&master, None);
    apply_all(&mut tx, &full).unwrap();
    tx.commit();
    let mut sizes = Vec::new();
    for (dn_text, operation, attribute, value) in [
        ("uid=p77,ou=People,o=Org", Operation::Replace, "roomNumber", "C12"),
        ("cn=all,o=Org", Operation::Delete, "member", "uid=p4000,ou=People,o=Org"),
        ("cn=all,o=Org", Operation::Add, "member", "uid=p4000,ou=People,o=Org"),
        ("cn=all,o=Org", Operation::Add, "member", "uid=somebody,ou=Elsewhere,o=Org"),
    ] {
        let base = record(&master).position;
        modify(&mut master, dn_text, operation, attribute, value);
        let transfer = encode_from(&master, Some(base));
        assert_eq!(
            (transfer.manifest.added, transfer.manifest.changed, transfer.manifest.deleted),
            (0, 1, 0)
        );
        sizes.push(transfer.body.len());
        let mut tx = replica.begin();
        apply_all(&mut tx, &transfer).unwrap();
        tx.commit();
    }
    assert!(sizes.iter().all(|size| *size < 100), "{sizes:?}");
}

/// A number costs what it costs, however large what stands beside it is.
#[test]
fn a_telephone_number_goes_without_the_photo_beside_it() {
    const PHOTO_BYTES: usize = 100_000;
    const CHANGE_BYTES_MAX: usize = 1 << 10;
    let name = "uid=ada,ou=People,o=Org";
    let mut photo = vec![0; PHOTO_BYTES];
    Seeded::new(5).fill_bytes(&mut photo);
    let pairs = [("telephoneNumber", b"+49 30 1".to_vec()), ("jpegPhoto", photo.clone())];
    let attributes = Attributes::from_pairs(pairs).unwrap();
    let mut master = company(100);
    let mut tx = master.begin();
    commit(&mut tx, 1, 0x33, &[Change::Add { dn: dn(name), uuid: None, attributes }]);
    tx.commit();
    let full = encode_from(&master, None);
    assert!(full.body.len() > PHOTO_BYTES, "noise stays as large as it is");
    let mut replica = new_store();
    let mut tx = replica.begin();
    apply_all(&mut tx, &full).unwrap();
    tx.commit();

    let base = record(&master).position;
    modify(&mut master, name, Operation::Replace, "telephoneNumber", "+49 30 2");
    let transfer = encode_from(&master, Some(base));
    let manifest = &transfer.manifest;
    assert_eq!((manifest.added, manifest.changed, manifest.deleted), (0, 1, 0));
    let bytes = manifest.to_bytes().unwrap().len() + transfer.body.len();
    assert!(bytes < CHANGE_BYTES_MAX, "{bytes} octets");
    let mut tx = replica.begin();
    apply_all(&mut tx, &transfer).unwrap();
    tx.commit();
    let here = record(&replica);
    assert_eq!(here.digest, record(&master).digest);
    let entry = lookup::entry_at(&replica, &here, &dn(name)).unwrap().expect("it is there");
    assert_eq!(entry.attributes.text("telephoneNumber"), Some("+49 30 2"));
    let expected = Attributes::from_pairs([("telephoneNumber", b"+49 30 2".to_vec()), ("jpegPhoto", photo)]);
    assert_eq!(entry.attributes, expected.unwrap(), "nothing else changed");
}

#[test]
fn ranks_are_told_one_by_one_where_few_are_needed() {
    let mut master = company(3000);
    let mut replica = new_store();
    let mut tx = replica.begin();
    apply_all(&mut tx, &encode_from(&master, None)).unwrap();
    tx.commit();
    for round in 0..20u32 {
        let base = record(&master).position;
        let person = |n: u32| format!("uid=p{},ou=People,o=Org", round * 100 + n * 7);
        let mut changes: Vec<Change> = (0..5).map(|n| Change::Delete { dn: dn(&person(n)) }).collect();
        changes.extend(
            (0..9).map(|n| add(&format!("uid=new{round}x{n},o=Org"), &[("manager", person(12 - n % 3))])),
        );
        changes.push(Change::Rename {
            dn: dn(&person(13)),
            new_rdn: Rdn::parse(&format!("uid=renamed{round}")).unwrap(),
            delete_old_rdn: true,
            new_superior: None,
        });
        let mut tx = master.begin();
        let mut commit =
            crate::directory::commit::Commit::begin(&mut tx, 1, [round as u8 ^ 0x5a; 12]).unwrap();
        changes.iter().for_each(|change| commit.apply(change).unwrap());
        commit.finish().unwrap();
        tx.commit();
        let transfer = encode_from(&master, Some(base));
        let manifest = &transfer.manifest;
        assert_eq!((manifest.added, manifest.changed, manifest.deleted), (9, 1, 5));
        let mut tx = replica.begin();
        apply_all(&mut tx, &transfer).unwrap();
        assert_eq!(record(&tx).digest, record(&master).digest);
        tx.commit();
    }
}

#[test]
fn a_transfer_for_another_base_context_or_checkpoint_is_refused() {
    let mut master = company(20);
    let base = record(&master).position;
    modify(&mut master, "uid=p7,ou=People,o=Org", Operation::Replace, "cn", "x");
    let transfer = encode_from(&master, Some(base));
    let mut replica = new_store();
    let mut tx = replica.begin();
    assert!(matches!(apply_all(&mut tx, &transfer), Err(TransferError::OtherBase { .. })));
    let mut other = record(&tx);
    other.dn = dn("o=Other");
    let proved = transfer.manifest.checkpoint.claimed().unwrap();
    let refused = apply(&mut tx, &other, &transfer.manifest, &proved, &mut &transfer.body[..]);
    assert!(matches!(refused, Err(TransferError::OtherContext)));
    let full = encode_from(&master, None);
    let lied = Checkpoint { entries: proved.entries + 1, ..proved };
    let context = record(&tx);
    let refused = apply(&mut tx, &context, &full.manifest, &lied, &mut &full.body[..]);
    assert!(matches!(refused, Err(TransferError::OtherCheckpoint)));
    let manifest = Manifest { checkpoint: lied.sign(&key()), ..full.manifest.clone() };
    let refused = apply(&mut tx, &context, &manifest, &lied, &mut &full.body[..]);
    assert!(matches!(refused, Err(TransferError::Mismatch(_))), "{refused:?}");
    assert_eq!(context_by_number(&tx, 1).unwrap(), Some(context));
}

#[test]
fn a_manifest_that_belittles_what_the_body_does_is_refused() {
    let mut master = company(20);
    let mut replica = new_store();
    let mut tx = replica.begin();
    apply_all(&mut tx, &encode_from(&master, None)).unwrap();
    tx.commit();
    let base = record(&master).position;
    let mut tx = master.begin();
    commit(&mut tx, 1, 3, &[Change::Delete { dn: dn("uid=p3,ou=People,o=Org") }]);
    tx.commit();
    let mut transfer = encode_from(&master, Some(base));
    assert_eq!(transfer.manifest.deleted, 1);
    transfer.manifest.deleted = 0;
    let mut tx = replica.begin();
    assert!(matches!(apply_all(&mut tx, &transfer), Err(TransferError::Malformed(_))));
}

#[test]
fn a_base_off_the_history_needs_a_full_load() {
    let mut master = company(3);
    let mut tx = master.begin();
    let mut now = record(&tx);
    let base = now.position;
    let checked =
        |tx: &dyn Read, now: &ContextRecord, base| encode(tx, now, Some(base), &checkpoint(now)).unwrap();
    assert!(checked(&tx, &now, base).is_some());
    let elsewhere = crate::directory::Position { invocation: Uuid::from_u128(1), ..base };
    assert!(checked(&tx, &now, elsewhere).is_none());
    now.lineage.push(base, now.digest);
    now.position.invocation = Uuid::from_u128(1);
    put_context(&mut tx, &now).unwrap();
    assert!(checked(&tx, &now, base).is_some(), "an earlier life is on the history");
    assert!(matches!(
        encode(&tx, &now, None, &checkpoint(&ContextRecord { entries: 9, ..now.clone() })),
        Err(EncodeError::OtherCheckpoint)
    ));
}

/// A body that comes an octet at a time.
struct Dripping<'b>(&'b [u8]);

impl Source for Dripping<'_> {
    fn next(&mut self, _: &dyn Read) -> Result<Option<Vec<u8>>, StoreError> {
        let piece = self.0.split_off_first();
        Ok(piece.map(|octet| vec![*octet]))
    }
}

#[test]
fn groups_may_come_before_their_members_and_bodies_in_any_pieces() {
    let mut master = new_store();
    let mut tx = master.begin();
    let members: Vec<(&str, String)> = (0..50).map(|n| ("member", format!("uid=p{n},o=Org"))).collect();
    let mut changes = vec![add("cn=first,o=Org", &members)];
    changes.extend((0..50).map(|n| add(&format!("uid=p{n},o=Org"), &[("cn", "x".into())])));
    let mut commit = crate::directory::commit::Commit::begin(&mut tx, 1, [9; 12]).unwrap();
    changes.iter().for_each(|change| commit.apply(change).unwrap());
    commit.finish().unwrap();
    tx.commit();
    let transfer = encode_from(&master, None);
    let mut replica = new_store();
    let mut tx = replica.begin();
    let context = record(&tx);
    let proved = transfer.manifest.checkpoint.claimed().unwrap();
    apply(&mut tx, &context, &transfer.manifest, &proved, &mut Dripping(&transfer.body)).unwrap();
    assert_eq!(lookup::digest_from_entries(&tx, 1).unwrap().digest, record(&master).digest);
}

#[test]
fn a_dictionary_is_drawn_from_what_the_transfer_leaves_alone() {
    let person = |name: String| {
        let attributes = [
            ("telephoneNumber", "+1 234 567 8901".to_owned()),
            ("physicalDeliveryOfficeName", "Headquarters, second floor".to_owned()),
            ("employeeType", "Full-time".to_owned()),
        ];
        add(&format!("uid={name},ou=People,o=Org"), &attributes)
    };
    let mut master = company(60);
    let mut tx = master.begin();
    commit(&mut tx, 1, 0x77, &(0..40).map(|n| person(format!("old{n}"))).collect::<Vec<_>>());
    tx.commit();
    let mut replica = new_store();
    let mut tx = replica.begin();
    apply_all(&mut tx, &encode_from(&master, None)).unwrap();
    tx.commit();
    let mut used = 0;
    for round in 0..30u8 {
        let base = record(&master);
        let at = |n: u32| (u32::from(round) * 7 + n * 11) % 60;
        let mut changes = vec![person(format!("new{round}")), person(format!("other{round}"))];
        changes.extend((0..u32::from(round % 5)).map(|n| Change::Modify {
            dn: dn(&format!("uid=p{},ou=People,o=Org", at(n))),
            modifications: vec![Modification {
                operation: Operation::Replace,
                attribute: "roomNumber".into(),
                values: vec![format!("Z{round}").into_bytes()],
            }],
        }));
        if round % 3 == 2 {
            changes.push(Change::Delete { dn: dn(&format!("uid=new{},ou=People,o=Org", round - 1)) });
        }
        let mut tx = master.begin();
        commit(&mut tx, 1, round, &changes);
        tx.commit();
        let transfer = encode_from(&master, Some(base.position));
        let before = dump(&replica);
        if let Some(run) = transfer.manifest.dictionary {
            used += 1;
            // Another dictionary leads nowhere.
            let others = [(run.first + 1, run.entries), (run.first, run.entries - 1), (run.first, u64::MAX)];
            for (first, entries) in others {
                let other = Run { first, entries };
                let manifest = Manifest { dictionary: Some(other), ..transfer.manifest.clone() };
                let mut tx = replica.begin();
                let same = of_run(&tx, &base, other).unwrap() == of_run(&tx, &base, run).unwrap();
                let applied = apply_all(&mut tx, &Encoded { manifest, body: transfer.body.clone() });
                assert_eq!(applied.is_ok(), same, "{run:?} {other:?}");
                assert!(same || dump(&tx) == before);
            }
        }
        let mut tx = replica.begin();
        apply_all(&mut tx, &transfer).unwrap();
        assert_eq!(record(&tx).digest, record(&master).digest);
        tx.commit();
    }
    assert!(used > 20, "a dictionary saved something {used} times");
}

/// Where two threads work on a transfer, it leads where it leads with one, and damage to it is an error and no more.
#[test]
fn many_entries_pass_by_a_second_thread() {
    let people = 3 * super::chunk::CHUNK_RECORDS_MAX as u32;
    let mut master = company(people);
    let mut replica = new_store();
    let full = encode_from(&master, None);
    let said = zstd::stream::decode_all(&full.body[..]).unwrap();
    let before = dump(&replica);
    let again = |said: &[u8]| {
        let body = zstd::bulk::compress(said, 1).unwrap();
        let manifest = Manifest { body_bytes: body.len() as u64, ..full.manifest.clone() };
        Encoded { manifest, body }
    };
    let far = said.len() - 1000;
    let mut damaged = said.clone();
    damaged[far..far + 100].fill(0xff);
    for (what, wrong) in [
        ("octets altered", again(&damaged)),
        ("the end is missing", again(&said[..far])),
        ("octets follow", again(&[&said[..], b"x"].concat())),
        ("a part is missing", Encoded { body: full.body[..full.body.len() / 2].to_vec(), ..full.clone() }),
    ] {
        let mut tx = replica.begin();
        let refused = apply_all(&mut tx, &wrong);
        assert!(refused.is_err(), "{what}");
        assert_eq!(dump(&tx), before, "{what}");
    }
    let mut tx = replica.begin();
    assert_eq!(apply_all(&mut tx, &full).unwrap().added, record(&master).entries);
    tx.commit();
    assert_eq!(record(&replica).digest, record(&master).digest);

    let base = record(&master).position;
    let changes: Vec<Change> = (0..people - 1000)
        .map(|n| match n % 2 {
            0 => add(&format!("uid=more{n},ou=People,o=Org"), &[("cn", format!("More {n}"))]),
            _ => Change::Modify {
                dn: dn(&format!("uid=p{n},ou=People,o=Org")),
                modifications: vec![Modification {
                    operation: Operation::Replace,
                    attribute: "roomNumber".into(),
                    values: vec![format!("C{n}").into_bytes()],
                }],
            },
        })
        .collect();
    let mut tx = master.begin();
    commit(&mut tx, 1, 0x77, &changes);
    tx.commit();
    let mut tx = replica.begin();
    apply_all(&mut tx, &encode_from(&master, Some(base))).unwrap();
    assert_eq!(record(&tx).digest, record(&master).digest);
}
