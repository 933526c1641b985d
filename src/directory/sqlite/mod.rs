//! The embedded store: one SQLite file, used by one process at a time, read by any number.
//!
//! PROMISES
//!   What `commit` returned for survives a crash of the process and of the machine (WAL, synchronous=FULL). What was
//!   not committed is gone. A copy of the file, made by `backup` or behind our back, says so when it is opened:
//!   `is_restored`, so that a master takes a new invocation id.
//! LIMITS
//!   A record takes less than 1 GiB.
//! FAILURE
//!   `Locked` names the process that has the store; `Full` leaves it as it was before the transaction; `Damaged`
//!   asks for a backup or a partner.
//! BUGS
//!   The file must not lie on a network file system. A disk that lies about fsync loses commits.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use rustix::fs::{FlockOperation, flock};

use crate::directory::store::{Read, StoreError, Table, Visit, Write};

/// The store, open for writing.
pub struct SqliteStore {
    connection: Connection,
    statements: Statements,
    restored: bool,
    /// Holds the lock for as long as the store is open.
    _lock: File,
}

/// Rolls back when dropped without [`SqliteTransaction::commit`].
pub struct SqliteTransaction<'s> {
    store: &'s mut SqliteStore,
}

/// The store, open for reading, beside whoever writes.
pub struct SqliteReader {
    connection: Connection,
    statements: Statements,
}

/// One consistent view; later commits are not seen in it.
pub struct SqliteSnapshot<'r> {
    reader: &'r SqliteReader,
}

impl SqliteStore {
    /// Opens the store in a directory, and creates it if it is not there.
    pub fn open(directory: &Path) -> Result<SqliteStore, StoreError> {
        let lock = lock(&directory.join(LOCK_FILE))?;
        let path = directory.join(FILE);
        // SQLite gives its other files the mode of this one: people's data is not for everybody.
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| io_failed(&path, &e))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags).map_err(failed)?;
        prepare(&connection)?;
        connection
            .execute_batch(&format!(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = {WAL_BYTES_KEPT};"
            ))
            .map_err(failed)?;
        create_schema(&connection)?;
        let restored = note_identity(&connection, &path)?;
        Ok(SqliteStore { connection, statements: Statements::new(), restored, _lock: lock })
    }

    pub fn begin(&mut self) -> Result<SqliteTransaction<'_>, StoreError> {
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
        Ok(SqliteTransaction { store: self })
    }

    /// Whether this file is a copy of another one: a backup, a clone. True until
    /// [`SqliteStore::settle`]d.
    pub fn is_restored(&self) -> bool {
        self.restored
    }

    /// Notes that what follows from a restore was done: from now on this file is the original.
    pub fn settle(&mut self) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM meta WHERE key = ?1", [RESTORED]).map_err(failed)?;
        self.restored = false;
        Ok(())
    }

    /// Copies the store as it is now into a new file, which is opened as `is_restored`. The copy is there
    /// whole and on disk, or not at all.
    pub fn backup(&self, to: &Path) -> Result<(), StoreError> {
        if to.exists() {
            return Err(StoreError::Failed(format!("{} exists already", to.display())));
        }
        let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let draft = tempfile::Builder::new()
            .prefix(".backup")
            .tempfile_in(directory)
            .map_err(|e| io_failed(directory, &e))?;
        {
            let mut copy = Connection::open(draft.path()).map_err(failed)?;
            let backup = rusqlite::backup::Backup::new(&self.connection, &mut copy).map_err(failed)?;
            backup.run_to_completion(1024, Duration::ZERO, None).map_err(failed)?;
            drop(backup);
            copy.execute_batch("PRAGMA journal_mode = DELETE").map_err(failed)?;
            copy.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, x'01')", [RESTORED])
                .map_err(failed)?;
        }
        draft.as_file().sync_all().map_err(|e| io_failed(to, &e))?;
        draft.persist_noclobber(to).map_err(|e| io_failed(to, &e.error))?;
        File::open(directory).and_then(|d| d.sync_all()).map_err(|e| io_failed(directory, &e))
    }

    /// Reads every page; what is wrong with the file, in SQLite's words.
    pub fn damages(&self) -> Result<Vec<String>, StoreError> {
        let mut statement = self.connection.prepare("PRAGMA quick_check").map_err(failed)?;
        let lines = statement.query_map([], |row| row.get::<_, String>(0)).map_err(failed)?;
        let lines = lines.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }
}

impl SqliteTransaction<'_> {
    pub fn commit(self) -> Result<(), StoreError> {
        self.store.connection.execute_batch("COMMIT").map_err(failed)
        // On failure SQLite may keep the transaction open; dropping `self` ends it.
    }

    fn statement(&self, verb: Verb, table: Table) -> Result<CachedStatement<'_>, StoreError> {
        self.store.statements.prepare(&self.store.connection, verb, table)
    }
}

impl Drop for SqliteTransaction<'_> {
    fn drop(&mut self) {
        // SQLite itself rolls back after some errors, such as a full disk.
        if !self.store.connection.is_autocommit() {
            let _ = self.store.connection.execute_batch("ROLLBACK");
        }
    }
}

impl SqliteReader {
    /// Opens the store in a directory, where it must be.
    pub fn open(directory: &Path) -> Result<SqliteReader, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(directory.join(FILE), flags).map_err(failed)?;
        prepare(&connection)?;
        match schema_version(&connection)? {
            SCHEMA => Ok(SqliteReader { connection, statements: Statements::new() }),
            other => Err(other_schema(other)),
        }
    }

    pub fn snapshot(&mut self) -> Result<SqliteSnapshot<'_>, StoreError> {
        // The view is fixed by the first read.
        self.connection
            .execute_batch("BEGIN; SELECT count(*) FROM (SELECT 1 FROM meta LIMIT 1)")
            .map_err(failed)?;
        Ok(SqliteSnapshot { reader: self })
    }
}

impl Drop for SqliteSnapshot<'_> {
    fn drop(&mut self) {
        let _ = self.reader.connection.execute_batch("ROLLBACK");
    }
}

/// What [`Read`] needs, for whoever has a connection.
trait Connected {
    fn connected(&self) -> (&Connection, &Statements);
}

impl Connected for SqliteTransaction<'_> {
    fn connected(&self) -> (&Connection, &Statements) {
        (&self.store.connection, &self.store.statements)
    }
}

impl Connected for SqliteSnapshot<'_> {
    fn connected(&self) -> (&Connection, &Statements) {
        (&self.reader.connection, &self.reader.statements)
    }
}

impl Connected for SqliteStore {
    fn connected(&self) -> (&Connection, &Statements) {
        (&self.connection, &self.statements)
    }
}

impl<C: Connected> Read for C {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let (connection, statements) = self.connected();
        let mut statement = statements.prepare(connection, Verb::Get, table)?;
        statement.query_row([key], |row| row.get(0)).optional().map_err(failed)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], visit: &mut Visit) -> Result<(), StoreError> {
        scan(self.connected(), Verb::Scan, table, from, to, visit)
    }

    fn scan_back(&self, table: Table, from: &[u8], to: &[u8], visit: &mut Visit) -> Result<(), StoreError> {
        scan(self.connected(), Verb::ScanBack, table, from, to, visit)
    }
}

impl Write for SqliteTransaction<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.statement(Verb::Put, table)?.execute(params![key, value]).map_err(failed)?;
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.statement(Verb::Delete, table)?.execute([key]).map_err(failed)?;
        Ok(())
    }

    fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.statement(Verb::DeleteRange, table)?.execute([from, to]).map_err(failed)?;
        Ok(())
    }

    fn savepoint(&mut self) -> Result<(), StoreError> {
        self.store.connection.execute_batch("SAVEPOINT nested").map_err(failed)
    }

    fn end_savepoint(&mut self, keep: bool) -> Result<(), StoreError> {
        let end = if keep { "RELEASE nested" } else { "ROLLBACK TO nested; RELEASE nested" };
        self.store.connection.execute_batch(end).map_err(failed)
    }

    fn as_read(&self) -> &dyn Read {
        self
    }
}

fn scan(
    (connection, statements): (&Connection, &Statements),
    verb: Verb,
    table: Table,
    from: &[u8],
    to: &[u8],
    visit: &mut Visit,
) -> Result<(), StoreError> {
    let mut statement = statements.prepare(connection, verb, table)?;
    let mut rows = statement.query([from, to]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let blob = |column| row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from);
        if !visit(blob(0).map_err(failed)?, blob(1).map_err(failed)?) {
            break;
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Verb {
    Get,
    Put,
    Delete,
    DeleteRange,
    Scan,
    ScanBack,
}

/// The text of each statement, made once; SQLite keeps the compiled ones by their text.
struct Statements(Vec<String>);

impl Statements {
    const VERBS: [&str; 6] = [
        "SELECT value FROM $ WHERE key = ?1",
        "INSERT INTO $ (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
        "DELETE FROM $ WHERE key = ?1",
        "DELETE FROM $ WHERE key >= ?1 AND key < ?2",
        "SELECT key, value FROM $ WHERE key >= ?1 AND key < ?2 ORDER BY key",
        "SELECT key, value FROM $ WHERE key >= ?1 AND key < ?2 ORDER BY key DESC",
    ];

    fn new() -> Statements {
        let of = |table: &Table| Self::VERBS.map(|text| text.replace('$', name(*table)));
        Statements(Table::ALL.iter().flat_map(of).collect())
    }

    fn prepare<'c>(
        &self,
        connection: &'c Connection,
        verb: Verb,
        table: Table,
    ) -> Result<CachedStatement<'c>, StoreError> {
        let text = &self.0[table as usize * Self::VERBS.len() + verb as usize];
        connection.prepare_cached(text).map_err(failed)
    }
}

pub const FILE: &str = "directory.db";
const LOCK_FILE: &str = "lock";
/// The layout of the tables.
const SCHEMA: i64 = 1;
/// "BRHD": what `file` and other tools know the file by.
const APPLICATION: i64 = 0x4252_4844;
/// The write-ahead log shrinks to this after it was longer.
const WAL_BYTES_KEPT: u64 = 16 << 20;
const CACHE_KIB: u64 = 64 << 10;
/// Records in the table `meta` that are the file's own affair.
const RESTORED: &[u8] = b"sqlite restored";
const IDENTITY: &[u8] = b"sqlite identity";

const NO_ROOM: [i32; 2] = [rusqlite::ffi::SQLITE_IOERR_WRITE, rusqlite::ffi::SQLITE_IOERR_SHMSIZE];

fn name(table: Table) -> &'static str {
    match table {
        Table::Meta => "meta",
        Table::Context => "context",
        Table::Entry => "entry",
        Table::Name => "name",
        Table::Log => "log",
        Table::Digest => "digest",
        Table::Checkpoint => "checkpoint",
        Table::Peer => "peer",
        Table::Outbox => "outbox",
        Table::Inbox => "inbox",
        Table::Hold => "hold",
        Table::Quarantine => "quarantine",
        Table::Provenance => "provenance",
    }
}

fn prepare(connection: &Connection) -> Result<(), StoreError> {
    connection.set_prepared_statement_cache_capacity(Statements::VERBS.len() * Table::ALL.len() + 8);
    connection.busy_timeout(Duration::from_secs(10)).map_err(failed)?;
    connection
        .execute_batch(&format!(
            "PRAGMA cache_size = -{CACHE_KIB}; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;"
        ))
        .map_err(failed)
}

fn schema_version(connection: &Connection) -> Result<i64, StoreError> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)
}

fn other_schema(found: i64) -> StoreError {
    StoreError::Failed(format!("the file has layout {found}, this program knows {SCHEMA}"))
}

fn create_schema(connection: &Connection) -> Result<(), StoreError> {
    match schema_version(connection)? {
        SCHEMA => return Ok(()),
        0 => {}
        other => return Err(other_schema(other)),
    }
    let mut script = format!("BEGIN; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA};");
    for table in Table::ALL {
        let name = name(table);
        script += &format!("CREATE TABLE {name} (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;");
    }
    script += "COMMIT;";
    connection.execute_batch(&script).map_err(failed)
}

/// Notes which file this is; whether it is another than the one noted before, or a backup.
fn note_identity(connection: &Connection, path: &Path) -> Result<bool, StoreError> {
    let metadata = fs::metadata(path).map_err(|e| io_failed(path, &e))?;
    let born = metadata.created().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let identity = format!("{} {}", metadata.ino(), born.unwrap_or_default().as_nanos()).into_bytes();
    let value = |key: &[u8]| -> Result<Option<Vec<u8>>, StoreError> {
        let found = connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0));
        found.optional().map_err(failed)
    };
    let restored = value(RESTORED)?.is_some();
    let noted = value(IDENTITY)?;
    if noted.as_ref() == Some(&identity) {
        return Ok(restored);
    }
    let copied = restored || noted.is_some();
    let put = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)";
    connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    connection.execute(put, params![IDENTITY, identity]).map_err(failed)?;
    if copied {
        connection.execute(put, params![RESTORED, [1u8]]).map_err(failed)?;
    }
    connection.execute_batch("COMMIT").map_err(failed)?;
    Ok(copied)
}

/// Takes the lock file, with our process id in it for whoever meets it.
fn lock(path: &PathBuf) -> Result<File, StoreError> {
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| io_failed(path, &e))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = file.take(20).read_to_string(&mut pid);
            return Err(StoreError::Locked(format!("process {}", pid.trim())));
        }
        Err(error) => return Err(io_failed(path, &error.into())),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(|e| io_failed(path, &e))?;
    Ok(file)
}

fn io_failed(path: &Path, error: &io::Error) -> StoreError {
    let text = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full(text),
        _ => StoreError::Failed(text),
    }
}

fn failed(error: rusqlite::Error) -> StoreError {
    let text = error.to_string();
    match &error {
        rusqlite::Error::SqliteFailure(code, _) => match code.code {
            ErrorCode::DiskFull => StoreError::Full(text),
            // A quota and a limit on the size of files come as failed writes.
            ErrorCode::SystemIoFailure if NO_ROOM.contains(&code.extended_code) => StoreError::Full(text),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Locked(text),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Damaged(text),
            _ => StoreError::Failed(text),
        },
        rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::FromSqlConversionFailure(..) => {
            StoreError::Damaged(text)
        }
        _ => StoreError::Failed(text),
    }
}

#[cfg(test)]
mod tests;
