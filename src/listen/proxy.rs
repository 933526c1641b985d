//! The PROXY protocol: whose connection a load balancer passes on.
//!
//! STANDARDS
//!   HAProxy's proxy-protocol.txt, versions 1 and 2. TLVs are skipped.
//!
//! FAILURE
//!   A listener that expects a header closes a connection without one, and one from a stranger, without a word.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// What a header said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The client behind the proxy.
    Client(SocketAddr),
    /// The proxy itself (a health check), or a family that we do not know: the connection's own address counts.
    Proxy,
}

/// The octets are no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no PROXY protocol header")]
pub struct NoHeader;

const SIGNATURE_V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// RFC-like text: 107 octets with CRLF.
const V1_BYTES_MAX: usize = 107;
/// Addresses and TLVs of version 2.
const V2_BYTES_MAX: usize = 4096;

/// Reads a header from the front of `input`: what it says and how many octets it took; `None` while it is incomplete.
pub fn parse(input: &[u8]) -> Result<Option<(Source, usize)>, NoHeader> {
    let common = input.len().min(SIGNATURE_V2.len());
    if input[..common] == SIGNATURE_V2[..common] && !input.is_empty() {
        return if common < SIGNATURE_V2.len() { Ok(None) } else { parse_v2(input) };
    }
    parse_v1(input)
}

fn parse_v1(input: &[u8]) -> Result<Option<(Source, usize)>, NoHeader> {
    const START: &[u8] = b"PROXY ";
    let common = input.len().min(START.len());
    if input[..common] != START[..common] {
        return Err(NoHeader);
    }
    let Some(end) = memchr::memmem::find(&input[..input.len().min(V1_BYTES_MAX)], b"\r\n") else {
        return if input.len() >= V1_BYTES_MAX { Err(NoHeader) } else { Ok(None) };
    };
    let text = std::str::from_utf8(&input[START.len()..end]).map_err(|_| NoHeader)?;
    let used = end + 2;
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        ["UNKNOWN", ..] => Ok(Some((Source::Proxy, used))),
        [family @ ("TCP4" | "TCP6"), source, destination, source_port, destination_port] => {
            let source: IpAddr = source.parse().map_err(|_| NoHeader)?;
            let destination: IpAddr = destination.parse().map_err(|_| NoHeader)?;
            let port: u16 = source_port.parse().map_err(|_| NoHeader)?;
            let _: u16 = destination_port.parse().map_err(|_| NoHeader)?;
            let v4 = family == "TCP4";
            if source.is_ipv4() != v4 || destination.is_ipv4() != v4 {
                return Err(NoHeader);
            }
            Ok(Some((Source::Client(SocketAddr::new(source, port)), used)))
        }
        _ => Err(NoHeader),
    }
}

fn parse_v2(input: &[u8]) -> Result<Option<(Source, usize)>, NoHeader> {
    let Some(&[command, family, high, low]) = input.get(12..16) else {
        return Ok(None);
    };
    let octets = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 || octets > V2_BYTES_MAX {
        return Err(NoHeader);
    }
    let Some(body) = input.get(16..16 + octets) else {
        return Ok(None);
    };
    let port = |at: usize| body.get(at..at + 2).map(|p| u16::from_be_bytes([p[0], p[1]])).ok_or(NoHeader);
    let source = match (command & 0x0f, family) {
        (0, _) => Source::Proxy,
        (1, 0x11) => {
            let ip: [u8; 4] = body.get(..4).and_then(|ip| ip.try_into().ok()).ok_or(NoHeader)?;
            Source::Client(SocketAddr::new(Ipv4Addr::from(ip).into(), port(8)?))
        }
        (1, 0x21) => {
            let ip: [u8; 16] = body.get(..16).and_then(|ip| ip.try_into().ok()).ok_or(NoHeader)?;
            Source::Client(SocketAddr::new(Ipv6Addr::from(ip).into(), port(32)?))
        }
        (1, _) => Source::Proxy,
        _ => return Err(NoHeader),
    };
    Ok(Some((source, 16 + octets)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE_V2.to_vec();
        header.extend([command, family]);
        header.extend((body.len() as u16).to_be_bytes());
        header.extend_from_slice(body);
        header
    }

    #[test]
    fn reads_version_1() {
        let header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\nEHLO x\r\n";
        let client = Source::Client("192.0.2.7:4711".parse().unwrap());
        assert_eq!(parse(header), Ok(Some((client, 40))));
        for end in 0..40 {
            assert_eq!(parse(&header[..end]), Ok(None), "{end}");
        }
        assert_eq!(parse(b"PROXY UNKNOWN\r\n"), Ok(Some((Source::Proxy, 15))));
        assert_eq!(parse(b"PROXY UNKNOWN a b c\r\n"), Ok(Some((Source::Proxy, 21))));
        let Ok(Some((Source::Client(v6), _))) = parse(b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n") else {
            panic!()
        };
        assert_eq!(v6, "[2001:db8::7]:1".parse().unwrap());
    }

    #[test]
    fn reads_version_2() {
        let v4 = [192, 0, 2, 7, 192, 0, 2, 1, 0x12, 0x67, 0, 25, 9, 9, 9];
        let header = v2(0x21, 0x11, &v4);
        let client = Source::Client("192.0.2.7:4711".parse().unwrap());
        assert_eq!(parse(&header), Ok(Some((client, header.len()))));
        for end in 0..header.len() {
            assert_eq!(parse(&header[..end]), Ok(None));
        }
        let mut v6 = [0u8; 36];
        (v6[15], v6[33]) = (7, 99);
        let Ok(Some((Source::Client(address), _))) = parse(&v2(0x21, 0x21, &v6)) else { panic!() };
        assert_eq!(address, "[::7]:99".parse().unwrap());
        assert_eq!(parse(&v2(0x20, 0, &[])), Ok(Some((Source::Proxy, 16))));
        assert_eq!(parse(&v2(0x21, 0x31, &[0; 216])), Ok(Some((Source::Proxy, 232))));
    }

    #[test]
    fn refuses_everything_else() {
        for input in [
            &b"EHLO x\r\n"[..],
            b"PROXY TCP4 192.0.2.7\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 70000 25\r\n",
            b"PROXY UDP4 192.0.2.7 192.0.2.1 1 25\r\n",
            b"\r\n\r\n\0\r\nQUIT!",
        ] {
            assert_eq!(parse(input), Err(NoHeader), "{input:?}");
        }
        assert_eq!(parse(&[&b"PROXY TCP4 "[..], &[b'1'; 200]].concat()), Err(NoHeader));
        assert_eq!(parse(&v2(0x11, 0x11, &[0; 12])), Err(NoHeader));
        assert_eq!(parse(&v2(0x22, 0x11, &[0; 12])), Err(NoHeader));
        assert_eq!(parse(&v2(0x21, 0x11, &[0; 5])), Err(NoHeader));
        assert_eq!(parse(&v2(0x21, 0x11, &[0; 5000])), Err(NoHeader));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(input in proptest::collection::vec(proptest::num::u8::ANY, 0..60), signed: bool) {
            let input = if signed { [&SIGNATURE_V2[..], &input].concat() } else { input };
            let _ = parse(&input);
        }
    }
}
