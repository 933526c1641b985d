//! Command lines: framing, commands, paths, parameters; what we send on for a command is read again as the same.
#![no_main]

use bridgehead::smtp::xforward::{XCLIENT, XFORWARD};
use bridgehead::smtp::{
    ClientAttributes, Command, Envelope, Extensions, Line, MailParameters, RcptParameters, Recipient,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = data;
    loop {
        match Line::find(input, 4096) {
            Line::Whole(octets) => {
                let line = &input[..octets - 2];
                assert!(input[..octets].ends_with(b"\r\n"));
                assert!(!line.contains(&b'\r') && !line.contains(&b'\n') && !line.contains(&0));
                command(line);
                input = &input[octets..];
            }
            Line::Broken(octets) => {
                let line = &input[..octets];
                let inner = line.strip_suffix(b"\r\n").unwrap_or(line);
                assert!(!line.ends_with(b"\r\n") || inner.iter().any(|b| matches!(b, b'\r' | 0)));
                input = &input[octets..];
            }
            Line::Partial => return assert!(!input.contains(&b'\n') && input.len() < 4096),
            Line::TooLong => return assert!(input.len() >= 4096),
        }
    }
});

fn command(line: &[u8]) {
    let Ok(command) = Command::parse(line) else { return };
    let mut wire = Vec::new();
    match command {
        Command::Mail(reverse_path, words) => {
            let Ok(parameters) = MailParameters::parse(words) else { return };
            let envelope = Envelope { reverse_path, parameters, recipients: Vec::new() };
            envelope.write_mail(&mut wire, &everything());
            let Ok(Command::Mail(path, words)) = Command::parse(whole(&wire)) else {
                panic!("{}", wire.escape_ascii())
            };
            assert_eq!(path, envelope.reverse_path);
            assert_eq!(MailParameters::parse(words).as_ref(), Ok(&envelope.parameters));
        }
        Command::Rcpt(path, words) => {
            let Ok(parameters) = RcptParameters::parse(words) else { return };
            let recipient = Recipient { path, parameters };
            recipient.write_rcpt(&mut wire, &everything());
            let Ok(Command::Rcpt(path, words)) = Command::parse(whole(&wire)) else {
                panic!("{}", wire.escape_ascii())
            };
            assert_eq!(path, recipient.path);
            assert_eq!(RcptParameters::parse(words).as_ref(), Ok(&recipient.parameters));
        }
        Command::Xforward(words) => {
            let mut told = ClientAttributes::default();
            if told.update(words, XFORWARD).is_ok() {
                told.write_xforward(&mut wire, XFORWARD);
                for line in wire.split_inclusive(|octet| *octet == b'\n') {
                    assert!(
                        matches!(Command::parse(whole(line)), Ok(Command::Xforward(_))),
                        "{}",
                        line.escape_ascii()
                    );
                }
            }
        }
        Command::Xclient(words) => {
            let _ = ClientAttributes::default().update(words, XCLIENT);
        }
        _ => {}
    }
}

/// One line of ours, without its CRLF; no other line end is in it.
fn whole(wire: &[u8]) -> &[u8] {
    assert_eq!(Line::find(wire, 1 << 16), Line::Whole(wire.len()), "{}", wire.escape_ascii());
    &wire[..wire.len() - 2]
}

fn everything() -> Extensions {
    let offer = "hop\nPIPELINING\nSIZE\n8BITMIME\nSMTPUTF8\nDSN\nAUTH PLAIN\nENHANCEDSTATUSCODES";
    Extensions::parse(offer.split('\n'))
}
