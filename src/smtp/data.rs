//! The data phase: where a message ends, what its line ends are, and its forms on the wire.
//!
//! PROMISES
//!   Only CRLF.CRLF ends a message, across any division into chunks. Every CR or LF that stands alone is
//!   noticed. What passes from DATA to DATA keeps its dot-stuffing and is not touched.
//!
//! STANDARDS
//!   RFC 5321 section 2.3.8 (line ends), 4.1.1.4 (DATA), 4.5.2 (transparency); RFC 3030 (BDAT).

/// A message is malformed in a way that a weaker receiver may take for its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEndFault {
    BareLf,
    BareCr,
    /// A line that begins with a dot and NUL, which receivers written around C strings take for the end.
    DotNul,
}

/// What one chunk held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Octets from the front that belong to the message, stuffing included. Up to two octets behind
    /// them may be undecided and must be offered again with what follows.
    pub content: usize,
    /// The end of data follows the content and takes [`END`]'s length.
    pub end: bool,
}

/// The end of data at the beginning of a line.
pub const END: &[u8; 3] = b".\r\n";

/// Scans the octets between 354 and the end of data. It is fed chunk after chunk; the first chunk
/// begins a line.
#[derive(Clone, Debug)]
pub struct DataScanner {
    line_start: bool,
    /// Stuffed dots seen, which do not count as octets of the message.
    stuffed: u64,
    fault: Option<LineEndFault>,
    /// Octets since the last CRLF, where a limit is set.
    line_bytes: usize,
    line_bytes_max: usize,
    too_long: bool,
}

impl DataScanner {
    /// `line_bytes_max`: octets of a line without CRLF; 0 for no limit.
    pub fn new(line_bytes_max: usize) -> DataScanner {
        DataScanner {
            line_start: true,
            stuffed: 0,
            fault: None,
            line_bytes: 0,
            line_bytes_max,
            too_long: false,
        }
    }

    /// The first fault seen so far.
    pub fn fault(&self) -> Option<LineEndFault> {
        self.fault
    }

    pub fn stuffed(&self) -> u64 {
        self.stuffed
    }

    /// Whether a line was longer than allowed.
    pub fn line_too_long(&self) -> bool {
        self.too_long
    }

    pub fn scan(&mut self, chunk: &[u8]) -> Scan {
        let mut at = 0;
        if self.line_start {
            match end_of_data(chunk) {
                Some(true) => return Scan { content: 0, end: true },
                None => return Scan { content: 0, end: false },
                Some(false) => self.begin_line(chunk),
            }
        }
        let mut line_from = 0;
        while let Some(found) = memchr::memchr2(b'\r', b'\n', &chunk[at..]) {
            let i = at + found;
            if chunk[i] == b'\n' {
                self.fault.get_or_insert(LineEndFault::BareLf);
                at = i + 1;
                continue;
            }
            match chunk.get(i + 1) {
                None => {
                    self.measure(i - line_from);
                    return Scan { content: i, end: false };
                }
                Some(b'\n') => {
                    self.measure(i - line_from);
                    self.line_bytes = 0;
                    at = i + 2;
                    line_from = at;
                    if chunk.get(at).is_none_or(|b| *b == b'.') {
                        match end_of_data(&chunk[at..]) {
                            Some(true) => return Scan { content: at, end: true },
                            None => {
                                self.line_start = true;
                                return Scan { content: at, end: false };
                            }
                            Some(false) => self.begin_line(&chunk[at..]),
                        }
                    }
                }
                Some(_) => {
                    self.fault.get_or_insert(LineEndFault::BareCr);
                    at = i + 1;
                }
            }
        }
        self.measure(chunk.len() - line_from);
        Scan { content: chunk.len(), end: false }
    }

    fn begin_line(&mut self, line: &[u8]) {
        self.line_start = false;
        if line[0] == b'.' {
            self.stuffed += 1;
            if line.get(1) == Some(&0) {
                self.fault.get_or_insert(LineEndFault::DotNul);
            }
        }
    }

    fn measure(&mut self, bytes: usize) {
        self.line_bytes += bytes;
        self.too_long |= self.line_bytes_max != 0 && self.line_bytes > self.line_bytes_max;
    }
}

/// Whether a line that begins here is the end of data; `None` while that is open.
fn end_of_data(line: &[u8]) -> Option<bool> {
    if line.len() >= END.len() {
        Some(line.starts_with(END))
    } else if END.starts_with(line) {
        None
    } else {
        Some(false)
    }
}

/// Notices bare line ends, and lines that are too long, in octets that are not stuffed (BDAT).
#[derive(Clone, Debug, Default)]
pub struct LineEndScanner {
    after_cr: bool,
    fault: Option<LineEndFault>,
    /// Octets since the last CRLF.
    line_bytes: usize,
    line_bytes_max: usize,
    too_long: bool,
}

impl LineEndScanner {
    /// `line_bytes_max`: octets of a line without CRLF; 0 for no limit.
    pub fn new(line_bytes_max: usize) -> LineEndScanner {
        LineEndScanner { line_bytes_max, ..LineEndScanner::default() }
    }

    pub fn scan(&mut self, chunk: &[u8]) {
        let mut at = 0;
        if self.after_cr && !chunk.is_empty() {
            self.after_cr = false;
            match chunk[0] {
                b'\n' => {
                    self.line_bytes = 0;
                    at = 1;
                }
                _ => {
                    // It ended nothing, so it is an octet of the line.
                    self.measure(1);
                    self.note(LineEndFault::BareCr);
                }
            }
        }
        let mut line_from = at;
        while let Some(found) = memchr::memchr2(b'\r', b'\n', &chunk[at..]) {
            let i = at + found;
            at = i + 1;
            match (chunk[i], chunk.get(i + 1)) {
                (b'\n', _) => self.note(LineEndFault::BareLf),
                (_, Some(b'\n')) => {
                    at = i + 2;
                    self.measure(i - line_from);
                    self.line_bytes = 0;
                    line_from = at;
                }
                (_, Some(_)) => self.note(LineEndFault::BareCr),
                (_, None) => {
                    self.after_cr = true;
                    return self.measure(i - line_from);
                }
            }
        }
        self.measure(chunk.len() - line_from);
    }

    /// Whether a line was longer than allowed.
    pub fn line_too_long(&self) -> bool {
        self.too_long
    }

    fn measure(&mut self, bytes: usize) {
        self.line_bytes += bytes;
        self.too_long |= self.line_bytes_max != 0 && self.line_bytes > self.line_bytes_max;
    }

    /// The first fault, once the message has ended.
    pub fn finish(&self) -> Option<LineEndFault> {
        self.fault.or(self.after_cr.then_some(LineEndFault::BareCr))
    }

    pub fn fault(&self) -> Option<LineEndFault> {
        self.fault
    }

    fn note(&mut self, fault: LineEndFault) {
        self.fault.get_or_insert(fault);
    }
}

/// Takes the stuffing out. Fed with the content of [`DataScanner`], chunk after chunk.
#[derive(Clone, Debug)]
pub struct Unstuffer {
    line_start: bool,
}

impl Default for Unstuffer {
    fn default() -> Unstuffer {
        Unstuffer { line_start: true }
    }
}

impl Unstuffer {
    pub fn push(&mut self, mut chunk: &[u8], out: &mut Vec<u8>) {
        if self.line_start && chunk.first() == Some(&b'.') {
            chunk = &chunk[1..];
            self.line_start = false;
        }
        let mut from = 0;
        for at in memchr::memmem::find_iter(chunk, b"\r\n.") {
            out.extend_from_slice(&chunk[from..at + 2]);
            from = at + 3;
        }
        out.extend_from_slice(&chunk[from..]);
        if !chunk.is_empty() {
            // Content never ends within CRLF: the scanner holds a CR back until it knows what follows.
            self.line_start = chunk[from..].ends_with(b"\r\n");
        }
    }
}

/// Puts the stuffing in: from octets as they are (BDAT, our own mail) to the form of DATA.
#[derive(Clone, Debug)]
pub struct Stuffer {
    /// How many octets of CRLF were seen last; two at the start of the message.
    matched: u8,
}

impl Default for Stuffer {
    fn default() -> Stuffer {
        Stuffer { matched: 2 }
    }
}

impl Stuffer {
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let mut from = 0;
        let mut at = 0;
        while at < chunk.len() {
            if self.matched == 2 && chunk[at] == b'.' {
                out.extend_from_slice(&chunk[from..at]);
                out.push(b'.');
                from = at;
            }
            if self.matched == 1 && chunk[at] == b'\n' {
                self.matched = 2;
                at += 1;
                continue;
            }
            match memchr::memchr(b'\r', &chunk[at..]) {
                Some(cr) => {
                    self.matched = 1;
                    at += cr + 1;
                }
                None => {
                    self.matched = 0;
                    break;
                }
            }
        }
        out.extend_from_slice(&chunk[from..]);
    }

    /// Ends the message: CRLF where its last line lacks one, then the end of data.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.matched != 2 {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(END);
    }
}

/// Makes CRLF of every bare CR and LF. Fed with un-stuffed octets.
#[derive(Clone, Debug, Default)]
pub struct Normalizer {
    after_cr: bool,
}

impl Normalizer {
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let mut from = 0;
        let mut at = 0;
        if self.after_cr && !chunk.is_empty() {
            self.after_cr = false;
            out.extend_from_slice(b"\r\n");
            if chunk[0] == b'\n' {
                (from, at) = (1, 1);
            }
        }
        while let Some(found) = memchr::memchr2(b'\r', b'\n', &chunk[at..]) {
            let i = at + found;
            out.extend_from_slice(&chunk[from..i]);
            at = i + 1;
            if chunk[i] == b'\r' {
                match chunk.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => {
                        self.after_cr = true;
                        return;
                    }
                }
            }
            out.extend_from_slice(b"\r\n");
            from = at;
        }
        out.extend_from_slice(&chunk[from..]);
    }

    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.after_cr) {
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bare_cr_between_stretches_is_an_octet_of_its_line() {
        for (bytes_max, too_long) in [(4, false), (3, true)] {
            let mut scanner = LineEndScanner::new(bytes_max);
            scanner.scan(b"a\r");
            scanner.scan(b"bc\r\n");
            assert_eq!(scanner.line_too_long(), too_long, "{bytes_max}");
        }
    }

    /// Feeds `wire` in the given chunk sizes; gives content and what was left after the end of data.
    fn feed(wire: &[u8], sizes: &[usize]) -> (Vec<u8>, Option<Vec<u8>>, DataScanner) {
        let mut scanner = DataScanner::new(0);
        let (mut content, mut pending, mut at) = (Vec::new(), Vec::new(), 0);
        for size in sizes.iter().copied().chain(std::iter::repeat(usize::MAX)) {
            let take = size.min(wire.len() - at);
            pending.extend_from_slice(&wire[at..at + take]);
            at += take;
            let scan = scanner.scan(&pending);
            content.extend(pending.drain(..scan.content));
            if scan.end {
                pending.drain(..END.len());
                pending.extend_from_slice(&wire[at..]);
                return (content, Some(pending), scanner);
            }
            if at == wire.len() {
                return (content, None, scanner);
            }
        }
        unreachable!()
    }

    /// The smuggling matrix: every pair of line ends around a lone dot. Only the true one ends data, and every other is a
    /// fault.
    #[test]
    fn only_crlf_dot_crlf_ends_data() {
        for before in ["\n", "\r", "\r\n", "\n\r", "\r\r\n", "\r\n\0"] {
            for after in ["\n", "\r", "\r\n", "\r\r\n", "\0\r\n", "\n\r", "\r\0\n"] {
                let wire = format!("text{before}.{after}MAIL FROM:<a@b>\r\n.\r\nrest");
                for size in [1, 2, 3, 1000] {
                    let (content, rest, scanner) = feed(wire.as_bytes(), &vec![size; wire.len()]);
                    if (before, after) == ("\r\n", "\r\n") || (before, after) == ("\r\r\n", "\r\n") {
                        assert!(rest.unwrap().starts_with(b"MAIL"));
                        assert_eq!(scanner.fault().is_some(), before == "\r\r\n");
                    } else {
                        assert_eq!(rest.as_deref(), Some(&b"rest"[..]), "{wire:?}");
                        assert!(content.ends_with(b"MAIL FROM:<a@b>\r\n"));
                        // Behind a NUL the dot does not begin a line for anybody.
                        let harmless = before.ends_with('\0');
                        assert!(scanner.fault().is_some() || harmless, "{wire:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn empty_message_and_leading_dots() {
        let (content, rest, _) = feed(b".\r\nQUIT\r\n", &[]);
        assert_eq!((content.len(), rest.unwrap().as_slice()), (0, &b"QUIT\r\n"[..]));
        let (content, _, scanner) = feed(b"..\r\n..a\r\n.b\r\n.\r\n", &[]);
        assert_eq!(content, b"..\r\n..a\r\n.b\r\n");
        assert_eq!(scanner.stuffed(), 3);
        let mut out = Vec::new();
        Unstuffer::default().push(&content, &mut out);
        assert_eq!(out, b".\r\n.a\r\nb\r\n");
    }

    #[test]
    fn long_lines_are_measured() {
        let mut scanner = DataScanner::new(10);
        scanner.scan(b"0123456789\r\n01234");
        scanner.scan(b"56789\r\n");
        assert!(!scanner.line_too_long());
        scanner.scan(b"012345");
        scanner.scan(b"67890");
        assert!(scanner.line_too_long());
    }

    fn octets() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(b"\r\n..a\0".to_vec()), 0..60)
    }

    /// Octets whose line ends are all CRLF and that end in one.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec("[.ab]{0,4}", 0..12)
            .prop_map(|lines| lines.iter().flat_map(|l| format!("{l}\r\n").into_bytes()).collect())
    }

    /// The definition, written the slow way.
    fn reference_end(wire: &[u8]) -> Option<usize> {
        (0..wire.len()).find(|i| wire[*i..].starts_with(END) && (*i == 0 || wire[..*i].ends_with(b"\r\n")))
    }

    fn reference_fault(content: &[u8]) -> bool {
        (0..content.len()).any(|i| match content[i] {
            b'\r' => content.get(i + 1).is_some_and(|b| *b != b'\n'),
            b'\n' => i == 0 || content[i - 1] != b'\r',
            _ => false,
        })
    }

    fn reference_dot_nul(content: &[u8]) -> bool {
        content.starts_with(b".\0") || memchr::memmem::find(content, b"\r\n.\0").is_some()
    }

    proptest! {
        #[test]
        fn any_octets_in_any_chunks(wire in octets(), sizes in prop::collection::vec(0usize..7, 0..60)) {
            let (content, rest, scanner) = feed(&wire, &sizes);
            match reference_end(&wire) {
                Some(end) => {
                    prop_assert_eq!(&content, &wire[..end]);
                    prop_assert_eq!(rest.unwrap(), &wire[end + 3..]);
                    prop_assert_eq!(scanner.fault().is_some(), reference_fault(&content) || reference_dot_nul(&content));
                }
                None => {
                    prop_assert!(rest.is_none() && wire.starts_with(&content) && wire.len() - content.len() <= 2);
                }
            }
        }

        #[test]
        fn stuffing_is_undone(message in message(), sizes in prop::collection::vec(0usize..7, 0..60)) {
            let (mut stuffer, mut wire, mut rest) = (Stuffer::default(), Vec::new(), &message[..]);
            for size in &sizes {
                let (now, later) = rest.split_at((*size).min(rest.len()));
                stuffer.push(now, &mut wire);
                rest = later;
            }
            stuffer.push(rest, &mut wire);
            stuffer.finish(&mut wire);
            let (content, rest, scanner) = feed(&wire, &sizes);
            prop_assert!(rest.unwrap().is_empty() && scanner.fault().is_none());
            prop_assert_eq!(wire.len() as u64, message.len() as u64 + scanner.stuffed() + 3);
            let (mut unstuffer, mut out, mut left) = (Unstuffer::default(), Vec::new(), &content[..]);
            // Chunks as the scanner gives them: never divided within CRLF.
            for size in &sizes {
                let mut cut = (*size).min(left.len());
                if left[..cut].ends_with(b"\r") { cut -= 1; }
                unstuffer.push(&left[..cut], &mut out);
                left = &left[cut..];
            }
            unstuffer.push(left, &mut out);
            prop_assert_eq!(out, message);
        }

        #[test]
        fn normalized_octets_have_no_fault(input in octets(), sizes in prop::collection::vec(0usize..7, 0..60)) {
            let (mut normalizer, mut out, mut scanner, mut rest) =
                (Normalizer::default(), Vec::new(), LineEndScanner::default(), &input[..]);
            for size in &sizes {
                let (now, later) = rest.split_at((*size).min(rest.len()));
                normalizer.push(now, &mut out);
                scanner.scan(now);
                rest = later;
            }
            normalizer.push(rest, &mut out);
            scanner.scan(rest);
            normalizer.finish(&mut out);
            let mut after = LineEndScanner::default();
            after.scan(&out);
            prop_assert_eq!(after.finish(), None);
            let strict = reference_fault(&input) || input.ends_with(b"\r");
            prop_assert_eq!(scanner.finish().is_some(), strict);
            if !strict {
                prop_assert_eq!(out, input);
            }
        }
    }
}
