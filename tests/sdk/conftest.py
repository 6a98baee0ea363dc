"""Clients of the providers' own SDKs, each once straight to the provider and once through the gateway."""

import os

import anthropic
import openai
import pytest

PROVIDER = os.environ["AFFIDAVIT_PROVIDER"]
GATEWAY = os.environ["AFFIDAVIT_GATEWAY"]
KEY = os.environ["AFFIDAVIT_KEY"]


def openai_client(side, **more):
    if side == "gateway":
        return openai.OpenAI(base_url=f"{GATEWAY}/openai/v1", api_key=KEY, **more)
    return openai.OpenAI(base_url=f"{PROVIDER}/v1", api_key="sk-direct", **more)


def anthropic_client(side, **more):
    if side == "gateway":
        return anthropic.Anthropic(base_url=f"{GATEWAY}/anthropic", api_key=KEY, **more)
    return anthropic.Anthropic(base_url=PROVIDER, api_key="sk-direct", **more)


@pytest.fixture
def both_openai():
    return {side: openai_client(side) for side in ("provider", "gateway")}


@pytest.fixture
def both_anthropic():
    return {side: anthropic_client(side) for side in ("provider", "gateway")}


def same(results):
    """Asserts that the gateway's side equals the provider's, and gives it."""
    assert results["gateway"] == results["provider"]
    return results["gateway"]
