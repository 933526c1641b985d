//! Whether a transfer may be applied, by what its manifest says and who signed it.
//!
//! PROMISES
//!   Only what the master of the naming context signed is applied, whoever carried it. A replica goes onward in
//!   its master's history: within an invocation to higher USNs, from one invocation to another only along a
//!   history that passes where the replica stands.

use super::turn::{Turn, point};
use crate::directory::{Position, StoreError};
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

impl Turn<'_> {
    /// Decides on a transfer by its manifest alone. `whole`: what we hold was found to be wrong, so a
    /// full load of the same position counts as progress.
    pub(super) fn judge(
        &mut self,
        manifest: &Manifest,
        said: &Checkpoint,
        ancestors: &[Point],
        (whole, repairing): (bool, bool),
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
        let Some(record) = self.context(&name).cloned() else {
            let fits = manifest.base == Base::Nothing;
            return Ok(if fits { Verdict::Apply(checkpoint) } else { Verdict::Wait });
        };
        let target = checkpoint.position;
        let Some((position, digest)) = point(&record) else {
            let fits = manifest.base == Base::Nothing;
            return Ok(if fits { Verdict::Apply(checkpoint) } else { Verdict::Wait });
        };
        let here = target == position;
        if manifest.base == Base::Repair && !repairing {
            return Ok(Verdict::Refuse("nobody asked for a repair".into()));
        }
        let again = here && ((whole && manifest.base == Base::Nothing) || manifest.base == Base::Repair);
        if record.is_on_history(&target) && !again {
            return Ok(Verdict::Obsolete);
        }
        Ok(match manifest.base {
            Base::At(base, base_digest) if base == position && base_digest == digest => {
                let back = target.invocation == position.invocation && target.usn < position.usn;
                if back { Verdict::Obsolete } else { Verdict::Apply(checkpoint) }
            }
            // The sender proved our position and found something else there.
            Base::At(base, _) if base == position => Verdict::Differs,
            Base::At(base, _) if record.is_on_history(&base) => Verdict::Obsolete,
            Base::At(..) => Verdict::Wait,
            Base::Nothing if here => Verdict::Apply(checkpoint),
            Base::Nothing if ours => Verdict::Merge(checkpoint),
            Base::Nothing if whole || leads_from(ancestors, &target, &position) => Verdict::Apply(checkpoint),
            Base::Nothing => Verdict::Parted,
            Base::Repair => Verdict::Apply(checkpoint),
        })
    }
}

/// Whether a history with these ancestors that stands at `target` passed `position` before.
fn leads_from(ancestors: &[Point], target: &Position, position: &Position) -> bool {
    let passed = |end: &Position| end.invocation == position.invocation && position.usn <= end.usn;
    passed(target) || ancestors.iter().any(|(end, _)| passed(end))
}
