//! Who may get at the bucket: its policy, its list of grants, and the block of public access.

use aws_sdk_s3::types::PublicAccessBlockConfiguration;
use serde_json::Value;

use super::settings::{Read, ask};
use crate::finding::{Code, Finding};
use crate::source::s3::{Bucket, Fault};

const BLOCK: &str = "block of public access";
/// Groups of grantees that are nobody in particular.
const EVERYBODY: [&str; 2] = ["/groups/global/AllUsers", "/groups/global/AuthenticatedUsers"];

/// Reads all three.
pub(super) async fn read(bucket: &Bucket, out: &mut Read) {
    match is_public(bucket).await {
        Ok(true) => out.add(Code::PublicAccess, "policy status", "not public", "public"),
        Ok(false) => out.lines.push("its policy's status is not public".into()),
        Err(fault) if fault.is_unset() => {}
        Err(fault) => out.refused("policy status", "s3:GetBucketPolicyStatus", &fault),
    }
    // A store may say of a policy that it is not public and mean something else by it: it is read as well.
    match ask!(bucket, get_bucket_policy) {
        Ok(answer) => policy(answer.policy().unwrap_or_default(), out),
        Err(fault) if fault.is_unset() => out.lines.push("no bucket policy".into()),
        Err(fault) => out.refused("policy", "s3:GetBucketPolicy", &fault),
    }
    match ask!(bucket, get_bucket_acl) {
        Ok(answer) => {
            for grant in answer.grants() {
                let to = grant.grantee().and_then(|grantee| grantee.uri()).unwrap_or_default();
                if EVERYBODY.iter().any(|group| to.ends_with(group)) {
                    let may = grant.permission().map_or("?", |permission| permission.as_str());
                    let found = format!("{may} to {to}");
                    out.add(Code::PublicAccess, "list of grants", "grants to accounts", found);
                }
            }
        }
        Err(fault) => out.refused("list of grants", "s3:GetBucketAcl", &fault),
    }
    match ask!(bucket, get_public_access_block) {
        Ok(answer) => match answer.public_access_block_configuration() {
            Some(block) => blocked(block, out),
            None => out.unknown.push(BLOCK),
        },
        // Whether the account blocks it is not told by the bucket.
        Err(fault) if fault.is_unset() => open_block("none for the bucket".into(), out),
        Err(fault) => out.refused(BLOCK, "s3:GetBucketPublicAccessBlock", &fault),
    }
}

fn blocked(block: &PublicAccessBlockConfiguration, out: &mut Read) {
    let settings = [
        ("BlockPublicAcls", block.block_public_acls()),
        ("IgnorePublicAcls", block.ignore_public_acls()),
        ("BlockPublicPolicy", block.block_public_policy()),
        ("RestrictPublicBuckets", block.restrict_public_buckets()),
    ];
    let off: Vec<&str> =
        settings.into_iter().filter(|(_, on)| *on != Some(true)).map(|(name, _)| name).collect();
    if off.is_empty() {
        out.lines.push("public access is blocked".into());
    } else {
        open_block(format!("off: {}", off.join(", ")), out);
    }
}

/// Nothing is public by it: it only leaves that open.
fn open_block(found: String, out: &mut Read) {
    let place = Read::place(BLOCK);
    out.findings.push(Finding::new(Code::PublicAccess, place, "all four settings on", found).as_note());
}

/// Whether the store says that the bucket's policy gives access to anybody.
async fn is_public(bucket: &Bucket) -> Result<bool, Fault> {
    bucket.count();
    let request = bucket
        .client
        .get_bucket_policy_status()
        .bucket(&bucket.address.bucket)
        .set_expected_bucket_owner(bucket.owner.clone());
    let error = match request.send().await {
        Ok(answer) => {
            let said = answer.policy_status().and_then(|status| status.is_public());
            let silent = || Fault {
                status: None,
                code: String::new(),
                message: "an answer without `IsPublic`".into(),
            };
            return said.ok_or_else(silent);
        }
        Err(error) => error,
    };
    // MinIO writes `TRUE` and `FALSE`, which the client does not read.
    let body = error.raw_response().filter(|response| response.status().as_u16() == 200);
    let said =
        body.and_then(|response| std::str::from_utf8(response.body().bytes()?).ok()).and_then(|text| {
            Some(text.split_once("<IsPublic>")?.1.split_once('<')?.0.trim().to_ascii_lowercase())
        });
    match said.as_deref() {
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        _ => Err(Fault::of(&error)),
    }
}

/// What a policy allows everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Allowed {
    /// The statement's id, or its number.
    statement: String,
    /// Whether only under conditions.
    conditional: bool,
}

fn policy(text: &str, out: &mut Read) {
    let Some(allowed) = allowed(text) else {
        out.add(Code::CouldNotRead, "policy", "a policy in JSON", "something else");
        return;
    };
    for Allowed { statement, conditional } in allowed {
        let found = format!("statement `{statement}` allows everybody");
        if conditional {
            let found = format!("{found}, under conditions that are not judged");
            let finding =
                Finding::new(Code::PublicAccess, Read::place("policy"), "principals by name", found);
            out.findings.push(finding.as_note());
        } else {
            out.add(Code::PublicAccess, "policy", "principals by name", found);
        }
    }
}

/// The statements of a policy that allow something to everybody; `None` where it is no policy.
fn allowed(text: &str) -> Option<Vec<Allowed>> {
    let policy: Value = serde_json::from_str(text).ok()?;
    let statements = match policy.get("Statement")? {
        Value::Array(statements) => statements.clone(),
        one => vec![one.clone()],
    };
    let mut out = Vec::new();
    for (n, statement) in statements.iter().enumerate() {
        let everybody = match (statement.get("Principal"), statement.get("NotPrincipal")) {
            (Some(principal), _) => is_everybody(principal),
            // All but those.
            (None, not) => not.is_some(),
        };
        if statement.get("Effect")?.as_str()? == "Allow" && everybody {
            let id = statement.get("Sid").and_then(Value::as_str).map(str::to_owned);
            let conditional = statement.get("Condition").is_some();
            out.push(Allowed { statement: id.unwrap_or_else(|| (n + 1).to_string()), conditional });
        }
    }
    Some(out)
}

fn is_everybody(principal: &Value) -> bool {
    match principal {
        Value::String(text) => text == "*",
        Value::Array(list) => list.iter().any(is_everybody),
        Value::Object(kinds) => kinds.get("AWS").is_some_and(is_everybody),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(statement: &str) -> Option<Vec<(String, bool)>> {
        let found = allowed(&format!(r#"{{"Version":"2012-10-17","Statement":{statement}}}"#))?;
        Some(found.into_iter().map(|allowed| (allowed.statement, allowed.conditional)).collect())
    }

    #[test]
    fn a_policy_is_public_where_it_allows_something_to_everybody() {
        let public = |statement: &str, conditional| {
            assert_eq!(found(statement), Some(vec![("1".to_owned(), conditional)]), "{statement}");
        };
        public(r#"{"Effect":"Allow","Principal":"*","Action":"s3:GetObject"}"#, false);
        public(r#"[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"s3:GetObject"}]"#, false);
        public(r#"[{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::1:root","*"]}}]"#, false);
        public(r#"[{"Effect":"Allow","NotPrincipal":{"AWS":"arn:aws:iam::1:root"}}]"#, false);
        public(r#"[{"Effect":"Allow","Principal":"*","Condition":{"Bool":{"a":"b"}}}]"#, true);
        for closed in [
            r#"[{"Effect":"Deny","Principal":"*","Action":"s3:DeleteObject"}]"#,
            r#"[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:role/auditor"}}]"#,
            r#"[{"Effect":"Allow","Principal":{"Service":"logging.s3.amazonaws.com"}}]"#,
        ] {
            assert_eq!(found(closed), Some(vec![]), "{closed}");
        }
        assert_eq!(found(r#"[{"Principal":"*"}]"#), None);
        assert_eq!(allowed("no policy"), None);
        let ours = allowed(include_str!("../../../deploy/s3/bucket-policy.json"));
        assert_eq!(ours, Some(vec![]));
    }
}
