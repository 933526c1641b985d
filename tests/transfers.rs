//! The test vectors of transfers, for whoever implements bridgehead-replication(7).
//!
//! `tests/vectors/README` says what each file is. `BRIDGEHEAD_REWRITE=1` writes them anew, which is right only when the
//! format changed on purpose: another version of ours must still read these. `tests/vectors/transfer.py` applies them
//! with nothing of ours but the specification.

use std::path::PathBuf;
use std::process::Command;

use bridgehead::directory::commit::Commit;
use bridgehead::directory::context::{context_by_number, create_context, put_context};
use bridgehead::directory::ldif::Reader;
use bridgehead::directory::memory::{MemoryStore, MemoryTransaction};
use bridgehead::directory::{ContextRecord, Dn, Position, Read, Table};
use bridgehead::replication::checkpoint::{Checkpoint, SignedCheckpoint};
use bridgehead::replication::transfer::{
    Base, Encoded, Manifest, TransferError, apply, dictionary_of_run, encode, encode_repair,
};
use bridgehead::replication::verify::{self, Answer};
use ed25519_dalek::SigningKey;
use uuid::Uuid;

const BEFORE: &str = r#"version: 1
dn: ou=Paris,o=Example
objectClass: organizationalUnit
ou: Paris

dn: ou=People,ou=Paris,o=Example
objectClass: organizationalUnit
ou: People

dn: cn=everybody,ou=Paris,o=Example
objectClass: groupOfNames
cn: everybody
owner: uid=zoe.lefevre,ou=People,ou=Paris,o=Example
MEMBERS
dn: uid=zoe.lefevre,ou=People,ou=Paris,o=Example
objectClass: inetOrgPerson
uid: zoe.lefevre
cn: Zoé Lefèvre
displayName: Zoé Lefèvre (Paris)
givenName: Zoé
sn: Lefèvre
mail: zoe.lefevre@example.com
mail: zoe.lefevre@paris.example.com
telephoneNumber: +33 12 345 6789
jpegPhoto:: /9j/4AAQSkZJRgABAQ==

dn: uid=anna.brown,ou=People,ou=Paris,o=Example
objectClass: inetOrgPerson
uid: anna.brown
cn: Anna Brown
displayName: Anna Brown
givenName: Anna
sn: Brown
mail: anna.brown@example.com
telephoneNumber: +33 98 765 4321
manager: uid=zoe.lefevre,ou=People,ou=Paris,o=Example

dn: cn=Smith\, John,ou=People,ou=Paris,o=Example
objectClass: inetOrgPerson
cn: Smith, John
displayName: John Smith
givenName: John
sn: Smith
mail: john.smith@example.com
telephoneNumber: +33 11 222 3333
manager: uid=zoe.lefevre,ou=People,ou=Paris,o=Example
"#;

const CHANGES: &str = r#"version: 1
dn: ou=People,ou=Paris,o=Example
changetype: modrdn
newrdn: ou=Staff
deleteoldrdn: 1

dn: uid=zoe.lefevre,ou=Staff,ou=Paris,o=Example
changetype: modify
replace: telephoneNumber
telephoneNumber: +33 12 345 6780
-
delete: jpegPhoto
-

dn: cn=Smith\, John,ou=Staff,ou=Paris,o=Example
changetype: delete

dn: uid=new.hire,ou=Staff,ou=Paris,o=Example
changetype: add
objectClass: inetOrgPerson
uid: new.hire
cn: New Hire
sn: Hire
mail: new.hire@example.com
manager: uid=anna.brown,ou=Staff,ou=Paris,o=Example

dn: cn=everybody,ou=Paris,o=Example
changetype: modify
delete: member
member: uid=person07,o=Elsewhere
-
add: member
member: uid=new.hire,ou=Staff,ou=Paris,o=Example
-
"#;

const CHANGE_BACK: &str = r#"version: 1
dn: uid=new.hire,ou=Staff,ou=Paris,o=Example
changetype: modify
delete: title
-
"#;

const LATER: &str = r#"version: 1
dn: uid=new.hire,ou=Staff,ou=Paris,o=Example
changetype: modify
add: title
title: Apprentice
-
"#;

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "vectors", name].iter().collect()
}

fn before() -> String {
    let members: String = (0..40).map(|n| format!("member: uid=person{n:02},o=Elsewhere\n")).collect();
    // Nothing happens to these; a dictionary is drawn from some of them.
    let colleagues = (10..22).map(|n| {
        format!(
            "\ndn: uid=colleague{n},ou=People,ou=Paris,o=Example\nobjectClass: inetOrgPerson\nuid: colleague{n}\n\
             cn: Colleague {n}\nsn: Colleague\nmail: colleague{n}@example.com\ntitle: {title}\n\
             telephoneNumber: +33 {n} 555 {n}{n}\ndescription: {description}\n\
             manager: uid=anna.brown,ou=People,ou=Paris,o=Example\n",
            title = ["Engineer", "Buyer, level 1 2 3 4 5"][n % 2],
            description = "long ".repeat(n),
        )
    });
    BEFORE.replace("MEMBERS\n", &format!("{members}\n")) + &colleagues.collect::<String>()
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[0x42; 32])
}

fn new_store() -> MemoryStore {
    let mut store = MemoryStore::new();
    let mut tx = store.begin();
    let invocation = Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
    create_context(&mut tx, &Dn::parse("ou=Paris,o=Example").unwrap(), "paris", invocation).unwrap();
    tx.commit();
    store
}

fn record(read: &dyn Read) -> ContextRecord {
    context_by_number(read, 1).unwrap().unwrap()
}

fn commit(store: &mut MemoryStore, ldif: &str, batch: u8) {
    let mut tx = store.begin();
    let mut commit = Commit::begin(&mut tx, 1, [batch; 12]).unwrap();
    for change in Reader::new(ldif.as_bytes()) {
        commit.apply(&change.unwrap().1).unwrap();
    }
    commit.finish().unwrap();
    tx.commit();
}

fn checkpoint(now: &ContextRecord) -> SignedCheckpoint {
    Checkpoint::of(now, "2026-11-22T14:00:00Z".parse().unwrap()).sign(&key())
}

fn applied(store: &mut MemoryStore, name: &str) -> Position {
    let (manifest, body) =
        (std::fs::read(path(&format!("{name}.manifest"))), std::fs::read(path(&format!("{name}.body"))));
    let manifest = Manifest::from_bytes(&manifest.unwrap()).unwrap();
    let proved = manifest.checkpoint.verify(&key().verifying_key()).unwrap();
    let mut tx: MemoryTransaction = store.begin();
    let context = record(&tx);
    apply(&mut tx, &context, &manifest, &proved, &mut &body.unwrap()[..]).unwrap();
    tx.commit();
    proved.position
}

/// The octets of a body, decompressed with the dictionary in a file beside it, if there is one.
fn chunks_of(name: &str, body: &[u8]) -> Vec<u8> {
    let dictionary = std::fs::read(path(&format!("{name}.dictionary"))).unwrap_or_default();
    let decompressor = zstd::bulk::Decompressor::with_dictionary(&dictionary);
    decompressor.unwrap().decompress(body, 1 << 20).unwrap()
}

fn write_dictionary(name: &str, transfer: &Encoded, base: &MemoryStore) {
    let Some(run) = transfer.manifest.dictionary else { return };
    let dictionary = dictionary_of_run(base, &record(base), run).unwrap().unwrap();
    std::fs::write(path(&format!("{name}.dictionary")), dictionary).unwrap();
}

fn write(name: &str, transfer: &Encoded) {
    let chunks = chunks_of(name, &transfer.body);
    for (kind, octets) in
        [("manifest", &transfer.manifest.to_bytes().unwrap()), ("body", &transfer.body), ("chunks", &chunks)]
    {
        std::fs::write(path(&format!("{name}.{kind}")), octets).unwrap();
    }
}

/// The master before and after the changes, and in its next life.
fn masters() -> (MemoryStore, MemoryStore, MemoryStore) {
    let mut store = new_store();
    commit(&mut store, &before(), 0xa1);
    let first = store.clone();
    commit(&mut store, CHANGES, 0xb2);
    let second = store.clone();
    for (life, changes) in [(0x1112, LATER), (0x2122, CHANGE_BACK)] {
        let mut next = record(&store);
        next.lineage.push(next.position, next.digest);
        next.position.invocation = Uuid::from_u128(life);
        let mut tx = store.begin();
        put_context(&mut tx, &next).unwrap();
        tx.commit();
        commit(&mut store, changes, life as u8);
    }
    (first, second, store)
}

fn rewrite() {
    let (first, master, later) = masters();
    let (old, now) = (record(&first), record(&master));
    write("full", &encode(&first, &old, None, &checkpoint(&old)).unwrap().unwrap());
    let delta = encode(&master, &now, Some(old.position), &checkpoint(&now)).unwrap().unwrap();
    write_dictionary("delta", &delta, &first);
    write("delta", &delta);
    let end = record(&later);
    let onward = encode(&later, &end, Some(now.position), &checkpoint(&end)).unwrap().unwrap();
    write_dictionary("onward", &onward, &master);
    write("onward", &onward);
    let question = verify::begin(&first, &old).unwrap();
    let Answer::Differ(differ) =
        verify::answer(&master, &now, &question, true, verify::MESSAGE_BYTES_MAX).unwrap()
    else {
        panic!("so few entries are told at once");
    };
    write("repair", &encode_repair(&master, &now, &differ.theirs, &differ.ours, &checkpoint(&now)).unwrap());
    std::fs::write(path("verify.digests"), question).unwrap();
}

#[test]
fn the_vectors_lead_to_their_checkpoints() {
    if std::env::var_os("BRIDGEHEAD_REWRITE").is_some() {
        rewrite();
    }
    let (first, master, later) = masters();
    let mut replica = new_store();
    assert_eq!(applied(&mut replica, "full"), record(&first).position);
    assert_eq!(record(&replica).digest, record(&first).digest);
    let mut other = replica.clone();
    assert_eq!(applied(&mut replica, "delta"), record(&master).position);
    assert_eq!(record(&replica).digest, record(&master).digest);
    assert_eq!(applied(&mut replica, "onward"), record(&later).position);
    assert_eq!(record(&replica).digest, record(&later).digest);
    applied(&mut other, "repair");
    assert_eq!(record(&other).digest, record(&master).digest);
    for (name, base) in [("full", false), ("delta", true), ("repair", false), ("onward", true)] {
        let manifest = std::fs::read(path(&format!("{name}.manifest"))).unwrap();
        let manifest = Manifest::from_bytes(&manifest).unwrap();
        assert_eq!(matches!(manifest.base, Base::At(..)), base);
        assert_eq!(manifest.dictionary.is_some(), name == "delta", "{name}");
        let body = std::fs::read(path(&format!("{name}.body"))).unwrap();
        let chunks = std::fs::read(path(&format!("{name}.chunks"))).unwrap();
        assert_eq!(chunks_of(name, &body), chunks, "{name}");
    }
    let question = std::fs::read(path("verify.digests")).unwrap();
    let answer =
        verify::answer(&master, &record(&master), &question, true, verify::MESSAGE_BYTES_MAX).unwrap();
    assert!(matches!(answer, Answer::Differ(_)), "{answer:?}");
    assert_eq!(
        verify::answer(&first, &record(&first), &question, true, verify::MESSAGE_BYTES_MAX).unwrap(),
        Answer::Equal(Some(vec![1, 2, 0]))
    );
}

/// Signed, and yet not what its body leads to.
#[test]
fn a_transfer_that_does_not_lead_to_its_checkpoint_changes_nothing() {
    let (mut replica, master, _) = masters();
    let (held, now) = (record(&replica), record(&master));
    for base in [Some(held.position), None] {
        let transfer = encode(&master, &now, base, &checkpoint(&now)).unwrap().unwrap();
        let said = transfer.manifest.checkpoint.claimed().unwrap();
        let said = Checkpoint { entries: said.entries + 1, ..said };
        let manifest = Manifest { checkpoint: said.sign(&key()), ..transfer.manifest };
        let before = records(&replica);
        let mut tx = replica.begin();
        let refused = apply(&mut tx, &held, &manifest, &said, &mut &transfer.body[..]);
        assert!(matches!(refused, Err(TransferError::Mismatch(_))), "{refused:?}");
        tx.commit();
        assert!(records(&replica) == before, "something of it is left");
    }
}

/// Everything that a store holds.
fn records(store: &MemoryStore) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    for table in Table::ALL {
        let visit = &mut |key: &[u8], value: &[u8]| {
            found.push((table, key.to_vec(), value.to_vec()));
            true
        };
        store.scan(table, &[], &[0xff; 80], visit).unwrap();
    }
    found
}

#[test]
fn a_program_that_is_not_ours_applies_them() {
    let done = Command::new("python3").arg(path("transfer.py")).output().expect("python3 is installed");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    let (first, master, later) = masters();
    let expected = [
        ("full", record(&first)),
        ("delta", record(&master)),
        ("repair", record(&master)),
        ("onward", record(&later)),
    ]
    .map(|(name, record)| format!("{name}: {} entries, digest {}\n", record.entries, record.digest));
    assert_eq!(said, expected.concat());
}
