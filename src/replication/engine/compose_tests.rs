//! How messages are filled.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::directory::{Digest, Position};
use crate::replication::parts::Part;
use crate::replication::wire::{Standing, VectorItem};

const CONTEXT: &str = "ou=paris,o=Example";

fn position() -> Position {
    Position { invocation: Uuid::from_u128(u128::MAX), usn: u64::MAX }
}

fn vector(items: usize) -> Vec<VectorItem> {
    let item = |number: usize| VectorItem {
        context: format!("ou=site{number:04},o=Example"),
        position: Some(position()),
        digest: Some(Digest([0xff; 32])),
        standing: Standing::Follows,
    };
    (0..items).map(item).collect()
}

fn digests(bytes: usize) -> DigestItem {
    DigestItem { context: CONTEXT.into(), position: position(), body: vec![1; bytes].into() }
}

fn part(index: u32, bytes: usize) -> PartItem {
    let transfer = TransferId([0xff; 16]);
    let part = Part { transfer, index, count: u32::MAX, manifest: Vec::new(), bytes: vec![1; bytes] };
    PartItem { context: CONTEXT.into(), part }
}

proptest! {
    /// Whatever is due at once: the vector, questions and introductions in the first message, digests, parts.
    #[test]
    fn no_message_is_larger_than_the_limit_and_nothing_is_left_out(
        limit in 16_384_u64..100_000,
        contexts in 0_usize..60,
        introductions in 0_usize..8,
        compared in prop::collection::vec(0.0..1.0, 0..4),
        parts in prop::collection::vec(0.0..1.0, 0..12),
    ) {
        let bare = Message::new(vector(contexts));
        // As `item_limit` says.
        let names = contexts * ("ou=site0000,o=Example".len() + VECTOR_ITEM_BYTES);
        let most = limit - ((names + OVERHEAD_BYTES + ITEM_BYTES) as u64).min(limit / 2);
        let sized = |share: &f64| (most as f64 * share) as usize;
        let mut first = bare.clone();
        first.introductions = vec!["x".repeat(1_000); introductions];
        let mut packing = Packing::new(first, &bare, limit);
        compared.iter().for_each(|share| packing.digests(digests(sized(share))));
        parts.iter().zip(0..).for_each(|(share, index)| packing.part(part(index, sized(share))));
        let messages = packing.messages;

        for message in &messages {
            let bytes = message.encode().len();
            prop_assert!(bytes as u64 <= limit, "{bytes} of {limit}");
        }
        prop_assert_eq!(messages.iter().map(|message| message.digests.len()).sum::<usize>(), compared.len());
        let indices: Vec<u32> =
            messages.iter().flat_map(|message| &message.parts).map(|item| item.part.index).collect();
        prop_assert_eq!(indices, (0..parts.len() as u32).collect::<Vec<_>>());
        let says = |message: &&Message| !message.parts.is_empty() || !message.digests.is_empty();
        prop_assert!(messages.iter().skip(1).all(|message| says(&message)), "a message says nothing");
    }
}

#[test]
fn what_fits_leaves_together() {
    let bare = Message::new(vector(2));
    let mut packing = Packing::new(bare.clone(), &bare, 16_384);
    packing.digests(digests(4_000));
    (0..3).for_each(|index| packing.part(part(index, 3_000)));
    assert_eq!(packing.messages.len(), 1);
}
