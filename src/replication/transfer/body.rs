//! The body of a transfer as it travels: chunks in one zstd frame.
//!
//! FORMAT
//!   One zstd frame (RFC 8878) without checksum, of a window of at most 2^[`WINDOW_LOG`] octets; in it
//!   chunks, the last of kind 0. Nothing follows the frame. If the manifest names a dictionary, the frame is compressed
//!   with that as raw content and without a dictionary id.
//!
//! LIMITS
//!   The frame expands to at most [`EXPANSION_BYTES_FREE`] octets and [`EXPANSION_MAX`] times its own
//!   length; a chunk is bounded before it is gathered. The frame is checked by the transfer's id, its
//!   meaning by the state digest; hence no checksum.
//!
//! FAILURE
//!   [`Malformed`]: the sender's fault.

use zstd::stream::raw::{CParameter, DParameter, Operation};

use super::Malformed;
use super::chunk::{CHUNK_BYTES_MAX, Chunk, NameOf};
use super::dictionary::RUN_BYTES_MAX;
use super::stream::Reader;
use crate::directory::StoreError;

/// Window of the frame: people in one place resemble one another over some thousand entries.
pub const WINDOW_LOG: u32 = 23;

/// What any frame may expand to.
pub const EXPANSION_BYTES_FREE: u64 = 2 * CHUNK_BYTES_MAX as u64;

/// How many octets one octet of a frame may become beyond that.
pub const EXPANSION_MAX: u64 = 2048;

/// Octets up to which a body is compressed in one go, as well as can be; beyond, as fast as disks write.
const SMALL_BYTES: usize = 512 << 10;
const SMALL_LEVEL: i32 = 19;
const LEVEL: i32 = 6;

/// Writes chunks into a frame.
pub struct BodyWriter {
    /// What is not compressed yet.
    pending: Vec<u8>,
    frame: Option<zstd::stream::write::Encoder<'static, Vec<u8>>>,
}

impl BodyWriter {
    pub fn new() -> BodyWriter {
        BodyWriter { pending: Vec::new(), frame: None }
    }

    pub fn chunk(&mut self, chunk: Chunk, name_of: NameOf) -> Result<(), StoreError> {
        chunk.write(&mut self.pending, name_of);
        if self.pending.len() < SMALL_BYTES && self.frame.is_none() {
            return Ok(());
        }
        let mut write = || {
            if self.frame.is_none() {
                let mut frame = zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?;
                frame.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
                self.frame = Some(frame);
            }
            if let Some(frame) = &mut self.frame {
                std::io::Write::write_all(frame, &self.pending)?;
            }
            std::io::Result::Ok(())
        };
        write().map_err(failed)?;
        self.pending.clear();
        Ok(())
    }

    /// Ends the body and gives the frame, and whether the dictionary was used, which is then needed to read it: where
    /// it saves more than the octets that it costs to name.
    pub fn finish(mut self, dictionary: &[u8]) -> Result<(Vec<u8>, bool), StoreError> {
        self.chunk(Chunk::End, &|_| Vec::new())?;
        if let Some(frame) = self.frame {
            return Ok((frame.finish().map_err(failed)?, false));
        }
        let plain = zstd::bulk::compress(&self.pending, SMALL_LEVEL).map_err(failed)?;
        if dictionary.is_empty() {
            return Ok((plain, false));
        }
        let compressor = zstd::bulk::Compressor::with_dictionary(SMALL_LEVEL, dictionary);
        let with = compressor.and_then(|mut with| with.compress(&self.pending)).map_err(failed)?;
        let pays = with.len() + RUN_BYTES_MAX < plain.len();
        Ok(if pays { (with, true) } else { (plain, false) })
    }
}

/// Compression fails for want of memory only: this machine's fault.
fn failed(error: std::io::Error) -> StoreError {
    StoreError::Failed(format!("compression: {error}"))
}

/// Reads chunks out of a frame that comes piece by piece.
pub struct BodyReader {
    frame: zstd::stream::raw::Decoder<'static>,
    piece: Vec<u8>,
    piece_read: usize,
    /// Octets of the frame so far, and what they became.
    taken: u64,
    expanded: u64,
    frame_ended: bool,
    /// Expanded and not yet read.
    buffer: Vec<u8>,
    ended: bool,
}

/// Gives the next octets of a frame, or `None` at its end.
pub type Pieces<'p> = dyn FnMut() -> Result<Option<Vec<u8>>, StoreError> + 'p;

/// Why no chunk comes.
#[derive(Debug)]
pub enum BodyError {
    Malformed(Malformed),
    Store(StoreError),
}

impl BodyReader {
    /// `dictionary`: that of the manifest; empty if it names none.
    pub fn new(dictionary: &[u8]) -> Result<BodyReader, StoreError> {
        let mut frame = zstd::stream::raw::Decoder::with_dictionary(dictionary).map_err(failed)?;
        frame.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)).map_err(failed)?;
        Ok(BodyReader {
            frame,
            piece: Vec::new(),
            piece_read: 0,
            taken: 0,
            expanded: 0,
            frame_ended: false,
            buffer: Vec::new(),
            ended: false,
        })
    }

    /// The next chunk's kind and octets, or `None` after the last.
    pub fn next(&mut self, pieces: &mut Pieces) -> Result<Option<(u8, Vec<u8>)>, BodyError> {
        if self.ended {
            return Ok(None);
        }
        loop {
            let chunk = self.first_chunk()?;
            if let Some((kind, start, end)) = chunk.filter(|(.., end)| *end <= self.buffer.len()) {
                // A chunk may be large: it leaves in the buffer that it was gathered in.
                let rest = self.buffer.split_off(end);
                let mut octets = std::mem::replace(&mut self.buffer, rest);
                octets.drain(..start);
                self.ended = kind == 0;
                if self.ended {
                    self.end(pieces)?;
                }
                return Ok(Some((kind, octets)));
            }
            // Room at once: a buffer that grows by moving is held twice. What is never filled costs nothing.
            let missing = chunk.map_or(0, |(.., end)| end - self.buffer.len());
            self.buffer.reserve_exact(missing + ROOM);
            if !self.expand(pieces)? {
                return Err(Malformed("the body ends within a chunk").into());
            }
        }
    }

    /// Octets of the frame that were read.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Kind, start and end of the chunk that begins the buffer, whole or not, once its head is there.
    fn first_chunk(&self) -> Result<Option<(u8, usize, usize)>, Malformed> {
        // A kind and the longest length.
        let head_is_whole =
            self.buffer.len() > 10 || self.buffer.iter().skip(1).any(|octet| octet & 0x80 == 0);
        if !head_is_whole {
            return Ok(None);
        }
        let mut reader = Reader::new(&self.buffer);
        let kind = reader.octet()?;
        let length = reader.count(CHUNK_BYTES_MAX)?;
        let start = self.buffer.len() - reader.left();
        Ok(Some((kind, start, start + length)))
    }

    /// Expands some more; `false` at the end of the frame.
    fn expand(&mut self, pieces: &mut Pieces) -> Result<bool, BodyError> {
        if self.frame_ended {
            return Ok(false);
        }
        if self.piece_read == self.piece.len() {
            let Some(piece) = pieces()? else { return Ok(false) };
            self.piece = piece;
            self.piece_read = 0;
        }
        let mut room = [0; ROOM];
        let status = self.frame.run_on_buffers(&self.piece[self.piece_read..], &mut room);
        let status = status.map_err(|_| Malformed("the body is not a zstd frame of a bounded window"))?;
        self.piece_read += status.bytes_read;
        self.taken += status.bytes_read as u64;
        self.expanded += status.bytes_written as u64;
        if self.expanded > EXPANSION_BYTES_FREE + self.taken * EXPANSION_MAX {
            return Err(Malformed("the body expands beyond its bound").into());
        }
        self.buffer.extend_from_slice(&room[..status.bytes_written]);
        self.frame_ended = status.remaining == 0;
        Ok(true)
    }

    /// Nothing may follow the last chunk or the frame.
    fn end(&mut self, pieces: &mut Pieces) -> Result<(), BodyError> {
        while self.buffer.is_empty() && self.expand(pieces)? {}
        let is_over = self.buffer.is_empty()
            && self.frame_ended
            && self.piece_read == self.piece.len()
            && pieces()?.is_none();
        if is_over { Ok(()) } else { Err(Malformed("octets follow the end of the body").into()) }
    }
}

const ROOM: usize = 64 << 10;

impl From<Malformed> for BodyError {
    fn from(error: Malformed) -> BodyError {
        BodyError::Malformed(error)
    }
}

impl From<StoreError> for BodyError {
    fn from(error: StoreError) -> BodyError {
        BodyError::Store(error)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::directory::memory::MemoryStore;
    use crate::replication::parts::Source as _;

    fn written(chunks: &[Chunk]) -> Vec<u8> {
        let mut writer = BodyWriter::new();
        chunks.iter().for_each(|chunk| writer.chunk(chunk.clone(), &|_| Vec::new()).unwrap());
        writer.finish(b"").unwrap().0
    }

    fn read(body: &[u8]) -> Result<Vec<Chunk>, BodyError> {
        read_with(body, b"")
    }

    fn read_with(mut body: &[u8], dictionary: &[u8]) -> Result<Vec<Chunk>, BodyError> {
        let store = MemoryStore::new();
        let mut reader = BodyReader::new(dictionary).unwrap();
        let mut chunks = Vec::new();
        while let Some((kind, octets)) = reader.next(&mut || body.next(&store))? {
            chunks.push(Chunk::read(kind, &octets, &|_| Vec::new())?);
        }
        Ok(chunks)
    }

    fn bases(count: u128) -> Chunk {
        Chunk::Bases((0..count).map(|n| Uuid::from_u128(n * 0x1234_5678_9abc_def1)).collect())
    }

    #[test]
    fn chunks_come_out_as_they_went_in() {
        for count in [1, 100] {
            let chunks: Vec<Chunk> = (0..count).map(|_| bases(1000)).collect();
            let mut out = read(&written(&chunks)).unwrap();
            assert_eq!(out.pop(), Some(Chunk::End));
            assert_eq!(out, chunks);
        }
    }

    #[test]
    fn a_dictionary_is_used_where_it_pays_and_needed_then() {
        let dictionary: Vec<u8> = (0..64u8).flat_map(|n| Uuid::from_u128(n.into()).into_bytes()).collect();
        let alike = Chunk::Bases((20..40).map(Uuid::from_u128).collect());
        for (chunk, pays) in [(alike, true), (bases(1), false), (Chunk::Deleted(vec![1, 2, 3]), false)] {
            let mut writer = BodyWriter::new();
            writer.chunk(chunk.clone(), &|_| Vec::new()).unwrap();
            let (body, used) = writer.finish(&dictionary).unwrap();
            assert_eq!(used, pays, "{chunk:?}");
            assert_eq!(read_with(&body, if used { &dictionary } else { b"" }).unwrap(), [chunk, Chunk::End]);
            assert!(!used || read(&body).is_err());
        }
    }

    #[test]
    fn a_body_that_is_cut_or_followed_is_refused() {
        let whole = written(&[bases(9)]);
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length}");
        }
        let twice = [&whole[..], &whole[..]].concat();
        assert!(read(&twice).is_err());
        assert!(read(&[&whole[..], b"x"].concat()).is_err());
        let mut after_end = Vec::new();
        Chunk::End.write(&mut after_end, &|_| Vec::new());
        bases(1).write(&mut after_end, &|_| Vec::new());
        assert!(read(&zstd::bulk::compress(&after_end, 1).unwrap()).is_err());
    }

    #[test]
    fn a_bomb_is_refused_before_it_expands() {
        // A chunk that claims more than a chunk may have.
        let mut claim = vec![1];
        super::super::stream::put(&mut claim, CHUNK_BYTES_MAX as u64 + 1);
        assert!(matches!(read(&zstd::bulk::compress(&claim, 1).unwrap()), Err(BodyError::Malformed(_))));
        // A gigabyte of nothing in chunks that are each allowed.
        let mut frame = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        let chunk = [&[9, 0x80, 0x80, 0x40][..], &vec![0; 1 << 20]].concat();
        (0..1024).for_each(|_| std::io::Write::write_all(&mut frame, &chunk).unwrap());
        let body = frame.finish().unwrap();
        let store = MemoryStore::new();
        // A dictionary makes no room.
        for dictionary in [&b""[..], &[0; 32 << 10]] {
            let mut reader = BodyReader::new(dictionary).unwrap();
            let mut source = &body[..];
            let refused =
                std::iter::from_fn(|| Some(reader.next(&mut || source.next(&store)))).find(Result::is_err);
            assert!(matches!(refused, Some(Err(BodyError::Malformed(_)))));
            assert!(reader.expanded < EXPANSION_BYTES_FREE + (1 << 30) / 2);
        }
        // A window beyond the bound.
        let mut frame = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        frame.set_parameter(CParameter::WindowLog(WINDOW_LOG + 1)).unwrap();
        std::io::Write::write_all(&mut frame, &vec![0; 32 << 20]).unwrap();
        assert!(read(&frame.finish().unwrap()).is_err());
    }
}
