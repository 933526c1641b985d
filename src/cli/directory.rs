//! `bridgehead import`, `bridgehead export`, `bridgehead entry`: the directory itself.
//!
//! What only reads opens the store for itself; what writes asks the daemon, or, when none runs, takes the store.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::Path;

use jiff::Timestamp;

use super::failure::{DATA, Failure, IO, OK, OrFail, TRY_AGAIN, UNAVAILABLE};
use super::site;
use crate::config::Config;
use crate::control::operation::Operation;
use crate::control::progress::Progress;
use crate::control::{import, server};
use crate::daemon::engine_config;
use crate::directory::Read as ReadStore;
use crate::directory::attributes::{Attributes, same_name};
use crate::directory::change::{self, Change, Modification};
use crate::directory::context::{self, ContextRecord};
use crate::directory::dn::Dn;
use crate::directory::export::{self, ExportError, Options};
use crate::directory::ldif::Writer;
use crate::directory::sqlite::{FILE, SqliteReader, SqliteStore};
use crate::directory::{StoreError, filter, lookup};
use crate::replication::engine::{Engine, Input};

pub fn import(file: &Path, config_file: &Path) -> Result<u8, Failure> {
    let config = site::load(config_file)?;
    let name = file.display().to_string();
    if file == Path::new("-") {
        return import_from(&config, Some("standard input"), &mut io::stdin().lock());
    }
    let mut input = File::open(file).or_fail(DATA, || name.clone())?;
    import_from(&config, Some(&name), &mut input)
}

/// Has the running daemon import the input, or does it here when none runs.
fn import_from(config: &Config, file: Option<&str>, input: &mut dyn Read) -> Result<u8, Failure> {
    // A change from a command line is done at once.
    let progress = file.is_some() && io::stderr().is_terminal();
    if let Some(daemon) = site::daemon(config)? {
        let operation = Operation::Import { file: file.map(str::to_owned), progress };
        let mut input = Watched { input, failed: None };
        let answer = daemon.ask(&operation, Some(&mut input), &mut io::stdout(), &mut io::stderr());
        if let Some(error) = input.failed {
            return Err(Failure::new(
                IO,
                format!("{}: {error}; nothing was imported", file.unwrap_or("the change")),
            ));
        }
        return answer.or_fail(IO, || "the daemon went away; whether it imported is not known".to_owned());
    }
    let mut engine = Engine::new(engine_config(config, &site::read_key(config)?));
    let mut store = open_store(config)?;
    let aside =
        import::set_aside(input, &config.site).or_fail(IO, || config.site.data.display().to_string())?;
    let refused =
        |error: &import::Failure| Failure::new(server::status_of(error), server::refusal(file, error));
    let failed = |error: StoreError| Failure::new(TRY_AGAIN, error);
    let mut tx = store.begin().map_err(failed)?;
    let mut stderr = io::stderr();
    let mut bar = Progress::new(&mut stderr, progress);
    let imported = import::import(&mut tx, &config.site, aside, &mut |records| bar.records(records));
    bar.clear();
    let changed = imported.map_err(|error| refused(&error))?;
    // What the engine does at a commit, a new invocation id among it, belongs into the commit's transaction.
    for context in changed.contexts {
        engine.handle(&mut tx, Timestamp::now(), Input::LocalCommit { context }).map_err(failed)?;
    }
    tx.commit().map_err(failed)?;
    if file.is_some() {
        println!("{}", server::report(changed.answer));
    }
    Ok(OK)
}

/// Input that remembers whether it could be read: the daemon takes none of it that does not come to its end.
struct Watched<'i> {
    input: &'i mut dyn Read,
    failed: Option<String>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.failed = Some(error.to_string());
            }
        })
    }
}

pub(super) fn open_store(config: &Config) -> Result<SqliteStore, Failure> {
    SqliteStore::open(&config.site.data).map_err(|error| Failure::new(TRY_AGAIN, error))
}

/// Whether there is a store yet.
pub(super) fn is_begun(config: &Config) -> bool {
    config.site.data.join(FILE).exists()
}

/// Gives `look` one consistent view of the store.
pub(super) fn view<T>(
    config: &Config,
    look: impl FnOnce(&dyn ReadStore) -> Result<T, Failure>,
) -> Result<T, Failure> {
    if !is_begun(config) {
        let message = format!(
            "nothing is stored in {} yet: `bridgehead run` or the first `bridgehead import` begins",
            config.site.data.display()
        );
        return Err(Failure::new(UNAVAILABLE, message));
    }
    let mut reader = SqliteReader::open(&config.site.data).or_fail(TRY_AGAIN, || "the store".to_owned())?;
    let snapshot = reader.snapshot().or_fail(TRY_AGAIN, || "the store".to_owned())?;
    look(&snapshot)
}

pub(super) fn parse_dn(text: &str) -> Result<Dn, Failure> {
    Dn::parse(text).or_fail(DATA, || format!("\"{text}\" is not a DN"))
}

pub fn export(context: Option<&str>, options: Options, config_file: &Path) -> Result<u8, Failure> {
    let config = site::load(config_file)?;
    let wanted = context.map(parse_dn).transpose()?;
    view(&config, |read| {
        let contexts = match wanted {
            None => context::contexts(read).or_fail(TRY_AGAIN, || "the store".to_owned())?,
            Some(dn) => vec![one_context(read, &dn)?],
        };
        let mut out = BufWriter::with_capacity(256 << 10, io::stdout().lock());
        let (mut stderr, of) = (io::stderr(), contexts.iter().map(|record| record.entries).sum());
        // Lines of a bar among the entries help nobody.
        let shown = io::stderr().is_terminal() && !io::stdout().is_terminal();
        let mut bar = Progress::new(&mut stderr, shown);
        let written =
            export::export(read, &contexts, &mut out, options, &mut |entries| bar.entries(entries, of));
        bar.clear();
        written.or_fail(IO, || "the export".to_owned())?;
        out.flush().or_fail(IO, || "standard output".to_owned())?;
        Ok(OK)
    })
}

fn one_context(read: &dyn ReadStore, dn: &Dn) -> Result<ContextRecord, Failure> {
    let record = context::context(read, dn).or_fail(TRY_AGAIN, || "the store".to_owned())?;
    record.ok_or_else(|| Failure::new(UNAVAILABLE, format!("no naming context {dn} is held here")))
}

pub fn show(dn: &str, config_file: &Path) -> Result<u8, Failure> {
    let config = site::load(config_file)?;
    let dn = parse_dn(dn)?;
    view(&config, |read| {
        let store = || "the store".to_owned();
        let missing = || Failure::new(UNAVAILABLE, format!("there is no entry {dn}"));
        let record = context::context_of(read, &dn).or_fail(TRY_AGAIN, store)?.ok_or_else(missing)?;
        let entry = lookup::entry_at(read, &record, &dn).or_fail(TRY_AGAIN, store)?.ok_or_else(missing)?;
        let named =
            lookup::dn_of(read, &record, entry.uuid).or_fail(TRY_AGAIN, store)?.ok_or_else(missing)?;
        let mut writer = Writer::new(io::stdout().lock()).or_fail(IO, || "standard output".to_owned())?;
        let written =
            writer.entry(&named, Some(entry.uuid), &entry.attributes).and_then(|()| writer.finish());
        written.map(|_| OK).or_fail(IO, || "standard output".to_owned())
    })
}

pub fn search(
    filter: &str,
    attributes: &[String],
    base: Option<&str>,
    config_file: &Path,
) -> Result<u8, Failure> {
    let config = site::load(config_file)?;
    let filter = filter::Filter::parse(filter).or_fail(DATA, || format!("\"{filter}\" is not a filter"))?;
    let base = base.map(parse_dn).transpose()?;
    view(&config, |read| {
        let mut writer =
            Writer::new(BufWriter::new(io::stdout().lock())).or_fail(IO, || "standard output".to_owned())?;
        let found = filter::search(read, base.as_ref(), &filter, &mut |dn, entry| {
            let asked =
                |name: &str| attributes.is_empty() || attributes.iter().any(|asked| same_name(asked, name));
            let shown =
                entry.attributes.iter().filter(|attribute| asked(attribute.name())).cloned().collect();
            let shown = Attributes::from_attributes(shown).map_err(io::Error::other)?;
            writer.entry(dn, None, &shown).map_err(ExportError::from)
        });
        found.or_fail(IO, || "the search".to_owned())?;
        writer.finish().or_fail(IO, || "standard output".to_owned())?;
        Ok(OK)
    })
}

pub fn add(dn: &str, values: &[String], config_file: &Path) -> Result<u8, Failure> {
    let pair = |value: &String| {
        let (name, value) = value
            .split_once('=')
            .ok_or_else(|| Failure::new(DATA, format!("\"{value}\" is not ATTRIBUTE=VALUE")))?;
        Ok((name.to_owned(), value.as_bytes().to_vec()))
    };
    let pairs = values.iter().map(pair).collect::<Result<Vec<_>, Failure>>()?;
    let attributes = Attributes::from_pairs(pairs).or_fail(DATA, || dn.to_owned())?;
    submit(&Change::Add { dn: parse_dn(dn)?, uuid: None, attributes }, config_file)
}

pub fn modify(dn: &str, changes: &[String], config_file: &Path) -> Result<u8, Failure> {
    let mut modifications: Vec<Modification> = Vec::new();
    for change in changes {
        let (operation, name, value) = modification(change)?;
        let values = if value.is_empty() { Vec::new() } else { vec![value.as_bytes().to_vec()] };
        // Several values for one attribute and verb are one modification, so that `mail=a mail=b` leaves both.
        let same =
            |known: &&mut Modification| known.operation == operation && same_name(&known.attribute, name);
        match modifications.iter_mut().find(same) {
            Some(known) => known.values.extend(values),
            None => modifications.push(Modification { operation, attribute: name.to_owned(), values }),
        }
    }
    submit(&Change::Modify { dn: parse_dn(dn)?, modifications }, config_file)
}

fn modification(change: &str) -> Result<(change::Operation, &str, &str), Failure> {
    let (name, value) = change
        .split_once('=')
        .ok_or_else(|| Failure::new(DATA, format!("\"{change}\" is not ATTRIBUTE=VALUE, += or -=")))?;
    Ok(match (name.strip_suffix('+'), name.strip_suffix('-')) {
        (Some(name), _) => (change::Operation::Add, name, value),
        (_, Some(name)) => (change::Operation::Delete, name, value),
        _ if value.is_empty() => (change::Operation::Delete, name, value),
        _ => (change::Operation::Replace, name, value),
    })
}

pub fn delete(dn: &str, config_file: &Path) -> Result<u8, Failure> {
    submit(&Change::Delete { dn: parse_dn(dn)? }, config_file)
}

/// A change from a command line takes the same way into the directory as any other: as LDIF.
fn submit(record: &Change, config_file: &Path) -> Result<u8, Failure> {
    let config = site::load(config_file)?;
    let mut text = Vec::new();
    let mut writer = Writer::new(&mut text).or_fail(IO, || "the change".to_owned())?;
    writer.change(record).and_then(|()| writer.finish().map(drop)).or_fail(IO, || "the change".to_owned())?;
    import_from(&config, None, &mut &text[..])
}
