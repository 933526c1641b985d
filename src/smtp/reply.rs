//! An SMTP reply: code, enhanced code and lines of text; how it is written and how it is read.
//!
//! PROMISES
//!   A reply that was read is written again with the same code, enhanced code and text, line by line.
//!   Reading is incremental and bounded; nothing that a next hop sends can make it panic.
//!
//! STANDARDS
//!   RFC 5321 section 4.2 (replies, multi-line), RFC 2034 and RFC 3463 (enhanced codes).
//!
//! LIMITS
//!   `REPLY_BYTES_MAX` for a whole reply. Lines of a reply that end in a bare LF are accepted.
//!   Octets that are not UTF-8 or are control characters arrive as `?`.

use std::fmt;

use thiserror::Error;

use crate::limits::REPLY_BYTES_MAX;

/// The enhanced status code of RFC 3463, such as 4.5.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Enhanced(pub u8, pub u16, pub u16);

/// One reply, ours or the next hop's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<Enhanced>,
    /// Lines separated by `\n`, without codes.
    text: Box<str>,
}

/// What a next hop sent is not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReplyError {
    #[error("a line does not begin with a three-digit code")]
    Code,
    #[error("the lines of one reply carry different codes")]
    CodeChanges,
    #[error("the reply is longer than {REPLY_BYTES_MAX} octets")]
    TooLong,
}

impl Reply {
    /// A reply of our own. Line breaks in `text` make it a multi-line reply; other control
    /// characters are replaced, so that no text can forge a reply.
    pub fn new(code: u16, enhanced: impl Into<Option<Enhanced>>, text: &str) -> Reply {
        debug_assert!((200..600).contains(&code));
        Reply { code, enhanced: enhanced.into(), text: clean(text).into() }
    }

    pub fn code(&self) -> u16 {
        self.code
    }

    pub fn enhanced(&self) -> Option<Enhanced> {
        self.enhanced
    }

    /// The text without codes; `\n` between lines.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.split('\n')
    }

    pub fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// 3yz: go on (354, 334).
    pub fn is_intermediate(&self) -> bool {
        (300..400).contains(&self.code)
    }

    pub fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
    }

    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }

    /// Appends the reply as it goes over the wire.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut lines = self.lines().peekable();
        while let Some(line) = lines.next() {
            out.extend_from_slice(&digits(self.code));
            out.push(if lines.peek().is_some() { b'-' } else { b' ' });
            if let Some(enhanced) = self.enhanced {
                enhanced.write_to(out);
                out.push(b' ');
            }
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Reads one reply from the front of `input`: the reply and how many octets it took, or `None`
    /// while it is not complete.
    pub fn parse(input: &[u8]) -> Result<Option<(Reply, usize)>, ReplyError> {
        let mut used = 0;
        let mut code = None;
        let mut lines: Vec<(Option<Enhanced>, &[u8])> = Vec::new();
        loop {
            let Some(end) = memchr::memchr(b'\n', &input[used..]) else {
                return incomplete(&input[used..], used);
            };
            let line = &input[used..used + end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            used += end + 1;
            if used > REPLY_BYTES_MAX {
                return Err(ReplyError::TooLong);
            }
            let this = line_code(line)?;
            if *code.get_or_insert(this) != this {
                return Err(ReplyError::CodeChanges);
            }
            let last = line.get(3) != Some(&b'-');
            let text = line.get(4..).unwrap_or(b"");
            if last && lines.is_empty() {
                let (enhanced, text) = Enhanced::split(text, this);
                return Ok(Some((Reply { code: this, enhanced, text: readable(text).into() }, used)));
            }
            lines.push(Enhanced::split(text, this));
            if last {
                return Ok(Some((Reply::of_lines(this, &lines), used)));
            }
        }
    }

    /// The enhanced code is factored out only where every line carries the same one.
    fn of_lines(code: u16, lines: &[(Option<Enhanced>, &[u8])]) -> Reply {
        let first = lines[0].0;
        let same = lines.iter().all(|(enhanced, _)| *enhanced == first);
        let mut text = String::new();
        for (i, (enhanced, line)) in lines.iter().enumerate() {
            if i > 0 {
                text.push('\n');
            }
            if let (Some(enhanced), false) = (enhanced, same) {
                text.push_str(&format!("{enhanced} "));
            }
            text.push_str(&readable(line));
        }
        Reply { code, enhanced: if same { first } else { None }, text: text.into() }
    }
}

impl Enhanced {
    fn write_to(self, out: &mut Vec<u8>) {
        use std::io::Write;
        let _ = write!(out, "{}.{}.{}", self.0, self.1, self.2);
    }

    /// Takes an enhanced code of the reply's own class from the front of a line.
    fn split(text: &[u8], code: u16) -> (Option<Enhanced>, &[u8]) {
        let (word, rest) = match memchr::memchr(b' ', text) {
            Some(space) => (&text[..space], &text[space + 1..]),
            None => (text, &b""[..]),
        };
        match Enhanced::parse(word) {
            Some(enhanced) if u16::from(enhanced.0) == code / 100 => (Some(enhanced), rest),
            _ => (None, text),
        }
    }

    fn parse(word: &[u8]) -> Option<Enhanced> {
        let mut parts = word.split(|b| *b == b'.').map(|part| {
            // RFC 2034: one to three digits, no sign, no leading zero that writing would lose.
            let sound = (1..=3).contains(&part.len())
                && part.iter().all(u8::is_ascii_digit)
                && (part.len() == 1 || part[0] != b'0');
            sound.then(|| part.iter().fold(0u16, |n, d| n * 10 + u16::from(d - b'0')))
        });
        let (class, subject, detail) = (parts.next()??, parts.next()??, parts.next()??);
        (parts.next().is_none() && matches!(class, 2 | 4 | 5)).then_some(Enhanced(
            class as u8,
            subject,
            detail,
        ))
    }
}

impl std::str::FromStr for Enhanced {
    type Err = ();

    fn from_str(text: &str) -> Result<Enhanced, ()> {
        let mut numbers = text.splitn(3, '.');
        let mut next = || numbers.next().ok_or(());
        let (class, subject, detail) = (next()?, next()?, next()?);
        let number = |text: &str| text.parse().map_err(drop);
        Ok(Enhanced(class.parse().map_err(drop)?, number(subject)?, number(detail)?))
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// One line, for logs: `550 5.1.1 No such user / try elsewhere`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        for (i, line) in self.lines().enumerate() {
            write!(f, "{}{line}", if i == 0 { " " } else { " / " })?;
        }
        Ok(())
    }
}

fn digits(code: u16) -> [u8; 3] {
    let digit = |n: u16| b'0' + (n % 10) as u8;
    [digit(code / 100), digit(code / 10), digit(code)]
}

fn line_code(line: &[u8]) -> Result<u16, ReplyError> {
    match line {
        [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..]
            if matches!(rest.first(), None | Some(b' ' | b'-')) =>
        {
            Ok(u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'))
        }
        _ => Err(ReplyError::Code),
    }
}

/// A line that has not ended yet may already be no reply, or be too long.
fn incomplete(line: &[u8], used: usize) -> Result<Option<(Reply, usize)>, ReplyError> {
    if line.len() + used > REPLY_BYTES_MAX {
        return Err(ReplyError::TooLong);
    }
    if line.len() >= 4 {
        // The CR may be that of the line's end.
        line_code(line.strip_suffix(b"\r").unwrap_or(line))?;
    }
    Ok(None)
}

fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

fn readable(line: &[u8]) -> String {
    match std::str::from_utf8(line) {
        Ok(text) if !text.bytes().any(|b| b < b' ' || b == 0x7f) => text.to_owned(),
        _ => line
            .iter()
            .map(|b| if (b' '..0x7f).contains(b) || *b == b'\t' { *b as char } else { '?' })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(wire: &str) -> Reply {
        let (reply, used) = Reply::parse(wire.as_bytes()).unwrap().unwrap();
        assert_eq!(used, wire.len());
        let mut out = Vec::new();
        reply.write_to(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), wire);
        reply
    }

    #[test]
    fn passes_replies_on_as_they_were() {
        assert_eq!(round("250 2.1.5 Ok\r\n").enhanced(), Some(Enhanced(2, 1, 5)));
        assert_eq!(round("550-5.1.1 No\r\n550 5.1.1 such user\r\n").text(), "No\nsuch user");
        assert_eq!(round("550-5.1.1 No\r\n550 such user\r\n").enhanced(), None);
        assert_eq!(round("250 4.1.1 is our version\r\n").enhanced(), None);
        assert_eq!(round("354 \r\n").code(), 354);
        assert_eq!(round("250 2.01.5 odd\r\n").text(), "2.01.5 odd");
    }

    #[test]
    fn waits_for_the_end() {
        for part in ["", "2", "250", "250-a\r\n", "250-a\r\n250 b", "250-a\r\n25"] {
            assert_eq!(Reply::parse(part.as_bytes()), Ok(None), "{part}");
        }
        assert_eq!(Reply::parse(b"250\r\n").unwrap().unwrap().0.text(), "");
        // Found by fuzzing: a line end that comes in two halves behind a code without text.
        assert_eq!(Reply::parse(b"250\r"), Ok(None));
        assert_eq!(Reply::parse(b"250\rx"), Err(ReplyError::Code));
    }

    #[test]
    fn refuses_garbage() {
        for (wire, error) in [
            (&b"HTTP/1.1 400\r\n"[..], ReplyError::Code),
            (b"\x16\x03\x01\x02\x00", ReplyError::Code),
            (b"250-a\r\n251 b\r\n", ReplyError::CodeChanges),
            (b"999 a\r\n", ReplyError::Code),
            (b"2500 a\r\n", ReplyError::Code),
        ] {
            assert_eq!(Reply::parse(wire), Err(error));
        }
        assert_eq!(Reply::parse(&b"250-x\r\n".repeat(100_000)), Err(ReplyError::TooLong));
        assert_eq!(Reply::parse(&[b"250 ".to_vec(), vec![b'x'; 200_000]].concat()), Err(ReplyError::TooLong));
    }

    #[test]
    fn no_text_forges_a_reply() {
        let mut out = Vec::new();
        Reply::new(550, Enhanced(5, 0, 0), "a\r\n250 b").write_to(&mut out);
        assert_eq!(out, b"550-5.0.0 a?\r\n550 5.0.0 250 b\r\n");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(wire in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Reply::parse(&wire);
        }

        #[test]
        fn own_replies_are_readable(code in 200u16..600, text in "[ -~\n]{0,60}") {
            let reply = Reply::new(code, Enhanced((code / 100).max(2) as u8, 1, 2), &text);
            let mut out = Vec::new();
            reply.write_to(&mut out);
            let (read, used) = Reply::parse(&out).unwrap().unwrap();
            proptest::prop_assert_eq!(used, out.len());
            if code / 100 != 3 {
                proptest::prop_assert_eq!(read, reply);
            }
        }
    }
}
