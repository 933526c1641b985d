//! A DNS server with a small table in place of zones, and with the failures that real ones have.
//!
//! STANDARDS
//!   RFC 1035 (one question, UDP, no compression), RFC 3596 (AAAA). A name that is not in the table does not exist.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use super::free_address;

/// What the table says of a name; several lines may be about the same one.
#[derive(Clone, Debug)]
pub enum Record {
    /// Preference and host. `.` is the null MX.
    Mx(u16, &'static str),
    /// A or AAAA.
    Address(IpAddr),
    Cname(&'static str),
    /// It exists, and has no record.
    Nothing,
    /// Every question about it is answered with SERVFAIL.
    ServFail,
    /// Its addresses of IPv6 are.
    ServFailAaaa,
    /// No question about it is answered.
    Silence,
}

type Zone = Arc<Mutex<Vec<(&'static str, Record)>>>;

pub struct Dns {
    pub address: SocketAddr,
    zone: Zone,
}

impl Dns {
    pub fn start(zone: &[(&'static str, Record)]) -> Dns {
        let socket = (0..8).find_map(|_| UdpSocket::bind(free_address()).ok()).expect("a free port");
        let address = socket.local_addr().expect("its address");
        let zone = Arc::new(Mutex::new(zone.to_vec()));
        let answered = zone.clone();
        // Ends with the process: it holds nothing but a port.
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                if let Some(answer) = answer(&question[..length], &answered) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Dns { address, zone }
    }

    /// Puts another table in place.
    pub fn replace(&self, zone: &[(&'static str, Record)]) {
        *self.zone.lock().expect("no DNS thread panicked") = zone.to_vec();
    }
}

fn answer(question: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut name = String::new();
    loop {
        let length = usize::from(*question.get(at)?);
        let label = question.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            break;
        }
        name = format!("{name}{}{}", if name.is_empty() { "" } else { "." }, String::from_utf8_lossy(label));
    }
    let asked = u16::from_be_bytes([*question.get(at)?, *question.get(at + 1)?]);
    let mut name = name.to_ascii_lowercase();
    let zone = zone.lock().expect("no DNS thread panicked");
    let (mut code, mut count, mut records) = (NXDOMAIN, 0_u16, Vec::new());
    // An alias is followed within the answer, as a recursive server does.
    'alias: loop {
        let mut alias = None;
        for (_, record) in zone.iter().filter(|(owner, _)| *owner == name) {
            code = NOERROR;
            let (kind, data) = match record {
                Record::Silence => return None,
                Record::Nothing => continue,
                Record::ServFailAaaa if asked != AAAA => continue,
                Record::ServFail | Record::ServFailAaaa => {
                    code = SERVFAIL;
                    break 'alias;
                }
                Record::Mx(preference, host) => (MX, [&preference.to_be_bytes()[..], &wire(host)].concat()),
                Record::Address(IpAddr::V4(ip)) => (A, ip.octets().to_vec()),
                Record::Address(IpAddr::V6(ip)) => (AAAA, ip.octets().to_vec()),
                Record::Cname(target) => {
                    alias = Some((*target).to_owned());
                    (CNAME, wire(target))
                }
            };
            if kind == asked || kind == CNAME {
                count += 1;
                records.extend(wire(&name));
                // Class IN, and a time to live of nothing: what is asked again is looked up again.
                records.extend([kind.to_be_bytes(), [0, 1], [0, 0], [0, 0]].concat());
                records.extend(u16::try_from(data.len()).expect("a short record").to_be_bytes());
                records.extend(data);
            }
        }
        match alias {
            Some(target) => name = target,
            None => break,
        }
    }
    // The question's id; a response, recursion desired and available; one question.
    let mut answer = [&question[..2], &[0x81, 0x80 | code, 0, 1]].concat();
    answer.extend(count.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(&question[12..at + 4]);
    answer.extend(records);
    Some(answer)
}

fn wire(name: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        octets.push(u8::try_from(label.len()).expect("a short label"));
        octets.extend(label.as_bytes());
    }
    octets.push(0);
    octets
}

const NOERROR: u8 = 0;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;
const A: u16 = 1;
const CNAME: u16 = 5;
const MX: u16 = 15;
const AAAA: u16 = 28;
