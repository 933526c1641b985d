//! Postfix as a next hop that offers STARTTLS.

use crate::support::{
    Certificate, Client, Postfix, Recorder, SOON, Scratch, Site, free_address, ordinary_message,
    without_trace,
};

const SENDER: &str = "<renee@outside.example>";
const FRIEND: &str = "<friend@far.example>";

/// bridgehead, then Postfix with a certificate that nobody signed, then a recorder.
struct Chain {
    site: Site,
    postfix: Postfix,
    world: Recorder,
    _scratch: Scratch,
}

fn chain(test: &str, tls: &str) -> Chain {
    let scratch = Scratch::new(test);
    let world = Recorder::start();
    let files = Certificate::new(&scratch, "mx.paris.example");
    let mut plan = Postfix::plan(&scratch, "paris");
    plan.set("smtpd_tls_cert_file", &files.certificate.display().to_string());
    plan.set("smtpd_tls_key_file", &files.key.display().to_string());
    plan.set("smtpd_tls_security_level", "may");
    plan.set("smtpd_tls_loglevel", "1");
    plan.route("far.example", world.address);
    let mut site = Site::init(&scratch, "paris", free_address(), plan.address);
    site.configure("[[route]]", &format!("tls = \"{tls}\""), "");
    let postfix = plan.start();
    site.start();
    Chain { site, postfix, world, _scratch: scratch }
}

#[test]
fn mail_crosses_encrypted_when_that_is_wanted() {
    let chain = chain("tls-encrypt", "encrypt");
    let message = ordinary_message("encrypted");
    Client::greet(chain.site.address).transact(SENDER, &[FRIEND], &message).expect(250);
    let arrived = chain.world.await_message_for("friend@far.example", SOON);
    assert_eq!(without_trace(&arrived.message), message);
    let log = chain.postfix.log();
    assert!(log.contains("TLS connection established from"), "{log}");
}

#[test]
fn mail_crosses_in_clear_when_tls_is_off() {
    let chain = chain("tls-off", "off");
    Client::greet(chain.site.address).transact(SENDER, &[FRIEND], &ordinary_message("clear")).expect(250);
    chain.world.await_message_for("friend@far.example", SOON);
    let log = chain.postfix.log();
    assert!(!log.contains("TLS connection established from"), "{log}");
}

#[test]
fn a_certificate_that_nobody_signed_is_not_trusted_when_it_has_to_be_verified() {
    let chain = chain("tls-verify", "verify");
    let mut client = Client::greet(chain.site.address);
    let reply = client.transact(SENDER, &[FRIEND], &ordinary_message("unverified"));
    assert_eq!(reply.code / 100, 4, "the next hop may mend its certificate: {reply:?}");
    assert!(chain.world.kept().is_empty());
}
