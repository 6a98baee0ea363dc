"""deploy/terraform, as far as it goes without the AWS provider, which no package registry has."""

import os
import re

import pytest

import aws_schema
from facts import CACHE, DEPLOY, ran, tool

FOLDER = DEPLOY / "terraform"


def tofu(*arguments, **more):
    # No registry is asked: what is checked here needs no provider.
    more["env"] = os.environ | {"TF_DATA_DIR": str(more.pop("data")), "CHECKPOINT_DISABLE": "1"} if "data" in more else os.environ
    return ran(tool("tofu", "v1.12.6"), *arguments, **more)


def test_files_are_formed():
    tofu("fmt", "-check", "-diff", "-recursive", FOLDER)


def test_the_policies_are_those_of_deploy_s3(tmp_path):
    for step in (["init", "-input=false"], ["validate"], ["test"]):
        said = tofu(f"-chdir={FOLDER / 'policies'}", *step, "-no-color", data=tmp_path)
    assert "6 passed, 0 failed" in said, said


def test_the_bucket_is_what_it_has_to_be():
    text = "\n".join(file.read_text() for file in sorted(FOLDER.glob("*.tf")))
    kinds = set(re.findall(r'^resource "(\w+)"', text, re.M))
    assert {
        "aws_s3_bucket",
        "aws_s3_bucket_versioning",
        "aws_s3_bucket_object_lock_configuration",
        "aws_s3_bucket_policy",
        "aws_s3_bucket_public_access_block",
        "aws_s3_bucket_server_side_encryption_configuration",
        "aws_kms_key",
        "aws_iam_role",
    } <= kinds
    assert not any("lifecycle_configuration" in kind for kind in kinds), "nothing may expire by itself"
    assert re.search(r'mode = "COMPLIANCE"', text) and re.search(r"object_lock_enabled = true", text)
    assert text.count("prevent_destroy = true") == 2
    # Every variable is used, and every reference is to something that is there.
    declared = set(re.findall(r'^variable "(\w+)"', text, re.M))
    assert set(re.findall(r"\bvar\.(\w+)", text)) == declared
    for kind, name in set(re.findall(r"\b(aws_\w+)\.(\w+)", text)):
        assert re.search(rf'^(resource|data) "{kind}" "{name}"', text, re.M), f"{kind}.{name}"


@pytest.fixture(scope="module")
def schema():
    (wheel,) = (CACHE / "aws-schema-21.22.1").glob("*.whl")
    return aws_schema.Schema(wheel)


def test_the_provider_knows_every_resource_block_and_argument(schema):
    for file in sorted(FOLDER.glob("*.tf")):
        assert aws_schema.faults(schema, file.read_text()) == [], file


def test_what_the_provider_does_not_know_is_found(schema):
    text = (FOLDER / "bucket.tf").read_text()
    for word, other, wanted in [
        ('"aws_s3_bucket_versioning"', '"aws_s3_bucket_version"', "no such resource"),
        ("    default_retention {", "    default_retentions {", "no block `default_retentions`"),
        ("      mode = ", "      modes = ", "no argument `modes`"),
        ("  bucket              = var.bucket", "  buckets             = var.bucket", "no argument `buckets`"),
        ("    object_ownership = ", "    ownership = ", "`object_ownership` is wanted"),
    ]:
        assert word in text
        found = aws_schema.faults(schema, text.replace(word, other, 1))
        assert any(wanted in fault for fault in found), f"{wanted}: {found}"
