//! Faults of the machine: each ends in an error that names its cause, and a status other than 0.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use crate::support::{Scratch, Site, SmallDisk, deliver, free_address, path_text, people};

#[test]
fn a_store_in_use_is_refused_and_its_holder_named() {
    let scratch = Scratch::new("locked");
    let mut site = alone(&scratch);
    site.start();
    let second = site.run(&["run"]);
    let holder = site.daemon().pid().to_string();
    assert_refused(&second, &holder);
    site.daemon().assert_alive();
    site.stop();
}

#[test]
fn a_key_that_cannot_be_used_is_named() {
    let scratch = Scratch::new("key");
    let site = alone(&scratch);
    let key = site.directory.join("site.key");
    let good = fs::read(&key).expect("init wrote the key");
    let mode = fs::metadata(&key).expect("its permissions").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else may read the key");

    fs::write(&key, "not a key\n").expect("write");
    assert_refused(&site.run(&["run"]), "site.key");
    assert_refused(&site.run(&["check"]), "site.key");
    assert_refused(&site.run(&["card"]), "site.key");

    fs::write(&key, &good[..good.len() / 2]).expect("write");
    assert_refused(&site.run(&["run"]), "site.key");

    fs::remove_file(&key).expect("remove");
    assert_refused(&site.run(&["run"]), "site.key");
    assert_refused(&site.run(&["check"]), "site.key");

    fs::create_dir(&key).expect("a directory in its place");
    assert_refused(&site.run(&["run"]), "site.key");
    fs::remove_dir(&key).expect("remove");

    fs::write(&key, good).expect("write");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("permissions");
    site.ok(&["check"]);
}

#[test]
fn a_full_disk_refuses_the_import_and_keeps_what_was() {
    let scratch = Scratch::new("disk-full");
    let mut site = alone(&scratch);
    let disk = SmallDisk::mount(&site.directory.join("data"), "8m");
    site.start();
    site.import(&people(&site, 20));
    let before = site.export(&site.context);

    let file = scratch.write("large.ldif", people(&site, 40_000));
    let output = site.run(&["import", path_text(&file)]);
    assert_refused(&output, "space");
    site.daemon().assert_alive();
    assert!(site.export(&site.context) == before, "the refused import must leave nothing");

    // With room again the same daemon goes on.
    disk.grow();
    site.ok(&["import", path_text(&file)]);
    site.stop();
}

/// What is refused for good is gone from where it came from, so its copy must be on disk before.
#[test]
fn a_full_disk_defers_mail_whose_copy_cannot_be_kept() {
    let scratch = Scratch::new("disk-full-copy");
    let mut site = alone(&scratch);
    let disk = SmallDisk::mount(&site.directory.join("data"), "8m");
    site.start();
    let mail = ["From: a@b\r\nSubject: hi\r\n\r\n", &"0123456789abcdef\r\n".repeat(20_000)].concat();
    let copies = || site.ok(&["quarantine", "list"]).matches("somebody@outside.example").count();
    disk.fill();
    deliver(&site, mail.as_bytes()).expect(452);
    disk.free();
    assert_eq!(copies(), 0);
    deliver(&site, mail.as_bytes()).expect(550);
    assert_eq!(copies(), 1);
    site.stop();
}

/// A site without partners; no mail leaves it.
fn alone(scratch: &Scratch) -> Site {
    Site::init(scratch, "paris", free_address(), free_address())
}

/// The command failed, and its message says this much.
#[track_caller]
fn assert_refused(output: &Output, cause: &str) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "must fail; it said {message}");
    assert!(output.status.code().is_some(), "must end by itself: {}", output.status);
    assert!(message.contains(cause), "the message does not say {cause:?}: {message}");
    assert!(!message.contains("panicked"), "{message}");
}
