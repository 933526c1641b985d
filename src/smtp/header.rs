//! The loop guard's eye: reads the header of a message as it streams by.
//!
//! PROMISES
//!   Counts `Received:` fields and finds our own trace in them, whatever the division into chunks; keeps at most
//!   `KEPT_BYTES_MAX` octets.
//!
//! STANDARDS
//!   RFC 5321 section 6.3 (loop detection), RFC 5322 section 3.6.7.

/// Octets of an unfinished line that are remembered between chunks.
const KEPT_BYTES_MAX: usize = 1000;

/// Fed with the message from its first octet; stuffing does not matter.
#[derive(Clone, Debug, Default)]
pub struct HeaderScan {
    received: usize,
    own: bool,
    in_received: bool,
    done: bool,
    /// The beginning of a line whose end has not come yet.
    kept: Vec<u8>,
}

impl HeaderScan {
    /// `Received:` fields so far.
    pub fn received(&self) -> usize {
        self.received
    }

    /// Whether one of them bears our own trace.
    pub fn own_trace(&self) -> bool {
        self.own
    }

    /// Whether the header has ended and further chunks make no difference.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Reads a chunk. `trace` is what our own header for this message would be known by.
    pub fn push(&mut self, mut chunk: &[u8], trace: &[u8]) {
        while !self.done {
            let Some(end) = memchr::memchr(b'\n', chunk) else {
                let room = KEPT_BYTES_MAX - self.kept.len();
                self.kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
                return;
            };
            if self.kept.is_empty() {
                self.line(&chunk[..end], trace);
            } else {
                let mut line = std::mem::take(&mut self.kept);
                let room = KEPT_BYTES_MAX - line.len();
                line.extend_from_slice(&chunk[..end.min(room)]);
                self.line(&line, trace);
            }
            chunk = &chunk[end + 1..];
        }
    }

    fn line(&mut self, line: &[u8], trace: &[u8]) {
        match line.first() {
            None | Some(b'\r') => self.done = true,
            Some(b' ' | b'\t') => {}
            Some(b'r' | b'R') => {
                const NAME: &[u8] = b"received:";
                self.in_received = line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME));
                self.received += usize::from(self.in_received);
            }
            Some(_) => self.in_received = false,
        }
        if self.in_received && !self.own && !trace.is_empty() {
            self.own = memchr::memmem::find(line, trace).is_some();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] =
        b"Received: from a\r\n\tby b (bridgehead x-1); date\r\nreceived: c\r\nReceivedx: d\r\n\
        Subject: x-2\r\n\r\nReceived: in the body\r\n";

    #[test]
    fn counts_fields_of_the_header_alone() {
        for size in 1..MESSAGE.len() {
            let mut scan = HeaderScan::default();
            for chunk in MESSAGE.chunks(size) {
                scan.push(chunk, b"x-1");
            }
            assert_eq!((scan.received(), scan.own_trace(), scan.is_done()), (2, true, true));
        }
    }

    #[test]
    fn finds_only_the_own_trace_and_only_in_received() {
        for trace in [&b"x-2"[..], b"x-3", b""] {
            let mut scan = HeaderScan::default();
            scan.push(MESSAGE, trace);
            assert!(!scan.own_trace());
        }
    }

    #[test]
    fn keeps_little() {
        let mut scan = HeaderScan::default();
        for _ in 0..100 {
            scan.push(&[b'R'; 1000], b"x");
        }
        assert!(scan.kept.len() <= KEPT_BYTES_MAX);
    }
}
