//! `bridgehead explain`: where an entry came from.

use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;

use super::directory::{parse_dn, view};
use super::exchange::{self, show};
use super::failure::{Failure, OK, OrFail, TRY_AGAIN, UNAVAILABLE};
use super::site;
use crate::daemon::engine_config;
use crate::replication::explain::{Arrival, AttributeChange, Change, Explanation, Home, State, explain};
use crate::replication::status;

/// The exit status says whether there is an entry of this name now.
pub fn run(dn: &str, json: bool, config_file: &Path) -> Result<u8, Failure> {
    let config = site::load(config_file)?;
    let dn = parse_dn(dn)?;
    let engine = engine_config(&config, &site::read_key(&config)?);
    let found = view(&config, |read| {
        let status =
            status::status(read, &engine, Timestamp::now()).or_fail(TRY_AGAIN, || "the store".to_owned())?;
        explain(read, &status, &dn).or_fail(TRY_AGAIN, || "the store".to_owned())
    })?;
    show(json, &found, |out| print(&found, out))?;
    Ok(if found.state == State::Present { OK } else { UNAVAILABLE })
}

fn print(found: &Explanation, out: &mut dyn Write) -> io::Result<()> {
    let line = |out: &mut dyn Write, label: &str, text: &str| writeln!(out, "  {label:<13} {text}");
    writeln!(out, "{}", found.now.as_ref().unwrap_or(&found.dn))?;
    match found.state {
        State::Present => {}
        State::Renamed => line(out, "renamed", &format!("it was {}", found.dn))?,
        State::Deleted => line(out, "deleted", "it is not there any more")?,
        State::Unknown => line(out, "unknown", &unknown(found))?,
        State::NotHeld => {
            line(out, "not held", "this name belongs to no naming context that is held here")?;
            return found.held.iter().try_for_each(|context| line(out, "held here", context));
        }
    }
    if let Some(home) = &found.context {
        line(out, "from", &origin(home))?;
        line(out, "stands at", &standing(home))?;
    }
    if let Some(uuid) = &found.entry_uuid {
        line(out, "entryUUID", uuid)?;
    }
    if matches!(found.state, State::Unknown | State::Deleted) {
        match &found.nearest {
            Some(nearest) => line(out, "nearest above", &format!("{nearest}, which is there"))?,
            None => line(out, "nearest above", "nothing of this naming context is there")?,
        }
    }
    let what = if found.state == State::Deleted { "deleted" } else { "last changed" };
    match &found.last_change {
        Some(change) => print_change(what, change, out)?,
        None if found.state == State::Unknown => {}
        None => line(out, what, &older(found))?,
    }
    if let Some(added) = found.added.as_ref().filter(|added| Some(added.usn) != usn(&found.last_change)) {
        print_change("added", added, out)?;
    }
    print_attributes(found, out)
}

fn usn(change: &Option<Change>) -> Option<u64> {
    change.as_ref().map(|change| change.usn)
}

fn origin(home: &Home) -> String {
    match home.own {
        true => format!("here: this site, {}, masters {}", home.master, home.context),
        false => format!("site {}, which masters {}; held here as a copy", home.master, home.context),
    }
}

fn standing(home: &Home) -> String {
    let standing = exchange::standing(home.own, home.verified, home.standing);
    format!("USN {} of {}, {standing}", home.position.usn, home.position.invocation)
}

fn unknown(found: &Explanation) -> String {
    match found.log_since {
        Some(usn) if usn > 0 => {
            format!("there is no such entry; the log, which begins at USN {usn}, knows of none either")
        }
        _ => "there is no such entry, and there never was".to_owned(),
    }
}

fn older(found: &Explanation) -> String {
    format!("older than the log, which begins at USN {}", found.log_since.unwrap_or(0))
}

fn print_change(label: &str, change: &Change, out: &mut dyn Write) -> io::Result<()> {
    let Some(arrival) = &change.arrival else {
        return writeln!(
            out,
            "  {label:<13} USN {}; how it came here is older than what is kept",
            change.usn
        );
    };
    let how = match (&arrival.from, arrival.full) {
        (None, _) => format!("committed here at {}", arrival.at),
        (Some(site), false) => format!("received from {site} at {}", arrival.at),
        (Some(site), true) => {
            format!("or before; it came with a full load from {site} at {}", arrival.at)
        }
    };
    writeln!(out, "  {label:<13} USN {}, {how}", change.usn)?;
    print_mail(arrival, out)
}

fn print_mail(arrival: &Arrival, out: &mut dyn Write) -> io::Result<()> {
    if let Some(signed) = &arrival.signed_at {
        writeln!(
            out,
            "  {:<13} up to USN {}, signed by its master at {signed}",
            "  transfer", arrival.position.usn
        )?;
    }
    let named = arrival.named.len() as u64;
    for (index, mail) in arrival.named.iter().enumerate() {
        if index as u64 == named / 2 && arrival.messages > named {
            writeln!(out, "  {:<13} ... {} more ...", "", arrival.messages - named)?;
        }
        let id = mail.message_id.as_ref().map_or("not known (by file)".to_owned(), |id| format!("<{id}>"));
        writeln!(
            out,
            "  {:<13} {id}, sequence {}, received {}",
            "  Message-ID", mail.sequence, mail.received
        )?;
    }
    Ok(())
}

fn print_attributes(found: &Explanation, out: &mut dyn Write) -> io::Result<()> {
    if found.state != State::Present {
        return Ok(());
    }
    for AttributeChange { name, usn, values, removed } in &found.attributes {
        let how = match (removed, values) {
            (true, _) => ", removed",
            (false, true) => ", some of its values",
            (false, false) => "",
        };
        writeln!(out, "  {:<13} {name}: USN {usn}{how}", "attribute")?;
    }
    let rest = match (&found.added, found.attributes.is_empty()) {
        (Some(added), false) => format!("as added at USN {}", added.usn),
        (Some(_), true) => "all as they were added".to_owned(),
        (None, _) => older(found),
    };
    writeln!(out, "  {:<13} {rest}", if found.attributes.is_empty() { "attributes" } else { "the others" })
}
