//! F4, F5: what scanners and gateways do to mail is survived, or reported as exactly what it was.

use std::time::Duration;

use bridgehead::message::random::{Rng as _, Seeded};

use super::world::{FAST, World, kept};
use crate::support::{
    ByHand, Faults, Recorder, Rewrite, SOON, Scratch, Site, await_some, await_true, deliver, free_address,
    people,
};

/// Every rewriting that leaves the sealed message whole, one at a time and all together.
#[test]
fn f04_what_leaves_the_message_whole_is_survived() {
    let mut pair = ByHand::start("scanners-harmless");
    let dn = format!("cn=Ada,{}", pair.paris.context);
    pair.paris.ok(&["entry", "add", &dn, "objectClass=person", "cn=Ada", "sn=L"]);
    let all = Rewrite::HARMLESS.map(|rewrite| vec![rewrite]).into_iter();
    let together = [
        Rewrite::Tag,
        Rewrite::Headers,
        Rewrite::Footer,
        Rewrite::Append,
        Rewrite::LongLines,
        Rewrite::Forward,
    ];
    for rewrites in all.chain([together.to_vec()]) {
        let text = format!("description={rewrites:?}");
        pair.paris.ok(&["entry", "modify", &dn, &text]);
        for mail in pair.intercept_from_paris() {
            let rewritten =
                rewrites.iter().fold(mail.message.clone(), |message, rewrite| rewrite.apply(&message));
            assert!(rewritten != mail.message, "{rewrites:?} changes something");
            deliver(&pair.tokyo, &rewritten).expect(250);
        }
        assert_eq!(
            pair.tokyo.export(&pair.paris.context),
            pair.paris.export(&pair.paris.context),
            "{rewrites:?}"
        );
        pair.tokyo.daemon().assert_alive();
    }
}

/// Each that does not is told to both operators in words that say what to exempt, and heals once it stops.
#[test]
fn f04_what_spoils_the_message_is_reported_as_exactly_that() {
    let world = World::start("scanners-harmful", &["paris", "tokyo"], FAST, 1);
    let (paris, tokyo) = (&world.sites[0], &world.sites[1]);
    paris.import(&people(paris, 20));
    paris.sync(SOON);
    for (rewrite, words) in [
        (Rewrite::Strip, "attachment removed on the way"),
        (Rewrite::Empty, "attachment removed on the way"),
        (Rewrite::Truncate, "message cut off on the way"),
        (Rewrite::EightBit, "attachment converted on the way"),
        (Rewrite::Damage, "altered on the way"),
    ] {
        let copies = kept(tokyo).len();
        let logged = std::fs::read(tokyo.log()).expect("a log").len();
        world.mangler.set(Faults { rewrites: vec![(rewrite, 100)], ..Faults::default() });
        let dn = format!("cn={rewrite:?},{}", paris.context);
        paris.ok(&["entry", "add", &dn, "objectClass=person", &format!("cn={rewrite:?}"), "sn=x"]);
        await_true(&format!("a line about {rewrite:?} in Tokyo's log"), SOON, || {
            let log = std::fs::read(tokyo.log()).expect("a log");
            let log = String::from_utf8_lossy(&log[logged..]).into_owned();
            log.contains("message-refused") && log.contains(words)
        });
        await_true(&format!("{words:?} in Paris's status after {rewrite:?}"), SOON, || {
            let partner = paris.status()["partners"][0].clone();
            partner["state"] == "bouncing"
                && partner["reason"].as_str().is_some_and(|text| text.contains(words))
        });
        await_true(&format!("a copy of what {rewrite:?} left"), SOON, || {
            kept(tokyo).iter().skip(copies).any(|copy| copy.reason.contains(words))
        });
        assert!(!tokyo.run(&["entry", "show", &dn]).status.success(), "{rewrite:?} let it through");
        world.mangler.set(Faults::default());
        world.await_equal(Duration::from_secs(60));
        await_true("Paris's status to be well again", SOON, || {
            paris.status()["partners"][0]["state"] == "up"
        });
    }
}

/// F5: a gateway with a size limit, told by bounces alone; everything passes in smaller messages.
#[test]
fn f05_mail_that_is_too_large_for_a_gateway_is_cut_smaller() {
    let world = World::start("size-limit", &["paris", "tokyo"], FAST, 1);
    let paris = &world.sites[0];
    world.mangler.set(Faults { bytes_max: Some(60_000), ..Faults::default() });
    paris.import(&people(paris, 4_000));
    world.await_equal(Duration::from_secs(90));
    let log = std::fs::read_to_string(paris.log()).expect("a log");
    assert!(log.contains("parts-halved"), "nothing was too large");
    assert!(log.contains("5.3.4"), "the bounce's status is in the log");
    let refused = world.mangler.tally()["refused by size"];
    assert!(refused < 40, "{refused} messages were refused");
}

/// F5: our own next hop says how much it takes (RFC 1870); nothing larger is sent to it, not even once.
#[test]
fn f05_what_the_next_hop_announces_is_never_exceeded() {
    const LIMIT: usize = 60_000;
    let scratch = Scratch::new("announced-size");
    let hop = Recorder::answering(|line| {
        line.starts_with("EHLO").then(|| format!("250-hop\r\n250-PIPELINING\r\n250 SIZE {LIMIT}"))
    });
    let at_paris = free_address();
    let mut paris = Site::init(&scratch, "paris", at_paris, hop.address);
    let mut tokyo = Site::init(&scratch, "tokyo", free_address(), at_paris);
    paris.introduce(&tokyo);
    paris.start();
    tokyo.start();
    paris.import(&incompressible(&paris, 400));
    let loaded = paris.export(&paris.context);
    await_true("the load", Duration::from_secs(60), || {
        for mail in hop.take() {
            assert!(mail.message.len() <= LIMIT, "{} octets", mail.message.len());
            assert!(mail.mail.ends_with(&format!(" SIZE={}", mail.message.len())), "{}", mail.mail);
            deliver(&tokyo, &mail.message).expect(250);
        }
        tokyo.run(&["export", "--context", &paris.context]).stdout == loaded
    });
    let log = std::fs::read_to_string(paris.log()).expect("a log");
    assert!(log.contains("message-not-sent") && log.contains("takes at most 60000"), "{log}");
    assert!(log.contains("parts-halved"), "{log}");
    let began = |verb: &str| hop.commands().iter().filter(|line| line.starts_with(verb)).count();
    assert_eq!(began("MAIL"), began("DATA"), "each mail that began was one that it takes");
}

/// What does not compress: as many entries as make so many octets of mail.
fn incompressible(site: &Site, entries: usize) -> Vec<u8> {
    let mut ldif = format!("dn: {}\nobjectClass: organizationalUnit\n\n", site.context);
    let mut dice = Seeded::new(5);
    for n in 0..entries {
        let mut octets = [0; 600];
        dice.fill_bytes(&mut octets);
        let text: String = octets.iter().map(|octet| char::from(b'!' + octet % 90)).collect();
        ldif += &format!(
            "dn: cn=p{n},{}\nobjectClass: person\ncn: p{n}\nsn: x\ndescription: x{text}\n\n",
            site.context
        );
    }
    ldif.into_bytes()
}

/// Adds a line to what a site says of its link.
fn say(at: &Site, of: &str, line: &str) {
    let file = at.directory.join(format!("sites.d/{of}.toml"));
    let text = std::fs::read_to_string(&file).expect("the site's file");
    std::fs::write(&file, text.replace("[link]\n", &format!("[link]\n{line}\n"))).expect("the site's file");
}

/// Tokyo's mail system takes 64 KiB, so its card says parts of 32 KiB; Paris learns that from the card that it has pinned, where
/// nothing comes back from Tokyo, or, where a new card is not pinned, from the hello.
#[test]
fn f05_parts_are_within_what_the_other_sites_card_says() {
    for (by, known) in [("card", true), ("hello", false)] {
        let scratch = Scratch::new(&format!("part-limit-{by}"));
        let (at_paris, at_tokyo) = (free_address(), free_address());
        let mut paris = Site::init(&scratch, "paris", at_paris, at_tokyo);
        let mut tokyo = Site::init(&scratch, "tokyo", at_tokyo, at_paris);
        let limit = "[limits]\nreplication_message_bytes = \"64 KiB\"\n";
        if known {
            tokyo.configure("[replication]", FAST, limit);
            paris.introduce(&tokyo);
            say(&paris, "tokyo", "one_way = true");
            say(&tokyo, "paris", "paused = true");
        } else {
            paris.introduce(&tokyo);
            say(&paris, "tokyo", "successors = \"off\"");
            tokyo.configure("[replication]", FAST, limit);
        }
        paris.configure("[replication]", FAST, "");
        tokyo.start();
        paris.start();
        paris.import(&incompressible(&paris, 400));
        let loaded = paris.export(&paris.context);
        await_true("the load", SOON, || tokyo.run(&["export", "--context", &paris.context]).stdout == loaded);
        // The last of them may be told in the log after it was applied there.
        let (log, octets) = await_some("all parts in the log", SOON, || {
            let log = std::fs::read_to_string(paris.log()).expect("a log");
            let sent = log.lines().filter(|line| line.contains("event=\"message-sent\""));
            let bytes = |line: &str| line.split(" bytes=").nth(1)?.split(' ').next()?.parse().ok();
            let octets: Vec<usize> = sent.filter_map(bytes).collect();
            let parts = octets.iter().filter(|octets| **octets > 20 << 10).count();
            (parts >= 6).then_some((log, octets))
        });
        // The mail around a payload makes it half as large again.
        assert!(octets.iter().all(|octets| *octets <= 48 << 10), "by {by}: {octets:?}");
        assert!(!log.contains("message-not-sent"), "by {by}: nothing had to be refused first");
    }
}
