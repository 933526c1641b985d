//! Reports written for people only, as qmail, Exim, sendmail and old Exchange write them.

use super::super::mime::{Walk, decode};
use super::{Action, Bounce, Recipient, Status, line};

/// Octets of text that are read.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// How such reports begin, in lower case.
const OPENINGS: [&str; 13] = [
    "hi. this is the",                                                   // qmail, QSBMF
    "this message was created automatically by mail delivery software",  // Exim
    "a message that you sent contained one or more recipient addresses", // Exim
    "the original message was received at",                              // sendmail
    "this is the mail system at host",                                   // Postfix
    "this is the mailer-daemon, please do not reply",                    // OpenSMTPD
    "this is the dragonfly mail agent",
    "did not reach the following recipient",   // Exchange 5.5
    "your message did not reach some or all",  // Exchange 2000 and 2003
    "delivery has failed to these recipients", // Exchange 2007 and later
    "this is an automatically generated delivery status",
    "undelivered mail returned to sender",
    "the following message could not be delivered",
];

/// Words that say that delivery is still tried.
const DELAYS: [&str; 5] = [
    "has not been delivered",
    "not yet been delivered",
    "could not be delivered yet",
    "will continue",
    "you do not need to resend",
];

/// The line of the text for people that says why.
pub fn words(walk: &Walk) -> Option<String> {
    diagnostic(&report(&text(walk)?))
}

/// The first part, as far as it is read.
fn text(walk: &Walk) -> Option<String> {
    let leaf = walk.leaves.first()?;
    let content = decode(leaf);
    let content = content.as_deref().unwrap_or(leaf.body);
    Some(String::from_utf8_lossy(&content[..content.len().min(TEXT_BYTES_MAX)]).into_owned())
}

/// What stands above the returned message.
fn report(text: &str) -> String {
    text.split_inclusive('\n').take_while(|line| !begins_copy(line)).collect()
}

/// Reads a plain report; none if it does not look like one.
pub fn parse(mail: &[u8], walk: &Walk) -> Option<Bounce> {
    let text = text(walk)?;
    let words = text.to_ascii_lowercase();
    let failed_recipient = header(mail, "X-Failed-Recipients");
    let opens = OPENINGS.iter().any(|opening| words.contains(opening));
    if failed_recipient.is_none() && !(opens || is_from_mail_system(walk)) {
        return None;
    }
    let report = report(&text);
    let diagnostic = diagnostic(&report);
    let status = diagnostic.as_deref().and_then(Status::find);
    let has_code = diagnostic.as_deref().is_some_and(|line| reply_code(line).is_some());
    if !opens && failed_recipient.is_none() && status.is_none() && !has_code {
        // Somebody's postmaster writes by hand, or a program says something else.
        return None;
    }
    let is_delay = DELAYS.iter().any(|delay| words.contains(delay));
    let action = if is_delay { Action::Delayed } else { Action::Failed };
    let address = failed_recipient.or_else(|| address(&report));
    let recipient = Recipient { address, action, status, diagnostic, remote_mta: None };
    Some(Bounce { recipients: vec![recipient], ..Bounce::default() })
}

fn is_from_mail_system(walk: &Walk) -> bool {
    let from = walk.messages.first().and_then(|message| message.from()?.first()?.address.clone());
    let local = from.as_deref().and_then(|address| address.split('@').next()).unwrap_or_default();
    local.eq_ignore_ascii_case("mailer-daemon") || local.eq_ignore_ascii_case("postmaster")
}

/// The value of a header of the mail itself, not unfolded.
fn header(mail: &[u8], name: &str) -> Option<String> {
    let head = String::from_utf8_lossy(&mail[..mail.len().min(TEXT_BYTES_MAX)]);
    let lines = head.lines().take_while(|line| !line.is_empty());
    let value =
        lines.filter_map(|line| line.split_once(':')).find(|(known, _)| known.eq_ignore_ascii_case(name));
    value.map(|(_, value)| line(value))
}

fn begins_copy(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("---")
        && (line.contains("copy of") || line.contains("original message") || line.contains("Original"))
        || line.contains("This is a copy of")
}

/// The line that says why: one with an enhanced code, or a reply code, or what follows the address.
fn diagnostic(report: &str) -> Option<String> {
    let lines = || report.lines().map(str::trim).filter(|line| !line.is_empty());
    let coded = lines()
        .find(|line| Status::find(line).is_some())
        .or_else(|| lines().find(|line| reply_code(line).is_some()));
    let after_address = || lines().skip_while(|line| address(line).is_none()).nth(1);
    coded.or_else(after_address).map(line)
}

/// A word of three digits that is a negative reply.
fn reply_code(text: &str) -> Option<u16> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    words
        .filter(|word| word.len() == 3)
        .filter_map(|word| word.parse().ok())
        .find(|code| (400..600).contains(code))
}

/// The first address that begins a line, in brackets or not, with or without a colon.
fn address(text: &str) -> Option<String> {
    let words = text.lines().filter_map(|line| line.split_whitespace().next());
    let bare = words.map(|word| word.trim_matches(|c| "<>:;,\"".contains(c)));
    bare.filter(|word| word.contains('@') && word.len() <= 320).map(super::line).next()
}
