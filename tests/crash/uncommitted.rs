//! What a transaction decided takes effect after its commit, or not at all.

use std::sync::Arc;

use bridgehead::daemon::counters::ReplicationCounters;
use bridgehead::daemon::replicator::Replicator;
use bridgehead::directory::sqlite::{FILE, SqliteStore};
use bridgehead::replication::engine::{EngineConfig, Input, Partner, Succession, Timing};
use ed25519_dalek::SigningKey;
use rusqlite::Connection;
use tokio::sync::mpsc;

use crate::support::{SOON, Scratch, await_some};

/// The store takes each write and refuses the commit: a foreign key that is looked at no earlier.
const REFUSE: &str = "CREATE TABLE no_row (id INTEGER PRIMARY KEY);
    CREATE TABLE needs_row (id INTEGER REFERENCES no_row DEFERRABLE INITIALLY DEFERRED);
    CREATE TRIGGER refuse AFTER INSERT ON peer BEGIN INSERT INTO needs_row VALUES (1); END;
    CREATE TRIGGER refuse_too AFTER UPDATE ON peer BEGIN INSERT INTO needs_row VALUES (1); END;";
const TAKE: &str = "DROP TRIGGER refuse; DROP TRIGGER refuse_too;";

#[test]
fn no_mail_leaves_when_the_commit_is_refused() {
    let scratch = Scratch::new("uncommitted");
    let directory = scratch.join("data");
    std::fs::create_dir(&directory).expect("a directory");
    let store = SqliteStore::open(&directory).expect("a store");
    let beside = Connection::open(directory.join(FILE)).expect("the same file");
    beside.execute_batch(REFUSE).expect("triggers");

    let (mail, mut mails) = mpsc::unbounded_channel();
    let (told, _told) = mpsc::unbounded_channel();
    let counters = Arc::new(ReplicationCounters::default());
    let (replicator, thread) =
        Replicator::start(store, config(), mail, told, counters).expect("a thread of its own");
    // A hello was due at the start, and is due with the operator's word.
    let refused = replicator.tell(Input::Sync { site: None }).expect_err("refused");
    assert!(refused.contains("FOREIGN KEY"), "{refused}");
    assert!(mails.try_recv().is_err(), "mail left, and nothing of it is on disk");

    beside.execute_batch(TAKE).expect("no triggers");
    let hello = await_some("the hello", SOON, || mails.try_recv().ok());
    assert_eq!(hello.to, "tokyo");
    replicator.stop();
    thread.join().expect("it ends");
}

fn config() -> EngineConfig {
    EngineConfig {
        site: "paris".into(),
        key: SigningKey::from_bytes(&[1; 32]),
        card: String::new(),
        succession: Succession::default(),
        known: Vec::new(),
        partners: vec![Partner::new("tokyo")],
        timing: Timing::default(),
    }
}
