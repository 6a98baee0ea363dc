"""boto3, unmodified: what it gets through the gateway is what it gets from the provider."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError, EventStreamError
from conftest import CA, GATEWAY, GATEWAY_TLS, KEY, SEEN, client, same, signing

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
PROFILE = "arn:aws:bedrock:us-east-1:000000000000:application-inference-profile/1abc"
ASK = [{"role": "user", "content": [{"text": "Is this kept?"}]}]


def plain(response):
    return {name: value for name, value in response.items() if name != "ResponseMetadata"}


def requests_seen(path):
    with open(SEEN) as seen:
        return sum(json.loads(line)["path"] == path for line in seen)


@pytest.mark.parametrize("model", [MODEL, PROFILE])
def test_a_whole_answer_is_the_providers(model):
    got = same(lambda c: plain(c.converse(modelId=model, messages=ASK, inferenceConfig={"maxTokens": 50})))
    assert got["output"]["message"]["content"][0]["text"] == "The record of this is kept."
    assert got["usage"]["cacheReadInputTokens"] == 40


def test_a_stream_is_the_providers_event_by_event():
    got = same(lambda c: list(c.converse_stream(modelId=MODEL, messages=ASK)["stream"]))
    assert "metadata" in got[-1]


def test_an_invoked_model_gives_the_same_bytes_and_counts():
    def call(c):
        response = c.invoke_model(modelId="meta.llama3-8b-instruct-v1:0", body=json.dumps({"prompt": "Hello"}))
        headers = response["ResponseMetadata"]["HTTPHeaders"]
        return response["body"].read(), headers["x-amzn-bedrock-input-token-count"]

    assert same(call)[1] == "21"


def test_an_invoked_stream_is_the_providers_chunk_by_chunk():
    def call(c):
        response = c.invoke_model_with_response_stream(modelId=MODEL, body=json.dumps({"max_tokens": 9, "messages": []}))
        return [event["chunk"]["bytes"] for event in response["body"]]

    assert json.loads(same(call)[-1])["type"] == "message_stop"


def test_tokens_are_counted():
    got = same(lambda c: plain(c.count_tokens(modelId=MODEL, input={"converse": {"messages": ASK}})))
    assert got == {"inputTokens": 11}


def test_a_large_body_is_signed_to_its_last_byte():
    image = {"format": "png", "source": {"bytes": b"\x89PNG" + bytes(range(256)) * 12_000}}
    same(lambda c: plain(c.converse(modelId=MODEL, messages=[{"role": "user", "content": [{"image": image}]}])))


@pytest.mark.parametrize(
    "status, name, message",
    [
        (400, "ValidationException", "the request is not valid"),
        (429, "ThrottlingException", "too many requests"),
        (500, "InternalServerException", "the provider failed"),
    ],
)
def test_the_providers_errors_raise_their_classes(status, name, message):
    def call(c):
        with pytest.raises(getattr(c.exceptions, name)) as caught:
            c.converse(modelId=f"fail-{status}", messages=ASK)
        return caught.value.response["Error"]

    assert same(call) == {"Code": name, "Message": message}


def test_an_exception_inside_a_stream_is_raised():
    def call(c):
        events = []
        with pytest.raises(EventStreamError) as caught:
            for event in c.converse_stream(modelId="fails-later", messages=ASK)["stream"]:
                events.append(event)
        return events, caught.value.response["Error"]

    assert same(call)[1]["Code"] == "throttlingException"


@pytest.mark.parametrize("mode, attempts", [("legacy", 3), ("standard", 3)])
def test_boto3_tries_again_as_often_as_without_the_gateway(mode, attempts):
    before = requests_seen("/model/fail-500/converse")
    retries = {"mode": mode, "total_max_attempts": attempts}
    with pytest.raises(ClientError):
        client("gateway", retries=retries).converse(modelId="fail-500", messages=ASK)
    assert requests_seen("/model/fail-500/converse") - before == attempts


def test_a_gateway_key_is_a_bearer_too(monkeypatch):
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", KEY)
    bearer = signing(f"{GATEWAY_TLS}/bedrock", None, None, verify=CA)
    assert bearer.converse(modelId=MODEL, messages=ASK)["stopReason"] == "end_turn"
    assert "metadata" in list(bearer.converse_stream(modelId=MODEL, messages=ASK)["stream"])[-1]


def test_the_gateways_own_refusals_raise_classes_and_are_not_tried_again():
    for token in [None, "afk_nobody_" + "a" * 43, KEY[:-1] + ("a" if KEY[-1] != "a" else "b")]:
        retries = {"mode": "standard", "total_max_attempts": 3}
        stranger = signing(f"{GATEWAY}/bedrock", "AKIDCALLER", "any", token=token, retries=retries)
        with pytest.raises(stranger.exceptions.AccessDeniedException) as caught:
            stranger.converse(modelId=MODEL, messages=ASK)
        metadata = caught.value.response["ResponseMetadata"]
        assert metadata["HTTPStatusCode"] == 401 and metadata["RetryAttempts"] == 0
        assert metadata["HTTPHeaders"]["x-affidavit-reason"] in ("missing_key", "unknown_key")


def test_a_caller_that_leaves_ends_the_stream():
    stream = client("gateway").converse_stream(modelId="slow", messages=ASK)["stream"]
    for _, _event in zip(range(3), stream):
        pass
    stream.close()
    time.sleep(0.3)


def test_fifty_at_once():
    gateway = client("gateway")

    def call(n):
        if n % 2:
            return gateway.converse(modelId=MODEL, messages=ASK)["stopReason"]
        events = list(gateway.converse_stream(modelId=MODEL, messages=ASK)["stream"])
        return events[-2]["messageStop"]["stopReason"]

    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(call, range(50))) == {"end_turn"}
