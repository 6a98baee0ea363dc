"""The bucket that deploy/s3 speaks of, made by its owner, with evidence, canaries and what is nobody's business in it."""

import datetime
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

sys.path.insert(0, str(Path(__file__).resolve().parent))

import roles

OWN = f"{roles.PREFIX}/{roles.DEPLOYMENT}/gw1/20261120t101500z-3f9a1c20"
CANARIES = ".affidavit-probe"


def until(days=2):
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)


def put(client, key, mode="COMPLIANCE", days=2, **more):
    if mode:
        more |= {"ObjectLockMode": mode, "ObjectLockRetainUntilDate": until(days)}
    kept = client.put_object(Bucket=roles.BUCKET, Key=key, Body=b"evidence", ChecksumAlgorithm="SHA256", **more)
    return kept["VersionId"]


def refused(call, *codes, **arguments):
    """Asserts that a call is refused for want of permission (or with one of `codes`)."""
    with pytest.raises(ClientError) as caught:
        call(Bucket=roles.BUCKET, **arguments)
    found = caught.value.response["Error"]["Code"]
    if found in ("403", "Forbidden"):  # a HEAD has no body, and so no code
        found = "AccessDenied"
    assert found in (codes or ("AccessDenied",)), f"{caught.value}"


@pytest.fixture(scope="session")
def bucket():
    """Key -> version of what its owner put."""
    owner = roles.owner()
    owner.create_bucket(Bucket=roles.BUCKET, ObjectLockEnabledForBucket=True)
    kept = {f"{OWN}/0000000000.seal": "COMPLIANCE", f"{OWN}/governed": "GOVERNANCE", f"{OWN}/unlocked": None}
    kept |= {"other/secret": None, "llm/evidence-of-others/secret": None, f"{CANARIES}/governed": "GOVERNANCE"}
    kept[f"{roles.PREFIX}/others/gw1/20261120t101500z-3f9a1c20/0000000000.seal"] = "COMPLIANCE"
    return {key: put(owner, key, mode) for key, mode in kept.items()}


@pytest.fixture(autouse=True)
def nothing_is_lost(request, bucket):
    """Whatever a test tried: what the owner put is there, on top, and locked as it was."""
    owner = roles.owner()
    def state():
        found = {}
        for key, version in bucket.items():
            head = owner.head_object(Bucket=roles.BUCKET, Key=key)
            lock = head.get("ObjectLockMode"), head.get("ObjectLockRetainUntilDate")
            found[key] = (head["VersionId"] == version, *lock)
        return found
    before = state()
    yield
    assert state() == before
