//! XFORWARD and XCLIENT: what a mail server says about the client that it speaks for.
//!
//! STANDARDS
//!   Postfix's XFORWARD_README and XCLIENT_README: attributes `NAME=value` with values in xtext (RFC 3461);
//!   `[UNAVAILABLE]` and `[TEMPUNAVAIL]` for what is not known; IPv6 addresses with the prefix `IPV6:`.
//!
//! LIMITS
//!   Values of up to 255 octets. Control characters and octets beyond ASCII become `?`.

use std::net::IpAddr;

use thiserror::Error;

/// What is said of the original client. Absent: not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientAttributes {
    pub name: Option<Box<str>>,
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    pub helo: Option<Box<str>>,
    pub protocol: Option<Box<str>>,
    pub ident: Option<Box<str>>,
    pub source: Option<Box<str>>,
    pub login: Option<Box<str>>,
}

/// The client's words do not parse; 501.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AttributeError {
    #[error("attributes are NAME=value")]
    Syntax,
    #[error("attribute name not supported")]
    Unknown,
    #[error("attribute value malformed")]
    Value,
}

/// Attributes of XFORWARD that we take and give.
pub const XFORWARD: &str = "NAME ADDR PORT PROTO HELO IDENT SOURCE";
/// Attributes of XCLIENT that we take.
pub const XCLIENT: &str = "NAME ADDR PORT PROTO HELO LOGIN";

impl ClientAttributes {
    pub fn is_empty(&self) -> bool {
        *self == ClientAttributes::default()
    }

    /// Reads the arguments of one XFORWARD or XCLIENT command into what is known so far. `known` are
    /// the attributes that were offered.
    pub fn update(&mut self, arguments: &str, known: &str) -> Result<(), AttributeError> {
        if arguments.is_empty() {
            return Err(AttributeError::Syntax);
        }
        for word in arguments.split_ascii_whitespace() {
            let (key, value) = word.split_once('=').ok_or(AttributeError::Syntax)?;
            let key = key.to_ascii_uppercase();
            if !known.split(' ').any(|k| k == key) {
                return Err(AttributeError::Unknown);
            }
            let value = decode(value).ok_or(AttributeError::Value)?;
            let known = !value.eq_ignore_ascii_case("[UNAVAILABLE]")
                && !value.eq_ignore_ascii_case("[TEMPUNAVAIL]")
                && !value.is_empty();
            let text = known.then(|| value.clone().into_boxed_str());
            match key.as_str() {
                "NAME" => self.name = text,
                "HELO" => self.helo = text,
                "PROTO" => self.protocol = text,
                "IDENT" => self.ident = text,
                "SOURCE" => self.source = text,
                "LOGIN" => self.login = text,
                "ADDR" if known => self.address = Some(address(&value).ok_or(AttributeError::Value)?),
                "ADDR" => self.address = None,
                "PORT" if known => self.port = Some(value.parse().map_err(|_| AttributeError::Value)?),
                _ => self.port = None,
            }
        }
        Ok(())
    }

    /// Appends an XFORWARD command with those attributes that the next hop takes; nothing where it takes none.
    pub fn write_xforward(&self, out: &mut Vec<u8>, offered: &str) {
        use std::io::Write;
        let start = out.len();
        out.extend_from_slice(b"XFORWARD");
        let before = out.len();
        for key in offered.split(' ') {
            let text = match key {
                "NAME" => &self.name,
                "HELO" => &self.helo,
                "PROTO" => &self.protocol,
                "IDENT" => &self.ident,
                "SOURCE" => &self.source,
                "ADDR" => {
                    match self.address {
                        Some(IpAddr::V6(v6)) => drop(write!(out, " ADDR=IPV6:{v6}")),
                        Some(IpAddr::V4(v4)) => drop(write!(out, " ADDR={v4}")),
                        None => out.extend_from_slice(b" ADDR=[UNAVAILABLE]"),
                    }
                    continue;
                }
                "PORT" => {
                    match self.port {
                        Some(port) => drop(write!(out, " PORT={port}")),
                        None => out.extend_from_slice(b" PORT=[UNAVAILABLE]"),
                    }
                    continue;
                }
                _ => continue,
            };
            out.push(b' ');
            out.extend_from_slice(key.as_bytes());
            out.push(b'=');
            match text {
                Some(text) => encode(text, out),
                None => out.extend_from_slice(b"[UNAVAILABLE]"),
            }
        }
        match out.len() == before {
            true => out.truncate(start),
            false => out.extend_from_slice(b"\r\n"),
        }
    }
}

fn address(text: &str) -> Option<IpAddr> {
    match text.get(..5) {
        Some(prefix) if prefix.eq_ignore_ascii_case("IPV6:") => text[5..].parse().ok(),
        _ => text.parse().ok(),
    }
}

/// xtext to text; `None` where it is malformed or too long.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len().min(255));
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => {
                let digit = |b: Option<u8>| (b? as char).to_digit(16);
                out.push((digit(bytes.next())? * 16 + digit(bytes.next())?) as u8);
            }
            _ => out.push(byte),
        }
    }
    let printable = |b: u8| if b.is_ascii_graphic() || b == b' ' { b as char } else { '?' };
    (out.len() <= 255).then(|| out.into_iter().map(printable).collect())
}

fn encode(text: &str, out: &mut Vec<u8>) {
    use std::io::Write;
    for byte in text.bytes() {
        match byte {
            b'+' | b'=' | b'<' | b'>' | b'(' | b')' | b'\\' => drop(write!(out, "+{byte:02X}")),
            _ if byte.is_ascii_graphic() => out.push(byte),
            _ => drop(write!(out, "+{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_postfix_sends() {
        let mut client = ClientAttributes::default();
        client.update("NAME=localhost ADDR=127.0.0.1 PORT=46672", XFORWARD).unwrap();
        client.update("PROTO=ESMTP HELO=client+2Etest IDENT=E1F60A18254 SOURCE=LOCAL", XFORWARD).unwrap();
        let mut out = Vec::new();
        client.write_xforward(&mut out, "NAME ADDR PORT PROTO HELO IDENT SOURCE");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "XFORWARD NAME=localhost ADDR=127.0.0.1 PORT=46672 PROTO=ESMTP HELO=client.test IDENT=E1F60A18254 SOURCE=LOCAL\r\n"
        );
    }

    #[test]
    fn what_is_unavailable_stays_so() {
        let mut client = ClientAttributes::default();
        client.update("NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::1 IDENT=[unavailable]", XFORWARD).unwrap();
        let mut out = Vec::new();
        client.write_xforward(&mut out, "NAME ADDR SOURCE X");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "XFORWARD NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::1 SOURCE=[UNAVAILABLE]\r\n"
        );
        let mut out = Vec::new();
        client.write_xforward(&mut out, "");
        assert!(out.is_empty());
    }

    #[test]
    fn no_value_can_inject_a_command() {
        let mut client = ClientAttributes::default();
        client.update("NAME=a+0D+0AMAIL HELO=b+20c", XFORWARD).unwrap();
        let mut out = Vec::new();
        client.write_xforward(&mut out, "NAME HELO");
        assert_eq!(String::from_utf8(out).unwrap(), "XFORWARD NAME=a??MAIL HELO=b+20c\r\n");
    }

    #[test]
    fn refuses_what_is_malformed() {
        let mut client = ClientAttributes::default();
        for (text, error) in [
            ("", AttributeError::Syntax),
            ("NAME", AttributeError::Syntax),
            ("LOGIN=a", AttributeError::Unknown),
            ("ADDR=1.2.3", AttributeError::Value),
            ("PORT=70000", AttributeError::Value),
            ("NAME=+4", AttributeError::Value),
        ] {
            assert_eq!(client.update(text, XFORWARD), Err(error), "{text}");
        }
        assert!(client.update(&format!("NAME={}", "a".repeat(256)), XFORWARD).is_err());
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = ClientAttributes::default().update(&text, XFORWARD);
        }
    }
}
