//! A second thread for large transfers: it compresses and writes columns, or reads them, while the first one is busy
//! with the store.
//!
//! PROMISES
//!   What comes out is what one thread would make. At most one chunk waits between the two.
//!
//! FAILURE
//!   An error on either side ends both; that of the second thread comes with the next call.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};

use super::TransferError;
use super::body::{BodyError, BodyReader, BodyWriter};
use super::chunk::{CHUNK_RECORDS_MAX, Chunk, source_of_rdn};
use super::names::NewNames;
use crate::directory::StoreError;

/// Records from which a second thread is worth its while.
pub const MANY_RECORDS: u64 = 2 * CHUNK_RECORDS_MAX as u64;

/// The names of added entries as sources of pieces; their numbers begin after those of the base's entries.
pub fn source_of(names: &NewNames, base_entries: u64, number: u64) -> Vec<u8> {
    match number.checked_sub(base_entries).and_then(|index| usize::try_from(index).ok()) {
        Some(index) if index < names.len() => source_of_rdn(names.rdn(index)),
        _ => Vec::new(),
    }
}

/// Writes chunks of contents into a body.
pub struct WriterBeside {
    chunks: SyncSender<Chunk>,
    thread: JoinHandle<Result<BodyWriter, StoreError>>,
}

impl WriterBeside {
    pub fn start(
        mut body: BodyWriter,
        names: Arc<NewNames>,
        base_entries: u64,
    ) -> Result<WriterBeside, StoreError> {
        let (chunks, taken) = sync_channel(0);
        let work = move || {
            for chunk in taken {
                body.chunk(chunk, &|number| source_of(&names, base_entries, number))?;
            }
            Ok(body)
        };
        let thread = Builder::new().name("transfer".into()).spawn(work).map_err(no_thread)?;
        Ok(WriterBeside { chunks, thread })
    }

    /// Hands a chunk over. When the other side has failed, its error comes from [`WriterBeside::finish`].
    pub fn chunk(&self, chunk: Chunk) {
        let _ = self.chunks.send(chunk);
    }

    pub fn finish(self) -> Result<BodyWriter, StoreError> {
        drop(self.chunks);
        self.thread.join().unwrap_or_else(|_| Err(ended()))
    }
}

/// What the reading thread says.
enum Said {
    /// It has no more octets of the body.
    Hungry,
    Chunk(u8, Chunk),
    /// The end, and the octets taken.
    End(Result<u64, BodyError>),
}

/// Reads the rest of a body. `pieces` gives its octets and `take` takes its chunks, both on this thread.
pub fn read_beside(
    body: BodyReader,
    (names, base_entries): (Arc<NewNames>, u64),
    pieces: &mut dyn FnMut() -> Result<Option<Vec<u8>>, StoreError>,
    take: &mut dyn FnMut(u8, Chunk) -> Result<(), TransferError>,
) -> Result<u64, TransferError> {
    let (sender, fed) = sync_channel(PIECES_AHEAD);
    let (say, said) = sync_channel(0);
    let work = move || {
        let end = read(body, &fed, &say, &|number| source_of(&names, base_entries, number));
        // Who does not listen any more has failed itself.
        let _ = say.send(Said::End(end));
    };
    let thread = Builder::new().name("transfer".into()).spawn(work).map_err(no_thread)?;
    let mut feed = Feed { sender: Some(sender), waiting: None };
    let mut listen = || loop {
        match said.recv() {
            Ok(Said::Hungry) => feed.fill(pieces)?,
            Ok(Said::Chunk(kind, chunk)) => {
                feed.fill(pieces)?;
                take(kind, chunk)?;
            }
            Ok(Said::End(end)) => return Ok(end?),
            Err(_) => return Err(TransferError::Store(ended())),
        }
    };
    let result = listen();
    drop((said, feed));
    match thread.join() {
        Ok(()) => result,
        Err(_) => Err(ended().into()),
    }
}

fn read(
    mut body: BodyReader,
    fed: &Receiver<Vec<u8>>,
    say: &SyncSender<Said>,
    source_of: &dyn Fn(u64) -> Vec<u8>,
) -> Result<u64, BodyError> {
    let mut next = || match fed.try_recv() {
        Ok(piece) => Ok(Some(piece)),
        Err(TryRecvError::Disconnected) => Ok(None),
        Err(TryRecvError::Empty) => {
            let _ = say.send(Said::Hungry);
            Ok(fed.recv().ok())
        }
    };
    while let Some((kind, octets)) = body.next(&mut next)? {
        let chunk = Chunk::read(kind, &octets, source_of)?;
        if say.send(Said::Chunk(kind, chunk)).is_err() {
            break;
        }
    }
    Ok(body.taken())
}

/// The octets on their way to the reading thread.
struct Feed {
    /// None: there are no more.
    sender: Option<SyncSender<Vec<u8>>>,
    waiting: Option<Vec<u8>>,
}

impl Feed {
    /// Gives as many pieces as there is room for.
    fn fill(
        &mut self,
        pieces: &mut dyn FnMut() -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<(), StoreError> {
        while let Some(sender) = &self.sender {
            let piece = match self.waiting.take() {
                Some(piece) => Some(piece),
                None => pieces()?,
            };
            match piece.map(|piece| sender.try_send(piece)) {
                Some(Ok(())) => {}
                Some(Err(TrySendError::Full(piece))) => {
                    self.waiting = Some(piece);
                    break;
                }
                Some(Err(TrySendError::Disconnected(_))) | None => self.sender = None,
            }
        }
        Ok(())
    }
}

/// Pieces of a body, each a part at most, that are read before they are needed.
const PIECES_AHEAD: usize = 2;

fn no_thread(error: std::io::Error) -> StoreError {
    StoreError::Failed(format!("a second thread: {error}"))
}

fn ended() -> StoreError {
    StoreError::Failed("the second thread of a transfer ended".into())
}
