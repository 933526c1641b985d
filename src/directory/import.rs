//! A file of LDIF into a naming context, as one commit.
//!
//! PROMISES
//!   A content record makes its entry be as written, added or replaced, but for the order of many values
//!   (`difference::keep_order`); nothing else is deleted. Children may
//!   stand before their parents. All records are applied or, when the caller rolls back on an error, none.
//! LIMITS
//!   Memory holds a few hundred records at a time, what waits for its parent, and some 100 octets
//!   for each entry touched.

use std::io::BufRead;
use std::sync::mpsc;
use std::thread;

use thiserror::Error;

use super::change::Change;
use super::commit::{ChangeError, Commit, Committed};
use super::ldif::{self, LdifError};
use super::store::Write;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Records read.
    pub records: u64,
    /// None: the directory was as the file says already.
    pub committed: Option<Committed>,
}

#[derive(Debug, Error)]
pub enum ImportError {
    /// The file is at fault, or could not be read.
    #[error(transparent)]
    Ldif(#[from] LdifError),
    /// A record asks for what cannot be.
    #[error("line {line}: {error}")]
    Refused { line: u64, error: ChangeError },
    /// This machine is at fault.
    #[error(transparent)]
    Failed(ChangeError),
}

impl From<ChangeError> for ImportError {
    fn from(error: ChangeError) -> ImportError {
        match error {
            ChangeError::Refused { line, .. } => ImportError::Refused { line, error },
            error => ImportError::Failed(error),
        }
    }
}

/// Applies those records of `input` that `belongs` lets through. `batch`: fresh random octets. `progress` hears the
/// records done, now and then. After an error the caller rolls the transaction back.
pub fn import(
    tx: &mut dyn Write,
    context: u32,
    batch: [u8; 12],
    input: impl BufRead + Send,
    belongs: &dyn Fn(&Change) -> bool,
    progress: &mut dyn FnMut(u64),
) -> Result<Imported, ImportError> {
    let mut commit = Commit::begin(tx, context, batch)?;
    let mut records = 0;
    thread::scope(|scope| {
        // Reading and parsing take about as long as storing.
        let (to, from) = mpsc::sync_channel(4);
        scope.spawn(move || read(input, &to));
        for part in from {
            for (line, change) in part?.iter().filter(|(_, change)| belongs(change)) {
                commit.apply_at(*line, change)?;
                records += 1;
            }
            progress(records);
        }
        Ok::<_, ImportError>(())
    })?;
    Ok(Imported { records, committed: commit.finish()? })
}

type Part = Result<Vec<(u64, Change)>, LdifError>;

/// Sends the records in parts, until the end, an error, or nobody listens any more.
fn read(input: impl BufRead, to: &mpsc::SyncSender<Part>) {
    let mut part = Vec::new();
    let mut room = PART_BYTES;
    for record in ldif::Reader::new(input) {
        match record {
            Ok(record) => {
                room = room.saturating_sub(record.1.weight());
                part.push(record);
            }
            Err(error) => {
                // What comes before the error is applied first: its errors are of earlier lines.
                let _ = to.send(Ok(part)).and_then(|()| to.send(Err(error)));
                return;
            }
        }
        if room == 0 {
            if to.send(Ok(std::mem::take(&mut part))).is_err() {
                return;
            }
            room = PART_BYTES;
        }
    }
    let _ = to.send(Ok(part));
}

const PART_BYTES: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use super::super::context::{context_by_number, create_context};
    use super::super::export::{Options, export};
    use super::super::histories::{check_sound, dn};
    use super::super::lookup::entry_at;
    use super::super::memory::MemoryStore;
    use super::*;
    use uuid::Uuid;

    fn store() -> MemoryStore {
        let mut store = MemoryStore::new();
        let mut tx = store.begin();
        create_context(&mut tx, &dn("ou=Paris,o=Org"), "paris", Uuid::from_u128(1)).unwrap();
        tx.commit();
        store
    }

    fn run(store: &mut MemoryStore, text: &str) -> Result<Imported, ImportError> {
        let mut tx = store.begin();
        let batch = [text.len() as u8; 12];
        let done = import(&mut tx, 1, batch, text.as_bytes(), &|_| true, &mut |_| {})?;
        check_sound(&tx, &context_by_number(&tx, 1).unwrap().unwrap());
        tx.commit();
        Ok(done)
    }

    fn text_of(store: &MemoryStore) -> String {
        let context = context_by_number(store, 1).unwrap().unwrap();
        let mut out = Vec::new();
        export(store, std::slice::from_ref(&context), &mut out, Options { entry_uuids: false }, &mut |_| {})
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn children_may_come_before_their_parents_and_the_topmost_entry_is_made() {
        let mut store = store();
        let text = "dn: cn=a,ou=x,ou=y,ou=Paris,o=Org\ncn: a\n\ndn: ou=x,ou=y,ou=Paris,o=Org\nou: x\n\n\
            dn: ou=y,ou=paris,o=org\nou: y\n";
        let done = run(&mut store, text).unwrap();
        assert_eq!(done.records, 3);
        assert_eq!(done.committed.unwrap().entries, 4);
        assert_eq!(
            text_of(&store),
            "version: 1\n\ndn: ou=Paris,o=Org\nobjectClass: organizationalUnit\nou: Paris\n\n\
            dn: ou=y,ou=Paris,o=Org\nou: y\n\ndn: ou=x,ou=y,ou=Paris,o=Org\nou: x\n\n\
            dn: cn=a,ou=x,ou=y,ou=Paris,o=Org\ncn: a\n"
        );
        let again = run(&mut store, text).unwrap();
        assert_eq!(again.committed, None, "nothing changed");
    }

    #[test]
    fn content_records_replace_and_change_records_change() {
        let mut store = store();
        run(
            &mut store,
            "dn: cn=a,ou=Paris,o=Org\ncn: a\nmail: x\nmail: y\n\ndn: cn=b,ou=Paris,o=Org\ncn: b\n",
        )
        .unwrap();
        let done = run(
            &mut store,
            "dn: CN=A,ou=Paris,o=Org\ncn: a\nmail: z\n\n\
            dn: cn=b,ou=Paris,o=Org\nchangetype: modrdn\nnewrdn: cn=c\ndeleteoldrdn: 1\nnewsuperior: cn=a,ou=Paris,o=Org\n\n\
            dn: cn=c,cn=a,ou=Paris,o=Org\nchangetype: modify\nadd: mail\nmail: c@x\n-\n\n\
            dn: cn=d,ou=Paris,o=Org\nchangetype: add\ncn: d\n\n\
            dn: cn=d,ou=Paris,o=Org\nchangetype: delete\n",
        )
        .unwrap();
        assert_eq!(done.committed.unwrap().position.usn, 2);
        assert!(text_of(&store).ends_with(
            "\n\ndn: CN=A,ou=Paris,o=Org\ncn: a\nmail: z\n\ndn: cn=c,CN=A,ou=Paris,o=Org\ncn: c\nmail: c@x\n"
        ));
    }

    #[test]
    fn what_is_refused_names_its_line() {
        let there = "dn: cn=a,ou=Paris,o=Org\ncn: a\nmail: x\n\ndn: cn=b,cn=a,ou=Paris,o=Org\ncn: b\n";
        for (text, line, reason) in [
            ("dn: cn=a,o=Org\ncn: a\n", 1, "not in the naming context ou=Paris,o=Org"),
            ("\ndn: cn=x,ou=none,ou=Paris,o=Org\ncn: x\n\n", 2, "no entry ou=none,ou=Paris,o=Org above"),
            ("dn: cn=a,ou=Paris,o=Org\nchangetype: add\ncn: a\n", 1, "entryAlreadyExists"),
            ("dn: cn=a,ou=Paris,o=Org\nchangetype: delete\n", 1, "notAllowedOnNonLeaf"),
            ("dn: cn=z,ou=Paris,o=Org\nchangetype: delete\n", 1, "noSuchObject"),
            ("dn: cn=a,ou=Paris,o=Org\nchangetype: modify\nadd: mail\nmail: x\n", 1, "twice"),
            ("dn: cn=a,ou=Paris,o=Org\nchangetype: modify\ndelete: mail\nmail: y\n", 1, "no such value"),
            ("dn: cn=a,ou=Paris,o=Org\nchangetype: modify\ndelete: fax\n", 1, "noSuchAttribute: fax"),
            ("dn: cn=a,ou=Paris,o=Org\nchangetype: modify\nreplace: cn\ncn: z\n", 1, "notAllowedOnRDN"),
            (
                "dn: cn=a,ou=Paris,o=Org\nchangetype: modify\nreplace: entryUUID\nentryUUID: z\n",
                1,
                "entryUUID",
            ),
            (
                "dn: cn=a,ou=Paris,o=Org\nentryUUID: 00000000-0000-0000-0000-000000000007\ncn: a\n",
                1,
                "another entryUUID",
            ),
            (
                "dn: ou=Paris,o=Org\nchangetype: modrdn\nnewrdn: ou=Lyon\ndeleteoldrdn: 1\n",
                1,
                "cannot be renamed",
            ),
            (
                "dn: cn=a,ou=Paris,o=Org\nchangetype: modrdn\nnewrdn: cn=a\ndeleteoldrdn: 1\nnewsuperior: cn=b,cn=a,ou=Paris,o=Org\n",
                1,
                "beneath itself",
            ),
            (
                "dn: cn=b,cn=a,ou=Paris,o=Org\nchangetype: modrdn\nnewrdn: cn=c\ndeleteoldrdn: 1\nnewsuperior: o=Org\n",
                1,
                "not in",
            ),
        ] {
            let mut store = store();
            run(&mut store, there).unwrap();
            let before = text_of(&store);
            let error = run(&mut store, text).unwrap_err();
            let ImportError::Refused { line: found, .. } = &error else { panic!("{error}") };
            assert!(*found == line && error.to_string().contains(reason), "{text:?} gives {error}");
            assert_eq!(text_of(&store), before);
        }
        let error = run(&mut store(), "dn: cn=a,ou=Paris,o=Org\ncn: a\n\nnonsense\n").unwrap_err();
        assert!(matches!(error, ImportError::Ldif(LdifError { line: 4, .. })), "{error}");
    }

    #[test]
    fn names_remembered_are_forgotten_when_they_change() {
        let mut store = store();
        // The finder knows ou=x when it is renamed, deleted and made anew.
        let error = run(
            &mut store,
            "dn: ou=x,ou=Paris,o=Org\nou: x\n\ndn: cn=a,ou=x,ou=Paris,o=Org\ncn: a\n\n\
            dn: ou=x,ou=Paris,o=Org\nchangetype: modrdn\nnewrdn: ou=y\ndeleteoldrdn: 1\n\n\
            dn: cn=b,ou=x,ou=Paris,o=Org\ncn: b\n",
        );
        assert!(matches!(error, Err(ImportError::Refused { line: 12, .. })), "{error:?}");
        let error = run(
            &mut store,
            "dn: ou=x,ou=Paris,o=Org\nou: x\n\ndn: cn=a,ou=x,ou=Paris,o=Org\ncn: a\n\n\
            dn: cn=a,ou=x,ou=Paris,o=Org\nchangetype: delete\n\ndn: ou=x,ou=Paris,o=Org\nchangetype: delete\n\n\
            dn: cn=b,ou=x,ou=Paris,o=Org\ncn: b\n",
        );
        assert!(matches!(error, Err(ImportError::Refused { line: 13, .. })), "{error:?}");
    }

    #[test]
    fn an_entry_is_known_by_its_entry_uuid() {
        let mut store = store();
        let uuid = "entryUUID: 00000000-0000-0000-0000-00000000000a\n";
        run(&mut store, &format!("dn: cn=a,ou=Paris,o=Org\n{uuid}cn: a\n")).unwrap();
        run(&mut store, &format!("dn: cn=b,ou=Paris,o=Org\n{uuid}cn: b\n")).unwrap();
        let context = context_by_number(&store, 1).unwrap().unwrap();
        assert_eq!(context.entries, 2, "moved, not added");
        let entry = entry_at(&store, &context, &dn("cn=b,ou=Paris,o=Org")).unwrap().unwrap();
        assert_eq!(entry.uuid, Uuid::from_u128(10));
    }
}
