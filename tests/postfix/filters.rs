//! bridgehead in the path of all incoming mail: before Postfix's queue, and after it.

use std::time::Duration;

use crate::support::{
    BehindPostfix, Client, Recorded, SOON, await_true, ordinary_message, people, without_trace,
};

const LONG: Duration = Duration::from_secs(120);
const SENDER: &str = "<renee@outside.example> BODY=8BITMIME RET=FULL ENVID=before-and-after";
const RECIPIENT: &str = "<someone@paris.example> NOTIFY=FAILURE ORCPT=rfc822;someone@paris.example";

#[test]
fn before_queue_replication_and_ordinary_mail() {
    let pair = BehindPostfix::start("before-queue", "before-queue");
    let message = ordinary_message("before the queue");
    let mut client = Client::greet(pair.paris_mta.address);
    let reply = client.transact(SENDER, &[RECIPIENT], &message).expect(250);
    assert!(reply.text().contains("queued as"), "the reply is that of the second listener: {reply:?}");
    assert_unchanged(&pair.people.await_message_for("someone@paris.example", SOON), &message);
    await_true("XFORWARD to reach the second listener", SOON, || {
        pair.paris_mta.log().contains("orig_client=")
    });
    replicate(&pair);
}

#[test]
fn before_queue_mixed_recipients_get_their_own_fates() {
    let pair = BehindPostfix::start("mixed", "before-queue");
    let mailbox = format!("<{}>", pair.paris.mailbox);
    let mut client = Client::greet(pair.paris_mta.address);
    // Not a replication message: refused while the client waits, for everybody, so nobody gets it twice or not at all.
    let reply = client.transact(SENDER, &[&mailbox, RECIPIENT], &ordinary_message("mixed"));
    assert_eq!(reply.code / 100, 5, "{reply:?}");
    client.transact(SENDER, &[RECIPIENT], &ordinary_message("alone")).expect(250);
    let arrived = pair.people.await_message_for("someone@paris.example", SOON);
    assert!(arrived.text().contains("Subject: alone"), "{}", arrived.text());
}

#[test]
fn before_queue_refuses_honestly_while_bridgehead_is_down() {
    let mut pair = BehindPostfix::start("before-down", "before-queue");
    pair.paris.stop();
    let mut client = Client::greet(pair.paris_mta.address);
    let reply = client.transact(SENDER, &[RECIPIENT], &ordinary_message("later"));
    assert_eq!(reply.code / 100, 4, "{reply:?}");
    pair.paris.start();
    let mut client = Client::greet(pair.paris_mta.address);
    client.transact(SENDER, &[RECIPIENT], &ordinary_message("now")).expect(250);
    let arrived = pair.people.await_message_for("someone@paris.example", SOON);
    assert!(arrived.text().contains("Subject: now"), "the refused message must not arrive");
}

#[test]
fn after_queue_replication_and_ordinary_mail() {
    let pair = BehindPostfix::start("after-queue", "after-queue");
    let message = ordinary_message("after the queue");
    let mut client = Client::greet(pair.paris_mta.address);
    client.transact(SENDER, &[RECIPIENT], &message).expect(250);
    assert_unchanged(&pair.people.await_message_for("someone@paris.example", SOON), &message);
    replicate(&pair);
}

fn assert_unchanged(arrived: &Recorded, message: &[u8]) {
    assert_eq!(without_trace(&arrived.message), message);
    for parameter in ["SIZE=", "BODY=8BITMIME", "RET=FULL", "ENVID=before-and-after"] {
        assert!(arrived.mail.contains(parameter), "{parameter} is missing from {}", arrived.mail);
    }
    let recipient = &arrived.recipients[0];
    assert!(recipient.contains("NOTIFY=FAILURE"), "{recipient}");
    assert!(recipient.contains("ORCPT=rfc822;someone@paris.example"), "{recipient}");
}

/// Directory changes cross in both directions.
fn replicate(pair: &BehindPostfix) {
    pair.paris.import(&people(&pair.paris, 30));
    pair.tokyo.import(&people(&pair.tokyo, 30));
    pair.paris.sync(LONG);
    pair.tokyo.sync(LONG);
    for context in [&pair.paris.context, &pair.tokyo.context] {
        assert!(pair.paris.export(context) == pair.tokyo.export(context), "the replicas of {context} differ");
    }
}
