//! Failures of the catalogue (contrib/notes/failures.md) between real daemons; each test's name begins with its number.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use bridgehead::message::card::{Card, CardFields};
use bridgehead::replication::transfer::Base;
use bridgehead::replication::wire::{Hello, Message};

use super::insider::Insider;
use super::world::{FAST, assert_data_is_clean};
use crate::support::{
    ByHand, Client, Direct, Recorder, SOON, Scratch, Site, SmallDisk, await_true, deliver, free_address,
    ordinary_message, path_text, people, tool, without_trace,
};

const LONG: Duration = Duration::from_secs(120);

fn prepare(test: &str, configuration: &str) -> Direct {
    let pair = Direct::prepare(test);
    pair.paris.configure("[replication]", configuration, "");
    pair.tokyo.configure("[replication]", configuration, "");
    pair
}

fn start(test: &str) -> Direct {
    let mut pair = prepare(test, FAST);
    pair.paris.start();
    pair.tokyo.start();
    pair
}

fn log(site: &Site) -> String {
    fs::read_to_string(site.log()).unwrap_or_default()
}

fn count(site: &Site, event: &str) -> usize {
    log(site).matches(&format!("event=\"{event}\"")).count()
}

fn await_equal(pair: &Direct) {
    await_true("equal exports", LONG, || {
        [&pair.paris, &pair.tokyo].iter().all(|master| {
            let own = master.export(&master.context);
            let other = if master.name == "paris" { &pair.tokyo } else { &pair.paris };
            let there = other.run(&["export", "--context", &master.context]);
            !own.windows(4).any(|octets| octets == b"\ndn:")
                || (there.status.success() && there.stdout == own)
        })
    });
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(status.success());
}

/// Puts a stopped site's data back to what `backup` holds, or to nothing.
fn restore(site: &Site, backup: Option<&Path>) {
    let data = site.directory.join("data");
    fs::remove_dir_all(&data).expect("the data directory");
    match backup {
        Some(backup) => copy(backup, &data),
        None => fs::create_dir(&data).expect("an empty data directory"),
    }
}

#[test]
fn f02_a_site_that_lost_its_database_costs_one_full_load_each_way() {
    let mut pair = start("f02");
    pair.paris.import(&people(&pair.paris, 300));
    pair.tokyo.import(&people(&pair.tokyo, 30));
    await_equal(&pair);
    let before = (count(&pair.paris, "transfer-sent"), pair.tokyo.export(&pair.tokyo.context));
    pair.tokyo.stop();
    restore(&pair.tokyo, None);
    pair.tokyo.start();
    await_true("Tokyo's own entries to come back", LONG, || {
        pair.tokyo.run(&["export", "--context", &pair.tokyo.context]).stdout == before.1
    });
    await_equal(&pair);
    sleep(Duration::from_secs(5));
    let loads = count(&pair.paris, "transfer-sent") - before.0;
    assert!((1..=3).contains(&loads), "{loads} transfers were sent");
}

#[test]
fn f03_an_idle_pair_sends_no_more_than_heartbeats() {
    let mut pair = prepare("f03", &FAST.replace("heartbeat = \"3s\"", "heartbeat = \"2s\""));
    pair.paris.start();
    pair.tokyo.start();
    pair.paris.import(&people(&pair.paris, 30));
    await_equal(&pair);
    sleep(Duration::from_secs(3));
    let before = [count(&pair.paris, "message-sent"), count(&pair.tokyo, "message-sent")];
    sleep(Duration::from_secs(8));
    for (site, before) in [&pair.paris, &pair.tokyo].into_iter().zip(before) {
        let sent = count(site, "message-sent") - before;
        assert!((3..=5).contains(&sent), "{} sent {sent} messages in four heartbeats", site.name);
    }
}

#[test]
fn f09_a_master_restored_from_a_backup_takes_back_what_it_lost() {
    let mut pair = start("f09");
    pair.paris.import(&people(&pair.paris, 50));
    await_equal(&pair);
    let backup = pair.scratch.join("backup");
    pair.paris.stop();
    copy(&pair.paris.directory.join("data"), &backup);
    pair.paris.start();
    let ada = format!("cn=Ada,{}", pair.paris.context);
    pair.paris.ok(&["entry", "add", &ada, "objectClass=person", "cn=Ada", "sn=L"]);
    await_equal(&pair);
    pair.paris.stop();
    restore(&pair.paris, Some(&backup));
    pair.paris.start();
    let bob = format!("cn=Bob,{}", pair.paris.context);
    pair.paris.ok(&["entry", "add", &bob, "objectClass=person", "cn=Bob", "sn=B"]);
    await_true("the lost entry to come back", LONG, || {
        pair.paris.run(&["entry", "show", &ada]).status.success()
    });
    await_equal(&pair);
    pair.paris.ok(&["entry", "show", &bob]);
}

/// Nothing is left but the copy of the key file, and Tokyo.
#[test]
fn f09_a_site_lost_entirely_comes_back_from_its_key_file_and_one_partner() {
    let mut pair = start("f09-lost");
    pair.paris.import(&people(&pair.paris, 200));
    pair.tokyo.import(&people(&pair.tokyo, 30));
    await_equal(&pair);
    let context = pair.paris.context.clone();
    let at = |site: &Site| site.context_status(&context).expect("its state")["position"].clone();
    let (before, position) = (pair.paris.export(&pair.paris.context), at(&pair.paris));
    let key = fs::read(pair.paris.directory.join("site.key")).expect("the key file");
    let (address, next_hop) = (pair.paris.address, pair.tokyo.address);
    pair.paris.kill();
    fs::remove_dir_all(&pair.paris.directory).expect("all of the site");

    let mut paris = Site::init(&pair.scratch, "paris", address, next_hop);
    fs::write(paris.directory.join("site.key"), key).expect("the key file");
    paris.configure("[replication]", FAST, "");
    paris.accept_card_of(&pair.tokyo);
    paris.start();
    await_true("its own entries to come back", LONG, || {
        paris.run(&["export", "--context", &paris.context]).stdout == before
    });
    let dn = format!("cn=Ada,{}", paris.context);
    paris.ok(&["entry", "add", &dn, "objectClass=person", "cn=Ada", "sn=L"]);
    let there = format!("cn=Bob,{}", pair.tokyo.context);
    pair.tokyo.ok(&["entry", "add", &there, "objectClass=person", "cn=Bob", "sn=B"]);
    pair.paris = paris;
    await_equal(&pair);
    let after = at(&pair.paris);
    assert_eq!(at(&pair.tokyo), after);
    assert_ne!(after["invocation"], position["invocation"], "{position} and {after}");
    assert!(after["usn"].as_u64() > position["usn"].as_u64(), "{position} and {after}");
    assert!(pair.tokyo.export(&pair.paris.context).windows(6).any(|octets| octets == b"cn=Ada"));
    assert_eq!(count(&pair.tokyo, "forked"), 0, "one life goes on from the other");
}

#[test]
fn f10_a_replica_restored_from_a_backup_catches_up() {
    let mut pair = start("f10");
    pair.paris.import(&people(&pair.paris, 50));
    await_equal(&pair);
    let backup = pair.scratch.join("backup");
    pair.tokyo.stop();
    copy(&pair.tokyo.directory.join("data"), &backup);
    pair.tokyo.start();
    for n in 0..3 {
        let dn = format!("cn=n{n},{}", pair.paris.context);
        pair.paris.ok(&["entry", "add", &dn, "objectClass=person", &format!("cn=n{n}"), "sn=x"]);
        await_equal(&pair);
    }
    pair.tokyo.stop();
    restore(&pair.tokyo, Some(&backup));
    pair.tokyo.start();
    await_equal(&pair);
}

/// No address of another kind than RFC 5321's gets into a configuration, and so none into a card.
#[test]
fn f08_addresses_of_other_kinds_are_refused_where_they_are_written() {
    let scratch = Scratch::new("f08");
    for (n, address) in
        ["c=FR;a= ;p=Example;s=directory", "/O=Example/OU=Paris/CN=Directory", "EX:directory", "directory"]
            .into_iter()
            .enumerate()
    {
        let output = Command::new(env!("CARGO_BIN_EXE_bridgehead"))
            .args(["init", "--site", "paris", "--organization", "Example", "--listen", "127.0.0.1:1"])
            .args(["--next-hop", "127.0.0.1:2", "--mailbox", address, "--dir"])
            .arg(scratch.join(&n.to_string()))
            .output()
            .expect("the bridgehead binary");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("mailbox"), "{address}: {said}");
    }
}

/// Mail that overtakes other mail: a deletion before the addition, the newest state first.
#[test]
fn f12_messages_in_the_wrong_order_end_in_the_right_state() {
    let mut pair = ByHand::start("f12");
    let dn = |n: u32| format!("cn=n{n},{}", pair.paris.context);
    let mut letters = Vec::new();
    for n in 0..4 {
        pair.paris.ok(&["entry", "add", &dn(n), "objectClass=person", &format!("cn=n{n}"), "sn=x"]);
        if n > 0 {
            pair.paris.ok(&["entry", "delete", &dn(n - 1)]);
        }
        letters.push(pair.intercept_from_paris());
    }
    for mail in letters.iter().rev().flatten() {
        deliver(&pair.tokyo, &mail.message).expect(250);
    }
    pair.carry_for(Duration::from_secs(2));
    assert_eq!(pair.tokyo.export(&pair.paris.context), pair.paris.export(&pair.paris.context));
    pair.tokyo.daemon().assert_alive();
}

/// There are no conflicts: who is not the master is told so, and by name who is.
#[test]
fn f14_a_change_at_the_wrong_site_is_refused_and_says_which_is_right() {
    let pair = start("f14");
    pair.paris.import(&people(&pair.paris, 5));
    await_equal(&pair);
    let dn = format!("cn=Ada,{}", pair.paris.context);
    let output = pair.tokyo.run(&["entry", "add", &dn, "objectClass=person", "cn=Ada", "sn=L"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("paris"), "{said}");
    await_equal(&pair);
}

#[test]
fn f13_a_poisoned_transfer_is_kept_and_stops_nothing_else() {
    let mut insider = Insider::start("f13");
    let context = insider.context.clone();
    for usn in 1..5 {
        let body = format!("poison {usn}").into_bytes();
        let manifest = insider.manifest(usn, 10, Base::Nothing, &body);
        insider.send_transfer(&manifest, &body, &context).expect(250);
    }
    assert_eq!(insider.kept().len(), 4);
    // Tokyo goes on with its own people, and takes what the honest daemon of the same site sends.
    insider.tokyo.import(&people(&insider.tokyo, 20));
    insider.paris.start();
    insider.paris.import(&people(&insider.paris, 50));
    await_true("the honest load", LONG, || {
        let (here, there) =
            (insider.paris.export(&context), insider.tokyo.run(&["export", "--context", &context]));
        there.stdout == here
    });
}

#[test]
fn f15_what_an_operator_purged_comes_back_when_the_site_is_added_again() {
    let pair = start("f15");
    pair.paris.import(&people(&pair.paris, 50));
    await_equal(&pair);
    pair.tokyo.ok(&["site", "detach", "paris"]);
    pair.tokyo.ok(&["site", "purge", "paris"]);
    assert!(pair.tokyo.context_status(&pair.paris.context).is_none());
    let _ = fs::remove_file(pair.tokyo.directory.join("sites.d/paris.toml"));
    pair.tokyo.accept_card_of(&pair.paris);
    pair.tokyo.ok(&["reload"]);
    pair.tokyo.ok(&["sync"]);
    await_equal(&pair);
}

/// The replica's disk is full while a load comes in: the mail stays with the sender, nothing is half there, and it goes
/// on by itself once there is room.
#[test]
fn f16_a_full_disk_defers_mail_and_goes_on_when_there_is_room() {
    let mut pair = prepare("f16-disk", FAST);
    let disk = SmallDisk::mount(&pair.tokyo.directory.join("data"), "3m");
    pair.paris.start();
    pair.tokyo.start();
    pair.tokyo.import(&people(&pair.tokyo, 10));
    await_equal(&pair);
    let before = pair.tokyo.export(&pair.tokyo.context);
    pair.paris.import(&people(&pair.paris, 6_000));
    await_true("Tokyo to run out of room", LONG, || log(&pair.tokyo).contains("store-failed"));
    await_true("Paris to be put off", SOON, || log(&pair.paris).contains("message-not-sent"));
    assert!(log(&pair.paris).contains("4.3.1"), "Paris is told why");
    pair.tokyo.daemon().assert_alive();
    assert!(log(&pair.tokyo).contains("full"), "the log says what is wrong");
    let status = String::from_utf8(pair.tokyo.run(&["status"]).stdout).unwrap();
    assert!(
        status.contains("The store failed") && status.contains("disk that holds the store is full"),
        "{status}"
    );
    assert!(!log(&pair.tokyo).contains("control-failed"), "to ask for the status is no event");
    assert_eq!(pair.tokyo.export(&pair.tokyo.context), before);
    let half = pair.tokyo.run(&["export", "--context", &pair.paris.context]);
    assert!(!half.stdout.windows(4).any(|octets| octets == b"\ndn:"), "nothing is half there");
    sleep(Duration::from_secs(2));
    disk.grow();
    await_equal(&pair);
    pair.paris.sync(LONG);
    pair.paris.stop();
    pair.tokyo.stop();
    assert_data_is_clean(&pair.paris.directory.join("data"));
    assert_data_is_clean(&pair.tokyo.directory.join("data"));
}

/// One clock is years ahead, then goes back by years while the daemon runs.
#[test]
fn f16_clocks_that_are_years_off_and_jump_do_no_harm() {
    let mut pair = prepare("f16-clock", FAST);
    let shim = pair.scratch.join("clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clock.c");
    let built =
        Command::new(tool("cc")).args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).status();
    assert!(built.expect("cc").success());
    const YEAR: i64 = 365 * 86_400;
    let set = |seconds: i64| pair.scratch.write("clock", seconds.to_string());
    let clock = set(3 * YEAR);
    pair.paris.environment =
        vec![("LD_PRELOAD".into(), path_text(&shim).into()), ("CLOCK_FILE".into(), path_text(&clock).into())];
    pair.paris.start();
    pair.tokyo.start();
    for (n, seconds) in [3 * YEAR, -YEAR, 0, 2 * YEAR, -3600].into_iter().enumerate() {
        fs::write(&clock, seconds.to_string()).expect("the clock");
        for site in [&pair.paris, &pair.tokyo] {
            let dn = format!("cn=n{n},{}", site.context);
            site.ok(&["entry", "add", &dn, "objectClass=person", &format!("cn=n{n}"), "sn=x"]);
        }
        await_equal(&pair);
    }
    let later = jiff::Timestamp::now() + Duration::from_secs(3 * YEAR as u64);
    assert!(
        log(&pair.paris).contains(&later.to_string()[..8]),
        "the shim works: Paris logged in a later year"
    );
}

/// Nothing that a partner says about addresses changes where anybody's mail goes.
#[test]
fn f17_what_partners_say_of_addresses_never_routes_mail() {
    let people_of_tokyo = Recorder::start();
    let elsewhere = Recorder::start();
    let mut insider = Insider::start("f17");
    let route = format!(
        "[[route]]\nto = [\"tokyo.example\", \"outside.example\"]\nnext_hop = [\"{}\"]\n",
        people_of_tokyo.address
    );
    insider.tokyo.configure("[replication]", "", &route);
    insider.tokyo.ok(&["reload"]);
    let addresses = ["someone@tokyo.example", "friend@outside.example"];
    let explained = |site: &Site| addresses.map(|address| site.ok(&["route", address]));
    let before = explained(&insider.tokyo);
    let pass = |subject: &str, tokyo: &Site| {
        for address in addresses {
            let message = ordinary_message(subject);
            let to = format!("<{address}>");
            Client::greet(tokyo.address).transact("<renee@outside.example>", &[&to], &message).expect(250);
            let arrived = people_of_tokyo.await_message_for(address, SOON);
            assert_eq!(without_trace(&arrived.message), message);
            people_of_tokyo.take();
        }
    };
    pass("before", &insider.tokyo);

    // A genuine card, signed by the partner's key, that claims everybody's domains and another mailbox.
    let genuine = Card::parse_verified(&insider.paris.ok(&["card"])).expect("a sound card");
    let fields = CardFields {
        address_spaces: ["tokyo.example", "outside.example", "example"].map(str::to_owned).to_vec(),
        mailbox: format!("directory@[{}]", elsewhere.address.ip()),
        serial: genuine.fields.serial + 5,
        ..genuine.fields.clone()
    };
    let claims = [fields.clone(), CardFields { mailbox: genuine.fields.mailbox.clone(), ..fields }];
    let cards: Vec<_> = claims.iter().filter_map(|fields| Card::issue(&insider.key, fields).ok()).collect();
    assert!(!cards.is_empty());
    for card in cards {
        let mut message = Message::new(Vec::new());
        message.hello = Some(Hello {
            card,
            capabilities: 0,
            part_bytes_max: 1 << 20,
            answer: false,
            former_cards: Vec::new(),
            pinned: None,
        });
        insider.send(&message).expect(250);
    }
    sleep(Duration::from_secs(2));
    insider.tokyo.ok(&["reload"]);
    assert_eq!(explained(&insider.tokyo), before);
    pass("after", &insider.tokyo);
    assert!(elsewhere.kept().is_empty(), "mail went where a card said");
}

/// Paris added Tokyo's card; Tokyo never added Paris's.
#[test]
fn f18_one_side_alone_sends_hello_and_nothing_else() {
    let scratch = Scratch::new("f18");
    let outbox = Recorder::start();
    let mut paris = Site::init(&scratch, "paris", free_address(), outbox.address);
    let mut tokyo = Site::init(&scratch, "tokyo", free_address(), free_address());
    paris.configure("[replication]", FAST, "");
    paris.accept_card_of(&tokyo);
    paris.start();
    tokyo.start();
    for round in 0..5 {
        paris.import(&people(&paris, 100 + round));
        sleep(Duration::from_millis(1500));
    }
    let sent = outbox.kept();
    assert!((1..=5).contains(&sent.len()), "{} messages in eight seconds", sent.len());
    for mail in &sent {
        assert!(mail.message.len() < 4096, "a hello of {} octets", mail.message.len());
        let reply = deliver(&tokyo, &mail.message).expect(550);
        assert!(reply.text().contains("exchange site cards"), "{reply:?}");
    }
    assert_eq!(paris.status()["partners"][0]["state"], "new");
    tokyo.daemon().assert_alive();
}

/// A link on which nothing comes back: what was lost on the way comes again by itself, and nothing is answered.
#[test]
fn a_one_way_link_repeats_itself_and_so_heals() {
    let scratch = Scratch::new("one-way");
    let (from_paris, from_tokyo) = (Recorder::start(), Recorder::start());
    let mut paris = Site::init(&scratch, "paris", free_address(), from_paris.address);
    let mut tokyo = Site::init(&scratch, "tokyo", free_address(), from_tokyo.address);
    paris.introduce(&tokyo);
    paris.configure("[replication]", &format!("{FAST}repeat = \"6s\"\n"), "");
    tokyo.configure("[replication]", FAST, "");
    for (site, file, line) in [(&paris, "tokyo", "one_way = true"), (&tokyo, "paris", "schedule = \"never\"")]
    {
        let file = site.directory.join(format!("sites.d/{file}.toml"));
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("[link]", &format!("[link]\n{line}"))).unwrap();
    }
    paris.import(&people(&paris, 30));
    paris.start();
    tokyo.start();
    // The first load is lost, and what says so never comes.
    await_true("a load that is lost", SOON, || !from_paris.take().is_empty());
    assert!(paris.ok(&["status"]).contains("nothing comes back over this link"));
    assert!(tokyo.ok(&["status"]).contains("its schedule is never"));
    let carry = || {
        for mail in from_paris.take() {
            deliver(&tokyo, &mail.message).expect(250);
        }
        tokyo.run(&["export", "--context", &paris.context]).stdout == paris.export(&paris.context)
    };
    await_true("what was lost", LONG, carry);
    assert!(from_tokyo.take().is_empty(), "nothing goes back");
}
