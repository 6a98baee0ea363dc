//! `vault`: where secrets are that are named by `{vault: ...}`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use policies::document::{Node, Problem};
use schemars::JsonSchema;
use serde::Serialize;

use super::read::{Reader, SECOND, credential, whole};
use super::units::{duration_schema, duration_text};
use super::{BaseUrl, Credential};

/// A Vault, or an OpenBao: secrets of its key-value engine, version 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Vault {
    /// Its address: `https://...` (`http://` on this machine only).
    #[schemars(with = "String")]
    pub address: BaseUrl,
    /// PEM file of the roots to trust for it; absent: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// How the gateway says who it is.
    pub auth: VaultAuth,
    /// Where the engine is mounted.
    #[schemars(default = "default_mount")]
    pub mount: String,
    /// The namespace, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// How often secrets are read again; a change takes effect without a restart. `5m` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_refresh", schema_with = "duration_schema")]
    pub refresh: Duration,
}

/// How the gateway says who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VaultAuth {
    /// A token, read again each time: what renews it writes the file.
    Token(Credential),
    /// The token of the pod's service account.
    Kubernetes(VaultKubernetes),
    /// A role with a secret.
    Approle(VaultApprole),
}

/// Kubernetes auth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct VaultKubernetes {
    /// The role.
    pub role: String,
    /// File of the service account's token.
    #[schemars(default = "default_token")]
    pub token: PathBuf,
    /// Where the auth method is mounted.
    #[schemars(default = "default_kubernetes")]
    pub mount: String,
}

/// AppRole auth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct VaultApprole {
    /// The role's id.
    pub role_id: Credential,
    /// Its secret.
    pub secret_id: Credential,
    /// Where the auth method is mounted.
    #[schemars(default = "default_approle")]
    pub mount: String,
}

/// A secret in the Vault.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct VaultSecret {
    /// The secret's path within the mount.
    pub path: String,
    /// Which of its keys.
    pub key: String,
}

fn default_mount() -> &'static str {
    "secret"
}

fn default_kubernetes() -> &'static str {
    "kubernetes"
}

fn default_approle() -> &'static str {
    "approle"
}

fn default_refresh() -> &'static str {
    "5m"
}

fn default_token() -> &'static str {
    "/var/run/secrets/kubernetes.io/serviceaccount/token"
}

const PATH_FORM: &str = "a path as `llm/openai`: letters, digits, `_`, `-`, `.` and `/`";

/// A path that needs no escapes, and leads nowhere else.
fn path_of(text: &str) -> Option<String> {
    let part = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    };
    (text.len() <= 512 && text.split('/').all(part)).then(|| text.to_owned())
}

fn text_of(text: &str) -> Option<String> {
    ((1..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.to_owned())
}

/// Reads the part.
pub(super) fn read(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Vault> {
    let mut f = Reader::new(node, path, base, problems);
    let form = "`https://`, host and port (`http://` on this machine only)";
    let address = f
        .fields
        .required("address", form, |text| BaseUrl::parse(text).filter(|url| url.tls || url.is_loopback()));
    let ca = f.path("ca");
    f.fields.required_node("auth", "`{token: ...}`, `{kubernetes: ...}` or `{approle: ...}`");
    let auth = f.part_of("auth", auth);
    let mount = f.fields.optional("mount", PATH_FORM, path_of);
    let namespace = f.fields.optional("namespace", PATH_FORM, path_of);
    let refresh = f.duration("refresh", SECOND..=Duration::from_secs(86_400), 300 * SECOND);
    f.fields.finish();
    Some(Vault {
        address: address?,
        ca,
        auth: auth??,
        mount: mount.unwrap_or_else(|| default_mount().to_owned()),
        namespace,
        refresh,
    })
}

fn auth(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<VaultAuth> {
    let mut f = Reader::new(node, path, base, problems);
    let token = f.part_of("token", credential);
    let kubernetes = f.part_of("kubernetes", kubernetes);
    let approle = f.part_of("approle", approle);
    let typed = [token.is_some(), kubernetes.is_some(), approle.is_some()];
    if typed.iter().filter(|typed| **typed).count() != 1 {
        let wanted = "one of `token`, `kubernetes` and `approle`";
        f.fields.report(Problem::at(node.place, path, wanted));
    }
    f.fields.finish();
    match (token, kubernetes, approle) {
        (Some(token), None, None) => token.map(VaultAuth::Token),
        (None, Some(kubernetes), None) => kubernetes.map(VaultAuth::Kubernetes),
        (None, None, Some(approle)) => approle.map(VaultAuth::Approle),
        _ => None,
    }
}

fn kubernetes(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<VaultKubernetes> {
    let mut f = Reader::new(node, path, base, problems);
    let role = f.fields.required("role", "a role's name", text_of);
    let token = f.path("token");
    let mount = f.fields.optional("mount", PATH_FORM, path_of);
    f.fields.finish();
    Some(VaultKubernetes {
        role: role?,
        token: token.unwrap_or_else(|| default_token().into()),
        mount: mount.unwrap_or_else(|| default_kubernetes().to_owned()),
    })
}

fn approle(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<VaultApprole> {
    let mut f = Reader::new(node, path, base, problems);
    let form = "`{env: NAME}` or `{file: PATH}`: where it is";
    f.fields.required_node("role_id", form);
    f.fields.required_node("secret_id", form);
    let role_id = f.part_of("role_id", credential);
    let secret_id = f.part_of("secret_id", credential);
    let mount = f.fields.optional("mount", PATH_FORM, path_of);
    f.fields.finish();
    Some(VaultApprole {
        role_id: whole(role_id)??,
        secret_id: whole(secret_id)??,
        mount: mount.unwrap_or_else(|| default_approle().to_owned()),
    })
}

/// Reads `{path, key}`.
pub(super) fn secret(
    node: &Node,
    path: &str,
    base: &Path,
    problems: &mut Vec<Problem>,
) -> Option<VaultSecret> {
    let mut f = Reader::new(node, path, base, problems);
    let (place, key) =
        (f.fields.required("path", PATH_FORM, path_of), f.fields.required("key", "a key's name", text_of));
    f.fields.finish();
    Some(VaultSecret { path: place?, key: key? })
}
