//! What changed between two states of an entry's attributes, at the grain that travels.
//!
//! PROMISES
//!   Whoever holds the old attributes and learns the new state of what is named here has the new
//!   attributes, values in order.

use std::collections::HashSet;

use uuid::Uuid;

use super::attributes::{Attribute, Attributes, by_name};
use super::log::Touched;
use crate::limits::WHOLE_ATTRIBUTE_VALUES_MAX;

/// Names the attributes of `uuid` that differ, and of large ones the values that do.
pub fn difference(uuid: Uuid, old: &Attributes, new: &Attributes, touch: &mut dyn FnMut(Touched)) {
    let mut olds = old.iter().peekable();
    let mut news = new.iter().peekable();
    loop {
        let order = match (olds.peek(), news.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => by_name(a.name(), b.name()),
        };
        let old = if order.is_le() { olds.next() } else { None };
        let new = if order.is_ge() { news.next() } else { None };
        match (old, new) {
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) if by_value(uuid, old, new, touch) => {}
            (Some(attribute), _) | (_, Some(attribute)) => {
                touch(Touched::Attribute(uuid, attribute.name().to_owned()));
            }
            (None, None) => {}
        }
    }
}

/// Names the values that differ, if the attribute is large and its new values are old ones in their
/// order with others behind them.
fn by_value(uuid: Uuid, old: &Attribute, new: &Attribute, touch: &mut dyn FnMut(Touched)) -> bool {
    let many = old.values().len().max(new.values().len()) > WHOLE_ATTRIBUTE_VALUES_MAX;
    if !many || old.name() != new.name() {
        return false;
    }
    let before: HashSet<&[u8]> = old.values().iter().map(Vec::as_slice).collect();
    let after: HashSet<&[u8]> = new.values().iter().map(Vec::as_slice).collect();
    let kept = old.values().iter().filter(|value| after.contains(value.as_slice()));
    let kept_count = kept.clone().count();
    let appended = &new.values()[kept_count..];
    if !kept.eq(&new.values()[..kept_count]) || appended.iter().any(|value| before.contains(value.as_slice()))
    {
        return false;
    }
    let name = new.name();
    for value in old.values().iter().filter(|value| !after.contains(value.as_slice())).chain(appended) {
        touch(Touched::Value(uuid, name.to_owned(), value.clone()));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_members(members: &[u32]) -> Attributes {
        let values = members.iter().map(|n| ("member", n.to_string().into_bytes()));
        Attributes::from_pairs(values.chain([("cn", b"g".to_vec())])).unwrap()
    }

    fn touches(old: &Attributes, new: &Attributes) -> Vec<Touched> {
        let mut touches = Vec::new();
        difference(Uuid::nil(), old, new, &mut |touched| touches.push(touched));
        touches
    }

    #[test]
    fn large_attributes_are_told_value_by_value() {
        let many: Vec<u32> = (0..40).collect();
        let mut new = many.clone();
        new.remove(3);
        new.push(99);
        let value = |n: u32| Touched::Value(Uuid::nil(), "member".into(), n.to_string().into_bytes());
        assert_eq!(touches(&with_members(&many), &with_members(&new)), [value(3), value(99)]);
        let whole = [Touched::Attribute(Uuid::nil(), "member".into())];
        new.swap(0, 1);
        assert_eq!(touches(&with_members(&many), &with_members(&new)), whole, "the order changed");
        new.swap(0, 1);
        new.insert(0, 98);
        assert_eq!(touches(&with_members(&many), &with_members(&new)), whole, "a value came in front");
        assert_eq!(touches(&with_members(&many[..5]), &with_members(&many[..6])), whole, "few values");
        let mut moved = many.clone();
        moved.rotate_left(1);
        assert_eq!(touches(&with_members(&many), &with_members(&moved)), whole, "a value was moved");
    }

    #[test]
    fn added_removed_and_respelled_attributes_are_named() {
        let of = |pairs: &[(&str, &str)]| {
            Attributes::from_pairs(pairs.iter().map(|(n, v)| (*n, v.as_bytes().to_vec()))).unwrap()
        };
        let old = of(&[("a", "1"), ("b", "1"), ("c", "1"), ("e", "1")]);
        let new = of(&[("A", "1"), ("b", "1"), ("d", "1"), ("e", "2")]);
        let names: Vec<_> = touches(&old, &new)
            .into_iter()
            .map(|touched| match touched {
                Touched::Attribute(_, name) => name.to_ascii_lowercase(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(names, ["a", "c", "d", "e"]);
        assert_eq!(touches(&old, &old), []);
    }
}
