//! Physical lines to logical ones: folding undone, comments dropped, lengths bounded.

use std::io::{BufRead, Read};

use super::{Fault, LdifError};
use crate::limits::LDIF_LINE_BYTES_MAX;

pub struct Lines<R> {
    input: R,
    /// Physical lines read.
    read: u64,
    /// The logical line last read, without its end.
    pub text: Vec<u8>,
    /// Where it began.
    pub number: u64,
}

impl<R: BufRead> Lines<R> {
    pub fn new(input: R) -> Self {
        Lines { input, read: 0, text: Vec::new(), number: 0 }
    }

    /// Reads the next logical line that is no comment into `text`; false at the end of the file. An
    /// empty line is empty.
    pub fn advance(&mut self) -> Result<bool, LdifError> {
        loop {
            self.text.clear();
            self.number = self.read + 1;
            if !self.physical()? {
                return Ok(false);
            }
            if self.number == 1 && self.text.starts_with(BYTE_ORDER_MARK) {
                self.text.drain(..BYTE_ORDER_MARK.len());
            }
            if self.text.first() == Some(&b' ') {
                return Err(self.error(Fault::ContinuesNothing));
            }
            let empty = self.text.is_empty();
            while !empty && self.next_octet()? == Some(b' ') {
                self.input.consume(1);
                self.physical()?;
            }
            if self.text.first() != Some(&b'#') {
                return Ok(true);
            }
        }
    }

    pub fn error(&self, reason: Fault) -> LdifError {
        LdifError { line: self.number, reason }
    }

    fn next_octet(&mut self) -> Result<Option<u8>, LdifError> {
        loop {
            match self.input.fill_buf() {
                Ok(buffer) => return Ok(buffer.first().copied()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LdifError { line: self.read + 1, reason: error.into() }),
            }
        }
    }

    /// Appends one physical line to `text`; false at the end of the file.
    fn physical(&mut self) -> Result<bool, LdifError> {
        let room = (LDIF_LINE_BYTES_MAX + 2).saturating_sub(self.text.len()) as u64;
        let read = Read::by_ref(&mut self.input).take(room).read_until(b'\n', &mut self.text);
        if read.map_err(|error| self.error(error.into()))? == 0 {
            return Ok(false);
        }
        self.read += 1;
        if self.text.last() == Some(&b'\n') {
            self.text.pop();
            if self.text.last() == Some(&b'\r') {
                self.text.pop();
            }
        }
        if self.text.len() > LDIF_LINE_BYTES_MAX { Err(self.error(Fault::LineTooLong)) } else { Ok(true) }
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
