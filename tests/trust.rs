//! Keys that are renewed, mailboxes that move, sites that are introduced, between real daemons; and what is refused.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bridgehead::message::card::{Card, CardFields};
use bridgehead::message::introduction::Introduction;
use bridgehead::message::keys::SiteKey;
use bridgehead::message::mime::{self, Letter};
use bridgehead::message::random::Seeded;
use bridgehead::message::seal::{self, Header};
use bridgehead::message::{keyfile, random};
use bridgehead::replication::wire::{Hello, Message};
use jiff::Timestamp;

use crate::support::{
    ByHand, Direct, Recorder, Reply, SOON, Scratch, Site, await_true, deliver, free_address, path_text,
    people,
};

/// The card that a site has pinned of another.
fn pinned(at: &Site, of: &Site) -> Card {
    let text =
        fs::read_to_string(at.directory.join(format!("sites.d/{}.toml", of.name))).expect("the site's file");
    let table: toml::Table = toml::from_str(&text).expect("TOML");
    Card::parse_verified(table["card"].as_str().expect("a card")).expect("a sound card")
}

fn own_card(site: &Site) -> Card {
    Card::parse_verified(&site.ok(&["card"])).expect("a sound card")
}

fn key(site: &Site) -> SiteKey {
    keyfile::read(&site.directory.join("site.key")).expect("the key")
}

/// Until `at` goes by the present card of `of`.
#[track_caller]
fn await_pinned(at: &Site, of: &Site) {
    let card = own_card(of);
    await_true("the new card to be pinned", SOON, || pinned(at, of) == card);
}

fn log(site: &Site) -> String {
    fs::read_to_string(site.log()).unwrap_or_default()
}

#[track_caller]
fn await_log(site: &Site, what: &str) {
    await_true(what, SOON, || log(site).contains(what));
}

/// Replaces text in the file of a connected site.
fn edit(at: &Site, of: &str, from: &str, to: &str) {
    let file = at.directory.join(format!("sites.d/{of}.toml"));
    let text = fs::read_to_string(&file).expect("the site's file");
    assert!(text.contains(from), "{from} in {text}");
    fs::write(&file, text.replacen(from, to, 1)).expect("the site's file");
}

/// What both hold of both is equal.
fn equal(a: &Site, b: &Site) -> bool {
    // Of a naming context without entries nothing is held elsewhere.
    let held = |site: &Site, context: &str| {
        let text =
            String::from_utf8(site.run(&["export", "--context", context]).stdout).expect("LDIF is ASCII");
        text.trim().trim_start_matches("version: 1").to_owned()
    };
    [&a.context, &b.context].into_iter().all(|context| held(a, context) == held(b, context))
}

#[test]
fn keys_are_renewed_while_both_sites_go_on() {
    let mut pair = Direct::prepare("key-roll");
    edit(&pair.tokyo, "paris", "[link]\n", "[link]\nhold_deletions_percent = 77 # by the operator\n");
    pair.paris.start();
    pair.tokyo.start();
    pair.paris.import(&people(&pair.paris, 5));
    pair.tokyo.import(&people(&pair.tokyo, 5));
    pair.paris.sync(SOON);
    let before = pinned(&pair.tokyo, &pair.paris);

    let said = pair.paris.ok(&["key", "roll"]);
    let after = own_card(&pair.paris);
    assert!(said.contains(&after.fingerprint()) && after.public != before.public, "{said}");
    await_pinned(&pair.tokyo, &pair.paris);
    await_log(&pair.tokyo, "card-pinned");
    let file = fs::read_to_string(pair.tokyo.directory.join("sites.d/paris.toml")).unwrap();
    assert!(file.contains("hold_deletions_percent = 77 # by the operator"), "{file}");
    assert!(file.contains("former_until = [\""), "{file}");
    assert!(
        pair.tokyo.ok(&["site", "list"]).contains(&before.fingerprint()),
        "the former key counts for a while"
    );

    // From here on the former key is not needed: nothing is signed by it any more.
    pair.paris.sync(SOON);
    let (card, rest) = file.split_once("\nformer = ").unwrap();
    let rest = &rest[rest.find("former_until").unwrap()..];
    let without = format!("{card}\n{}", &rest[rest.find('\n').unwrap()..]);
    fs::write(pair.tokyo.directory.join("sites.d/paris.toml"), without).unwrap();
    pair.tokyo.ok(&["reload"]);
    add_device(&pair.paris, "new");
    pair.paris.sync(SOON);
    pair.tokyo.sync(SOON);
    assert!(equal(&pair.paris, &pair.tokyo));
    assert!(!log(&pair.tokyo).contains("5.7.7"), "nothing was taken for forged");
    // Whoever was added with the present card alone hears from the site itself how others get there.
    await_log(&pair.tokyo, "former-cards-kept");
    let file = fs::read_to_string(pair.tokyo.directory.join("sites.d/paris.toml")).unwrap();
    let table: toml::Table = toml::from_str(&file).unwrap();
    let former = table["former"].as_array().unwrap()[0].as_str().unwrap();
    assert_eq!(Card::parse_verified(former).unwrap().public, before.public);
    assert!(file.contains("hold_deletions_percent = 77 # by the operator"), "{file}");
}

/// As bridgehead.toml(5) says under `former_names`.
#[test]
fn a_site_gets_another_name_and_its_partner_keeps_what_it_holds() {
    let mut pair = Direct::start("rename-site");
    pair.paris.import(&people(&pair.paris, 5));
    pair.tokyo.import(&people(&pair.tokyo, 5));
    pair.paris.sync(SOON);
    let held = pair.tokyo.export(&pair.paris.context);
    let master = |site: &Site, of: &str| site.context_status(of).map(|context| context["master"].clone());

    pair.tokyo.ok(&["site", "detach", "paris"]);
    pair.paris.stop();
    let text = fs::read_to_string(pair.paris.config()).unwrap();
    let renamed = text.replace("name = \"paris\"", "name = \"lutetia\"\nformer_names = [\"paris\"]");
    assert_ne!(renamed, text);
    fs::write(pair.paris.config(), renamed).unwrap();
    pair.paris.name = "lutetia".into();
    pair.paris.start();
    add_device(&pair.paris, "meanwhile");
    assert_eq!(pair.tokyo.export(&pair.paris.context), held, "nothing is lost meanwhile");

    pair.tokyo.accept_card_of(&pair.paris);
    pair.tokyo.ok(&["reload"]);
    pair.paris.sync(SOON);
    pair.tokyo.sync(SOON);
    assert!(equal(&pair.paris, &pair.tokyo));
    assert_eq!(master(&pair.tokyo, &pair.paris.context), Some("lutetia".into()));
    assert_eq!(master(&pair.paris, &pair.paris.context), Some("lutetia".into()));
    assert_eq!(log(&pair.tokyo).matches("context-added").count(), 1, "its history goes on");
    assert!(!log(&pair.tokyo).contains("forked"));
    assert!(
        !pair.tokyo.run(&["site", "purge", "paris"]).status.success(),
        "nothing is left of the former name"
    );
    assert!(equal(&pair.paris, &pair.tokyo));
}

#[test]
fn a_site_that_was_away_follows_every_renewal_and_move_at_once() {
    let mut pair = Direct::start("missed-cards");
    pair.paris.import(&people(&pair.paris, 3));
    pair.paris.sync(SOON);
    pair.tokyo.stop();
    for mailbox in ["first@repl.paris.example", "second@repl.paris.example"] {
        pair.paris.ok(&["key", "roll"]);
        pair.paris.ok(&["card", "move", "--mailbox", mailbox]);
    }
    add_device(&pair.paris, "new");
    // And paris was started anew meanwhile.
    pair.paris.stop();
    pair.paris.start();
    pair.tokyo.start();
    await_true("the new card to be pinned", SOON, || {
        pair.tokyo.ok(&["sync"]);
        pair.paris.ok(&["sync"]);
        pinned(&pair.tokyo, &pair.paris) == own_card(&pair.paris)
    });
    assert_eq!(pinned(&pair.tokyo, &pair.paris).fields.mailbox, "second@repl.paris.example");
    await_true("both to be equal", SOON, || {
        pair.tokyo.ok(&["sync"]);
        equal(&pair.paris, &pair.tokyo)
    });
}

#[test]
fn mail_under_way_to_the_former_mailbox_and_by_the_former_key_is_taken() {
    let mut pair = ByHand::start("under-way");
    pair.paris.import(&people(&pair.paris, 3));
    let by_the_former_key = pair.intercept_from_paris();
    assert!(!by_the_former_key.is_empty());
    let late = by_the_former_key[0].message.clone();
    pair.paris.ok(&["key", "roll"]);
    await_true("the new card to be pinned", SOON, || {
        pair.carry_for(Duration::from_millis(200));
        pinned(&pair.tokyo, &pair.paris) == own_card(&pair.paris)
    });
    deliver(&pair.tokyo, &late).expect(250);

    // Tokyo moves; mail to where it was is still taken, and what comes next goes where it is.
    let former = pair.tokyo.mailbox.clone();
    let said = pair.tokyo.ok(&["card", "move", "--mailbox", "new@repl.tokyo.example"]);
    assert!(said.contains(&former), "{said}");
    pair.tokyo.mailbox = "new@repl.tokyo.example".into();
    await_true("mail to the new mailbox", SOON, || {
        pair.paris.ok(&["sync"]);
        pair.tokyo.ok(&["sync"]);
        pair.carry_to_both_for(&former, Duration::from_millis(200));
        pinned(&pair.paris, &pair.tokyo).fields.mailbox == pair.tokyo.mailbox
    });
    let mut moved = Vec::new();
    await_true("mail to where tokyo is", SOON, || {
        moved.extend(pair.intercept_from_paris());
        moved.iter().any(|mail| mail.is_for(&pair.tokyo.mailbox))
    });
    // What paris made before it pinned the card may leave last; from then on nothing goes to where tokyo was.
    let mut of_the_new_card = moved.iter().skip_while(|mail| mail.is_for(&former));
    assert!(of_the_new_card.all(|mail| mail.is_for(&pair.tokyo.mailbox)), "{moved:?}");
    for mail in &moved {
        deliver(&pair.tokyo, &mail.message).expect(250);
    }
    await_true("both to be equal", SOON, || {
        pair.carry_for(Duration::from_millis(200));
        equal(&pair.paris, &pair.tokyo)
    });

    // The stated time is over.
    let file = fs::read_to_string(pair.tokyo.directory.join("sites.d/paris.toml")).unwrap();
    let until = file.split("former_until = [\"").nth(1).unwrap().split('"').next().unwrap();
    edit(&pair.tokyo, "paris", until, "2026-01-01T00:00:00Z");
    pair.tokyo.ok(&["reload"]);
    let reply = deliver(&pair.tokyo, &late).expect(550);
    assert!(reply.text().contains("5.7.7") || reply.text().contains("signature"), "{reply:?}");
}

#[test]
fn site_add_takes_a_rightful_successor_and_names_what_to_do_about_others() {
    let scratch = Scratch::new("site-add");
    let alpha = Site::init(&scratch, "alpha", free_address(), free_address());
    let beta = Site::init(&scratch, "beta", free_address(), free_address());
    let add = |text: &str| alpha.run(&["site", "add", path_text(&scratch.write("card", text))]);
    let first = beta.ok(&["card"]);
    assert!(add(&first).status.success());
    assert!(add(&first).status.success(), "the very same card again");
    beta.ok(&["key", "roll"]);
    let second = beta.ok(&["card"]);
    let done = add(&second);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(pinned(&alpha, &beta), own_card(&beta));

    let older = add(&first);
    let said = String::from_utf8_lossy(&older.stderr).into_owned();
    assert!(!older.status.success() && said.contains("older, or repeated"), "{said}");
    let stranger = Card::issue(
        &SiteKey::generate(&mut Seeded::new(5)),
        &CardFields { serial: u64::MAX >> 1, ..own_card(&beta).fields },
    );
    let foreign = add(&stranger.unwrap());
    let said = String::from_utf8_lossy(&foreign.stderr).into_owned();
    assert!(!foreign.status.success() && said.contains("did not endorse it"), "{said}");
    assert!(said.contains("by telephone") && said.contains("site detach beta"), "{said}");
    assert_eq!(pinned(&alpha, &beta), own_card(&beta), "nothing was replaced");
}

/// A message as whoever holds this key can make it.
fn speak(key: &SiteKey, from: &Site, to: &Site, message: &Message, card: &Card) -> Reply {
    let time = Timestamp::now();
    let seq = time.as_millisecond() as u64;
    let header = Header { from: from.name.clone(), to: to.name.clone(), seq, time };
    let sealed = seal::seal(key, card, &header, &message.encode(), &mut random::system()).unwrap();
    let token = key.make_token(&to.name, seq);
    let letter = Letter { from: &from.mailbox, to: &to.mailbox, token: &token, time, sealed: &sealed };
    deliver(to, &mime::compose(&letter).unwrap())
}

fn hello(card: &str, former_cards: &[&str]) -> Message {
    let mut message = Message::new(Vec::new());
    message.hello = Some(Hello {
        card: card.to_owned(),
        capabilities: 0,
        part_bytes_max: 1 << 20,
        answer: true,
        former_cards: former_cards.iter().map(|&card| card.to_owned()).collect(),
        pinned: None,
    });
    message
}

#[test]
fn cards_that_do_not_succeed_the_pinned_one_change_nothing() {
    let mut pair = ByHand::start("bad-cards");
    let (paris, tokyo) = (key(&pair.paris), own_card(&pair.tokyo));
    let present = own_card(&pair.paris);
    let file = pair.tokyo.directory.join("sites.d/paris.toml");
    let before = fs::read_to_string(&file).unwrap();
    let fields = |serial| CardFields { serial, ..present.fields.clone() };
    let later = present.fields.serial + 10;
    let thief = SiteKey::generate(&mut Seeded::new(5));
    let other_name = CardFields { name: "kyoto".into(), ..fields(later) };
    let takes_over = CardFields { contexts: vec![pair.tokyo.context.clone()], ..fields(later) };
    let bad = [
        ("older", Card::issue(&paris, &CardFields { mailbox: "old@repl.paris.example".into(), ..fields(1) })),
        ("of a stranger's key", Card::issue(&thief, &fields(later))),
        ("endorsed by a stranger", Card::issue_successor(&thief.renew(&mut Seeded::new(6)), &fields(later))),
        ("of another site", Card::issue(&paris, &other_name)),
        ("for our own naming context", Card::issue(&paris, &takes_over)),
        ("altered", Card::issue(&paris, &fields(later)).map(|card| card.replace("directory@", "thief@"))),
    ];
    for (what, card) in &bad {
        let event = if *what == "older" { "card-older" } else { "card-refused" };
        let told = log(&pair.tokyo).matches(event).count();
        speak(&paris, &pair.paris, &pair.tokyo, &hello(card.as_ref().unwrap(), &[]), &tokyo).expect(250);
        await_true(what, SOON, || log(&pair.tokyo).matches(event).count() > told);
        assert_eq!(fs::read_to_string(&file).unwrap(), before, "a card {what}");
    }
    // A message by the key that such a card names is forged, too.
    let reply = speak(&thief, &pair.paris, &pair.tokyo, &hello("", &[]), &tokyo);
    assert_eq!(reply.code / 100, 5, "{reply:?}");
    let rightful = Card::issue(&paris, &fields(later)).unwrap();
    speak(&paris, &pair.paris, &pair.tokyo, &hello(&rightful, &[]), &tokyo).expect(250);
    await_true("the rightful one", SOON, || pinned(&pair.tokyo, &pair.paris).fields.serial == later);
    pair.tokyo.daemon().assert_alive();
}

#[test]
fn a_link_that_asks_leaves_a_new_card_to_the_operator() {
    let mut pair = Direct::prepare("successors-ask");
    edit(&pair.tokyo, "paris", "[link]\n", "[link]\nsuccessors = \"ask\"\n");
    pair.paris.start();
    pair.tokyo.start();
    pair.paris.sync(SOON);
    let before = pinned(&pair.tokyo, &pair.paris);
    pair.paris.ok(&["key", "roll"]);
    await_true("the card to wait", SOON, || {
        pair.tokyo.ok(&["site", "list"]).contains("paris waits for `bridgehead site approve paris`")
    });
    assert_eq!(pinned(&pair.tokyo, &pair.paris), before);
    // What the new key signs waits for that, too.
    pair.paris.ok(&["entry", "add", &pair.paris.context, "objectClass=organizationalUnit", "ou=paris"]);
    pair.paris.ok(&["sync"]);
    std::thread::sleep(Duration::from_secs(3));
    assert!(pair.tokyo.context_status(&pair.paris.context).is_none());
    assert!(!log(&pair.tokyo).contains("transfer-not-applied"));
    // Nobody decided before the keys were renewed once more: one word is enough for both.
    pair.paris.ok(&["key", "roll"]);
    let latest = own_card(&pair.paris).fingerprint();
    await_true("the later card to wait", SOON, || pair.tokyo.ok(&["site", "list"]).contains(&latest));
    pair.tokyo.ok(&["site", "approve", "paris"]);
    await_pinned(&pair.tokyo, &pair.paris);
    await_true("both to be equal", SOON, || equal(&pair.paris, &pair.tokyo));
}

/// Paris and Tokyo, each connected to the hub and not to one another.
struct Star {
    hub: Site,
    paris: Site,
    tokyo: Site,
    /// Where mail ends that is for nobody here.
    elsewhere: Recorder,
    _scratch: Scratch,
}

fn star(test: &str, policy: &str) -> Star {
    let scratch = Scratch::new(test);
    let elsewhere = Recorder::start();
    let (at_hub, at_paris, at_tokyo) = (free_address(), free_address(), free_address());
    let mut hub = Site::init(&scratch, "hub", at_hub, elsewhere.address);
    let mut paris = Site::init(&scratch, "paris", at_paris, elsewhere.address);
    let mut tokyo = Site::init(&scratch, "tokyo", at_tokyo, elsewhere.address);
    let route =
        |domain: &str, at| format!("[[route]]\nto = [\"repl.{domain}.example\"]\nnext_hop = [\"{at}\"]");
    hub.configure("[log]", "", &format!("{}\n{}", route("paris", at_paris), route("tokyo", at_tokyo)));
    for site in [&paris, &tokyo] {
        site.configure("[log]", "", &route("hub", at_hub));
        hub.introduce(site);
    }
    let outbound =
        |other: &str| format!("[link]\noutbound = [\"ou=hub,o=Example\", \"ou={other},o=Example\"]\n");
    edit(&hub, "tokyo", "[link]\n", &outbound("paris"));
    edit(&hub, "paris", "[link]\n", &outbound("tokyo"));
    edit(&tokyo, "hub", "[link]\n", &format!("[link]\nintroductions = \"{policy}\"\n"));
    for site in [&mut hub, &mut paris, &mut tokyo] {
        // The hub speaks before the others listen; what was refused then is not to wait for minutes.
        site.configure("[replication]", "retry_first = \"2s\"", "");
        site.start();
    }
    paris.import(&people(&paris, 4));
    Star { hub, paris, tokyo, elsewhere, _scratch: scratch }
}

/// A small change to what the site masters.
fn add_device(site: &Site, name: &str) {
    let dn = format!("cn={name},{}", site.context);
    site.ok(&["entry", "add", &dn, "objectClass=device", &format!("cn={name}")]);
}

fn holds_paris(star: &Star) -> bool {
    star.tokyo.context_status(&star.paris.context).is_some()
        && star.tokyo.export(&star.paris.context) == star.paris.export(&star.paris.context)
}

#[test]
fn a_hub_introduces_and_the_operator_decides() {
    let star = star("introduce", "ask");
    await_true("paris to wait for the operator", SOON, || {
        star.tokyo
            .ok(&["site", "list"])
            .contains("paris waits for `bridgehead site approve paris`: told by hub")
    });
    assert!(!star.tokyo.directory.join("sites.d/paris.toml").exists());
    let route = star.tokyo.ok(&["route", &star.paris.mailbox]);
    star.tokyo.ok(&["site", "approve", "paris"]);
    await_true("tokyo to hold what paris masters", SOON, || holds_paris(&star));
    assert_eq!(star.tokyo.ok(&["route", &star.paris.mailbox]), route, "routing did not change");
    assert!(!star.tokyo.ok(&["site", "list"]).contains("waits"));

    // Paris renews its keys: the hub pins the new card, and tokyo by the hub's word.
    star.paris.ok(&["key", "roll"]);
    await_pinned(&star.hub, &star.paris);
    await_pinned(&star.tokyo, &star.paris);
    add_device(&star.paris, "new");
    await_true("a change under the new key", SOON, || holds_paris(&star));
    // Without the former key, too.
    let file = star.tokyo.directory.join("sites.d/paris.toml");
    let text = fs::read_to_string(&file).unwrap();
    let until = text.split("former_until = [\"").nth(1).unwrap().split('"').next().unwrap();
    edit(&star.tokyo, "paris", until, "2026-01-01T00:00:00Z");
    star.tokyo.ok(&["reload"]);
    add_device(&star.paris, "newer");
    await_true("a change under the new key alone", SOON, || holds_paris(&star));
    let sent: Vec<_> = star.elsewhere.take();
    assert!(sent.is_empty(), "tokyo and paris write to the hub alone: {sent:?}");
}

#[test]
fn introductions_are_taken_or_left_by_policy() {
    let mut accepting = star("introduce-accept", "accept");
    await_true("tokyo to hold what paris masters", SOON, || holds_paris(&accepting));
    await_log(&accepting.tokyo, "site-introduced");

    // Somebody who never knew the former card takes it for the way alone, for those behind him.
    let before = own_card(&accepting.paris);
    accepting.paris.ok(&["key", "roll"]);
    await_pinned(&accepting.hub, &accepting.paris);
    await_pinned(&accepting.tokyo, &accepting.paris);
    accepting.tokyo.stop();
    accepting.hub.stop();
    let file = accepting.tokyo.directory.join("sites.d/paris.toml");
    fs::remove_file(&file).unwrap();
    accepting.hub.start();
    accepting.tokyo.start();
    await_true("paris to be introduced anew", SOON, || file.exists());
    let table: toml::Table = toml::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let pinned = Card::parse_verified(table["card"].as_str().unwrap()).unwrap();
    assert_eq!(pinned.public, own_card(&accepting.paris).public);
    let former = Card::parse_verified(table["former"][0].as_str().unwrap()).unwrap();
    assert_eq!(former.public, before.public);
    assert_eq!(table["former_until"][0].as_str(), Some("1970-01-01T00:00:00Z"), "its key never counted");
    add_device(&accepting.paris, "newest");
    await_true("tokyo to hold what is new", SOON, || holds_paris(&accepting));

    let mut off = star("introduce-off", "off");
    off.hub.sync(SOON);
    std::thread::sleep(Duration::from_secs(1));
    assert!(!off.tokyo.directory.join("sites.d/paris.toml").exists());
    assert!(!off.tokyo.ok(&["site", "list"]).contains("paris"));
    off.tokyo.daemon().assert_alive();
}

#[test]
fn forged_introductions_are_refused() {
    let pair = ByHand::start("bad-introductions");
    pair.tokyo.ok(&["check"]);
    edit(&pair.tokyo, "paris", "[link]\n", "[link]\nintroductions = \"accept\"\n");
    pair.tokyo.ok(&["reload"]);
    let (paris, tokyo) = (key(&pair.paris), own_card(&pair.tokyo));
    let stranger = SiteKey::generate(&mut Seeded::new(5));
    let fields = CardFields {
        name: "kyoto".into(),
        mailbox: "directory@repl.kyoto.example".into(),
        contexts: vec!["ou=kyoto,o=Example".into()],
        ..own_card(&pair.paris).fields
    };
    let kyoto = Card::issue(&stranger, &fields).unwrap();
    let issued = Timestamp::now();
    let by = |key: &SiteKey, introducer: &str, card: &str| {
        Introduction::issue(key, introducer, issued, card).unwrap()
    };
    let of = |fields: CardFields| Card::issue(&stranger, &fields).unwrap();
    let claims_tokyos = of(CardFields { contexts: vec![pair.tokyo.context.clone()], ..fields.clone() });
    let called_tokyo = of(CardFields { name: "tokyo".into(), ..fields.clone() });
    let bad = [
        ("signed by somebody else", by(&stranger, "paris", &kyoto)),
        ("in another's name", by(&paris, "kyoto", &kyoto)),
        ("altered", by(&paris, "paris", &kyoto).replace("repl.kyoto", "repl.thief")),
        ("of a site that claims our naming context", by(&paris, "paris", &claims_tokyos)),
        ("of a site that has our name", by(&paris, "paris", &called_tokyo)),
        ("of itself", by(&paris, "paris", &pair.paris.ok(&["card"]))),
    ];
    let before = pair.tokyo.ok(&["site", "list"]);
    let introduce = |text: &str| {
        let mut message = hello("", &[]);
        message.introductions = vec![text.to_owned()];
        speak(&paris, &pair.paris, &pair.tokyo, &message, &tokyo).expect(250);
    };
    for (what, text) in &bad {
        let refused = log(&pair.tokyo).matches("introduction-refused").count();
        introduce(text);
        await_true(what, SOON, || log(&pair.tokyo).matches("introduction-refused").count() > refused);
        assert_eq!(pair.tokyo.ok(&["site", "list"]), before, "an introduction {what}");
    }
    introduce(&by(&paris, "paris", &kyoto));
    let file = pair.tokyo.directory.join("sites.d/kyoto.toml");
    await_true("the genuine one", SOON, || file.exists());
    known_sites_are_not_introduced_anew(&pair, &file, &fields, &stranger);
}

/// A site that is known already changes only by a rightful successor.
fn known_sites_are_not_introduced_anew(pair: &ByHand, file: &Path, fields: &CardFields, kyoto: &SiteKey) {
    let (paris, tokyo) = (key(&pair.paris), own_card(&pair.tokyo));
    let introduce = |card: &str| {
        let mut message = hello("", &[]);
        message.introductions = vec![Introduction::issue(&paris, "paris", Timestamp::now(), card).unwrap()];
        speak(&paris, &pair.paris, &pair.tokyo, &message, &tokyo).expect(250);
    };
    let before = fs::read_to_string(file).unwrap();
    let later = CardFields { serial: fields.serial + 1, ..fields.clone() };
    let refused = log(&pair.tokyo).matches("introduction-refused").count();
    introduce(&Card::issue(&SiteKey::generate(&mut Seeded::new(7)), &later).unwrap());
    await_true("a refusal", SOON, || log(&pair.tokyo).matches("introduction-refused").count() > refused);
    assert_eq!(fs::read_to_string(file).unwrap(), before);
    introduce(&Card::issue_successor(&kyoto.renew(&mut Seeded::new(8)), &later).unwrap());
    await_true("the successor", SOON, || fs::read_to_string(file).unwrap() != before);
}
