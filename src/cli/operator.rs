//! `bridgehead hold` and `bridgehead site pause|resume|detach|purge`: what replication leaves to a person.
//!
//! PROMISES
//!   Removing a site goes in steps, each with a dry run, and only the last deletes anything: pause, detach,
//!   purge.

use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;

use super::arguments::Connected;
use super::directory::{open_store, parse_dn, view};
use super::exchange::show;
use super::failure::{CANNOT_CREATE, Failure, IO, OK, OrFail, TRY_AGAIN, UNAVAILABLE};
use super::site;
use crate::config::Config;
use crate::control::operation::{self, Operation, Word};
use crate::daemon::engine_config;
use crate::directory::context;
use crate::replication::engine::config::same_context;
use crate::replication::engine::hold::{Hold, HoldKind, HoldVerdict, holds};
use crate::replication::engine::{Engine, Output};

pub fn pause(site: &Connected, paused: bool) -> Result<u8, Failure> {
    let config = connected(site)?;
    if site.dry_run {
        println!("{} would be {}", site.name, if paused { "paused" } else { "resumed" });
        return Ok(OK);
    }
    let partner = config.partner(&site.name);
    if let Some(partner) = partner.filter(|partner| !paused && partner.link.paused) {
        let message = format!(
            "{} is paused by `paused = true` in {}: take that out, then `bridgehead reload`",
            site.name,
            partner.file.display()
        );
        return Err(Failure::new(UNAVAILABLE, message));
    }
    say(&config, &Word::Pause { site: site.name.clone(), paused })
}

pub fn detach(site: &Connected) -> Result<u8, Failure> {
    let config = connected(site)?;
    let status = say(&config, &Word::Detach { site: site.name.clone(), dry_run: site.dry_run })?;
    let partner = config.partner(&site.name);
    if let (false, OK, Some(partner)) = (site.dry_run, status, partner) {
        let aside = partner.file.with_extension("toml.detached");
        fs::rename(&partner.file, &aside).or_fail(CANNOT_CREATE, || aside.display().to_string())?;
        println!("its file is now {}", aside.display());
        return ask(&config, &Operation::Reload).map(|answer| answer.unwrap_or(OK));
    }
    Ok(status)
}

pub fn purge(site: &Connected) -> Result<u8, Failure> {
    let config = site::load(&site.site.config)?;
    if config.partner(&site.name).is_some() {
        let message = format!("{} is connected and would send its entries again; detach it first", site.name);
        return Err(Failure::new(UNAVAILABLE, message));
    }
    let held = view(&config, |read| {
        let contexts = context::contexts(read).or_fail(TRY_AGAIN, || "the store".to_owned())?;
        Ok(contexts.iter().any(|record| record.master == site.name))
    })?;
    if !held || site.name == config.site.name {
        let message = format!("no naming context that a former site {} masters is held here", site.name);
        return Err(Failure::new(UNAVAILABLE, message));
    }
    say(&config, &Word::Purge { site: site.name.clone(), dry_run: site.dry_run })
}

/// The configuration, if it has that site.
fn connected(site: &Connected) -> Result<Config, Failure> {
    let config = site::load(&site.site.config)?;
    if config.partner(&site.name).is_none() {
        return Err(Failure::new(UNAVAILABLE, format!("no site {} is connected", site.name)));
    }
    Ok(config)
}

/// Takes what the site holds for what is held here.
pub fn refresh(partner: &str, context: Option<String>, dry_run: bool, file: &Path) -> Result<u8, Failure> {
    let config = site::load(file)?;
    if config.partner(partner).is_none() {
        return Err(Failure::new(UNAVAILABLE, format!("no site {partner} is connected")));
    }
    let context = context.map(|dn| parse_dn(&dn)).transpose()?.map(|dn| dn.to_string());
    say(&config, &Word::Refresh { site: partner.to_owned(), context, dry_run })
}

pub fn decide(hold: u64, approve: bool, dry_run: bool, file: &Path) -> Result<u8, Failure> {
    let config = site::load(file)?;
    let found = find(&config, hold)?;
    if dry_run {
        println!("{}", if approve { approval(&config, &found) } else { rejection(&found) });
        return Ok(OK);
    }
    say(&config, &Word::Hold { hold, approve })
}

pub fn list_holds(json: bool, file: &Path) -> Result<u8, Failure> {
    let config = site::load(file)?;
    let waiting = all(&config)?;
    show(json, &waiting, |out| match waiting.is_empty() {
        true => writeln!(out, "nothing waits"),
        false => waiting.iter().try_for_each(|hold| writeln!(out, "{}", line(hold))),
    })?;
    Ok(OK)
}

pub fn show_hold(hold: u64, json: bool, file: &Path) -> Result<u8, Failure> {
    let config = site::load(file)?;
    let hold = find(&config, hold)?;
    show(json, &hold, |out| {
        writeln!(out, "{}", line(&hold))?;
        writeln!(out, "`bridgehead hold approve {}`: {}", hold.id, approval(&config, &hold))?;
        writeln!(out, "`bridgehead hold reject {}`: {}", hold.id, rejection(&hold))
    })?;
    Ok(OK)
}

/// What an approval does.
fn approval(config: &Config, hold: &Hold) -> String {
    let Hold { site, context, deletions, entries, .. } = hold;
    let own = config.site.contexts.iter().any(|dn| same_context(&dn.to_string(), context));
    match hold.kind {
        HoldKind::Deletions => {
            format!(
                "the transfer takes effect; {deletions} of {entries} entries of {context} are deleted. What came after it follows, and may delete more within the link's share"
            )
        }
        HoldKind::Fork if own => {
            format!("what {site} holds of {context} and this site lacks is taken back once more")
        }
        HoldKind::Fork => format!(
            "the {entries} entries of {context} here are given up for what {site} holds, once it has come and is proved"
        ),
    }
}

fn rejection(hold: &Hold) -> String {
    match hold.kind {
        HoldKind::Deletions => {
            format!("{} stays as it is, until the hold is approved after all", hold.context)
        }
        HoldKind::Fork => format!(
            "{} stays as it is here, and differs from what {} holds, until the fork is approved or the histories meet again",
            hold.context, hold.site
        ),
    }
}

fn line(hold: &Hold) -> String {
    let since = Timestamp::from_millisecond(hold.since)
        .map_or_else(|_| hold.since.to_string(), |time| time.to_string());
    let decided = match hold.verdict {
        HoldVerdict::Waiting => "",
        HoldVerdict::Approved => " (approved; on its way)",
        HoldVerdict::Rejected => " (rejected)",
    };
    match hold.kind {
        HoldKind::Deletions => format!(
            "{}: {}: {} of {} entries would be deleted, as {} sent since {since}{decided}",
            hold.id,
            hold.context,
            hold.deletions,
            hold.entries,
            hold.of()
        ),
        HoldKind::Fork => format!(
            "{}: {}: forked: what {} holds, at USN {} of {}, and what this site holds went different ways, since {since}{decided}",
            hold.id, hold.context, hold.site, hold.target.usn, hold.target.invocation
        ),
    }
}

fn all(config: &Config) -> Result<Vec<Hold>, Failure> {
    view(config, |read| holds(read).or_fail(TRY_AGAIN, || "the store".to_owned()))
}

fn find(config: &Config, id: u64) -> Result<Hold, Failure> {
    let found = all(config)?.into_iter().find(|hold| hold.id == id);
    found.ok_or_else(|| {
        Failure::new(UNAVAILABLE, format!("there is no hold {id}; `bridgehead hold list` shows them"))
    })
}

/// Says a word to the running daemon, or to the engine here when none runs.
pub(super) fn say(config: &Config, word: &Word) -> Result<u8, Failure> {
    if let Some(status) = ask(config, &Operation::Word { word: word.clone() })? {
        return Ok(status);
    }
    let failed = |error| Failure::new(TRY_AGAIN, error);
    let mut engine = Engine::new(engine_config(config, &site::read_key(config)?));
    let mut store = open_store(config)?;
    let mut tx = store.begin().map_err(failed)?;
    engine.handle(&mut tx, Timestamp::now(), word.input()).map_err(failed)?;
    tx.commit().map_err(failed)?;
    // Mail that followed from it is sent by the daemon once it runs.
    let events = std::iter::from_fn(|| engine.output()).filter_map(|output| match output {
        Output::Event(event) => Some(event),
        Output::Mail { .. } | Output::Card { .. } | Output::Introduced { .. } => None,
    });
    println!("{}", operation::report(&events.collect::<Vec<_>>()));
    Ok(OK)
}

/// Asks the daemon; nothing when there is none.
pub fn ask(config: &Config, operation: &Operation) -> Result<Option<u8>, Failure> {
    let Some(daemon) = site::daemon(config)? else {
        return Ok(None);
    };
    let answer = daemon.ask(operation, None, &mut io::stdout(), &mut io::stderr());
    answer.map(Some).or_fail(IO, || "the daemon".to_owned())
}
