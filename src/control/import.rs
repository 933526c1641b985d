//! Importing LDIF into the naming contexts that this site masters.
//!
//! PROMISES
//!   All of the file or nothing: at the first record that cannot be applied, nothing was. One commit for
//!   each naming context that the file changes.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

use thiserror::Error;

use crate::config::SiteConfig;
use crate::daemon::replicator::Changed;
use crate::directory::change::Change;
use crate::directory::commit::ChangeError;
use crate::directory::context::{self, ContextError, ContextRecord};
use crate::directory::dn::Dn;
use crate::directory::import::{self, ImportError};
use crate::directory::ldif::{Fault, LdifError};
use crate::directory::{StoreError, Write};

/// Why nothing was imported.
#[derive(Debug, Error)]
pub enum Failure {
    /// The operator's fault: the file.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The configuration's fault.
    #[error("this site masters no naming context; `site.contexts` names them")]
    NoContext,
    /// This machine's fault.
    #[error("reading the input: {0}")]
    Input(#[from] io::Error),
    /// This machine's fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failure {
    /// The message without the line, for a change that came from a command line.
    pub fn without_line(&self) -> String {
        match self {
            Failure::Import(ImportError::Refused { error, .. }) => error.to_string(),
            other => other.to_string(),
        }
    }

    /// Whether the file is at fault, rather than this machine.
    pub fn is_of_the_file(&self) -> bool {
        match self {
            Failure::Import(ImportError::Ldif(LdifError { reason: Fault::Io(_), .. })) => false,
            Failure::Import(ImportError::Failed(ChangeError::Store(_))) => false,
            Failure::Import(_) | Failure::NoContext => true,
            Failure::Input(_) | Failure::Store(_) => false,
        }
    }
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Records read.
    pub records: u64,
    /// Entries in the naming contexts afterwards that the file changed.
    pub entries: u64,
}

/// Puts the input aside, so that it can be read again and a slow sender keeps nobody waiting.
pub fn set_aside(input: &mut dyn Read, site: &SiteConfig) -> io::Result<File> {
    let mut file = tempfile::tempfile_in(&site.data)?;
    io::copy(input, &mut file)?;
    file.rewind()?;
    Ok(file)
}

/// Creates the naming contexts that this site masters, where they are not there yet.
pub fn own_contexts(tx: &mut dyn Write, site: &SiteConfig) -> Result<(), ContextError> {
    for dn in &site.contexts {
        match context::context(tx.as_read(), dn)? {
            None => drop(context::create_context(tx, dn, &site.name, random_uuid())?),
            // Ours from before this site got its present name.
            Some(record) if site.former_names.contains(&record.master) => {
                context::put_context(tx, &ContextRecord { master: site.name.clone(), ..record })?;
            }
            // A replica of another site's: to write to it would make two masters.
            Some(ContextRecord { master, .. }) if master != site.name => {
                return Err(ContextError::OfAnother { dn: dn.clone(), master });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Imports the file within the transaction; the caller undoes everything on an error.
///
/// `progress` hears how many records are done, now and then.
pub fn import(
    tx: &mut dyn Write,
    site: &SiteConfig,
    mut file: File,
    progress: &mut dyn FnMut(u64),
) -> Result<Changed<Imported>, Failure> {
    own_contexts(tx, site).map_err(|error| match error {
        ContextError::Store(error) => error,
        other => StoreError::Failed(other.to_string()),
    })?;
    if site.contexts.is_empty() {
        return Err(Failure::NoContext);
    }
    let mut done = Changed { answer: Imported::default(), contexts: Vec::new() };
    // Each naming context has a commit of its own; a record of none of them stays for the first to refuse.
    for (index, dn) in site.contexts.iter().enumerate() {
        file.rewind()?;
        let others = &site.contexts;
        let elsewhere = |change: &Change| !others.iter().any(|other| change.dn().is_under(other));
        let belongs = |change: &Change| change.dn().is_under(dn) || (index == 0 && elsewhere(change));
        import_context(tx, dn, &file, &belongs, &mut done, progress)?;
    }
    Ok(done)
}

fn import_context(
    tx: &mut dyn Write,
    dn: &Dn,
    file: &File,
    belongs: &dyn Fn(&Change) -> bool,
    done: &mut Changed<Imported>,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Failure> {
    let Some(record) = context::context(tx.as_read(), dn)? else { return Ok(()) };
    let input = BufReader::with_capacity(256 << 10, file);
    let before = done.answer.records;
    let imported = import::import(tx, record.number, random_batch(), input, belongs, &mut |records| {
        progress(before + records)
    })?;
    done.answer.records += imported.records;
    if let Some(committed) = imported.committed {
        done.answer.entries += committed.entries;
        done.contexts.push(record.number);
    }
    Ok(())
}

fn random_batch() -> [u8; 12] {
    let mut batch = [0; 12];
    batch.copy_from_slice(&random_uuid().as_bytes()[4..]);
    batch
}

fn random_uuid() -> uuid::Uuid {
    let mut octets = [0; 16];
    getrandom::fill(&mut octets).expect("the operating system gives random octets");
    uuid::Builder::from_random_bytes(octets).into_uuid()
}
