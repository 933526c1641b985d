//! Messages that pretend.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::{ByHand, Recorded, Site, deliver, free_address, ordinary_message, people};

#[test]
fn what_is_not_signed_by_a_partner_for_us_is_refused() {
    let mut pair = ByHand::start("forged");
    pair.paris.import(&people(&pair.paris, 12));
    let genuine = pair.intercept_from_paris();
    let sample = &genuine[0].message;
    let before = pair.tokyo.status()["contexts"].clone();

    let sealed = attachment(sample);
    let forgeries = [
        ("mail of people", ordinary_message("lunch?")),
        ("an attachment of noise", with_attachment(sample, &noise(sealed.len()))),
        ("an empty attachment", with_attachment(sample, b"")),
        ("one bit changed at the end", with_attachment(sample, &flipped(&sealed, sealed.len() - 1))),
        ("one bit changed in the middle", with_attachment(sample, &flipped(&sealed, sealed.len() / 2))),
        ("one bit changed in the key", with_attachment(sample, &flipped(&sealed, 30))),
        ("half of it", with_attachment(sample, &sealed[..sealed.len() / 2])),
        ("the mail cut off in the attachment", sample[..sample.len() * 2 / 3].to_vec()),
        ("from a site that nobody added", from_stranger(&pair, "oslo")),
        ("from somebody else who calls himself paris", from_stranger(&pair, "paris")),
        ("for another site", for_another_site(&pair)),
    ];
    for (what, message) in &forgeries {
        let reply = deliver(&pair.tokyo, message);
        assert_eq!(reply.code / 100, 5, "{what}: {reply:?}");
        assert!(reply.text().starts_with("5."), "{what}: an enhanced code, please: {reply:?}");
        pair.tokyo.daemon().assert_alive();
        assert_eq!(pair.tokyo.status()["contexts"], before, "{what} changed the store");
    }
    deliver_all(&pair.tokyo, &genuine);
    let after = pair.tokyo.export(&pair.paris.context);
    assert!(after == pair.paris.export(&pair.paris.context), "the genuine message was taken");
}

#[test]
fn a_message_repeated_any_number_of_times_changes_nothing() {
    let mut pair = ByHand::start("replay");
    pair.paris.import(&people(&pair.paris, 12));
    let first = pair.intercept_from_paris();
    deliver_all(&pair.tokyo, &first);
    pair.carry_for(std::time::Duration::from_secs(1));
    pair.paris.ok(&["entry", "delete", &some_person(&pair)]);
    let second = pair.intercept_from_paris();
    deliver_all(&pair.tokyo, &second);
    let before = pair.tokyo.export(&pair.paris.context);
    for mail in first.iter().chain(&second).chain(&first) {
        // Accepted without effect, or refused: both are sound. A temporary refusal would come back for days.
        let reply = deliver(&pair.tokyo, &mail.message);
        assert!(matches!(reply.code / 100, 2 | 5), "{reply:?}");
    }
    pair.tokyo.daemon().assert_alive();
    assert!(pair.tokyo.export(&pair.paris.context) == before, "a repeated message changed the store");
}

fn some_person(pair: &ByHand) -> String {
    let ldif = String::from_utf8(pair.paris.export(&pair.paris.context)).expect("LDIF is ASCII");
    let dn = ldif.lines().find_map(|line| line.strip_prefix("dn: uid=")).expect("a person in the sample");
    format!("uid={dn}")
}

fn deliver_all(to: &Site, mail: &[Recorded]) {
    for one in mail {
        deliver(to, &one.message).expect(250);
    }
}

/// A message by a site with a sound key that Tokyo does not have under this name; it holds Tokyo's card.
fn from_stranger(pair: &ByHand, name: &str) -> Vec<u8> {
    let scratch = crate::support::Scratch::new("stranger");
    let outbox = crate::support::Recorder::start();
    let mut stranger = Site::init(&scratch, name, free_address(), outbox.address);
    stranger.accept_card_of(&pair.tokyo);
    first_mail(&mut stranger, &outbox, &pair.tokyo)
}

/// A message of Paris's own key, sealed to a third site.
fn for_another_site(pair: &ByHand) -> Vec<u8> {
    let scratch = crate::support::Scratch::new("other");
    let outbox = crate::support::Recorder::start();
    let mut paris = Site::init(&scratch, "paris", free_address(), outbox.address);
    std::fs::copy(pair.paris.directory.join("site.key"), paris.directory.join("site.key"))
        .expect("copy the key");
    let oslo = Site::init(&scratch, "oslo", free_address(), free_address());
    paris.accept_card_of(&oslo);
    first_mail(&mut paris, &outbox, &oslo)
}

fn first_mail(from: &mut Site, outbox: &crate::support::Recorder, to: &Site) -> Vec<u8> {
    from.start();
    from.ok(&["sync"]);
    let mail = outbox.await_message_for(&to.mailbox, crate::support::SOON);
    from.stop();
    mail.message
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[at] ^= 0x10;
    changed
}

/// The attachment of a replication message, decoded: its longest run of base64 lines.
fn attachment(message: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(message.to_vec()).expect("replication mail is ASCII");
    let (from, to) = attachment_span(&text);
    STANDARD.decode(text[from..to].replace("\r\n", "")).expect("base64")
}

/// The same message with another attachment in its place.
fn with_attachment(message: &[u8], bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(message.to_vec()).expect("replication mail is ASCII");
    let (from, to) = attachment_span(&text);
    let encoded = STANDARD.encode(bytes);
    let lines: Vec<&str> = encoded
        .as_bytes()
        .chunks(76)
        .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
        .collect();
    format!("{}{}\r\n{}", &text[..from], lines.join("\r\n"), &text[to..]).into_bytes()
}

fn attachment_span(text: &str) -> (usize, usize) {
    let marker = text.to_ascii_lowercase().rfind("content-transfer-encoding: base64").expect("a base64 part");
    let from = marker + text[marker..].find("\r\n\r\n").expect("the end of the part's header") + 4;
    let end = text[from..].find("\r\n--").map_or(text.len(), |at| from + at + 2);
    (from, end)
}
