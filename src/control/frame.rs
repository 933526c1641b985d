//! Frames on the control socket: what a command asks, and what it is told.
//!
//! A frame is one kind octet, a length (four octets, big endian) and that many octets. The command
//! sends `Operation`, then any number of `Input`, then `End`. The daemon answers with `Output` and
//! `Error` (for standard output and standard error) and last with `Exit`, one octet: the exit status.
//!
//! LIMITS
//!   A frame carries at most 64 KiB; a longer one ends the conversation.

use std::io::{self, Read, Write};

pub const FRAME_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Operation,
    Input,
    End,
    Output,
    Error,
    Exit,
}

const KINDS: [(Kind, u8); 6] = [
    (Kind::Operation, b'?'),
    (Kind::Input, b'<'),
    (Kind::End, b'.'),
    (Kind::Output, b'>'),
    (Kind::Error, b'!'),
    (Kind::Exit, b'='),
];

/// Writes one frame. `octets` is at most [`FRAME_BYTES_MAX`] long.
pub fn write(to: &mut impl Write, kind: Kind, octets: &[u8]) -> io::Result<()> {
    debug_assert!(octets.len() <= FRAME_BYTES_MAX);
    let octet = KINDS.iter().find(|(known, _)| *known == kind).expect("every kind is listed").1;
    to.write_all(&[octet])?;
    to.write_all(&(octets.len() as u32).to_be_bytes())?;
    to.write_all(octets)
}

pub fn read(from: &mut impl Read) -> io::Result<(Kind, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let kind = KINDS.iter().find(|(_, octet)| *octet == head[0]).ok_or_else(|| broken("unknown frame"))?.0;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(broken("frame too long"));
    }
    let mut octets = vec![0; length];
    from.read_exact(&mut octets)?;
    Ok((kind, octets))
}

/// A writer whose octets leave as frames of one kind.
pub struct FrameWriter<W> {
    to: W,
    kind: Kind,
    pending: Vec<u8>,
}

impl<W: Write> FrameWriter<W> {
    pub fn new(to: W, kind: Kind) -> Self {
        FrameWriter { to, kind, pending: Vec::new() }
    }
}

impl<W: Write> Write for FrameWriter<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let taken = octets.len().min(FRAME_BYTES_MAX - self.pending.len());
        self.pending.extend_from_slice(&octets[..taken]);
        if self.pending.len() == FRAME_BYTES_MAX {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            write(&mut self.to, self.kind, &self.pending)?;
            self.pending.clear();
        }
        self.to.flush()
    }
}

/// A reader over the `Input` frames up to `End`.
pub struct InputReader<R> {
    from: R,
    pending: io::Cursor<Vec<u8>>,
    ended: bool,
}

impl<R: Read> InputReader<R> {
    pub fn new(from: R) -> Self {
        InputReader { from, pending: io::Cursor::new(Vec::new()), ended: false }
    }
}

impl<R: Read> Read for InputReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.pending.read(into)?;
            if read > 0 || self.ended || into.is_empty() {
                return Ok(read);
            }
            match read_input(&mut self.from)? {
                Some(octets) => self.pending = io::Cursor::new(octets),
                None => self.ended = true,
            }
        }
    }
}

fn read_input(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    match read(from)? {
        (Kind::Input, octets) => Ok(Some(octets)),
        (Kind::End, _) => Ok(None),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a frame out of turn")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut wire = Vec::new();
        let sent: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        let mut writer = FrameWriter::new(&mut wire, Kind::Input);
        writer.write_all(&sent).unwrap();
        writer.flush().unwrap();
        write(&mut wire, Kind::End, &[]).unwrap();
        let mut received = Vec::new();
        InputReader::new(&wire[..]).read_to_end(&mut received).unwrap();
        assert_eq!(received, sent);
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_before_anything_is_allocated() {
        let claim = [b'<', 0xff, 0xff, 0xff, 0xff];
        assert_eq!(read(&mut &claim[..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(&mut &b"GET / HTTP/1.0"[..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
