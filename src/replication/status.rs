//! What an operator sees of replication: naming contexts and connected sites.
//!
//! The field names are those of `bridgehead status --json` and stay.

use jiff::Timestamp;
use serde::Serialize;

use super::checkpoint::SignedCheckpoint;
use super::engine::config::same_context;
use super::engine::hold::{Hold, HoldKind, holds};
use super::engine::restore::loss;
use super::engine::turn::point;
use super::engine::{EngineConfig, Partner, Shown};
use super::pacing::millis;
use super::parts::Assembly;
use super::peer::{Millis, Peer, TroubleKind};
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
    /// Naming contexts that the site does not hold as we do, by its last vector, and those in which we are behind it.
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
    /// The site holds it or would take it.
    pub wanted: bool,
    /// Transfers on their way to it.
    pub in_flight: u64,
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
    let decide = |id: u64| Some(format!("`bridgehead hold show {id}`, then approve or reject it"));
    if let Some(hold) = holds(read)?.into_iter().find(|hold| same_context(&hold.context, &name)) {
        let Hold { id, site, deletions, entries, target, .. } = hold;
        return Ok(match hold.kind {
            HoldKind::Deletions => (
                "held",
                Some(format!("a transfer from {site} would delete {deletions} of {entries} entries")),
                decide(id),
            ),
            HoldKind::Fork => (
                "forked",
                Some(format!("{site} holds another history, at USN {} of {}", target.usn, target.invocation)),
                decide(id),
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
    for link in &peer.links {
        let record = records.iter().find(|record| same_context(&record.dn.to_string(), &link.context));
        let own = record.and_then(point);
        let coming = assemblies.iter().find(|assembly| {
            let manifest = assembly.manifest().ok().flatten();
            let said = manifest.and_then(|manifest| manifest.checkpoint.claimed().ok());
            said.is_some_and(|said| same_context(&said.context.to_string(), &link.context))
        });
        contexts.push(PartnerContext {
            context: link.context.clone(),
            position: link.theirs.map(|(position, _)| position.into()),
            equal: link.theirs == own,
            wanted: link.wanted,
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

fn peer_state(
    config: &EngineConfig,
    partner: &Partner,
    peer: &Peer,
    now: Millis,
) -> (PeerState, String, String) {
    let next = |what: &str, at: Option<Millis>| match at {
        Some(at) => format!("{what} at {}", shown_time(at.max(now))),
        None => what.to_owned(),
    };
    let heartbeat = millis(config.timing.heartbeat);
    let beat = peer.sent_at.map(|at| at + heartbeat);
    if partner.paused || peer.paused {
        return (
            PeerState::Paused,
            "paused by the operator".into(),
            "nothing is sent until it is resumed".into(),
        );
    }
    if let Some(trouble) = &peer.trouble {
        let again = next("try again", peer.retry_at.or(peer.hello_at).or(beat));
        let state = match trouble.kind {
            TroubleKind::Delayed => PeerState::Delayed,
            TroubleKind::Bouncing => PeerState::Bouncing,
            TroubleKind::Refused => PeerState::Refused,
        };
        return (state, trouble.text.clone(), again);
    }
    if !peer.answered {
        return (PeerState::New, "it has not answered yet".into(), next("hello", peer.hello_at));
    }
    let patience = heartbeat.saturating_mul(i64::from(config.timing.quiet_heartbeats));
    if peer.heard_at.is_none_or(|at| now - at > patience) {
        let reason =
            peer.heard_at.map_or("never heard".into(), |at| format!("not heard since {}", shown_time(at)));
        return (PeerState::Quiet, reason, next("heartbeat", beat));
    }
    if let Some(link) = peer.links.iter().find(|link| link.awaits_file(now)) {
        let reason = "it answers; its first load is on its way by file".to_owned();
        return (
            PeerState::Up,
            reason,
            next("the first load by mail, unless the file is taken,", link.by_file),
        );
    }
    (PeerState::Up, "it answers".into(), next("heartbeat", beat))
}

/// RFC 3339, UTC, whole seconds.
pub fn shown_time(at: Millis) -> String {
    Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |time| format!("{time:.3}"))
}
