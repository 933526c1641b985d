//! The daemon's side of the control socket.
//!
//! PROMISES
//!   Only the daemon's own user and root reach it: the socket has mode 0600 in a directory of mode 0700.
//!   Each conversation has a thread of its own; a slow or broken one disturbs nobody.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;

use jiff::Timestamp;
use tracing::{info, warn};

use super::bundle;
use super::conversation::Conversation;
use super::import::{self, Failure};
use super::operation::{self, Operation};
use super::progress::Progress;
use crate::cli::failure::{DATA, NO, OK, TRY_AGAIN, UNAVAILABLE};
use crate::config::Config;
use crate::daemon::Daemon;
use crate::replication::engine::Input;

/// Binds the socket. A file that a killed daemon left behind is replaced: the store's lock says that nobody else runs.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves conversations until the process ends.
pub fn serve(listener: UnixListener, daemon: Arc<Daemon>) -> io::Result<()> {
    thread::Builder::new().name("control".into()).spawn(move || {
        for stream in listener.incoming() {
            let daemon = daemon.clone();
            let spawned = stream.and_then(|stream| {
                thread::Builder::new()
                    .name("control".into())
                    .spawn(move || converse(stream, &daemon))
                    .map(drop)
            });
            if let Err(error) = spawned {
                warn!(event = "control-failed", %error, "a command could not be served");
            }
        }
    })?;
    Ok(())
}

fn converse(stream: UnixStream, daemon: &Daemon) {
    let served = Conversation::accept(stream).and_then(|mut conversation| {
        let operation = conversation.operation.clone();
        let status = carry_out(&operation, &mut conversation, daemon)?;
        info!(event = "command", ?operation, status, "carried out a command");
        conversation.finish(status)
    });
    if let Err(error) = served {
        warn!(event = "control-failed", %error, "a command went away or was not understood");
    }
}

fn carry_out(operation: &Operation, conversation: &mut Conversation, daemon: &Daemon) -> io::Result<u8> {
    match operation {
        Operation::Import { file, progress } => import(file.as_deref(), *progress, conversation, daemon),
        Operation::Sync { partner } => {
            ask(Input::Sync { site: partner.clone() }, partner.as_deref(), conversation, daemon)
        }
        Operation::Verify { partner } => {
            ask(Input::Verify { site: partner.clone() }, partner.as_deref(), conversation, daemon)
        }
        Operation::Word { word } => match daemon.replicator().tell(word.input()) {
            Ok(events) => {
                writeln!(conversation.out, "{}", operation::report(&events))?;
                Ok(OK)
            }
            Err(failure) => {
                writeln!(conversation.err, "bridgehead: {failure}")?;
                Ok(TRY_AGAIN)
            }
        },
        Operation::Deliver { mailbox } => deliver(mailbox.as_deref(), conversation, daemon),
        Operation::Measured => {
            serde_json::to_writer(&mut conversation.out, &daemon.measured())?;
            Ok(OK)
        }
        Operation::BundleCreate { site } => bundle_create(site, conversation, daemon),
        Operation::BundleApply => bundle_apply(conversation, daemon),
        Operation::Reload => match daemon.reload() {
            Ok(()) => Ok(OK),
            Err(problems) => {
                writeln!(conversation.err, "{problems}")?;
                Ok(crate::cli::failure::CONFIG)
            }
        },
    }
}

fn import(
    file: Option<&str>,
    progress: bool,
    conversation: &mut Conversation,
    daemon: &Daemon,
) -> io::Result<u8> {
    let site = daemon.config().site.clone();
    let aside = match import::set_aside(&mut conversation.input, &site) {
        Ok(aside) => aside,
        Err(error) => {
            // The rest is read, for the command listens to an answer only when it has said everything.
            io::copy(&mut conversation.input, &mut io::sink())?;
            writeln!(conversation.err, "bridgehead: {}: {error}; nothing was imported", site.data.display())?;
            return Ok(TRY_AGAIN);
        }
    };
    let (told, records) = mpsc::channel();
    let imported = thread::scope(|scope| {
        let err = &mut conversation.err;
        scope.spawn(move || {
            let mut bar = Progress::new(err, progress);
            // A command that went away is noticed at its answer.
            records.iter().for_each(|records| bar.records(records));
            bar.clear();
        });
        let mut tell = move |records| {
            let _ = told.send(records);
        };
        daemon.replicator().change(move |tx| import::import(tx, &site, aside, &mut tell))
    });
    match imported {
        Ok(Ok(imported)) => {
            if file.is_some() {
                writeln!(conversation.out, "{}", report(imported))?;
            }
            Ok(OK)
        }
        Ok(Err(error)) => {
            writeln!(conversation.err, "bridgehead: {}", refusal(file, &error))?;
            Ok(status_of(&error))
        }
        Err(failure) => {
            writeln!(conversation.err, "bridgehead: {failure}")?;
            Ok(TRY_AGAIN)
        }
    }
}

/// What to tell of an import that was done.
pub fn report(imported: import::Imported) -> String {
    match imported.entries {
        0 => format!("{} records read; nothing changed.", imported.records),
        entries => {
            format!("{} records imported; the directory has {entries} entries here.", imported.records)
        }
    }
}

/// What to tell of an import that was refused.
pub fn refusal(file: Option<&str>, error: &Failure) -> String {
    match file {
        Some(file) => format!("{file}: {error}; nothing was imported"),
        None => error.without_line(),
    }
}

pub fn status_of(error: &Failure) -> u8 {
    if error.is_of_the_file() { DATA } else { TRY_AGAIN }
}

fn ask(
    input: Input,
    partner: Option<&str>,
    conversation: &mut Conversation,
    daemon: &Daemon,
) -> io::Result<u8> {
    if let Some(name) = partner
        && daemon.config().partner(name).is_none()
    {
        writeln!(conversation.err, "bridgehead: no site {name} is connected")?;
        return Ok(UNAVAILABLE);
    }
    let asked = Timestamp::now();
    let events = match daemon.replicator().tell(input) {
        Ok(events) => events,
        Err(failure) => {
            writeln!(conversation.err, "bridgehead: {failure}")?;
            return Ok(TRY_AGAIN);
        }
    };
    let damaged = operation::damaged(&events, &daemon.config().site.name);
    if !damaged.is_empty() {
        write!(conversation.err, "{damaged}")?;
        return Ok(NO);
    }
    write!(conversation.out, "{asked}")?;
    Ok(OK)
}

fn bundle_create(site: &str, conversation: &mut Conversation, daemon: &Daemon) -> io::Result<u8> {
    let (messages, events) = match daemon.replicator().bundle(site) {
        Ok(made) => made,
        Err(failure) => {
            writeln!(conversation.err, "bridgehead: {failure}")?;
            return Ok(TRY_AGAIN);
        }
    };
    match bundle::write(&daemon.config(), &daemon.key(), site, &messages, &mut conversation.out) {
        Ok(()) => {
            writeln!(conversation.err, "{}", operation::report(&events))?;
            Ok(OK)
        }
        Err(error) => {
            writeln!(conversation.err, "bridgehead: {error}")?;
            Ok(UNAVAILABLE)
        }
    }
}

fn bundle_apply(conversation: &mut Conversation, daemon: &Daemon) -> io::Result<u8> {
    let config = daemon.config();
    let aside = import::set_aside(&mut conversation.input, &config.site)?;
    match bundle_taken(&config, aside, daemon) {
        Ok(done) => {
            writeln!(conversation.out, "{done}")?;
            Ok(done.status())
        }
        Err(error) => {
            writeln!(conversation.err, "bridgehead: {error}")?;
            Ok(error.status())
        }
    }
}

fn bundle_taken(config: &Config, file: File, daemon: &Daemon) -> Result<bundle::Done, bundle::ApplyError> {
    let key = daemon.key();
    let proved = bundle::prove(config, &key, file)?;
    if proved.pin()? {
        daemon.reload().map_err(|problems| bundle::ApplyError::Store(problems.to_string()))?;
    }
    proved.take(&key, &mut |input| daemon.replicator().tell(input).map_err(|failure| failure.to_string()))
}

fn deliver(mailbox: Option<&str>, conversation: &mut Conversation, daemon: &Daemon) -> io::Result<u8> {
    let reply = daemon.deliver_blocking(mailbox, &mut conversation.input)?;
    writeln!(conversation.err, "bridgehead: {reply}")?;
    Ok(match reply.code() {
        200..=299 => OK,
        400..=499 => TRY_AGAIN,
        _ => DATA,
    })
}
