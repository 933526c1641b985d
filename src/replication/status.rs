//! What an operator sees of replication: naming contexts and connected sites.
//!
//! The field names are those of `bridgehead status --json` and stay.

use serde::Serialize;

use crate::replication::engine::Shown;

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
    /// `follows`, `held`, `forked`, `recovering`.
    pub standing: &'static str,
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
