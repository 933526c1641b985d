//! What transfers cost, in octets and in time, between two stores on disk: `cargo bench --bench transfer [--
//! PEOPLE [DIRECTORY]]`.
//!
//! A full load, a thousand changes of one attribute, a thousand mixed changes, one change alone, one member more in the
//! largest group. Times are from the state of one store to the state of the other on disk, parts and all but mail;
//! processor time counts all threads. Octets are those of the body, before base64 (times 1.37).

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::Path;
use std::time::Instant;

use bridgehead::directory::commit::Commit;
use bridgehead::directory::context::{ContextRecord, context_by_number, create_context};
use bridgehead::directory::import::import;
use bridgehead::directory::ldif::Reader;
use bridgehead::directory::sqlite::SqliteStore;
use bridgehead::directory::{Change, Dn, Modification, Operation, lookup};
use bridgehead::replication::checkpoint::{Checkpoint, SignedCheckpoint};
use bridgehead::replication::parts::{self, Assembly};
use bridgehead::replication::transfer::{apply, encode};
use bridgehead::sample::{Changes, Directory};
use ed25519_dalek::SigningKey;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let people = arguments.first().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let place = arguments.get(1).map_or_else(std::env::temp_dir, Into::into);
    let place = tempfile::tempdir_in(place)?;
    let context = Dn::parse("ou=bench,o=Example")?;
    let sample = Directory { people, seed: 1, photos: 0.0 };
    let mut master = Site::new(&place.path().join("master"), &context)?;
    let mut replica = Site::new(&place.path().join("replica"), &context)?;

    let file = place.path().join("people.ldif");
    sample.write_ldif(&context, BufWriter::new(File::create(&file)?))?;
    let mut tx = master.store.begin()?;
    import(&mut tx, master.number, [7; 12], BufReader::new(File::open(file)?), &|_| true, &mut |_| {})?;
    tx.commit()?;
    let entries = master.context()?.entries;
    println!("peak memory {} MiB after the import", memory_peak_mib());
    carry("full load", &mut master, &mut replica, entries)?;
    println!("peak memory {} MiB after the full load", memory_peak_mib());

    for (what, mixed) in [("changes of one attribute", false), ("mixed changes", true)] {
        let mut ldif = Vec::new();
        sample.write_changes(&context, Changes { count: 1000, mixed, base: 0 }, &mut ldif)?;
        let changes = Reader::new(&ldif[..]).map(|read| read.map(|(_, change)| change));
        let count = master.commit(&changes.collect::<Result<Vec<_>, _>>()?)?;
        carry(what, &mut master, &mut replica, count)?;
    }
    let (person, group) = master.somebody_and_the_largest_group()?;
    for (what, dn, attribute, value) in [
        ("one change", &person, "telephoneNumber", "+1 555 0100".to_owned()),
        ("one member that is an entry", &group, "member", person.to_string()),
        ("one member that is none", &group, "member", "uid=nobody,o=Elsewhere".to_owned()),
    ] {
        for operation in [Operation::Delete, Operation::Add] {
            let values = vec![value.clone().into_bytes()];
            let modification = Modification { operation, attribute: attribute.into(), values };
            let change = Change::Modify { dn: dn.clone(), modifications: vec![modification] };
            if master.commit(&[change])? == 1 {
                carry(what, &mut master, &mut replica, 1)?;
            }
        }
    }
    println!("peak memory {} MiB in all", memory_peak_mib());
    Ok(())
}

struct Site {
    store: SqliteStore,
    number: u32,
}

impl Site {
    fn new(directory: &Path, context: &Dn) -> Outcome<Site> {
        std::fs::create_dir(directory)?;
        let mut store = SqliteStore::open(directory)?;
        let mut tx = store.begin()?;
        let number = create_context(&mut tx, context, "bench", uuid::Uuid::from_u128(1))?.number;
        tx.commit()?;
        Ok(Site { store, number })
    }

    fn context(&mut self) -> Outcome<ContextRecord> {
        let tx = self.store.begin()?;
        Ok(context_by_number(&tx, self.number)?.ok_or("no context")?)
    }

    /// Commits what can be, as one commit; says how many of the changes that is.
    fn commit(&mut self, changes: &[Change]) -> Outcome<u64> {
        let mut refused = std::collections::HashSet::new();
        loop {
            let mut tx = self.store.begin()?;
            let mut commit = Commit::begin(&mut tx, self.number, rand_batch())?;
            let wanted = changes.iter().enumerate().filter(|(at, _)| !refused.contains(at));
            let failed = wanted.clone().find(|(_, change)| commit.apply(change).is_err());
            let count = wanted.count() as u64;
            match failed {
                Some((at, _)) => refused.insert(at),
                None => {
                    commit.finish()?;
                    tx.commit()?;
                    return Ok(count);
                }
            };
        }
    }

    fn somebody_and_the_largest_group(&mut self) -> Outcome<(Dn, Dn)> {
        let context = self.context()?;
        let tx = self.store.begin()?;
        let (mut person, mut group, mut members) = (None, None, 0);
        lookup::scan_entries(&tx, self.number, &mut |entry| {
            let count = entry.attributes.values("member").len();
            if count > members {
                (group, members) = (Some(entry.uuid), count);
            }
            let is_person = !entry.attributes.values("telephoneNumber").is_empty();
            person = person.or(is_person.then_some(entry.uuid));
            true
        })?;
        let name = |uuid: Option<uuid::Uuid>| -> Outcome<Dn> {
            Ok(lookup::dn_of(&tx, &context, uuid.ok_or("no such entry")?)?.ok_or("no name")?)
        };
        println!("the largest group has {members} members");
        Ok((name(person)?, name(group)?))
    }
}

/// Carries the master's state to the replica, in parts.
fn carry(what: &str, master: &mut Site, replica: &mut Site, count: u64) -> Outcome<()> {
    let (now, before) = (master.context()?, replica.context()?);
    let start = (Instant::now(), processor_s());
    let transfer = {
        let tx = master.store.begin()?;
        let base = (before.entries > 0).then_some(before.position);
        encode(&tx, &now, base, &checkpoint(&now))?.ok_or("the log does not reach back")?
    };
    let encoded = (start.0.elapsed().as_secs_f64(), processor_s() - start.1);
    let cut = parts::cut(&transfer.manifest, &transfer.body, 1 << 20)?;
    let id = cut[0].transfer;
    let mut tx = replica.store.begin()?;
    for part in cut {
        Assembly::store(&mut tx, "bench", &part)?;
    }
    tx.commit()?;
    let mut tx = replica.store.begin()?;
    let assembly = Assembly::load(&tx, "bench", id)?.ok_or("parts are gone")?;
    let (manifest, mut body) = assembly.open(&tx)?;
    let proved = manifest.checkpoint.verify(&key().verifying_key())?;
    apply(&mut tx, &before, &manifest, &proved, &mut body)?;
    assembly.drop_all(&mut tx)?;
    tx.commit()?;
    let all = (start.0.elapsed().as_secs_f64(), processor_s() - start.1);
    let octets = transfer.body.len();
    println!("{what}: {count}, {octets} octets, {:.2} each", octets as f64 / count as f64);
    println!(
        "    encoded in {:.3} s ({:.2} s of processor), all in {:.3} s ({:.2} s), {:.0}/s",
        encoded.0,
        encoded.1,
        all.0,
        all.1,
        count as f64 / all.0
    );
    std::io::stdout().flush()?;
    Ok(())
}

fn checkpoint(now: &ContextRecord) -> SignedCheckpoint {
    Checkpoint::of(now, jiff::Timestamp::now()).sign(&key())
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn rand_batch() -> [u8; 12] {
    let mut batch = [0; 12];
    getrandom::fill(&mut batch).expect("the system has random octets");
    batch
}

/// Processor time of this process, in ticks of a hundredth of a second (proc(5)).
fn processor_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn memory_peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
