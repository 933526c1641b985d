//! The body of a transfer from a genuine but hostile master: whatever it says, nothing of it stays unless all of it can be,
//! and what stays is sound and can be passed on.
//!
//! Input: flags, counts that the manifest claims (added, changed, deleted), entries of the checkpoint, then the chunks of
//! the body, expanded. The replica is what the vector `full` leads to. Where nothing but number or digest of the entries is
//! wrong, the master signs those, as a hostile one would.
#![no_main]

use bridgehead::directory::context::{context_by_number, create_context};
use bridgehead::directory::memory::MemoryStore;
use bridgehead::directory::replica::ReplayError;
use bridgehead::directory::{ContextRecord, Digest, Dn, Position, Read, StoreError, Table, lookup};
use bridgehead::replication::checkpoint::Checkpoint;
use bridgehead::replication::parts::Source;
use bridgehead::replication::transfer::{
    Base, Encoded, Manifest, Run, TransferError, apply, dictionary_of_run, encode, preview,
};
use ed25519_dalek::SigningKey;
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

thread_local! {
    static REPLICA: MemoryStore = replica();
}

/// Bits of the flags: the lowest two say the base.
const REPAIR: u8 = 2;
const FULL: u8 = 3;
const DICTIONARY: u8 = 4;
/// The rest is the frame itself.
const COMPRESSED: u8 = 8;
/// The manifest claims so many entries that a second thread reads them.
const MANY: u8 = 16;
const SMALL_PIECES: u8 = 32;

fuzz_target!(|data: &[u8]| {
    let [flags, added, changed, deleted, entries, octets @ ..] = data else { return };
    REPLICA.with(|replica| {
        let held = record(replica);
        let run = Run { first: 6, entries: 5 };
        let dictionary = (flags & 3 < REPAIR && flags & DICTIONARY != 0).then_some(run);
        let body = match flags & COMPRESSED {
            0 => framed(replica, &held, dictionary, octets),
            _ => octets.to_vec(),
        };
        let position = Position { usn: held.position.usn + 1, ..held.position };
        let mut said = Checkpoint {
            position,
            digest: Digest([7; 32]),
            entries: u64::from(*entries),
            ..Checkpoint::of(&held, "2026-11-22T14:00:00Z".parse().expect("a time"))
        };
        let mut claims = Manifest {
            checkpoint: said.sign(&key()),
            base: match flags & 3 {
                REPAIR => Base::Repair,
                FULL => Base::Nothing,
                _ => Base::At(held.position, held.digest),
            },
            body_bytes: body.len() as u64,
            added: u64::from(*added) + if flags & MANY != 0 { 1 << 20 } else { 0 },
            changed: u64::from(*changed),
            deleted: u64::from(*deleted),
            lineage: Default::default(),
            dictionary,
        };
        let piece = if flags & SMALL_PIECES != 0 { 7 } else { 60_000 };
        for _ in 0..3 {
            claims.checkpoint = said.sign(&key());
            match taken(replica, &claims, &said, &mut Pieces(&body, piece)) {
                Err(TransferError::Mismatch(ReplayError::Count { found, .. })) => said.entries = found,
                Err(TransferError::Mismatch(ReplayError::Digest { found, .. })) => said.digest = found,
                Err(TransferError::Store(error)) => panic!("the master's fault is told as ours: {error}"),
                Err(_) => break,
                Ok(store) => {
                    previewed(replica, &claims, &mut Pieces(&body, piece));
                    return sound(replica, &store, &said, claims.base);
                }
            }
        }
        let _ = preview(replica, &held, &claims, &mut Pieces(&body, piece), &mut |_| ());
    });
});

/// The body as it comes out of parts.
struct Pieces<'b>(&'b [u8], usize);

impl Source for Pieces<'_> {
    fn next(&mut self, _: &dyn Read) -> Result<Option<Vec<u8>>, StoreError> {
        let (piece, rest) = self.0.split_at(self.0.len().min(self.1));
        self.0 = rest;
        Ok((!piece.is_empty()).then(|| piece.to_vec()))
    }
}

/// Applies a transfer to a copy of the replica. What is refused leaves it as it was.
fn taken(
    replica: &MemoryStore,
    manifest: &Manifest,
    said: &Checkpoint,
    source: &mut dyn Source,
) -> Result<MemoryStore, TransferError> {
    let mut store = replica.clone();
    let held = record(replica);
    let mut tx = store.begin();
    let applied = apply(&mut tx, &held, manifest, said, source);
    tx.commit();
    match applied {
        Ok(_) => Ok(store),
        Err(error) => {
            assert_eq!(octets(&store), octets(replica), "something is left of a transfer that was refused");
            Err(error)
        }
    }
}

/// What is applied can be looked at before.
fn previewed(replica: &MemoryStore, manifest: &Manifest, source: &mut dyn Source) {
    preview(replica, &record(replica), manifest, source, &mut |_| ()).expect("what can be applied can be foreseen");
}

/// The replica is where the master said, every entry has its name, and others can be led there, too.
fn sound(replica: &MemoryStore, store: &MemoryStore, said: &Checkpoint, base: Base) {
    let now = record(store);
    assert_eq!((now.position, now.digest, now.entries), (said.position, said.digest, said.entries));
    let counted = lookup::digest_from_entries(store, now.number).expect("memory");
    assert_eq!((counted.digest, counted.entries), (said.digest, said.entries));
    lookup::scan_entries(store, now.number, &mut |entry| {
        let dn = lookup::dn_of(store, &now, entry.uuid).expect("memory").expect("it hangs on the topmost one");
        assert_eq!(lookup::find(store, &now, &dn).expect("memory"), Some(entry.uuid), "{dn}");
        true
    })
    .expect("memory");
    let signed = said.sign(&key());
    let whole = encode(store, &now, None, &signed);
    let whole = whole.expect("what was taken can be sent").expect("a full load needs no log");
    led(&empty(), &whole, said);
    if base != Base::Nothing {
        let onward = encode(store, &now, Some(record(replica).position), &signed);
        led(replica, &onward.expect("what was taken can be sent").expect("the log leads from the base"), said);
    }
}

fn led(from: &MemoryStore, transfer: &Encoded, said: &Checkpoint) {
    taken(from, &transfer.manifest, said, &mut Pieces(&transfer.body, 1000)).expect("our own words");
}

fn framed(replica: &MemoryStore, held: &ContextRecord, run: Option<Run>, chunks: &[u8]) -> Vec<u8> {
    let dictionary = run.and_then(|run| dictionary_of_run(replica, held, run).expect("memory"));
    let compressor = zstd::bulk::Compressor::with_dictionary(1, &dictionary.unwrap_or_default());
    compressor.and_then(|mut compressor| compressor.compress(chunks)).expect("memory")
}

fn octets(store: &MemoryStore) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    for table in [Table::Context, Table::Entry, Table::Name, Table::Log, Table::Digest] {
        let visit = &mut |key: &[u8], value: &[u8]| {
            all.push((key.to_vec(), value.to_vec()));
            true
        };
        store.scan(table, &[], &[0xff; 80], visit).expect("memory");
    }
    all
}

fn replica() -> MemoryStore {
    let manifest = Manifest::from_bytes(include_bytes!("../../../tests/vectors/full.manifest")).expect("a vector");
    let said = manifest.checkpoint.claimed().expect("a vector");
    let body = include_bytes!("../../../tests/vectors/full.body");
    taken(&empty(), &manifest, &said, &mut Pieces(body, 1000)).expect("a vector")
}

fn empty() -> MemoryStore {
    let mut store = MemoryStore::new();
    let mut tx = store.begin();
    let name = Dn::parse("ou=Paris,o=Example").expect("a name");
    create_context(&mut tx, &name, "paris", Uuid::nil()).expect("memory");
    tx.commit();
    store
}

fn record(store: &MemoryStore) -> ContextRecord {
    context_by_number(store, 1).expect("memory").expect("it is there")
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[0x42; 32])
}
