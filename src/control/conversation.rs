//! Asking the running daemon: one conversation on its control socket.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::frame::{self, FRAME_BYTES_MAX, FrameWriter, InputReader, Kind};
use super::operation::Operation;

/// A daemon that answered the door.
pub struct Daemon {
    stream: UnixStream,
}

/// Connects to the daemon that listens on `socket`; `None` when there is none.
pub fn connect(socket: &Path) -> io::Result<Option<Daemon>> {
    match UnixStream::connect(socket) {
        Ok(stream) => Ok(Some(Daemon { stream })),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
            _ => Err(error),
        },
    }
}

impl Daemon {
    /// Has the daemon carry out `operation`; what it says goes to `out` and `err`. Returns the exit status.
    pub fn ask(
        self,
        operation: &Operation,
        input: Option<&mut dyn Read>,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> io::Result<u8> {
        let mut to = BufWriter::new(&self.stream);
        let words = serde_json::to_vec(operation)?;
        frame::write(&mut to, Kind::Operation, &words)?;
        if let Some(input) = input {
            let mut frames = FrameWriter::new(&mut to, Kind::Input);
            // A daemon that refuses early stops reading: its answer is worth more than our broken pipe.
            if let Err(error) = io::copy(input, &mut frames).and_then(|_| frames.flush())
                && error.kind() != io::ErrorKind::BrokenPipe
            {
                return Err(error);
            }
        }
        let ended = frame::write(&mut to, Kind::End, &[]).and_then(|()| to.flush());
        if let Err(error) = ended
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(error);
        }
        self.answer(out, err)
    }

    fn answer(&self, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
        let mut from = BufReader::new(&self.stream);
        loop {
            match frame::read(&mut from)? {
                (Kind::Output, octets) => out.write_all(&octets)?,
                (Kind::Error, octets) => err.write_all(&octets)?,
                (Kind::Exit, octets) => {
                    out.flush()?;
                    return Ok(octets.first().copied().unwrap_or(1));
                }
                _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame out of turn")),
            }
        }
    }
}

/// The daemon's side of one conversation: what was asked, the input that comes with it, and where the
/// answer goes.
pub struct Conversation {
    pub operation: Operation,
    pub input: InputReader<BufReader<UnixStream>>,
    pub out: FrameWriter<UnixStream>,
    pub err: FrameWriter<UnixStream>,
    stream: UnixStream,
}

impl Conversation {
    pub fn accept(stream: UnixStream) -> io::Result<Conversation> {
        let mut from = BufReader::with_capacity(FRAME_BYTES_MAX, stream.try_clone()?);
        let (kind, words) = frame::read(&mut from)?;
        if kind != Kind::Operation {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame out of turn"));
        }
        Ok(Conversation {
            operation: serde_json::from_slice(&words)?,
            input: InputReader::new(from),
            out: FrameWriter::new(stream.try_clone()?, Kind::Output),
            err: FrameWriter::new(stream.try_clone()?, Kind::Error),
            stream,
        })
    }

    pub fn finish(mut self, status: u8) -> io::Result<()> {
        self.out.flush()?;
        self.err.flush()?;
        frame::write(&mut self.stream, Kind::Exit, &[status])
    }
}
