//! The command line as scripts use it: words, files, exit statuses, what is said.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use crate::support::{Scratch, Site, free_address};

mod bundle;
mod events;
mod explain;
mod manual;
mod operator;
mod quarantine;

fn site(scratch: &Scratch, name: &str) -> Site {
    Site::init(scratch, name, free_address(), free_address())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("not killed")
}

#[test]
fn init_writes_a_sound_site_and_overwrites_nothing() {
    let scratch = Scratch::new("init");
    let paris = site(&scratch, "paris");
    for (name, mode) in [("bridgehead.toml", 0o644), ("site.key", 0o600), ("sites.d", 0o755), ("data", 0o700)]
    {
        let metadata = fs::metadata(paris.directory.join(name)).expect(name);
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
    }
    assert!(paris.ok(&["check"]).contains("sound"));
    let before = fs::read(paris.config()).unwrap();
    let again = Command::new(env!("CARGO_BIN_EXE_bridgehead"))
        .args(["init", "--site", "other", "--organization", "O", "--mailbox", "r@x.example"])
        .args(["--listen", "127.0.0.1:1", "--next-hop", "127.0.0.1:2", "--dir"])
        .arg(&paris.directory)
        .output()
        .unwrap();
    assert_eq!(status(&again), 73, "{}", said(&again));
    assert!(said(&again).contains("not overwritten"), "{}", said(&again));
    assert_eq!(fs::read(paris.config()).unwrap(), before);
}

#[test]
fn init_refuses_what_check_would_refuse_and_leaves_nothing() {
    let scratch = Scratch::new("init-refused");
    let directory = scratch.join("bad");
    let output = Command::new(env!("CARGO_BIN_EXE_bridgehead"))
        .args(["init", "--site", "no spaces", "--organization", "O", "--mailbox", "nowhere"])
        .args(["--listen", "here", "--next-hop", "127.0.0.1:2", "--dir"])
        .arg(&directory)
        .output()
        .unwrap();
    assert_eq!(status(&output), 78);
    for word in ["no spaces", "nowhere", "here"] {
        assert!(said(&output).contains(word), "{word}: {}", said(&output));
    }
    assert!(!directory.join("bridgehead.toml").exists() && !directory.join("site.key").exists());
}

#[test]
fn check_names_every_problem_with_file_and_line() {
    let scratch = Scratch::new("check");
    let paris = site(&scratch, "paris");
    let text = fs::read_to_string(paris.config()).unwrap();
    let text =
        text.replace("cost = 10", "cost = 10\ncots = 3").replace("#batching = \"2s\"", "batching = \"soon\"");
    let text = text.replace("#cost", "cost");
    fs::write(paris.config(), &text).unwrap();
    fs::write(paris.directory.join("sites.d/broken.toml"), "card = \"none\"\n").unwrap();
    let output = paris.run(&["check"]);
    assert_eq!(status(&output), 78);
    let line_of = |word: &str| text.lines().position(|line| line.contains(word)).unwrap() + 1;
    let file = paris.config().display().to_string();
    for expected in [
        format!("{file}:{}: ", line_of("cots")),
        "did you mean `cost`?".to_owned(),
        format!("{file}:{}: ", line_of("\"soon\"")),
        "broken.toml:1: ".to_owned(),
    ] {
        assert!(said(&output).contains(&expected), "{expected} is not in:\n{}", said(&output));
    }
}

#[test]
fn a_card_that_was_altered_is_refused() {
    let scratch = Scratch::new("card");
    let (paris, tokyo) = (site(&scratch, "paris"), site(&scratch, "tokyo"));
    let card = tokyo.ok(&["card"]);
    let altered = scratch.join("altered.card");
    fs::write(&altered, card.replace("repl.tokyo.example", "repl.evil.example")).unwrap();
    let output = paris.run(&["site", "add", altered.to_str().unwrap()]);
    assert_eq!(status(&output), 65, "{}", said(&output));
    assert!(!paris.directory.join("sites.d/tokyo.toml").exists());
    paris.accept_card_of(&tokyo);
    let again = paris.run(&["site", "add", paris.directory.join("tokyo.card").to_str().unwrap()]);
    assert_eq!(status(&again), 0, "the very same card: {}", said(&again));
    let elsewhere = Scratch::new("other-tokyo");
    let other = site(&elsewhere, "tokyo");
    fs::write(&altered, other.ok(&["card"])).unwrap();
    let output = paris.run(&["site", "add", altered.to_str().unwrap()]);
    assert_eq!(status(&output), 73, "another key: {}", said(&output));
    let own = scratch.join("own.card");
    fs::write(&own, paris.ok(&["card"])).unwrap();
    let output = paris.run(&["site", "add", own.to_str().unwrap()]);
    assert_eq!(status(&output), 65, "a site is not connected to itself: {}", said(&output));
}

#[test]
fn bad_ldif_is_refused_with_its_line_and_nothing_is_applied() {
    let scratch = Scratch::new("ldif");
    let mut paris = site(&scratch, "paris");
    let file = scratch.join("people.ldif");
    fs::write(
        &file,
        "dn: cn=a,ou=paris,o=Example\ncn: a\nobjectClass: person\n\ndn: cn=b,ou=tokyo,o=Example\ncn: b\n",
    )
    .unwrap();
    for running in [false, true] {
        if running {
            paris.start();
        }
        let output = paris.run(&["import", file.to_str().unwrap()]);
        assert_eq!(status(&output), 65, "{}", said(&output));
        assert!(said(&output).contains("line 5: "), "{}", said(&output));
        assert!(said(&output).contains("nothing was imported"), "{}", said(&output));
        assert_eq!(paris.ok(&["export"]).matches("dn:").count(), 0);
    }
}

#[test]
fn entries_are_added_shown_changed_found_and_deleted() {
    let scratch = Scratch::new("entry");
    let mut paris = site(&scratch, "paris");
    let dn = "cn=Zoé Müller,ou=paris,o=Example";
    for running in [false, true] {
        if running {
            paris.start();
        }
        paris.ok(&[
            "entry",
            "add",
            dn,
            "objectClass=person",
            "cn=Zoé Müller",
            "sn=Müller",
            "mail=z@x",
            "mail=y@x",
        ]);
        assert!(
            paris
                .ok(&["entry", "show", &dn.to_uppercase().replace("ZOÉ MÜLLER", "zoé müller")])
                .contains("mail: z@x\nmail: y@x")
        );
        paris.ok(&["entry", "modify", dn, "mail+=w@x", "mail-=z@x", "title=Dr"]);
        let found = paris.ok(&["entry", "search", "(&(mail=W@X)(!(mail=z@x)))", "title"]);
        assert!(found.contains("title: Dr") && !found.contains("mail:"), "{found}");
        let missing = paris.run(&["entry", "modify", dn, "title-=Prof"]);
        assert_eq!(status(&missing), 65, "{}", said(&missing));
        assert!(!said(&missing).contains("line"), "{}", said(&missing));
        paris.ok(&["entry", "delete", dn]);
        assert_eq!(status(&paris.run(&["entry", "show", dn])), 69);
    }
}

#[test]
fn status_has_what_scripts_read() {
    let scratch = Scratch::new("status");
    let (mut paris, tokyo) = (site(&scratch, "paris"), site(&scratch, "tokyo"));
    paris.introduce(&tokyo);
    paris.start();
    paris.import(b"dn: ou=paris,o=Example\nou: paris\nobjectClass: organizationalUnit\n");
    let status = paris.status();
    assert_eq!(status["site"], "paris");
    let context = &status["contexts"][0];
    assert_eq!(context["context"], "ou=paris,o=Example");
    assert_eq!(context["master"], "paris");
    assert_eq!(context["entries"], 1);
    assert_eq!(context["position"]["usn"], 1);
    assert_eq!(context["position"]["invocation"].as_str().unwrap().len(), 36);
    assert_eq!(context["digest"].as_str().unwrap().len(), 64);
    assert!(context["verified"].is_boolean());
    let partner = &status["partners"][0];
    assert_eq!(partner["site"], "tokyo");
    let state = partner["state"].as_str().unwrap();
    assert!(state == "new" || state == "delayed", "its next hop is away: {state}");
    assert!(partner["last_heard"].is_null());
    assert!(partner["behind"].is_u64());
}

#[test]
fn sync_and_verify_say_no_when_the_other_site_is_silent_and_need_the_daemon() {
    let scratch = Scratch::new("sync");
    let (mut paris, tokyo) = (site(&scratch, "paris"), site(&scratch, "tokyo"));
    paris.introduce(&tokyo);
    assert_eq!(status(&paris.run(&["sync"])), 69);
    paris.start();
    let output = paris.run(&["sync", "tokyo", "--wait", "1"]);
    assert_eq!(status(&output), 1, "{}", said(&output));
    assert_eq!(status(&paris.run(&["verify", "--wait", "1"])), 1);
    assert_eq!(status(&paris.run(&["sync", "nowhere"])), 69);
}

#[test]
fn reload_puts_a_sound_configuration_in_force_and_refuses_another() {
    let scratch = Scratch::new("reload");
    let (mut paris, tokyo) = (site(&scratch, "paris"), site(&scratch, "tokyo"));
    paris.start();
    paris.accept_card_of(&tokyo);
    assert_eq!(status(&paris.run(&["sync", "tokyo"])), 0, "known without a restart, and without a word more");
    let text = fs::read_to_string(paris.config()).unwrap();
    let refused = |changed: String, word: &str| {
        fs::write(paris.config(), changed).unwrap();
        let output = paris.run(&["reload"]);
        assert_eq!(status(&output), 78);
        assert!(said(&output).contains(word), "{}", said(&output));
    };
    refused(text.replace("[log]", "[log]\nlevle = 1"), "levle");
    // What a reload does not put in force is not taken for something that is.
    refused(text.replace("[log]", "[log]\nlevel = \"error\""), "`[log]` changed, which needs a restart");
    refused(text.replace("name = \"paris\"", "name = \"lyon\""), "`site.name` changed");
    let log = fs::read_to_string(paris.log()).unwrap();
    assert!(log.matches("event=\"reload-refused\"").count() >= 2, "{log}");
    paris.daemon().assert_alive();
    paris.stop();
    let output = paris.run(&["run"]);
    assert_eq!(status(&output), 78);
    assert!(said(&output).contains("`site.former_names`"), "{}", said(&output));
    fs::write(paris.config(), text).unwrap();
}

#[test]
fn deliver_keeps_a_message_for_later_when_the_daemon_is_away_and_refuses_what_is_no_replication_mail() {
    let scratch = Scratch::new("deliver");
    let mut paris = site(&scratch, "paris");
    let deliver = |paris: &Site| {
        let input = scratch.join("mail");
        fs::write(&input, "From: a@b\r\nSubject: hello\r\n\r\nhello\r\n").unwrap();
        paris.command(&["deliver"]).stdin(fs::File::open(input).unwrap()).output().unwrap()
    };
    assert_eq!(status(&deliver(&paris)), 75);
    paris.start();
    let refused = deliver(&paris);
    assert_eq!(status(&refused), 65, "{}", said(&refused));
}

#[test]
fn route_explains_which_way_mail_goes() {
    let scratch = Scratch::new("route");
    let paris = site(&scratch, "paris");
    assert!(paris.ok(&["route", "directory@REPL.paris.example"]).contains("replication"));
    let next_hop = fs::read_to_string(paris.config()).unwrap();
    let next_hop = next_hop.lines().find_map(|line| line.strip_prefix("next_hop = [\"")).unwrap();
    let next_hop = &next_hop[..next_hop.find('"').unwrap()];
    assert!(paris.ok(&["route", "someone@elsewhere.example"]).contains(next_hop));
}

#[test]
fn the_demo_shows_everything_and_leaves_nothing() {
    let scratch = Scratch::new("demo");
    let output = Command::new(env!("CARGO_BIN_EXE_bridgehead"))
        .arg("demo")
        .env("TMPDIR", scratch.join(""))
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", said(&output));
    for expected in ["octets unchanged", "beta: equal", "telephoneNumber: +44", "nothing is left behind"] {
        assert!(shown.contains(expected), "{expected} is not in:\n{shown}");
    }
    let digests: Vec<&str> = shown.lines().filter(|line| line.contains(": ou=alpha,o=Example: ")).collect();
    assert_eq!(digests.len(), 2, "{shown}");
    assert_eq!(digests[0].rsplit(' ').next(), digests[1].rsplit(' ').next());
    let left: Vec<_> = fs::read_dir(scratch.join("")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}
