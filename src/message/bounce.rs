//! Delivery reports about replication mail: which mail, what happened, and why.
//!
//! PROMISES
//!   Whatever comes, an answer or none, within the bounds of the message walk; nothing a report says is believed further
//!   than as a hint. The tokens found in it tie it to what was sent; whoever reads a [`Bounce`] checks them first.
//!
//! STANDARDS
//!   RFC 3464 (message/delivery-status) in RFC 6522 (multipart/report); RFC 3463 for codes. Plain reports as qmail (QSBMF),
//!   Exim, sendmail and old Exchange write them, as far as they can be told from other mail.
//!
//! LIMITS
//!   [`RECIPIENTS_MAX`] recipients, [`TOKENS_MAX`] tokens, 1,000 characters of any one text.
//!
//! BUGS
//!   Plain reports in other languages than English are known by their reply codes only.

mod plain;
mod status;

use std::panic::{AssertUnwindSafe, catch_unwind};

use memchr::memmem;

use super::mime::{MESSAGE_ID_PREFIX, Walk, decode, parse as parse_headers, walk};
use super::token::TOKEN_BYTES_MAX;
use crate::limits::REPLICATION_MESSAGE_BYTES_MAX;

/// Recipients of one report that are read; replication mail has one.
pub const RECIPIENTS_MAX: usize = 16;
/// Tokens of one report that are read.
pub const TOKENS_MAX: usize = 8;
/// Octets of any part in which tokens are sought.
const SEARCH_BYTES_MAX: usize = 256 << 10;

const NO_SUCH_MAILBOX: [&str; 7] = [
    "user unknown",
    "unknown user",
    "no such user",
    "no mailbox here",
    "does not exist",
    "name is not recognized",
    "not a known user",
];
const UNREACHABLE: [&str; 9] = [
    "timed out",
    "connection refused",
    "host not found",
    "no route",
    "retry timeout exceeded",
    "temporarily suspended",
    "hosts have been failing",
    "dns error",
    "lookup fail",
];

/// What a report says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounce {
    /// The mail system that reports.
    pub reporting_mta: Option<String>,
    /// At least one.
    pub recipients: Vec<Recipient>,
    /// The Message-ID of the mail it is about, without angle brackets.
    pub message_id: Option<String>,
    /// What looks like a token of ours, from our Message-ID or return path, to be checked
    /// ([`super::keys::SiteKey::check_token`]).
    pub tokens: Vec<String>,
}

/// What became of the mail for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    pub address: Option<String>,
    pub action: Action,
    pub status: Option<Status>,
    /// The words of the mail system that refused, on one line.
    pub diagnostic: Option<String>,
    /// The mail system that refused, if it is not the reporting one.
    pub remote_mta: Option<String>,
}

/// RFC 3464 section 2.3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Delivered, relayed or expanded.
    Delivered,
    /// The mail system goes on trying.
    Delayed,
    /// It gave up.
    Failed,
}

/// RFC 3463: class, subject, detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u8, pub u16, pub u16);

/// What to make of a failure or delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Smaller mails may pass.
    TooLarge,
    /// The address does not exist or moved.
    NoSuchMailbox,
    /// The mailbox takes nothing now.
    MailboxUnavailable,
    /// Policy, filters or the receiving site itself.
    Refused,
    /// Going round in circles.
    Loop,
    /// No way to the receiving mail system.
    Unreachable,
    Unknown,
}

/// Reads a report; none if the mail is not one.
pub fn parse(mail: &[u8]) -> Option<Bounce> {
    if mail.len() > REPLICATION_MESSAGE_BYTES_MAX {
        return None;
    }
    // Reading headers is foreign code that meets foreign input: a panic there must not end the session.
    catch_unwind(AssertUnwindSafe(|| read(mail))).unwrap_or(None)
}

fn read(mail: &[u8]) -> Option<Bounce> {
    let walk = walk(mail).ok()?;
    let mut bounce = walk.leaves.iter().find_map(status::parse).or_else(|| plain::parse(mail, &walk))?;
    // Exim gives no Diagnostic-Code when it gave up by itself; the text for people says why.
    if let [only] = &mut bounce.recipients[..] {
        only.diagnostic = only.diagnostic.take().or_else(|| plain::words(&walk));
    }
    bounce.message_id = original_message_id(&walk);
    bounce.tokens = tokens(mail, &walk);
    Some(bounce)
}

/// The Message-ID of the returned message or of its returned headers.
fn original_message_id(walk: &Walk) -> Option<String> {
    let nested = walk.messages.iter().skip(1).find_map(|message| message.message_id().map(str::to_owned));
    let headers = || {
        let leaf = walk.leaves.iter().find(|leaf| leaf.kind.ends_with("/rfc822-headers"))?;
        let content = decode(leaf);
        let parsed = parse_headers(content.as_deref().unwrap_or(leaf.body))?;
        parsed.message_id().map(str::to_owned)
    };
    let id = nested.or_else(headers)?;
    Some(line(id.trim().trim_start_matches('<').trim_end_matches('>')))
}

/// Everything shaped like a token of ours, wherever a mail system put it.
fn tokens(mail: &[u8], walk: &Walk) -> Vec<String> {
    let mut tokens = Vec::new();
    find_tokens(mail, &mut tokens);
    for leaf in &walk.leaves {
        if let Some(content) = decode(leaf) {
            find_tokens(&content, &mut tokens);
        }
    }
    tokens
}

fn find_tokens(text: &[u8], tokens: &mut Vec<String>) {
    let text = &text[..text.len().min(SEARCH_BYTES_MAX)];
    for mark in [MESSAGE_ID_PREFIX, "+b-"] {
        for at in memmem::find_iter(text, mark) {
            let rest = &text[at + mark.len()..];
            let length =
                rest.iter().take(TOKEN_BYTES_MAX + 1).take_while(|byte| byte.is_ascii_alphanumeric()).count();
            // The shortest token has one octet of number and ten of proof.
            let ends = rest.get(length).is_some_and(|byte| b"@=".contains(byte));
            if ends && (18..=TOKEN_BYTES_MAX).contains(&length) && tokens.len() < TOKENS_MAX {
                let token = String::from_utf8_lossy(&rest[..length]).to_ascii_lowercase();
                if !tokens.contains(&token) {
                    tokens.push(token);
                }
            }
        }
    }
}

impl Bounce {
    /// The recipient who fared worst.
    pub fn worst(&self) -> Option<&Recipient> {
        // The first of equals, hence in reverse.
        self.recipients.iter().rev().max_by_key(|recipient| recipient.action)
    }
}

impl Recipient {
    /// What to make of it. The enhanced status decides, where there is one; words only where it says nothing.
    pub fn cause(&self) -> Cause {
        let (subject, detail) = self.status.map_or((0, 0), |Status(_, subject, detail)| (subject, detail));
        match (subject, detail) {
            (2, 3) | (3, 4) => Cause::TooLarge,
            (1, _) => Cause::NoSuchMailbox,
            // Full among them, which is said with 552 as well.
            (2, 1 | 2 | 4) | (3, 1) => Cause::MailboxUnavailable,
            (4, 6) => Cause::Loop,
            (4, _) => Cause::Unreachable,
            // A policy may speak of what exceeds a rate, or be told with 552.
            (6 | 7, _) => Cause::Refused,
            _ => self.cause_by_words().unwrap_or(match subject {
                2 => Cause::MailboxUnavailable,
                _ => Cause::Unknown,
            }),
        }
    }

    fn cause_by_words(&self) -> Option<Cause> {
        let words = self.diagnostic.as_deref()?.to_ascii_lowercase();
        let says = |phrases: &[&str]| phrases.iter().any(|phrase| words.contains(phrase));
        Some(match () {
            () if says(&["quota", "mailbox is full", "mailbox full"]) => Cause::MailboxUnavailable,
            () if says(&["552 ", "552-", "too large", "too big", "size limit", "message size"]) => {
                Cause::TooLarge
            }
            () if says(&["exceeds"]) && says(&["size", "length"]) => Cause::TooLarge,
            () if says(&NO_SUCH_MAILBOX) => Cause::NoSuchMailbox,
            () if says(&UNREACHABLE) => Cause::Unreachable,
            () if says(&["550", "551", "553", "554", "spam", "denied", "rejected", "policy"]) => {
                Cause::Refused
            }
            () => return None,
        })
    }
}

impl Status {
    /// Finds `4.7.1` and the like in a text.
    pub fn find(text: &str) -> Option<Status> {
        let words = text.split(|c: char| !(c.is_ascii_digit() || c == '.'));
        words.filter_map(|word| Status::parse(word.trim_matches('.'))).next()
    }

    fn parse(word: &str) -> Option<Status> {
        let mut numbers = word.split('.');
        let mut number = |digits_max| {
            let digits = numbers.next().filter(|digits| (1..=digits_max).contains(&digits.len()))?;
            digits.parse::<u16>().ok()
        };
        let (class, subject, detail) = (number(1)?, number(3)?, number(3)?);
        let is_whole = numbers.next().is_none() && matches!(class, 2 | 4 | 5);
        is_whole.then_some(Status(class as u8, subject, detail))
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Foreign text as one line of bounded length without control characters.
fn line(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().filter(|c| !c.is_control()).take(1000).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn statuses_are_found_in_words() {
        assert_eq!(Status::find("550 5.1.1 <a@b>: unknown"), Some(Status(5, 1, 1)));
        assert_eq!(Status::find("host 10.0.0.1 said: 452-4.2.2 (full)"), Some(Status(4, 2, 2)));
        for none in ["", "1.2.3", "5.1", "5.1.1.1", "192.168.5.1", "5.1000.1", "5..1"] {
            assert_eq!(Status::find(none), None, "{none}");
        }
    }

    #[test]
    fn causes() {
        let cause = |status, words: &str| {
            let diagnostic = Some(words.to_owned());
            Recipient { address: None, action: Action::Failed, status, diagnostic, remote_mta: None }.cause()
        };
        assert_eq!(cause(Some(Status(5, 3, 4)), ""), Cause::TooLarge);
        assert_eq!(cause(Some(Status(5, 0, 0)), "552 Message size exceeds fixed limit"), Cause::TooLarge);
        assert_eq!(cause(Some(Status(5, 2, 2)), "552 mailbox full"), Cause::MailboxUnavailable);
        assert_eq!(cause(Some(Status(5, 1, 1)), ""), Cause::NoSuchMailbox);
        assert_eq!(cause(Some(Status(4, 4, 1)), "connect timed out"), Cause::Unreachable);
        assert_eq!(cause(Some(Status(5, 7, 1)), ""), Cause::Refused);
        assert_eq!(cause(Some(Status(5, 4, 6)), ""), Cause::Loop);
        assert_eq!(cause(None, "550 no"), Cause::Refused);
        assert_eq!(cause(None, "550 message exceeds the maximum size"), Cause::TooLarge);
        assert_eq!(cause(None, ""), Cause::Unknown);
    }

    #[test]
    fn a_status_decides_before_words_do() {
        let cause = |diagnostic: &str| {
            let (status, diagnostic) = (Status::find(diagnostic), Some(diagnostic.to_owned()));
            Recipient { address: None, action: Action::Failed, status, diagnostic, remote_mta: None }.cause()
        };
        for (diagnostic, expected) in [
            ("550 5.7.1 message rate exceeds the limit", Cause::Refused),
            ("552 5.7.0 the attachment's message size limit is a policy", Cause::Refused),
            ("550 5.1.1 user unknown, or too large", Cause::NoSuchMailbox),
            ("552 5.2.2 mailbox size exceeds its limit", Cause::MailboxUnavailable),
            ("550 5.2.3 no", Cause::TooLarge),
            ("550 5.3.4 refused by policy", Cause::TooLarge),
            // These say nothing by themselves.
            ("552 5.2.0 message too large", Cause::TooLarge),
            ("552 5.2.0 quota exceeded", Cause::MailboxUnavailable),
            ("550 5.3.0 message too big", Cause::TooLarge),
            ("550 5.2.0 no", Cause::Refused),
            ("5.2.0 no", Cause::MailboxUnavailable),
            ("552 5.0.0 no", Cause::TooLarge),
            ("550 message rate exceeds the limit", Cause::Refused),
        ] {
            assert_eq!(cause(diagnostic), expected, "{diagnostic}");
        }
    }

    #[test]
    fn tokens_are_found_in_encoded_parts() {
        // Returned headers in base64: Message-ID: <bh.abcdefghijklmnopqrst@alpha.example>
        let report = "From: <MAILER-DAEMON@x>\r\nContent-Type: multipart/report; boundary=a\r\n\r\n\
            --a\r\n\r\nno\r\n--a\r\nContent-Type: message/delivery-status\r\n\r\nAction: failed\r\nStatus: 5.1.1\r\n\
            --a\r\nContent-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: base64\r\n\r\n\
            TWVzc2FnZS1JRDogPGJoLmFiY2RlZmdoaWprbG1ub3BxcnN0QGFscGhhLmV4YW1wbGU+DQo=\r\n--a--\r\n";
        let bounce = parse(report.as_bytes()).unwrap();
        assert_eq!(bounce.tokens, ["abcdefghijklmnopqrst"]);
        assert_eq!(bounce.message_id.as_deref(), Some("bh.abcdefghijklmnopqrst@alpha.example"));
    }

    proptest! {
        #[test]
        fn any_text_is_no_panic(body in "\\PC{0,300}") {
            let _ = parse(body.as_bytes());
            let report = format!("Content-Type: message/delivery-status\r\n\r\n{body}");
            let _ = parse(report.as_bytes());
            let plain = format!("From: MAILER-DAEMON@x\r\n\r\nHi. This is the qmail-send program\r\n{body}");
            let _ = parse(plain.as_bytes());
        }
    }
}
