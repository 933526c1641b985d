//! The store on disk: what stays, who may open it, copies, and that it does what the one in memory does.

use super::*;
use crate::directory::memory::MemoryStore;
use proptest::prelude::*;

fn store() -> (tempfile::TempDir, SqliteStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).unwrap();
    (directory, store)
}

#[test]
fn what_is_committed_stays_and_what_is_not_is_gone() {
    let (directory, mut store) = store();
    let mut tx = store.begin().unwrap();
    tx.put(Table::Peer, b"a", b"1").unwrap();
    tx.commit().unwrap();
    let mut tx = store.begin().unwrap();
    tx.put(Table::Peer, b"b", b"2").unwrap();
    drop(tx);
    drop(store);
    let store = SqliteStore::open(directory.path()).unwrap();
    assert_eq!(store.get(Table::Peer, b"a").unwrap(), Some(b"1".to_vec()));
    assert_eq!(store.get(Table::Peer, b"b").unwrap(), None);
    assert_eq!(store.damages().unwrap(), Vec::<String>::new());
    let mode = fs::metadata(directory.path().join(FILE)).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn one_process_writes_and_others_read() {
    let (directory, mut store) = store();
    let Err(StoreError::Locked(holder)) = SqliteStore::open(directory.path()) else { panic!("opened twice") };
    assert_eq!(holder, format!("process {}", std::process::id()));
    let mut reader = SqliteReader::open(directory.path()).unwrap();
    let before = reader.snapshot().unwrap();
    let mut tx = store.begin().unwrap();
    tx.put(Table::Peer, b"a", b"1").unwrap();
    tx.commit().unwrap();
    assert_eq!(before.get(Table::Peer, b"a").unwrap(), None);
    drop(before);
    assert_eq!(reader.snapshot().unwrap().get(Table::Peer, b"a").unwrap(), Some(b"1".to_vec()));
}

#[test]
fn copies_know_that_they_are_copies() {
    let (directory, mut store) = store();
    let mut tx = store.begin().unwrap();
    tx.put(Table::Peer, b"a", b"1").unwrap();
    tx.commit().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    store.backup(&elsewhere.path().join(FILE)).unwrap();
    assert!(store.backup(&elsewhere.path().join(FILE)).is_err(), "never over a file");
    assert!(!store.is_restored());
    drop(store);
    assert!(!SqliteStore::open(directory.path()).unwrap().is_restored());

    let mut copy = SqliteStore::open(elsewhere.path()).unwrap();
    assert!(copy.is_restored());
    assert_eq!(copy.get(Table::Peer, b"a").unwrap(), Some(b"1".to_vec()));
    drop(copy);
    copy = SqliteStore::open(elsewhere.path()).unwrap();
    assert!(copy.is_restored(), "until settled");
    copy.settle().unwrap();
    drop(copy);
    assert!(!SqliteStore::open(elsewhere.path()).unwrap().is_restored());

    let third = tempfile::tempdir().unwrap();
    fs::copy(directory.path().join(FILE), third.path().join(FILE)).unwrap();
    assert!(SqliteStore::open(third.path()).unwrap().is_restored(), "copied behind our back");
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    fs::write(&path, b"this is no database, but it is somebody's file".repeat(100)).unwrap();
    assert!(matches!(SqliteStore::open(directory.path()), Err(StoreError::Damaged(_))));
    assert!(fs::read(&path).unwrap().starts_with(b"this is"));
    let (directory, store) = store();
    store.connection.execute_batch("PRAGMA user_version = 99").unwrap();
    drop(store);
    assert!(matches!(SqliteStore::open(directory.path()), Err(StoreError::Failed(_))));
    assert!(matches!(SqliteReader::open(directory.path()), Err(StoreError::Failed(_))));
    assert!(matches!(SqliteReader::open(Path::new("/nonexistent")), Err(StoreError::Failed(_))));
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
    Savepoint,
    EndSavepoint(bool),
    End(bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    let key = || proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0x7f), Just(0xff)], 0..3);
    prop_oneof![
        6 => (key(), key()).prop_map(|(k, v)| Step::Put(k, v)),
        2 => key().prop_map(Step::Delete),
        1 => (key(), key()).prop_map(|(a, b)| Step::DeleteRange(a, b)),
        2 => Just(Step::Savepoint),
        2 => any::<bool>().prop_map(Step::EndSavepoint),
        1 => any::<bool>().prop_map(Step::End),
    ]
}

fn dump(read: &dyn Read, back: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    let mut note = |key: &[u8], value: &[u8]| {
        all.push((key.to_vec(), value.to_vec()));
        all.len() < 7
    };
    let (from, to) = (&[][..], &[0xff, 0xff][..]);
    if back {
        read.scan_back(Table::Entry, from, to, &mut note)
    } else {
        read.scan(Table::Entry, from, to, &mut note)
    }
    .unwrap();
    all
}

/// Runs the steps of one transaction; whether it is to be committed.
fn run(tx: &mut dyn Write, steps: &mut dyn Iterator<Item = Step>) -> bool {
    let mut depth = 0;
    for step in steps {
        match step {
            Step::Put(key, value) => tx.put(Table::Entry, &key, &value).unwrap(),
            Step::Delete(key) => tx.delete(Table::Entry, &key).unwrap(),
            Step::DeleteRange(from, to) => tx.delete_range(Table::Entry, &from, &to).unwrap(),
            Step::Savepoint => {
                depth += 1;
                tx.savepoint().unwrap();
            }
            Step::EndSavepoint(keep) if depth > 0 => {
                depth -= 1;
                tx.end_savepoint(keep).unwrap();
            }
            Step::EndSavepoint(_) => {}
            Step::End(commit) => return commit,
        }
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_does_what_the_store_in_memory_does(steps in proptest::collection::vec(any_step(), 1..60)) {
        let (_directory, mut real) = store();
        let mut model = MemoryStore::new();
        let (mut ours, mut theirs) = (steps.clone().into_iter().peekable(), steps.into_iter());
        while ours.peek().is_some() {
            let mut tx = real.begin().unwrap();
            let mut model_tx = model.begin();
            let commit = run(&mut tx, &mut ours);
            run(&mut model_tx, &mut theirs);
            prop_assert_eq!(dump(&tx, false), dump(&model_tx, false));
            prop_assert_eq!(dump(&tx, true), dump(&model_tx, true));
            if commit {
                tx.commit().unwrap();
                model_tx.commit();
            }
        }
        prop_assert_eq!(dump(&real, false), dump(&model, false));
    }
}
