//! A partner gone bad: it has its site's real key, so what it sends opens and verifies, and it sends what no honest
//! site would. Sealing is written here from bridgehead-replication(7), for ours refuses to seal most of it.

use std::time::{SystemTime, UNIX_EPOCH};

use bridgehead::directory::lineage::Lineage;
use bridgehead::directory::{Digest, Dn, Position};
use bridgehead::message::card::Card;
use bridgehead::message::keys::SiteKey;
use bridgehead::message::mime::{Letter, compose};
use bridgehead::message::{keyfile, random};
use bridgehead::replication::checkpoint::{Checkpoint, SignedCheckpoint};
use bridgehead::replication::engine::quarantine::Kept;
use bridgehead::replication::parts::cut;
use bridgehead::replication::transfer::{Base, Manifest};
use bridgehead::replication::wire::{Message, PartItem};
use ed25519_dalek::Signer as _;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeS, Serializable as _, single_shot_seal_with_rng};
use uuid::Uuid;

use crate::support::{Reply, Scratch, Site, deliver, free_address};

/// Tokyo, an honest daemon, and the key of its partner Paris.
pub struct Insider {
    pub tokyo: Site,
    /// The naming context that Paris masters.
    pub context: String,
    /// The honest daemon of the same site, not started; it is Tokyo's next hop, and Tokyo is its.
    pub paris: Site,
    pub key: SiteKey,
    card: Card,
    sequence: u64,
    _scratch: Scratch,
}

/// How a body stands in a sealed message.
#[derive(Clone, Copy)]
pub enum Held {
    Plain = 0,
    Zstd = 1,
}

impl Insider {
    pub fn start(test: &str) -> Insider {
        let scratch = Scratch::new(test);
        let (at_paris, at_tokyo) = (free_address(), free_address());
        let paris = Site::init(&scratch, "paris", at_paris, at_tokyo);
        let mut tokyo = Site::init(&scratch, "tokyo", at_tokyo, at_paris);
        paris.configure("[replication]", super::world::FAST, "");
        tokyo.configure("[replication]", super::world::FAST, "");
        paris.introduce(&tokyo);
        tokyo.start();
        let key = keyfile::read(&paris.directory.join("site.key")).expect("the key that init wrote");
        let card = Card::parse_verified(&tokyo.ok(&["card"])).expect("a sound card");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let sequence = now.as_millis() as u64;
        Insider { tokyo, context: paris.context.clone(), paris, key, card, sequence, _scratch: scratch }
    }

    /// Seals a payload that announces `bytes` octets and delivers it by SMTP.
    pub fn send_sealed(&mut self, body: &[u8], held: Held, bytes: u64) -> Reply {
        self.sequence += 1;
        let mut header = minicbor::Encoder::new(Vec::new());
        let time = self.sequence as i64;
        header
            .map(6)
            .and_then(|e| e.u8(0)?.str("paris")?.u8(1)?.str("tokyo")?.u8(2)?.u64(self.sequence))
            .unwrap();
        header.u8(3).and_then(|e| e.i64(time)?.u8(4)?.u8(held as u8)?.u8(5)?.u64(bytes)).unwrap();
        let header = header.into_writer();
        let inner = [&(header.len() as u16).to_be_bytes(), &header[..], body].concat();
        let receiver = &self.card.public.sealing;
        let length = (inner.len() + 64 + 16) as u32;
        let prefix = [&b"\x8bBHM\r\n\x1a\n\x01"[..], &receiver.id(), &length.to_be_bytes()].concat();
        let signed = [&b"bridgehead message 1\0"[..], &prefix, receiver.as_bytes(), &inner].concat();
        let plain = [&inner[..], &self.key.signing().sign(&signed).to_bytes()].concat();
        let to = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(receiver.as_bytes()).expect("a key");
        let (encapsulated, ciphertext) =
            single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
                &OpModeS::Base,
                &to,
                b"bridgehead envelope 1\0",
                &plain,
                &prefix,
                &mut random::system(),
            )
            .expect("sealing");
        let sealed = [&prefix[..], &encapsulated.to_bytes(), &ciphertext].concat();
        let letter = Letter {
            from: "directory@repl.paris.example",
            to: &self.tokyo.mailbox,
            token: &self.key.make_token("tokyo", self.sequence),
            time: jiff::Timestamp::now(),
            sealed: &sealed,
        };
        deliver(&self.tokyo, &compose(&letter).expect("a letter"))
    }

    pub fn send_payload(&mut self, payload: &[u8]) -> Reply {
        let compressed = zstd::bulk::compress(payload, 3).expect("compression");
        self.send_sealed(&compressed, Held::Zstd, payload.len() as u64)
    }

    pub fn send(&mut self, message: &Message) -> Reply {
        self.send_payload(&message.encode())
    }

    /// A checkpoint of Paris's own naming context, signed by its key.
    pub fn checkpoint(&self, usn: u64, entries: u64) -> Checkpoint {
        let position = Position { invocation: Uuid::from_u128(0xbad), usn };
        let context = Dn::parse(&self.context).expect("a DN");
        let time = jiff::Timestamp::now();
        Checkpoint { context, position, digest: Digest([7; 32]), entries, time, lineage: Digest::EMPTY }
    }

    pub fn sign(&self, checkpoint: &Checkpoint) -> SignedCheckpoint {
        checkpoint.sign(self.key.signing())
    }

    pub fn manifest(&self, usn: u64, entries: u64, base: Base, body: &[u8]) -> Manifest {
        let checkpoint = self.sign(&self.checkpoint(usn, entries));
        let (added, body_bytes, lineage) = (entries, body.len() as u64, Lineage::default());
        Manifest { checkpoint, base, body_bytes, added, changed: 0, deleted: 0, lineage, dictionary: None }
    }

    /// A transfer with this body, in one message of parts.
    pub fn send_transfer(&mut self, manifest: &Manifest, body: &[u8], context: &str) -> Reply {
        let mut message = Message::new(Vec::new());
        for part in cut(manifest, body, 1 << 20).expect("parts") {
            message.parts.push(PartItem { context: context.to_owned(), part });
        }
        self.send(&message)
    }

    /// What Tokyo keeps of what it refused, oldest first.
    pub fn kept(&self) -> Vec<Kept> {
        super::world::kept(&self.tokyo)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.tokyo.log()).expect("the daemon's log")
    }
}
