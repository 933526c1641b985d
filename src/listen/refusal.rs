//! Everything that we refuse by ourselves, and the one place where that becomes a reply.
//!
//! PROMISES
//!   The reply says which limit or rule it was. Trouble of ours or of the next hop is always 4xx; 5xx is for what
//!   the client can only fix itself.
//!
//! STANDARDS
//!   RFC 5321 section 4.2.3, RFC 3463; RFC 1870 (552), RFC 3207 (530, 454), RFC 4954 (530, 535), RFC 6531
//!   (553 5.6.7), RFC 5248 (5.6.x).

use crate::config::relay::RelayLimits;
use crate::route::NotRouted;
use crate::smtp::data::LineEndFault;
use crate::smtp::{CommandError, Enhanced, ParameterError, Reply};

/// Why we refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    // --- the client is at fault ---
    Command(CommandError),
    /// A bare CR or LF, or NUL, in a command.
    BrokenLine,
    LineTooLong,
    Parameter(ParameterError),
    /// A parameter of an extension that was not offered.
    NotOffered(&'static str),
    NotImplemented,
    OutOfSequence(&'static str),
    /// The client sent on where it had to wait for our reply.
    Pipelined(&'static str),
    EarlyTalker,
    NoRecipients,
    TooManyErrors,
    NotTrusted(&'static str),
    Attribute(&'static str),
    RelayingDenied,
    UnknownRecipient,
    NoRoute,
    /// Of a route by MX.
    NoSuchDomain,
    NullMx,
    NeedsSmtpUtf8,
    NeedsTls,
    NeedsAuth,
    AuthMechanism,
    AuthFailed,
    AuthCancelled,
    AuthLineTooLong,
    TlsActive,
    LineEnds(LineEndFault),
    DataLineTooLong,
    MessageTooLarge,
    ReplicationMessageTooLarge,
    /// Our own trace for the same recipients is in the message already.
    LoopTrace,
    /// More `Received:` fields than a message gathers on any way.
    LoopReceived,
    // --- limits that time heals ---
    TooManyConnections,
    TooManyOfNetwork,
    ConnectionRate,
    MessageRate,
    TooManyRecipients,
    OtherRoute,
    TooSlow,
    CommandTimeout,
    DataTimeout,
    SessionTimeout,
    // --- the next hop or we are at fault ---
    ShuttingDown,
    /// The next hop does not offer what we offered while we did not know it.
    NextHopLacks(&'static str),
    NextHopAway,
    NextHopLost,
    NextHopEarly,
    Internal,
    TlsUnavailable,
    /// Whoever knows the passwords cannot be asked.
    AuthUnavailable,
    /// The next hop on whose connection the client authenticated.
    AuthLost,
}

impl Refusal {
    /// The reply, naming limits by their configured values.
    pub fn reply(&self, limits: &RelayLimits) -> Reply {
        let (code, enhanced, text) = self.words(limits);
        Reply::new(code, enhanced, &text)
    }

    /// Whether it counts towards the errors after which a client is disconnected.
    pub fn is_client_error(&self) -> bool {
        !matches!(
            self,
            Refusal::OtherRoute
                | Refusal::TooManyRecipients
                | Refusal::NextHopLacks(_)
                | Refusal::NextHopAway
                | Refusal::NextHopLost
                | Refusal::NextHopEarly
                | Refusal::Internal
                | Refusal::TlsUnavailable
                | Refusal::AuthUnavailable
                | Refusal::AuthLost
                | Refusal::ShuttingDown
                | Refusal::MessageRate
        )
    }

    /// A word for logs and counters, one of [`NAMES`].
    pub fn name(&self) -> &'static str {
        match self {
            Refusal::Command(_) => "command",
            Refusal::BrokenLine => "broken_line",
            Refusal::LineTooLong => "line_too_long",
            Refusal::Parameter(_) => "parameter",
            Refusal::NotOffered(_) => "not_offered",
            Refusal::NotImplemented => "not_implemented",
            Refusal::OutOfSequence(_) => "out_of_sequence",
            Refusal::Pipelined(_) => "pipelined",
            Refusal::EarlyTalker => "early_talker",
            Refusal::NoRecipients => "no_recipients",
            Refusal::TooManyErrors => "too_many_errors",
            Refusal::NotTrusted(_) => "not_trusted",
            Refusal::Attribute(_) => "attribute",
            Refusal::RelayingDenied => "relaying_denied",
            Refusal::UnknownRecipient => "unknown_recipient",
            Refusal::NoRoute => "no_route",
            Refusal::NoSuchDomain => "no_such_domain",
            Refusal::NullMx => "null_mx",
            Refusal::NeedsSmtpUtf8 => "needs_smtputf8",
            Refusal::NeedsTls => "needs_tls",
            Refusal::NeedsAuth => "needs_auth",
            Refusal::AuthMechanism => "auth_mechanism",
            Refusal::AuthFailed => "auth_failed",
            Refusal::AuthCancelled => "auth_cancelled",
            Refusal::AuthLineTooLong => "auth_line_too_long",
            Refusal::TlsActive => "tls_active",
            Refusal::LineEnds(_) => "line_ends",
            Refusal::DataLineTooLong => "data_line_too_long",
            Refusal::MessageTooLarge => "message_too_large",
            Refusal::ReplicationMessageTooLarge => "replication_message_too_large",
            Refusal::LoopTrace => "loop_trace",
            Refusal::LoopReceived => "loop_received",
            Refusal::TooManyConnections => "too_many_connections",
            Refusal::TooManyOfNetwork => "too_many_of_network",
            Refusal::ConnectionRate => "connection_rate",
            Refusal::MessageRate => "message_rate",
            Refusal::TooManyRecipients => "too_many_recipients",
            Refusal::OtherRoute => "other_route",
            Refusal::TooSlow => "too_slow",
            Refusal::CommandTimeout => "command_timeout",
            Refusal::DataTimeout => "data_timeout",
            Refusal::SessionTimeout => "session_timeout",
            Refusal::ShuttingDown => "shutting_down",
            Refusal::NextHopLacks(_) => "next_hop_lacks",
            Refusal::NextHopAway => "next_hop_away",
            Refusal::NextHopLost => "next_hop_lost",
            Refusal::NextHopEarly => "next_hop_early",
            Refusal::Internal => "internal",
            Refusal::TlsUnavailable => "tls_unavailable",
            Refusal::AuthUnavailable => "auth_unavailable",
            Refusal::AuthLost => "auth_lost",
        }
    }

    fn words(&self, limits: &RelayLimits) -> (u16, Enhanced, String) {
        let say = |code, b, c, text: &str| (code, Enhanced((code / 100) as u8, b, c), text.to_owned());
        match self {
            Refusal::Command(error) => match error {
                CommandError::Unknown => say(500, 5, 2, "Command unknown"),
                CommandError::Syntax(syntax) => say(501, 5, 4, &format!("Syntax: {syntax}")),
                CommandError::Path(error) => say(501, 1, 3, &format!("Bad address: {error}")),
                CommandError::Octets => say(500, 5, 2, "Commands are UTF-8 without control characters"),
                CommandError::OtherProtocol => say(521, 7, 0, "This is SMTP, not HTTP or TLS; closing"),
            },
            Refusal::BrokenLine => say(500, 5, 2, "Bare CR, bare LF or NUL in a command; lines end in CRLF"),
            Refusal::LineTooLong => {
                let max = limits.command_bytes_max;
                say(500, 5, 2, &format!("Line too long (limit {max} octets); closing"))
            }
            Refusal::Parameter(ParameterError::Unknown(word)) => {
                say(555, 5, 4, &format!("Parameter not supported: {word}"))
            }
            Refusal::Parameter(error) => say(501, 5, 4, &format!("{error}")),
            Refusal::NotOffered(name) => say(555, 5, 4, &format!("{name} is not offered here")),
            Refusal::NotImplemented => say(502, 5, 1, "Command not implemented"),
            Refusal::OutOfSequence(need) => say(503, 5, 1, need),
            Refusal::Pipelined(command) => {
                say(554, 5, 0, &format!("Nothing may be sent behind {command} before its reply; closing"))
            }
            Refusal::EarlyTalker => say(554, 5, 0, "You spoke before the greeting; closing"),
            Refusal::NoRecipients => say(554, 5, 1, "No valid recipients"),
            Refusal::TooManyErrors => {
                say(421, 7, 0, &format!("Too many errors (limit {}); closing", limits.errors_max))
            }
            Refusal::NotTrusted(command) => say(550, 7, 0, &format!("{command} is for trusted peers")),
            Refusal::Attribute(why) => say(501, 5, 4, why),
            Refusal::RelayingDenied => {
                say(550, 7, 1, "Relaying denied: neither a domain of ours nor a trusted client")
            }
            Refusal::UnknownRecipient => say(550, 1, 1, "No such address in the directory"),
            Refusal::NoRoute => say(550, 1, 2, "No address space covers this domain"),
            Refusal::NoSuchDomain => {
                say(550, 1, 2, "The domain does not exist, or has neither MX nor address")
            }
            Refusal::NullMx => say(556, 1, 10, "The domain takes no mail (null MX)"),
            Refusal::NeedsSmtpUtf8 => say(553, 6, 7, "This address needs the SMTPUTF8 parameter"),
            Refusal::NeedsTls => say(530, 7, 0, "Must issue a STARTTLS command first"),
            Refusal::NeedsAuth => say(530, 7, 0, "Authentication required"),
            Refusal::AuthMechanism => say(504, 5, 4, "Mechanism not supported"),
            Refusal::AuthFailed => say(535, 7, 8, "Authentication credentials invalid"),
            Refusal::AuthCancelled => say(501, 7, 0, "Authentication cancelled"),
            Refusal::AuthLineTooLong => say(500, 5, 6, "AUTH line too long (limit 12288 octets); closing"),
            Refusal::TlsActive => say(503, 5, 1, "TLS is already active"),
            Refusal::LineEnds(LineEndFault::BareLf) => {
                say(554, 6, 0, "Bare LF in the message; lines end in CRLF")
            }
            Refusal::LineEnds(LineEndFault::BareCr) => {
                say(554, 6, 0, "Bare CR in the message; lines end in CRLF")
            }
            Refusal::LineEnds(LineEndFault::DotNul) => {
                say(554, 6, 0, "A line of the message begins with dot and NUL")
            }
            Refusal::DataLineTooLong => {
                let max = limits.line_bytes_max;
                say(554, 6, 0, &format!("Line of the message too long (limit {max} octets)"))
            }
            Refusal::MessageTooLarge => {
                say(552, 3, 4, &format!("Message too large (limit {} octets)", limits.message_bytes_max))
            }
            Refusal::ReplicationMessageTooLarge => {
                let max = limits.replication_message_bytes_max;
                say(552, 3, 4, &format!("Replication message too large (limit {max} octets)"))
            }
            Refusal::LoopTrace | Refusal::LoopReceived => {
                say(554, 4, 6, "Mail loop: this message was here before or has too many Received fields")
            }
            Refusal::TooManyConnections => {
                say(421, 3, 2, &format!("Too many connections (limit {}); try later", limits.connections_max))
            }
            Refusal::TooManyOfNetwork => {
                let max = limits.connections_per_network_max;
                say(421, 7, 0, &format!("Too many connections from your network (limit {max})"))
            }
            Refusal::ConnectionRate => {
                let max = limits.connections_per_minute_max;
                say(
                    421,
                    7,
                    0,
                    &format!("Too many connections from your network within a minute (limit {max})"),
                )
            }
            Refusal::MessageRate => {
                let max = limits.messages_per_minute_max;
                say(450, 7, 0, &format!("Too many messages from your network within a minute (limit {max})"))
            }
            Refusal::TooManyRecipients => {
                say(452, 5, 3, &format!("Too many recipients (limit {})", limits.recipients_max))
            }
            Refusal::OtherRoute => {
                say(452, 5, 3, "This recipient has another route; send it in a transaction of its own")
            }
            Refusal::TooSlow => say(
                421,
                4,
                2,
                &format!("Too slow (less than {} octets a second); closing", limits.data_rate_min),
            ),
            Refusal::CommandTimeout | Refusal::DataTimeout => say(421, 4, 2, "Timeout; closing"),
            Refusal::SessionTimeout => say(421, 4, 2, "The session lasted too long; closing"),
            Refusal::ShuttingDown => say(421, 3, 2, "Going down; try again"),
            Refusal::NextHopLacks(name) => {
                say(451, 3, 3, &format!("The next hop does not offer {name} just now; try again"))
            }
            Refusal::NextHopAway => say(451, 4, 1, "The next hop is not available; try again later"),
            Refusal::NextHopLost => say(451, 4, 2, "The next hop was lost before its reply; try again later"),
            Refusal::NextHopEarly => say(451, 5, 0, "The next hop replied out of turn; try again later"),
            Refusal::Internal => say(451, 3, 0, "Local trouble; try again later"),
            Refusal::TlsUnavailable => say(454, 7, 0, "TLS not available due to temporary reason"),
            Refusal::AuthUnavailable => say(454, 7, 0, "Temporary authentication failure"),
            Refusal::AuthLost => say(
                421,
                4,
                2,
                "The connection to the next hop on which you authenticated has ended; authenticate again; closing",
            ),
        }
    }
}

/// Every [`Refusal::name`]: the values of the metrics' label `rule`.
pub const NAMES: [&str; 51] = [
    "command",
    "broken_line",
    "line_too_long",
    "parameter",
    "not_offered",
    "not_implemented",
    "out_of_sequence",
    "pipelined",
    "early_talker",
    "no_recipients",
    "too_many_errors",
    "not_trusted",
    "attribute",
    "relaying_denied",
    "unknown_recipient",
    "no_route",
    "no_such_domain",
    "null_mx",
    "needs_smtputf8",
    "needs_tls",
    "needs_auth",
    "auth_mechanism",
    "auth_failed",
    "auth_cancelled",
    "auth_line_too_long",
    "tls_active",
    "line_ends",
    "data_line_too_long",
    "message_too_large",
    "replication_message_too_large",
    "loop_trace",
    "loop_received",
    "too_many_connections",
    "too_many_of_network",
    "connection_rate",
    "message_rate",
    "too_many_recipients",
    "other_route",
    "too_slow",
    "command_timeout",
    "data_timeout",
    "session_timeout",
    "shutting_down",
    "next_hop_lacks",
    "next_hop_away",
    "next_hop_lost",
    "next_hop_early",
    "internal",
    "tls_unavailable",
    "auth_unavailable",
    "auth_lost",
];

impl From<NotRouted> for Refusal {
    fn from(why: NotRouted) -> Refusal {
        match why {
            NotRouted::RelayingDenied => Refusal::RelayingDenied,
            NotRouted::NoRoute => Refusal::NoRoute,
        }
    }
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Refusal {
        Refusal::Command(error)
    }
}

impl From<ParameterError> for Refusal {
    fn from(error: ParameterError) -> Refusal {
        Refusal::Parameter(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads this file: a refusal that is not in the list would not be counted.
    #[test]
    fn every_refusal_is_counted() {
        let named = include_str!("refusal.rs").lines().filter_map(|line| {
            let (variant, name) = line.trim().split_once(" => \"")?;
            variant.starts_with("Refusal::").then(|| name.trim_end_matches("\","))
        });
        assert_eq!(named.collect::<Vec<_>>(), NAMES);
    }

    #[test]
    fn trouble_of_ours_never_bounces_mail() {
        let limits = RelayLimits::default();
        for refusal in [
            Refusal::Internal,
            Refusal::NextHopAway,
            Refusal::NextHopLost,
            Refusal::NextHopEarly,
            Refusal::NextHopLacks("DSN"),
            Refusal::ShuttingDown,
            Refusal::TlsUnavailable,
            Refusal::AuthUnavailable,
            Refusal::AuthLost,
            Refusal::OtherRoute,
        ] {
            assert!(refusal.reply(&limits).is_transient() && !refusal.is_client_error(), "{refusal:?}");
        }
    }

    #[test]
    fn replies_name_the_limit() {
        let limits = RelayLimits { message_bytes_max: 4711, ..RelayLimits::default() };
        let reply = Refusal::MessageTooLarge.reply(&limits);
        assert_eq!(reply.to_string(), "552 5.3.4 Message too large (limit 4711 octets)");
    }
}
