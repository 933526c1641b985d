//! Every limit that an operator may meet, in one table: its key, its unit, its default, and the metric that counts
//! when it bites.
//!
//! PROMISES
//!   The section LIMITS of bridgehead.toml(5) is this table. Every key of `[limits]` is in it, and a test meets each
//!   limit of the relay over SMTP and sees its metric rise.

use std::time::Duration;

use super::ReplicationConfig;
use super::relay::RelayLimits;
use crate::limits;
use crate::replication::engine::quarantine;

macro_rules! rule {
    ($rule:literal) => {
        concat!("refusals_total{rule=\"", $rule, "\"}")
    };
}
macro_rules! reason {
    ($reason:literal) => {
        concat!("next_hop_failures_total{reason=\"", $reason, "\"}")
    };
}

/// One limit.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Section and key; empty: built in.
    pub key: &'static str,
    /// What it bounds, for people.
    pub of: &'static str,
    pub default: Amount,
    /// The metric, with its labels, as `/metrics` shows it.
    pub metric: &'static str,
}

/// A number and its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    Count(u64),
    Octets(u64),
    OctetsASecond(u64),
    Lasting(Duration),
    Percent(u8),
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Amount::Count(0) | Amount::Octets(0) => f.write_str("no limit"),
            Amount::Count(count) => write!(f, "{count}"),
            Amount::Octets(octets) if octets % (1 << 20) == 0 => write!(f, "{} MiB", octets >> 20),
            Amount::Octets(octets) if octets % (1 << 10) == 0 => write!(f, "{} KiB", octets >> 10),
            Amount::Octets(octets) => write!(f, "{octets} octets"),
            Amount::OctetsASecond(octets) => write!(f, "{octets} octets/s"),
            Amount::Lasting(time) => write!(f, "{} s", time.as_secs()),
            Amount::Percent(percent) => write!(f, "{percent} %"),
        }
    }
}

/// The table, defaults as in `RelayLimits::default()` and its like.
pub fn all() -> Vec<Bound> {
    let relay = RelayLimits::default();
    let count = |n: usize| Amount::Count(n as u64);
    let bound = |key, of, default, metric| Bound { key, of, default, metric };
    vec![
        bound(
            "limits.connections",
            "client connections at once",
            count(relay.connections_max),
            rule!("too_many_connections"),
        ),
        bound(
            "limits.connections_per_network",
            "of one client network (/32, /64)",
            count(relay.connections_per_network_max),
            rule!("too_many_of_network"),
        ),
        bound(
            "limits.connections_per_minute",
            "new, of one client network",
            Amount::Count(relay.connections_per_minute_max.into()),
            rule!("connection_rate"),
        ),
        bound(
            "limits.messages_per_minute",
            "of one client network",
            Amount::Count(relay.messages_per_minute_max.into()),
            rule!("message_rate"),
        ),
        bound(
            "limits.recipients",
            "of one message",
            count(relay.recipients_max),
            rule!("too_many_recipients"),
        ),
        bound(
            "limits.message_bytes",
            "of one message",
            Amount::Octets(relay.message_bytes_max),
            rule!("message_too_large"),
        ),
        bound(
            "limits.replication_message_bytes",
            "of one message to a replication mailbox",
            Amount::Octets(relay.replication_message_bytes_max as u64),
            rule!("replication_message_too_large"),
        ),
        bound(
            "limits.command_bytes",
            "of one command line",
            Amount::Octets(relay.command_bytes_max as u64),
            rule!("line_too_long"),
        ),
        bound(
            "limits.line_bytes",
            "of one line of a message",
            Amount::Octets(relay.line_bytes_max as u64),
            rule!("data_line_too_long"),
        ),
        bound("limits.received_headers", "of one message", count(relay.received_max), rule!("loop_received")),
        bound(
            "",
            "times a message may carry our trace for the same recipients",
            Amount::Count(1),
            rule!("loop_trace"),
        ),
        bound(
            "limits.errors",
            "of one session",
            Amount::Count(relay.errors_max.into()),
            rule!("too_many_errors"),
        ),
        bound(
            "limits.greeting_delay",
            "for clients that speak first",
            Amount::Lasting(relay.greeting_delay),
            rule!("early_talker"),
        ),
        bound(
            "limits.command_timeout",
            "until the next command",
            Amount::Lasting(relay.command_timeout),
            rule!("command_timeout"),
        ),
        bound(
            "limits.data_timeout",
            "without an octet of the message",
            Amount::Lasting(relay.data_timeout),
            rule!("data_timeout"),
        ),
        bound(
            "limits.data_bytes_per_second",
            "at least, from a client that sends",
            Amount::OctetsASecond(relay.data_rate_min),
            rule!("too_slow"),
        ),
        bound(
            "limits.slow_grace",
            "before that counts",
            Amount::Lasting(relay.slow_grace),
            rule!("too_slow"),
        ),
        bound(
            "limits.session_timeout",
            "of a whole session",
            Amount::Lasting(relay.session_timeout),
            rule!("session_timeout"),
        ),
        bound(
            "limits.drain",
            "for open sessions after a request to stop",
            Amount::Lasting(relay.drain),
            "sessions_cut_off_total",
        ),
        bound(
            "limits.connect_timeout",
            "to reach a next hop and be greeted",
            Amount::Lasting(relay.connect_timeout),
            reason!("unreachable"),
        ),
        bound(
            "limits.reply_timeout",
            "for a next hop's reply",
            Amount::Lasting(relay.reply_timeout),
            reason!("silent"),
        ),
        bound(
            "limits.final_timeout",
            "for its reply to the final dot",
            Amount::Lasting(relay.final_timeout),
            reason!("silent_at_dot"),
        ),
        bound(
            "",
            "of one reply of a next hop",
            Amount::Octets(limits::REPLY_BYTES_MAX as u64),
            reason!("garbage"),
        ),
        bound(
            "route.connections",
            "to one next hop at once",
            count(limits::NEXT_HOP_CONNECTIONS_MAX),
            reason!("busy"),
        ),
        bound(
            "limits.pool_idle",
            "that an unused connection is kept",
            Amount::Lasting(relay.pool_idle),
            "next_hop_closed_idle_total",
        ),
        bound(
            "limits.back_off_min",
            "without a next hop that failed, at first",
            Amount::Lasting(relay.back_off_min),
            "next_hop_back_offs_total",
        ),
        bound(
            "limits.back_off_max",
            "at most",
            Amount::Lasting(relay.back_off_max),
            "next_hop_back_offs_total",
        ),
        bound(
            "replication.part_bytes",
            "of one part of a transfer",
            Amount::Octets(ReplicationConfig::default().part_bytes_max),
            "replication_parts_total{sent=\"first\"}",
        ),
        bound(
            "link.hold_deletions_percent",
            "of a naming context's entries, deleted by one transfer",
            Amount::Percent(limits::HOLD_DELETIONS_PERCENT),
            "replication_events_total{event=\"transfer-held\"}",
        ),
        bound(
            "",
            "copies of what connected sites sent and took no effect, and as many of other mail",
            count(quarantine::COPIES_MAX),
            "quarantined",
        ),
        bound(
            "replication.quarantine_bytes",
            "of those copies in all, half for each kind; the oldest go first",
            Amount::Octets(limits::QUARANTINE_BYTES),
            "replication_events_total{event=\"copy-forgotten\"}",
        ),
    ]
}

/// The table in the language of the manual, between its first and its last line.
pub fn manual() -> String {
    let mut text = String::from(".Bl -tag -width indent\n");
    for bound in all() {
        let key = if bound.key.is_empty() { "Built in" } else { bound.key };
        let Bound { of, default, .. } = bound;
        let metric = bound.metric.replace('"', "\\(dq");
        text.push_str(&format!(".It {key}\n{default}: {of}.\n.br\n.Li bridgehead_{metric}\n"));
    }
    text.push_str(".El\n");
    text
}
