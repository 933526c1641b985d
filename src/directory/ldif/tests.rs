//! LDIF: the RFC's examples, what is refused and where, and that writing is undone by reading.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::directory::attributes::Attributes;
use crate::directory::change::{Change, Modification, Operation};
use crate::directory::dn::{Dn, Rdn};
use crate::directory::histories::dn;

fn read(text: &[u8]) -> Result<Vec<(u64, Change)>, LdifError> {
    Reader::new(text).collect()
}

fn changes(text: &str) -> Vec<Change> {
    read(text.as_bytes()).unwrap().into_iter().map(|(_, change)| change).collect()
}

fn attributes(pairs: &[(&str, &str)]) -> Attributes {
    Attributes::from_pairs(pairs.iter().map(|(name, value)| (*name, value.as_bytes().to_vec()))).unwrap()
}

#[test]
fn content_records_of_the_rfc() {
    // Examples 1, 3 and 4 of RFC 2849, in part.
    let text = "version: 1\n\
        dn: cn=Barbara Jensen, ou=Product Development, dc=airius, dc=com\n\
        objectclass: top\nobjectclass: person\ncn: Barbara Jensen\ncn: Babs Jensen\n\
        description:Babs is a big sailing fan, and travels extensively in sea\n rch of perfect sailing conditions.\n\
        title:Product Manager, Rod and Reel Division\n\
        \n\
        # folded\n  comment\n\
        dn:: b3U95Za25qWt6YOoLG89QWlyaXVz\r\n\
        # ou=<JapaneseOU>,o=Airius\r\n\
        objectclass: top\r\nou:: 5Za25qWt6YOo\r\nou;lang-ja:: 5Za25qWt6YOo\r\n\
        description:\r\n";
    let [
        Change::Put { dn: first, uuid: None, attributes: babs },
        Change::Put { dn: second, attributes: ou, .. },
    ] = &changes(text)[..]
    else {
        panic!("two content records")
    };
    assert_eq!(first.to_string(), "cn=Barbara Jensen,ou=Product Development,dc=airius,dc=com");
    assert_eq!(babs.values("cn"), [b"Barbara Jensen".to_vec(), b"Babs Jensen".to_vec()]);
    let description =
        "Babs is a big sailing fan, and travels extensively in search of perfect sailing conditions.";
    assert_eq!(babs.text("description"), Some(description));
    assert_eq!(second.to_string(), "ou=営業部,o=Airius");
    assert_eq!(ou.text("OU;LANG-JA"), Some("営業部"));
    assert_eq!(ou.values("description"), [b"".to_vec()]);
}

#[test]
fn change_records_of_the_rfc() {
    // Examples 6 and 7, in part.
    let text = "version: 1\n\n\
        dn: cn=Fiona, o=A\nchangetype: add\nobjectclass: person\nentryUUID: 6ba7b810-9dad-11d1-80b4-00c04fd430c8\n\n\
        dn: cn=Robert, o=A\ncontrol: 1.2.840.113556.1.4.805 false\nchangetype: delete\n\n\
        dn: cn=Paul, o=A\nchangetype: modrdn\nnewrdn: cn=Paula\ndeleteoldrdn: 1\n\n\n\
        dn: ou=PD, o=A\nchangetype: moddn\nnewrdn: ou=PD\ndeleteoldrdn: 0\nnewsuperior: o=B\n\n\
        dn: cn=Paula, o=A\nchangetype: modify\nadd: postaladdress\npostaladdress: 123 Anystreet\n-\n\
        delete: description\n-\nreplace: tel\ntel: 1\nTel: 2\n-\ndelete: fax\nfax: 9\n";
    let modification = |operation, attribute: &str, values: &[&str]| Modification {
        operation,
        attribute: attribute.into(),
        values: values.iter().map(|value| value.as_bytes().to_vec()).collect(),
    };
    assert_eq!(
        changes(text),
        [
            Change::Add {
                dn: dn("cn=Fiona,o=A"),
                uuid: Some(Uuid::from_u128(0x6ba7b810_9dad_11d1_80b4_00c04fd430c8)),
                attributes: attributes(&[("objectclass", "person")]),
            },
            Change::Delete { dn: dn("cn=Robert,o=A") },
            Change::Rename {
                dn: dn("cn=Paul,o=A"),
                new_rdn: Rdn::parse("cn=Paula").unwrap(),
                delete_old_rdn: true,
                new_superior: None,
            },
            Change::Rename {
                dn: dn("ou=PD,o=A"),
                new_rdn: Rdn::parse("ou=PD").unwrap(),
                delete_old_rdn: false,
                new_superior: Some(dn("o=B")),
            },
            Change::Modify {
                dn: dn("cn=Paula,o=A"),
                modifications: vec![
                    modification(Operation::Add, "postaladdress", &["123 Anystreet"]),
                    modification(Operation::Delete, "description", &[]),
                    modification(Operation::Replace, "tel", &["1", "2"]),
                    modification(Operation::Delete, "fax", &["9"]),
                ],
            },
        ]
    );
}

#[test]
fn what_is_refused_and_on_which_line() {
    for (text, line, reason) in [
        ("version: 2\n", 1, "version"),
        ("\n cn: x\n", 2, "continues nothing"),
        ("dn: o=x\no: x\n\n\ncn: y\n", 5, "begins with 'dn:'"),
        ("dn: o=x\nversion: 1\n\nversion: 1\n\ndn: o=y\n", 4, "begins with 'dn:'"),
        ("dn: o=x\nnonsense\n", 2, "no ':'"),
        ("dn: o=x\no: a\n folded\nnonsense\n", 4, "no ':'"),
        ("dn: o=x\njpegPhoto:< file:///etc/shadow\n", 2, "other files"),
        ("dn: o=x\ncn:: a*b\n", 2, "base64"),
        ("dn: nonsense\no: x\n", 1, "not a name"),
        ("dn:: /w==\no: x\n", 1, "UTF-8"),
        ("dn: o=x\n\n", 1, "an attribute is expected"),
        ("dn: o=x\nchangetype: add\n", 1, "an attribute is expected"),
        ("dn: o=x\nchangetype: explode\n", 2, "explode"),
        ("dn: o=x\nchangetype: delete\ncn: x\n", 3, "no attributes"),
        ("dn: o=x\ncontrol: 1.2.3 true\nchangetype: delete\n", 2, "1.2.3"),
        ("dn: o=x\nchangetype: modify\nincrease: x\n-\n", 3, "expected"),
        ("dn: o=x\nchangetype: modify\nadd: x\n-\n", 3, "a value is expected"),
        ("dn: o=x\nchangetype: modify\nadd: x\ny: 1\n-\n", 4, "expected"),
        ("dn: o=x\nchangetype: modrdn\ndeleteoldrdn: 1\n", 3, "newrdn"),
        ("dn: o=x\nchangetype: modrdn\nnewrdn: cn=a\n", 2, "deleteoldrdn"),
        ("dn: o=x\nchangetype: modrdn\nnewrdn: cn=a\ndeleteoldrdn: 2\n", 4, "0 or 1"),
        ("dn: o=x\nchangetype: modrdn\nnewrdn: cn=a\ndeleteoldrdn: 1\nmore: x\n", 5, "newsuperior"),
        ("dn: o=x\ncn: a\nCN: a\n", 1, "twice"),
        ("dn: o=x\nc n: a\n", 1, "attribute name"),
        ("dn: o=x\nentryUUID: 7\no: x\n", 2, "entryUUID"),
        ("dn: o=x\no: a\n-\n", 3, "expected"),
        ("dn: o=x\no: x\ndn: o=y\no: y\n", 3, "an empty line"),
    ] {
        let error = read(text.as_bytes()).unwrap_err();
        assert!(error.line == line && error.to_string().contains(reason), "{text:?} gives {error}");
    }
    assert!(read(b"dn: o=x\no: \xff\n").unwrap_err().to_string().contains("UTF-8"));
    assert!(read(b"dn: o=x\no: a\0b\n").unwrap_err().to_string().contains("NUL"));
    assert_eq!(
        changes("\u{feff}dn: o=\u{e9}\no: \u{e9}\n").len(),
        1,
        "UTF-8 as it is, behind a byte order mark"
    );
    assert_eq!(changes("").len(), 0);
}

#[test]
fn lines_and_records_are_bounded() {
    struct Endless(u64);
    impl std::io::Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = buffer.len().min(1 << 16);
            buffer[..n].fill(b'a');
            self.0 += n as u64;
            assert!(self.0 < 4 * LDIF_RECORD_BYTES_MAX as u64, "reads without end");
            Ok(n)
        }
    }
    let input = std::io::BufReader::new(std::io::Read::chain(&b"dn: o=x\no: "[..], Endless(0)));
    let error = Reader::new(input).next().unwrap().unwrap_err();
    assert!(matches!(error, LdifError { line: 2, reason: Fault::LineTooLong }), "{error}");

    let line = [b"o: ", vec![b'a'; 1 << 20].as_slice(), b"\n"].concat();
    let record = [b"dn: o=x\n".to_vec(), line.repeat(LDIF_RECORD_BYTES_MAX / line.len() + 1)].concat();
    let error = read(&record).unwrap_err();
    assert!(matches!(error, LdifError { reason: Fault::RecordTooLong, .. }), "{error}");
}

fn any_value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[ -~]{0,200}".prop_map(String::into_bytes),
        ".{0,80}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..200),
    ]
}

fn any_dn() -> impl Strategy<Value = Dn> {
    proptest::collection::vec(".{1,30}", 1..4)
        .prop_map(|values| Dn::from_rdns(values.iter().map(|v| Rdn::of("cn", v).unwrap()).collect()).unwrap())
}

fn any_attributes() -> impl Strategy<Value = Attributes> {
    let attribute =
        ("[a-z][a-zA-Z0-9-]{0,9}(;[a-z]{1,4})?", proptest::collection::btree_set(any_value(), 1..4));
    proptest::collection::vec(attribute, 1..5).prop_filter_map("names differ", |list| {
        // LDIF's own words, in upper or lower case, are no attribute names.
        let own =
            |name: &str| ["control", "changetype", "dn"].iter().any(|word| word.eq_ignore_ascii_case(name));
        let list = list.into_iter().filter(|(name, _)| !own(name));
        let pairs =
            list.flat_map(|(name, values)| values.into_iter().map(move |value| (name.clone(), value)));
        Attributes::from_pairs(pairs).ok().filter(|attributes| !attributes.is_empty())
    })
}

fn any_change() -> impl Strategy<Value = Change> {
    let uuid = || proptest::option::of((1u128..).prop_map(Uuid::from_u128));
    let values = || proptest::collection::vec(any_value(), 1..3);
    prop_oneof![
        (any_dn(), uuid(), any_attributes()).prop_map(|(dn, uuid, attributes)| Change::Put {
            dn,
            uuid,
            attributes
        }),
        (any_dn(), uuid(), any_attributes()).prop_map(|(dn, uuid, attributes)| Change::Add {
            dn,
            uuid,
            attributes
        }),
        (any_dn(), any_dn(), any::<bool>(), proptest::option::of(any_dn())).prop_map(
            |(dn, other, delete_old_rdn, new_superior)| {
                Change::Rename { dn, new_rdn: other.rdn().clone(), delete_old_rdn, new_superior }
            }
        ),
        (any_dn(), values()).prop_map(|(dn, values)| Change::Modify {
            dn,
            modifications: vec![
                Modification { operation: Operation::Add, attribute: "a".into(), values: values.clone() },
                Modification { operation: Operation::Delete, attribute: "b;x-y".into(), values: vec![] },
                Modification { operation: Operation::Replace, attribute: "c".into(), values },
            ],
        }),
        any_dn().prop_map(|dn| Change::Delete { dn }),
    ]
}

proptest! {
    #[test]
    fn what_was_written_is_read(changes in proptest::collection::vec(any_change(), 0..4)) {
        let mut writer = Writer::new(Vec::new()).unwrap();
        changes.iter().for_each(|change| writer.change(change).unwrap());
        let text = writer.finish().unwrap();
        prop_assert!(text.is_ascii() && text.split(|b| *b == b'\n').all(|line| line.len() <= 76));
        let again: Vec<Change> = read(&text).unwrap().into_iter().map(|(_, change)| change).collect();
        prop_assert_eq!(again, changes);
    }

    #[test]
    fn any_octets_are_read_or_refused(text in proptest::collection::vec(prop_oneof![
        Just("dn: o=x\n"), Just("changetype: modify\n"), Just("add: a\n"), Just("a: b\n"), Just("-\n"), Just("\n"),
        Just(" x\n"), Just("#\n"), Just("a:: YQ==\n"), Just("changetype: modrdn\n"), Just("newrdn: a=b\n"),
        Just("deleteoldrdn: 1\n"), Just("version: 1\n"), Just("control: 1\n"), Just("\r\n"), Just(":"), Just("\u{e9}"),
    ], 0..30)) {
        let _ = read(text.concat().as_bytes());
    }
}

/// Found by fuzzing: written out first, as names are sorted, such an attribute made another record of it.
#[test]
fn words_of_ldif_are_no_attributes() {
    for word in ["changetype", "ChangeType", "control"] {
        let text = format!("dn: o=a\no: a\n{word}: delete\n");
        assert!(Reader::new(text.as_bytes()).any(|read| read.is_err()), "{word}");
    }
}
