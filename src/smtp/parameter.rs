//! The ESMTP parameters of MAIL and RCPT: read, checked, and written again for the next hop.
//!
//! PROMISES
//!   Every parameter that we offer is understood; a parameter that we do not offer is refused, never
//!   dropped. Values that carry text (ENVID, ORCPT, AUTH) are kept as written.
//!
//! STANDARDS
//!   RFC 1870 (SIZE), RFC 6152 (BODY), RFC 3030 section 3 (BINARYMIME), RFC 6531
//!   (SMTPUTF8), RFC 3461 (RET, ENVID, NOTIFY, ORCPT), RFC 4954 section 5 (AUTH=).

use thiserror::Error;

use super::Extensions;

/// BODY=
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    SevenBit,
    EightBitMime,
    /// Octets of any kind, in chunks only.
    BinaryMime,
}

/// RET=
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    Full,
    Headers,
}

/// What MAIL FROM says besides the reverse path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// Octets that the client announces.
    pub size: Option<u64>,
    pub body: Option<Body>,
    pub smtputf8: bool,
    pub ret: Option<Ret>,
    /// xtext, as written.
    pub envid: Option<Box<str>>,
    /// xtext or `<>`, as written.
    pub auth: Option<Box<str>>,
}

/// NOTIFY=: never, or at least one of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify {
    pub success: bool,
    pub failure: bool,
    pub delay: bool,
}

/// What RCPT TO says besides the forward path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RcptParameters {
    pub notify: Option<Notify>,
    /// `type;xtext`, as written.
    pub orcpt: Option<Box<str>>,
}

/// Why parameters are refused; the client is at fault in each.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParameterError {
    #[error("parameter {0} is not supported")]
    Unknown(String),
    #[error("parameter {0} has a malformed value")]
    Value(&'static str),
    #[error("parameter {0} is given twice")]
    Twice(&'static str),
}

impl MailParameters {
    /// Reads what follows the reverse path: words separated by spaces.
    pub fn parse(text: &str) -> Result<MailParameters, ParameterError> {
        let mut p = MailParameters::default();
        for word in text.split_ascii_whitespace() {
            let (key, value) = split(word);
            if key.eq_ignore_ascii_case("SIZE") {
                let octets = value.and_then(number).ok_or(ParameterError::Value("SIZE"))?;
                once(&mut p.size, octets, "SIZE")?;
            } else if key.eq_ignore_ascii_case("BODY") {
                once(&mut p.body, body(value)?, "BODY")?;
            } else if key.eq_ignore_ascii_case("SMTPUTF8") {
                if value.is_some() {
                    return Err(ParameterError::Value("SMTPUTF8"));
                }
                p.smtputf8 = true;
            } else if key.eq_ignore_ascii_case("RET") {
                let ret = match value {
                    Some(v) if v.eq_ignore_ascii_case("FULL") => Ret::Full,
                    Some(v) if v.eq_ignore_ascii_case("HDRS") => Ret::Headers,
                    _ => return Err(ParameterError::Value("RET")),
                };
                once(&mut p.ret, ret, "RET")?;
            } else if key.eq_ignore_ascii_case("ENVID") {
                let envid = value.filter(|v| v.len() <= 100 && is_xtext(v));
                once(&mut p.envid, envid.ok_or(ParameterError::Value("ENVID"))?.into(), "ENVID")?;
            } else if key.eq_ignore_ascii_case("AUTH") {
                let auth = value.filter(|v| v.len() <= 500 && (*v == "<>" || is_xtext(v)));
                once(&mut p.auth, auth.ok_or(ParameterError::Value("AUTH"))?.into(), "AUTH")?;
            } else {
                return Err(ParameterError::Unknown(word.to_owned()));
            }
        }
        Ok(p)
    }

    /// Appends them for a next hop with these extensions, each after a space. SIZE and AUTH are
    /// advice and left out where the next hop does not know them; the rest was checked by
    /// [`MailParameters::lacking`].
    pub fn write_to(&self, out: &mut Vec<u8>, next_hop: &Extensions) {
        use std::io::Write;
        if let (Some(size), true) = (self.size, next_hop.size.is_some()) {
            let _ = write!(out, " SIZE={size}");
        }
        if next_hop.eight_bit_mime {
            match self.body {
                Some(Body::EightBitMime) => out.extend_from_slice(b" BODY=8BITMIME"),
                Some(Body::SevenBit) => out.extend_from_slice(b" BODY=7BIT"),
                Some(Body::BinaryMime) | None => {}
            }
        }
        if self.is_binary() && next_hop.takes_binary() {
            out.extend_from_slice(b" BODY=BINARYMIME");
        }
        if self.smtputf8 && next_hop.smtputf8 {
            out.extend_from_slice(b" SMTPUTF8");
        }
        if next_hop.dsn {
            match self.ret {
                Some(Ret::Full) => out.extend_from_slice(b" RET=FULL"),
                Some(Ret::Headers) => out.extend_from_slice(b" RET=HDRS"),
                None => {}
            }
            if let Some(envid) = &self.envid {
                let _ = write!(out, " ENVID={envid}");
            }
        }
        if let (Some(auth), true) = (&self.auth, next_hop.auth) {
            let _ = write!(out, " AUTH={auth}");
        }
    }

    /// Whether the message may hold octets of any kind: it travels in chunks, and its line ends mean nothing.
    pub fn is_binary(&self) -> bool {
        self.body == Some(Body::BinaryMime)
    }

    /// The first extension that these parameters need and the next hop does not have.
    pub fn lacking(&self, next_hop: &Extensions) -> Option<&'static str> {
        if self.body == Some(Body::EightBitMime) && !next_hop.eight_bit_mime {
            return Some("8BITMIME");
        }
        if self.is_binary() && !next_hop.takes_binary() {
            return Some("BINARYMIME");
        }
        if self.smtputf8 && !next_hop.smtputf8 {
            return Some("SMTPUTF8");
        }
        ((self.ret.is_some() || self.envid.is_some()) && !next_hop.dsn).then_some("DSN")
    }
}

impl RcptParameters {
    /// Reads what follows the forward path.
    pub fn parse(text: &str) -> Result<RcptParameters, ParameterError> {
        let mut p = RcptParameters::default();
        for word in text.split_ascii_whitespace() {
            let (key, value) = split(word);
            if key.eq_ignore_ascii_case("NOTIFY") {
                let notify = value.and_then(Notify::parse).ok_or(ParameterError::Value("NOTIFY"))?;
                once(&mut p.notify, notify, "NOTIFY")?;
            } else if key.eq_ignore_ascii_case("ORCPT") {
                let orcpt = value.filter(|v| v.len() <= 500 && is_orcpt(v));
                once(&mut p.orcpt, orcpt.ok_or(ParameterError::Value("ORCPT"))?.into(), "ORCPT")?;
            } else {
                return Err(ParameterError::Unknown(word.to_owned()));
            }
        }
        Ok(p)
    }

    /// Appends them for a next hop with these extensions, each after a space.
    pub fn write_to(&self, out: &mut Vec<u8>, next_hop: &Extensions) {
        use std::io::Write;
        if !next_hop.dsn {
            return;
        }
        if let Some(notify) = self.notify {
            out.extend_from_slice(b" NOTIFY=");
            notify.write_to(out);
        }
        if let Some(orcpt) = &self.orcpt {
            let _ = write!(out, " ORCPT={orcpt}");
        }
    }

    /// The extension that these parameters need and the next hop does not have.
    pub fn lacking(&self, next_hop: &Extensions) -> Option<&'static str> {
        ((self.notify.is_some() || self.orcpt.is_some()) && !next_hop.dsn).then_some("DSN")
    }
}

impl Notify {
    const NEVER: Notify = Notify { success: false, failure: false, delay: false };

    fn parse(text: &str) -> Option<Notify> {
        if text.eq_ignore_ascii_case("NEVER") {
            return Some(Notify::NEVER);
        }
        let mut notify = Notify::NEVER;
        for word in text.split(',') {
            match word {
                w if w.eq_ignore_ascii_case("SUCCESS") => notify.success = true,
                w if w.eq_ignore_ascii_case("FAILURE") => notify.failure = true,
                w if w.eq_ignore_ascii_case("DELAY") => notify.delay = true,
                _ => return None,
            }
        }
        Some(notify)
    }

    fn write_to(self, out: &mut Vec<u8>) {
        if self == Notify::NEVER {
            out.extend_from_slice(b"NEVER");
            return;
        }
        let words = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        for (i, (_, word)) in words.iter().filter(|(set, _)| *set).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(word.as_bytes());
        }
    }
}

fn split(word: &str) -> (&str, Option<&str>) {
    match word.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (word, None),
    }
}

fn once<T>(slot: &mut Option<T>, value: T, name: &'static str) -> Result<(), ParameterError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ParameterError::Twice(name)),
    }
}

/// One to twenty digits (RFC 1870 section 4); more than fits is as good as the largest.
fn number(text: &str) -> Option<u64> {
    let sound = (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    sound.then(|| text.parse().unwrap_or(u64::MAX))
}

fn body(value: Option<&str>) -> Result<Body, ParameterError> {
    match value {
        Some(v) if v.eq_ignore_ascii_case("7BIT") => Ok(Body::SevenBit),
        Some(v) if v.eq_ignore_ascii_case("8BITMIME") => Ok(Body::EightBitMime),
        Some(v) if v.eq_ignore_ascii_case("BINARYMIME") => Ok(Body::BinaryMime),
        _ => Err(ParameterError::Value("BODY")),
    }
}

/// RFC 3461 section 4: printable ASCII but `+` and `=`, or `+` and two upper-case hexadecimal digits.
pub(crate) fn is_xtext(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let hex = |b: Option<u8>| matches!(b, Some(b'0'..=b'9' | b'A'..=b'F' | b'a'..=b'f'));
        let sound = match byte {
            b'+' => hex(bytes.next()) && hex(bytes.next()),
            b'=' => false,
            _ => byte.is_ascii_graphic(),
        };
        if !sound {
            return false;
        }
    }
    !text.is_empty()
}

/// `rfc822;xtext` or, with SMTPUTF8, `utf-8;` and the forms of RFC 6533 section 3.
fn is_orcpt(text: &str) -> bool {
    text.split_once(';').is_some_and(|(kind, address)| {
        let kind_sound =
            !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let utf8 = kind.eq_ignore_ascii_case("utf-8");
        let address_sound = if utf8 {
            !address.is_empty() && !address.chars().any(|c| c.is_control() || c == ' ')
        } else {
            is_xtext(address)
        };
        kind_sound && address_sound
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Extensions {
        Extensions {
            size: Some(0),
            eight_bit_mime: true,
            smtputf8: true,
            dsn: true,
            auth: true,
            chunking: true,
            binary_mime: true,
            ..Extensions::default()
        }
    }

    #[test]
    fn mail_parameters_pass_through() {
        for text in [
            " SIZE=100 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B314 AUTH=<>",
            " BODY=7BIT RET=FULL",
            " BODY=BINARYMIME",
            "",
        ] {
            let mut out = Vec::new();
            MailParameters::parse(text).unwrap().write_to(&mut out, &all());
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn rcpt_parameters_pass_through() {
        for text in
            [" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;a+2Bb@c", " NOTIFY=NEVER", " ORCPT=utf-8;ü@example"]
        {
            let mut out = Vec::new();
            RcptParameters::parse(text).unwrap().write_to(&mut out, &all());
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for text in [
            "SIZE=",
            "SIZE=-1",
            "SIZE=123456789012345678901",
            "BODY=9BIT",
            "RET=NONE",
            "ENVID==",
            "SMTPUTF8=1",
        ] {
            assert!(matches!(MailParameters::parse(text), Err(ParameterError::Value(_))), "{text}");
        }
        assert_eq!(MailParameters::parse("SIZE=1 SIZE=2"), Err(ParameterError::Twice("SIZE")));
        assert_eq!(MailParameters::parse("HOLDFOR=3"), Err(ParameterError::Unknown("HOLDFOR=3".into())));
        for text in ["NOTIFY=", "NOTIFY=NEVER,DELAY", "ORCPT=rfc822", "ORCPT=;a", "ORCPT=rfc822;a+2"] {
            assert!(matches!(RcptParameters::parse(text), Err(ParameterError::Value(_))), "{text}");
        }
    }

    #[test]
    fn names_what_the_next_hop_lacks() {
        let none = Extensions::default();
        let lacking = |text: &str| MailParameters::parse(text).unwrap().lacking(&none);
        assert_eq!(lacking("BODY=8BITMIME"), Some("8BITMIME"));
        assert_eq!(lacking("SMTPUTF8"), Some("SMTPUTF8"));
        assert_eq!(lacking("RET=FULL"), Some("DSN"));
        assert_eq!(lacking("BODY=BINARYMIME"), Some("BINARYMIME"));
        assert_eq!(lacking("SIZE=5 AUTH=<> BODY=7BIT"), None);
        assert_eq!(RcptParameters::parse("NOTIFY=NEVER").unwrap().lacking(&none), Some("DSN"));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,60}") {
            let _ = MailParameters::parse(&text);
            let _ = RcptParameters::parse(&text);
        }
    }
}
