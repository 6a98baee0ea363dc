"""deploy/s3/bucket-policy.json: which statements a server takes, and that those that it takes do what they say.

Both servers ask a bucket's policy about somebody without keys: it is tried on one, to whom a further statement allows everything.
deploy/s3/README.md says what comes of it for each server.
"""

import json
import os

import pytest
import roles
from botocore.exceptions import ClientError
from conftest import OWN, put

STATEMENTS = {statement["Sid"]: statement for statement in roles.policy("bucket-policy")["Statement"]}
EVERYTHING = {"Sid": "Everything", "Effect": "Allow", "Principal": "*", "Action": "s3:*",
              "Resource": [f"arn:aws:s3:::{roles.BUCKET}", f"arn:aws:s3:::{roles.BUCKET}/*"]}
REFUSED = {
    "minio": {"ANameIsWrittenOnce": "condition key"},
    "versitygw": {"ANameIsWrittenOnce": "condition key", "ComplianceOnly": "condition key",
                  "NoHoldsAndNoSettingsByWriters": "principal"},
}[os.environ["AFFIDAVIT_S3_NAME"]]
ENABLED = {"Status": "Enabled"}
# What somebody tries, and which statements are to stop it.
TRIES = {
    "put": (lambda s3, key: put(s3, key, None), {"TlsOnly"}),
    "put under compliance": (lambda s3, key: put(s3, key, "COMPLIANCE", days=1), {"TlsOnly"}),
    "put under governance": (lambda s3, key: put(s3, key, "GOVERNANCE", days=1), {"TlsOnly", "ComplianceOnly"}),
    "delete": (lambda s3, key: s3.delete_object(Bucket=roles.BUCKET, Key=key), {"TlsOnly", "NobodyHidesOrDeletes"}),
    "delete elsewhere": (lambda s3, key: s3.delete_object(Bucket=roles.BUCKET, Key="elsewhere"), {"TlsOnly"}),
    "set": (lambda s3, _: s3.put_bucket_versioning(Bucket=roles.BUCKET, VersioningConfiguration=ENABLED), {"TlsOnly"}),
}


def apply(*statements):
    text = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    roles.owner().put_bucket_policy(Bucket=roles.BUCKET, Policy=text)


def stopped(client, statement):
    """Which tries are stopped."""
    apply(EVERYTHING, statement)
    found = set()
    for number, (name, (attempt, _)) in enumerate(TRIES.items()):
        try:
            attempt(client, f"{OWN}/{statement['Sid']}-{number}")
        except ClientError as error:
            assert error.response["Error"]["Code"] == "AccessDenied", f"{name}: {error}"
            found.add(name)
    roles.owner().delete_bucket_policy(Bucket=roles.BUCKET)
    return found


@pytest.mark.parametrize("sid", STATEMENTS)
def test_a_statement_is_taken_and_does_what_it_says_or_is_refused_by_name(bucket, sid):
    if sid in REFUSED:
        with pytest.raises(ClientError, match=f"MalformedPolicy.*{REFUSED[sid]}"):
            apply(STATEMENTS[sid])
        return
    wanted = {name for name, (_, by) in TRIES.items() if sid in by}
    assert stopped(roles.stranger(), STATEMENTS[sid]) == wanted


def test_what_is_taken_is_taken_together(bucket):
    apply(*(statement for sid, statement in STATEMENTS.items() if sid not in REFUSED))
    roles.owner().delete_bucket_policy(Bucket=roles.BUCKET)
    if REFUSED:
        with pytest.raises(ClientError, match="MalformedPolicy"):
            apply(*STATEMENTS.values())


@pytest.mark.parametrize("sid", [sid for sid in STATEMENTS if sid not in REFUSED])
def test_neither_server_asks_the_policy_about_its_owner(bucket, sid):
    assert stopped(roles.owner(), STATEMENTS[sid]) == set()


def test_minio_does_not_ask_it_about_anybody_who_has_keys(bucket):
    if os.environ["AFFIDAVIT_S3_NAME"] != "minio":
        pytest.skip("the owner is the only one with keys there")
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::*"}]}
    assert stopped(roles.client(**roles.session(everything)), STATEMENTS["NobodyHidesOrDeletes"]) == set()
