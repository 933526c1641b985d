//! What a command may ask of a site, whether the daemon runs or not.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::replication::engine::{Event, Input, Shown};

/// One thing asked of the running daemon. What it needs as input comes behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
pub enum Operation {
    /// Import LDIF, which comes as input. `file` names it in messages; none: it was made from a command
    /// line, and messages name no lines.
    /// With `progress`, what is done is told on the way, for a terminal.
    Import { file: Option<String>, progress: bool },
    /// Exchange now; the answer is the time to wait from.
    Sync { partner: Option<String> },
    /// Compare digests now; the answer is the time to wait from.
    Verify { partner: Option<String> },
    /// An operator's word on a connected site or on a transfer that waits.
    Word { word: Word },
    /// Take the message that comes as input, sent to `mailbox`; the answer is the reply.
    Deliver { mailbox: Option<String> },
    /// Make a bundle for a connected site; it comes as output, what it holds as errors.
    BundleCreate { site: String },
    /// Take the bundle that comes as input.
    BundleApply,
    /// Read the configuration again.
    Reload,
    /// What the daemon measured; the answer is JSON.
    Measured,
}

/// What an operator may say to the engine. With `dry_run` it only says what it would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "kebab-case")]
pub enum Word {
    Pause { site: String, paused: bool },
    Detach { site: String, dry_run: bool },
    Purge { site: String, dry_run: bool },
    Hold { hold: u64, approve: bool },
    Refresh { site: String, context: Option<String>, dry_run: bool },
    Forget { ids: Vec<String> },
    Release { id: String },
}

impl Word {
    pub fn input(&self) -> Input {
        match self.clone() {
            Word::Pause { site, paused } => Input::Pause { site, paused },
            Word::Detach { site, dry_run } => Input::Detach { site, dry_run },
            Word::Purge { site, dry_run } => Input::Purge { site, dry_run },
            Word::Hold { hold, approve } => Input::Hold { hold, approve },
            Word::Refresh { site, context, dry_run } => Input::Refresh { site: Some(site), context, dry_run },
            Word::Forget { ids } => Input::Forget { ids },
            Word::Release { id } => Input::Release { id },
        }
    }
}

/// What `verify` found to be damaged of what this site masters, and what to do: nobody else can repair that.
pub fn damaged(events: &[Event], site: &str) -> String {
    let own: BTreeSet<&String> = events
        .iter()
        .filter_map(|event| match event {
            Event::Damaged { context, master, .. } if master == site => Some(context),
            _ => None,
        })
        .collect();
    own.into_iter().map(|context| {
        format!(
            "bridgehead: what is stored here of {context} was altered behind the daemon's back, or the disk fails; this \
             site masters it: restore the store from a backup, or import it again; connected sites still hold what it was\n"
        )
    })
    .collect()
}

fn refreshing(
    site: &str,
    context: &str,
    ours: Option<&Shown>,
    theirs: &Shown,
    entries: u64,
    dry_run: bool,
) -> String {
    let from = ours.map_or_else(
        || "nothing of it is held here".to_owned(),
        |ours| format!("what is held here, {entries} entries at USN {} of {}", ours.usn, ours.invocation),
    );
    let will = if dry_run { "would be given up" } else { "is given up once it has come" };
    format!("{context}: {from}, {will} for what {site} holds, USN {} of {}", theirs.usn, theirs.invocation)
}

/// What followed from an operator's word, a line each.
pub fn report(events: &[Event]) -> String {
    let line = |event: &Event| {
        let would = |dry_run: bool| if dry_run { "would be" } else { "was" };
        match event {
            Event::HoldDecided { hold, context, approved } => {
                let word = if *approved { "approved" } else { "rejected" };
                Some(format!("hold {hold} on {context} is {word}"))
            }
            Event::Paused { site, paused: true } => Some(format!("{site} is paused: nothing is sent to it")),
            Event::Paused { site, paused: false } => Some(format!("{site} is resumed")),
            Event::Detached { site, transfers, dry_run } => Some(format!(
                "the connection to {site} {} forgotten, with {transfers} transfer(s) on their way; its entries stay",
                would(*dry_run)
            )),
            Event::Purged { context, entries, dry_run } => {
                Some(format!("{context} {} deleted here, with {entries} entries", would(*dry_run)))
            }
            Event::Applied { context, added, changed, deleted, .. } => {
                Some(format!("{context}: {added} added, {changed} changed, {deleted} deleted"))
            }
            Event::Refreshing { site, context, ours, theirs, entries, dry_run } => {
                Some(refreshing(site, context, ours.as_ref(), theirs, *entries, *dry_run))
            }
            Event::Forgotten { id } => Some(format!("{id} is let go")),
            Event::Kept { id, reason, .. } => Some(format!("refused again, and kept as {id}: {reason}")),
            Event::Damaged { context, .. } => {
                Some(format!("{context}: what is stored here of it is damaged: `bridgehead verify`"))
            }
            Event::NotApplied { context, reason, .. } => Some(format!("{context}: not applied: {reason}")),
            Event::Held { context, master, hold, deletions, entries, .. } => Some(format!(
                "{context}: the transfer of {master} would delete {deletions} of {entries} entries and waits: `bridgehead hold show {hold}`"
            )),
            Event::Crowded { context, parts, .. } => Some(format!(
                "{context}: {parts} part(s) found no room beside others that wait for parts; mail asks for them later"
            )),
            Event::Forked { context, .. } => Some(format!(
                "{context}: the histories went different ways; nothing was changed: `bridgehead hold list`"
            )),
            Event::Bundled { context, position, entries, parts, .. } => {
                Some(format!("{context}: {entries} entries at USN {} in {parts} message(s)", position.usn))
            }
            _ => None,
        }
    };
    let lines: Vec<String> = events.iter().filter_map(line).collect();
    if lines.is_empty() { "nothing to do".to_owned() } else { lines.join("\n") }
}
