//! The one header that is added: `Received:`, with a trace by which the loop guard knows it again.
//!
//! The trace is `bh-INSTALLATION-ENVELOPE`, where ENVELOPE stands for listener and recipients. A message that comes
//! back to the same listener for the same recipients loops; one that a mailing list or a forwarder
//! legitimately sends through us again comes for others.
//!
//! STANDARDS
//!   RFC 5321 section 4.4 and RFC 3848 (`with`), RFC 6531 section 4.3 (UTF8SMTP), RFC 5322 section 3.3 (date).

use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Zoned;

use super::client::Client;
use crate::smtp::Path;

/// The trace of a message for these recipients at this listener.
pub fn trace<'a>(installation: &str, listener: &str, recipients: impl Iterator<Item = &'a Path>) -> String {
    // Each recipient is hashed alone and the sum taken, for their order and division into transactions may change.
    let sum = recipients.fold(0u64, |sum, path| {
        let mut hasher = DefaultHasher::new();
        listener.hash(&mut hasher);
        path.local_part().hash(&mut hasher);
        path.domain().to_ascii_lowercase().hash(&mut hasher);
        sum.wrapping_add(hasher.finish())
    });
    format!("bh-{installation}-{:08x}", (sum >> 32) as u32 ^ sum as u32)
}

/// An identifier of one message, for its `Received:` field and the log.
pub fn message_id(now: &Zoned) -> String {
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed) & 0xffff;
    format!("{:x}{sequence:04x}", now.timestamp().as_microsecond())
}

/// The header field, folded, with its final CRLF.
pub fn received(hostname: &str, client: &Client, trace: &str, id: &str, now: &Zoned) -> Vec<u8> {
    let mut field = String::with_capacity(256);
    field.push_str("Received: from ");
    // The client's own words must not end the field, open a comment or need SMTPUTF8.
    let harmless = |c: char| if c.is_ascii_graphic() && !"();<>\\\"".contains(c) { c } else { '?' };
    field.extend(client.helo.as_deref().unwrap_or("unknown").chars().map(harmless));
    match &*client.ip {
        "" => field.push_str(" (local)"),
        ip if ip.contains(':') => field.extend([" ([IPv6:", ip, "])"]),
        ip => field.extend([" ([", ip, "])"]),
    }
    let with = client.protocol_word();
    field.extend([
        "\r\n\tby ",
        hostname,
        " (bridgehead ",
        trace,
        ")\r\n\twith ",
        with,
        " id ",
        id,
        ";\r\n\t",
    ]);
    date(now, &mut field);
    field.push_str("\r\n");
    field.into_bytes()
}

/// RFC 5322's date-time.
fn date(now: &Zoned, out: &mut String) {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let day = DAYS[now.weekday().to_monday_zero_offset().unsigned_abs() as usize % 7];
    let month = MONTHS[(now.month().unsigned_abs() as usize).saturating_sub(1) % 12];
    let offset = now.offset().seconds() / 60;
    let sign = if offset < 0 { " -" } else { " +" };
    let _ = write!(out, "{day}, {} {month} {} ", now.day(), now.year());
    let (hour, minute, second) = (now.hour().into(), now.minute().into(), now.second().into());
    // Digit by digit: the formatter's padding costs more than the rest of the field.
    for (before, number) in [("", hour), (":", minute), (":", second), (sign, offset / 60), ("", offset % 60)]
    {
        out.push_str(before);
        out.extend([number / 10, number].map(|n: i32| char::from(b'0' + (n.unsigned_abs() % 10) as u8)));
    }
}

static SEQUENCE: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_well_formed() {
        let mut client = Client::new(Some("192.0.2.1:99".parse().unwrap()));
        client.helo = Some("mail.example".into());
        client.extended = true;
        let now: Zoned = "2026-11-22T14:05:06+01:00[+01:00]".parse().unwrap();
        let field =
            String::from_utf8(received("b.example", &client, "bh-1-2", &message_id(&now), &now)).unwrap();
        assert!(
            field.starts_with(
                "Received: from mail.example ([192.0.2.1])\r\n\tby b.example (bridgehead bh-1-2)\r\n\twith ESMTP id "
            ),
            "{field}"
        );
        assert!(field.ends_with(";\r\n\tSun, 22 Nov 2026 14:05:06 +0100\r\n"), "{field}");
    }

    #[test]
    fn what_the_client_says_of_itself_cannot_break_the_field() {
        let mut client = Client::new(None);
        client.helo = Some("ü (x; y\\\r\nBcc: z".into());
        let field = received("b.example", &client, "bh-1-2", "1", &Zoned::now());
        assert!(field.starts_with(b"Received: from ???x??y???Bcc:?z (local)\r\n\tby"), "{field:?}");
    }

    #[test]
    fn the_trace_tells_recipients_and_listeners_apart() {
        let path = |text: &str| Path::parse(text).unwrap();
        let of = |listener: &str, paths: &[&str]| {
            let paths: Vec<_> = paths.iter().map(|p| path(p)).collect();
            trace("00", listener, paths.iter())
        };
        assert_eq!(of("l", &["a@b", "c@d"]), of("l", &["c@D", "a@B"]));
        assert_ne!(of("l", &["a@b"]), of("l", &["c@d"]));
        assert_ne!(of("l", &["a@b"]), of("m", &["a@b"]));
    }
}
