//! What a site remembers of its own past is bounded, and forgetting costs no more than a full load.

use bridgehead::directory::change::Change;
use bridgehead::directory::commit::Commit;
use bridgehead::directory::context::{context_by_number, create_context};
use bridgehead::directory::memory::MemoryStore;
use bridgehead::directory::{Attributes, ContextRecord, Dn, Read, Table};
use bridgehead::replication::engine::{Engine, EngineConfig, Input, Timing};
use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use uuid::Uuid;

const KEPT: u64 = 16;

fn record(store: &MemoryStore) -> ContextRecord {
    context_by_number(store, 1).unwrap().unwrap()
}

#[test]
fn the_log_of_a_naming_context_is_bounded_in_commits() {
    let dn = Dn::parse("ou=paris,o=Example").unwrap();
    let mut store = MemoryStore::new();
    let mut tx = store.begin();
    create_context(&mut tx, &dn, "paris", Uuid::from_u128(1)).unwrap();
    tx.commit();
    let mut engine = Engine::new(EngineConfig {
        site: "paris".into(),
        key: SigningKey::from_bytes(&[1; 32]),
        card: String::new(),
        succession: Default::default(),
        known: Vec::new(),
        partners: Vec::new(),
        timing: Timing { log_commits_max: KEPT, ..Timing::default() },
    });
    for n in 0..200u8 {
        let mut tx = store.begin();
        let attributes = Attributes::from_pairs([("description", vec![b'a', n])]).unwrap();
        let mut commit = Commit::begin(&mut tx, 1, [n; 12]).unwrap();
        commit.apply(&Change::Put { dn: dn.clone(), uuid: None, attributes }).unwrap();
        commit.finish().unwrap();
        engine.handle(&mut tx, Timestamp::UNIX_EPOCH, Input::LocalCommit { context: 1 }).unwrap();
        tx.commit();

        let now = record(&store);
        let remembered = now.position.usn - now.log_floor;
        assert!(remembered <= KEPT + KEPT / 8, "{remembered} commits at {}", now.position.usn);
        assert!(remembered >= KEPT.min(now.position.usn - 1), "{remembered} commits at {}", now.position.usn);
    }
    for table in [Table::Log, Table::Provenance] {
        let mut rows = 0;
        store
            .scan(table, &[], &[0xff; 20], &mut |_, _| {
                rows += 1;
                true
            })
            .unwrap();
        assert!(rows <= 3 * KEPT, "{rows} rows of {table:?}");
    }
}
