//! Whether a transfer may be applied, by what its manifest says and who signed it.
//!
//! PROMISES
//!   Only what the master of the naming context signed is applied, whoever carried it. A replica goes onward in
//!   its master's history, along what the master signed and nothing else: within an invocation to higher
//!   USNs, from one invocation to another only if the lineage that its checkpoint names passes where the
//!   replica stands. A carrier that tells another lineage, or puts an old state behind a newer one, is refused.
//!   Two signed lineages of one invocation are a fork, which is reported and held.

use super::turn::{Turn, point};
use crate::directory::StoreError;
use crate::directory::context::ContextRecord;
use crate::replication::checkpoint::Checkpoint;
use crate::replication::peer::Point;
use crate::replication::transfer::{Base, Manifest};

/// What is to be done with a complete transfer.
pub(super) enum Verdict {
    Apply(Checkpoint),
    /// Our own naming context went on in two ways: take from it what was not changed here.
    Merge(Checkpoint),
    /// Its base is not here yet.
    Wait,
    /// We are there already, or beyond.
    Obsolete,
    Refuse(String),
    /// It would lead back over what only we hold; without the operator's word (`refresh`) it does not count.
    Parted,
    /// It starts at our position, but not from what we hold.
    Differs,
}

/// What was asked of the site that sent a transfer.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// Everything, for what we hold was found to be wrong: a full load of the same position counts as progress.
    pub whole: bool,
    /// By the operator's word, what we hold is given up for what the site sends.
    pub refresh: bool,
    /// A comparison, to be repaired.
    pub repair: bool,
}

impl Turn<'_> {
    /// Decides on a transfer by its manifest alone.
    pub(super) fn judge(
        &mut self,
        manifest: &Manifest,
        said: &Checkpoint,
        asked: Asked,
    ) -> Result<Verdict, StoreError> {
        let name = said.context.to_string();
        let own = self.config.key.verifying_key();
        let ours = self.context(&name).is_some_and(|record| record.master == self.config.site);
        let Some(key) = ours.then_some(&own).or(self.config.master(&name).map(|master| &master.key)) else {
            return Ok(Verdict::Refuse("no pinned card says who masters it".into()));
        };
        let checkpoint = match manifest.checkpoint.verify(key) {
            Ok(checkpoint) => checkpoint,
            Err(error) => return Ok(Verdict::Refuse(error.to_string())),
        };
        let record = self.context(&name).cloned();
        let Some((record, held)) = record.and_then(|record| point(&record).map(|held| (record, held))) else {
            return Ok(match manifest.base {
                Base::Nothing if is_signed(manifest, &checkpoint) => Verdict::Apply(checkpoint),
                Base::Nothing => refuse_lineage(),
                Base::At(..) | Base::Repair => Verdict::Wait,
            });
        };
        if manifest.base == Base::Repair && !asked.repair {
            return Ok(Verdict::Refuse("nobody asked for a repair".into()));
        }
        let again = checkpoint.position == held.0
            && ((asked.whole && manifest.base == Base::Nothing) || manifest.base == Base::Repair);
        if record.is_on_history(&checkpoint.position) && !again {
            return Ok(Verdict::Obsolete);
        }
        Ok(match manifest.base {
            Base::At(base, digest) if base == held.0 && digest != held.1 => Verdict::Differs,
            Base::At(base, _) if base != held.0 && record.is_on_history(&base) => Verdict::Obsolete,
            Base::At(base, _) if base != held.0 => Verdict::Wait,
            Base::Nothing if ours && checkpoint.position != held.0 => {
                match is_signed(manifest, &checkpoint) {
                    true => Verdict::Merge(checkpoint),
                    false => refuse_lineage(),
                }
            }
            Base::At(..) | Base::Nothing | Base::Repair => onward(&record, held, manifest, checkpoint, asked),
        })
    }
}

/// A transfer that fits what we hold is applied if it leads onward.
fn onward(
    record: &ContextRecord,
    held: Point,
    manifest: &Manifest,
    checkpoint: Checkpoint,
    asked: Asked,
) -> Verdict {
    let target = checkpoint.position;
    if target.invocation == held.0.invocation {
        return match record.lineage.digest() == checkpoint.lineage {
            true if target.usn < held.0.usn => Verdict::Obsolete,
            true => Verdict::Apply(checkpoint),
            false if asked.refresh && is_signed(manifest, &checkpoint) => Verdict::Apply(checkpoint),
            false => Verdict::Parted,
        };
    }
    if !is_signed(manifest, &checkpoint) {
        return refuse_lineage();
    }
    match manifest.lineage.end_of(&held.0) {
        // The master held something else where we stand.
        Some((end, digest)) if *end == held.0 && *digest != held.1 && !asked.whole => Verdict::Differs,
        Some(_) => Verdict::Apply(checkpoint),
        None if asked.refresh => Verdict::Apply(checkpoint),
        None => Verdict::Parted,
    }
}

/// Whether the lineage that the carrier tells is the one that the master signed.
fn is_signed(manifest: &Manifest, checkpoint: &Checkpoint) -> bool {
    manifest.lineage.digest() == checkpoint.lineage
}

fn refuse_lineage() -> Verdict {
    Verdict::Refuse("the history that it tells is not the one that its master signed".into())
}
