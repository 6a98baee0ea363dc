"""Clients of boto3, each once straight to the provider and once through the gateway."""

import os

import boto3
from botocore.config import Config

PROVIDER = os.environ["AFFIDAVIT_PROVIDER"]
GATEWAY = os.environ["AFFIDAVIT_GATEWAY"]
GATEWAY_TLS = os.environ["AFFIDAVIT_GATEWAY_TLS"]
CA = os.environ["AFFIDAVIT_CA"]
KEY = os.environ["AFFIDAVIT_KEY"]
SEEN = os.environ["AFFIDAVIT_SEEN"]
ONCE = {"mode": "standard", "total_max_attempts": 1}


def signing(endpoint, key_id, secret, token=None, retries=None, verify=None):
    session = boto3.Session(
        aws_access_key_id=key_id, aws_secret_access_key=secret, aws_session_token=token, region_name="us-east-1"
    )
    config = Config(retries=retries or ONCE, max_pool_connections=60, read_timeout=30)
    return session.client("bedrock-runtime", endpoint_url=endpoint, config=config, verify=verify)


def client(side, **more):
    """Straight with an access key; through the gateway with its key as the session token of a made-up one."""
    if side == "provider":
        return signing(PROVIDER, "AKIDDIRECT", "direct-secret", **more)
    return signing(f"{GATEWAY}/bedrock", "AKIDCALLER", "any", token=KEY, **more)


def same(call):
    """Asserts that the gateway's side gives what the provider's gives, and gives it."""
    results = {side: call(client(side)) for side in ("provider", "gateway")}
    assert results["gateway"] == results["provider"]
    return results["gateway"]
