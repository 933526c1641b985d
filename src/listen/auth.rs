//! AUTH, offered from a password file: PLAIN and LOGIN. Where the next hop is to judge, passed.rs goes on.
//!
//! The file has lines `user:{SCHEME}data`, as Dovecot's passwd-file has them; `#` begins a comment. Schemes: `{SSHA256}`
//! (base64 of SHA-256(password || salt) || salt) and `{PLAIN}`. It is read at each attempt, so that changes hold at once.
//!
//! STANDARDS
//!   RFC 4954, RFC 4616 (PLAIN), draft-murchison-sasl-login.
//!
//! FAILURE
//!   535 after a second's pause for a wrong password; 454 where the file cannot be read.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Buf;
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::refusal::Refusal;
use super::session::{End, Flow, Session};
use crate::config::relay::AuthSource;
use crate::smtp::{Enhanced, Line, Reply};

/// User name and password as the client gave them.
#[derive(Debug, PartialEq, Eq)]
struct Claim {
    user: String,
    password: String,
}

impl Session {
    pub(super) async fn auth(&mut self, mechanism: &str, initial: Option<&str>) -> Flow {
        let Some(config) = self.listener.auth.clone() else {
            return self.refuse(Refusal::NotImplemented);
        };
        if self.client.login.is_some() || self.transaction.is_some() || !self.client.extended {
            return self.refuse(Refusal::OutOfSequence("AUTH comes once, after EHLO and before MAIL"));
        }
        if !self.stream.is_tls() && !config.without_tls {
            return self.refuse(Refusal::NeedsTls);
        }
        let file = match &config.source {
            AuthSource::PasswordFile(file) => file,
            AuthSource::NextHop => return self.pass_auth(mechanism, initial).await,
        };
        let claim = if mechanism.eq_ignore_ascii_case("PLAIN") {
            let response = match initial {
                Some(initial) => Some(initial.to_owned()),
                None => self.challenge("").await?,
            };
            response.map(|response| plain_claim(&response))
        } else if mechanism.eq_ignore_ascii_case("LOGIN") {
            self.login_claim(initial).await?
        } else {
            return self.refuse(Refusal::AuthMechanism);
        };
        let claim = match claim {
            None => return self.refuse(Refusal::AuthCancelled),
            Some(None) => {
                return self.refuse(Refusal::Command(crate::smtp::CommandError::Syntax("AUTH: base64")));
            }
            Some(Some(claim)) => claim,
        };
        match is_right(file, &claim).await {
            Err(error) => {
                warn!(target: "bridgehead::session", %error, "cannot read the password file");
                self.refuse(Refusal::AuthUnavailable)
            }
            Ok(false) => {
                info!(target: "bridgehead::session", user = claim.user, "authentication failed");
                tokio::time::sleep(FAILURE_PAUSE).await;
                self.refuse(Refusal::AuthFailed)
            }
            Ok(true) => {
                self.client.login = Some(claim.user.into());
                self.say(&Reply::new(235, Enhanced(2, 7, 0), "Authentication successful"));
                Ok(())
            }
        }
    }

    async fn login_claim(&mut self, initial: Option<&str>) -> Result<Option<Option<Claim>>, End> {
        let user = match initial {
            Some(initial) => initial.to_owned(),
            None => match self.challenge("VXNlcm5hbWU6").await? {
                Some(user) => user,
                None => return Ok(None),
            },
        };
        let Some(password) = self.challenge("UGFzc3dvcmQ6").await? else {
            return Ok(None);
        };
        let claim = text(&user).and_then(|user| text(&password).map(|password| Claim { user, password }));
        Ok(Some(claim))
    }

    /// Asks; gives the line that answers, `None` for `*`.
    pub(super) async fn challenge(&mut self, question: &str) -> Result<Option<String>, End> {
        if !self.input.is_empty() {
            self.refuse(Refusal::Pipelined("AUTH"))?;
            return Err(End::Said);
        }
        self.say(&Reply::new(334, None, question));
        self.flush().await?;
        loop {
            match Line::find(&self.input, RESPONSE_BYTES_MAX) {
                Line::Whole(octets) => {
                    let line = String::from_utf8_lossy(&self.input[..octets - 2]).into_owned();
                    self.input.advance(octets);
                    return Ok((line != "*").then_some(line));
                }
                Line::Partial => self.await_data(512).await?,
                Line::Broken(_) | Line::TooLong => {
                    self.refuse(Refusal::AuthLineTooLong)?;
                    return Err(End::Said);
                }
            }
        }
    }
}

/// authorization identity NUL user NUL password
fn plain_claim(response: &str) -> Option<Claim> {
    let decoded = text(response)?;
    let mut parts = decoded.split('\0');
    let (_authorize, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let sound = parts.next().is_none() && !user.is_empty();
    sound.then(|| Claim { user: user.to_owned(), password: password.to_owned() })
}

fn text(base64: &str) -> Option<String> {
    let base64 = if base64 == "=" { "" } else { base64 };
    String::from_utf8(BASE64.decode(base64).ok()?).ok()
}

async fn is_right(file: &Path, claim: &Claim) -> std::io::Result<bool> {
    let passwords = tokio::fs::read_to_string(file).await?;
    Ok(passwords.lines().any(|line| matches_line(line, claim)))
}

fn matches_line(line: &str, claim: &Claim) -> bool {
    let Some((user, secret)) = line.split_once(':') else {
        return false;
    };
    if user != claim.user || user.starts_with('#') {
        return false;
    }
    // Further fields of a passwd-file are not ours to read, but a password may contain colons.
    if let Some(plain) = secret.strip_prefix("{PLAIN}") {
        return same(plain.as_bytes(), claim.password.as_bytes());
    }
    let Some(encoded) = secret.strip_prefix("{SSHA256}") else {
        return false;
    };
    match BASE64.decode(encoded.split(':').next().unwrap_or("")) {
        Ok(decoded) if decoded.len() > HASH_BYTES => {
            let (hash, salt) = decoded.split_at(HASH_BYTES);
            let digest = Sha256::new().chain_update(claim.password.as_bytes()).chain_update(salt).finalize();
            same(hash, &digest)
        }
        _ => false,
    }
}

/// In a time that does not depend on where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

const HASH_BYTES: usize = 32;
/// With the CRLF (RFC 4954 section 4 has 12,288 without).
pub const RESPONSE_BYTES_MAX: usize = 12_288 + 2;
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(user: &str, password: &str) -> Claim {
        Claim { user: user.into(), password: password.into() }
    }

    #[test]
    fn reads_responses() {
        assert_eq!(plain_claim(&BASE64.encode("\0tim\0secret")), Some(claim("tim", "secret")));
        assert_eq!(plain_claim(&BASE64.encode("other\0tim\0")), Some(claim("tim", "")));
        for wrong in ["tim", "\0tim", "\0\0x", "\0a\0b\0c"] {
            assert_eq!(plain_claim(&BASE64.encode(wrong)), None);
        }
        assert_eq!(plain_claim("***"), None);
    }

    #[test]
    fn knows_right_from_wrong() {
        let salted = {
            let hash = Sha256::new().chain_update(b"secret").chain_update(b"salt").finalize();
            BASE64.encode([&hash[..], b"salt"].concat())
        };
        for line in
            ["tim:{PLAIN}secret", &format!("tim:{{SSHA256}}{salted}"), &format!("tim:{{SSHA256}}{salted}:x")]
        {
            assert!(matches_line(line, &claim("tim", "secret")), "{line}");
            assert!(
                !matches_line(line, &claim("tim", "Secret")) && !matches_line(line, &claim("tom", "secret"))
            );
        }
        for line in ["tim:secret", "tim:{SSHA256}", "tim", "", "#tim:{PLAIN}secret", "tim:{SSHA256}AAAA"] {
            assert!(
                !matches_line(line, &claim("tim", "secret")) && !matches_line(line, &claim("tim", "")),
                "{line}"
            );
        }
    }
}
