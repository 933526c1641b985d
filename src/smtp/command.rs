//! One command line of a client, parsed; and the framing of lines.
//!
//! PROMISES
//!   Only CRLF ends a line. A line with a bare CR, a bare LF, a NUL or octets that are not UTF-8 is
//!   refused as a whole. Paths are kept as written.
//!
//! STANDARDS
//!   RFC 5321 section 4.1, RFC 3030 (BDAT), RFC 2033 (LHLO), RFC 3207, RFC 4954; Postfix's
//!   XFORWARD_README and XCLIENT_README. A space after `FROM:` or `TO:`, blanks at the end, and arguments to
//!   NOOP and RSET are tolerated.

use thiserror::Error;

use super::{Path, PathError};

/// A command with its arguments as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    Helo(&'a str),
    Ehlo(&'a str),
    Lhlo(&'a str),
    /// Parameters are left for the session, which knows what it offered.
    Mail(Path, &'a str),
    Rcpt(Path, &'a str),
    Data,
    /// Octets that follow, and whether they are the last.
    Bdat(u64, bool),
    Rset,
    Noop,
    Quit,
    Vrfy,
    Help,
    StartTls,
    Auth {
        mechanism: &'a str,
        initial: Option<&'a str>,
    },
    Xforward(&'a str),
    Xclient(&'a str),
    /// Known to SMTP, not offered here.
    NotImplemented,
}

/// Why a line is not a command. The client is at fault in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    #[error("command unknown")]
    Unknown,
    #[error("syntax: {0}")]
    Syntax(&'static str),
    #[error("{0}")]
    Path(PathError),
    #[error("a command must be UTF-8 without control characters")]
    Octets,
    #[error("this is SMTP, not HTTP or TLS")]
    OtherProtocol,
}

/// What stands at the front of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Octets of the line with its CRLF.
    Whole(usize),
    /// A bare CR or LF, or NUL; octets to skip.
    Broken(usize),
    /// No end in sight.
    Partial,
    /// Longer than allowed.
    TooLong,
}

impl Line {
    /// Finds the first line of `input`.
    pub fn find(input: &[u8], bytes_max: usize) -> Line {
        match memchr::memchr(b'\n', input) {
            None if input.len() >= bytes_max => Line::TooLong,
            None => Line::Partial,
            Some(end) if end >= bytes_max => Line::TooLong,
            Some(end) => {
                let sound = end > 0 && input[end - 1] == b'\r';
                match sound && memchr::memchr2(b'\r', 0, &input[..end - 1]).is_none() {
                    true => Line::Whole(end + 1),
                    false => Line::Broken(end + 1),
                }
            }
        }
    }
}

impl<'a> Command<'a> {
    /// Parses one line without its CRLF.
    pub fn parse(line: &'a [u8]) -> Result<Command<'a>, CommandError> {
        let text = std::str::from_utf8(line).map_err(|_| CommandError::Octets)?;
        if text.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
            return Err(CommandError::Octets);
        }
        let text = text.trim_end_matches([' ', '\t']);
        let (verb, rest) = match text.find([' ', '\t']) {
            Some(space) => (&text[..space], text[space..].trim_start_matches([' ', '\t'])),
            None => (text, ""),
        };
        let mut upper = [0u8; 8];
        let Some(upper) = upper.get_mut(..verb.len()) else {
            return Err(CommandError::Unknown);
        };
        upper.copy_from_slice(verb.as_bytes());
        upper.make_ascii_uppercase();
        match &*upper {
            b"MAIL" => path(rest, "FROM:").map(|(path, parameters)| Command::Mail(path, parameters)),
            b"RCPT" => match path(rest, "TO:")? {
                (path, _) if path.is_null() => Err(CommandError::Syntax("RCPT TO:<address>")),
                (path, parameters) => Ok(Command::Rcpt(path, parameters)),
            },
            b"DATA" => bare(rest, Command::Data, "DATA"),
            b"BDAT" => bdat(rest),
            b"EHLO" => hello(rest, "EHLO domain").map(Command::Ehlo),
            b"HELO" => hello(rest, "HELO domain").map(Command::Helo),
            b"LHLO" => hello(rest, "LHLO domain").map(Command::Lhlo),
            b"RSET" => Ok(Command::Rset),
            b"NOOP" => Ok(Command::Noop),
            b"QUIT" => Ok(Command::Quit),
            b"HELP" => Ok(Command::Help),
            b"VRFY" if rest.is_empty() => Err(CommandError::Syntax("VRFY address")),
            b"VRFY" => Ok(Command::Vrfy),
            b"STARTTLS" => bare(rest, Command::StartTls, "STARTTLS"),
            b"AUTH" => auth(rest),
            b"XFORWARD" => Ok(Command::Xforward(rest)),
            b"XCLIENT" => Ok(Command::Xclient(rest)),
            b"EXPN" | b"ETRN" | b"TURN" | b"ATRN" | b"SEND" | b"SOML" | b"SAML" | b"BURL" => {
                Ok(Command::NotImplemented)
            }
            b"GET" | b"POST" | b"PUT" | b"HEAD" | b"OPTIONS" | b"CONNECT" | b"DELETE" | b"PATCH" | b"PRI"
                if rest.contains("HTTP/") =>
            {
                Err(CommandError::OtherProtocol)
            }
            _ => Err(CommandError::Unknown),
        }
    }
}

/// `FROM:<path> parameters`, with a space before the bracket tolerated.
fn path<'a>(rest: &'a str, keyword: &'static str) -> Result<(Path, &'a str), CommandError> {
    let syntax = match keyword {
        "FROM:" => CommandError::Syntax("MAIL FROM:<address>"),
        _ => CommandError::Syntax("RCPT TO:<address>"),
    };
    let (word, after) = rest.split_at_checked(keyword.len()).ok_or(syntax)?;
    if !word.eq_ignore_ascii_case(keyword) {
        return Err(syntax);
    }
    let inner = after.trim_start_matches(' ').strip_prefix('<').ok_or(syntax)?;
    let end = closing_bracket(inner).ok_or(syntax)?;
    let parameters = &inner[end + 1..];
    if !parameters.is_empty() && !parameters.starts_with([' ', '\t']) {
        return Err(syntax);
    }
    let path = Path::parse(&inner[..end]).map_err(CommandError::Path)?;
    Ok((path, parameters.trim_start_matches([' ', '\t'])))
}

/// The first `>` that is not quoted.
fn closing_bracket(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut i, mut quoted) = (0, false);
    while i < bytes.len() {
        match bytes[i] {
            b'\\' if quoted => i += 1,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(i),
            _ => {}
        }
        i += 1;
    }
    None
}

fn bare<'a>(rest: &str, command: Command<'a>, name: &'static str) -> Result<Command<'a>, CommandError> {
    if rest.is_empty() { Ok(command) } else { Err(CommandError::Syntax(name)) }
}

/// The domain is the client's claim and only recorded; anything printable will do.
fn hello<'a>(rest: &'a str, syntax: &'static str) -> Result<&'a str, CommandError> {
    let domain = rest.split([' ', '\t']).next().unwrap_or("");
    let sound = !domain.is_empty() && domain.len() <= 255 && !domain.contains(['<', '>', '(', ')']);
    if sound { Ok(domain) } else { Err(CommandError::Syntax(syntax)) }
}

fn bdat(rest: &str) -> Result<Command<'_>, CommandError> {
    let syntax = CommandError::Syntax("BDAT octets [LAST]");
    let mut words = rest.split_ascii_whitespace();
    let size = words.next().filter(|w| w.bytes().all(|b| b.is_ascii_digit())).ok_or(syntax)?;
    let size = size.parse().map_err(|_| syntax)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return Err(syntax),
    };
    if words.next().is_some() { Err(syntax) } else { Ok(Command::Bdat(size, last)) }
}

fn auth(rest: &str) -> Result<Command<'_>, CommandError> {
    let mut words = rest.split_ascii_whitespace();
    let (mechanism, initial) = (words.next(), words.next());
    match (mechanism, words.next()) {
        (Some(mechanism), None) => Ok(Command::Auth { mechanism, initial }),
        _ => Err(CommandError::Syntax("AUTH mechanism [initial-response]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command<'_>, CommandError> {
        Command::parse(line.as_bytes())
    }

    #[test]
    fn reads_what_mailin_cannot() {
        assert_eq!(parse("MAIL FROM:<>"), Ok(Command::Mail(Path::null(), "")));
        let Ok(Command::Mail(path, parameters)) = parse("mail from: <\"a> b\"@c> SIZE=5 BODY=8BITMIME ")
        else {
            panic!()
        };
        assert_eq!((path.as_str(), parameters), ("\"a> b\"@c", "SIZE=5 BODY=8BITMIME"));
        let Ok(Command::Rcpt(path, parameters)) = parse("RCPT TO:<Postmaster> NOTIFY=NEVER") else {
            panic!()
        };
        assert_eq!((path.as_str(), parameters), ("Postmaster", "NOTIFY=NEVER"));
        assert_eq!(parse("NOOP hi"), Ok(Command::Noop));
        assert_eq!(parse("QUIT "), Ok(Command::Quit));
        assert_eq!(parse("ehlo a.example b"), Ok(Command::Ehlo("a.example")));
        assert_eq!(parse("BDAT 12 last"), Ok(Command::Bdat(12, true)));
        assert_eq!(parse("AUTH PLAIN ="), Ok(Command::Auth { mechanism: "PLAIN", initial: Some("=") }));
    }

    #[test]
    fn refuses_with_the_reason() {
        for line in [
            "MAIL",
            "MAIL TO:<a@b>",
            "MAIL FROM:a@b",
            "MAIL FROM:<a@b",
            "MAIL FROM:<a@b>x",
            "RCPT TO:<>",
            "DATA now",
            "BDAT",
            "BDAT x",
            "BDAT -1",
            "BDAT 1 2",
            "BDAT 99999999999999999999999",
            "BDAT 1 LAST LAST",
            "EHLO",
            "VRFY",
            "STARTTLS 1",
            "AUTH",
        ] {
            assert!(matches!(parse(line), Err(CommandError::Syntax(_))), "{line}");
        }
        assert!(matches!(parse("RCPT TO:<a b@c>"), Err(CommandError::Path(PathError::LocalPart))));
        assert_eq!(parse("XYZZY"), Err(CommandError::Unknown));
        assert_eq!(parse(""), Err(CommandError::Unknown));
        assert_eq!(parse("GET / HTTP/1.1"), Err(CommandError::OtherProtocol));
        assert_eq!(Command::parse(b"NOOP \xff"), Err(CommandError::Octets));
        assert_eq!(Command::parse(b"MAIL FROM:<a\x01@b>"), Err(CommandError::Octets));
    }

    #[test]
    fn only_crlf_ends_a_line() {
        assert_eq!(Line::find(b"NOOP\r\nQUIT\r\n", 100), Line::Whole(6));
        assert_eq!(Line::find(b"NOOP\nQUIT\r\n", 100), Line::Broken(5));
        assert_eq!(Line::find(b"NO\rOP\r\n", 100), Line::Broken(7));
        assert_eq!(Line::find(b"NO\0OP\r\n", 100), Line::Broken(7));
        assert_eq!(Line::find(b"\n", 100), Line::Broken(1));
        assert_eq!(Line::find(b"NOOP\r", 100), Line::Partial);
        assert_eq!(Line::find(b"NOOPNOOP", 8), Line::TooLong);
        assert_eq!(Line::find(b"NOOPNOOPNOOP\r\n", 8), Line::TooLong);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(line in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = Command::parse(&line);
            let _ = Line::find(&line, 40);
        }

        #[test]
        fn never_panics_on_near_misses(line in "(MAIL FROM:|RCPT TO:|BDAT |AUTH )[<>\"\\\\@a. :,=0-9]{0,20}") {
            let _ = Command::parse(line.as_bytes());
        }
    }
}
