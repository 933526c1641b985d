//! Whether a transfer may be applied, by what its manifest says and who signed it.
//!
//! PROMISES
//!   Only what the master of the naming context signed is applied, whoever carried it. A replica goes onward in
//!   its master's history, along what the master signed and nothing else: within an invocation to higher
//!   USNs, from one invocation to another only if the lineage that its checkpoint names passes where the
//!   replica stands. A carrier that tells another lineage, or puts an old state behind a newer one, is refused.
//!   Two signed lineages of one invocation are a fork, which is reported and held.

use ed25519_dalek::VerifyingKey;

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
        let ours = self.masters(&name);
        let keys = self.keys_of(&name, ours);
        if keys.is_empty() {
            return Ok(Verdict::Refuse("no pinned card says who masters it".into()));
        }
        let proved = keys.iter().map(|key| manifest.checkpoint.verify(key));
        // Of several keys the first one's complaint is told: that is the present one.
        let checkpoint =
            match proved.reduce(|first, other| if first.is_ok() { first } else { other.or(first) }) {
                Some(Ok(checkpoint)) => checkpoint,
                Some(Err(error)) => return Ok(Verdict::Refuse(error.to_string())),
                None => return Ok(Verdict::Wait),
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

impl Turn<'_> {
    /// The keys whose word on a naming context counts now.
    fn keys_of(&self, name: &str, ours: bool) -> Vec<VerifyingKey> {
        if ours {
            let former = self.config.succession.former_keys.iter().copied();
            return std::iter::once(self.config.key.verifying_key()).chain(former).collect();
        }
        self.config.master(name).map_or_else(Vec::new, |master| master.keys(self.now).copied().collect())
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
pub(super) fn is_signed(manifest: &Manifest, checkpoint: &Checkpoint) -> bool {
    manifest.lineage.digest() == checkpoint.lineage
}

fn refuse_lineage() -> Verdict {
    Verdict::Refuse("the history that it tells is not the one that its master signed".into())
}
