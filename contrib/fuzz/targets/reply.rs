//! Replies of a next hop: any octets, arriving piecemeal; what was read is written again with the same meaning.
#![no_main]

use bridgehead::smtp::{Extensions, Reply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let whole = Reply::parse(data);
    // No prefix says anything else than the whole, except that it may be too short.
    let step = data.len() / 16 + 1;
    for end in (0..data.len()).step_by(step) {
        match (Reply::parse(&data[..end]), &whole) {
            (Ok(None), _) => {}
            (Ok(Some(part)), Ok(Some(full))) => assert_eq!(&part, full),
            (Err(error), whole) => assert_eq!(whole, &Err(error)),
            (part, whole) => panic!("{part:?} became {whole:?}"),
        }
    }
    let Ok(Some((reply, used))) = whole else { return };
    assert!(used <= data.len() && data[used - 1] == b'\n');
    let mut wire = Vec::new();
    reply.write_to(&mut wire);
    let (again, length) = Reply::parse(&wire).expect("our own words").expect("a whole reply");
    assert_eq!((&again, length), (&reply, wire.len()));
    assert!(
        !wire.iter().any(|b| *b < b' ' && !matches!(b, b'\r' | b'\n' | b'\t')),
        "{}",
        wire.escape_ascii()
    );
    let extensions = Extensions::parse(reply.lines());
    let offered = extensions.through(&extensions).lines();
    assert!(offered.iter().all(|line| !line.contains(['\r', '\n'])));
});
