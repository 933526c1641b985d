//! `bridgehead inspect`: what a message would change.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use super::directory::view;
use super::exchange::show;
use super::failure::{DATA, Failure, OK, OrFail, TRY_AGAIN};
use super::site;
use crate::control::inspect::{InspectError, Inspection, Line, Transfer, inspect};
use crate::limits::REPLICATION_MESSAGE_BYTES_MAX;
use crate::message::seal::OpenError;

/// Entries listed of each transfer, unless all are asked for.
pub const LINES_SHOWN: usize = 20;

pub fn run(file: &Path, all: bool, json: bool, config_file: &Path) -> Result<u8, Failure> {
    let config = site::load(config_file)?;
    let key = site::read_key(&config)?;
    let octets = read(file).or_fail(DATA, || file.display().to_string())?;
    let lines_max = if all { usize::MAX } else { LINES_SHOWN };
    let seen = view(&config, |store| {
        inspect(&config, &key, store, &octets, lines_max).map_err(|error| {
            let status = if matches!(error, InspectError::Store(_)) { TRY_AGAIN } else { DATA };
            Failure::new(status, format!("{}: {error}{}", file.display(), hint(&error)))
        })
    })?;
    show(json, &seen, |out| print(&seen, out))?;
    Ok(OK)
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    // One octet more than a message may have, so that a larger one is seen to be so.
    let bound = REPLICATION_MESSAGE_BYTES_MAX as u64 + 1;
    let mut octets = Vec::new();
    match file == Path::new("-") {
        true => io::stdin().lock().take(bound).read_to_end(&mut octets)?,
        false => File::open(file)?.take(bound).read_to_end(&mut octets)?,
    };
    Ok(octets)
}

/// What an administrator can do about it.
fn hint(error: &InspectError) -> &'static str {
    match error {
        InspectError::Open(OpenError::UnknownSender(_)) => "; `bridgehead site add` its card, if it is to be",
        InspectError::Open(OpenError::NotOurKey(_) | OpenError::OtherSite(_)) => {
            "; it is for another site, or was sealed to a card of ours that is out of date"
        }
        InspectError::Open(OpenError::Reflected) => "; only the site that it was sent to can open it",
        _ => "",
    }
}

pub fn print(seen: &Inspection, out: &mut dyn Write) -> io::Result<()> {
    let line = |out: &mut dyn Write, label: &str, text: &str| writeln!(out, "  {label:<12} {text}");
    writeln!(out, "A replication message from {} to {}", seen.from, seen.to)?;
    line(out, "sequence", &format!("{}, sent {} by its sender's clock", seen.sequence, seen.time))?;
    if let Some(id) = &seen.message_id {
        line(out, "Message-ID", &format!("<{id}>"))?;
    }
    line(out, "signed by", &format!("{}: the key that is pinned for {}", seen.signed_by, seen.from))?;
    line(out, "heard", seen.heard)?;
    for says in &seen.says {
        line(out, "says", says)?;
    }
    if seen.transfers.is_empty() {
        line(out, "changes", "none: it carries no entries")?;
    }
    seen.transfers.iter().try_for_each(|transfer| print_transfer(transfer, out))
}

fn print_transfer(transfer: &Transfer, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "  {}: part {} of {}", transfer.context, transfer.part, transfer.parts)?;
    if let (Some(base), Some(target)) = (&transfer.base, &transfer.target) {
        writeln!(out, "    from {base}\n    to {target}")?;
    }
    match transfer.master_signed {
        Some(true) => writeln!(out, "    signed by the site that masters it")?,
        Some(false) => writeln!(out, "    NOT signed by a site that masters it: it would be refused")?,
        None => {}
    }
    if let Some(reason) = &transfer.reason {
        return writeln!(out, "    would change nothing now: {reason}");
    }
    let Transfer { added, changed, deleted, changes, .. } = transfer;
    writeln!(out, "    would add {added}, change {changed} and delete {deleted} entries")?;
    for Line { change, dn, attributes } in changes {
        let what = if attributes.is_empty() { String::new() } else { format!(": {}", attributes.join(", ")) };
        writeln!(out, "      {change:<8} {dn}{what}")?;
    }
    let more = (added + changed + deleted).saturating_sub(changes.len() as u64);
    if more > 0 {
        writeln!(out, "      and {more} more; --all lists them")?;
    }
    Ok(())
}
