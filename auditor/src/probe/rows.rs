//! The rows: what is tried, in an order in which none spoils the next.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketVersioningStatus, ChecksumAlgorithm, Delete, ObjectIdentifier, ObjectLockLegalHoldStatus,
    ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode, VersioningConfiguration,
};
use aws_smithy_types::DateTime;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas::Sha256Hex;

use super::transcript::{Outcome, Row, Transcript};
use crate::bucket::lock::{self, Retention};
use crate::source::s3::{Bucket, Fault};
use crate::time;

/// The names of all rows, in their order.
pub const ROWS: [&str; 20] = [
    "put_locked",
    "read_back",
    "head_agrees",
    "clock",
    "wrong_checksum",
    "put_again",
    "overwrite",
    "delete_version",
    "delete_version_bypass",
    "delete_objects",
    "delete_objects_bypass",
    "shorten",
    "shorten_bypass",
    "downgrade",
    "extend",
    "marker",
    "put_over_marker",
    "default_retention",
    "hold_off",
    "suspend_versioning",
];

const BYTES: &[u8] = b"affidavit probe: a canary, locked for a short time\n";
/// How far the store's clock may be off.
const SKEW: i64 = 5 * 60 * time::SECOND;

fn date(at: i64) -> DateTime {
    DateTime::from_secs(at / time::SECOND)
}

/// A canary that is under lock.
#[derive(Debug, Clone)]
struct Canary {
    name: String,
    version: String,
    until: i64,
}

struct Probe<'a> {
    bucket: &'a Bucket,
    folder: String,
    until: i64,
    skip: &'a [String],
    rows: Vec<Row>,
}

/// What a row saw.
type Saw = (Outcome, String);

fn answer<T>(result: &Result<T, Fault>) -> String {
    match result {
        Ok(_) => "accepted".into(),
        Err(fault) => format!("refused: {fault}"),
    }
}

/// Probes. `lock`: how long the canaries are locked, microseconds.
///
/// # Errors
/// The first canary cannot be written: nothing can be said about the store then.
pub async fn run(bucket: &Bucket, lock: i64, skip: &[String]) -> anyhow::Result<Transcript> {
    let at = time::now();
    let mut random = [0; 8];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random)
        .map_err(|_| anyhow::anyhow!("the system gave no random bytes"))?;
    let folder = format!("{}/{}", crate::verify::listing::PROBES, hex::encode(random));
    let until = (at + lock) / time::SECOND * time::SECOND;
    let mut probe = Probe { bucket, folder, until, skip, rows: Vec::new() };
    probe.all().await?;
    Ok(Transcript {
        v: 1,
        store: bucket.describe(),
        server: server(bucket).await,
        at,
        auditor: concat!("auditor ", env!("CARGO_PKG_VERSION")),
        canaries: bucket.key(&probe.folder),
        locked_until: until,
        rows: probe.rows,
    })
}

/// What the store calls itself: the header `server` of an answer to a bucket's HEAD.
async fn server(bucket: &Bucket) -> Option<String> {
    let refused =
        bucket.client.get_object().bucket(&bucket.address.bucket).key(bucket.key(".affidavit-probe/none"));
    let error = refused.send().await.err()?;
    error.raw_response()?.headers().get("server").map(str::to_owned)
}

impl Probe<'_> {
    fn add(&mut self, name: &'static str, did: &'static str, expected: &'static str, (outcome, seen): Saw) {
        self.rows.push(Row { name, did, expected, seen, outcome });
    }

    fn wants(&mut self, name: &'static str, did: &'static str, expected: &'static str) -> bool {
        let skipped = self.skip.iter().any(|skip| skip == name);
        if skipped {
            self.add(name, did, expected, (Outcome::NotTried, "left out by `--skip`".into()));
        }
        !skipped
    }

    async fn all(&mut self) -> anyhow::Result<()> {
        let canary = self.put_locked().await?;
        self.reads(&canary).await;
        self.writes(&canary).await;
        self.deletes(&canary).await;
        let canary = self.changes(canary).await;
        self.markers(&canary).await;
        self.defaults().await;
        self.suspend(&canary).await;
        Ok(())
    }

    /// A PUT; gives the version id.
    async fn put(
        &self,
        name: &str,
        lock: Option<i64>,
        new: bool,
        sha256: Option<Sha256Hex>,
        hold_off: bool,
    ) -> Result<String, Fault> {
        self.bucket.count();
        let sha256 = sha256.unwrap_or_else(|| Sha256Hex::of(BYTES));
        let request = self
            .bucket
            .client
            .put_object()
            .bucket(&self.bucket.address.bucket)
            .key(self.bucket.key(name))
            .body(ByteStream::from_static(BYTES))
            // Some stores ask for the algorithm's name beside the value.
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(STANDARD.encode(sha256.0))
            .set_if_none_match(new.then(|| "*".to_owned()))
            .set_object_lock_mode(lock.map(|_| ObjectLockMode::Compliance))
            .set_object_lock_retain_until_date(lock.map(date))
            .set_object_lock_legal_hold_status(hold_off.then_some(ObjectLockLegalHoldStatus::Off))
            .set_expected_bucket_owner(self.bucket.owner.clone());
        let answer = request.send().await.map_err(|error| Fault::of(&error))?;
        Ok(answer.version_id().unwrap_or("null").to_owned())
    }

    async fn put_locked(&mut self) -> anyhow::Result<Canary> {
        let name = format!("{}/canary", self.folder);
        let put = self.put(&name, Some(self.until), true, None, false).await;
        let version = match &put {
            Ok(version) => version.clone(),
            Err(fault) => anyhow::bail!("the canary `{}` cannot be written: {fault}", self.bucket.key(&name)),
        };
        let outcome = if version == "null" { Outcome::NotEnforced } else { Outcome::AsRequired };
        self.add(
            "put_locked",
            "PUT of a new name with COMPLIANCE, retain-until, SHA-256 and If-None-Match: *",
            "stored under a version id",
            (outcome, format!("version {version}")),
        );
        Ok(Canary { name, version, until: self.until })
    }

    /// Whether the canary is still there, whole and locked as before: `None` where all is well.
    async fn harm(&self, canary: &Canary) -> Result<Option<String>, Fault> {
        self.bucket.count();
        let get = self
            .bucket
            .client
            .get_object()
            .bucket(&self.bucket.address.bucket)
            .key(self.bucket.key(&canary.name))
            .version_id(&canary.version)
            .send()
            .await;
        match get {
            Ok(got) => match got.body.collect().await.map(|body| body.to_vec()) {
                Ok(body) if body == BYTES => {}
                Ok(_) => return Ok(Some("the locked version has other bytes".into())),
                Err(error) => {
                    return Err(Fault { status: None, code: String::new(), message: error.to_string() });
                }
            },
            Err(error) => {
                let fault = Fault::of(&error);
                return if fault.is_absent() {
                    Ok(Some("the locked version is gone".into()))
                } else {
                    Err(fault)
                };
            }
        }
        let shown = lock::shown(self.bucket, &canary.name, &canary.version, true).await?;
        match shown.lock() {
            Some(("COMPLIANCE", until)) if until >= canary.until => Ok(None),
            Some(("", _)) => Ok(Some("it is not locked any more".into())),
            Some((mode, until)) => Ok(Some(format!("it is now {mode} until {}", time::text(until)))),
            None => {
                let message = format!("{:?}", shown.retention);
                Err(Fault { status: None, code: "GetObjectRetention".into(), message })
            }
        }
    }

    /// Judges something that must have done no harm. `refusal`: the store must also have said no.
    async fn harmless(&self, canary: &Canary, said: String, accepted: bool, refusal: bool) -> Saw {
        match self.harm(canary).await {
            Ok(None) if accepted && refusal => {
                (Outcome::Differs, format!("{said}; without effect on the locked version"))
            }
            Ok(None) => (Outcome::AsRequired, format!("{said}; the locked version stays as it is")),
            Ok(Some(harm)) => (Outcome::NotEnforced, format!("{said}; {harm}")),
            Err(fault) => (Outcome::NotJudged, format!("{said}; afterwards: {fault}")),
        }
    }

    async fn reads(&mut self, canary: &Canary) {
        let (name, did, expected) = (
            "read_back",
            "GET and GetObjectRetention of the version",
            "the bytes, COMPLIANCE, the date that was put",
        );
        if self.wants(name, did, expected) {
            let saw = self.harmless(canary, "read".into(), false, false).await;
            self.add(name, did, expected, saw);
        }
        let (name, did, expected) = (
            "head_agrees",
            "HEAD of the version, with checksums",
            "the lock that GetObjectRetention shows, and the SHA-256 of the bytes",
        );
        if self.wants(name, did, expected) {
            let saw = match lock::shown(self.bucket, &canary.name, &canary.version, true).await {
                Err(fault) => (Outcome::NotJudged, fault.to_string()),
                Ok(shown) => {
                    let lock =
                        Retention::Locked(shown.mode.clone(), shown.until / time::SECOND * time::SECOND);
                    let same = match &shown.retention {
                        Some(Retention::Locked(mode, until)) => {
                            lock == Retention::Locked(mode.clone(), until / time::SECOND * time::SECOND)
                        }
                        _ => shown.mode.is_empty(),
                    };
                    let sum = shown.sha256 == Some(Sha256Hex::of(BYTES));
                    let seen = format!(
                        "HEAD: {} until {}, SHA-256 {}; GetObjectRetention: {:?}",
                        if shown.mode.is_empty() { "no lock" } else { &shown.mode },
                        time::text(shown.until),
                        shown.sha256.map_or("none".into(), |sum| sum.to_string()),
                        shown.retention
                    );
                    (if same && sum { Outcome::AsRequired } else { Outcome::Differs }, seen)
                }
            };
            self.add(name, did, expected, saw);
        }
        let (name, did, expected) = (
            "clock",
            "HEAD of the version just written",
            "Last-Modified within 5 minutes of the auditor's clock",
        );
        if self.wants(name, did, expected) {
            self.bucket.count();
            let head = self
                .bucket
                .client
                .head_object()
                .bucket(&self.bucket.address.bucket)
                .key(self.bucket.key(&canary.name))
                .version_id(&canary.version)
                .send()
                .await;
            let saw = match head {
                Err(error) => (Outcome::NotJudged, Fault::of(&error).to_string()),
                Ok(head) => {
                    let at = crate::source::s3::micros(head.last_modified());
                    let ok = (at - time::now()).abs() <= SKEW;
                    (
                        if ok { Outcome::AsRequired } else { Outcome::NotEnforced },
                        format!("Last-Modified {}", time::text(at)),
                    )
                }
            };
            self.add(name, did, expected, saw);
        }
    }

    async fn writes(&mut self, canary: &Canary) {
        let (name, did, expected) = (
            "wrong_checksum",
            "PUT of a new name with the SHA-256 of other bytes",
            "refused, and nothing stored",
        );
        if self.wants(name, did, expected) {
            let other = format!("{}/wrong", self.folder);
            let put = self.put(&other, None, true, Some(Sha256Hex([7; 32])), false).await;
            let saw = match &put {
                Ok(_) => (Outcome::NotEnforced, "accepted: checksums are not looked at".into()),
                Err(fault) if fault.is_refused() => (Outcome::AsRequired, answer(&put)),
                Err(fault) => (Outcome::NotJudged, fault.to_string()),
            };
            self.add(name, did, expected, saw);
        }
        let (name, did, expected) =
            ("put_again", "the same PUT with If-None-Match: * again", "412, no second version");
        if self.wants(name, did, expected) {
            let put = self.put(&canary.name, Some(canary.until), true, None, false).await;
            let saw = match &put {
                Ok(_) => (Outcome::NotEnforced, "accepted: create-only writes are not create-only".into()),
                Err(fault) if fault.status == Some(412) => (Outcome::AsRequired, answer(&put)),
                Err(fault) if fault.is_refused() => (Outcome::Differs, answer(&put)),
                Err(fault) => (Outcome::NotJudged, fault.to_string()),
            };
            self.add(name, did, expected, saw);
        }
        let (name, did, expected) = (
            "overwrite",
            "PUT of the same name without If-None-Match",
            "a new version beside the locked one, or refused",
        );
        if self.wants(name, did, expected) {
            let put = self.put(&canary.name, None, false, None, false).await;
            let saw = self.harmless(canary, answer(&put), put.is_ok(), false).await;
            self.add(name, did, expected, saw);
        }
    }

    async fn deletes(&mut self, canary: &Canary) {
        for (name, did, bypass) in [
            ("delete_version", "DELETE of the locked version", false),
            (
                "delete_version_bypass",
                "DELETE of the locked version with x-amz-bypass-governance-retention",
                true,
            ),
        ] {
            let expected = "refused, and the version stays";
            if self.wants(name, did, expected) {
                self.bucket.count();
                let request = self
                    .bucket
                    .client
                    .delete_object()
                    .bucket(&self.bucket.address.bucket)
                    .key(self.bucket.key(&canary.name))
                    .version_id(&canary.version)
                    .set_bypass_governance_retention(bypass.then_some(true));
                let deleted = request.send().await.map_err(|error| Fault::of(&error));
                let saw = self.harmless(canary, answer(&deleted), deleted.is_ok(), true).await;
                self.add(name, did, expected, saw);
            }
        }
        for (name, did, bypass) in [
            ("delete_objects", "DeleteObjects with the locked version", false),
            ("delete_objects_bypass", "DeleteObjects with the locked version and bypass", true),
        ] {
            let expected = "an error for the key, and the version stays";
            if self.wants(name, did, expected) {
                let saw = self.delete_objects(canary, bypass).await;
                self.add(name, did, expected, saw);
            }
        }
    }

    async fn delete_objects(&self, canary: &Canary, bypass: bool) -> Saw {
        let object = ObjectIdentifier::builder()
            .key(self.bucket.key(&canary.name))
            .version_id(&canary.version)
            .build();
        let delete = object.and_then(|object| Delete::builder().objects(object).build());
        let delete = match delete {
            Ok(delete) => delete,
            Err(error) => return (Outcome::NotJudged, error.to_string()),
        };
        self.bucket.count();
        let request = self
            .bucket
            .client
            .delete_objects()
            .bucket(&self.bucket.address.bucket)
            .delete(delete)
            .set_bypass_governance_retention(bypass.then_some(true));
        let (said, accepted) = match request.send().await {
            Ok(done) => match done.errors().first() {
                Some(error) => {
                    let code = error.code().unwrap_or_default();
                    (format!("200, error for the key: {code} {}", error.message().unwrap_or_default()), false)
                }
                None => ("200, no error for the key".into(), true),
            },
            Err(error) => (format!("refused: {}", Fault::of(&error)), false),
        };
        self.harmless(canary, said, accepted, true).await
    }

    async fn retain(
        &self,
        canary: &Canary,
        mode: ObjectLockRetentionMode,
        until: i64,
        bypass: bool,
    ) -> Result<(), Fault> {
        self.bucket.count();
        let retention = ObjectLockRetention::builder().mode(mode).retain_until_date(date(until)).build();
        let request = self
            .bucket
            .client
            .put_object_retention()
            .bucket(&self.bucket.address.bucket)
            .key(self.bucket.key(&canary.name))
            .version_id(&canary.version)
            .retention(retention)
            .set_bypass_governance_retention(bypass.then_some(true));
        request.send().await.map(|_| ()).map_err(|error| Fault::of(&error))
    }

    async fn changes(&mut self, mut canary: Canary) -> Canary {
        let (compliance, governance) =
            (ObjectLockRetentionMode::Compliance, ObjectLockRetentionMode::Governance);
        let sooner = canary.until - (canary.until - time::now()) / 2;
        for (name, did, mode, until, bypass) in [
            ("shorten", "PutObjectRetention with an earlier date", compliance.clone(), sooner, false),
            (
                "shorten_bypass",
                "PutObjectRetention with an earlier date and bypass",
                compliance.clone(),
                sooner,
                true,
            ),
            ("downgrade", "PutObjectRetention to GOVERNANCE, with bypass", governance, canary.until, true),
        ] {
            let expected = "refused, and the lock stays as it is";
            if self.wants(name, did, expected) {
                let done = self.retain(&canary, mode, until, bypass).await;
                let saw = self.harmless(&canary, answer(&done), done.is_ok(), true).await;
                self.add(name, did, expected, saw);
            }
        }
        let (name, did, expected) = ("extend", "PutObjectRetention with a date one minute later", "accepted");
        if self.wants(name, did, expected) {
            let later = canary.until + 60 * time::SECOND;
            let done = self.retain(&canary, compliance, later, false).await;
            let extended = Canary { until: later, ..canary.clone() };
            let saw = match (&done, self.harm(&extended).await) {
                (Ok(()), Ok(None)) => (Outcome::AsRequired, answer(&done)),
                (_, Ok(_)) => (Outcome::Differs, answer(&done)),
                (_, Err(fault)) => (Outcome::NotJudged, fault.to_string()),
            };
            if saw.0 == Outcome::AsRequired {
                canary = extended;
            }
            self.add(name, did, expected, saw);
        }
        canary
    }

    async fn markers(&mut self, canary: &Canary) {
        let (name, did, expected) =
            ("marker", "DELETE without a version", "a delete marker; the locked version stays, or refused");
        let mut marked = false;
        if self.wants(name, did, expected) {
            self.bucket.count();
            let request = self
                .bucket
                .client
                .delete_object()
                .bucket(&self.bucket.address.bucket)
                .key(self.bucket.key(&canary.name));
            let deleted = request.send().await.map_err(|error| Fault::of(&error));
            marked = deleted.as_ref().is_ok_and(|deleted| deleted.delete_marker().unwrap_or(false));
            let saw = self.harmless(canary, answer(&deleted), deleted.is_ok(), false).await;
            self.add(name, did, expected, saw);
        }
        let (name, did, expected) = (
            "put_over_marker",
            "PUT with If-None-Match: * over the marker",
            "stored as a new version; the locked one stays",
        );
        if self.wants(name, did, expected) {
            let saw = if marked {
                let put = self.put(&canary.name, None, true, None, false).await;
                let said = answer(&put);
                let saw = self.harmless(canary, said, put.is_ok(), false).await;
                // Refusing is stricter than AWS: harmless, and worth knowing.
                if put.is_err() && saw.0 == Outcome::AsRequired { (Outcome::Differs, saw.1) } else { saw }
            } else {
                (Outcome::NotTried, "there is no marker".into())
            };
            self.add(name, did, expected, saw);
        }
    }

    async fn defaults(&mut self) {
        self.bucket.count();
        let request = self.bucket.client.get_object_lock_configuration().bucket(&self.bucket.address.bucket);
        let default = match request.send().await {
            Ok(answer) => answer
                .object_lock_configuration()
                .and_then(|configuration| configuration.rule())
                .and_then(|rule| rule.default_retention())
                .and_then(|default| default.mode())
                .map(|mode| mode.as_str().to_owned())
                .ok_or_else(|| "the bucket has no default retention".to_owned()),
            Err(error) => Err(Fault::of(&error).to_string()),
        };
        for (name, did, hold_off) in [
            ("default_retention", "PUT without lock headers in a bucket with default retention", false),
            ("hold_off", "PUT with legal hold OFF and no mode in a bucket with default retention", true),
        ] {
            let expected = "locked by the bucket's default, by GetObjectRetention and by HEAD";
            if !self.wants(name, did, expected) {
                continue;
            }
            let saw = match &default {
                Err(why) => (Outcome::NotTried, why.clone()),
                Ok(mode) => self.default_of(&format!("{}/{name}", self.folder), mode, hold_off).await,
            };
            self.add(name, did, expected, saw);
        }
    }

    async fn default_of(&self, name: &str, mode: &str, hold_off: bool) -> Saw {
        let put = self.put(name, None, true, None, hold_off).await;
        let version = match &put {
            Ok(version) => version,
            Err(fault) => return (Outcome::NotJudged, answer::<()>(&Err(fault.clone()))),
        };
        match lock::shown(self.bucket, name, version, true).await {
            Err(fault) => (Outcome::NotJudged, fault.to_string()),
            Ok(shown) => {
                let head = if shown.mode.is_empty() { "no lock" } else { &shown.mode };
                match &shown.retention {
                    Some(Retention::Locked(found, until)) if found == mode => {
                        let seen =
                            format!("GetObjectRetention: {found} until {}; HEAD: {head}", time::text(*until));
                        (if head == mode { Outcome::AsRequired } else { Outcome::Differs }, seen)
                    }
                    Some(Retention::Locked(..) | Retention::Unlocked) => (
                        Outcome::NotEnforced,
                        format!("GetObjectRetention: {:?}; HEAD: {head}", shown.retention),
                    ),
                    other => (Outcome::NotJudged, format!("GetObjectRetention: {other:?}; HEAD: {head}")),
                }
            }
        }
    }

    async fn versioning(&self, status: BucketVersioningStatus) -> Result<(), Fault> {
        self.bucket.count();
        let configuration = VersioningConfiguration::builder().status(status).build();
        let request = self
            .bucket
            .client
            .put_bucket_versioning()
            .bucket(&self.bucket.address.bucket)
            .versioning_configuration(configuration);
        request.send().await.map(|_| ()).map_err(|error| Fault::of(&error))
    }

    async fn suspend(&mut self, canary: &Canary) {
        let (name, did, expected) =
            ("suspend_versioning", "PutBucketVersioning Suspended (set back at once)", "refused");
        if !self.wants(name, did, expected) {
            return;
        }
        let done = self.versioning(BucketVersioningStatus::Suspended).await;
        let saw = match &done {
            Ok(()) => {
                let back = self.versioning(BucketVersioningStatus::Enabled).await;
                (Outcome::NotEnforced, format!("accepted; set back: {}", answer(&back)))
            }
            Err(fault) if fault.is_refused() || fault.is_unknown() => {
                self.harmless(canary, answer(&done), false, true).await
            }
            Err(fault) => (Outcome::NotJudged, fault.to_string()),
        };
        self.add(name, did, expected, saw);
    }
}
