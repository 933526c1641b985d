//! Ordinary mail with everything in it that a relay might be tempted to mend.

/// A message, CRLF throughout, that no relay has a reason to change. The subject tells it from others.
pub fn ordinary_message(subject: &str) -> Vec<u8> {
    let mut message = Vec::new();
    let mut line = |text: &[u8]| {
        message.extend_from_slice(text);
        message.extend_from_slice(b"\r\n");
    };
    line(b"Date: Thu, 19 Nov 2026 09:00:00 +0100");
    line(b"From: =?utf-8?q?Ren=C3=A9e?= <renee@outside.example>");
    line(b"To: someone@paris.example");
    line(format!("Message-ID: <{}@outside.example>", subject.replace(' ', "-")).as_bytes());
    line(format!("Subject: {subject}").as_bytes());
    line(b"X-Odd:no space after the colon");
    line(b"X-Folded: one,\r\n\ttwo,\r\n three   ");
    line(b"MIME-Version: 1.0");
    line(b"Content-Type: text/plain; charset=utf-8");
    line(b"Content-Transfer-Encoding: 8bit");
    line(b"");
    line("Grüße aus Zürich, 你好".as_bytes());
    line(b".");
    line(b"..two dots");
    line(b".one dot");
    line(b"trailing blanks   \t ");
    line(b"From here on, a line that mailboxes like to quote");
    line(&[b'x'; 990]);
    line(&[0xff, 0xfe, 0xe9, 0x80]);
    line(b"");
    line(b"");
    message
}

/// The message without the `Received:` fields that hops put in front of it.
pub fn without_trace(message: &[u8]) -> &[u8] {
    let mut rest = message;
    loop {
        let is_trace = rest.get(..9).is_some_and(|name| name.eq_ignore_ascii_case(b"Received:"));
        if !is_trace {
            return rest;
        }
        rest = after_line(rest);
        while rest.starts_with(b" ") || rest.starts_with(b"\t") {
            rest = after_line(rest);
        }
    }
}

fn after_line(text: &[u8]) -> &[u8] {
    text.iter().position(|&b| b == b'\n').map_or(&[], |end| &text[end + 1..])
}
