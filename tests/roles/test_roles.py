"""What each role may do and may not: deploy/s3/{gateway,registrar,auditor,prober}.json, as they are."""

import pytest
import roles
from botocore.exceptions import ClientError
from conftest import CANARIES, OWN, put, refused, until

WRITERS = ("gateway", "registrar")
SEAL = f"{OWN}/0000000000.seal"
LOCK = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}}
EXPIRE = {"Rules": [{"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]}
COPY = {"Role": "arn:aws:iam::111122223333:role/copy", "Rules": [{"Status": "Enabled", "Priority": 1,
        "Filter": {"Prefix": ""}, "DeleteMarkerReplication": {"Status": "Disabled"}, "Destination": {"Bucket": "arn:aws:s3:::x"}}]}


@pytest.fixture(scope="session", params=roles.ROLES)
def role(request, bucket):
    client = roles.role(request.param)
    client.role = request.param
    return client


@pytest.fixture(scope="session", params=WRITERS)
def writer(request, bucket):
    client = roles.role(request.param)
    client.role = request.param
    return client


@pytest.fixture(scope="session")
def auditor(bucket):
    return roles.role("auditor")


@pytest.fixture(scope="session")
def prober(bucket):
    return roles.role("prober")


def test_no_role_removes_or_hides_evidence(role, bucket):
    for key, version in bucket.items():
        if key.startswith(CANARIES):
            continue
        refused(role.delete_object, Key=key)
        refused(role.delete_object, Key=key, VersionId=version)
        refused(role.delete_object, Key=key, VersionId=version, BypassGovernanceRetention=True)
        try:
            answer = role.delete_objects(Bucket=roles.BUCKET, Delete={"Objects": [{"Key": key, "VersionId": version}]})
            assert [error["Code"] for error in answer["Errors"]] == ["AccessDenied"], answer
        except ClientError as error:
            assert error.response["Error"]["Code"] == "AccessDenied", error


def test_minio_knows_every_action_of_the_roles_but_those_that_are_left_out(bucket):
    for name in roles.ROLES:
        whole = roles.policy(name)
        left_out = [action for action in roles.UNKNOWN if action in str(whole)]
        assert left_out == ([*roles.UNKNOWN] if name == "auditor" else [])
        if left_out:
            with pytest.raises(ClientError, match="unsupported action"):
                roles.session(whole)


def test_no_role_shortens_or_weakens_a_lock(role, bucket):
    for key, version in bucket.items():
        if key.startswith(CANARIES):
            continue
        locked = key.endswith(".seal")
        for mode, days in (("COMPLIANCE", 1), ("GOVERNANCE", 1), ("GOVERNANCE", 2), ("GOVERNANCE", 30)):
            # A lock where there was none, or a harder one, is what writers are for.
            if mode == "COMPLIANCE" and not locked and role.role in WRITERS:
                continue
            # MinIO asks for no permission at all where the header is there, COMPLIANCE is asked for and GOVERNANCE, or nothing, is
            # in place: see deploy/s3/README.md.
            for bypass in (False, True) if locked or mode == "GOVERNANCE" else (False,):
                # Where the role may ask, the lock refuses.
                refused(role.put_object_retention, "AccessDenied", "InvalidRequest", "ObjectLocked", Key=key, VersionId=version,
                        Retention={"Mode": mode, "RetainUntilDate": until(days)}, BypassGovernanceRetention=bypass)
        refused(role.put_object_legal_hold, Key=key, VersionId=version, LegalHold={"Status": "ON"})
        refused(role.put_object_tagging, Key=key, VersionId=version, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})


def test_no_role_changes_the_bucket(role, bucket):
    allow = '{"Version":"2012-10-17","Statement":[]}'
    refused(role.put_bucket_versioning, VersioningConfiguration={"Status": "Suspended"})
    refused(role.put_object_lock_configuration, ObjectLockConfiguration=LOCK)
    refused(role.put_bucket_lifecycle_configuration, LifecycleConfiguration=EXPIRE)
    refused(role.delete_bucket_lifecycle)
    refused(role.put_bucket_policy, Policy=allow)
    refused(role.delete_bucket_policy)
    refused(role.put_bucket_replication, ReplicationConfiguration=COPY)
    refused(role.delete_bucket)


def test_a_writer_puts_under_lock_and_reads_back(writer, bucket):
    key = f"{OWN}/{writer.role}.seal"
    version = put(writer, key, IfNoneMatch="*")
    with pytest.raises(ClientError) as caught:
        put(writer, key, IfNoneMatch="*")
    assert caught.value.response["Error"]["Code"] == "PreconditionFailed"
    head = writer.head_object(Bucket=roles.BUCKET, Key=key, ChecksumMode="ENABLED")
    assert head["ObjectLockMode"] == "COMPLIANCE" and head["ChecksumSHA256"] and head["VersionId"] == version
    assert writer.get_object(Bucket=roles.BUCKET, Key=key)["Body"].read() == b"evidence"
    assert writer.get_object(Bucket=roles.BUCKET, Key=key, VersionId=version)["Body"].read() == b"evidence"
    kept = writer.get_object_retention(Bucket=roles.BUCKET, Key=key)["Retention"]
    longer = {"Mode": "COMPLIANCE", "RetainUntilDate": until(3)}
    writer.put_object_retention(Bucket=roles.BUCKET, Key=key, Retention=longer)
    assert writer.get_object_retention(Bucket=roles.BUCKET, Key=key)["Retention"]["RetainUntilDate"] > kept["RetainUntilDate"]
    listed = writer.list_objects_v2(Bucket=roles.BUCKET, Prefix=f"{roles.PREFIX}/{roles.DEPLOYMENT}/")
    assert key in [found["Key"] for found in listed["Contents"]]
    # What is not there is told from what is forbidden.
    refused(writer.head_object, "404", Key=f"{OWN}/nothing")


def test_a_writer_reads_the_settings(writer, bucket):
    assert writer.get_bucket_versioning(Bucket=roles.BUCKET)["Status"] == "Enabled"
    assert writer.get_object_lock_configuration(Bucket=roles.BUCKET)
    refused(writer.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration")
    refused(writer.get_bucket_policy, "NoSuchBucketPolicy")


def test_a_writer_puts_no_lock_but_compliance(writer, bucket):
    key = f"{OWN}/{writer.role}"
    for mode, more in (("GOVERNANCE", {}), (None, {"ObjectLockLegalHoldStatus": "ON"})):
        with pytest.raises(ClientError) as caught:
            put(writer, f"{key}-refused", mode, **more)
        assert caught.value.response["Error"]["Code"] == "AccessDenied", caught.value
    put(writer, f"{key}-locked", "COMPLIANCE", days=1)


def test_a_writer_reaches_nothing_beside_its_deployment(writer, bucket):
    for key, version in bucket.items():
        if key.startswith(f"{roles.PREFIX}/{roles.DEPLOYMENT}/"):
            continue
        refused(writer.head_object, Key=key)
        refused(writer.get_object, Key=key)
        refused(writer.get_object, Key=key, VersionId=version)
        refused(writer.get_object_retention, Key=key)
        refused(writer.put_object, Key=key, Body=b"on top")
        refused(writer.put_object, Key=f"{key}-new", Body=b"beside")
    refused(writer.list_objects_v2)
    refused(writer.list_objects_v2, Prefix="other/")
    refused(writer.list_objects_v2, Prefix="llm/evidence-of-others/")
    refused(writer.list_object_versions, Prefix="other/")


def test_an_auditor_reads_every_version_and_setting(auditor, bucket):
    prefix = f"{roles.PREFIX}/"
    versions = auditor.list_object_versions(Bucket=roles.BUCKET, Prefix=prefix)["Versions"]
    seen = {version["Key"]: version["VersionId"] for version in versions}
    assert seen.items() >= {key: version for key, version in bucket.items() if key.startswith(prefix)}.items()
    auditor.list_objects_v2(Bucket=roles.BUCKET, Prefix=prefix)
    got = auditor.get_object(Bucket=roles.BUCKET, Key=SEAL, VersionId=bucket[SEAL])
    assert got["Body"].read() == b"evidence" and got["ObjectLockMode"] == "COMPLIANCE"
    auditor.head_object(Bucket=roles.BUCKET, Key=SEAL, VersionId=bucket[SEAL])
    auditor.get_object_retention(Bucket=roles.BUCKET, Key=SEAL, VersionId=bucket[SEAL])
    try:
        auditor.get_object_legal_hold(Bucket=roles.BUCKET, Key=SEAL, VersionId=bucket[SEAL])
    except ClientError as error:
        assert error.response["Error"]["Code"] == "NoSuchObjectLockConfiguration", error
    assert auditor.get_bucket_versioning(Bucket=roles.BUCKET)["Status"] == "Enabled"
    auditor.get_object_lock_configuration(Bucket=roles.BUCKET)
    refused(auditor.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration")
    refused(auditor.get_bucket_policy, "NoSuchBucketPolicy")
    refused(auditor.get_bucket_replication, "ReplicationConfigurationNotFoundError")


def test_an_auditor_writes_nothing_and_reads_nothing_else(auditor, bucket):
    refused(auditor.put_object, Key=f"{OWN}/new", Body=b"new")
    refused(auditor.put_object, Key=SEAL, Body=b"on top")
    refused(auditor.copy_object, Key=f"{OWN}/copied", CopySource={"Bucket": roles.BUCKET, "Key": SEAL})
    refused(auditor.create_multipart_upload, Key=f"{OWN}/parts")
    for key in ("other/secret", "llm/evidence-of-others/secret", f"{CANARIES}/governed"):
        refused(auditor.get_object, Key=key, VersionId=bucket[key])
        refused(auditor.head_object, Key=key)
    refused(auditor.list_object_versions)
    refused(auditor.list_object_versions, Prefix="other/")


def test_a_prober_does_everything_to_canaries(prober, bucket):
    key = f"{CANARIES}/canary"
    version = put(prober, key, "GOVERNANCE")
    prober.put_object_retention(Bucket=roles.BUCKET, Key=key, VersionId=version, BypassGovernanceRetention=True,
                                Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until(1)})
    prober.put_object_legal_hold(Bucket=roles.BUCKET, Key=key, VersionId=version, LegalHold={"Status": "ON"})
    prober.get_object_legal_hold(Bucket=roles.BUCKET, Key=key, VersionId=version)
    prober.put_object_legal_hold(Bucket=roles.BUCKET, Key=key, VersionId=version, LegalHold={"Status": "OFF"})
    prober.get_object_retention(Bucket=roles.BUCKET, Key=key, VersionId=version)
    prober.delete_object(Bucket=roles.BUCKET, Key=key)
    prober.delete_object(Bucket=roles.BUCKET, Key=key, VersionId=version, BypassGovernanceRetention=True)
    refused(prober.head_object, "NoSuchVersion", "404", Key=key, VersionId=version)
    # The lock stops it, not the role.
    locked = put(prober, f"{key}-locked", "COMPLIANCE", days=1)
    refused(prober.delete_object, "AccessDenied", "ObjectLocked", "InvalidRequest", Key=f"{key}-locked", VersionId=locked,
            BypassGovernanceRetention=True)
    refused(prober.head_object, "404", Key=f"{CANARIES}/nothing")
    prober.get_object_lock_configuration(Bucket=roles.BUCKET)


def test_a_prober_reaches_no_evidence(prober, bucket):
    for key, version in bucket.items():
        if key.startswith(CANARIES):
            continue
        refused(prober.get_object, Key=key, VersionId=version)
        refused(prober.head_object, Key=key)
        refused(prober.put_object, Key=key, Body=b"on top")
    refused(prober.list_objects_v2, Prefix=f"{roles.PREFIX}/")
    refused(prober.list_object_versions, Prefix=f"{roles.PREFIX}/")


def test_minio_lets_whoever_has_keys_replace_what_is_not_under_compliance(auditor, bucket):
    """A fault of this MinIO, of which deploy/s3/README.md tells: what is under COMPLIANCE is not touched by it."""
    owner = roles.owner()
    for mode in ("GOVERNANCE", None):
        key = f"{OWN}/weak-{mode}"
        put(owner, key, mode, days=2)
        shorter = {"Mode": "COMPLIANCE", "RetainUntilDate": until(1)}
        refused(auditor.put_object_retention, "AccessDenied", "InvalidRequest", Key=key, Retention=shorter)
        auditor.put_object_retention(Bucket=roles.BUCKET, Key=key, Retention=shorter, BypassGovernanceRetention=True)
        assert owner.head_object(Bucket=roles.BUCKET, Key=key)["ObjectLockMode"] == "COMPLIANCE"
