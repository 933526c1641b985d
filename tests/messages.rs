//! Replication mail as real mail systems leave it: what survives, what is lost and how it is named, and their reports.
//!
//! `tests/messages/README` says how each sample was made. With `BRIDGEHEAD_REWRITE=1` the sample that this program
//! composes itself is written anew; the others hold what was composed before there was but one part, and stay.

use std::path::PathBuf;

use bridgehead::message::bounce::{self, Action, Cause, Status};
use bridgehead::message::card::{Card, CardFields};
use bridgehead::message::keys::SiteKey;
use bridgehead::message::mime::{ExtractError, Letter, compose, extract};
use bridgehead::message::open::open;
use bridgehead::message::random::{Rng, Seeded};
use bridgehead::message::seal::{Header, seal};

use crate::support::Rewrite;

fn sample(name: &str) -> Vec<u8> {
    let path = path(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "messages", name].iter().collect()
}

fn site(name: &str, seed: u64) -> (SiteKey, Card) {
    let key = SiteKey::generate(&mut Seeded::new(seed));
    let fields = CardFields {
        name: name.to_owned(),
        organization: "Example".to_owned(),
        mailbox: format!("bridgehead@{name}.example"),
        contexts: vec![format!("ou={name},o=Example")],
        address_spaces: vec![format!("{name}.example")],
        part_bytes_max: 1 << 20,
        serial: 1,
        issued: "2026-11-22T14:00:00Z".parse().unwrap(),
    };
    let card = Card::parse_verified(&Card::issue(&key, &fields).unwrap()).unwrap();
    (key, card)
}

/// The payload of the samples: of every octet, so that no conversion leaves it alone, and not compressible.
fn payload() -> Vec<u8> {
    let mut octets = vec![0; 700];
    Seeded::new(3).fill_bytes(&mut octets);
    octets
}

fn sealed() -> Vec<u8> {
    let time = "2026-11-22T14:00:00Z".parse().unwrap();
    let header = Header { from: "alpha".to_owned(), to: "beta".to_owned(), seq: 7, time };
    seal(&site("alpha", 1).0, &site("beta", 2).1, &header, &payload(), &mut Seeded::new(4)).unwrap()
}

fn token() -> String {
    site("alpha", 1).0.make_token("beta", 7)
}

fn as_sent() -> Vec<u8> {
    mail_of(&sealed())
}

fn mail_of(sealed: &[u8]) -> Vec<u8> {
    let letter = Letter {
        from: "bridgehead@alpha.example",
        to: "bridgehead@beta.example",
        token: &token(),
        time: "2026-11-22T14:00:00Z".parse().unwrap(),
        sealed,
    };
    compose(&letter).unwrap()
}

#[test]
fn what_is_sent_stays_as_it_is() {
    if std::env::var_os("BRIDGEHEAD_REWRITE").is_some() {
        std::fs::write(path("as-sent.eml"), as_sent()).unwrap();
    }
    assert_eq!(String::from_utf8(as_sent()), String::from_utf8(sample("as-sent.eml")));
}

/// Each of these still holds the sealed message, whole.
const SURVIVORS: &[&str] = &[
    "as-sent.eml",
    "multipart-as-sent.eml",
    "tagged-footer-rewrapped.eml",
    "one-line-lf.eml",
    "quoted-printable.eml",
    "binary.eml",
    "list-footer.eml",
    "wrapped-by-scanner.eml",
    "retyped-as-text.eml",
    "forwarded-quoted.eml",
    "mime-headers-lost.eml",
    "appended-to-attachment.eml",
];

#[test]
fn what_mail_systems_rewrite_still_opens() {
    let (beta, alpha) = (site("beta", 2).0, site("alpha", 1).1);
    for name in SURVIVORS {
        let attachment = extract(&sample(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let opened = open(&beta, "beta", |_| Some(alpha.clone()), &attachment.sealed)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(opened.payload, payload(), "{name}");
    }
    let id = extract(&sample("as-sent.eml")).unwrap().message_id;
    assert_eq!(id, Some(format!("bh.{}@alpha.example", token())));
}

/// The mail as it is composed now and as it once was, after each habit of the hop that `tests/field` puts between sites.
#[test]
fn what_a_hop_does_to_it_is_survived_or_named() {
    let (beta, alpha) = (site("beta", 2).0, site("alpha", 1).1);
    let whole = sealed().len();
    for mail in [as_sent(), sample("multipart-as-sent.eml")] {
        let mut every = mail.clone();
        for rewrite in Rewrite::HARMLESS {
            let rewritten = rewrite.apply(&mail);
            assert!(rewritten != mail, "{rewrite:?} changes something");
            every = rewrite.apply(&every);
            for mail in [&rewritten, &every] {
                let attachment = extract(mail).unwrap_or_else(|error| panic!("{rewrite:?}: {error}"));
                let opened = open(&beta, "beta", |_| Some(alpha.clone()), &attachment.sealed);
                assert_eq!(opened.expect("it opens").payload, payload(), "{rewrite:?}");
            }
        }
        for (rewrite, expected) in [
            (Rewrite::Strip, ExtractError::Stripped),
            (Rewrite::Empty, ExtractError::Stripped),
            (Rewrite::Truncate, ExtractError::Truncated { expected: whole, present: whole / 2 }),
            (Rewrite::EightBit, ExtractError::Converted),
        ] {
            assert_eq!(extract(&rewrite.apply(&mail)), Err(expected), "{rewrite:?}");
        }
        let damaged = extract(&Rewrite::Damage.apply(&mail)).expect("it is there");
        assert!(open(&beta, "beta", |_| Some(alpha.clone()), &damaged.sealed).is_err());
    }
}

#[test]
fn what_is_lost_is_named() {
    let whole = sealed().len();
    for (name, expected) in [
        ("lost-stripped.eml", ExtractError::Stripped),
        ("lost-replaced.eml", ExtractError::Stripped),
        ("lost-emptied.eml", ExtractError::Stripped),
        ("lost-truncated.eml", ExtractError::Truncated { expected: whole, present: 557 }),
        ("lost-truncated-before.eml", ExtractError::TruncatedBefore),
        ("lost-user-mail.eml", ExtractError::UserMail),
        ("lost-out-of-office.eml", ExtractError::UserMail),
        ("lost-user-mail-with-attachment.eml", ExtractError::UserMail),
        ("lost-converted.eml", ExtractError::Converted),
    ] {
        let error = extract(&sample(name)).unwrap_err();
        assert_eq!(error, expected, "{name}");
        assert_eq!(error.refusal().code / 100, 5, "{name}");
    }
}

#[test]
fn an_attachment_whose_first_octets_were_altered_is_not_called_removed() {
    // The first and the last, alone, look like what a conversion to text does.
    for at in 1..7 {
        let mut sealed = sealed();
        sealed[at] ^= 1;
        assert_eq!(extract(&mail_of(&sealed)), Err(ExtractError::Altered), "octet {at}");
    }
}

#[test]
fn a_mail_cut_anywhere_is_refused_or_whole() {
    let mail = as_sent();
    let last_digit = mail.iter().rposition(|octet| !b"=\r\n".contains(octet)).unwrap() + 1;
    for length in 0..mail.len() {
        match extract(&mail[..length]) {
            Ok(attachment) => {
                assert!(attachment.sealed == sealed() && length >= last_digit, "{length}")
            }
            Err(error) => assert!(length < last_digit, "{length}: {error}"),
        }
    }
}

#[test]
fn a_mail_altered_anywhere_opens_to_the_same_or_not_at_all() {
    let (beta, alpha) = (site("beta", 2).0, site("alpha", 1).1);
    let mail = as_sent();
    for at in 0..mail.len() {
        for octet in [b'\n', b'A', 0xff] {
            let mut altered = mail.clone();
            altered[at] = octet;
            let opened =
                extract(&altered).map(|found| open(&beta, "beta", |_| Some(alpha.clone()), &found.sealed));
            if let Ok(Ok(opened)) = opened {
                assert_eq!(opened.payload, payload(), "{at}");
            }
        }
    }
}

#[test]
fn monstrous_mail_is_refused_within_bounds() {
    let nested = b"Content-Type: message/rfc822\r\n\r\n".repeat(40_000);
    assert_eq!(extract(&nested), Err(ExtractError::TooComplex));
    // Hidden from a look at the raw mail: the nested messages are base64 inside a nested message.
    let hidden = {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(&nested);
        format!("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n{text}\r\n")
    };
    assert_eq!(extract(hidden.as_bytes()), Err(ExtractError::UserMail));
    assert!(bounce::parse(hidden.as_bytes()).is_none());
    let parts =
        [&b"Content-Type: multipart/mixed; boundary=x\r\n\r\n"[..], &b"--x\r\n\r\n".repeat(50_000)].concat();
    assert_eq!(extract(&parts), Err(ExtractError::TooComplex));
    let large = vec![b'\n'; 65 << 20];
    assert_eq!(extract(&large), Err(ExtractError::TooLarge(large.len())));
    let parentheses = [&b"Content-Type: ("[..], &b"(".repeat(200_000), b"\r\n\r\nx"].concat();
    assert_eq!(extract(&parentheses), Err(ExtractError::UserMail));
}

/// Report, action, status, cause, and words that the diagnostic must hold.
type Report = (&'static str, Action, Option<Status>, Cause, &'static str);

const REPORTS: &[Report] = &[
    (
        "bounce-postfix-size.eml",
        Action::Failed,
        Some(Status(5, 3, 4)),
        Cause::TooLarge,
        "exceeds size limit 1000",
    ),
    ("bounce-postfix-too-large.eml", Action::Failed, Some(Status(5, 3, 4)), Cause::TooLarge, "552 5.3.4"),
    (
        "bounce-postfix-unknown.eml",
        Action::Failed,
        Some(Status(5, 1, 1)),
        Cause::NoSuchMailbox,
        "User unknown",
    ),
    (
        "bounce-postfix-bare-reply.eml",
        Action::Failed,
        Some(Status(5, 0, 0)),
        Cause::NoSuchMailbox,
        "unknown user",
    ),
    (
        "bounce-postfix-refused-by-bridgehead.eml",
        Action::Failed,
        Some(Status(5, 7, 7)),
        Cause::Refused,
        "signature",
    ),
    (
        "bounce-postfix-delayed.eml",
        Action::Delayed,
        Some(Status(4, 4, 1)),
        Cause::Unreachable,
        "Connection refused",
    ),
    (
        "bounce-postfix-expired.eml",
        Action::Failed,
        Some(Status(4, 4, 1)),
        Cause::Unreachable,
        "Connection refused",
    ),
    ("bounce-exim-unknown.eml", Action::Failed, Some(Status(5, 1, 1)), Cause::NoSuchMailbox, "User unknown"),
    ("bounce-exim-too-large.eml", Action::Failed, Some(Status(5, 3, 4)), Cause::TooLarge, "552 5.3.4"),
    (
        "bounce-exim-refused-by-bridgehead.eml",
        Action::Failed,
        Some(Status(5, 7, 7)),
        Cause::Refused,
        "signature",
    ),
    (
        "bounce-exim-expired.eml",
        Action::Failed,
        Some(Status(5, 0, 0)),
        Cause::Unreachable,
        "retry timeout exceeded",
    ),
    ("bounce-qmail.eml", Action::Failed, Some(Status(5, 3, 4)), Cause::TooLarge, "552 Message too big"),
    ("bounce-exchange55.eml", Action::Failed, None, Cause::NoSuchMailbox, "not recognized"),
];

#[test]
fn reports_are_understood_and_tied_to_what_was_sent() {
    for (name, action, status, cause, words) in REPORTS {
        let report = bounce::parse(&sample(name)).unwrap_or_else(|| panic!("{name}: not read"));
        let worst = report.worst().unwrap();
        assert_eq!(
            (worst.action, worst.status, worst.cause()),
            (*action, *status, *cause),
            "{name}: {report:?}"
        );
        assert!(worst.diagnostic.as_deref().unwrap_or_default().contains(words), "{name}: {report:?}");
        let mail =
            report.tokens.iter().find_map(|token| site("alpha", 1).0.check_token(token, ["gamma", "beta"]));
        assert_eq!(mail, Some(("beta", 7)), "{name}: {:?}", report.tokens);
        assert!(
            !matches!(extract(&sample(name)), Ok(_) | Err(ExtractError::TooComplex))
                || name.contains("qmail")
        );
    }
}

#[test]
fn what_is_no_report_is_not_read_as_one() {
    for name in ["as-sent.eml", "lost-user-mail.eml", "lost-out-of-office.eml", "wrapped-by-scanner.eml"] {
        assert_eq!(bounce::parse(&sample(name)), None, "{name}");
    }
}

#[test]
fn a_report_cut_or_altered_anywhere_is_no_panic() {
    for (name, ..) in REPORTS {
        let report = sample(name);
        for at in (0..report.len()).step_by(7) {
            let _ = bounce::parse(&report[..at]);
            let mut altered = report.clone();
            altered[at] = b'\n';
            let _ = bounce::parse(&altered);
        }
    }
}
