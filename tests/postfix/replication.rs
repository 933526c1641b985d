//! The recommended set-up: only the replication domain is routed to bridgehead.

use std::time::Duration;

use crate::support::{
    BehindPostfix, Client, Entries, SOON, ordinary_message, path_text, people, read_independently, slapadd,
    without_trace,
};

const LONG: Duration = Duration::from_secs(240);

#[test]
fn ten_thousand_entries_arrive_and_so_do_changes() {
    let pair = BehindPostfix::start("ten-thousand", "replication-mail");
    let context = pair.paris.context.clone();
    let source = pair.scratch.write("source.ldif", people(&pair.paris, 9_430));
    let entries = pair.paris.ok(&["import", path_text(&source)]);
    assert!(!entries.is_empty(), "import says what it did");
    pair.paris.sync(LONG);

    let arrived = compare_exports(&pair, &context);
    let meant = read_independently(&source);
    assert!(meant.len() >= 10_000, "the sample has {} entries", meant.len());
    assert_same(&meant, &arrived);
    let export = pair.scratch.join("tokyo.ldif");
    assert_eq!(slapadd(&pair.scratch, &context, &export), meant.len(), "entries that OpenLDAP loaded");

    for site in [&pair.paris, &pair.tokyo] {
        let status = site.context_status(&context).expect("the context is listed");
        assert_eq!(status["entries"], meant.len(), "{status}");
        assert_eq!(status["master"], "paris");
        assert_eq!(status["verified"], true, "{status}");
    }
    assert_eq!(
        pair.paris.context_status(&context).expect("listed")["position"],
        pair.tokyo.context_status(&context).expect("listed")["position"],
    );

    changes_arrive(&pair, &context, &meant);
    pair.paris.ok(&["verify", "tokyo"]);
    pair.tokyo.ok(&["verify"]);
}

/// Modifies, renames, moves, deletes and adds at Paris; Tokyo follows.
fn changes_arrive(pair: &BehindPostfix, context: &str, before: &Entries) {
    let mut people = before.keys().filter(|dn| dn.starts_with("uid=") && dn.is_ascii());
    let mut next = || people.next().expect("enough people in the sample").clone();
    let (modified, renamed, deleted) = (next(), next(), next());
    let parent = renamed.split_once(',').expect("a DN of several parts").1.to_owned();
    let added = format!("cn=Zoë Ångström,{context}");
    let changes = format!(
        "version: 1\n\ndn: {modified}\nchangetype: modify\nreplace: title\ntitle: Bürgermeisterin\n-\n\
         add: description\ndescription: first\ndescription: second\n-\n\n\
         dn: {renamed}\nchangetype: modrdn\nnewrdn: uid=renamed\ndeleteoldrdn: 1\n\n\
         dn: {deleted}\nchangetype: delete\n\n\
         dn: {added}\nchangetype: add\nobjectClass: inetOrgPerson\ncn: Zoë Ångström\nsn: Ångström\n\
         jpegPhoto:: /9j/4AAQSkZJRgABAQ==\n"
    );
    pair.paris.import(changes.as_bytes());
    pair.paris.sync(LONG);

    let after = compare_exports(pair, context);
    assert_eq!(after.len(), before.len());
    assert!(!after.contains_key(&deleted), "{deleted} was deleted");
    assert!(!after.contains_key(&renamed), "{renamed} was renamed");
    assert!(after[&format!("uid=renamed,{parent}")].contains_key("sn"));
    let title = &after[&modified]["title"];
    assert_eq!(title.len(), 1);
    assert_eq!(title[0], "QsO8cmdlcm1laXN0ZXJpbg==", "the new title, in base64");
    assert!(after.contains_key(&added), "{added} was added");
}

#[test]
fn both_sites_are_masters_of_their_own_people() {
    let pair = BehindPostfix::start("both-ways", "replication-mail");
    pair.paris.import(&people(&pair.paris, 60));
    pair.tokyo.import(&people(&pair.tokyo, 40));
    pair.paris.sync(LONG);
    pair.tokyo.sync(LONG);
    compare_exports(&pair, &pair.paris.context);
    compare_exports(&pair, &pair.tokyo.context);
    let partners = pair.tokyo.status()["partners"].clone();
    assert_eq!(partners[0]["site"], "paris", "{partners}");
    assert_eq!(partners[0]["state"], "up", "{partners}");
    assert_eq!(partners[0]["behind"], 0, "{partners}");
}

#[test]
fn ordinary_mail_never_comes_near_bridgehead() {
    let mut pair = BehindPostfix::start("not-near", "replication-mail");
    pair.paris.stop();
    let message = ordinary_message("not near");
    let mut client = Client::greet(pair.paris_mta.address);
    client.transact("<renee@outside.example>", &["<someone@paris.example>"], &message).expect(250);
    let arrived = pair.people.await_message_for("someone@paris.example", SOON);
    assert_eq!(without_trace(&arrived.message), message);
}

#[test]
fn mail_of_people_to_the_replication_mailbox_is_bounced_with_our_reason() {
    let pair = BehindPostfix::start("people-mail", "replication-mail");
    let mut client = Client::greet(pair.paris_mta.address);
    let both = [format!("<{}>", pair.paris.mailbox), "<someone@paris.example>".to_owned()];
    let both: Vec<&str> = both.iter().map(String::as_str).collect();
    client.transact("<renee@outside.example>", &both, &ordinary_message("stray")).expect(250);
    // The other recipient gets the message, the sender is told, and the daemon goes on.
    pair.people.await_message_for("someone@paris.example", SOON);
    let bounce = pair.people.await_message_for("renee@outside.example", SOON).text();
    assert!(bounce.contains("Diagnostic-Code: smtp; 55"), "{bounce}");
    assert!(bounce.contains(&pair.paris.mailbox), "{bounce}");
    pair.await_empty_queues();
    pair.paris.import(&people(&pair.paris, 5));
    pair.paris.sync(LONG);
}

/// The two exports are the same bytes, and what they say as python-ldap reads it.
fn compare_exports(pair: &BehindPostfix, context: &str) -> Entries {
    let (here, there) = (pair.paris.export(context), pair.tokyo.export(context));
    let file = pair.scratch.write("tokyo.ldif", &there);
    assert!(here == there, "the exports differ ({} and {} bytes)", here.len(), there.len());
    read_independently(&file)
}

fn assert_same(meant: &Entries, arrived: &Entries) {
    for (dn, attributes) in meant {
        assert_eq!(arrived.get(dn), Some(attributes), "{dn}");
    }
    let more: Vec<_> = arrived.keys().filter(|dn| !meant.contains_key(*dn)).collect();
    assert!(more.is_empty(), "entries that nobody imported: {more:?}");
}
