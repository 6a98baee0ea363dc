#!/usr/bin/env python3
"""The roles of deploy/s3 on a server that judges policies.

    roles.py ROLE BUCKET PREFIX DEPLOYMENT     prints the environment of a process in that role, as JSON

A session of the server's owner is narrowed by the role's policy (STS AssumeRole with an inline policy), so that the role may do
what the policy says, and nothing else. The server is in AFFIDAVIT_S3, its owner's keys in the usual variables.
"""

import json
import os
import sys
from pathlib import Path

import boto3
from botocore import UNSIGNED
from botocore.config import Config

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "s3"
ROLES = ("gateway", "registrar", "auditor", "prober")
BUCKET, PREFIX, DEPLOYMENT = "acme-evidence", "llm/evidence", "acme"
# MinIO refuses a policy that names what it does not have.
UNKNOWN = ("s3:GetBucketAcl", "s3:GetBucketPublicAccessBlock")


def policy(name, bucket=BUCKET, prefix=PREFIX, deployment=DEPLOYMENT):
    """A policy with its names replaced as deploy/s3/README.md says."""
    text = (FOLDER / f"{name}.json").read_text()
    for theirs, ours in ((f"{PREFIX}/{DEPLOYMENT}/", f"{prefix}/{deployment}/"), (PREFIX, prefix), (BUCKET, bucket)):
        text = text.replace(theirs, ours)
    return json.loads(text)


def known(statements):
    """A policy without the actions that MinIO does not know."""
    text = json.dumps(statements)
    for action in UNKNOWN:
        text = text.replace(f', "{action}"', "")
    return json.loads(text)


def client(service="s3", **keys):
    plain = {"s3": {"addressing_style": "path"}, "retries": {"total_max_attempts": 1}}
    return boto3.client(service, endpoint_url=os.environ["AFFIDAVIT_S3"], config=Config(**plain), **keys)


def owner():
    return client()


def stranger():
    """Who has no keys at all."""
    plain = {"s3": {"addressing_style": "path"}, "retries": {"total_max_attempts": 1}, "signature_version": UNSIGNED}
    return boto3.client("s3", endpoint_url=os.environ["AFFIDAVIT_S3"], config=Config(**plain))


def session(statements):
    """Keys of a session that may do what these statements say."""
    text = json.dumps(statements, separators=(",", ":"))
    arn = "arn:aws:iam::111122223333:role/affidavit"
    answer = client("sts").assume_role(RoleArn=arn, RoleSessionName="tests", Policy=text, DurationSeconds=3600)
    keys = answer["Credentials"]
    return {
        "aws_access_key_id": keys["AccessKeyId"],
        "aws_secret_access_key": keys["SecretAccessKey"],
        "aws_session_token": keys["SessionToken"],
    }


def role(name):
    """A client in a role."""
    return client(**session(known(policy(name))))


def main():
    name, bucket, prefix, deployment = sys.argv[1:]
    keys = session(known(policy(name, bucket, prefix, deployment)))
    print(json.dumps({key.upper(): value for key, value in keys.items()}))


if __name__ == "__main__":
    main()
