//! How requests to AWS are signed: region, service, and where the access key is.

use std::path::Path;

use policies::document::{Node, Problem};
use schemars::JsonSchema;
use serde::Serialize;

use super::Credential;
use super::read::{Reader, credential, whole};

/// Signature Version 4 under an access key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Aws {
    /// The region of the endpoint: `us-east-1`.
    pub region: String,
    /// The name that is signed for: `bedrock` where not typed.
    #[schemars(default = "default_service")]
    pub service: String,
    /// The access key's id.
    pub access_key_id: Credential,
    /// Its secret.
    pub secret_access_key: Credential,
    /// The token of a temporary access key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_token: Option<Credential>,
}

fn default_service() -> &'static str {
    "bedrock"
}

impl Aws {
    /// The parts of the access key, by their names.
    pub(super) fn places(&self) -> impl Iterator<Item = (&'static str, &Credential)> {
        [("access_key_id", &self.access_key_id), ("secret_access_key", &self.secret_access_key)]
            .into_iter()
            .chain(self.session_token.as_ref().map(|token| ("session_token", token)))
    }
}

/// Reads the block of a provider.
pub(super) fn read(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Aws> {
    let mut f = Reader::new(node, path, base, problems);
    let name = |text: &str| {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        fits.then(|| text.to_owned())
    };
    let region = f.fields.required("region", "a region as `us-east-1`", name);
    let service = f.fields.optional("service", "a service's signing name as `bedrock`", name);
    let form = "`{env: NAME}` or `{file: PATH}`: where it is";
    f.fields.required_node("access_key_id", form);
    f.fields.required_node("secret_access_key", form);
    let id = f.part_of("access_key_id", credential);
    let secret = f.part_of("secret_access_key", credential);
    let token = f.part_of("session_token", credential);
    f.fields.finish();
    Some(Aws {
        region: region?,
        service: service.unwrap_or_else(|| default_service().to_owned()),
        access_key_id: id??,
        secret_access_key: secret??,
        session_token: whole(token)?,
    })
}
