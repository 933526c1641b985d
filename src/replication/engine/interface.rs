//! What goes into the engine and what comes out.
//!
//! PROMISES
//!   Outputs are acted on only after the transaction that made them is committed; an output that is
//!   lost in a crash is a lost mail, and those are harmless.

use jiff::Timestamp;
use serde::Serialize;

use crate::directory::Position;
use crate::replication::wire::KeyId;

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The engine begins to run on this store (once, after each start of the daemon).
    Start,
    /// A deadline came, or may have.
    Tick,
    /// A message was opened and its sender proved.
    Received { from: String, header: Header, payload: Vec<u8> },
    /// A mail to us was refused before it came to this: it is kept for the operator. `from` is its reverse path,
    /// `mail` its first octets, of `bytes` that came.
    Refused { from: String, reason: String, mail: Vec<u8>, bytes: u64 },
    /// A commit raised the position of one of our own naming contexts, by its number. It belongs into the
    /// commit's own transaction, for it may give the commit a new invocation id.
    LocalCommit { context: u32 },
    /// The next hop took the mail.
    Sent { to: String, mail: u64 },
    /// The next hop refused the mail or could not be reached (then `reply` is 421).
    SendFailed { to: String, mail: u64, reply: u16, enhanced: String, text: String },
    /// A delivery status notification came for this mail.
    Bounced { to: String, mail: u64, status: BounceStatus, enhanced: String, text: String },
    /// Exchange now, with one site or with all, and ask for an answer.
    Sync { site: Option<String> },
    /// Ask one site or all for everything in which we differ, or for one naming context: the way out of a fork, at the
    /// cost of what only this site holds.
    Refresh { site: Option<String>, context: Option<String>, dry_run: bool },
    /// The operator has no more use for these kept copies.
    Forget { ids: Vec<String> },
    /// The operator wants a kept message taken once more.
    Release { id: String },
    /// Compare digests with one site or with all.
    Verify { site: Option<String> },
    /// The operator's word on a transfer that waits.
    Hold { hold: u64, approve: bool },
    /// Stop or resume mail to a site.
    Pause { site: String, paused: bool },
    /// Forget the connection to a site, keeping what it masters.
    Detach { site: String, dry_run: bool },
    /// Delete what a site masters.
    Purge { site: String, dry_run: bool },
}

/// What the sealed envelope says about the message, as far as the engine needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Rises with every message from this sender to us.
    pub seq: u64,
    /// The sender's clock.
    pub time: Timestamp,
    /// Of the mail that it came in, without angle brackets; none: it did not come as mail, or had none.
    pub message_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BounceStatus {
    /// Still being tried.
    Delayed,
    /// Given up.
    Failed,
    /// Given up because the message was too large (552, 5.3.4, 5.2.3).
    TooLarge,
}

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Output {
    /// Seal this for `to` with `mail` as its sequence number, sign it with that key of ours, and submit it.
    Mail { to: String, mail: u64, payload: Vec<u8>, signer: KeyId },
    /// The site told its card, and it is not the one that is pinned: its cards, oldest first. Check whether they
    /// lead on from the pinned one.
    Card { site: String, cards: Vec<String> },
    /// The site gave its word for other sites.
    Introduced { by: String, introductions: Vec<String> },
    /// Log this.
    Event(Event),
}

/// What an operator or a log reader may want to know, by stable names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A site answered for the first time, or again after it was silent.
    SiteUp {
        site: String,
    },
    /// A copy was kept of something that was received and took no effect; `site` is empty if nobody signed it.
    Kept {
        id: String,
        site: String,
        reason: String,
        bytes: u64,
        /// Octets of it that are kept.
        kept: u64,
    },
    /// A kept copy was let go, by the operator's word or for space.
    Forgotten {
        id: String,
    },
    /// By the operator's word, what is held of a naming context is given up for what the site holds.
    Refreshing {
        site: String,
        context: String,
        ours: Option<Shown>,
        theirs: Shown,
        entries: u64,
        dry_run: bool,
    },
    /// So many parts of a transfer of many have arrived; told at each tenth.
    Coming {
        site: String,
        context: String,
        received: u32,
        expected: u32,
    },
    /// A full load went into a file.
    Bundled {
        site: String,
        context: String,
        position: Shown,
        entries: u64,
        parts: u32,
    },
    /// A transfer is on its way.
    TransferSent {
        site: String,
        context: String,
        base: Option<Shown>,
        target: Shown,
        parts: u32,
        bytes: u64,
    },
    /// Parts that came were not kept, or not any longer, for want of room beside others; they are asked for again.
    Crowded {
        site: String,
        /// Empty: nobody knows yet.
        context: String,
        parts: u32,
        bytes: u64,
        /// The room that there is.
        bytes_max: u64,
    },
    /// The site does not go on with a transfer of which so many parts came, or it is not wanted any more: they are let go.
    GivenUp {
        site: String,
        context: String,
        received: u32,
        expected: u32,
    },
    /// Parts were sent again.
    Resent {
        site: String,
        context: String,
        parts: u32,
    },
    /// A transfer was applied and its digest matched.
    Applied {
        site: String,
        context: String,
        position: Shown,
        added: u64,
        changed: u64,
        deleted: u64,
    },
    /// A transfer was not applied.
    NotApplied {
        site: String,
        context: String,
        reason: String,
    },
    /// So many requests of one message are for what does not go to the site, or is not held here.
    NotOffered {
        site: String,
        /// The first of them.
        context: String,
        requests: u64,
    },
    /// We asked for what we miss.
    Requested {
        site: String,
        context: String,
        full: bool,
    },
    /// A naming context that we did not hold yet is being taken.
    ContextAdded {
        context: String,
        master: String,
    },
    /// A naming context goes by the present name of the site that masters it.
    MasterRenamed {
        context: String,
        master: String,
    },
    /// The site's replicas and ours were proved equal.
    Equal {
        site: String,
    },
    /// A digest differs at the same position.
    Differs {
        site: String,
        context: String,
        position: Shown,
    },
    /// The entries that are stored do not have the digest that is told of them, or cannot be read: they were altered
    /// behind our back.
    Damaged {
        context: String,
        master: String,
        position: Shown,
    },
    /// So many entries differ at the site; they are on their way.
    Repairing {
        site: String,
        context: String,
        entries: u64,
    },
    /// Two histories claim the same point.
    Forked {
        site: String,
        context: String,
        ours: Shown,
        theirs: Shown,
    },
    /// The site goes to and fro between our history and another: two machines speak for it.
    Twins {
        site: String,
        context: String,
        ours: Shown,
        theirs: Shown,
    },
    /// A partner holds what our own naming context does not have any more.
    Lost {
        site: String,
        context: String,
        ours: Shown,
        theirs: Shown,
    },
    /// Of an entry something was not taken back, for what was changed here since stands in its way.
    Conflict {
        context: String,
        dn: String,
        reason: String,
    },
    /// There are more of them than were named.
    Conflicts {
        context: String,
        entries: u64,
    },
    /// Our own naming context was ahead at a partner: we were restored from a backup.
    Recovered {
        site: String,
        context: String,
        position: Shown,
    },
    /// A transfer waits for the operator's word.
    Held {
        site: String,
        /// Whose deletions they are, whoever sent them.
        master: String,
        context: String,
        hold: u64,
        deletions: u64,
        entries: u64,
    },
    /// The operator decided on a transfer that waited.
    HoldDecided {
        hold: u64,
        context: String,
        approved: bool,
    },
    Paused {
        site: String,
        paused: bool,
    },
    /// The connection was forgotten, with so many transfers that were on their way.
    Detached {
        site: String,
        transfers: u64,
        dry_run: bool,
    },
    /// A naming context of another site was deleted here.
    Purged {
        context: String,
        entries: u64,
        dry_run: bool,
    },
    /// The site's administrator should look at this.
    Noticed {
        site: String,
        code: u32,
        text: String,
    },
    /// A mail came back or was refused.
    Bounced {
        site: String,
        status: BounceStatus,
        enhanced: String,
        text: String,
    },
    /// Messages to this site are smaller from now on.
    PartsHalved {
        site: String,
        part_bytes_max: u64,
    },
    /// Messages to this site may be larger again from now on.
    PartsDoubled {
        site: String,
        part_bytes_max: u64,
    },
}

/// A position as shown to people and to scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    pub invocation: String,
    pub usn: u64,
}

impl From<Position> for Shown {
    fn from(position: Position) -> Self {
        Shown { invocation: position.invocation.to_string(), usn: position.usn }
    }
}

/// What became of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Taken,
    /// The message was seen before, or the report is about mail that was heard since; to accept it is harmless.
    Repeated,
    /// It takes no effect: answer 5xx to a message of a site.
    Refused(Refusal),
}

/// Why a received message took no effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "refusal", rename_all = "kebab-case")]
pub enum Refusal {
    /// The sender's fault: not of our partners.
    #[error("this site does not exchange mail with {site}")]
    NotAPartner { site: String },
    /// The sender's fault.
    #[error("{reason}")]
    Malformed { reason: String },
    /// A delivery status notification about mail that we do not know of: it is made up, or our store is from an earlier
    /// day.
    #[error("a report about mail to {site} that this site does not know to have sent")]
    NeverSent { site: String },
}
