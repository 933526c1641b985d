//! Exim, OpenSMTPD and Sendmail in Postfix's place, each set up from the recipe that users read.
//!
//! One server plays the mail system between the sites: Paris is behind it as the recipe has it, Tokyo is the world. Mail of both
//! goes through it, and ordinary mail passes beside bridgehead or through it.

mod clients; // swaks, Python's smtplib and aiosmtpd: TLS, AUTH, pipelining, LMTP, PROXY, XCLIENT
mod exim;
mod opensmtpd;
mod sendmail;

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::{Client, Jail, Recorder, SOON, Scratch, Site, free_address, ordinary_message, people};

const LONG: Duration = Duration::from_secs(180);

/// Where everything is that a server has to know.
struct Places {
    /// Where the server itself shall listen.
    server: SocketAddr,
    /// Paris's bridgehead.
    bridgehead: SocketAddr,
    /// Tokyo's.
    tokyo: SocketAddr,
    /// Where mail for people goes.
    people: SocketAddr,
}

/// The replication-mail recipe: the sites become equal in both directions, ordinary mail passes beside.
fn replicates(name: &str, start: impl Fn(&Scratch, &Places) -> Jail) {
    let scratch = Scratch::new(name);
    let store = Recorder::start();
    let places = Places {
        server: free_address(),
        bridgehead: free_address(),
        tokyo: free_address(),
        people: store.address,
    };
    let mut paris = Site::init(&scratch, "paris", places.bridgehead, places.server);
    let mut tokyo = Site::init(&scratch, "tokyo", places.tokyo, places.server);
    paris.introduce(&tokyo);
    // The sites first: OpenSMTPD takes a next hop that is not there yet off its list for minutes.
    paris.start();
    tokyo.start();
    let mut server = start(&scratch, &places);
    paris.import(&people(&paris, 200));
    tokyo.import(&people(&tokyo, 100));
    paris.sync(LONG);
    tokyo.sync(LONG);
    for context in [&paris.context, &tokyo.context] {
        assert!(paris.export(context) == tokyo.export(context), "the replicas of {context} differ");
    }
    paris.stop();
    let mut client = Client::greet(places.server);
    client
        .transact("<renee@outside.example>", &["<someone@paris.example>"], &ordinary_message("beside"))
        .expect(250);
    store.await_message_for("someone@paris.example", SOON);
    server.assert_alive();
}

/// The smarthost recipe: what the server sends out passes through bridgehead.
fn relays(name: &str, start: impl Fn(&Scratch, &Places) -> Jail) {
    let scratch = Scratch::new(name);
    let world = Recorder::start();
    let places = Places {
        server: free_address(),
        bridgehead: free_address(),
        tokyo: free_address(),
        people: world.address,
    };
    let mut paris = Site::init(&scratch, "paris", places.bridgehead, world.address);
    paris.start();
    let mut server = start(&scratch, &places);
    let mut client = Client::greet(places.server);
    client
        .transact("<someone@paris.example>", &["<friend@far.example>"], &ordinary_message("through"))
        .expect(250);
    let arrived = world.await_message_for("friend@far.example", LONG).text();
    let trace = arrived.split("\r\nDate:").next().unwrap_or_default();
    assert_eq!(trace.matches("Received: ").count(), 2, "the server's trace and ours: {trace}");
    assert!(arrived.contains("Grüße aus Zürich, 你好\r\n.\r\n..two dots\r\n.one dot\r\n"), "{arrived}");
    server.assert_alive();
}
