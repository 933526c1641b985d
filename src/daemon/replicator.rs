//! The replicator: one thread that owns the store and the engine, one transaction at a time.
//!
//! PROMISES
//!   What was asked is answered after the transaction that holds it is on disk, or with the error that
//!   kept it from there. Requests that wait together share one transaction and one fsync.
//!   Mail leaves after the commit that it speaks of.
//!
//! FAILURE
//!   When the store fails, everything in that transaction is answered with the failure (a sending
//!   server sees 451 and keeps its message) and the engine is made anew from what is on disk.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc as async_mpsc, oneshot};
use tracing::error;

use super::counters::ReplicationCounters;
use super::events;
use super::trust::Told;
use crate::directory::sqlite::SqliteStore;
use crate::directory::{StoreError, Write};
use crate::replication::engine::bundle::Bundled;
use crate::replication::engine::{Engine, EngineConfig, Event, Header, Input, Outcome, Output};
use crate::replication::wire::KeyId;

/// Requests that share one transaction, at the most.
const GROUP_MAX: usize = 256;

/// After the store failed, how long until it is tried again.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// A payload on its way to a connected site, not sealed yet.
pub struct Mail {
    pub to: String,
    /// The message's sequence number.
    pub mail: u64,
    pub payload: Vec<u8>,
    /// The key of ours that the site knows us by.
    pub signer: KeyId,
}

/// What a job leaves behind: its answer, and the naming contexts whose position it raised.
pub struct Changed<T> {
    pub answer: T,
    pub contexts: Vec<u32>,
}

type Job = Box<dyn FnOnce(&mut dyn Write) -> Result<Finished, StoreError> + Send>;
type Answer = Box<dyn FnOnce(Result<(), &StoreError>) + Send>;

struct Finished {
    keep: bool,
    contexts: Vec<u32>,
    answer: Answer,
}

enum Request {
    Received {
        from: String,
        header: Header,
        payload: Vec<u8>,
        answer: oneshot::Sender<Result<Outcome, String>>,
    },
    Job(Job),
    Input(Input),
    Tell {
        input: Input,
        answer: oneshot::Sender<Result<Vec<Event>, String>>,
    },
    Bundle {
        site: String,
        answer: oneshot::Sender<Result<Made, String>>,
    },
    Configure(Box<EngineConfig>),
    Stop,
}

/// A bundle that was made, and what is to be told of it.
pub type Made = (Vec<Bundled>, Vec<Event>);

/// The way to the replicator; clones share it.
#[derive(Clone)]
pub struct Replicator {
    requests: mpsc::Sender<Request>,
}

/// Why the replicator gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReplicatorError<E> {
    /// The job itself said no; nothing was changed.
    #[error("{0}")]
    Job(E),
    /// This machine's fault; nothing was changed.
    #[error("{0}")]
    Store(String),
    #[error("the store failed or the daemon is stopping; nothing was changed")]
    Gone,
}

impl Replicator {
    /// Starts the thread. Mail to be sent goes to `mail`, cards that sites tell to `told`. The handle ends once [`Replicator::stop`] was called.
    pub fn start(
        store: SqliteStore,
        config: EngineConfig,
        mail: async_mpsc::UnboundedSender<Mail>,
        told: async_mpsc::UnboundedSender<Told>,
        counters: Arc<ReplicationCounters>,
    ) -> std::io::Result<(Replicator, thread::JoinHandle<()>)> {
        let (requests, queue) = mpsc::channel();
        let worker = Worker { store, engine: None, config, queue, mail, told, counters, outputs: Vec::new() };
        let thread =
            thread::Builder::new().name("replicator".into()).stack_size(8 << 20).spawn(|| worker.run())?;
        Ok((Replicator { requests }, thread))
    }

    /// Hands over an opened and verified message. The outcome comes when it is durable.
    pub async fn received(&self, from: String, header: Header, payload: Vec<u8>) -> Result<Outcome, String> {
        let (answer, outcome) = oneshot::channel();
        self.requests.send(Request::Received { from, header, payload, answer }).map_err(|_| gone())?;
        outcome.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Runs `job` within a transaction and waits until that is committed. An error of the job undoes what it did.
    pub fn change<T, E>(
        &self,
        job: impl FnOnce(&mut dyn Write) -> Result<Changed<T>, E> + Send + 'static,
    ) -> Result<T, ReplicatorError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |tx| {
            let (keep, contexts, result) = match job(tx) {
                Ok(changed) => (true, changed.contexts, Ok(changed.answer)),
                Err(error) => (false, Vec::new(), Err(ReplicatorError::Job(error))),
            };
            let answer: Answer = Box::new(move |committed| {
                // Nobody waits any more: the client went away, the change stays.
                let _ = answer.send(match committed {
                    Ok(()) => result,
                    Err(failure) => Err(ReplicatorError::Store(failure.to_string())),
                });
            });
            Ok(Finished { keep, contexts, answer })
        });
        self.requests.send(Request::Job(job)).map_err(|_| ReplicatorError::Gone)?;
        answered.blocking_recv().unwrap_or(Err(ReplicatorError::Gone))
    }

    /// Tells the engine something that nobody waits for.
    pub fn input(&self, input: Input) {
        // When the replicator has stopped there is nobody left to tell.
        let _ = self.requests.send(Request::Input(input));
    }

    /// Has the engine keep what was refused and waits until that is on disk.
    pub async fn keep(&self, input: Input) -> Result<Vec<Event>, String> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Tell { input, answer }).map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Tells the engine an operator's word and waits until what followed from it is on disk.
    pub fn tell(&self, input: Input) -> Result<Vec<Event>, String> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Tell { input, answer }).map_err(|_| gone())?;
        answered.blocking_recv().unwrap_or_else(|_| Err(gone()))
    }

    /// Makes the messages of a bundle and waits until it is on disk that they were made.
    pub fn bundle(&self, site: &str) -> Result<Made, String> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Bundle { site: site.to_owned(), answer }).map_err(|_| gone())?;
        answered.blocking_recv().unwrap_or_else(|_| Err(gone()))
    }

    /// Puts a new configuration in force with the next transaction.
    pub fn configure(&self, config: EngineConfig) {
        let _ = self.requests.send(Request::Configure(Box::new(config)));
    }

    pub fn stop(&self) {
        let _ = self.requests.send(Request::Stop);
    }
}

fn gone() -> String {
    "the store failed or the daemon is stopping; nothing was changed".to_owned()
}

struct Worker {
    store: SqliteStore,
    /// None until it was started on what is on disk: at first, and after the store failed.
    engine: Option<Engine>,
    config: EngineConfig,
    queue: mpsc::Receiver<Request>,
    mail: async_mpsc::UnboundedSender<Mail>,
    counters: Arc<ReplicationCounters>,
    told: async_mpsc::UnboundedSender<Told>,
    /// What the engine decided in this transaction.
    outputs: Vec<Output>,
}

/// What to tell whom once the transaction has ended.
enum Reply {
    Outcome(oneshot::Sender<Result<Outcome, String>>, Outcome),
    Events(oneshot::Sender<Result<Vec<Event>, String>>, Vec<Event>),
    Bundle(oneshot::Sender<Result<Made, String>>, Made),
    Job(Answer),
}

impl Worker {
    fn run(mut self) {
        self.transact(Vec::new());
        loop {
            let group = self.next_group();
            let stop = group.iter().any(|request| matches!(request, Request::Stop));
            self.transact(group);
            if stop {
                return;
            }
        }
    }

    /// Waits for requests, no longer than until the engine wants to be called.
    fn next_group(&self) -> Vec<Request> {
        let deadline = match &self.engine {
            Some(engine) => engine.deadline(),
            None => Timestamp::now().checked_add(STORE_RETRY).ok(),
        };
        let first = match deadline {
            None => self.queue.recv().unwrap_or(Request::Stop),
            Some(deadline) => {
                let wait = Duration::try_from(deadline.duration_since(Timestamp::now())).unwrap_or_default();
                match self.queue.recv_timeout(wait) {
                    Ok(request) => request,
                    Err(mpsc::RecvTimeoutError::Timeout) => Request::Input(Input::Tick),
                    Err(mpsc::RecvTimeoutError::Disconnected) => Request::Stop,
                }
            }
        };
        std::iter::once(first).chain(self.queue.try_iter().take(GROUP_MAX - 1)).collect()
    }

    fn transact(&mut self, group: Vec<Request>) {
        let mut replies = Vec::with_capacity(group.len());
        let ended = self.attempt(group, &mut replies);
        if let Err(failure) = &ended {
            self.outputs.clear();
            self.counters.store_failed(failure.to_string());
            error!(event = "store-failed", %failure, "nothing of this transaction was kept; senders will try again");
            self.engine = None;
        }
        for reply in replies {
            match reply {
                Reply::Outcome(answer, outcome) => {
                    // The session that waited for this may be gone; its sender will repeat, which is harmless.
                    let _ = answer.send(match &ended {
                        Ok(()) => Ok(outcome),
                        Err(failure) => Err(failure.to_string()),
                    });
                }
                Reply::Events(answer, events) => {
                    // The command that waited for this was interrupted; the word counts.
                    let _ = answer.send(match &ended {
                        Ok(()) => Ok(events),
                        Err(failure) => Err(failure.to_string()),
                    });
                }
                Reply::Bundle(answer, made) => {
                    let _ = answer.send(match &ended {
                        Ok(()) => Ok(made),
                        Err(failure) => Err(failure.to_string()),
                    });
                }
                Reply::Job(answer) => answer(match &ended {
                    Ok(()) => Ok(()),
                    Err(failure) => Err(failure),
                }),
            }
        }
        self.act();
    }

    fn attempt(&mut self, group: Vec<Request>, replies: &mut Vec<Reply>) -> Result<(), StoreError> {
        let mut tx = self.store.begin()?;
        let now = Timestamp::now();
        let mut engine = match self.engine.take() {
            Some(engine) => engine,
            None => started(&self.config, &mut tx, now)?,
        };
        for request in group {
            match request {
                Request::Received { from, header, payload, answer } => {
                    let outcome = engine.handle(&mut tx, now, Input::Received { from, header, payload })?;
                    replies.push(Reply::Outcome(answer, outcome));
                }
                Request::Job(job) => {
                    tx.savepoint()?;
                    let finished = job(&mut tx)?;
                    replies.push(Reply::Job(finished.answer));
                    tx.end_savepoint(finished.keep)?;
                    for context in finished.contexts {
                        engine.handle(&mut tx, now, Input::LocalCommit { context })?;
                    }
                }
                Request::Input(input) => {
                    engine.handle(&mut tx, now, input)?;
                }
                Request::Tell { input, answer } => {
                    self.outputs.extend(decided(&mut engine));
                    let before = self.outputs.len();
                    engine.handle(&mut tx, now, input)?;
                    self.outputs.extend(decided(&mut engine));
                    replies.push(Reply::Events(answer, events_of(&self.outputs[before..])));
                }
                Request::Bundle { site, answer } => {
                    self.outputs.extend(decided(&mut engine));
                    let before = self.outputs.len();
                    let messages = engine.bundle(&mut tx, now, &site)?;
                    self.outputs.extend(decided(&mut engine));
                    replies.push(Reply::Bundle(answer, (messages, events_of(&self.outputs[before..]))));
                }
                Request::Configure(config) => {
                    self.config = *config;
                    // The mail and events of this transaction so far are those of the engine that goes.
                    self.outputs.extend(decided(&mut engine));
                    engine = started(&self.config, &mut tx, now)?;
                }
                Request::Stop => {}
            }
        }
        tx.commit()?;
        self.outputs.extend(decided(&mut engine));
        self.engine = Some(engine);
        Ok(())
    }

    /// Acts on what the engine decided; what it decided is on disk.
    fn act(&mut self) {
        for output in std::mem::take(&mut self.outputs) {
            match output {
                Output::Mail { to, mail, payload, signer } => {
                    // A closed channel means that we are stopping; the engine sends again after the start.
                    let _ = self.mail.send(Mail { to, mail, payload, signer });
                }
                Output::Event(event) => {
                    self.counters.event(&event);
                    events::log(&event);
                }
                // When nobody listens any more we are stopping; what is told is told again.
                Output::Card { site, cards } => drop(self.told.send(Told::Cards { site, cards })),
                Output::Introduced { by, introductions } => {
                    drop(self.told.send(Told::Introductions { by, introductions }));
                }
            }
        }
    }
}

/// What the engine decided since it was last asked.
fn decided(engine: &mut Engine) -> impl Iterator<Item = Output> {
    std::iter::from_fn(|| engine.output())
}

/// Those outputs that are to be told.
fn events_of(outputs: &[Output]) -> Vec<Event> {
    let events = outputs.iter().filter_map(|output| match output {
        Output::Event(event) => Some(event.clone()),
        Output::Mail { .. } | Output::Card { .. } | Output::Introduced { .. } => None,
    });
    events.collect()
}

fn started(config: &EngineConfig, tx: &mut dyn Write, now: Timestamp) -> Result<Engine, StoreError> {
    let mut engine = Engine::new(config.clone());
    engine.handle(tx, now, Input::Start)?;
    Ok(engine)
}
