//! `bridgehead quarantine`: copies of what was received and not applied.

use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::directory::view;
use super::exchange::show as print_out;
use super::failure::{DATA, Failure, IO, OK, OrFail, TRY_AGAIN, UNAVAILABLE};
use super::inspect::{self, LINES_SHOWN};
use super::operator::say;
use super::site;
use crate::config::Config;
use crate::control::inspect as looking;
use crate::control::operation::{Operation, Word};
use crate::replication::engine::quarantine::{self, Kept, kept};

/// A copy as listed; the field names are those of `--json` and stay.
#[derive(Serialize)]
struct Listed {
    id: String,
    /// RFC 3339, UTC.
    at: String,
    /// The site that is proved to have sent it, or the reverse path of a mail that nobody proved to have sent.
    from: String,
    /// `message`: what a connected site's message said; `mail`: a mail as it came.
    kind: &'static str,
    /// Octets received, and octets kept.
    bytes: u64,
    kept: u64,
    reason: String,
}

impl Listed {
    fn of(copy: &Kept) -> Listed {
        let at = Timestamp::from_millisecond(copy.at);
        Listed {
            id: copy.id.clone(),
            at: at.map_or_else(|_| copy.at.to_string(), |at| format!("{at:.0}")),
            from: if copy.site.is_empty() { "<>".to_owned() } else { copy.site.clone() },
            kind: if copy.proved { "message" } else { "mail" },
            bytes: copy.bytes,
            kept: copy.kept,
            reason: copy.reason.clone(),
        }
    }
}

pub fn list(json: bool, file: &Path) -> Result<u8, Failure> {
    let config = site::load(file)?;
    let copies: Vec<Listed> = all(&config)?.iter().map(Listed::of).collect();
    print_out(json, &copies, |out| {
        if copies.is_empty() {
            return writeln!(out, "nothing is kept: all that was received was applied, or led nowhere new");
        }
        for copy in &copies {
            let Listed { id, at, from, kind, bytes, kept, reason } = copy;
            let cut = if kept < bytes { format!(", the first {kept} kept") } else { String::new() };
            writeln!(out, "{id}  {at}  {kind} from {from}, {bytes} octets{cut}\n    {reason}")?;
        }
        writeln!(out, "`bridgehead quarantine show COPY` looks into one")
    })?;
    Ok(OK)
}

pub fn show(name: &str, raw: bool, json: bool, file: &Path) -> Result<u8, Failure> {
    let config = site::load(file)?;
    let copy = find(&config, name)?;
    if raw {
        let mut out = io::stdout().lock();
        out.write_all(&payload(&config, &copy)?)
            .and_then(|()| out.flush())
            .or_fail(IO, || "standard output".to_owned())?;
        return Ok(OK);
    }
    let listed = Listed::of(&copy);
    print_out(json, &listed, |out| {
        let Listed { id, at, from, kind, bytes, kept, reason } = &listed;
        writeln!(out, "{id}: {kind} from {from}, received {at}, {bytes} octets")?;
        writeln!(out, "  not applied    {reason}")?;
        if kept < bytes {
            writeln!(out, "  kept           the first {kept} octets: it cannot be taken again")?;
        }
        Ok(())
    })?;
    if json {
        return Ok(OK);
    }
    match copy.proved {
        true => {
            println!("  release        takes its parts again; a site also sends again by itself what is lost")
        }
        false => {
            // A mail that was cut, or still does not open, says so itself.
            let key = site::read_key(&config)?;
            let mail = payload(&config, &copy)?;
            let seen = view(&config, |read| Ok(looking::inspect(&config, &key, read, &mail, LINES_SHOWN)))?;
            match seen {
                Ok(seen) => {
                    println!("  it opens now; it would change:");
                    inspect::print(&seen, &mut io::stdout().lock())
                        .or_fail(IO, || "standard output".to_owned())?;
                }
                Err(error) => println!("  now            it cannot be opened: {error}"),
            }
        }
    }
    Ok(OK)
}

pub fn release(name: &str, file: &Path) -> Result<u8, Failure> {
    let config = site::load(file)?;
    let copy = find(&config, name)?;
    if !copy.is_whole() {
        let message = format!("only the first {} of its {} octets are kept", copy.kept, copy.bytes);
        return Err(Failure::new(DATA, message));
    }
    if copy.proved {
        return say(&config, &Word::Release { id: copy.id });
    }
    let Some(daemon) = site::daemon(&config)? else {
        return Err(Failure::new(UNAVAILABLE, "the daemon does not run; `bridgehead run` starts it"));
    };
    let mail = payload(&config, &copy)?;
    let deliver = Operation::Deliver { mailbox: None };
    let answer = daemon.ask(&deliver, Some(&mut &mail[..]), &mut io::stdout(), &mut io::stderr());
    match answer.or_fail(TRY_AGAIN, || "the daemon".to_owned())? {
        OK => say(&config, &Word::Forget { ids: vec![copy.id] }),
        status => Ok(status),
    }
}

pub fn delete(names: &[String], every: bool, file: &Path) -> Result<u8, Failure> {
    let config = site::load(file)?;
    let ids: Vec<String> = match every {
        true => all(&config)?.into_iter().map(|copy| copy.id).collect(),
        false => {
            names.iter().map(|name| find(&config, name).map(|copy| copy.id)).collect::<Result<_, _>>()?
        }
    };
    say(&config, &Word::Forget { ids })
}

fn all(config: &Config) -> Result<Vec<Kept>, Failure> {
    view(config, |read| kept(read).or_fail(TRY_AGAIN, || "the store".to_owned()))
}

fn payload(config: &Config, copy: &Kept) -> Result<Vec<u8>, Failure> {
    view(config, |read| quarantine::payload(read, copy).or_fail(TRY_AGAIN, || "the store".to_owned()))
}

/// The copy whose name begins so, if there is just one.
fn find(config: &Config, name: &str) -> Result<Kept, Failure> {
    let mut found: Vec<Kept> = all(config)?.into_iter().filter(|copy| copy.id.starts_with(name)).collect();
    match (found.len(), found.pop()) {
        (1, Some(copy)) => Ok(copy),
        (0, _) => {
            let message = format!("there is no copy {name}; `bridgehead quarantine list` shows them");
            Err(Failure::new(UNAVAILABLE, message))
        }
        (count, _) => Err(Failure::new(DATA, format!("{count} copies have names that begin with {name}"))),
    }
}
