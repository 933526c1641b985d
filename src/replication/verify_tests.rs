use proptest::prelude::*;

use super::super::transfer::histories::{any_change, apply_all, checkpoint, company, new_store};
use super::super::transfer::{Base, encode_repair};
use super::*;
use crate::directory::histories::{check_sound, commit, record};
use crate::directory::memory::MemoryStore;
use crate::directory::{Change, Dn, Modification, Operation};

/// Lets both sides talk; the first one leads. Says how it ended, and how long each message was.
fn compare(leader: &MemoryStore, follower: &MemoryStore, leader_begins: bool) -> (Answer, Vec<usize>) {
    let sides = [(leader, record(leader)), (follower, record(follower))];
    let mut speaker = usize::from(!leader_begins);
    let mut message = begin(sides[speaker].0, &sides[speaker].1).unwrap();
    let mut sizes = vec![message.len()];
    loop {
        speaker = 1 - speaker;
        let (store, context) = &sides[speaker];
        match answer(*store, context, &message, speaker == 0, MESSAGE_BYTES_MAX).unwrap() {
            Answer::Reply(reply) => message = reply,
            end => return (end, sizes),
        }
        sizes.push(message.len());
        assert!(sizes.len() as u64 <= ROUNDS_MAX, "{sizes:?}");
    }
}

/// The follower after a repair.
fn repaired(leader: &MemoryStore, follower: &mut MemoryStore, differences: &Differences) -> usize {
    let now = record(leader);
    let transfer =
        encode_repair(leader, &now, &differences.theirs, &differences.ours, &checkpoint(&now)).unwrap();
    assert_eq!(transfer.manifest.base, Base::Repair);
    let mut tx = follower.begin();
    apply_all(&mut tx, &transfer).unwrap();
    let after = record(&tx);
    check_sound(&tx, &after);
    assert_eq!((after.digest, after.position), (now.digest, now.position));
    tx.commit();
    transfer.body.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_differs_is_found_and_repaired(
        common in proptest::collection::vec(any_change(), 0..30),
        left in proptest::collection::vec(any_change(), 0..30),
        right in proptest::collection::vec(any_change(), 0..30),
        leader_begins: bool,
    ) {
        let mut leader = new_store();
        let mut tx = leader.begin();
        commit(&mut tx, 1, 1, &common);
        tx.commit();
        let mut follower = leader.clone();
        let mut tx = follower.begin();
        commit(&mut tx, 1, 2, &right);
        tx.commit();
        let mut tx = leader.begin();
        commit(&mut tx, 1, 3, &left);
        // A repair goes to no earlier position.
        let mut context = record(&tx);
        context.position.usn += 100;
        crate::directory::context::put_context(&mut tx, &context).unwrap();
        tx.commit();
        let is_equal = record(&leader).digest == record(&follower).digest;
        match compare(&leader, &follower, leader_begins).0 {
            Answer::Equal(_) => prop_assert!(is_equal),
            Answer::Differ(differences) => {
                prop_assert!(!is_equal);
                repaired(&leader, &mut follower, &differences);
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn noise_does_no_harm(mut message in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..4) {
        let store = company(30);
        let context = record(&store);
        let _ = answer(&store, &context, &message, true, MESSAGE_BYTES_MAX);
        message.splice(0..0, [1, 1, kind]);
        let _ = answer(&store, &context, &message, false, MESSAGE_BYTES_MAX);
    }
}

/// As many changes, spread over the people.
fn damage(store: &mut MemoryStore, people: u32, count: u32) {
    let changes: Vec<Change> = (0..count)
        .map(|n| {
            let dn = Dn::parse(&format!("uid=p{},ou=People,o=Org", n * (people / count) + 5)).unwrap();
            let modification = Modification {
                operation: Operation::Replace,
                attribute: "cn".into(),
                values: vec![format!("Damaged {n}").into_bytes()],
            };
            if n % 5 == 4 {
                Change::Delete { dn }
            } else {
                Change::Modify { dn, modifications: vec![modification] }
            }
        })
        .collect();
    let mut tx = store.begin();
    commit(&mut tx, 1, 0x66, &changes);
    let mut context = record(&tx);
    context.position.usn = 1;
    crate::directory::context::put_context(&mut tx, &context).unwrap();
    tx.commit();
}

#[test]
fn a_few_differences_among_many_entries_cost_a_few_kilobytes() {
    let people = 20_000;
    let leader = company(people);
    for (count, rounds, bytes) in [(1, 4, 10_000), (10, 4, 64_000), (200, 5, 300_000)] {
        for leader_begins in [true, false] {
            let mut follower = leader.clone();
            damage(&mut follower, people, count);
            let (end, sizes) = compare(&leader, &follower, leader_begins);
            let Answer::Differ(differences) = end else { panic!("{end:?}") };
            assert_eq!(differences.ours.len(), count as usize);
            assert_eq!(differences.theirs.len(), (count - count / 5) as usize);
            let total: usize = sizes.iter().sum();
            assert!(sizes.len() <= rounds && total < bytes, "{count} differences: messages {sizes:?}");
            let body = repaired(&leader, &mut follower, &differences);
            assert!(body < 100 + 60 * count as usize, "{body}");
        }
    }
}

#[test]
fn replicas_that_have_little_in_common_need_a_full_load() {
    let (leader, follower) = (company(2000), new_store());
    assert!(compare(&leader, &follower, false).0 == Answer::TooDifferent);
    assert!(compare(&leader, &follower, true).0 == Answer::TooDifferent);
    let (end, sizes) = compare(&leader, &leader.clone(), true);
    assert_eq!((end, sizes.len()), (Answer::Equal(Some(equal(2))), 1));
    assert_eq!(
        answer(&leader, &record(&leader), &equal(2), true, MESSAGE_BYTES_MAX).unwrap(),
        Answer::Equal(None)
    );
}
