//! bridgehead as `relayhost`: everything that Postfix sends out passes through.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use crate::support::{
    Client, Dkim, Postfix, Recorder, SOON, Scratch, Site, free_address, ordinary_message, without_trace,
};

/// Postfix, then bridgehead, then whatever listens at `next_hop`.
struct Chain {
    postfix: Postfix,
    site: Site,
    scratch: Scratch,
}

fn chain(test: &str, next_hop: SocketAddr) -> Chain {
    let scratch = Scratch::new(test);
    let own = free_address();
    let mut plan = Postfix::plan(&scratch, "paris");
    plan.apply("smarthost", own, free_address());
    let mut site = Site::init(&scratch, "paris", own, next_hop);
    site.start();
    Chain { postfix: plan.start(), site, scratch }
}

const SENDER: &str = "<renee@outside.example>";

#[test]
fn mail_arrives_unchanged_with_the_parameters_of_its_envelope() {
    let world = Recorder::start();
    let chain = chain("smarthost-unchanged", world.address);
    let message = ordinary_message("through the smarthost");
    let mut client = Client::greet(chain.postfix.address);
    let mail = format!("{SENDER} BODY=8BITMIME RET=HDRS ENVID=QQ314159");
    let recipient = "<friend@far.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;friend@far.example";
    client.transact(&mail, &[recipient], &message).expect(250);
    let arrived = world.await_message_for("friend@far.example", SOON);
    assert_eq!(without_trace(&arrived.message), message);
    for parameter in ["SIZE=", "BODY=8BITMIME", "RET=HDRS", "ENVID=QQ314159"] {
        assert!(arrived.mail.contains(parameter), "{parameter} is missing from {}", arrived.mail);
    }
    let recipient = &arrived.recipients[0];
    assert!(recipient.contains("NOTIFY=SUCCESS,DELAY"), "{recipient}");
    assert!(recipient.contains("ORCPT=rfc822;friend@far.example"), "{recipient}");
    assert!(arrived.text().starts_with("Received: "), "our trace header is first");
}

#[test]
fn a_dkim_signature_still_verifies() {
    let world = Recorder::start();
    let chain = chain("smarthost-dkim", world.address);
    let dkim = Dkim::new(&chain.scratch);
    let signed = dkim.sign(&ordinary_message("signed"));
    let mut client = Client::greet(chain.postfix.address);
    client.transact(&format!("{SENDER} BODY=8BITMIME"), &["<friend@far.example>"], &signed).expect(250);
    let arrived = world.await_message_for("friend@far.example", SOON);
    assert!(dkim.verifies(&arrived.message), "{}", arrived.text());
    let spoiled = arrived.text().replace("trailing blanks   ", "trailing blanks ");
    assert!(!dkim.verifies(spoiled.as_bytes()), "one blank less must be noticed");
}

#[test]
fn internationalized_addresses_and_null_reverse_paths_pass() {
    let world = Recorder::start();
    let chain = chain("smarthost-utf8", world.address);
    let mut client = Client::greet(chain.postfix.address);
    let message = ordinary_message("utf8");
    client.transact("<женя@outside.example> SMTPUTF8", &["<用户@far.example>"], &message).expect(250);
    let arrived = world.await_message_for("用户@far.example", SOON);
    assert!(
        arrived.mail.contains("SMTPUTF8") && arrived.mail.contains("<женя@outside.example>"),
        "{arrived:?}"
    );
    client.transact("<>", &["<bounces@far.example>"], &ordinary_message("null")).expect(250);
    let arrived = world.await_message_for("bounces@far.example", SOON);
    assert!(arrived.mail.starts_with("<>"), "{}", arrived.mail);
}

#[test]
fn the_refusal_of_one_recipient_is_the_next_hops_own() {
    let world = Recorder::answering(|line| {
        line.contains("<unknown@").then(|| "550 5.1.1 nobody of that name at far.example".into())
    });
    let chain = chain("smarthost-refusal", world.address);
    let mut client = Client::greet(chain.postfix.address);
    let recipients = ["<friend@far.example>", "<unknown@far.example>"];
    client.transact(SENDER, &recipients, &ordinary_message("two")).expect(250);
    world.await_message_for("friend@far.example", SOON);
    // Postfix sends the bounce by the same way.
    let bounce = world.await_message_for("renee@outside.example", SOON).text();
    assert!(bounce.contains("550 5.1.1 nobody of that name"), "{bounce}");
}

#[test]
fn a_next_hop_that_is_down_means_451_and_the_mail_waits_in_postfix() {
    let next_hop = free_address();
    let chain = chain("smarthost-down", next_hop);
    let message = ordinary_message("patience");

    let mut direct = Client::greet(chain.site.address);
    direct.command("MAIL FROM:<renee@outside.example>").expect(250);
    let reply = direct.command("RCPT TO:<friend@far.example>").expect(451);
    assert!(reply.text().starts_with("4."), "an enhanced code: {reply:?}");
    assert_ne!(direct.command("DATA").code, 354, "nothing may be accepted");

    let mut client = Client::greet(chain.postfix.address);
    client.transact(SENDER, &["<friend@far.example>"], &message).expect(250);
    sleep(Duration::from_secs(2));
    assert!(!chain.postfix.queue_is_empty(), "Postfix keeps the message");
    let world = Recorder::at(next_hop, |_| None);
    let arrived = world.await_message_for("friend@far.example", SOON);
    assert_eq!(without_trace(&arrived.message), message);
    assert_eq!(world.kept().len(), 1, "once");
}
