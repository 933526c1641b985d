//! A site whose keys are in the wrong hands: what it sends is what an enemy would send in its place.

use bridgehead::directory::lineage::Lineage;
use bridgehead::directory::{Digest, Position};
use bridgehead::replication::parts;
use bridgehead::replication::transfer::{Base, Manifest};
use bridgehead::replication::wire::{Message, PartItem, Request, Standing};

use super::dice::Dice;

pub struct Malice {
    pub site: usize,
    /// What it carried once, signed by the masters.
    kept: Vec<PartItem>,
}

const KEPT_MAX: usize = 300;

impl Malice {
    pub fn new(site: usize) -> Malice {
        Malice { site, kept: Vec::new() }
    }

    /// What it makes of a message of its own, if anything.
    pub fn alter(&mut self, dice: &mut Dice, message: &mut Message) -> Option<&'static str> {
        self.kept.extend(message.parts.iter().cloned());
        if self.kept.len() > KEPT_MAX {
            self.kept.drain(..self.kept.len() - KEPT_MAX);
        }
        if !dice.percent(40) {
            return None;
        }
        let parts = !message.parts.is_empty();
        Some(match dice.below(8) {
            0 | 2 if parts && dice.percent(50) => rewrite_body(dice, message),
            0 if parts => self.alter_part(dice, message),
            1 if parts => {
                message.parts.clear();
                "withholds"
            }
            2 if parts => self.rewrite_manifest(dice, message),
            3 if message.hello.is_some() => {
                let hello = message.hello.as_mut()?;
                hello.part_bytes_max = *dice.pick(&[0, 1, 20_000, u64::MAX]);
                hello.card = format!("a card of nobody {}", dice.below(3));
                "forges a card"
            }
            4 | 5 => self.splice(dice, message),
            6 => ask(dice, message),
            _ => forge_vector(dice, message),
        })
    }

    fn alter_part(&self, dice: &mut Dice, message: &mut Message) -> &'static str {
        let at = dice.below(message.parts.len() as u64) as usize;
        let part = &mut message.parts[at].part;
        let octets = if dice.percent(50) { &mut part.bytes } else { &mut part.manifest };
        if !octets.is_empty() {
            let at = dice.below(octets.len() as u64) as usize;
            octets[at] ^= 1 << dice.below(8);
        }
        "alters a part"
    }

    /// What was signed once comes again, as it was or with what did not belong to it.
    fn splice(&self, dice: &mut Dice, message: &mut Message) -> &'static str {
        if self.kept.is_empty() {
            return "has nothing to splice";
        }
        let old = dice.pick(&self.kept).clone();
        let of = |item: &&PartItem| item.part.transfer == old.part.transfer;
        message.parts.extend(self.kept.iter().filter(of).cloned());
        "splices"
    }

    /// The signed state stays, what the transfer claims about itself does not.
    fn rewrite_manifest(&self, dice: &mut Dice, message: &mut Message) -> &'static str {
        let at = dice.below(message.parts.len() as u64) as usize;
        let item = &message.parts[at];
        let Ok(mut manifest) = Manifest::from_bytes(&item.part.manifest) else { return "cannot rewrite" };
        if item.part.count > 1 {
            return "cannot rewrite";
        }
        let base = match manifest.base {
            Base::At(position, digest) => (position, digest),
            Base::Nothing | Base::Repair => match manifest.checkpoint.claimed() {
                Ok(said) => (Position { usn: said.position.usn - 1, ..said.position }, said.digest),
                Err(_) => return "cannot rewrite",
            },
        };
        manifest.base = match dice.below(4) {
            0 => Base::Nothing,
            1 => Base::Repair,
            2 => Base::At(base.0, Digest(dice.bytes())),
            _ => Base::At(Position { usn: base.0.usn.saturating_sub(1), ..base.0 }, base.1),
        };
        if let Some(other) = self.kept.iter().rev().find(|kept| kept.context == item.context)
            && dice.percent(30)
            && let Ok(other) = Manifest::from_bytes(&other.part.manifest)
        {
            manifest.checkpoint = other.checkpoint;
        }
        match dice.below(4) {
            0 => manifest.lineage = Lineage::default(),
            1 => manifest.lineage.push(base.0, base.1),
            _ => {}
        }
        if let Ok(cut) = parts::cut(&manifest, &item.part.bytes, 60_000)
            && let [part] = &cut[..]
        {
            message.parts[at].part = part.clone();
        }
        "rewrites a manifest"
    }
}

/// What is signed stays; what is said to lead there is another thing, as well cut as any.
fn rewrite_body(dice: &mut Dice, message: &mut Message) -> &'static str {
    let at = dice.below(message.parts.len() as u64) as usize;
    let part = &message.parts[at].part;
    let (manifest, body) =
        (Manifest::from_bytes(&part.manifest), zstd::bulk::decompress(&part.bytes, 1 << 20));
    let (Ok(mut manifest), Ok(mut body)) = (manifest, body) else { return "cannot rewrite" };
    let letters: Vec<usize> = (0..body.len()).filter(|at| (b'a'..=b'y').contains(&body[*at])).collect();
    if part.count > 1 || letters.is_empty() {
        return "cannot rewrite";
    }
    body[*dice.pick(&letters)] += 1;
    let body = zstd::bulk::compress(&body, 1).expect("memory");
    manifest.body_bytes = body.len() as u64;
    if let Ok(cut) = parts::cut(&manifest, &body, 60_000)
        && let [part] = &cut[..]
    {
        message.parts[at].part = part.clone();
    }
    "rewrites a body"
}

/// Asks for what nobody misses.
fn ask(dice: &mut Dice, message: &mut Message) -> &'static str {
    for item in &message.vector {
        message.requests.push(Request {
            context: item.context.clone(),
            base: item.position.filter(|_| dice.percent(50)),
            base_digest: item.digest.filter(|_| dice.percent(50)),
            transfer: None,
            missing: Vec::new(),
        });
    }
    "asks for everything"
}

/// Claims to stand where it does not.
fn forge_vector(dice: &mut Dice, message: &mut Message) -> &'static str {
    if let Some(digest) = message.vector_digest.as_mut().filter(|_| dice.percent(50)) {
        digest[0] ^= 1;
        return "lies about its whole vector";
    }
    if message.vector.is_empty() {
        return "has no vector to forge";
    }
    let at = dice.below(message.vector.len() as u64) as usize;
    let item = &mut message.vector[at];
    let usn = item.position.map_or(1, |position| position.usn) + dice.below(5);
    match dice.below(6) {
        0 => item.position = item.position.map(|position| Position { usn, ..position }),
        1 => {
            let invocation = uuid::Uuid::from_bytes(dice.bytes());
            item.position = Some(Position { invocation, usn });
            item.digest = Some(Digest(dice.bytes()));
        }
        2 => item.digest = Some(Digest(dice.bytes())),
        3 => (item.position, item.digest) = (None, None),
        4 => item.standing = *dice.pick(&[Standing::Held, Standing::Forked, Standing::Recovering]),
        _ => drop(message.vector.remove(at)),
    }
    "forges its vector"
}
