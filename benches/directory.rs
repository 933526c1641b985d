//! Times the directory on disk: `cargo bench --bench directory [-- PEOPLE [DIRECTORY]]`.
//!
//! Every line that commits ends with the transaction on disk (WAL, synchronous=FULL). Peak memory is that of the whole
//! process so far, the generator's included; processor time counts all threads.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::Path;
use std::time::Instant;

use bridgehead::directory::change::{Change, Modification, Operation};
use bridgehead::directory::commit::Commit;
use bridgehead::directory::context::{contexts, create_context};
use bridgehead::directory::digest::Summary;
use bridgehead::directory::export::{Options, export};
use bridgehead::directory::import::import;
use bridgehead::directory::replica::Replay;
use bridgehead::directory::sqlite::{SqliteReader, SqliteStore};
use bridgehead::directory::{Dn, lookup};
use bridgehead::sample::{Changes, Directory};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let people = arguments.first().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let place = arguments.get(1).map_or_else(std::env::temp_dir, Into::into);
    let place = tempfile::tempdir_in(place).expect("a directory to work in");
    let context = Dn::parse("ou=bench,o=Example").expect("a name");
    let sample = Directory { people, seed: 1, photos: 0.0 };

    let file = place.path().join("people.ldif");
    let entries = timed("generate LDIF", None, || {
        sample.write_ldif(&context, BufWriter::new(File::create(&file).unwrap())).unwrap()
    });
    let changes = place.path().join("changes.ldif");
    let wanted = Changes { count: 1000, mixed: false, base: 0 };
    sample.write_changes(&context, wanted, BufWriter::new(File::create(&changes).unwrap())).unwrap();
    println!("{entries} entries, {} MB of LDIF", file.metadata().unwrap().len() / 1_000_000);

    let (master, replica) = (place.path().join("master"), place.path().join("replica"));
    let mut store = open(&master, &context);
    timed("import, durable", Some(entries), || load(&mut store, &file, 1));
    timed("the same file again: nothing changes", Some(entries), || load(&mut store, &file, 2));
    timed("1,000 changed attributes, one commit", Some(1000), || load(&mut store, &changes, 3));
    timed("read all entries", Some(entries), || {
        let mut count = 0;
        lookup::scan_entries(&store, 1, &mut |_| {
            count += 1;
            true
        })
        .unwrap();
        count
    });
    timed("digest from scratch", Some(entries), || lookup::digest_from_entries(&store, 1).unwrap());
    let members = timed("one member more, 20 commits", Some(20), || grow(&mut store, &context));
    println!("    in a group of {members}");
    timed("replay into a replica, durable", Some(entries), || replay(&master, &replica, &context));
    timed("export", Some(entries), || {
        let record = contexts(&store).unwrap().remove(0);
        let mut out = BufWriter::new(File::create(place.path().join("out.ldif")).unwrap());
        export(&store, std::slice::from_ref(&record), &mut out, Options { entry_uuids: true }, &mut |_| {})
            .unwrap();
        out.flush().unwrap();
    });
    println!("{} MB of database", std::fs::metadata(master.join("directory.db")).unwrap().len() / 1_000_000);
}

fn open(directory: &Path, context: &Dn) -> SqliteStore {
    std::fs::create_dir_all(directory).unwrap();
    let mut store = SqliteStore::open(directory).unwrap();
    let mut tx = store.begin().unwrap();
    create_context(&mut tx, context, "bench", Uuid::from_u128(1)).unwrap();
    tx.commit().unwrap();
    store
}

fn load(store: &mut SqliteStore, file: &Path, batch: u8) {
    let input = BufReader::with_capacity(1 << 18, File::open(file).unwrap());
    let mut tx = store.begin().unwrap();
    import(&mut tx, 1, [batch; 12], input, &|_| true, &mut |_| {}).unwrap();
    tx.commit().unwrap();
}

fn grow(store: &mut SqliteStore, context: &Dn) -> usize {
    let dn = Dn::parse(&format!("cn=all-staff,ou=Groups,ou={},{context}", site(store, context))).unwrap();
    for i in 0..20u8 {
        let values = vec![format!("uid=more{i},{context}").into_bytes()];
        let add = Modification { operation: Operation::Add, attribute: "member".into(), values };
        let mut tx = store.begin().unwrap();
        let mut commit = Commit::begin(&mut tx, 1, [100 + i; 12]).unwrap();
        commit.apply(&Change::Modify { dn: dn.clone(), modifications: vec![add] }).unwrap();
        commit.finish().unwrap().unwrap();
        tx.commit().unwrap();
    }
    let record = contexts(store).unwrap().remove(0);
    lookup::entry_at(store, &record, &dn).unwrap().unwrap().attributes.values("member").len()
}

/// Where the largest group is.
fn site(store: &SqliteStore, context: &Dn) -> String {
    let record = contexts(store).unwrap().remove(0);
    let sites = ["Paris", "Berlin", "Krakow", "Lisboa", "Osaka", "Austin", "Nairobi", "Sao Paulo"];
    let has = |site: &&&str| {
        let dn = Dn::parse(&format!("cn=all-staff,ou=Groups,ou={site},{context}")).unwrap();
        lookup::find(store, &record, &dn).unwrap().is_some()
    };
    sites.iter().find(has).unwrap().to_string()
}

fn replay(master: &Path, replica: &Path, context: &Dn) {
    let mut reader = SqliteReader::open(master).unwrap();
    let source = reader.snapshot().unwrap();
    let reached = contexts(&source).unwrap().remove(0);
    let mut store = open(replica, context);
    let mut tx = store.begin().unwrap();
    let before = contexts(&tx).unwrap().remove(0);
    let mut replay = Replay::begin(&mut tx, &before);
    lookup::scan_entries(&source, 1, &mut |entry| replay.add(&entry).is_ok()).unwrap();
    replay.finish(reached.position, Summary { entries: reached.entries, digest: reached.digest }).unwrap();
    tx.commit().unwrap();
}

fn timed<R>(what: &str, count: Option<u64>, work: impl FnOnce() -> R) -> R {
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    let result = work();
    let (seconds, cpu) = (begin.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let rate = count.map_or(String::new(), |count| format!("{:9.0}/s", count as f64 / seconds));
    println!("{what:40} {seconds:8.2} s {rate:>12} {cpu:8.2} s cpu   peak {:5} MiB", peak_mib());
    result
}

/// Of this process, all threads, from the kernel's count of 1/100 s.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
