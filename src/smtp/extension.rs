//! The service extensions of an EHLO reply: what a next hop offers, and what we offer in turn.
//!
//! STANDARDS
//!   RFC 5321 section 4.1.1.1; RFC 2920, 1870, 6152, 6531, 3461, 2034, 3030, 3207, 4954; Postfix's
//!   XFORWARD_README and XCLIENT_README.

/// A set of extensions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    pub pipelining: bool,
    /// Largest message in octets; `Some(0)`: SIZE without a limit.
    pub size: Option<u64>,
    pub eight_bit_mime: bool,
    pub smtputf8: bool,
    pub dsn: bool,
    pub enhanced_status_codes: bool,
    pub chunking: bool,
    /// BODY=BINARYMIME; worth something only with CHUNKING.
    pub binary_mime: bool,
    pub starttls: bool,
    /// AUTH is offered at all; mechanisms in the order given, upper case, space separated.
    pub auth: bool,
    pub auth_mechanisms: Box<str>,
    /// Attributes of XFORWARD, upper case, space separated; empty: not offered.
    pub xforward: Box<str>,
    pub xclient: Box<str>,
}

impl Extensions {
    /// Reads the lines of an EHLO reply, the first of which is a greeting.
    pub fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Extensions {
        let mut e = Extensions::default();
        for line in lines.skip(1) {
            let (keyword, arguments) = line.split_once(' ').unwrap_or((line, ""));
            match keyword.to_ascii_uppercase().as_str() {
                "PIPELINING" => e.pipelining = true,
                "SIZE" => e.size = Some(arguments.trim().parse().unwrap_or(0)),
                "8BITMIME" => e.eight_bit_mime = true,
                "SMTPUTF8" => e.smtputf8 = true,
                "DSN" => e.dsn = true,
                "ENHANCEDSTATUSCODES" => e.enhanced_status_codes = true,
                "CHUNKING" => e.chunking = true,
                "BINARYMIME" => e.binary_mime = true,
                "STARTTLS" => e.starttls = true,
                "AUTH" => {
                    e.auth = true;
                    e.auth_mechanisms = arguments.to_ascii_uppercase().into();
                }
                "XFORWARD" => e.xforward = arguments.to_ascii_uppercase().into(),
                "XCLIENT" => e.xclient = arguments.to_ascii_uppercase().into(),
                _ => {}
            }
        }
        e
    }

    /// What survives when mail goes on to a next hop with `other`: everything that promises something
    /// about the message itself. PIPELINING and CHUNKING are promises of ours alone, for they are
    /// converted; BINARYMIME cannot be, and needs the next hop's CHUNKING.
    pub fn through(&self, other: &Extensions) -> Extensions {
        Extensions {
            size: match (self.size, other.size) {
                (Some(0), Some(b)) => Some(b),
                (Some(a), Some(0) | None) => Some(a),
                (Some(a), Some(b)) => Some(a.min(b)),
                (None, _) => None,
            },
            eight_bit_mime: self.eight_bit_mime && other.eight_bit_mime,
            smtputf8: self.smtputf8 && other.smtputf8,
            dsn: self.dsn && other.dsn,
            binary_mime: self.binary_mime && other.takes_binary(),
            enhanced_status_codes: self.enhanced_status_codes && other.enhanced_status_codes,
            ..self.clone()
        }
    }

    /// Whether a message with BODY=BINARYMIME can go there (RFC 3030 section 3).
    pub fn takes_binary(&self) -> bool {
        self.binary_mime && self.chunking
    }

    /// The lines that offer this set, one extension each, for the text of an EHLO reply.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut offer = |on: bool, line: &str| {
            if on {
                lines.push(line.to_owned());
            }
        };
        offer(self.pipelining, "PIPELINING");
        offer(self.size.is_some(), &format!("SIZE {}", self.size.unwrap_or(0)));
        offer(self.eight_bit_mime, "8BITMIME");
        offer(self.enhanced_status_codes, "ENHANCEDSTATUSCODES");
        offer(self.smtputf8, "SMTPUTF8");
        offer(self.dsn, "DSN");
        offer(self.chunking, "CHUNKING");
        offer(self.takes_binary(), "BINARYMIME");
        offer(self.starttls, "STARTTLS");
        offer(self.auth, &format!("AUTH {}", self.auth_mechanisms));
        offer(!self.xforward.is_empty(), &format!("XFORWARD {}", self.xforward));
        offer(!self.xclient.is_empty(), &format!("XCLIENT {}", self.xclient));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_next_hop_offers() {
        let text =
            "mx.example\nPIPELINING\nsize 1000\n8BITMIME\nDSN\nAUTH PLAIN login\nXFORWARD NAME ADDR\nHELP";
        let e = Extensions::parse(text.split('\n'));
        assert!(e.pipelining && e.eight_bit_mime && e.dsn && e.auth && !e.smtputf8 && !e.chunking);
        assert_eq!((e.size, &*e.auth_mechanisms, &*e.xforward), (Some(1000), "PLAIN LOGIN", "NAME ADDR"));
        // The greeting line is no extension, whatever the host is called.
        assert_eq!(Extensions::parse(["PIPELINING"].into_iter()), Extensions::default());
    }

    #[test]
    fn offers_no_more_than_the_next_hop_can_carry() {
        let own = Extensions {
            pipelining: true,
            chunking: true,
            size: Some(500),
            dsn: true,
            smtputf8: true,
            ..Extensions::default()
        };
        let next = Extensions { size: Some(200), smtputf8: true, ..Extensions::default() };
        let offered = own.through(&next);
        assert_eq!(offered.lines(), ["PIPELINING", "SIZE 200", "SMTPUTF8", "CHUNKING"]);
        assert_eq!(own.through(&Extensions::default()).size, Some(500));
    }

    #[test]
    fn binary_mime_needs_the_chunks_to_carry_it() {
        let own = Extensions { chunking: true, binary_mime: true, ..Extensions::default() };
        let next = |text: &str| Extensions::parse(text.split('\n'));
        assert!(own.through(&next("hop\nBINARYMIME\nCHUNKING")).takes_binary());
        for lacks in ["hop\nBINARYMIME", "hop\nCHUNKING", "hop"] {
            assert_eq!(own.through(&next(lacks)).lines(), ["CHUNKING"], "{lacks}");
        }
    }
}
