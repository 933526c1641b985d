//! What another site says: messages, manifests, checkpoints, cards, introductions, bundles. What was read is written and
//! read again as the same.
#![no_main]

use bridgehead::message::bundle;
use bridgehead::message::card::Card;
use bridgehead::message::introduction::Introduction;
use bridgehead::replication::checkpoint::SignedCheckpoint;
use bridgehead::replication::transfer::Manifest;
use bridgehead::replication::wire::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = Message::decode(data) {
        assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(&message));
        for part in &message.parts {
            let _ = part.part.bytes.len();
        }
    }
    if let Ok(manifest) = Manifest::from_bytes(data) {
        let again = manifest.to_bytes().expect("our own words");
        assert_eq!(Manifest::from_bytes(&again).expect("our own words"), manifest);
    }
    if let Ok(signed) = SignedCheckpoint::from_bytes(data) {
        assert_eq!(SignedCheckpoint::from_bytes(&signed.to_bytes()).expect("our own words"), signed);
        let _ = signed.claimed();
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Card::parse_verified(text);
        let _ = Introduction::parse_verified(text, |_| None);
    }
    if let Ok(messages) = bundle::Reader::new(data) {
        let _ = messages.take_while(Result::is_ok).count();
    }
});
