//! Names: identifiers, origins, exchange ids, and every object name (the one module that makes them).

use std::fmt;

use compact_str::CompactString;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::digest::Sha256Hex;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `[A-Za-z0-9_.:/@+-]{1,128}`.
    #[error("`{0}` is not an identifier: wanted `[A-Za-z0-9_.:/@+-]{{1,128}}`")]
    Identifier(String),
    /// Not `<deployment>/<gateway>/<epoch>`.
    #[error(
        "`{0}` is not an origin: wanted three parts `[a-z0-9][a-z0-9.-]{{0,62}}` joined by `/`, at most 110 bytes"
    )]
    Origin(String),
    /// Not a UUID in lower-case hyphenated form.
    #[error("`{0}` is not an exchange id: wanted a lower-case hyphenated UUID")]
    Exchange(String),
    /// Not the name of an evidence object.
    #[error("`{0}` is not the name of an evidence object")]
    Object(String),
}

/// Text that was checked: `$check` takes it.
macro_rules! text_newtype {
    ($name:ident, $error:ident, $pattern:literal, $check:expr) => {
        impl $name {
            /// Checks and wraps `text`.
            ///
            /// # Errors
            /// Text outside the pattern, named in the error.
            pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
                let text = text.as_ref();
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.into())) } else { Err(NameError::$error(text.into())) }
            }
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }
        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                fn read(text: &str) -> Result<$name, NameError> {
                    $name::new(text)
                }
                deserializer.deserialize_str(TextVisitor($pattern, read))
            }
        }
        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

/// Reads text where it stands, without a copy: what is wanted, and what makes the value.
struct TextVisitor<T>(&'static str, fn(&str) -> Result<T, NameError>);

impl<T> de::Visitor<'_> for TextVisitor<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text of `{}`", self.0)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        self.1(text).map_err(E::custom)
    }
}

/// Text of `[A-Za-z0-9_.:/@+-]{1,128}`: the only text that a leaf may hold (CA-8).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier(CompactString);

text_newtype!(Identifier, Identifier, "^[A-Za-z0-9_.:/@+-]{1,128}$", |text| {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| IDENTIFIER[usize::from(b)])
});

static IDENTIFIER: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 256 {
        let byte = i as u8;
        table[i] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'/' | b'@' | b'+' | b'-');
        i += 1;
    }
    table
};

/// The longest origin in bytes: so that a key id (`<origin>/<page>/<slot>`) is an identifier.
pub const MAX_ORIGIN_BYTES: usize = 110;

/// The name of a log: `<deployment>/<gateway>/<epoch>`, at most 110 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(CompactString);

/// Whether `text` is a part of an origin, or a retention class in a name: `[a-z0-9][a-z0-9.-]{0,62}`.
pub fn is_part(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-')
        && !text.starts_with(['.', '-'])
}

text_newtype!(Origin, Origin, "^[a-z0-9][a-z0-9.-]{0,62}(/[a-z0-9][a-z0-9.-]{0,62}){2}$", |text| {
    text.len() <= MAX_ORIGIN_BYTES && text.split('/').count() == 3 && text.split('/').all(is_part)
});

/// The second part of a registry's origin: reserved, no gateway has this name.
pub const REGISTRY: &str = "registry";

/// The third part of a registry's origin: one for the deployment's life.
const REGISTRY_LOG: &str = "log";

impl Origin {
    /// The registry of a deployment: `<deployment>/registry/log`.
    ///
    /// # Errors
    /// A deployment outside `[a-z0-9][a-z0-9.-]{0,62}`.
    pub fn registry(deployment: &str) -> Result<Self, NameError> {
        Self::join(deployment, REGISTRY, REGISTRY_LOG)
    }
    /// Whether this is the registry of its deployment.
    pub fn is_registry(&self) -> bool {
        self.gateway() == REGISTRY && self.epoch() == REGISTRY_LOG
    }
    /// Joins the three parts.
    ///
    /// # Errors
    /// A part outside `[a-z0-9][a-z0-9.-]{0,62}`.
    pub fn join(deployment: &str, gateway: &str, epoch: &str) -> Result<Self, NameError> {
        Self::new(format!("{deployment}/{gateway}/{epoch}"))
    }
    fn nth(&self, n: usize) -> &str {
        self.0.split('/').nth(n).unwrap_or_default()
    }
    /// The deployment.
    pub fn deployment(&self) -> &str {
        self.nth(0)
    }
    /// The gateway.
    pub fn gateway(&self) -> &str {
        self.nth(1)
    }
    /// The epoch: one process life.
    pub fn epoch(&self) -> &str {
        self.nth(2)
    }
    /// The key name of this log's seals.
    pub fn seal_key_name(&self) -> String {
        format!("{}/seal", self.0)
    }
}

/// The id of an exchange: a UUIDv7 made by the gateway, lower-case and hyphenated.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(Hyphenated);

/// The 36 bytes of a UUID's text, in place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Hyphenated([u8; 36]);

impl From<&str> for Hyphenated {
    fn from(text: &str) -> Self {
        let mut bytes = [b'0'; 36];
        bytes.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        Self(bytes)
    }
}

impl std::ops::Deref for Hyphenated {
    type Target = str;
    fn deref(&self) -> &str {
        // Only checked ASCII text is wrapped.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

text_newtype!(
    ExchangeId,
    Exchange,
    "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
    |text| {
        text.len() == 36
            && text.bytes().enumerate().all(|(i, b)| match i {
                8 | 13 | 18 | 23 => b == b'-',
                _ => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
            })
    }
);

/// What an object of the store holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// `records.parquet`.
    Records,
    /// `content-<class>.parquet`: the content of one retention class.
    Content(String),
    /// `reference.parquet`.
    Reference,
}

/// The name of an object relative to the store's prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectName {
    /// `<origin>/<batch:010>.seal`.
    Seal {
        /// The log.
        origin: Origin,
        /// The batch's number, from 0.
        batch: u64,
    },
    /// `<origin>/<batch:010>.checkpoint`, in a registry only.
    Checkpoint {
        /// The registry.
        origin: Origin,
        /// The batch's number, from 0.
        batch: u64,
    },
    /// `<origin>/<batch:010>-<sha256>.<kind>`, in a registry only: what somebody else said of its checkpoint.
    Anchor {
        /// The registry.
        origin: Origin,
        /// The batch's number, from 0.
        batch: u64,
        /// SHA-256 of the whole object.
        sha256: Sha256Hex,
        /// Who said it.
        kind: AnchorKind,
    },
    /// `<origin>/<batch:010>-<sha256>.<kind>`.
    Data {
        /// The log.
        origin: Origin,
        /// The batch's number, from 0.
        batch: u64,
        /// SHA-256 of the whole file.
        sha256: Sha256Hex,
        /// What it holds.
        kind: FileKind,
    },
}

/// What stands beside a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnchorKind {
    /// `cosignature`: the checkpoint with a witness's signature.
    Cosignature,
    /// `timestamp`: a timestamp authority's token over the checkpoint.
    Timestamp,
}

impl AnchorKind {
    /// The last part of the object's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cosignature => "cosignature",
            Self::Timestamp => "timestamp",
        }
    }
    fn parse(text: &str) -> Option<Self> {
        [Self::Cosignature, Self::Timestamp].into_iter().find(|kind| kind.as_str() == text)
    }
}

impl FileKind {
    fn suffix(&self) -> String {
        match self {
            Self::Records => "records.parquet".into(),
            Self::Content(class) => format!("content-{class}.parquet"),
            Self::Reference => "reference.parquet".into(),
        }
    }
    fn parse(text: &str) -> Option<Self> {
        match text {
            "records.parquet" => Some(Self::Records),
            "reference.parquet" => Some(Self::Reference),
            _ => {
                let class = text.strip_prefix("content-")?.strip_suffix(".parquet")?;
                is_part(class).then(|| Self::Content(class.into()))
            }
        }
    }
}

impl ObjectName {
    /// The log that the object belongs to.
    pub fn origin(&self) -> &Origin {
        match self {
            Self::Seal { origin, .. }
            | Self::Checkpoint { origin, .. }
            | Self::Anchor { origin, .. }
            | Self::Data { origin, .. } => origin,
        }
    }
    /// The batch that the object belongs to.
    pub fn batch(&self) -> u64 {
        match self {
            Self::Seal { batch, .. }
            | Self::Checkpoint { batch, .. }
            | Self::Anchor { batch, .. }
            | Self::Data { batch, .. } => *batch,
        }
    }
    /// The last part of the name: what a seal's `file` line holds.
    pub fn file_name(&self) -> String {
        match self {
            Self::Seal { batch, .. } => format!("{batch:010}.seal"),
            Self::Checkpoint { batch, .. } => format!("{batch:010}.checkpoint"),
            Self::Anchor { batch, sha256, kind, .. } => format!("{batch:010}-{sha256}.{}", kind.as_str()),
            Self::Data { batch, sha256, kind, .. } => format!("{batch:010}-{sha256}.{}", kind.suffix()),
        }
    }
    /// Parses the last part of a name under a known log.
    ///
    /// # Errors
    /// Anything that [`ObjectName::file_name`] does not write.
    pub fn parse_file(origin: &Origin, name: &str) -> Result<Self, NameError> {
        let bad = || NameError::Object(format!("{origin}/{name}"));
        let digits = name.get(..10).ok_or_else(bad)?;
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let batch: u64 = digits.parse().map_err(|_| bad())?;
        let rest = name.get(10..).ok_or_else(bad)?;
        let origin = origin.clone();
        if rest == ".seal" {
            return Ok(Self::Seal { origin, batch });
        }
        if rest == ".checkpoint" && origin.is_registry() {
            return Ok(Self::Checkpoint { origin, batch });
        }
        let sha256 = rest.get(1..65).and_then(Sha256Hex::parse).ok_or_else(bad)?;
        let suffix = rest.get(66..).ok_or_else(bad)?;
        let parsed = match AnchorKind::parse(suffix).filter(|_| origin.is_registry()) {
            Some(kind) => Self::Anchor { origin, batch, sha256, kind },
            None => Self::Data { origin, batch, sha256, kind: FileKind::parse(suffix).ok_or_else(bad)? },
        };
        if parsed.file_name() == name { Ok(parsed) } else { Err(bad()) }
    }
    /// Parses a whole name relative to the prefix.
    ///
    /// # Errors
    /// Anything that `Display` does not write.
    pub fn parse(path: &str) -> Result<Self, NameError> {
        let (origin, file) = path.rsplit_once('/').ok_or_else(|| NameError::Object(path.into()))?;
        Self::parse_file(&Origin::new(origin)?, file)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.origin(), self.file_name())
    }
}
