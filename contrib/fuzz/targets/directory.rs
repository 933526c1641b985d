//! LDIF and names: what was read is written and read again as the same.
#![no_main]

use bridgehead::directory::filter::Filter;
use bridgehead::directory::ldif::{Reader, Writer};
use bridgehead::directory::{Change, Dn};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(dn) = Dn::parse(text) {
            let again = Dn::parse(&dn.to_string()).expect("our own spelling");
            assert!(again.matches(&dn) && again.normalized() == dn.normalized(), "{dn}");
            if let Some(parent) = dn.parent() {
                assert!(dn.is_under(&parent));
                assert!(parent.child(dn.rdn().clone()).is_ok_and(|child| child.matches(&dn)));
            }
        }
        let _ = Filter::parse(text);
    }
    let changes: Vec<Change> = Reader::new(data).map_while(Result::ok).map(|(_, change)| change).collect();
    let mut writer = Writer::new(Vec::new()).expect("memory");
    for change in &changes {
        writer.change(change).expect("memory");
    }
    let text = writer.finish().expect("memory");
    let again: Result<Vec<_>, _> =
        Reader::new(&text[..]).map(|read| read.map(|(_, change)| change)).collect();
    assert_eq!(again.expect("our own LDIF"), changes, "{}", String::from_utf8_lossy(&text));
});
