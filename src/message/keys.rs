//! A site's keys: Ed25519 to sign, X25519 to be written to.
//!
//! PROMISES
//!   Secrets are wiped from memory when dropped and never printed. A public key that everybody or nobody could hold
//!   (low order) is refused when it is read.
//!
//! STANDARDS
//!   Ed25519 (RFC 8032), verified strictly; DHKEM(X25519, HKDF-SHA256) of HPKE (RFC 9180).
//!
//! A site that renews its keys keeps the former pairs for a while: they open what was sealed before the others heard,
//! and sign for those who have not heard yet.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, Serializable};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::random::{CryptoRng, Seeded};
use super::token::TokenKey;

/// Former pairs that a site keeps.
pub const FORMER_PAIRS_MAX: usize = 3;

/// The keys of this site: the current pair and former ones, newest first.
#[derive(Clone)]
pub struct SiteKey {
    pairs: Vec<KeyPair>,
}

/// One signing and one sealing key, made together.
#[derive(Clone)]
pub(super) struct KeyPair {
    pub(super) signing: SigningKey,
    pub(super) sealing: Zeroizing<[u8; 32]>,
    public: SitePublic,
}

/// What the others know of a site's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SitePublic {
    pub signing: VerifyingKey,
    pub sealing: SealingKey,
}

/// An X25519 public key, checked to be of full order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SealingKey([u8; 32]);

/// The fault of whoever supplied the key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PublicKeyError {
    #[error("the signing key is no Ed25519 public key")]
    Signing,
    #[error("the sealing key is no X25519 public key")]
    Sealing,
}

impl SiteKey {
    /// New keys.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        SiteKey { pairs: vec![KeyPair::generate(rng)] }
    }

    /// New keys that remember the present ones as former.
    pub fn renew(&self, rng: &mut impl CryptoRng) -> Self {
        let mut pairs = vec![KeyPair::generate(rng)];
        pairs.extend(self.pairs.iter().take(FORMER_PAIRS_MAX).cloned());
        SiteKey { pairs }
    }

    /// The keys as they were before the last renewal, to sign for a site that has not heard of it.
    pub fn former(&self) -> Option<SiteKey> {
        (self.pairs.len() > 1).then(|| SiteKey { pairs: self.pairs[1..].to_vec() })
    }

    /// The former pairs' signing keys, newest first.
    pub fn former_signing(&self) -> Vec<VerifyingKey> {
        self.pairs[1..].iter().map(|pair| pair.signing.verifying_key()).collect()
    }

    /// These keys with that signing key and its sealing key as the current ones, if they are among them.
    pub fn signing_as(&self, chosen: impl Fn(&VerifyingKey) -> bool) -> Option<SiteKey> {
        let at = self.pairs.iter().position(|pair| chosen(&pair.signing.verifying_key()))?;
        Some(SiteKey { pairs: self.pairs[at..].to_vec() })
    }

    /// The current pair alone, once everybody has heard.
    pub fn without_former(&self) -> SiteKey {
        SiteKey { pairs: self.pairs[..1].to_vec() }
    }

    pub(super) fn from_pairs(pairs: Vec<KeyPair>) -> Option<Self> {
        (1..=1 + FORMER_PAIRS_MAX).contains(&pairs.len()).then_some(SiteKey { pairs })
    }

    pub(super) fn pairs(&self) -> &[KeyPair] {
        &self.pairs
    }

    /// The current signing key, for checkpoints, cards and messages.
    pub fn signing(&self) -> &SigningKey {
        &self.pairs[0].signing
    }

    /// The current public keys.
    pub fn public(&self) -> SitePublic {
        self.pairs[0].public().clone()
    }

    /// Signs `text` for the purpose that `domain` names.
    pub(super) fn sign(&self, domain: &[u8], text: &[u8]) -> Signature {
        self.signing().sign(&separated(domain, text))
    }

    /// The return path token of a mail to a site, see [`super::token`].
    pub fn make_token(&self, site: &str, mail: u64) -> String {
        self.pairs[0].token_key().make(site, mail)
    }

    /// The site and the mail that the token was made for, under the current keys or former ones; `sites` are those that
    /// we write to.
    pub fn check_token<'a>(
        &self,
        token: &str,
        sites: impl IntoIterator<Item = &'a str>,
    ) -> Option<(&'a str, u64)> {
        let keys: Vec<TokenKey> = self.pairs.iter().map(KeyPair::token_key).collect();
        sites.into_iter().find_map(|site| {
            let mail = keys.iter().find_map(|key| key.check(token, site))?;
            Some((site, mail))
        })
    }
}

impl std::fmt::Debug for SiteKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SiteKey({})", self.public().fingerprint())
    }
}

impl KeyPair {
    fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        let mut sealing = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *sealing);
        KeyPair::new(SigningKey::from_bytes(&seed), sealing)
    }

    pub(super) fn new(signing: SigningKey, sealing: Zeroizing<[u8; 32]>) -> Self {
        let public = X25519HkdfSha256::sk_to_pk(&private(&sealing));
        let public =
            SitePublic { signing: signing.verifying_key(), sealing: SealingKey(public.to_bytes().into()) };
        KeyPair { signing, sealing, public }
    }

    pub(super) fn public(&self) -> &SitePublic {
        &self.public
    }

    /// The X25519 secret in the form that HPKE takes.
    pub(super) fn sealing_secret(&self) -> <X25519HkdfSha256 as Kem>::PrivateKey {
        private(&self.sealing)
    }

    fn token_key(&self) -> TokenKey {
        TokenKey::derive(self.signing.as_bytes())
    }
}

fn private(sealing: &[u8; 32]) -> <X25519HkdfSha256 as Kem>::PrivateKey {
    // Any 32 octets are an X25519 secret (RFC 7748 section 5), so this cannot fail.
    <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(sealing).expect("32 octets are an X25519 secret")
}

impl SitePublic {
    /// Reads both keys and refuses what is no key.
    pub fn from_bytes(signing: &[u8; 32], sealing: &[u8; 32]) -> Result<Self, PublicKeyError> {
        let signing = VerifyingKey::from_bytes(signing).map_err(|_| PublicKeyError::Signing)?;
        if signing.is_weak() {
            return Err(PublicKeyError::Signing);
        }
        Ok(SitePublic { signing, sealing: SealingKey::from_bytes(sealing)? })
    }

    /// What two administrators read to one another by telephone: 160 bits of SHA-256 over both keys.
    pub fn fingerprint(&self) -> String {
        let hash = Sha256::new()
            .chain_update(b"bridgehead fingerprint 1\0")
            .chain_update(self.signing.as_bytes())
            .chain_update(self.sealing.0)
            .finalize();
        let group = |pair: &[u8]| format!("{:02x}{:02x}", pair[0], pair[1]);
        hash[..20].chunks(2).map(group).collect::<Vec<_>>().join("-")
    }
}

impl SealingKey {
    /// Refuses a point of low order, with which a secret would be none.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, PublicKeyError> {
        let key = SealingKey(*bytes);
        let trial = X25519HkdfSha256::encap_with_rng(&key.for_hpke(), None, &mut Seeded::new(0));
        trial.map(|_| key).map_err(|_| PublicKeyError::Sealing)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The eight octets by which an envelope names the key it is sealed to.
    pub fn id(&self) -> [u8; 8] {
        let hash = Sha256::new().chain_update(b"bridgehead sealing key 1\0").chain_update(self.0).finalize();
        std::array::from_fn(|at| hash[at])
    }

    pub(super) fn for_hpke(&self) -> <X25519HkdfSha256 as Kem>::PublicKey {
        // Any 32 octets are an X25519 public key; the order is checked when it is used.
        <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&self.0).expect("32 octets are an X25519 public key")
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Verifies a signature over `text` for the purpose that `domain` names.
pub(super) fn verify(key: &VerifyingKey, domain: &[u8], text: &[u8], signature: &Signature) -> bool {
    key.verify_strict(&separated(domain, text), signature).is_ok()
}

/// A signature for one purpose must never pass for another: every signed text begins with its purpose.
fn separated(domain: &[u8], text: &[u8]) -> Vec<u8> {
    debug_assert_eq!(domain.last(), Some(&0), "a purpose ends with NUL, so none is a prefix of another");
    [domain, text].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_keeps_a_bounded_past() {
        let mut rng = Seeded::new(1);
        let first = SiteKey::generate(&mut rng);
        let token = first.make_token("beta", 9);
        let second = first.renew(&mut rng);
        assert_ne!(first.public(), second.public());
        assert_eq!(second.former().unwrap().public(), first.public());
        assert_eq!(second.check_token(&token, ["alpha", "beta"]), Some(("beta", 9)));
        let much_later = (0..5).fold(second, |key, _| key.renew(&mut rng));
        assert_eq!(much_later.pairs().len(), 1 + FORMER_PAIRS_MAX);
        assert_eq!(much_later.check_token(&token, ["alpha", "beta"]), None);
        assert!(much_later.without_former().former().is_none());
    }

    #[test]
    fn a_signature_serves_one_purpose() {
        let key = SiteKey::generate(&mut Seeded::new(2));
        let signature = key.sign(b"purpose a\0", b"text");
        let public = key.public().signing;
        assert!(verify(&public, b"purpose a\0", b"text", &signature));
        assert!(!verify(&public, b"purpose b\0", b"text", &signature));
        assert!(!verify(&public, b"purpose a\0", b"texu", &signature));
    }

    #[test]
    fn weak_keys_are_refused() {
        let good = SiteKey::generate(&mut Seeded::new(3)).public();
        let (signing, sealing) = (good.signing.as_bytes(), good.sealing.as_bytes());
        assert_eq!(SitePublic::from_bytes(signing, sealing), Ok(good.clone()));
        assert_eq!(SitePublic::from_bytes(signing, &[0; 32]), Err(PublicKeyError::Sealing));
        let mut one = [0; 32];
        one[0] = 1;
        assert_eq!(SitePublic::from_bytes(signing, &one), Err(PublicKeyError::Sealing));
        assert_eq!(SitePublic::from_bytes(&one, sealing), Err(PublicKeyError::Signing));
        let mut off_the_curve = [0; 32];
        off_the_curve[0] = 2;
        assert_eq!(SitePublic::from_bytes(&off_the_curve, sealing), Err(PublicKeyError::Signing));
    }

    #[test]
    fn secrets_are_not_printed() {
        let key = SiteKey::generate(&mut Seeded::new(4));
        assert_eq!(format!("{key:?}"), format!("SiteKey({})", key.public().fingerprint()));
        assert_eq!(key.public().fingerprint().len(), 49);
    }
}
