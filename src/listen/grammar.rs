//! The command sequence, kept by mailin; the only file that knows mailin.
//!
//! mailin's session is asked twice. First with the verdict "no", which leaves its state alone and shows by
//! the handler being called whether the command is in sequence ([`Grammar::ask`]); then, when whatever had to be
//! awaited said yes, with the verdict "yes", which moves it on ([`Grammar::accept`]). So nothing blocks in a handler, and
//! mailin's state is true at every moment. It never sees a raw line: only canonical ones are made
//! here, after our own parser (smtp/command.rs) has understood the client's.
//!
//! STANDARDS
//!   RFC 5321 section 4.1.4 (order of commands).
//!
//! BUGS (of mailin 0.6.5, and how each is kept out)
//!   `MAIL FROM:<>`, parameters and quoted local parts with spaces do not parse: a token stands for such paths.
//!   A `data_end` that fails leaves it in its data state: ours never fails, the real reply is written by the session.
//!   What follows the first command in a buffer is dropped: one canonical line at a time. Its AUTH and STARTTLS states are broken: never
//!   enabled. It logs lines at trace level: the log target `mailin` is to be muted.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use mailin::{Handler, Response, Session, SessionBuilder};

use crate::smtp::Path;

/// The state of one session's dialogue.
pub struct Grammar {
    session: Session<Verdicts>,
    slot: Arc<Slot>,
    line: Vec<u8>,
}

/// A command that must come in its turn.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// EHLO, HELO or LHLO.
    Hello,
    Mail(&'a Path),
    Rcpt(&'a Path),
    /// DATA, or the first BDAT.
    Data,
}

/// A command out of turn: 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfSequence;

/// What the session and mailin's handler tell each other. One task touches it; the atomics are for `Sync` alone.
#[derive(Default)]
struct Slot {
    verdict: AtomicBool,
    called: AtomicBool,
}

struct Verdicts(Arc<Slot>);

impl Grammar {
    pub fn new(client: Option<IpAddr>) -> Grammar {
        let slot = Arc::new(Slot::default());
        let ip = client.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let session = SessionBuilder::new("bridgehead").build(ip, Verdicts(slot.clone()));
        Grammar { session, slot, line: Vec::with_capacity(128) }
    }

    /// Whether a command is in sequence; changes nothing.
    pub fn ask(&mut self, step: Step<'_>) -> Result<(), OutOfSequence> {
        self.run(step, false);
        if self.slot.called.load(Ordering::Relaxed) { Ok(()) } else { Err(OutOfSequence) }
    }

    /// Takes a command that is in sequence and was decided on.
    pub fn accept(&mut self, step: Step<'_>) -> Result<(), OutOfSequence> {
        let response = self.run(step, true);
        if self.slot.called.load(Ordering::Relaxed) && !response.is_error {
            Ok(())
        } else {
            Err(OutOfSequence)
        }
    }

    /// The message has ended, well or badly; the next transaction may begin.
    pub fn end_of_data(&mut self) {
        self.session.process(b".\r\n");
    }

    /// RSET, also when we end a transaction by ourselves.
    pub fn reset(&mut self) {
        self.session.process(b"RSET\r\n");
    }

    fn run(&mut self, step: Step<'_>, verdict: bool) -> Response {
        self.slot.verdict.store(verdict, Ordering::Relaxed);
        self.slot.called.store(false, Ordering::Relaxed);
        self.line.clear();
        match step {
            Step::Hello => self.line.extend_from_slice(b"EHLO client"),
            Step::Mail(path) => self.path_line(b"MAIL FROM:<", path),
            Step::Rcpt(path) => self.path_line(b"RCPT TO:<", path),
            Step::Data => self.line.extend_from_slice(b"DATA"),
        }
        self.line.extend_from_slice(b"\r\n");
        self.session.process(&self.line)
    }

    fn path_line(&mut self, verb: &[u8], path: &Path) {
        let text = match path.as_str() {
            "" => "null-reverse-path.invalid",
            text if text.contains([' ', '<', '>', '\t']) => "quoted-path.invalid",
            text => text,
        };
        self.line.extend_from_slice(verb);
        self.line.extend_from_slice(text.as_bytes());
        self.line.push(b'>');
    }
}

impl Verdicts {
    fn answer(&self) -> Response {
        self.0.called.store(true, Ordering::Relaxed);
        let mut response = silence();
        response.is_error = !self.0.verdict.load(Ordering::Relaxed);
        response
    }
}

impl Handler for Verdicts {
    fn helo(&mut self, _ip: IpAddr, _domain: &str) -> Response {
        self.answer()
    }

    fn mail(&mut self, _ip: IpAddr, _domain: &str, _from: &str) -> Response {
        self.answer()
    }

    fn rcpt(&mut self, _to: &str) -> Response {
        self.answer()
    }

    fn data_start(&mut self, _domain: &str, _from: &str, _is8bit: bool, _to: &[String]) -> Response {
        self.answer()
    }

    fn data_end(&mut self) -> Response {
        silence()
    }
}

/// A response without words. mailin formats each response for its log, muted or not, and an EHLO response with all its
/// lines; this one it does not. It makes none but for a line of a message, so that is where ours comes from.
fn silence() -> Response {
    struct Anything;
    impl Handler for Anything {}
    static SILENCE: LazyLock<Response> = LazyLock::new(|| {
        let mut session = SessionBuilder::new("").build(Ipv4Addr::UNSPECIFIED.into(), Anything);
        let lines = ["EHLO a", "MAIL FROM:<a@b>", "RCPT TO:<a@b>", "DATA", "text"];
        lines.map(|line| session.process(format!("{line}\r\n").as_bytes()))[4].clone()
    });
    SILENCE.clone()
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Grammar")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    fn greeted() -> Grammar {
        let mut grammar = Grammar::new(None);
        grammar.accept(Step::Hello).unwrap();
        grammar
    }

    #[test]
    fn asking_changes_nothing() {
        let mut grammar = greeted();
        let (from, to) = (path(""), path("\"a b>\"@c"));
        for _ in 0..3 {
            assert_eq!(grammar.ask(Step::Mail(&from)), Ok(()));
            assert_eq!(grammar.ask(Step::Rcpt(&to)), Err(OutOfSequence));
        }
        grammar.accept(Step::Mail(&from)).unwrap();
        assert_eq!(grammar.ask(Step::Mail(&from)), Err(OutOfSequence));
        assert_eq!(grammar.ask(Step::Data), Err(OutOfSequence));
        assert_eq!(grammar.ask(Step::Rcpt(&to)), Ok(()));
        assert_eq!(grammar.ask(Step::Data), Err(OutOfSequence));
        grammar.accept(Step::Rcpt(&to)).unwrap();
        assert_eq!(grammar.ask(Step::Data), Ok(()));
        assert_eq!(grammar.ask(Step::Rcpt(&to)), Ok(()));
        grammar.accept(Step::Data).unwrap();
    }

    #[test]
    fn a_message_ends_whatever_became_of_it() {
        let mut grammar = greeted();
        for _ in 0..3 {
            grammar.accept(Step::Mail(&path("a@b"))).unwrap();
            grammar.accept(Step::Rcpt(&path("a@b"))).unwrap();
            grammar.accept(Step::Data).unwrap();
            grammar.end_of_data();
        }
    }

    #[test]
    fn mail_needs_a_greeting_and_reset_keeps_it() {
        let mut grammar = Grammar::new(None);
        assert_eq!(grammar.ask(Step::Mail(&path("a@b"))), Err(OutOfSequence));
        grammar.reset();
        assert_eq!(grammar.ask(Step::Mail(&path("a@b"))), Err(OutOfSequence));
        grammar.accept(Step::Hello).unwrap();
        grammar.accept(Step::Mail(&path("ü@b"))).unwrap();
        grammar.reset();
        grammar.accept(Step::Mail(&path("a@b"))).unwrap();
        grammar.accept(Step::Hello).unwrap();
        grammar.accept(Step::Mail(&path("a@b"))).unwrap();
    }

    proptest::proptest! {
        /// Every path that our parser lets through is one that mailin takes.
        #[test]
        fn mailin_takes_every_path(text in "(\"[a-z @<>\\\\\\\\.]{0,9}\"|[a-zü+.]{1,9})@([a-z]{1,5}|\\[IPv6:::1\\])") {
            if let Ok(path) = Path::parse(&text) {
                let mut grammar = greeted();
                proptest::prop_assert_eq!(grammar.accept(Step::Mail(&path)), Ok(()));
                proptest::prop_assert_eq!(grammar.accept(Step::Rcpt(&path)), Ok(()));
            }
        }
    }
}
