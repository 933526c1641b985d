//! What a malicious master could send, with the right digest over it: the indexes stay sound.

use uuid::Uuid;

use super::*;
use crate::directory::context::{context_by_number, create_context};
use crate::directory::histories::{check_sound, dn};
use crate::directory::lookup::{digest_from_entries, find};
use crate::directory::memory::MemoryStore;

fn entry(uuid: u128, parent: u128, rdn: &str) -> Entry {
    let attributes = Attributes::from_pairs([("cn", b"x".to_vec())]).unwrap();
    Entry {
        uuid: Uuid::from_u128(uuid),
        parent: Uuid::from_u128(parent),
        rdn: Rdn::parse(rdn).unwrap(),
        attributes,
    }
}

fn named(parent: u128, rdn: &str) -> Delta {
    Delta { parent: Some(Uuid::from_u128(parent)), rdn: Some(Rdn::parse(rdn).unwrap()), attributes: vec![] }
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// o=x with two units, a person in the first.
fn before() -> MemoryStore {
    let mut store = MemoryStore::new();
    let mut tx = store.begin();
    create_context(&mut tx, &dn("o=x"), "m", Uuid::nil()).unwrap();
    replay(&mut tx, 1, &mut |replay| {
        // Children first: the order does not matter.
        replay.add(&entry(4, 2, "cn=p"))?;
        replay.add(&entry(3, 1, "ou=b"))?;
        replay.add(&entry(2, 1, "ou=a"))?;
        replay.add(&entry(1, 0, "o=x"))
    })
    .unwrap();
    tx.commit();
    store
}

/// Replays steps and ends with the digest that they lead to, whatever it is.
fn replay(
    tx: &mut dyn Write,
    usn: u64,
    steps: &mut dyn FnMut(&mut Replay) -> Result<(), ReplayError>,
) -> Result<Applied, ReplayError> {
    let record = context_by_number(tx.as_read(), 1).unwrap().unwrap();
    tx.savepoint()?;
    let mut draft = Replay::begin(tx, &record);
    steps(&mut draft)?;
    let wanted = digest_from_entries(draft.tx().as_read(), 1)?;
    tx.end_savepoint(false)?;
    let mut replay = Replay::begin(tx, &record);
    steps(&mut replay)?;
    replay.finish(Position { invocation: id(9), usn }, wanted)
}

fn refused(steps: &mut dyn FnMut(&mut Replay) -> Result<(), ReplayError>) -> String {
    let mut store = before();
    let error = replay(&mut store.begin(), 2, steps).unwrap_err();
    let record = context_by_number(&store, 1).unwrap().unwrap();
    check_sound(&store, &record);
    let text = format!("{error:?}");
    text.split(['(', ' ']).next().unwrap_or_default().to_owned()
}

#[test]
fn steps_come_in_any_order_and_names_are_exchanged() {
    let mut store = before();
    let mut tx = store.begin();
    let applied = replay(&mut tx, 7, &mut |replay| {
        replay.change(id(2), named(1, "ou=b"))?;
        replay.change(id(3), named(1, "ou=a"))?;
        replay.delete(id(4))?;
        replay.add(&entry(4, 3, "cn=q"))?;
        replay.add(&entry(6, 5, "cn=p"))?;
        replay.add(&entry(5, 4, "ou=c"))
    })
    .unwrap();
    assert_eq!(applied, Applied { added: 3, changed: 2, deleted: 1 });
    let record = context_by_number(&tx, 1).unwrap().unwrap();
    check_sound(&tx, &record);
    assert_eq!((record.position.usn, record.entries), (7, 6));
    assert_eq!(find(&tx, &record, &dn("cn=p,ou=c,cn=q,ou=a,o=x")).unwrap(), Some(id(6)));
    assert_eq!(find(&tx, &record, &dn("cn=p,ou=a,o=x")).unwrap(), None);
}

#[test]
fn what_no_master_in_its_right_mind_sends_is_refused() {
    assert_eq!(refused(&mut |r| r.add(&entry(4, 1, "cn=n"))), "Exists");
    assert_eq!(refused(&mut |r| r.change(id(8), Delta::default())), "Missing");
    assert_eq!(refused(&mut |r| r.delete(id(8))), "Missing");
    assert_eq!(
        refused(&mut |r| r.add(&entry(8, 1, "cn=n")).and_then(|()| r.add(&entry(8, 1, "cn=m")))),
        "Twice"
    );
    assert_eq!(refused(&mut |r| r.add(&entry(8, 1, "cn=n")).and_then(|()| r.delete(id(8)))), "Twice");
    assert_eq!(refused(&mut |r| r.delete(id(4)).and_then(|()| r.change(id(4), named(1, "cn=n")))), "Twice");
    assert_eq!(refused(&mut |r| r.add(&entry(8, 2, "CN=P"))), "NameTaken");
    assert_eq!(
        refused(&mut |r| r.add(&entry(7, 1, "cn=n")).and_then(|()| r.add(&entry(8, 1, "cn=N")))),
        "NameTaken"
    );
    assert_eq!(refused(&mut |r| r.change(id(2), named(1, "ou=b"))), "NameTaken");
    assert_eq!(refused(&mut |r| r.add(&entry(8, 7, "cn=n"))), "Adrift");
    assert_eq!(refused(&mut |r| r.delete(id(2))), "HasChildren");
    assert_eq!(refused(&mut |r| r.change(id(2), named(4, "ou=a"))), "Adrift", "a circle");
    assert_eq!(
        refused(&mut |r| r.add(&entry(7, 8, "cn=n")).and_then(|()| r.add(&entry(8, 7, "cn=m")))),
        "Adrift"
    );
    assert_eq!(refused(&mut |r| r.add(&entry(8, 0, "o=y"))), "NotTopmost");
    assert_eq!(refused(&mut |r| r.add(&entry(8, 0, "o=X"))), "NameTaken");
    assert_eq!(refused(&mut |r| r.add(&entry(0, 1, "cn=n"))), "Empty");
    let removal = Delta { attributes: vec![AttributeDelta::Remove("CN".into())], ..Delta::default() };
    assert_eq!(refused(&mut |r| r.change(id(4), removal.clone())), "Empty");
    let twice = AttributeDelta::Values { name: "cn".into(), remove: vec![], append: vec![b"x".to_vec()] };
    let twice = Delta { attributes: vec![twice], ..Delta::default() };
    assert_eq!(refused(&mut |r| r.change(id(4), twice.clone())), "Attributes");
}

#[test]
fn no_name_grows_too_deep() {
    // A chain of entries beneath each other, one of them too many.
    let chain = |r: &mut Replay, length: usize| {
        (0..length as u128).try_for_each(|i| r.add(&entry(100 + i, if i == 0 { 1 } else { 99 + i }, "cn=n")))
    };
    let mut store = before();
    replay(&mut store.begin(), 2, &mut |r| chain(r, DN_DEPTH_MAX - 1)).unwrap();
    assert!(["TooLarge", "Adrift"].contains(&refused(&mut |r| chain(r, DN_DEPTH_MAX)).as_str()));
    // Moved down with what hangs on it.
    let deep = refused(&mut |r| {
        chain(r, DN_DEPTH_MAX - 2)?;
        r.change(id(2), Delta { parent: Some(id(100 + DN_DEPTH_MAX as u128 - 3)), ..Delta::default() })
    });
    assert_eq!(deep, "TooLarge");
}

#[test]
fn a_full_load_replaces_everything_and_the_log_begins_there() {
    let mut store = before();
    let mut tx = store.begin();
    let back = replay(&mut tx, 0, &mut |r| r.delete(id(4)));
    assert!(matches!(back, Err(ReplayError::Backwards(0))), "{back:?}");
    drop(tx);
    let mut tx = store.begin();
    replay(&mut tx, 5, &mut |r| {
        r.clear()?;
        r.add(&entry(1, 0, "o=x"))?;
        r.add(&entry(4, 1, "cn=z"))
    })
    .unwrap();
    let record = context_by_number(&tx, 1).unwrap().unwrap();
    check_sound(&tx, &record);
    assert_eq!((record.entries, record.log_floor), (2, 5));
    let since = |usn| log::touched_since(&tx, 1, usn).unwrap().map(|set| set.entries.len());
    assert_eq!((since(1), since(5)), (None, Some(0)));
}
