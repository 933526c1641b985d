//! message/delivery-status: groups of fields, first about the message, then about each recipient.
//!
//! STANDARDS
//!   RFC 3464 section 2; RFC 6533 for message/global-delivery-status.

use super::super::mime::{Leaf, decode};
use super::{Action, Bounce, RECIPIENTS_MAX, Recipient, Status, line};

/// Octets of a status part that are read.
const STATUS_BYTES_MAX: usize = 64 << 10;

/// Reads a part; none if it is no delivery status or says nothing of any recipient.
pub fn parse(leaf: &Leaf) -> Option<Bounce> {
    if !matches!(leaf.kind.as_str(), "message/delivery-status" | "message/global-delivery-status") {
        return None;
    }
    let content = decode(leaf);
    let content = content.as_deref().unwrap_or(leaf.body);
    let text = String::from_utf8_lossy(&content[..content.len().min(STATUS_BYTES_MAX)]);
    let groups = groups(&text);
    let reporting_mta = groups.iter().find_map(|group| field(group, "Reporting-MTA")).map(untyped);
    let recipients: Vec<_> = groups.iter().filter_map(recipient).take(RECIPIENTS_MAX).collect();
    (!recipients.is_empty()).then(|| Bounce { reporting_mta, recipients, ..Bounce::default() })
}

type Group = Vec<(String, String)>;

/// Unfolds the fields; an empty line ends a group.
fn groups(text: &str) -> Vec<Group> {
    let mut groups: Vec<Group> = vec![Vec::new()];
    for text in text.lines() {
        let last = groups.len() - 1;
        if text.trim().is_empty() {
            if !groups[last].is_empty() {
                groups.push(Vec::new());
            }
        } else if text.starts_with([' ', '\t']) {
            if let Some((_, value)) = groups[last].last_mut() {
                value.push(' ');
                value.push_str(text.trim());
            }
        } else if let Some((name, value)) = text.split_once(':') {
            groups[last].push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    groups
}

fn field<'a>(group: &'a Group, name: &str) -> Option<&'a str> {
    group.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// The value without its type: `rfc822; a@b`, `dns; host`, `smtp; 550 no`.
fn untyped(value: &str) -> String {
    line(value.split_once(';').map_or(value, |(_, rest)| rest))
}

fn recipient(group: &Group) -> Option<Recipient> {
    let action = match field(group, "Action")?.to_ascii_lowercase().split([' ', '(']).next()? {
        "failed" => Action::Failed,
        "delayed" => Action::Delayed,
        "delivered" | "relayed" | "expanded" => Action::Delivered,
        _ => return None,
    };
    // What we wrote to is the original recipient; the final one may be an alias's target.
    let address = field(group, "Original-Recipient").or(field(group, "Final-Recipient")).map(untyped);
    let diagnostic = field(group, "Diagnostic-Code").map(untyped);
    let given = field(group, "Status").and_then(Status::find);
    // Some mail systems say x.0.0 and the next hop's reply says more.
    let status = match given {
        Some(Status(_, 0, 0)) | None => diagnostic.as_deref().and_then(Status::find).or(given),
        given => given,
    };
    Some(Recipient {
        address,
        action,
        status,
        diagnostic,
        remote_mta: field(group, "Remote-MTA").map(untyped),
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::mime::Encoding;
    use super::*;

    fn status(text: &str) -> Option<Bounce> {
        parse(&Leaf {
            kind: "message/delivery-status".into(),
            encoding: Encoding::Identity,
            body: text.as_bytes(),
        })
    }

    #[test]
    fn a_status_is_read() {
        let bounce = status(
            "Reporting-MTA: dns; mx.example\r\n\r\n\
             Final-Recipient: rfc822; x@y\r\nOriginal-Recipient: rfc822;repl@beta.example\r\nAction: failed\r\n\
             Status: 5.0.0\r\nRemote-MTA: dns; next.example\r\n\
             Diagnostic-Code: smtp; 552 5.3.4 too\r\n   large\r\n\r\n\
             Final-Recipient: rfc822; z\r\nAction: delayed (4 hours)\r\nStatus: 4.4.1\r\n",
        )
        .unwrap();
        assert_eq!(bounce.reporting_mta.as_deref(), Some("mx.example"));
        assert_eq!(
            bounce.recipients[0],
            Recipient {
                address: Some("repl@beta.example".into()),
                action: Action::Failed,
                status: Some(Status(5, 3, 4)),
                diagnostic: Some("552 5.3.4 too large".into()),
                remote_mta: Some("next.example".into()),
            }
        );
        assert_eq!(
            (bounce.recipients[1].action, bounce.recipients[1].status),
            (Action::Delayed, Some(Status(4, 4, 1)))
        );
        assert_eq!(bounce.worst(), Some(&bounce.recipients[0]));
    }

    #[test]
    fn a_status_without_recipients_is_none() {
        for text in ["", "\r\n\r\n", "Reporting-MTA: dns; x\r\n", "Action: dreamt\r\n", ": :\n : \n"] {
            assert_eq!(status(text), None, "{text}");
        }
        assert_eq!(status(&"Action: failed\n\n".repeat(1000)).unwrap().recipients.len(), RECIPIENTS_MAX);
    }
}
