//! What a command may ask of a site, whether the daemon runs or not.

use serde::{Deserialize, Serialize};

use crate::replication::engine::{Event, Input};

/// One thing asked of the running daemon. What it needs as input comes behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
pub enum Operation {
    /// Import LDIF, which comes as input. `file` names it in messages; none: it was made from a command
    /// line, and messages name no lines.
    Import { file: Option<String> },
    /// Exchange now; the answer is the time to wait from.
    Sync { partner: Option<String> },
    /// Compare digests now; the answer is the time to wait from.
    Verify { partner: Option<String> },
    /// An operator's word on a connected site or on a transfer that waits.
    Word { word: Word },
    /// Take the message that comes as input, sent to `mailbox`; the answer is the reply.
    Deliver { mailbox: Option<String> },
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
}

impl Word {
    pub fn input(&self) -> Input {
        match self.clone() {
            Word::Pause { site, paused } => Input::Pause { site, paused },
            Word::Detach { site, dry_run } => Input::Detach { site, dry_run },
            Word::Purge { site, dry_run } => Input::Purge { site, dry_run },
            Word::Hold { hold, approve } => Input::Hold { hold, approve },
        }
    }
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
            _ => None,
        }
    };
    let lines: Vec<String> = events.iter().filter_map(line).collect();
    if lines.is_empty() { "nothing to do".to_owned() } else { lines.join("\n") }
}
