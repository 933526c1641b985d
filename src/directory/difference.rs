//! What changed between two states of an entry's attributes, at the grain that travels.
//!
//! PROMISES
//!   Whoever holds the old attributes and learns the new state of what is named here has the new
//!   attributes, values in order. What is told value by value is never more values than the attribute has.
//!   Of an attribute with many values, which are a set to their writer, those that stay keep their places
//!   ([`keep_order`]): one member costs the same wherever in a sorted list it was written.
//! STANDARDS
//!   RFC 4511 section 4.1.7: the values of an attribute have no order. That of a few values is kept as written all the
//!   same, for people and programs read meaning into it: the first `mail`.

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

/// Gives the values of large attributes the order that they have in `old`, and puts the others behind them in the order
/// that they came in.
pub fn keep_order(old: &Attributes, new: &mut Attributes) {
    for attribute in new.iter_mut() {
        let before = old.values(&attribute.name);
        if !is_large(before, &attribute.values) || attribute.values.starts_with(before) {
            continue;
        }
        let (held, now): (HashSet<&Vec<u8>>, HashSet<&Vec<u8>>) =
            (before.iter().collect(), attribute.values.iter().collect());
        let kept = before.iter().filter(|value| now.contains(value));
        let fresh = attribute.values.iter().filter(|value| !held.contains(value));
        attribute.values = kept.chain(fresh).cloned().collect();
    }
}

fn is_large(old: &[Vec<u8>], new: &[Vec<u8>]) -> bool {
    old.len().max(new.len()) > WHOLE_ATTRIBUTE_VALUES_MAX
}

/// Names the values that differ, if the attribute is large, its new values are old ones in their order with others
/// behind them, and those that differ are not more than there are.
fn by_value(uuid: Uuid, old: &Attribute, new: &Attribute, touch: &mut dyn FnMut(Touched)) -> bool {
    if !is_large(old.values(), new.values()) || old.name() != new.name() {
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
    if old.values().len() - kept_count > kept_count {
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
    fn many_values_keep_their_places_and_few_are_as_written() {
        let kept = |old: &[u32], new: &[u32]| {
            let mut attributes = with_members(new);
            keep_order(&with_members(old), &mut attributes);
            attributes
        };
        let many: Vec<u32> = (0..40).rev().collect();
        let mut sorted: Vec<u32> = (0..40).filter(|n| *n != 7).chain([98, 99]).collect();
        sorted.swap(3, 39);
        let expected: Vec<u32> = (0..40).rev().filter(|n| *n != 7).chain([98, 99]).collect();
        assert_eq!(kept(&many, &sorted), with_members(&expected));
        let value = |n: u32| Touched::Value(Uuid::nil(), "member".into(), n.to_string().into_bytes());
        assert_eq!(touches(&with_members(&many), &with_members(&expected)), [value(7), value(98), value(99)]);
        assert_eq!(kept(&[1, 2, 3], &[3, 2, 9, 1]), with_members(&[3, 2, 9, 1]), "few");
        let others: Vec<u32> = (100..140).collect();
        assert_eq!(kept(&many, &others), with_members(&others), "others altogether");
    }

    #[test]
    fn where_most_values_differ_the_attribute_is_told_whole() {
        let (many, whole) = ((0..60).collect::<Vec<u32>>(), Touched::Attribute(Uuid::nil(), "member".into()));
        let told = |new: &[u32]| touches(&with_members(&many), &with_members(new));
        assert_eq!(told(&many[30..]).len(), 30, "half of them went");
        assert_eq!(told(&many[31..]), [whole], "more than are left");
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
