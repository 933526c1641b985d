//! One column of a chunk: the values of one attribute in many entries.
//!
//! Values of an address list repeat one another, and repeat other attributes of the same entry: `cn` is
//! `givenName` and `sn`, `mail` begins with `uid`, telephone numbers differ in their digits. Said once, what
//! is left costs about a third of what a general compressor makes of the values themselves.
//!
//! FORMAT
//!   ```text
//!   column = pieces, mask, stream for each bit set in the mask, lowest first
//!   pieces = count (at most 8), then for each: source, part, case (an octet each but source, an integer)
//!   ```
//!   The streams, by bit of the mask:
//!   0 *form*, an integer for each value: 0 a new pattern, 1 new octets, 2 an entry, 3 + n the pattern or the
//!   octets that came n-th in this column, counted from 0. 1 *length* and 2 *text*, for each new pattern or
//!   octets. 3 *entry*, for each entry whose DN is the value: the distance of its number from the one before
//!   in this column, at first from 0. 4 to 7 *digits*: those of the first to fourth run of digits that a value's
//!   pattern names, without lengths.
//!
//!   A *pattern* is the text of the value, in which an octet below 0x20 stands for something else: 0x01 to
//!   0x08 for piece 1 to 8; 0x10 to 0x1f for 1 to 16 digits, to be read from the digits' streams.
//!   A value that itself has an octet below 0x20 is never a pattern.
//!
//!   A *piece* is a part of another value of the same entry: source 0 is the value of its RDN (what
//!   follows the first `=`), source n + 1 the first value in the n-th column of the chunk, which stands
//!   before this one, unless that value is an entry. Part: 0 the whole, 1 the first word, 2 the second, 3 the last, 4 all that follows the
//!   first word and one octet more, of a value of at most 255 octets (else nothing); a word is a run of ASCII letters and octets above 0x7f. Case: 0 as it is, 1 ASCII
//!   letters small, 2 the first octet made an ASCII capital. A piece of what is not there is empty.
//!
//! LIMITS
//!   The expansion of patterns is counted against the chunk's budget before it is made.

use std::borrow::Cow;
use std::collections::HashMap;

use memchr::memmem;

use super::Malformed;
use super::stream::{Reader, put, put_distance, put_stream};
use crate::limits::VALUE_BYTES_MAX;

/// A value as a transfer carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Octets(Vec<u8>),
    /// The DN of the entry with this number in the transfer.
    Entry(u64),
}

/// The values of one column, with the record that each belongs to; records ascend.
#[derive(Clone, Debug, Default)]
pub struct Column {
    pub records: Vec<u32>,
    pub values: Vec<Value>,
}

/// What pieces may be taken from: the RDN's value of each record, and the columns before.
#[derive(Clone, Copy, Default)]
pub struct Sources<'s> {
    pub names: &'s [Vec<u8>],
    pub columns: &'s [Column],
}

/// Octets that a chunk may still expand to.
pub type Budget = usize;

impl Column {
    pub fn push(&mut self, record: u32, value: Value) {
        self.records.push(record);
        self.values.push(value);
    }

    /// Writes the column; `sources` are those that stand before it.
    pub fn write(&self, out: &mut Vec<u8>, sources: Sources) {
        let pieces = choose(self, sources);
        put(out, pieces.len() as u64);
        for piece in &pieces {
            put(out, piece.source as u64);
            out.extend([piece.part, piece.case]);
        }
        let mut writer = Writer::default();
        for (&record, value) in self.records.iter().zip(&self.values) {
            match value {
                Value::Entry(number) => writer.entry(*number),
                Value::Octets(octets) => writer.octets(octets, &pieces, sources, record),
            }
        }
        writer.finish(out);
    }

    /// Reads a column with one value for each of `records`.
    pub fn read(
        input: &mut Reader,
        records: Vec<u32>,
        sources: Sources,
        budget: &mut Budget,
    ) -> Result<Column, Malformed> {
        let mut pieces = [Piece::default(); PIECES_MAX];
        let count = input.count(PIECES_MAX)?;
        for piece in &mut pieces[..count] {
            *piece = Piece {
                source: input.count(sources.columns.len())?,
                part: input.octet()?,
                case: input.octet()?,
            };
            if piece.part >= PARTS || piece.case >= CASES {
                return Err(Malformed("a piece of an unknown kind"));
            }
        }
        let mask = input.octet()?;
        let mut expansion = Expansion { pieces: &pieces[..count], sources, ..Expansion::default() };
        for (bit, stream) in expansion.streams.iter_mut().enumerate() {
            if mask & (1 << bit) != 0 {
                *stream = input.stream()?;
            }
        }
        let mut values = Vec::with_capacity(records.len());
        for &record in &records {
            values.push(expansion.value(record, budget)?);
        }
        expansion.streams.iter().try_for_each(Reader::end)?;
        Ok(Column { records, values })
    }

    fn first(&self, record: u32) -> Option<&[u8]> {
        let at = self.records.partition_point(|&before| before < record);
        match (self.records.get(at), self.values.get(at)) {
            (Some(&found), Some(Value::Octets(octets))) if found == record => Some(octets),
            _ => None,
        }
    }
}

/// A part of another value of the same entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Piece {
    source: usize,
    part: u8,
    case: u8,
}

impl Piece {
    fn of<'s>(&self, sources: Sources<'s>, record: u32) -> Cow<'s, [u8]> {
        let source = match self.source.checked_sub(1) {
            None => sources.names.get(record as usize).map(Vec::as_slice),
            Some(column) => sources.columns.get(column).and_then(|column| column.first(record)),
        };
        let source = source.filter(|source| source.len() <= SOURCE_BYTES_MAX);
        let part = part(source.unwrap_or_default(), self.part);
        match self.case {
            1 if part.iter().any(u8::is_ascii_uppercase) => Cow::Owned(part.to_ascii_lowercase()),
            2 if part.first().is_some_and(u8::is_ascii_lowercase) => {
                let mut capitalized = part.to_vec();
                capitalized[0].make_ascii_uppercase();
                Cow::Owned(capitalized)
            }
            _ => Cow::Borrowed(part),
        }
    }
}

const PARTS: u8 = 5;
const CASES: u8 = 3;
const PIECES_MAX: usize = 8;

/// A longer value is no source: its words would cost more to find than they save.
const SOURCE_BYTES_MAX: usize = 255;

fn part(octets: &[u8], part: u8) -> &[u8] {
    let is_word = |octet: &u8| octet.is_ascii_alphabetic() || *octet >= 0x80;
    let mut words = octets.split(|octet| !is_word(octet)).filter(|word| !word.is_empty());
    match part {
        0 => octets,
        1 => words.next().unwrap_or_default(),
        2 => words.nth(1).unwrap_or_default(),
        3 => words.next_back().unwrap_or_default(),
        _ => {
            let start = octets.iter().position(is_word).unwrap_or(octets.len());
            let end = octets[start..].iter().position(|octet| !is_word(octet));
            end.map_or(&[], |length| &octets[start + length + 1..])
        }
    }
}

const STREAMS: usize = 8;
const FORM: usize = 0;
const LENGTH: usize = 1;
const TEXT: usize = 2;
const ENTRY: usize = 3;
const DIGITS: usize = 4;

const NEW_PATTERN: u64 = 0;
const NEW_OCTETS: u64 = 1;
const AN_ENTRY: u64 = 2;
const KNOWN: u64 = 3;

/// Octets below this stand for something else in a pattern.
const PLAIN: u8 = 0x20;
const FIRST_PIECE: u8 = 0x01;
const FIRST_DIGITS: u8 = 0x10;
const RUN_DIGITS_MAX: usize = 16;
const RUNS_MAX: usize = STREAMS - DIGITS;

/// Writes the streams of a column.
#[derive(Default)]
struct Writer {
    streams: [Vec<u8>; STREAMS],
    /// Patterns so far, by number.
    known: HashMap<Vec<u8>, u64>,
    news: u64,
    entry_before: u64,
    /// Room for the pattern in the making.
    text: Vec<u8>,
}

impl Writer {
    fn entry(&mut self, number: u64) {
        put(&mut self.streams[FORM], AN_ENTRY);
        put_distance(&mut self.streams[ENTRY], number, self.entry_before);
        self.entry_before = number;
    }

    fn octets(&mut self, octets: &[u8], pieces: &[Piece], sources: Sources, record: u32) {
        if !is_plain(octets) {
            self.new_text(NEW_OCTETS, octets);
            return;
        }
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        text.extend_from_slice(octets);
        for (piece, token) in pieces.iter().zip(FIRST_PIECE..) {
            replace(&mut text, &piece.of(sources, record), token);
        }
        take_digits(&mut text, &mut |run, digits| self.streams[DIGITS + run].extend_from_slice(digits));
        match self.known.get(text.as_slice()) {
            Some(known) => put(&mut self.streams[FORM], KNOWN + known),
            None => {
                self.known.insert(text.clone(), self.news);
                self.new_text(NEW_PATTERN, &text);
            }
        }
        self.text = text;
    }

    fn new_text(&mut self, form: u64, text: &[u8]) {
        put(&mut self.streams[FORM], form);
        put(&mut self.streams[LENGTH], text.len() as u64);
        self.streams[TEXT].extend_from_slice(text);
        self.news += 1;
    }

    fn finish(self, out: &mut Vec<u8>) {
        let is_there = |&stream: &usize| !self.streams[stream].is_empty();
        out.push((0..STREAMS).filter(is_there).fold(0, |mask, stream| mask | 1 << stream));
        (0..STREAMS).filter(is_there).for_each(|stream| put_stream(out, &self.streams[stream]));
    }
}

/// Puts a number's length in place of each run of digits and tells which, unless the digits are so scattered that they
/// are not numbers.
pub fn take_digits(text: &mut Vec<u8>, told: &mut dyn FnMut(usize, &[u8])) {
    if !text.iter().any(u8::is_ascii_digit) {
        return;
    }
    let runs = || text.chunk_by(|a, b| a.is_ascii_digit() && b.is_ascii_digit());
    let digits = || runs().filter(|run| run[0].is_ascii_digit());
    if digits().count() > RUNS_MAX || digits().any(|run| run.len() > RUN_DIGITS_MAX) {
        return;
    }
    let (mut kept, mut at, mut number) = (0, 0, 0);
    while at < text.len() {
        let run = text[at..].iter().take_while(|octet| octet.is_ascii_digit()).count();
        if run == 0 {
            text[kept] = text[at];
            at += 1;
        } else {
            told(number, &text[at..at + run]);
            number += 1;
            text[kept] = FIRST_DIGITS + (run - 1) as u8;
            at += run;
        }
        kept += 1;
    }
    text.truncate(kept);
}

/// Whether a value is written as a pattern: short text.
pub fn is_plain(octets: &[u8]) -> bool {
    octets.len() <= PATTERN_BYTES_MAX && octets.iter().all(|&octet| octet >= PLAIN)
}

/// Longer values are written as they are: to look for pieces in them costs more than it saves.
const PATTERN_BYTES_MAX: usize = 1024;

/// Replaces the first `piece` in `text` by `token`; says how many octets that saves.
fn replace(text: &mut Vec<u8>, piece: &[u8], token: u8) -> usize {
    if piece.len() < PIECE_BYTES_MIN || piece.iter().any(|&octet| octet < PLAIN) {
        return 0;
    }
    let Some(at) = memmem::find(text, piece) else { return 0 };
    text[at] = token;
    text.drain(at + 1..at + piece.len());
    piece.len() - 1
}

/// A shorter piece would be found by chance, where it means nothing.
const PIECE_BYTES_MIN: usize = 2;

/// The pieces that make the most of a sample of the column, best first.
fn choose(column: &Column, sources: Sources) -> Vec<Piece> {
    let mut sample: Vec<(u32, Vec<u8>)> = Vec::new();
    let step = column.values.len().div_ceil(SAMPLE).max(1);
    for (&record, value) in column.records.iter().zip(&column.values).step_by(step) {
        match value {
            Value::Octets(text) if text.iter().all(|&octet| octet >= PLAIN) => {
                sample.push((record, text.clone()))
            }
            _ => {}
        }
    }
    let parts =
        |source| (0..PARTS).flat_map(move |part| (0..CASES).map(move |case| Piece { source, part, case }));
    let mut candidates: Vec<Piece> = (0..=sources.columns.len()).flat_map(parts).collect();
    let mut chosen = Vec::new();
    while chosen.len() < PIECES_MAX {
        // Only what saves something now can save something later, for the sample only gets shorter.
        let mut best = (0, Piece::default());
        candidates.retain(|piece| {
            let mut hits = 0;
            let mut saved = 0;
            for (record, text) in &sample {
                let piece = piece.of(sources, *record);
                if piece.len() >= PIECE_BYTES_MIN && memmem::find(text, &piece).is_some() {
                    hits += 1;
                    saved += piece.len() - 1;
                }
            }
            if saved > best.0 && hits * RARE >= sample.len() {
                best = (saved, *piece);
            }
            saved > 0
        });
        let (saved, piece) = best;
        if saved * step < PIECE_COST_BYTES {
            break;
        }
        for (record, text) in &mut sample {
            replace(text, &piece.of(sources, *record), FIRST_PIECE);
        }
        chosen.push(piece);
    }
    chosen
}

/// Values that are looked at to choose the pieces.
const SAMPLE: usize = 48;

/// A piece found in fewer than one of this many values makes more patterns than it saves octets.
const RARE: usize = 10;

/// A piece costs three octets to name, and as many compressed.
const PIECE_COST_BYTES: usize = 8;

/// Reads the streams of a column.
#[derive(Default)]
struct Expansion<'s> {
    pieces: &'s [Piece],
    sources: Sources<'s>,
    streams: [Reader<'s>; STREAMS],
    /// Texts so far, and whether each is a pattern.
    news: Vec<(&'s [u8], bool)>,
    entry_before: u64,
}

impl Expansion<'_> {
    fn value(&mut self, record: u32, budget: &mut Budget) -> Result<Value, Malformed> {
        let form = self.streams[FORM].number()?;
        let (text, is_pattern) = match form {
            AN_ENTRY => {
                self.entry_before = self.streams[ENTRY].distance(self.entry_before)?;
                return Ok(Value::Entry(self.entry_before));
            }
            NEW_PATTERN | NEW_OCTETS => {
                let length = self.streams[LENGTH].count(VALUE_BYTES_MAX)?;
                let new = (self.streams[TEXT].octets(length)?, form == NEW_PATTERN);
                self.news.push(new);
                new
            }
            known => {
                let known = usize::try_from(known - KNOWN).ok().and_then(|known| self.news.get(known));
                *known.ok_or(Malformed("a value repeats one that was not there"))?
            }
        };
        if !is_pattern {
            spend(budget, text.len())?;
            return Ok(Value::Octets(text.to_vec()));
        }
        self.expand(text, record, budget).map(Value::Octets)
    }

    fn expand(&mut self, pattern: &[u8], record: u32, budget: &mut Budget) -> Result<Vec<u8>, Malformed> {
        // An empty piece costs its token too, or patterns could be expanded without end.
        spend(budget, pattern.len())?;
        let mut octets = Vec::with_capacity(pattern.len() + 16);
        let mut run = DIGITS;
        for &octet in pattern {
            if octet >= PLAIN {
                octets.push(octet);
            } else if octet >= FIRST_DIGITS {
                let stream =
                    self.streams.get_mut(run).ok_or(Malformed("a value with too many runs of digits"))?;
                let digits = stream.octets(usize::from(octet - FIRST_DIGITS) + 1)?;
                if !digits.iter().all(u8::is_ascii_digit) {
                    return Err(Malformed("a digit is none"));
                }
                octets.extend_from_slice(digits);
                run += 1;
            } else {
                let piece = usize::from(octet).checked_sub(1).and_then(|piece| self.pieces.get(piece));
                let piece = piece.ok_or(Malformed("a pattern names a piece that is not there"))?;
                let piece = piece.of(self.sources, record);
                if octets.len() + piece.len() > VALUE_BYTES_MAX {
                    return Err(Malformed("a value is too long"));
                }
                octets.extend_from_slice(&piece);
            }
        }
        spend(budget, octets.len().saturating_sub(pattern.len()))?;
        Ok(octets)
    }
}

fn spend(budget: &mut Budget, octets: usize) -> Result<(), Malformed> {
    *budget = budget.checked_sub(octets).ok_or(Malformed("a chunk expands beyond its bound"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_value() {
        for (text, parts) in [
            ("Anna van den Berg", ["Anna van den Berg", "Anna", "van", "Berg", "van den Berg"]),
            ("j.smith3", ["j.smith3", "j", "smith", "smith", "smith3"]),
            ("Łukasz", ["Łukasz", "Łukasz", "", "Łukasz", ""]),
            ("  x", ["  x", "x", "", "x", ""]),
            ("", [""; 5]),
        ] {
            for (code, expected) in (0..PARTS).zip(parts) {
                assert_eq!(std::str::from_utf8(part(text.as_bytes(), code)), Ok(expected), "{text} {code}");
            }
        }
    }

    #[test]
    fn an_expansion_is_counted_before_it_is_kept() {
        let mut column = Column::default();
        (0..1000).for_each(|record| column.push(record, Value::Octets(vec![b'x'; 1000])));
        let mut out = Vec::new();
        column.write(&mut out, Sources::default());
        assert!(out.len() < 2100, "{}", out.len());
        let read = |mut budget: Budget| {
            Column::read(&mut Reader::new(&out), (0..1000).collect(), Sources::default(), &mut budget)
        };
        assert!(read(1_000_000).is_ok());
        assert!(read(999_999).is_err());
    }

    #[test]
    fn a_piece_comes_only_from_a_column_before() {
        // One piece of source 1, in the first column.
        let mut budget = 100;
        let read =
            Column::read(&mut Reader::new(&[1, 1, 0, 0, 0]), Vec::new(), Sources::default(), &mut budget);
        assert!(read.is_err());
    }
}
