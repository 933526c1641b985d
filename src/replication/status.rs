//! What an operator sees of replication: naming contexts and connected sites.
//!
//! The field names are those of `bridgehead status --json` and stay.

use jiff::Timestamp;
use serde::Serialize;

use super::checkpoint::SignedCheckpoint;
use super::engine::config::same_context;
use super::engine::due::{Due, budget_opens, next_due};
use super::engine::hold::{Hold, HoldKind, HoldVerdict, holds};
use super::engine::restore::loss;
use super::engine::turn::point;
use super::engine::{EngineConfig, Partner, Shown};
use super::pacing::millis;
use super::parts::Assembly;
use super::peer::{Link, Millis, Peer, TroubleKind};
use super::schedule::Schedule;
use super::wire::Standing;
use crate::directory::context::{ContextRecord, contexts};
use crate::directory::{Read, StoreError, Table};

/// The whole of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    pub site: String,
    pub contexts: Vec<ContextStatus>,
    pub partners: Vec<PartnerStatus>,
}

/// One naming context as held here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContextStatus {
    pub context: String,
    pub master: String,
    pub position: Shown,
    pub entries: u64,
    /// The state digest, in hexadecimal.
    pub digest: String,
    /// The digest is the one that the master signed for this position.
    pub verified: bool,
    /// `follows`, `held` (a transfer waits for approval), `forked` (two histories contradict each other), `recovering`
    /// (partners hold more of it than we do).
    pub standing: &'static str,
    /// Why it does not follow, for people.
    pub reason: Option<String>,
    /// What to do about it, for people.
    pub next: Option<String>,
}

/// One connected site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartnerStatus {
    pub site: String,
    pub state: PeerState,
    /// Why it is in that state, for people.
    pub reason: String,
    /// What happens next, for people.
    pub next: String,
    /// RFC 3339, UTC.
    pub last_heard: Option<String>,
    pub last_sent: Option<String>,
    /// Naming contexts that may pass between the site and us and that it does not hold as we do, by its last vector.
    pub behind: u64,
    /// When its replicas and ours were last proved equal: by an answer to a message that we sent at `asked` or later.
    pub equal: Option<String>,
    /// When `sync` was last asked for.
    pub asked: Option<String>,
    /// The measured round trip, in seconds.
    pub round_trip: Option<u64>,
    pub contexts: Vec<PartnerContext>,
}

/// One naming context as a connected site holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartnerContext {
    pub context: String,
    pub position: Option<Shown>,
    pub equal: bool,
    /// It may pass between the site and us, and the site holds it or would take it.
    pub wanted: bool,
    /// Transfers on their way to it.
    pub in_flight: u64,
    /// Why it is not equal, for people.
    pub reason: Option<String>,
    /// Parts received and expected of the transfer that comes in.
    pub received: Option<(u32, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerState {
    /// Never answered: only hello is sent.
    New,
    Up,
    /// Not heard for some heartbeats.
    Quiet,
    /// Its mail is delayed on the way, or our next hop is away.
    Delayed,
    /// Mail to it comes back.
    Bouncing,
    /// Our next hop refuses mail to it.
    Refused,
    /// By the operator's word.
    Paused,
    /// Two machines speak for it.
    Twice,
}

/// What the store says now. `now` decides what is quiet.
///
/// # Errors
/// The store's.
pub fn status(read: &dyn Read, config: &EngineConfig, now: Timestamp) -> Result<Status, StoreError> {
    let records = contexts(read)?;
    let mut all = Vec::with_capacity(records.len());
    for record in &records {
        all.push(context_status(read, record)?);
    }
    let mut partners = Vec::with_capacity(config.partners.len());
    for partner in &config.partners {
        let peer = Peer::load(read, &partner.site)?.unwrap_or_default();
        partners.push(partner_status(read, config, partner, &peer, &records, now.as_millisecond())?);
    }
    Ok(Status { site: config.site.clone(), contexts: all, partners })
}

fn context_status(read: &dyn Read, record: &ContextRecord) -> Result<ContextStatus, StoreError> {
    let signed = read.get(Table::Checkpoint, &record.number.to_be_bytes())?;
    let claimed = signed.and_then(|bytes| SignedCheckpoint::from_bytes(&bytes).ok()?.claimed().ok());
    let said = claimed.map(|checkpoint| (checkpoint.position, checkpoint.digest));
    let (standing, reason, next) = standing(read, record)?;
    Ok(ContextStatus {
        reason,
        next,
        context: record.dn.to_string(),
        master: record.master.clone(),
        position: record.position.into(),
        entries: record.entries,
        digest: record.digest.to_string(),
        verified: said == Some((record.position, record.digest)),
        standing,
    })
}

/// How it stands, why, and what to do.
fn standing(
    read: &dyn Read,
    record: &ContextRecord,
) -> Result<(&'static str, Option<String>, Option<String>), StoreError> {
    let name = record.dn.to_string();
    let decide = |id: u64, verdict: HoldVerdict| match verdict {
        HoldVerdict::Rejected => {
            format!("nothing: it was rejected; `bridgehead hold approve {id}` undoes that")
        }
        HoldVerdict::Waiting => format!("`bridgehead hold show {id}`, then approve or reject it"),
        HoldVerdict::Approved => "it was approved and is on its way".to_owned(),
    };
    if let Some(hold) = holds(read)?.into_iter().find(|hold| same_context(&hold.context, &name)) {
        let of = hold.of();
        let Hold { id, site, deletions, entries, target, verdict, .. } = hold;
        let next = Some(decide(id, verdict));
        return Ok(match hold.kind {
            HoldKind::Deletions => (
                "held",
                Some(format!("a transfer from {of} would delete {deletions} of {entries} entries")),
                next,
            ),
            HoldKind::Fork => (
                "forked",
                Some(format!("{site} holds another history, at USN {} of {}", target.usn, target.invocation)),
                next,
            ),
        });
    }
    Ok(match loss(read, record.number)?.seen {
        Some(seen) => (
            "recovering",
            Some(format!("a site holds USN {} of {}, which was lost here", seen.usn, seen.invocation)),
            Some("it is asked for and taken back by itself".to_owned()),
        ),
        None => ("follows", None, None),
    })
}

fn partner_status(
    read: &dyn Read,
    config: &EngineConfig,
    partner: &Partner,
    peer: &Peer,
    records: &[ContextRecord],
    now: Millis,
) -> Result<PartnerStatus, StoreError> {
    let mut contexts = Vec::with_capacity(peer.links.len());
    let assemblies = Assembly::all_from(read, &partner.site)?;
    let spent = budget_opens(partner, peer, now) > now;
    let held = holds(read)?;
    for link in &peer.links {
        let record = records.iter().find(|record| same_context(&record.dn.to_string(), &link.context));
        let own = record.and_then(point);
        let coming = assemblies.iter().find(|assembly| {
            let manifest = assembly.manifest().ok().flatten();
            let said = manifest.and_then(|manifest| manifest.checkpoint.claimed().ok());
            said.is_some_and(|said| same_context(&said.context.to_string(), &link.context))
        });
        let equal = link.theirs == own;
        let wanted = link.wanted && passes(config, partner, record, &link.context);
        let waits = |hold: &&Hold| hold.site == partner.site && same_context(&hold.context, &link.context);
        let reason = (wanted && !equal).then(|| match held.iter().find(waits) {
            Some(hold) => format!("held here: `bridgehead hold show {}`", hold.id),
            None => why_unequal(config, link, record, spent, now),
        });
        contexts.push(PartnerContext {
            context: link.context.clone(),
            position: link.theirs.map(|(position, _)| position.into()),
            equal,
            wanted,
            reason,
            in_flight: link.chain.len() as u64,
            received: coming.map(|assembly| assembly.count()).map(|(of, present)| (present, of)),
        });
    }
    let (state, reason, next) = peer_state(config, partner, peer, now);
    Ok(PartnerStatus {
        site: partner.site.clone(),
        state,
        reason,
        next,
        last_heard: peer.heard_at.map(shown_time),
        last_sent: peer.sent_at.map(shown_time),
        behind: contexts.iter().filter(|context| context.wanted && !context.equal).count() as u64,
        equal: peer.equal_at.map(shown_time),
        asked: peer.asked_at.map(shown_time),
        round_trip: peer.round_trip.smoothed.map(|trip| trip as u64 / 1000),
        contexts,
    })
}

/// Whether the naming context goes to the site or comes from it, as the link is configured.
fn passes(config: &EngineConfig, partner: &Partner, record: Option<&ContextRecord>, context: &str) -> bool {
    let ours = record.is_some_and(|record| record.master == config.site);
    let master = config.master(context).map(|known| known.site.as_str());
    let goes = record.is_some_and(|record| partner.gets(&config.site, record));
    goes || (!ours && partner.gives(master, context))
}

/// Why the site and we do not hold the same of a naming context.
fn why_unequal(
    config: &EngineConfig,
    link: &Link,
    record: Option<&ContextRecord>,
    spent: bool,
    now: Millis,
) -> String {
    let waits = if spent { "waits for tomorrow: its bytes of today are spent" } else { "waits to be sent" };
    if record.is_none() && config.master(&link.context).is_none() {
        return "not taken: no known site masters it; `bridgehead site list` shows cards that wait"
            .to_owned();
    }
    match link.standing {
        Standing::Held => {
            return "held there: its administrator is to look at `bridgehead hold list`".to_owned();
        }
        Standing::Forked => return "forked there: it continues in two histories".to_owned(),
        Standing::Recovering => return "that site takes back what it lost".to_owned(),
        Standing::Follows => {}
    }
    if link.awaits_file(now) {
        return "its first load is on its way by file".to_owned();
    }
    let stands = |what: String| match (link.theirs, record.map(|record| record.position)) {
        (Some((theirs, _)), Some(ours)) => format!("at USN {} there, {} here; {what}", theirs.usn, ours.usn),
        (None, Some(ours)) if ours.usn > 0 => format!("not there yet, at USN {} here; {what}", ours.usn),
        _ => format!("not here yet; {what}"),
    };
    if let Some(last) = link.chain.iter().map(|flight| flight.at).max() {
        return stands(if link.chain.iter().all(|flight| flight.next == 0) {
            waits.to_owned()
        } else {
            format!("last sent at {}, not acknowledged", shown_time(last))
        });
    }
    if let (Some((theirs, _)), Some(ours)) = (link.theirs, record.map(|record| record.position))
        && theirs == ours
    {
        return format!(
            "at USN {} as here, but not the same; `bridgehead verify` where it is a copy repairs that",
            ours.usn
        );
    }
    stands(match (link.push_at, link.ask_at) {
        (Some(_), _) => waits.to_owned(),
        (None, Some(_)) if link.asks > 0 => format!("asked for {} times", link.asks),
        (None, Some(_)) => "expected".to_owned(),
        (None, None) => "nothing is on its way".to_owned(),
    })
}

fn peer_state(
    config: &EngineConfig,
    partner: &Partner,
    peer: &Peer,
    now: Millis,
) -> (PeerState, String, String) {
    if partner.paused || peer.paused {
        return (
            PeerState::Paused,
            "paused by the operator".into(),
            "nothing is sent until it is resumed".into(),
        );
    }
    let due = next_due(config, partner, peer, now);
    let next = match due {
        Some((at, why)) => format!("{} at {}", due_in_words(why), shown_time(at.max(now))),
        None if partner.schedule == Schedule::Never => "nothing is sent: its schedule is never".to_owned(),
        None => "nothing is due".to_owned(),
    };
    if let Some(trouble) = peer.deferred.as_ref().or(peer.trouble.as_ref()) {
        let (state, what) = match trouble.kind {
            TroubleKind::Delayed => (PeerState::Delayed, "mail to it is delayed on the way"),
            TroubleKind::Deferred => (PeerState::Delayed, "our next hop does not take mail to it for now"),
            TroubleKind::Bouncing => (PeerState::Bouncing, "mail to it comes back"),
            TroubleKind::Refused => (PeerState::Refused, "our next hop refuses mail to it"),
        };
        let since = shown_time(trouble.since);
        let advice = advice(&trouble.text).map_or_else(String::new, |advice| format!("; {advice}"));
        return (state, format!("{what} since {since}: {}", trouble.text), format!("{next}{advice}"));
    }
    if !peer.answered {
        return (PeerState::New, "it has not answered yet".into(), next);
    }
    let patience = millis(config.timing.heartbeat).saturating_mul(i64::from(config.timing.quiet_heartbeats));
    if !partner.one_way && peer.heard_at.is_none_or(|at| now - at > patience) {
        let reason =
            peer.heard_at.map_or("never heard".into(), |at| format!("not heard since {}", shown_time(at)));
        return (PeerState::Quiet, reason, next);
    }
    let twins = |link: &Link| Some((link.context.clone(), link.twin.as_ref()?.known(now)?));
    if let Some((context, since)) = peer.links.iter().find_map(twins) {
        let reason = format!(
            "two machines speak for it since {}: {context} goes on differently at each",
            shown_time(since)
        );
        let next =
            "one of them is to be stopped; what only that one has is kept here: `bridgehead quarantine list`";
        return (PeerState::Twice, reason, next.to_owned());
    }
    if let Some(link) = peer.links.iter().find(|link| link.awaits_file(now)) {
        let reason = "it answers; its first load is on its way by file".to_owned();
        let until = link.by_file.map(shown_time).unwrap_or_default();
        return (
            PeerState::Up,
            reason,
            format!("the first load by mail, unless the file is taken, at {until}"),
        );
    }
    let reason = if partner.one_way { "nothing comes back over this link" } else { "it answers" };
    (PeerState::Up, reason.into(), next)
}

fn due_in_words(why: Due) -> &'static str {
    match why {
        Due::Hello => "hello",
        Due::Changes => "changes leave",
        Due::Parts => "more parts leave",
        Due::Budget => "its bytes of today are spent; more parts leave",
        Due::Again => "what was not acknowledged is sent again",
        Due::Missing => "what is missing here is asked for",
        Due::Question => "it is asked once more",
        Due::Comparison => "digests are compared",
        Due::Acknowledgement => "an acknowledgement leaves",
        Due::Repeat => "everything is sent again",
        Due::Heartbeat => "heartbeat",
    }
}

/// What to look at, by the enhanced status code (RFC 3463) of a refusal.
fn advice(text: &str) -> Option<&'static str> {
    let code =
        text.split(|c: char| !(c.is_ascii_digit() || c == '.')).find_map(|word| word.strip_prefix("5."))?;
    let (subject, detail) = code.split_once('.')?;
    match (subject, detail) {
        ("1", _) => Some("ask whether its mailbox, as `site list` shows it, is still right"),
        ("2", "2") => Some("its mailbox is full"),
        ("2", "3") | ("3", "4") => Some("messages become smaller by themselves, down to 16 KiB"),
        ("7", _) => Some("a filter or policy on the way is to let replication mail pass"),
        _ => None,
    }
}

/// RFC 3339, UTC, whole seconds.
pub fn shown_time(at: Millis) -> String {
    Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |time| format!("{time:.3}"))
}
