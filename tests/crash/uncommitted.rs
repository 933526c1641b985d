//! What a transaction decided takes effect after its commit, or not at all.

use std::convert::Infallible;
use std::sync::{Arc, mpsc as blocking};
use std::thread;

use bridgehead::daemon::counters::ReplicationCounters;
use bridgehead::daemon::replicator::{Changed, Mail, Replicator};
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
    let store = store(&scratch);
    let beside = Connection::open(scratch.join("data").join(FILE)).expect("the same file");
    beside.execute_batch(REFUSE).expect("triggers");

    let Running { replicator, mut mails, thread, .. } = Running::start(store);
    // A hello was due at the start, and is due with the operator's word.
    let refused = replicator.tell(Input::Sync { site: None }).expect_err("refused");
    assert!(refused.to_string().contains("FOREIGN KEY"), "{refused}");
    assert!(mails.try_recv().is_err(), "mail left, and nothing of it is on disk");

    replicator.configure(EngineConfig { partners: vec![Partner::new("osaka")], ..config() });
    beside.execute_batch(TAKE).expect("no triggers");
    let hello = await_some("the hello", SOON, || mails.try_recv().ok());
    assert_eq!(hello.to, "osaka", "a reload counts, whatever the store says");
    replicator.stop();
    thread.join().expect("it ends");
}

#[test]
fn what_shares_a_transaction_with_a_reload_takes_effect() {
    let scratch = Scratch::new("reloaded");
    let Running { replicator, mut mails, thread, counters } = Running::start(store(&scratch));
    let hello = await_some("the hello of the start", SOON, || mails.try_recv().ok());

    // Whatever comes while this job runs shares the next transaction.
    let (begun, begins) = blocking::channel();
    let (end, ends) = blocking::channel();
    let busy = thread::spawn({
        let replicator = replicator.clone();
        move || {
            replicator.change(move |_| -> Result<_, Infallible> {
                begun.send(()).expect("the test waits");
                ends.recv().expect("the test says when");
                Ok(Changed { answer: (), contexts: Vec::new() })
            })
        }
    });
    begins.recv().expect("it runs");
    let (to, text) = (hello.to, "not now".to_owned());
    let failed = Input::SendFailed { to, mail: hello.mail, reply: 451, enhanced: String::new(), text };
    replicator.input(failed);
    replicator.input(Input::Sync { site: None });
    replicator.configure(config());
    end.send(()).expect("it waits");
    busy.join().expect("it ends").expect("committed");
    replicator.stop();
    thread.join().expect("it ends");

    assert_eq!(counters.snapshot().events["mail-bounced"], 1);
    let later: Vec<u64> = std::iter::from_fn(|| mails.try_recv().ok()).map(|mail| mail.mail).collect();
    assert_eq!(later.len(), 1, "the hello that the operator wanted: {later:?}");
}

fn store(scratch: &Scratch) -> SqliteStore {
    let directory = scratch.join("data");
    std::fs::create_dir(&directory).expect("a directory");
    SqliteStore::open(&directory).expect("a store")
}

struct Running {
    replicator: Replicator,
    mails: mpsc::UnboundedReceiver<Mail>,
    thread: thread::JoinHandle<()>,
    counters: Arc<ReplicationCounters>,
}

impl Running {
    fn start(store: SqliteStore) -> Running {
        let (mail, mails) = mpsc::unbounded_channel();
        let (told, _told) = mpsc::unbounded_channel();
        let counters = Arc::new(ReplicationCounters::default());
        let (replicator, thread) =
            Replicator::start(store, config(), mail, told, counters.clone()).expect("a thread of its own");
        Running { replicator, mails, thread, counters }
    }
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
