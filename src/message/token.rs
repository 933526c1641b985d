//! The tokens in our return paths and Message-IDs: unguessable, and they say which mail to which site they were made for.
//!
//! PROMISES
//!   Pure functions of key, site, mail number and text. A token made elsewhere, for another key or altered anywhere is not
//!   accepted; case does not matter, for some mail systems change it.
//!
//! A delivery status report cannot be signed. What ties it to something that we sent is only this
//! token, and whoever has seen the message has seen it; so a bounce stays a hint and never a command.
//!
//! STANDARDS
//!   A token is the mail's number, big-endian without leading zero octets, and HMAC-SHA-256 (RFC 2104) over the number in
//!   8 octets and the site's name, truncated to 80 bits; base32 (RFC 4648 section 6) in lower case without padding.
//!   The return path is a variable envelope return path: `LOCAL+b-TOKEN@DOMAIN`.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Characters of the longest token: eight octets of mail number, ten of proof.
pub const TOKEN_BYTES_MAX: usize = 29;
const MARK: &str = "+b-";
const PROOF_BYTES: usize = 10;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The key of the tokens, derived from a site's secret.
#[derive(Clone)]
pub struct TokenKey(Zeroizing<[u8; 32]>);

impl TokenKey {
    /// Derives the key from a secret that nobody else holds.
    pub fn derive(secret: &[u8; 32]) -> Self {
        let mut derived = [0; 32];
        derived.copy_from_slice(&hmac(secret, b"bridgehead return token 1").finalize().into_bytes());
        TokenKey(Zeroizing::new(derived))
    }

    /// The token of a mail to a site.
    pub fn make(&self, site: &str, mail: u64) -> String {
        let number = mail.to_be_bytes();
        let mut bytes = number[(mail.leading_zeros() / 8).min(7) as usize..].to_vec();
        bytes.extend_from_slice(&self.proof(site, mail).finalize().into_bytes()[..PROOF_BYTES]);
        base32(&bytes)
    }

    /// The mail that the token was made for, if it was made here for this site.
    pub fn check(&self, token: &str, site: &str) -> Option<u64> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let bytes = unbase32(token)?;
        let (number, proof) = bytes.split_at_checked(bytes.len().checked_sub(PROOF_BYTES)?)?;
        let is_canonical = number.len() == 1 || number.first().is_some_and(|first| *first != 0);
        if !is_canonical || number.len() > 8 {
            return None;
        }
        let mail = number.iter().fold(0, |mail, byte| mail << 8 | u64::from(*byte));
        self.proof(site, mail).verify_truncated_left(proof).is_ok().then_some(mail)
    }

    fn proof(&self, site: &str, mail: u64) -> Hmac<Sha256> {
        hmac(&self.0, &mail.to_be_bytes()).chain_update(site)
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

fn hmac(key: &[u8; 32], text: &[u8]) -> Hmac<Sha256> {
    // RFC 2104 section 2: a key shorter than the hash's block is padded with zeros.
    let mut block = Zeroizing::new([0; 64]);
    block[..key.len()].copy_from_slice(key);
    Hmac::<Sha256>::new((&*block).into()).chain_update(text)
}

/// The return path of a mail from `mailbox`. A mailbox without `@` stays as it is.
pub fn return_path(mailbox: &str, token: &str) -> String {
    match mailbox.rsplit_once('@') {
        Some((local, domain)) => format!("{local}{MARK}{token}@{domain}"),
        None => mailbox.to_owned(),
    }
}

/// Whether `address` is `mailbox` itself or one of its return paths; then the token, if it has one.
///
/// Compared without regard to case: the local part is ours, and mail systems change it on the way.
pub fn split_return_path<'a>(mailbox: &str, address: &'a str) -> Option<Option<&'a str>> {
    let (local, domain) = mailbox.rsplit_once('@')?;
    let (given, given_domain) = address.rsplit_once('@')?;
    if !given_domain.eq_ignore_ascii_case(domain) {
        return None;
    }
    if given.eq_ignore_ascii_case(local) {
        return Some(None);
    }
    let (head, rest) = given.split_at_checked(local.len())?;
    let (mark, token) = rest.split_at_checked(MARK.len())?;
    (head.eq_ignore_ascii_case(local) && mark.eq_ignore_ascii_case(MARK)).then_some(Some(token))
}

fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut held, mut bits) = (0u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(ALPHABET[(held >> bits) as usize & 31] as char);
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(ALPHABET[(held << (5 - bits)) as usize & 31] as char);
    }
    text
}

fn unbase32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut held, mut bits) = (0u32, 0);
    for byte in text.bytes() {
        let digit = ALPHABET.iter().position(|known| *known == byte.to_ascii_lowercase())?;
        held = held << 5 | digit as u32;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    // Left-over bits must be zero and fewer than a digit, so that each token has one spelling.
    (held == 0 && bits < 5).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(seed: u8) -> TokenKey {
        TokenKey::derive(&[seed; 32])
    }

    proptest! {
        #[test]
        fn a_token_names_its_mail_and_only_under_its_key(mail: u64) {
            let token = key(1).make("beta", mail);
            prop_assert!(token.len() <= TOKEN_BYTES_MAX);
            prop_assert_eq!(key(1).check(&token, "beta"), Some(mail));
            prop_assert_eq!(key(1).check(&token.to_ascii_uppercase(), "beta"), Some(mail));
            prop_assert_eq!(key(1).check(&token, "gamma"), None);
            prop_assert_eq!(key(2).check(&token, "beta"), None);
        }

        #[test]
        fn whatever_comes_as_a_token_is_no_panic(text: String) {
            prop_assert_eq!(key(1).check(&text, "beta"), None);
        }
    }

    #[test]
    fn every_altered_character_is_refused() {
        let token = key(1).make("beta", 4711);
        for at in 0..token.len() {
            for digit in ALPHABET {
                let mut altered = token.clone().into_bytes();
                if altered[at] != *digit {
                    altered[at] = *digit;
                    assert_eq!(key(1).check(std::str::from_utf8(&altered).unwrap(), "beta"), None);
                }
            }
        }
        assert_eq!(key(1).check(&token[..token.len() - 1], "beta"), None);
        assert_eq!(key(1).check(&format!("{token}a"), "beta"), None);
    }

    #[test]
    fn return_paths() {
        let path = return_path("Repl@Alpha.example", "abc");
        assert_eq!(path, "Repl+b-abc@Alpha.example");
        assert_eq!(split_return_path("repl@alpha.example", &path), Some(Some("abc")));
        assert_eq!(split_return_path("repl@alpha.example", "REPL@ALPHA.EXAMPLE"), Some(None));
        for other in [
            "repl@beta.example",
            "replx+b-abc@alpha.example",
            "repl+c-abc@alpha.example",
            "repl",
            "r\u{e4}pl@alpha.example",
        ] {
            assert_eq!(split_return_path("repl@alpha.example", other), None, "{other}");
        }
    }
}
