use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn written(chunk: &Chunk, name_of: NameOf) -> (u8, Vec<u8>) {
    let mut out = Vec::new();
    chunk.clone().write(&mut out, name_of);
    let mut reader = Reader::new(&out);
    let kind = reader.octet().unwrap();
    let mut body = reader.stream().unwrap();
    assert!(reader.is_empty());
    (kind, body.octets(body.left()).unwrap().to_vec())
}

fn anonymous(_: u64) -> Vec<u8> {
    Vec::new()
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..50, any::<u32>().prop_map(u64::from)]
}

fn name() -> impl Strategy<Value = Name> {
    let rdn = prop_oneof!["uid=[a-z]{1,5}[.][a-z]{1,5}[0-9]{0,3}", "(cn|ou)=\\PC{1,9}", "cn=a[+]uid=b"];
    (proptest::option::of(number()), rdn).prop_map(|(parent, rdn)| Name { parent, rdn })
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => "[A-Z][a-z]{1,6} [A-Z][a-z]{1,6}".prop_map(|text| Value::Octets(text.into())),
        2 => "[+][0-9]{1,3} [0-9]{2} [0-9]{3,20}".prop_map(|text| Value::Octets(text.into())),
        1 => "([0-9]{1,2}[a-z]){0,6}".prop_map(|text| Value::Octets(text.into())),
        2 => number().prop_map(Value::Entry),
        1 => vec(any::<u8>(), 0..40).prop_map(Value::Octets),
    ]
}

/// A person whose values are made of one another, as they are in life.
fn derived() -> impl Strategy<Value = Vec<(String, Vec<Value>)>> {
    ("[A-Z][a-z]{2,6}", "[A-Z][a-zé]{2,6}", 0u32..40).prop_map(|(given, sn, room)| {
        let text = |text: String| vec![Value::Octets(text.into())];
        vec![
            ("cn".to_owned(), text(format!("{given} {sn}"))),
            ("mail".to_owned(), text(format!("{}.{}@example.com", given.to_lowercase(), sn.to_lowercase()))),
            ("roomNumber".to_owned(), text(format!("B{room}.{:02}", room % 7))),
            ("sn".to_owned(), text(sn)),
        ]
    })
}

fn record() -> impl Strategy<Value = Record> {
    let any_items = vec(("[a-d]", vec(value(), 0..12)), 0..5);
    let operation = prop_oneof![Just(Operation::Set), Just(Operation::Add), Just(Operation::Remove)];
    (number(), prop_oneof![derived(), any_items], operation).prop_map(|(number, items, operation)| {
        let mut items: Vec<Item> = items
            .into_iter()
            .map(|(attribute, values)| Item { attribute: attribute.into(), operation, values })
            .collect();
        items.sort_by_key(|item| item.attribute.to_lowercase());
        items.dedup_by(|a, b| a.attribute == b.attribute);
        Record { number, items }
    })
}

fn chunk() -> impl Strategy<Value = Chunk> {
    let uuid = prop_oneof![
        any::<u128>().prop_map(Uuid::from_u128),
        (0u32..99).prop_map(|ordinal| from_batch([0x85; 12], ordinal))
    ];
    prop_oneof![
        vec(uuid.clone(), 1..9).prop_map(Chunk::Bases),
        vec(number(), 1..9).prop_map(Chunk::Deleted),
        vec((number(), name()), 1..9).prop_map(Chunk::Renamed),
        vec((uuid, name()), 1..20).prop_map(Chunk::Added),
        vec(record(), 1..60).prop_map(Chunk::Contents),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(chunk in chunk()) {
        let name_of = |number: u64| format!("anna.brown{number}").into_bytes();
        let (kind, body) = written(&chunk, &name_of);
        prop_assert_eq!(Chunk::read(kind, &body, &name_of), Ok(chunk));
    }

    #[test]
    fn damage_is_an_error_or_another_chunk(chunk in chunk(), at: prop::sample::Index, with: u8, cut: bool) {
        let (kind, mut body) = written(&chunk, &anonymous);
        let at = at.index(body.len());
        if cut {
            body.truncate(at);
            // Bases may end after any of them.
            prop_assert!(kind == BASES || Chunk::read(kind, &body, &anonymous).is_err());
        } else {
            body[at] = with;
            if let Ok(read) = Chunk::read(kind, &body, &anonymous) {
                prop_assert!(read.len() <= CHUNK_RECORDS_MAX);
            }
        }
    }

    #[test]
    fn noise_is_no_chunk_or_a_harmless_one(kind in 0u8..8, body in vec(any::<u8>(), 0..300)) {
        let _ = Chunk::read(kind, &body, &anonymous);
    }
}

fn person(number: u64, attributes: &[(&str, &str)]) -> Record {
    let item = |(attribute, text): &(&str, &str)| Item {
        attribute: (*attribute).into(),
        operation: Operation::Set,
        values: vec![Value::Octets(text.as_bytes().to_vec())],
    };
    Record { number, items: attributes.iter().map(item).collect() }
}

#[test]
fn values_made_of_other_values_cost_next_to_nothing() {
    let people: Vec<Record> = (0..1000)
        .map(|n| {
            let (given, sn) =
                (format!("Anna{}", "abcdefgh".repeat(n % 3 + 1)), format!("Br{}own", "xyz".repeat(n % 5)));
            let cn = format!("{given} {sn}");
            person(n as u64, &[("cn", &cn), ("displayName", &cn), ("givenName", &given), ("sn", &sn)])
        })
        .collect();
    let only_cn: Vec<Record> =
        people.iter().map(|record| Record { items: record.items[..1].to_vec(), ..record.clone() }).collect();
    let all = written(&Chunk::Contents(people), &anonymous).1.len();
    let one = written(&Chunk::Contents(only_cn), &anonymous).1.len();
    // One octet a value says that the pattern is the one before.
    assert!(all < one + 3 * 1000 + 200, "{all} octets with, {one} without");
}
