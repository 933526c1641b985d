//! The store on disk when things go wrong: a process killed in the middle of imports, a full disk.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bridgehead::directory::commit::ChangeError;
use bridgehead::directory::context::{context, create_context};
use bridgehead::directory::digest;
use bridgehead::directory::import::{ImportError, import};
use bridgehead::directory::lookup::digest_from_entries;
use bridgehead::directory::sqlite::SqliteStore;
use bridgehead::directory::{ContextRecord, Dn, StoreError};
use uuid::Uuid;

const ENTRIES_A_COMMIT: u64 = 400;
const STORE: &str = "BRIDGEHEAD_TEST_STORE";

fn dn() -> Dn {
    Dn::parse("ou=alpha,o=Org").unwrap()
}

/// Imports one file of new entries; the USN reached.
fn commit_once(store: &mut SqliteStore) -> Result<u64, StoreError> {
    let mut tx = store.begin()?;
    let record = match context(&tx, &dn())? {
        Some(record) => record,
        None => create_context(&mut tx, &dn(), "alpha", Uuid::from_u128(1)).expect("room for one"),
    };
    let mut text = String::new();
    for i in 0..ENTRIES_A_COMMIT {
        let usn = record.position.usn;
        let _ = write!(
            text,
            "dn: cn=p{i} of {usn},{}\ncn: p{i} of {usn}\ndescription: {}\n\n",
            dn(),
            "x".repeat(500)
        );
    }
    let mut batch = [7; 12];
    batch[..8].copy_from_slice(&record.position.usn.to_be_bytes());
    match import(&mut tx, record.number, batch, text.as_bytes(), &|_| true, &mut |_| {}) {
        Ok(_) => {}
        Err(ImportError::Failed(ChangeError::Store(error))) => return Err(error),
        Err(error) => panic!("{error}"),
    }
    tx.commit()?;
    Ok(record.position.usn + 1)
}

/// Every index agrees with the entries, and the entries are those of whole commits.
fn check_sound(store: &SqliteStore) -> ContextRecord {
    assert_eq!(store.damages().unwrap(), Vec::<String>::new());
    let record = context(store, &dn()).unwrap().unwrap();
    let root = digest::root(store, record.number).unwrap();
    assert_eq!(digest_from_entries(store, record.number).unwrap(), root);
    assert_eq!((root.digest, root.entries), (record.digest, record.entries));
    assert_eq!(record.entries, 1 + record.position.usn * ENTRIES_A_COMMIT, "all of a commit or nothing");
    record
}

/// This very test binary, as a process that imports until it is stopped.
fn importer(store: &Path, limit: Option<&str>) -> Child {
    let binary = std::env::current_exe().unwrap();
    let mut command = match limit {
        None => Command::new(binary),
        Some(limit) => {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("{limit}; exec \"$0\" \"$@\"")).arg(binary);
            shell
        }
    };
    command.args([
        "--exact",
        "directory::imports_until_stopped",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    command.env(STORE, store).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
#[ignore = "the child process of the tests below"]
fn imports_until_stopped() {
    let Ok(path) = std::env::var(STORE) else { return };
    let end = SqliteStore::open(Path::new(&path)).and_then(|mut store| {
        loop {
            println!("\ncommitted {}", commit_once(&mut store)?);
        }
    });
    match end {
        Err::<(), _>(StoreError::Full(_)) => println!("\nfull"),
        other => println!("\n{other:?}"),
    }
}

#[test]
fn a_process_killed_in_the_middle_of_an_import_leaves_all_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..8 {
        let mut child = importer(directory.path(), None);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let number = |line: &String| line.strip_prefix("committed ").map(|usn| usn.parse::<u64>().unwrap());
        acknowledged = lines.find_map(|line| number(&line)).expect("a first commit");
        std::thread::sleep(Duration::from_millis(round * 53 % 160));
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged = lines.filter_map(|line| number(&line)).last().unwrap_or(acknowledged);

        let store = SqliteStore::open(directory.path()).unwrap();
        let record = check_sound(&store);
        let usn = record.position.usn;
        assert!(usn == acknowledged || usn == acknowledged + 1, "{acknowledged} acknowledged, {usn} there");
        assert!(!store.is_restored());
    }
    assert!(acknowledged >= 8);
}

#[test]
fn a_full_disk_is_told_and_leaves_the_store_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("disk");
    std::fs::create_dir(&place).unwrap();
    // A small disk where we may make one, else files that cannot grow.
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=6m", "bridgehead-test"]).arg(&place).output();
    let disk = mount.is_ok_and(|done| done.status.success()).then(|| Mounted(place.clone()));
    let limit = if disk.is_some() { None } else { Some("trap '' XFSZ; ulimit -f 8000") };

    let output = importer(&place, limit).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.lines().any(|line| line == "full"), "{text}");
    let acknowledged = text.lines().filter_map(|line| line.strip_prefix("committed ")).next_back();
    let acknowledged: u64 = acknowledged.expect("a first commit").parse().unwrap();

    if disk.is_some() {
        let grown = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&place).status().unwrap();
        assert!(grown.success());
    }
    let mut store = SqliteStore::open(&place).unwrap();
    assert_eq!(check_sound(&store).position.usn, acknowledged);
    assert_eq!(commit_once(&mut store).unwrap(), acknowledged + 1, "goes on once there is room");
    check_sound(&store);
}

/// Unmounted at the end, also of a test that fails.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
