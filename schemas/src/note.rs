//! Signed notes (C2SP `signed-note`), with Ed25519 signatures of type 0x01.
//!
//! ```text
//! text (UTF-8, no control characters but newline, ends with a newline)
//! <empty line>
//! — <key name> <base64(4-byte key id || signature)>        one or more
//! ```
//! Key id: the first 4 bytes of SHA-256(name || 0x0A || 0x01 || public key). Only a hint: what counts is the key.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

/// The signature type of Ed25519 over the text.
pub const ED25519_TYPE: u8 = 0x01;

/// The longest note that is parsed, in bytes.
pub const MAX_NOTE_BYTES: usize = 256 * 1024;

/// The most signature lines that are parsed.
pub const MAX_SIGNATURES: usize = 64;

/// Why a note, a key or a signature was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not of the form of a signed note.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// Not a key name: not empty, without white space, control characters and `+`.
    #[error("`{0}` is not a key name")]
    KeyName(String),
    /// Not a verifier key `<name>+<hash>+<key>`.
    #[error(
        "not a verifier key: wanted `<name>+<8 hex digits>+<base64 of 0x{signature_type:02x} and 32 bytes>`"
    )]
    VerifierKey {
        /// The type of the key's signatures.
        signature_type: u8,
    },
    /// A known key's signature that does not hold.
    #[error("the signature by `{name}` does not hold")]
    BadSignature {
        /// The key's name.
        name: String,
    },
    /// No signature by any of the given keys.
    #[error("no signature by {wanted}; signed by {}", found.join(", "))]
    NotSigned {
        /// The keys that were wanted.
        wanted: String,
        /// The key names found.
        found: Vec<String>,
    },
}

/// An Ed25519 public key with the name under which it makes signatures of one type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NamedKey<const TYPE: u8> {
    name: String,
    key: [u8; 32],
}

/// A key that signs texts of notes.
pub type VerifyingKey = NamedKey<ED25519_TYPE>;

pub(crate) fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

impl<const TYPE: u8> NamedKey<TYPE> {
    /// Names a public key.
    ///
    /// # Errors
    /// A name that is empty or holds white space, control characters or `+`.
    pub fn new(name: impl Into<String>, key: [u8; 32]) -> Result<Self, NoteError> {
        let name = name.into();
        if is_key_name(&name) { Ok(Self { name, key }) } else { Err(NoteError::KeyName(name)) }
    }
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The public key.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }
    /// The key id of its signature lines.
    pub fn id(&self) -> u32 {
        key_id_of(TYPE, &self.name, &self.key)
    }
    /// Whether a line says that it is by this key: name and id.
    pub fn is_named_by(&self, signature: &Signature) -> bool {
        signature.name == self.name && signature.id == self.id()
    }
    /// Whether `signature` is this key's over `message`.
    pub fn holds(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.key).verify(message, signature).is_ok()
    }
}

impl<const TYPE: u8> fmt::Display for NamedKey<TYPE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut typed = [TYPE; 33];
        typed[1..].copy_from_slice(&self.key);
        write!(f, "{}+{:08x}+{}", self.name, self.id(), STANDARD.encode(typed))
    }
}

impl<const TYPE: u8> FromStr for NamedKey<TYPE> {
    type Err = NoteError;
    fn from_str(text: &str) -> Result<Self, NoteError> {
        let wrong = || NoteError::VerifierKey { signature_type: TYPE };
        let (name, rest) = text.split_once('+').ok_or_else(wrong)?;
        let (hash, key) = rest.split_once('+').ok_or_else(wrong)?;
        let typed = STANDARD.decode(key).map_err(|_| wrong())?;
        let key = match typed.split_first() {
            Some((first, key)) if *first == TYPE => <[u8; 32]>::try_from(key).map_err(|_| wrong())?,
            _ => return Err(wrong()),
        };
        let key = Self::new(name, key)?;
        if hash == format!("{:08x}", key.id()) { Ok(key) } else { Err(wrong()) }
    }
}

/// The first 4 bytes of SHA-256(name || 0x0A || 0x01 || key), big-endian.
pub fn key_id(name: &str, key: &[u8; 32]) -> u32 {
    key_id_of(ED25519_TYPE, name, key)
}

/// The key id under another signature type.
pub(crate) fn key_id_of(signature_type: u8, name: &str, key: &[u8; 32]) -> u32 {
    let mut hasher = crate::digest::Hasher::default();
    hasher.update(name.as_bytes());
    hasher.update([b'\n', signature_type]);
    hasher.update(key);
    let digest = hasher.finish().0;
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// Something that signs with one Ed25519 key.
pub trait Signer: Send + Sync {
    /// The public key.
    fn public_key(&self) -> [u8; 32];
    /// The signature over `message`.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

/// A signer that holds its key in memory.
pub struct Ed25519Signer(Ed25519KeyPair);

impl Ed25519Signer {
    /// Makes the key pair of a 32-byte seed (RFC 8032 5.1.5).
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed of 32 bytes is the only condition"))
    }
}

impl fmt::Debug for Ed25519Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ed25519Signer({})", hex::encode(self.public_key()))
    }
}

impl Signer for Ed25519Signer {
    fn public_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.public_key().as_ref());
        key
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.0.sign(message).as_ref());
        signature
    }
}

/// A signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The key's name.
    pub name: String,
    /// The key's id.
    pub id: u32,
    /// What follows the id.
    pub bytes: Vec<u8>,
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.bytes);
        write!(f, "\u{2014} {} {}", self.name, STANDARD.encode(bytes))
    }
}

/// A note that was taken apart; nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnverifiedNote<'a> {
    /// What is signed, with its last newline.
    pub text: &'a str,
    /// The signature lines in their order.
    pub signatures: Vec<Signature>,
}

/// A note with at least one good signature by a known key, and none that is bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedNote<'a> {
    /// What is signed, with its last newline.
    pub text: &'a str,
    /// The known keys whose signatures hold.
    pub by: Vec<VerifyingKey>,
    /// Signatures by keys that are not known: not judged.
    pub unknown: Vec<Signature>,
}

/// Signs `text` with each of `signers` under its name.
///
/// # Errors
/// A text that cannot be a note's, a name that cannot be a key's, no signer.
pub fn sign(text: &str, signers: &[(&str, &dyn Signer)]) -> Result<Vec<u8>, NoteError> {
    check_text(text)?;
    if signers.is_empty() {
        return Err(NoteError::Malformed("no signature"));
    }
    let mut note = format!("{text}\n");
    for (name, signer) in signers {
        let key = VerifyingKey::new(*name, signer.public_key())?;
        let bytes = signer.sign(text.as_bytes()).to_vec();
        note.push_str(&format!("{}\n", Signature { name: (*name).into(), id: key.id(), bytes }));
    }
    if note.len() > MAX_NOTE_BYTES {
        return Err(NoteError::Malformed("too long"));
    }
    Ok(note.into_bytes())
}

fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') {
        return Err(NoteError::Malformed("the text does not end with a newline"));
    }
    if text.bytes().any(|b| b != b'\n' && (b < 0x20 || b == 0x7f)) {
        return Err(NoteError::Malformed("the text holds a control character"));
    }
    Ok(())
}

/// Takes a note apart without verifying it.
///
/// # Errors
/// Anything that is not a signed note, is over [`MAX_NOTE_BYTES`] or has over [`MAX_SIGNATURES`] signatures.
pub fn parse_unverified(note: &[u8]) -> Result<UnverifiedNote<'_>, NoteError> {
    if note.len() > MAX_NOTE_BYTES {
        return Err(NoteError::Malformed("too long"));
    }
    let note = std::str::from_utf8(note).map_err(|_| NoteError::Malformed("not UTF-8"))?;
    let end = note.rfind("\n\n").ok_or(NoteError::Malformed("no empty line before the signatures"))?;
    let (text, lines) = (&note[..=end], &note[end + 2..]);
    check_text(text)?;
    Ok(UnverifiedNote { text, signatures: parse_signatures(lines)? })
}

/// Takes signature lines apart: what stands below the empty line of a note, and what a witness answers.
///
/// # Errors
/// No line, a line of another form, over [`MAX_SIGNATURES`] lines.
pub fn parse_signatures(lines: &str) -> Result<Vec<Signature>, NoteError> {
    let lines = lines.strip_suffix('\n').ok_or(NoteError::Malformed("the last line does not end"))?;
    let mut signatures = Vec::new();
    for line in lines.split('\n') {
        let wrong = NoteError::Malformed("a signature line is not `— <name> <base64>`");
        let (name, encoded) = line
            .strip_prefix("\u{2014} ")
            .and_then(|rest| rest.split_once(' '))
            .ok_or_else(|| wrong.clone())?;
        let bytes = STANDARD.decode(encoded).map_err(|_| wrong.clone())?;
        let (id, bytes) = bytes.split_first_chunk::<4>().ok_or_else(|| wrong.clone())?;
        if !is_key_name(name) || bytes.is_empty() {
            return Err(wrong);
        }
        if signatures.len() == MAX_SIGNATURES {
            return Err(NoteError::Malformed("too many signatures"));
        }
        signatures.push(Signature { name: name.into(), id: u32::from_be_bytes(*id), bytes: bytes.to_vec() });
    }
    Ok(signatures)
}

/// Parses a note and verifies it against the known keys.
///
/// # Errors
/// [`NoteError::BadSignature`] where a known key's signature does not hold, whatever else holds;
/// [`NoteError::NotSigned`] where no known key signed.
pub fn verify<'a>(note: &'a [u8], known: &[VerifyingKey]) -> Result<VerifiedNote<'a>, NoteError> {
    let UnverifiedNote { text, signatures } = parse_unverified(note)?;
    let mut by: Vec<VerifyingKey> = Vec::new();
    let mut unknown = Vec::new();
    let mut found = Vec::new();
    for signature in signatures {
        found.push(signature.name.clone());
        let mut same = known.iter().filter(|key| key.is_named_by(&signature)).peekable();
        if same.peek().is_none() {
            unknown.push(signature);
            continue;
        }
        match same.find(|key| key.holds(text.as_bytes(), &signature.bytes)) {
            Some(key) if by.contains(key) => {}
            Some(key) => by.push(key.clone()),
            None => return Err(NoteError::BadSignature { name: signature.name }),
        }
    }
    if by.is_empty() {
        let wanted =
            known.iter().map(|key| format!("{}+{:08x}", key.name, key.id())).collect::<Vec<_>>().join(", ");
        return Err(NoteError::NotSigned { wanted, found });
    }
    Ok(VerifiedNote { text, by, unknown })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // The example of golang.org/x/mod/sumdb/note, signed by the Go checksum database's own code.
    const PETERS_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const PETERS_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\
        \n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn a_note_of_another_implementation_verifies() {
        let key: VerifyingKey = PETERS_KEY.parse().unwrap();
        assert_eq!(key.to_string(), PETERS_KEY);
        let note = verify(PETERS_NOTE.as_bytes(), std::slice::from_ref(&key)).unwrap();
        assert_eq!(note.text.lines().count(), 2);
        assert_eq!(note.by, [key]);
    }

    #[test]
    fn signing_then_verifying_holds_and_unknown_keys_are_listed() {
        let signers: Vec<_> = (0..20_u8).map(|i| Ed25519Signer::from_seed([i; 32])).collect();
        let names: Vec<_> = (0..20).map(|i| format!("acme/gw{i}/e/seal")).collect();
        let pairs: Vec<(&str, &dyn Signer)> =
            names.iter().zip(&signers).map(|(n, s)| (n.as_str(), s as &dyn Signer)).collect();
        let note = sign("one\n\ntwo\n", &pairs).unwrap();
        let key = VerifyingKey::new(names[7].clone(), signers[7].public_key()).unwrap();
        let verified = verify(&note, std::slice::from_ref(&key)).unwrap();
        assert_eq!((verified.text, verified.by.len(), verified.unknown.len()), ("one\n\ntwo\n", 1, 19));
        let stranger = VerifyingKey::new("acme/gw7/e/seal", [3; 32]).unwrap();
        assert!(matches!(verify(&note, &[stranger]), Err(NoteError::NotSigned { .. })));
    }

    #[test]
    fn a_known_key_with_a_bad_signature_rejects_the_note() {
        let good = Ed25519Signer::from_seed([1; 32]);
        let bad = Ed25519Signer::from_seed([2; 32]);
        let note = sign("text\n", &[("good", &good), ("bad", &bad)]).unwrap();
        let keys = [
            VerifyingKey::new("good", good.public_key()).unwrap(),
            VerifyingKey::new("bad", bad.public_key()).unwrap(),
        ];
        assert_eq!(verify(&note, &keys).unwrap().by.len(), 2);
        let mut unverified = parse_unverified(&note).unwrap();
        unverified.signatures[1].bytes[0] ^= 1;
        let mut broken = format!("{}\n", unverified.text);
        for s in &unverified.signatures {
            let mut bytes = s.id.to_be_bytes().to_vec();
            bytes.extend_from_slice(&s.bytes);
            broken.push_str(&format!("\u{2014} {} {}\n", s.name, STANDARD.encode(bytes)));
        }
        assert_eq!(verify(broken.as_bytes(), &keys), Err(NoteError::BadSignature { name: "bad".into() }));
        assert!(verify(broken.as_bytes(), &keys[..1]).is_ok());
    }

    #[test]
    fn every_flipped_bit_of_a_note_is_refused() {
        let signer = Ed25519Signer::from_seed([9; 32]);
        let note = sign("acme\nsize 5\n", &[("acme/seal", &signer)]).unwrap();
        let key = VerifyingKey::new("acme/seal", signer.public_key()).unwrap();
        for bit in 0..note.len() * 8 {
            let mut changed = note.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&changed, std::slice::from_ref(&key)).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn malformed_notes_and_keys_are_refused() {
        let cases: &[&str] = &[
            "",
            "text\n",
            "text\n\n",
            "text\n\n\u{2014} a AAAAAAA=",
            "text\n\n- a AAAAAAA=\n",
            "text\n\n\u{2014} a+b AAAAAAA=\n",
            "text\n\n\u{2014} a AAAA\n",
            "text\n\n\u{2014} a AAAAAAB=\n",
            "text\n\n\u{2014} a AAAAAAA\n",
            "te\txt\n\n\u{2014} a AAAAAAA=\n",
            "te\rxt\n\n\u{2014} a AAAAAAA=\n",
            "\n\u{2014} a AAAAAAA=\n",
        ];
        for note in cases {
            assert!(matches!(parse_unverified(note.as_bytes()), Err(NoteError::Malformed(_))), "{note:?}");
        }
        assert!(parse_unverified("text\n\n\u{2014} a AAAAAAA=\n".as_bytes()).is_ok());
        let many = format!("text\n\n{}", "\u{2014} a AAAAAAA=\n".repeat(MAX_SIGNATURES + 1));
        assert!(parse_unverified(many.as_bytes()).is_err());
        assert!(parse_unverified(&many.as_bytes()[..many.len() - "\u{2014} a AAAAAAA=\n".len()]).is_ok());
        assert!(sign("no newline", &[]).is_err());
        for key in [
            "",
            "a+b",
            "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "a+00000000+AR==",
        ] {
            assert!(key.parse::<VerifyingKey>().is_err(), "{key}");
        }
        assert!(VerifyingKey::new("a b", [0; 32]).is_err());
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), tail in "\\PC{0,80}") {
            let _ = parse_unverified(&bytes);
            let key: VerifyingKey = PETERS_KEY.parse().unwrap();
            let hostile = format!("x\n\n\u{2014} PeterNeumann {tail}\n");
            prop_assert!(verify(hostile.as_bytes(), &[key]).is_err());
            let _ = tail.parse::<VerifyingKey>();
        }
    }
}
