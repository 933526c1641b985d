//! Names of sites and addresses of replication mailboxes: which are allowed.
//!
//! STANDARDS
//!   A mailbox is RFC 5321's Mailbox with a Dot-string, in ASCII: it must be reachable without SMTPUTF8.
//!
//! LIMITS
//!   A site's name is also a file's name (`sites.d/NAME.toml`), hence its narrow alphabet. A local part leaves
//!   room for the return path's `+b-TOKEN` within the 64 octets of RFC 5321 section 4.5.3.1.1.

use thiserror::Error;

/// Octets of a site's name.
pub const SITE_NAME_BYTES_MAX: usize = 64;
/// Octets of a replication mailbox's local part, so that `+b-` and the longest token still fit into 64.
pub const LOCAL_PART_BYTES_MAX: usize = 32;
/// Octets of a domain (RFC 5321 section 4.5.3.1.2).
pub const DOMAIN_BYTES_MAX: usize = 255;

const _: () = assert!(LOCAL_PART_BYTES_MAX + 3 + super::token::TOKEN_BYTES_MAX <= 64);

/// The fault of whoever wrote the name: the operator here or at the other site.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    #[error(
        "`{0}` is no site name: 1 to 64 letters, digits, `-` and `.`, first and last a letter or digit, no `..`"
    )]
    Site(String),
    #[error("`{0}` is no replication mailbox: {1}")]
    Mailbox(String, &'static str),
}

/// Whether `name` may name a site.
pub fn check_site(name: &str) -> Result<(), NameError> {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    let sound = bytes.len() <= SITE_NAME_BYTES_MAX
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(byte))
        && !name.contains("..");
    if sound { Ok(()) } else { Err(NameError::Site(shown(name))) }
}

/// Splits a mailbox into local part and domain after checking both.
pub fn split_mailbox(mailbox: &str) -> Result<(&str, &str), NameError> {
    let refuse = |reason| NameError::Mailbox(shown(mailbox), reason);
    let (local, domain) = mailbox.rsplit_once('@').ok_or_else(|| refuse("it has no `@`"))?;
    if local.is_empty() || local.len() > LOCAL_PART_BYTES_MAX {
        return Err(refuse("its local part must have 1 to 32 characters"));
    }
    // A leading hyphen would be read as an option by programs that are given the address as an argument.
    if local.starts_with('-') || local.split('.').any(|atom| atom.is_empty() || !atom.bytes().all(is_atext)) {
        return Err(refuse("its local part must be plain ASCII atoms joined by dots, not starting with `-`"));
    }
    if !is_domain(domain) {
        return Err(refuse("its domain must be a host name or an address literal"));
    }
    Ok((local, domain))
}

/// RFC 5322 section 3.2.3, ASCII only.
fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn is_domain(domain: &str) -> bool {
    if domain.is_empty() || domain.len() > DOMAIN_BYTES_MAX {
        return false;
    }
    if let Some(literal) = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match literal.strip_prefix("IPv6:") {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => literal.parse::<std::net::Ipv4Addr>().is_ok(),
        };
    }
    domain.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// Foreign text as an error shows it: short, on one line, without control characters.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Like [`shown`], for text of several lines that may be longer.
pub(super) fn shown_lines(text: &str) -> String {
    text.chars().take(1000).map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn site_names() {
        for good in ["a", "alpha", "Site-1.example", &"x".repeat(64)] {
            assert_eq!(check_site(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "-a", "a-", ".a", "a.", "a..b", "a b", "a/b", "ä", "a\n", &"x".repeat(65)]
        {
            assert!(check_site(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mailboxes() {
        assert_eq!(split_mailbox("repl@alpha.example"), Ok(("repl", "alpha.example")));
        for good in ["a.b@c", "repl@[127.0.0.1]", "repl@[IPv6:::1]", "x+y@d-e.example"] {
            assert!(split_mailbox(good).is_ok(), "{good}");
        }
        let long = format!("{}@example", "x".repeat(33));
        let bad = [
            "",
            "a",
            "@b",
            "a@",
            "a b@c",
            "-f@c",
            ".a@c",
            "a.@c",
            "a..b@c",
            "a@b..c",
            "a@-b",
            "a@b-",
            "\"a\"@b",
            "ü@b",
            "a@ü",
            "a@[1.2.3]",
            "a@[IPv6:x]",
            "a\r\n@b",
            "a@b\r\nX: y",
            "<a@b>",
            &long,
        ];
        for mailbox in bad {
            assert!(split_mailbox(mailbox).is_err(), "{mailbox}");
        }
    }
}
