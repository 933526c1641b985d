//! What one change costs: octets of the mail that brings it and of the one that acknowledges it, as each leaves for its next
//! hop (`message-sent` in the log). `contrib/bench/replication` measures the same behind Postfix.

use std::time::Duration;

use crate::support::{Direct, SOON, Site, await_some, people};

/// Of mail in all, for one changed attribute of one entry.
const CHANGE_BYTES_MAX: usize = 2048;

/// Octets of each mail that the site sent since its log had this length.
fn sent_since(site: &Site, from: usize) -> Vec<usize> {
    let log = std::fs::read(site.log()).expect("a log");
    let log = String::from_utf8_lossy(&log[from..]).into_owned();
    let sent = log.lines().filter(|line| line.contains("event=\"message-sent\""));
    sent.filter_map(|line| line.split(" bytes=").nth(1)?.split(' ').next()?.parse().ok()).collect()
}

fn logged(site: &Site) -> usize {
    std::fs::metadata(site.log()).expect("a log").len() as usize
}

/// The DN of one of the people in LDIF.
fn dn_of_person(ldif: &[u8], n: usize) -> String {
    let text = String::from_utf8_lossy(ldif).into_owned();
    let mut names = text.lines().filter_map(|line| line.strip_prefix("dn: uid="));
    format!("uid={}", names.nth(100 * n).expect("so many people"))
}

#[test]
fn one_change_and_its_acknowledgement_are_two_kib_of_mail_at_most() {
    for both_master in [false, true] {
        let pair = Direct::start(&format!("octets-{both_master}"));
        let directory = people(&pair.paris, 1000);
        pair.paris.import(&directory);
        if both_master {
            pair.tokyo.import(&people(&pair.tokyo, 1000));
            pair.tokyo.sync(SOON);
        }
        pair.paris.sync(SOON);
        // What is acknowledged in its own time is on its way by then, and counts for no change.
        std::thread::sleep(Duration::from_secs(3));
        for n in 0..3 {
            let before = [&pair.paris, &pair.tokyo].map(logged);
            let dn = dn_of_person(&directory, n);
            let change = format!("dn: {dn}\nchangetype: modify\nreplace: title\ntitle: Chancellor {n}\n-\n");
            pair.paris.import(change.as_bytes());
            pair.paris.sync(SOON);
            let (out, back) = await_some("both mails in the logs", SOON, || {
                let (out, back) = (sent_since(&pair.paris, before[0]), sent_since(&pair.tokyo, before[1]));
                (!out.is_empty() && !back.is_empty()).then_some((out, back))
            });
            println!("both master: {both_master}, change {n}: {out:?} out, {back:?} back");
            assert_eq!((out.len(), back.len()), (1, 1), "{out:?} {back:?}");
            assert!(out[0] + back[0] <= CHANGE_BYTES_MAX, "{out:?} out and {back:?} back");
        }
    }
}
