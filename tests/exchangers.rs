//! Mail exchangers found by real DNS: a daemon whose route is `mx`, a DNS server that says what the test wants, next hops on
//! loopback addresses of their own.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::Record::{Address, Cname, Mx, Nothing, ServFail, ServFailAaaa, Silence};
use crate::support::{Client, Dns, Record, Recorder, Reply, Scratch, Site, free_address, ordinary_message};

/// A site that sends by MX to one port, which every exchanger of the test has.
struct World {
    site: Site,
    dns: Dns,
    port: u16,
    _scratch: Scratch,
}

impl World {
    fn start(test: &str, zone: &[(&'static str, Record)]) -> World {
        let own = free_address();
        World::with(test, zone, own, free_address().port())
    }

    fn with(test: &str, zone: &[(&'static str, Record)], own: SocketAddr, port: u16) -> World {
        let scratch = Scratch::new(test);
        let dns = Dns::start(zone);
        let nowhere = SocketAddr::from(([192, 0, 2, 1], 25));
        let mut site = Site::init(&scratch, "paris", own, nowhere);
        let text = std::fs::read_to_string(site.config()).unwrap();
        let by_mx = text.replace(&nowhere.to_string(), &format!("mx:{port}"));
        assert!(by_mx != text, "{text}");
        std::fs::write(site.config(), by_mx).unwrap();
        site.configure("[listen]", "hostname = \"mx.paris.example\"", "");
        let limits = format!("[limits]\nconnect_timeout = \"{PATIENCE:?}\"");
        site.configure("[dns]", &format!("servers = \"{}\"", dns.address), &limits);
        site.start();
        World { site, dns, port, _scratch: scratch }
    }

    /// An exchanger at 127.0.0.`last`.
    fn exchanger(&self, last: u8) -> Recorder {
        Recorder::at(SocketAddr::new(host(last), self.port), |_| None)
    }

    /// The reply to the recipient, or to the whole message.
    fn send(&self, recipient: &str) -> Reply {
        let recipient = format!("<{recipient}>");
        Client::greet(self.site.address).transact(
            "<renee@paris.example>",
            &[&recipient],
            &ordinary_message("by MX"),
        )
    }

    #[track_caller]
    fn refused(&self, recipient: &str, code: u16, enhanced: &str) -> Reply {
        let reply = self.send(recipient).expect(code);
        assert!(reply.text().starts_with(enhanced), "{reply:?}");
        reply
    }
}

/// An address that neither accepts nor refuses connections: its queue is full.
struct Silent {
    _queue: (tokio::runtime::Runtime, tokio::net::TcpListener, Vec<TcpStream>),
}

impl Silent {
    fn at(address: SocketAddr) -> Silent {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(address).unwrap();
            socket.listen(1).unwrap()
        });
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
        let waiting: Vec<_> = std::iter::from_fn(connect).take(16).collect();
        assert!(waiting.len() < 16, "the queue is never full");
        Silent { _queue: (runtime, listener, waiting) }
    }
}

/// The configured patience with DNS and with connections.
const PATIENCE: Duration = Duration::from_secs(3);

fn host(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}

#[test]
fn the_exchanger_of_the_lowest_preference_is_first_and_the_next_one_stands_in() {
    let zone = [
        ("far.example", Mx(20, "second.far.example")),
        ("far.example", Mx(10, "first.far.example")),
        ("first.far.example", Address(host(2))),
        ("second.far.example", Address(host(3))),
        ("half.example", Mx(20, "second.far.example")),
        ("half.example", Mx(10, "dead.far.example")),
        ("dead.far.example", Address(host(4))),
        ("nameless.example", Mx(10, "nowhere.far.example")),
        ("nameless.example", Mx(20, "second.far.example")),
    ];
    let world = World::start("mx-preference", &zone);
    let (first, second) = (world.exchanger(2), world.exchanger(3));
    for _ in 0..4 {
        world.send("friend@far.example").expect(250);
    }
    assert_eq!((first.take().len(), second.kept().len()), (4, 0));
    world.send("friend@half.example").expect(250);
    world.send("friend@nameless.example").expect(250);
    assert_eq!((first.kept().len(), second.take().len()), (0, 2));
}

#[test]
fn exchangers_of_one_preference_share_the_load() {
    let zone = [
        ("far.example", Mx(10, "a.far.example")),
        ("far.example", Mx(10, "b.far.example")),
        ("a.far.example", Address(host(2))),
        ("b.far.example", Address(host(3))),
    ];
    let world = World::start("mx-equal", &zone);
    let (a, b) = (world.exchanger(2), world.exchanger(3));
    for _ in 0..24 {
        world.send("friend@far.example").expect(250);
    }
    assert!(!a.kept().is_empty() && !b.kept().is_empty(), "{} and {}", a.kept().len(), b.kept().len());
    assert_eq!(a.kept().len() + b.kept().len(), 24);
}

#[test]
fn a_domain_without_mx_is_its_own_exchanger_and_aliases_are_followed() {
    let mut zone = vec![
        ("bare.example", Address(host(2))),
        ("alias.example", Cname("far.example")),
        ("far.example", Mx(10, "other-name.far.example")),
        ("other-name.far.example", Cname("first.far.example")),
        ("first.far.example", Address(host(2))),
        ("alias-of-bare.example", Cname("bare.example")),
        // One of its addresses neither accepts nor refuses.
        ("both.example", Mx(10, "both.far.example")),
        ("both.far.example", Address(host(5))),
        ("both.far.example", Address(host(2))),
    ];
    let v6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    if v6 {
        zone.extend([
            ("six.example", Mx(10, "six.far.example")),
            ("six.far.example", Address(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]))),
        ]);
    }
    let world = World::start("mx-implicit", &zone);
    let exchanger = world.exchanger(2);
    let _silent = Silent::at(SocketAddr::new(host(5), world.port));
    for domain in ["bare", "alias", "alias-of-bare", "both"] {
        world.send(&format!("friend@{domain}.example")).expect(250);
        assert!(exchanger.take()[0].is_for(&format!("friend@{domain}.example")));
    }
    if v6 {
        let six = Recorder::at(format!("[::1]:{}", world.port).parse().unwrap(), |_| None);
        world.send("friend@six.example").expect(250);
        assert_eq!(six.kept().len(), 1);
    }
}

#[test]
fn domains_that_take_no_mail_or_do_not_exist_are_refused_for_good() {
    let zone = [
        ("null.example", Mx(0, ".")),
        // Its address counts for nothing: RFC 7505, 3.
        ("null.example", Address(host(2))),
        // Neither MX, A nor AAAA: RFC 5321, 5.1.
        ("empty.example", Nothing),
        ("alias.example", Cname("empty.example")),
        ("dangling.example", Cname("missing.example")),
    ];
    let world = World::start("mx-refused", &zone);
    let exchanger = world.exchanger(2);
    world.refused("friend@null.example", 556, "5.1.10");
    for domain in ["missing", "empty", "alias", "dangling"] {
        world.refused(&format!("friend@{domain}.example"), 550, "5.1.2");
    }
    assert!(exchanger.kept().is_empty());
}

#[test]
fn while_dns_has_no_answer_the_client_is_to_try_again() {
    let zone = [
        ("broken.example", ServFail),
        ("silent.example", Silence),
        ("half.example", Mx(10, "silent.example")),
        // It may have an address of IPv6, and no other.
        ("unsure.example", ServFailAaaa),
        // It has an exchanger, which is nowhere: the sender cannot know which of the two names is wrong.
        ("astray.example", Mx(10, "missing.example")),
        ("dead.example", Mx(10, "nobody.example")),
        ("nobody.example", Address(host(4))),
    ];
    let world = World::start("mx-silent", &zone);
    for domain in ["broken", "silent", "half", "dead", "unsure", "astray"] {
        let before = Instant::now();
        world.refused(&format!("friend@{domain}.example"), 451, "4.");
        // Twice: the MX, then the host.
        assert!(before.elapsed() < 3 * PATIENCE, "{domain} took {:?}", before.elapsed());
    }
    world.dns.replace(&[("silent.example", Mx(10, "a.example")), ("a.example", Address(host(2)))]);
    let exchanger = world.exchanger(2);
    world.send("friend@silent.example").expect(250);
    assert_eq!(exchanger.kept().len(), 1, "what failed is asked again");
}

#[test]
fn mail_is_never_sent_to_ourselves_or_to_who_is_no_better() {
    let own = free_address();
    let zone = [
        ("best.example", Mx(10, "MX.Paris.example")),
        ("best.example", Mx(20, "backup.example")),
        ("backup.example", Address(host(2))),
        ("second.example", Mx(10, "backup.example")),
        ("second.example", Mx(20, "mx.paris.example")),
        // A name that is not ours, at an address that is. Were it taken, each RCPT would come back to us as another session.
        ("hidden.example", Mx(10, "hidden.far.example")),
        ("hidden.far.example", Address(own.ip())),
    ];
    let world = World::with("mx-loop", &zone, own, own.port());
    let backup = world.exchanger(2);
    world.refused("friend@best.example", 451, "4.");
    assert!(backup.kept().is_empty(), "the worse exchanger would only send it back");
    world.send("friend@second.example").expect(250);
    assert_eq!(backup.kept().len(), 1);
    world.refused("friend@hidden.example", 451, "4.");
    let log = std::fs::read_to_string(world.site.log()).unwrap();
    assert!(log.contains("it is this relay itself"), "{log}");
    assert_eq!(log.matches("next hop is away").count(), 1, "it took one connection to notice: {log}");
}
