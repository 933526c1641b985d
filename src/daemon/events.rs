//! The replication log: each event of the engine as one line, by its stable name.

use tracing::{debug, error, info, warn};

use crate::replication::engine::Event;

/// Logs one event. The names of events and fields are those that operators filter by.
pub fn log(event: &Event) {
    match event {
        Event::SiteUp { site } => info!(event = "site-up", site, "the site answers"),
        Event::Kept { id, site, reason, bytes, kept } => {
            warn!(
                event = "copy-kept",
                id, site, reason, bytes, kept, "a copy is kept: `bridgehead quarantine show`"
            );
        }
        Event::Forgotten { id } => info!(event = "copy-forgotten", id, "a kept copy was let go"),
        // What would be is for whoever asked.
        Event::Refreshing { dry_run: true, .. }
        | Event::Detached { dry_run: true, .. }
        | Event::Purged { dry_run: true, .. } => {}
        Event::Refreshing { site, context, ours, theirs, entries, dry_run: false } => {
            let ours = ours.as_ref().map_or(0, |ours| ours.usn);
            warn!(
                event = "refreshing",
                site,
                context,
                ours,
                theirs = theirs.usn,
                entries,
                "what is held is given up for what the site holds"
            );
        }
        Event::Coming { site, context, received, expected } => {
            let percent = u64::from(*received) * 100 / u64::from(*expected).max(1);
            info!(
                event = "transfer-coming",
                site, context, received, expected, percent, "parts of a transfer have arrived"
            );
        }
        Event::Bundled { site, context, position, entries, parts } => {
            let usn = position.usn;
            info!(event = "bundled", site, context, usn, entries, parts, "a full load went into a file");
        }
        Event::TransferSent { site, context, base, target, parts, bytes } => {
            let base = base.as_ref().map_or_else(|| "nothing".to_owned(), |base| base.usn.to_string());
            info!(
                event = "transfer-sent",
                site,
                context,
                base,
                usn = target.usn,
                parts,
                bytes,
                "a transfer leaves"
            );
        }
        Event::Crowded { site, context, parts, bytes, bytes_max } => {
            warn!(
                event = "inbox-full",
                site,
                context,
                parts,
                bytes,
                bytes_max,
                "no room beside others that wait for parts; asked for again later"
            );
        }
        Event::GivenUp { site, context, received, expected } => {
            info!(
                event = "transfer-given-up",
                site,
                context,
                received,
                expected,
                "parts of a transfer that is not completed any more are let go"
            );
        }
        Event::Resent { site, context, parts } => {
            info!(event = "parts-resent", site, context, parts, "parts leave again");
        }
        Event::Applied { site, context, position, added, changed, deleted } => {
            let usn = position.usn;
            info!(
                event = "transfer-applied",
                site, context, usn, added, changed, deleted, "applied, digest matches"
            );
        }
        Event::NotApplied { site, context, reason } => {
            error!(
                event = "transfer-not-applied",
                site, context, reason, "a transfer was not applied; nothing changed"
            );
        }
        Event::Requested { site, context, full } => {
            info!(event = "requested", site, context, full, "asked for what is missing");
        }
        Event::NotOffered { site, context, requests } => {
            info!(
                event = "not-offered",
                site, context, requests, "the site asked for what it does not get, or what is not held here"
            );
        }
        Event::MasterRenamed { context, master } => {
            info!(event = "master-renamed", context, master, "the site that masters it has this name now");
        }
        Event::ContextAdded { context, master } => {
            info!(event = "context-added", context, master, "a naming context is being taken");
        }
        Event::Equal { site } => debug!(event = "equal", site, "replicas are proved equal"),
        Event::Differs { site, context, position } => {
            error!(
                event = "digest-differs",
                site,
                context,
                usn = position.usn,
                "replicas differ; `bridgehead verify` at the one that follows repairs it"
            );
        }
        Event::Damaged { context, master, position } => {
            error!(
                event = "entries-damaged",
                context,
                master,
                usn = position.usn,
                "what is stored does not have its digest, or cannot be read: it was altered, or the disk fails"
            );
        }
        Event::Forked { site, context, ours, theirs } => {
            error!(
                event = "history-forked",
                site,
                context,
                ours = ours.usn,
                theirs = theirs.usn,
                "two histories claim the same point; held until an administrator decides"
            );
        }
        Event::Twins { site, context, ours, theirs } => {
            error!(
                event = "site-twice",
                site,
                context,
                ours = ours.usn,
                theirs = theirs.usn,
                "two machines speak for this site, and its history goes on differently at each: stop one of them"
            );
        }
        Event::Lost { site, context, ours, theirs } => {
            warn!(
                event = "history-lost",
                site,
                context,
                ours = ours.usn,
                theirs = theirs.usn,
                "the site holds what our own naming context lost; taking it back"
            );
        }
        Event::Repairing { site, context, entries } => {
            info!(event = "repairing", site, context, entries, "entries that differ are on their way");
        }
        Event::Conflict { context, dn, reason } => {
            warn!(event = "conflict", context, dn, reason, "stays as it was changed here since the restore");
        }
        Event::Conflicts { context, entries } => {
            warn!(
                event = "conflicts",
                context, entries, "so many entries have conflicts; the first were named"
            );
        }
        Event::Recovered { site, context, position } => {
            warn!(
                event = "recovered",
                site,
                context,
                usn = position.usn,
                "lost updates were taken back from a partner"
            );
        }
        Event::Held { site, master, context, hold, deletions, entries } => {
            warn!(
                event = "transfer-held",
                site, master, context, hold, deletions, entries, "a transfer waits for approval"
            );
        }
        Event::HoldDecided { hold, context, approved } => {
            info!(
                event = "hold-decided",
                hold, context, approved, "an administrator decided on a held transfer"
            );
        }
        Event::Paused { site, paused } => {
            info!(event = "site-paused", site, paused, "mail to the site stops or goes on")
        }
        Event::Detached { site, transfers, dry_run: false } => {
            info!(event = "site-detached", site, transfers, "the connection is forgotten; its data stays");
        }
        Event::Purged { context, entries, dry_run: false } => {
            warn!(
                event = "context-purged",
                context, entries, "a naming context of another site is deleted here"
            );
        }
        Event::Noticed { site, code, text } => {
            warn!(event = "notice", site, code, text, "the site reports a problem")
        }
        Event::Bounced { site, status, enhanced, text } => {
            warn!(event = "mail-bounced", site, ?status, enhanced, text, "mail came back or was refused");
        }
        Event::PartsHalved { site, part_bytes_max } => {
            warn!(
                event = "parts-halved",
                site, part_bytes_max, "messages to this site are smaller from now on"
            );
        }
        Event::PartsDoubled { site, part_bytes_max } => {
            info!(event = "parts-doubled", site, part_bytes_max, "larger messages to this site are tried");
        }
    }
}

/// The name of an event in the log, one of [`NAMES`].
pub fn name(event: &Event) -> &'static str {
    match event {
        Event::SiteUp { .. } => "site-up",
        Event::TransferSent { .. } => "transfer-sent",
        Event::Resent { .. } => "parts-resent",
        Event::Applied { .. } => "transfer-applied",
        Event::NotApplied { .. } => "transfer-not-applied",
        Event::Requested { .. } => "requested",
        Event::MasterRenamed { .. } => "master-renamed",
        Event::ContextAdded { .. } => "context-added",
        Event::Equal { .. } => "equal",
        Event::Differs { .. } => "digest-differs",
        Event::Forked { .. } => "history-forked",
        Event::Twins { .. } => "site-twice",
        Event::Lost { .. } => "history-lost",
        Event::Repairing { .. } => "repairing",
        Event::Conflict { .. } => "conflict",
        Event::Conflicts { .. } => "conflicts",
        Event::Recovered { .. } => "recovered",
        Event::Held { .. } => "transfer-held",
        Event::HoldDecided { .. } => "hold-decided",
        Event::Paused { .. } => "site-paused",
        Event::Detached { .. } => "site-detached",
        Event::Purged { .. } => "context-purged",
        Event::Noticed { .. } => "notice",
        Event::Bounced { .. } => "mail-bounced",
        Event::PartsHalved { .. } => "parts-halved",
        Event::PartsDoubled { .. } => "parts-doubled",
        Event::Coming { .. } => "transfer-coming",
        Event::Kept { .. } => "copy-kept",
        Event::Forgotten { .. } => "copy-forgotten",
        Event::Refreshing { .. } => "refreshing",
        Event::Bundled { .. } => "bundled",
        Event::Crowded { .. } => "inbox-full",
        Event::GivenUp { .. } => "transfer-given-up",
        Event::Damaged { .. } => "entries-damaged",
        Event::NotOffered { .. } => "not-offered",
    }
}

/// Every [`name`]: the values of the metrics' label `event`.
pub const NAMES: [&str; 35] = [
    "site-up",
    "transfer-sent",
    "parts-resent",
    "transfer-applied",
    "transfer-not-applied",
    "requested",
    "master-renamed",
    "context-added",
    "equal",
    "digest-differs",
    "history-forked",
    "site-twice",
    "history-lost",
    "repairing",
    "conflict",
    "conflicts",
    "recovered",
    "transfer-held",
    "hold-decided",
    "site-paused",
    "site-detached",
    "context-purged",
    "notice",
    "mail-bounced",
    "parts-halved",
    "parts-doubled",
    "transfer-coming",
    "copy-kept",
    "copy-forgotten",
    "refreshing",
    "bundled",
    "inbox-full",
    "transfer-given-up",
    "entries-damaged",
    "not-offered",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads this file: log and counters have one name for an event.
    #[test]
    fn every_event_is_counted_by_the_name_it_is_logged_with() {
        let text = include_str!("events.rs");
        let logged = text.split("(event = \"").chain(text.split(" event = \"")).skip(1);
        let logged: std::collections::BTreeSet<_> =
            logged.filter_map(|rest| rest.split('"').next()).collect();
        let named = text.lines().filter_map(|line| {
            let (variant, name) = line.trim().split_once(" { .. } => \"")?;
            variant.starts_with("Event::").then(|| name.trim_end_matches("\","))
        });
        assert_eq!(named.collect::<Vec<_>>(), NAMES);
        assert!(NAMES.iter().all(|name| logged.contains(name)), "{logged:?}");
    }
}
