//! `bridgehead status`, `bridgehead sync`, `bridgehead verify`: how replication stands, and hurrying it.

use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::failure::{Failure, IO, NO, OK, OrFail, TRY_AGAIN, UNAVAILABLE};
use super::{directory, site};
use crate::config::Config;
use crate::control::conversation;
use crate::control::operation::Operation;
use crate::daemon::{engine_config, trust};
use crate::replication::engine::hold::{self, HoldVerdict};
use crate::replication::engine::quarantine;
use crate::replication::status::{self, PartnerStatus, Status};

/// How often a waiting command looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long `status` tells of a store that failed.
const FAILED_SHOWN: SignedDuration = SignedDuration::from_hours(24);

pub fn status(json: bool, file: &Path) -> Result<u8, Failure> {
    let config = site::load(file)?;
    let status = read(&config)?;
    let (stopped, daemon) = measured(&config)?;
    let waits = waits(&config)?;
    let whole = Whole { status, waits, daemon };
    show(json, &whole, |out| {
        writeln!(out, "Site {}", whole.status.site)?;
        if stopped {
            writeln!(out, "The daemon does not run: nothing is sent or taken until `bridgehead run`.")?;
        }
        whole.store_failed(Timestamp::now(), out)?;
        print(&whole.status, out)?;
        whole.waits.print(out)
    })?;
    Ok(OK)
}

/// Writes to standard output, for scripts or for people.
pub(super) fn show<T: serde::Serialize>(
    json: bool,
    what: &T,
    print: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let printed = if json {
        serde_json::to_writer_pretty(&mut out, what).map_err(io::Error::from).and_then(|()| writeln!(out))
    } else {
        print(&mut out)
    };
    match printed {
        // `bridgehead status | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.or_fail(IO, || "standard output".to_owned()),
    }
}

/// What `status --json` prints: what the store says and, where the daemon runs, what it measured.
#[derive(serde::Serialize)]
struct Whole {
    #[serde(flatten)]
    status: Status,
    waits: Waits,
    daemon: Option<serde_json::Value>,
}

impl Whole {
    /// What the store could not keep within a day. Small mail may pass while large mail does not, so no success ends this.
    fn store_failed(&self, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
        let replication = self.daemon.as_ref().map(|daemon| &daemon["replication"]);
        let Some(replication) = replication.filter(|replication| !replication["store_failed"].is_null())
        else {
            return Ok(());
        };
        let text = |name: &str| replication["store_failed"][name].as_str().unwrap_or_default();
        let at = text("at").parse::<Timestamp>().unwrap_or(now);
        if now.duration_since(at) > FAILED_SHOWN {
            return Ok(());
        }
        let (times, failure) = (&replication["store_failures"], text("failure"));
        writeln!(out, "The store failed, {times} times since the start, the last time at {at}: {failure}")?;
        writeln!(
            out,
            "  next: see to the disk, if that was not done; what was not kept is sent again by itself"
        )
    }
}

/// What waits for a person.
#[derive(serde::Serialize)]
struct Waits {
    holds: usize,
    /// Sites whose cards wait for approval.
    cards: Vec<String>,
    quarantined: u64,
}

fn waits(config: &Config) -> Result<Waits, Failure> {
    let offered = trust::offered(config).or_fail(IO, || config.site.offered().display().to_string())?;
    let cards = offered.iter().map(|offered| offered.card.name().to_owned()).collect();
    directory::view(config, |read| {
        let store = || "the store".to_owned();
        let holds = hold::holds(read).or_fail(TRY_AGAIN, store)?;
        let holds = holds.iter().filter(|hold| hold.verdict == HoldVerdict::Waiting).count();
        Ok(Waits { holds, cards, quarantined: quarantine::count(read).or_fail(TRY_AGAIN, store)? })
    })
}

impl Waits {
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let Waits { holds, cards, quarantined } = self;
        if *holds == 0 && cards.is_empty() && *quarantined == 0 {
            return Ok(());
        }
        writeln!(out, "\nWaiting for you")?;
        if *holds > 0 {
            writeln!(out, "  {holds} to be approved or rejected: `bridgehead hold list`")?;
        }
        if !cards.is_empty() {
            writeln!(out, "  the card of {}: `bridgehead site list`", cards.join(" and of "))?;
        }
        if *quarantined > 0 {
            writeln!(out, "  {quarantined} kept that took no effect: `bridgehead quarantine list`")?;
        }
        Ok(())
    }
}

/// Whether the daemon stands still, and what it measured. Whoever may read the store but not speak to the daemon is told
/// nothing about it.
fn measured(config: &Config) -> Result<(bool, Option<serde_json::Value>), Failure> {
    let daemon = match conversation::connect(&config.site.control_socket()) {
        Ok(Some(daemon)) => daemon,
        Ok(None) => return Ok((true, None)),
        Err(_) => return Ok((false, None)),
    };
    let mut answer = Vec::new();
    let asked = daemon.ask(&Operation::Measured, None, &mut answer, &mut io::stderr());
    asked.or_fail(IO, || "the daemon".to_owned())?;
    let measured = serde_json::from_slice(&answer).or_fail(IO, || "the daemon's answer".to_owned())?;
    Ok((false, Some(measured)))
}

pub fn read(config: &Config) -> Result<Status, Failure> {
    let key = site::read_key(config)?;
    let engine = engine_config(config, &key);
    directory::view(config, |read| {
        status::status(read, &engine, Timestamp::now()).or_fail(TRY_AGAIN, || "the store".to_owned())
    })
}

/// How a naming context stands here. Its master has nothing to verify: what it holds is what there is.
pub(super) fn standing(own: bool, verified: bool, standing: &str) -> String {
    let proved = if verified { "verified" } else { "not verified" };
    match (own, standing) {
        (true, "follows") => "mastered here".to_owned(),
        (_, standing) => format!("{proved}, {standing}"),
    }
}

fn print(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nNaming contexts")?;
    for context in &status.contexts {
        let own = context.master == status.site;
        let standing = standing(own, context.verified, context.standing);
        writeln!(out, "  {}", context.context)?;
        writeln!(
            out,
            "    master {}, {} entries, USN {}, {standing}",
            context.master, context.entries, context.position.usn
        )?;
        writeln!(out, "    digest {}", context.digest)?;
        if let Some(reason) = &context.reason {
            writeln!(out, "    {}: {reason}", context.standing)?;
        }
        if let Some(next) = &context.next {
            writeln!(out, "    next: {next}")?;
        }
    }
    writeln!(out, "\nConnected sites")?;
    if status.partners.is_empty() {
        writeln!(out, "  none; `bridgehead site add` connects one")?;
    }
    for partner in &status.partners {
        let when = |time: &Option<String>| time.clone().unwrap_or_else(|| "never".to_owned());
        let shared = partner.contexts.iter().filter(|context| context.wanted).count();
        let equal = partner.contexts.iter().filter(|context| context.wanted && context.equal).count();
        writeln!(out, "  {}: {} ({})", partner.site, word(partner), partner.reason)?;
        writeln!(out, "    heard {}, sent {}", when(&partner.last_heard), when(&partner.last_sent))?;
        writeln!(out, "    {equal} of {} naming contexts equal, {} behind", shared, partner.behind)?;
        for context in &partner.contexts {
            if let Some(reason) = &context.reason {
                writeln!(out, "    {}: {reason}", context.context)?;
            }
        }
        if let Some((received, expected)) = partner.contexts.iter().find_map(|context| context.received) {
            writeln!(out, "    a transfer comes in: {received} of {expected} parts")?;
        }
        writeln!(out, "    next: {}", partner.next)?;
    }
    Ok(())
}

fn word(partner: &PartnerStatus) -> String {
    serde_json::to_value(partner.state)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

pub fn sync(partner: Option<&str>, wait: Option<u64>, file: &Path) -> Result<u8, Failure> {
    let config = site::load(file)?;
    let asked = ask(&config, &Operation::Sync { partner: partner.map(str::to_owned) })?;
    match wait {
        None => Ok(OK),
        Some(seconds) => until_equal(&config, partner, asked, Duration::from_secs(seconds)),
    }
}

pub fn verify(partner: Option<&str>, wait: u64, file: &Path) -> Result<u8, Failure> {
    let config = site::load(file)?;
    let asked = ask(&config, &Operation::Verify { partner: partner.map(str::to_owned) })?;
    until_equal(&config, partner, asked, Duration::from_secs(wait))
}

/// Asks the daemon; its answer is the time from which on an answer of the other site counts.
fn ask(config: &Config, operation: &Operation) -> Result<Timestamp, Failure> {
    let daemon = site::daemon(config)?;
    let Some(daemon) = daemon else {
        let message = "the daemon does not run; `bridgehead run` starts it, and only it exchanges mail";
        return Err(Failure::new(UNAVAILABLE, message));
    };
    let mut answer = Vec::new();
    let status = daemon
        .ask(operation, None, &mut answer, &mut io::stderr())
        .or_fail(IO, || "the daemon".to_owned())?;
    if status != OK {
        return Err(Failure::new(status, ""));
    }
    String::from_utf8_lossy(&answer).parse().or_fail(IO, || "the daemon's answer".to_owned())
}

/// Waits until every chosen site has proved, by an answer to what was asked at `asked` or later, that it holds what we hold.
fn until_equal(
    config: &Config,
    partner: Option<&str>,
    asked: Timestamp,
    wait: Duration,
) -> Result<u8, Failure> {
    let end = Instant::now() + wait;
    loop {
        let status = read(config)?;
        let chosen: Vec<_> =
            status.partners.iter().filter(|known| partner.is_none_or(|name| name == known.site)).collect();
        if chosen.is_empty() {
            return Err(Failure::new(UNAVAILABLE, "no site is connected"));
        }
        let open: Vec<_> = chosen.iter().filter(|known| !proved_since(known, asked)).collect();
        if open.is_empty() {
            chosen.iter().for_each(|known| println!("{}: equal", known.site));
            return Ok(OK);
        }
        if Instant::now() >= end {
            for known in open {
                println!(
                    "{}: not proved equal: {} behind, {} ({})",
                    known.site,
                    known.behind,
                    word(known),
                    known.reason
                );
                for context in &known.contexts {
                    if let Some(reason) = &context.reason {
                        println!("  {}: {reason}", context.context);
                    }
                }
            }
            return Ok(NO);
        }
        thread::sleep(LOOK_AGAIN);
    }
}

fn proved_since(partner: &PartnerStatus, asked: Timestamp) -> bool {
    let equal: Option<Timestamp> = partner.equal.as_ref().and_then(|time| time.parse().ok());
    equal.is_some_and(|equal| equal >= asked)
}
