"""The anthropic SDK, unmodified: what it gets through the gateway is what it gets from the provider."""

import time

import anthropic
import pytest
from conftest import GATEWAY, anthropic_client, same

ASK = [{"role": "user", "content": "Is this kept?"}]
TOOLS = [
    {
        "name": "lookup",
        "description": "Looks a key up.",
        "input_schema": {"type": "object", "properties": {"key": {"type": "string"}}},
    }
]
ARGUMENTS = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": ASK}


def test_a_whole_answer_is_the_providers(both_anthropic):
    got = same({s: c.messages.create(**ARGUMENTS) for s, c in both_anthropic.items()})
    assert got.content[0].text == "The record of this is kept."
    assert got.usage.cache_read_input_tokens == 30


def test_a_stream_is_the_providers_event_by_event(both_anthropic):
    got = same(
        {
            s: [e.model_dump() for e in c.messages.create(stream=True, **ARGUMENTS)]
            for s, c in both_anthropic.items()
        }
    )
    assert got[-1]["type"] == "message_stop"


def test_the_streaming_helper_ends_with_the_whole_message(both_anthropic):
    finals = {}
    for side, client in both_anthropic.items():
        with client.messages.stream(**ARGUMENTS) as stream:
            text = "".join(stream.text_stream)
            finals[side] = (text, stream.get_final_message())
    same(finals)


def test_a_tool_call_round_trips(both_anthropic):
    for stream in (False, True):
        calls = {}
        for side, client in both_anthropic.items():
            if stream:
                with client.messages.stream(tools=TOOLS, **ARGUMENTS) as events:
                    calls[side] = events.get_final_message().content[0].input
            else:
                calls[side] = client.messages.create(tools=TOOLS, **ARGUMENTS).content[0].input
        assert same(calls) == {"key": "a b"}


def test_tokens_are_counted(both_anthropic):
    same(
        {
            s: c.messages.count_tokens(model="claude-sonnet-4-5", messages=ASK).input_tokens
            for s, c in both_anthropic.items()
        }
    )


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 529])
def test_an_error_is_the_providers_in_class_tries_and_time(status):
    seen = {}
    times = {}
    for side in ("provider", "gateway"):
        client = anthropic_client(side, max_retries=1)
        start = time.monotonic()
        with pytest.raises(anthropic.APIStatusError) as caught:
            client.messages.create(**{**ARGUMENTS, "model": f"fail-{status}"})
        times[side] = time.monotonic() - start
        error = caught.value
        tries = int(error.response.request.headers["x-stainless-retry-count"]) + 1
        seen[side] = (type(error), error.status_code, error.body, tries)
    same(seen)
    assert abs(times["gateway"] - times["provider"]) < 1.0


def test_a_wrong_gateway_key_is_named_and_not_tried_again():
    client = anthropic.Anthropic(base_url=f"{GATEWAY}/anthropic", api_key="afk_nobody_nothing", max_retries=5)
    start = time.monotonic()
    with pytest.raises(anthropic.AuthenticationError) as caught:
        client.messages.create(**ARGUMENTS)
    assert time.monotonic() - start < 2
    assert "affidavit_" in str(caught.value.body)


def test_a_spent_budget_is_a_rate_limit_error_and_not_tried_again():
    client = anthropic_client("gateway", max_retries=5)
    start = time.monotonic()
    with pytest.raises(anthropic.RateLimitError) as caught:
        client.messages.create(**{**ARGUMENTS, "model": "over-month"})
    assert time.monotonic() - start < 2
    assert caught.value.body["error"]["type"] == "rate_limit_error"
    assert caught.value.response.headers["x-affidavit-reason"] == "quota_exceeded"


def test_a_caller_that_leaves_mid_stream_leaves():
    client = anthropic_client("gateway")
    stream = client.messages.create(stream=True, **ARGUMENTS)
    next(iter(stream))
    stream.close()
