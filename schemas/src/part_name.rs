//! The names of the parts of an exchange's content.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many attempts an exchange has at most, its intent's own dispatch counted.
pub const MAX_ATTEMPTS: usize = 16;

/// The number of an attempt: 0 to 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptNumber(u8);

impl AttemptNumber {
    /// The intent's own dispatch.
    pub const FIRST: Self = Self(0);

    /// A number below [`MAX_ATTEMPTS`].
    pub const fn new(number: u64) -> Option<Self> {
        if number < MAX_ATTEMPTS as u64 { Some(Self(number as u8)) } else { None }
    }

    /// The number behind it, where there may be one more.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        Self::new(u64::from(self.0) + 1)
    }

    /// As a small number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl From<AttemptNumber> for u64 {
    fn from(number: AttemptNumber) -> Self {
        number.0.into()
    }
}

impl fmt::Display for AttemptNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The parts of an exchange's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PartName {
    /// Request line and recorded headers as the caller sent them, one `name: value` a line.
    ClientRequestHead,
    /// The caller's body.
    ClientRequest,
    /// The body sent to the provider; absent where it is the caller's, byte for byte.
    ProviderRequest,
    /// Status and recorded headers of the provider's answer.
    ProviderResponseHead,
    /// The provider's body.
    ProviderResponse,
    /// The body sent to the caller; absent where it is the provider's, byte for byte.
    ClientResponse,
    /// The text of an error that the gateway met.
    Error,
    /// The body that an attempt sends.
    AttemptRequest(AttemptNumber),
    /// The body that the provider of an attempt answered.
    AttemptResponse(AttemptNumber),
}

/// How many parts there are.
const COUNT: usize = 7 + 2 * MAX_ATTEMPTS;

const NAMES: [&str; COUNT] = [
    "client_request_head",
    "client_request",
    "provider_request",
    "provider_response_head",
    "provider_response",
    "client_response",
    "error",
    "attempt_request_0",
    "attempt_request_1",
    "attempt_request_2",
    "attempt_request_3",
    "attempt_request_4",
    "attempt_request_5",
    "attempt_request_6",
    "attempt_request_7",
    "attempt_request_8",
    "attempt_request_9",
    "attempt_request_10",
    "attempt_request_11",
    "attempt_request_12",
    "attempt_request_13",
    "attempt_request_14",
    "attempt_request_15",
    "attempt_response_0",
    "attempt_response_1",
    "attempt_response_2",
    "attempt_response_3",
    "attempt_response_4",
    "attempt_response_5",
    "attempt_response_6",
    "attempt_response_7",
    "attempt_response_8",
    "attempt_response_9",
    "attempt_response_10",
    "attempt_response_11",
    "attempt_response_12",
    "attempt_response_13",
    "attempt_response_14",
    "attempt_response_15",
];

/// What stands where in [`NAMES`], with its meaning.
const MEANINGS: [(usize, usize, &str); 9] = [
    (0, 1, "Request line and recorded headers as the caller sent them, one `name: value` a line."),
    (1, 2, "The caller's body."),
    (2, 3, "The body sent to the provider; absent where it is the caller's, byte for byte."),
    (3, 4, "Status and recorded headers of the provider's answer."),
    (4, 5, "The provider's body."),
    (5, 6, "The body sent to the caller; absent where it is the provider's, byte for byte."),
    (6, 7, "The text of an error that the gateway met."),
    (
        7,
        23,
        "The body that the attempt of this number sends; absent where it is that of number 0, byte for byte.",
    ),
    (
        23,
        39,
        "The body that the provider of this attempt answered, as far as it came, where it is no `provider_response`.",
    ),
];

impl PartName {
    /// Every part, in the order in which rows of one record stand.
    pub const ALL: [Self; COUNT] = {
        let mut all = [Self::Error; COUNT];
        all[0] = Self::ClientRequestHead;
        all[1] = Self::ClientRequest;
        all[2] = Self::ProviderRequest;
        all[3] = Self::ProviderResponseHead;
        all[4] = Self::ProviderResponse;
        all[5] = Self::ClientResponse;
        let mut n = 0;
        while n < MAX_ATTEMPTS as u8 {
            all[7 + n as usize] = Self::AttemptRequest(AttemptNumber(n));
            all[7 + MAX_ATTEMPTS + n as usize] = Self::AttemptResponse(AttemptNumber(n));
            n += 1;
        }
        all
    };

    /// Where it stands in [`PartName::ALL`].
    pub fn place(self) -> usize {
        match self {
            Self::ClientRequestHead => 0,
            Self::ClientRequest => 1,
            Self::ProviderRequest => 2,
            Self::ProviderResponseHead => 3,
            Self::ProviderResponse => 4,
            Self::ClientResponse => 5,
            Self::Error => 6,
            Self::AttemptRequest(number) => 7 + usize::from(number.0),
            Self::AttemptResponse(number) => 7 + MAX_ATTEMPTS + usize::from(number.0),
        }
    }

    /// The part's name in leaves, rows and encodings.
    pub fn as_str(self) -> &'static str {
        NAMES.get(self.place()).copied().unwrap_or_default()
    }

    /// Reads a part's name.
    pub fn parse(text: &str) -> Option<Self> {
        NAMES.iter().position(|name| *name == text).and_then(|place| Self::ALL.get(place).copied())
    }

    /// The attempt whose part it is, where it is one of an attempt.
    pub fn attempt(self) -> Option<AttemptNumber> {
        match self {
            Self::AttemptRequest(number) | Self::AttemptResponse(number) => Some(number),
            _ => None,
        }
    }
}

impl Serialize for PartName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for PartName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl serde::de::Visitor<'_> for Name {
            type Value = PartName;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a part")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<PartName, E> {
                PartName::parse(text).ok_or_else(|| E::unknown_variant(text, &NAMES))
            }
        }
        deserializer.deserialize_str(Name)
    }
}

impl JsonSchema for PartName {
    fn schema_name() -> Cow<'static, str> {
        "PartName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let options: Vec<serde_json::Value> = MEANINGS
            .iter()
            .map(|(from, to, meaning)| match NAMES.get(*from..*to) {
                Some([name]) => {
                    serde_json::json!({ "description": meaning, "type": "string", "const": name })
                }
                names => serde_json::json!({ "description": meaning, "type": "string", "enum": names }),
            })
            .collect();
        json_schema!({ "description": "The parts of an exchange's content.", "oneOf": options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_one_name_and_one_place() {
        for (place, part) in PartName::ALL.into_iter().enumerate() {
            assert_eq!(part.place(), place);
            assert_eq!(PartName::parse(part.as_str()), Some(part));
            let json = serde_json::to_string(&part).unwrap();
            assert_eq!(serde_json::from_str::<PartName>(&json).unwrap(), part);
        }
        assert!(PartName::ALL.is_sorted());
        let last = AttemptNumber::new(15).unwrap();
        assert_eq!(PartName::AttemptRequest(last).as_str(), "attempt_request_15");
        assert_eq!(PartName::AttemptResponse(last).as_str(), "attempt_response_15");
        assert_eq!((last.next(), AttemptNumber::new(16)), (None, None));
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        for text in
            ["attempt_request_16", "attempt_request_01", "attempt_request_", "attempt_response", "Error"]
        {
            assert_eq!(PartName::parse(text), None, "{text}");
            assert!(serde_json::from_value::<PartName>(text.into()).is_err(), "{text}");
        }
    }

    #[test]
    fn every_part_has_its_meaning() {
        let covered: Vec<usize> = MEANINGS.iter().flat_map(|(from, to, _)| *from..*to).collect();
        assert_eq!(covered, (0..COUNT).collect::<Vec<_>>());
    }
}
