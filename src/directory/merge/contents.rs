//! What is in an entry that both states have.
//!
//! PROMISES
//!   At the grain that the log knows: an attribute that was touched here is as it is here, of a large one each value
//!   that was touched; everything else is as it is there. The values that name the entry are in it, wherever it was named.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::Kept;
use crate::directory::attributes::Attributes;
use crate::directory::difference::difference;
use crate::directory::dn::Rdn;
use crate::directory::entry::Entry;
use crate::directory::log::{AttributeTouch, Touched, Touches};
use crate::limits::ENTRY_BYTES_MAX;

pub(super) struct Merged {
    pub entry: Entry,
    pub kept: Vec<Kept>,
}

/// What was touched here in an entry that both have.
pub(super) enum Touch<'s> {
    Nothing,
    /// And the attributes of which a value was touched more than once.
    Parts(&'s Touches, Option<&'s BTreeSet<String>>),
    /// It came since, or nobody knows.
    Whole,
}

/// `theirs` hangs where the entry is to hang if it `has_their_name`.
pub(super) fn merged(ours: &Entry, theirs: Entry, touch: &Touch<'_>, has_their_name: bool) -> Merged {
    let (mut attributes, mut differ) = match touch {
        Touch::Nothing => (theirs.attributes.clone(), BTreeSet::new()),
        Touch::Parts(touches, again) if !class_differs(touches, ours, &theirs) => {
            by_attribute(touches, *again, ours, &theirs)
        }
        Touch::Parts(..) | Touch::Whole => {
            (ours.attributes.clone(), differing(&ours.attributes, &theirs.attributes))
        }
    };
    if ours.rdn != theirs.rdn && has_their_name {
        name_values(&mut attributes, &theirs);
    } else if ours.rdn != theirs.rdn {
        keep_name_values(&mut attributes, &mut differ, ours, &theirs);
    }
    let (parent, rdn) = match has_their_name {
        true => (theirs.parent, &theirs.rdn),
        false => (ours.parent, &ours.rdn),
    };
    let mut kept = Vec::new();
    if !differ.is_empty() {
        kept.push(Kept::Attributes(differ.into_iter().collect()));
    }
    let entry = Entry { uuid: ours.uuid, parent, rdn: rdn.clone(), attributes };
    let why = match entry.attributes.is_empty() {
        false if entry.encode().len() <= ENTRY_BYTES_MAX => return Merged { entry, kept },
        false => Kept::TooLarge,
        true => Kept::Empty,
    };
    kept.push(why);
    let mut entry = Entry { attributes: ours.attributes.clone(), ..entry };
    if has_their_name {
        name_values(&mut entry.attributes, &theirs);
        if entry.encode().len() > ENTRY_BYTES_MAX {
            // Without the values of its name it was no larger than an entry may be, and so is what is there.
            entry.attributes = theirs.attributes;
        }
    }
    Merged { entry, kept }
}

fn class_differs(touches: &Touches, ours: &Entry, theirs: &Entry) -> bool {
    let class = "objectclass";
    touches.attributes.contains_key(class)
        && ours.attributes.attribute(class) != theirs.attributes.attribute(class)
}

/// Also which attributes stay as they are here though they differ.
fn by_attribute(
    touches: &Touches,
    again: Option<&BTreeSet<String>>,
    ours: &Entry,
    theirs: &Entry,
) -> (Attributes, BTreeSet<String>) {
    let (mut merged, mut differ) = (theirs.attributes.clone(), BTreeSet::new());
    for (name, touch) in &touches.attributes {
        let own = ours.attributes.attribute(name);
        if own == merged.attribute(name) {
            continue;
        }
        let done = match touch {
            // A value is there or is not: what was done to it here once was not done to it there.
            AttributeTouch::Values(values) => {
                let touched: Vec<Vec<u8>> = values.iter().cloned().collect();
                let of = |attributes: &Attributes| -> Vec<Vec<u8>> {
                    attributes.values(name).iter().filter(|value| values.contains(*value)).cloned().collect()
                };
                let (here, there) = (of(&ours.attributes), of(&theirs.attributes));
                let same = here.iter().collect::<BTreeSet<_>>() == there.iter().collect();
                if !same && again.is_some_and(|again| again.contains(name)) {
                    differ.insert(name.clone());
                }
                merged.remove_values(name, &touched);
                let spelled = own.map_or(name.as_str(), |own| own.name());
                if here.is_empty() { Ok(()) } else { merged.append(spelled, here) }
            }
            AttributeTouch::Whole => {
                differ.insert(name.clone());
                match own {
                    Some(own) => merged.set(own.clone()),
                    None => {
                        merged.remove(name);
                        Ok(())
                    }
                }
            }
        };
        if done.is_err() {
            // More attributes than an entry may have.
            return (ours.attributes.clone(), differing(&ours.attributes, &theirs.attributes));
        }
    }
    (merged, differ)
}

/// The names of the attributes that differ.
fn differing(ours: &Attributes, theirs: &Attributes) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    difference(Uuid::nil(), ours, theirs, &mut |touched| {
        if let Touched::Attribute(_, name) | Touched::Value(_, name, _) = touched {
            names.insert(name.to_ascii_lowercase());
        }
    });
    names
}

/// The entry gets its name from there, and with it the values that it has there for that.
fn name_values(attributes: &mut Attributes, theirs: &Entry) {
    for (name, value) in theirs.rdn.pairs() {
        let has = |attributes: &Attributes| attributes.values(name).contains(&value);
        if has(&theirs.attributes) && !has(attributes) {
            // What has no room for it is too large as it is.
            let _ = attributes.append(name, vec![value.clone()]);
        }
    }
}

/// The entry keeps its name, and what names it or named it. Beyond the name itself that may differ.
fn keep_name_values(
    attributes: &mut Attributes,
    differ: &mut BTreeSet<String>,
    ours: &Entry,
    theirs: &Entry,
) {
    let named = |rdn: &Rdn| -> BTreeSet<String> {
        rdn.pairs().iter().map(|(name, _)| name.to_ascii_lowercase()).collect()
    };
    for name in &named(&ours.rdn) | &named(&theirs.rdn) {
        match ours.attributes.attribute(&name) {
            Some(own) => drop(attributes.set(own.clone())),
            None => drop(attributes.remove(&name)),
        }
        if others(ours, &name) == others(theirs, &name) {
            differ.remove(&name);
        } else {
            differ.insert(name);
        }
    }
}

/// The values of an attribute but for the one that names the entry.
fn others<'e>(entry: &'e Entry, name: &str) -> BTreeSet<&'e Vec<u8>> {
    let pairs = entry.rdn.pairs();
    let names_it = |value: &Vec<u8>| pairs.iter().any(|(of, v)| of.eq_ignore_ascii_case(name) && v == value);
    entry.attributes.values(name).iter().filter(|value| !names_it(value)).collect()
}
