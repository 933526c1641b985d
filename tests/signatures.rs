//! DKIM signatures, made and checked by dkimpy, through two relays in a row: the first speaks BDAT or DATA to the second as the
//! client did, the last next hop knows DATA only.

use crate::support::{
    Client, Dkim, Recorder, SOON, Scratch, Site, free_address, ordinary_message, without_trace,
};

#[test]
fn a_signature_verifies_after_data_and_after_chunks_of_any_size() {
    let scratch = Scratch::new("signatures");
    let world = Recorder::start();
    let mut far = Site::init(&scratch, "tokyo", free_address(), world.address);
    let mut near = Site::init(&scratch, "paris", free_address(), far.address);
    far.start();
    near.start();
    let dkim = Dkim::new(&scratch);
    // Eight-bit octets, dots, blanks at line ends and long lines; then lines longer than any standard has them.
    let mut message = ordinary_message("signed");
    for length in [998, 2_000, 20_000] {
        message.extend_from_slice(&[&[0xe9_u8].repeat(length)[..], b"\r\n..\r\n.\r\n"].concat());
    }
    let signed = dkim.sign(&message);
    let mut client = Client::greet(near.address);
    let begin = |client: &mut Client, recipient: &str| {
        client.command("MAIL FROM:<renee@outside.example> BODY=8BITMIME").expect(250);
        client.command(&format!("RCPT TO:<{recipient}>")).expect(250);
    };
    let assert_verifies = |recipient: &str| {
        let arrived = world.await_message_for(recipient, SOON);
        assert!(dkim.verifies(&arrived.message), "{recipient}: {}", arrived.text());
        assert!(without_trace(&arrived.message) == signed, "{recipient}");
        arrived.message
    };

    begin(&mut client, "data@far.example");
    client.data(&signed).expect(250);
    let mut spoiled = assert_verifies("data@far.example");
    for size in [1_usize, 7, 997, 8_192, signed.len()] {
        let recipient = format!("chunks-of-{size}@far.example");
        begin(&mut client, &recipient);
        // Octet by octet where it matters most, around the header's end.
        let (slow, rest) = signed.split_at(if size == 1 { 1_500 } else { 0 });
        let chunks: Vec<&[u8]> =
            slow.chunks(1).chain(rest.chunks(if size == 1 { 997 } else { size })).collect();
        for (at, chunk) in chunks.iter().enumerate() {
            let last = if at + 1 == chunks.len() { " LAST" } else { "" };
            client.send(&[format!("BDAT {}{last}\r\n", chunk.len()).as_bytes(), chunk].concat());
            client.reply().expect(250);
        }
        assert_verifies(&recipient);
    }

    *spoiled.iter_mut().rfind(|octet| **octet == 0xe9).unwrap() = b'e';
    assert!(!dkim.verifies(&spoiled), "one octet of thousands must be noticed");
}
