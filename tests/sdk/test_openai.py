"""The openai SDK, unmodified: what it gets through the gateway is what it gets from the provider."""

import concurrent.futures
import gzip
import json
import time
import urllib.request

import openai
import pytest
import zstandard
from conftest import GATEWAY, KEY, openai_client, same

ASK = [{"role": "user", "content": "Is this kept?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "lookup",
            "description": "Looks a key up.",
            "parameters": {"type": "object", "properties": {"key": {"type": "string"}}},
        },
    }
]


def test_a_whole_answer_is_the_providers(both_openai):
    got = same({s: c.chat.completions.create(model="gpt-4o-mini", messages=ASK) for s, c in both_openai.items()})
    assert got.choices[0].message.content == "The record of this is kept."


def test_a_stream_is_the_providers_event_by_event(both_openai):
    for asks in (False, True):
        more = {"stream_options": {"include_usage": True}} if asks else {}
        got = same(
            {
                s: [
                    e.model_dump(exclude_unset=True)
                    for e in c.chat.completions.create(model="gpt-4o-mini", messages=ASK, stream=True, **more)
                ]
                for s, c in both_openai.items()
            }
        )
        assert ("usage" in got[-1]) == asks
        assert any("usage" in e for e in got) == asks


def test_a_tool_call_and_its_answer_round_trip(both_openai):
    for stream in (False, True):
        calls = {}
        for side, client in both_openai.items():
            if stream:
                text = ""
                for event in client.chat.completions.create(
                    model="gpt-4o-mini", messages=ASK, tools=TOOLS, stream=True
                ):
                    for call in event.choices[0].delta.tool_calls or []:
                        text += call.function.arguments or ""
                calls[side] = text
            else:
                answer = client.chat.completions.create(model="gpt-4o-mini", messages=ASK, tools=TOOLS)
                calls[side] = answer.choices[0].message.tool_calls[0].function.arguments
        assert json.loads(same(calls)) == {"key": "a b"}
    follow = ASK + [
        {
            "role": "assistant",
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "lookup", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    ]
    same(
        {
            s: c.chat.completions.create(model="gpt-4o-mini", messages=follow, tools=TOOLS)
            for s, c in both_openai.items()
        }
    )


def test_responses_whole_streamed_and_stored(both_openai):
    same({s: c.responses.create(model="gpt-4o-mini", input="Is it?") for s, c in both_openai.items()})
    same(
        {
            s: [e.model_dump() for e in c.responses.create(model="gpt-4o-mini", input="Is it?", stream=True)]
            for s, c in both_openai.items()
        }
    )
    same({s: c.responses.retrieve("resp_api1") for s, c in both_openai.items()})


def test_embeddings_models_moderations_files_and_audio(both_openai):
    same({s: c.embeddings.create(model="text-embedding-3-small", input=["a", "b"]) for s, c in both_openai.items()})
    same({s: [m.id for m in c.models.list()] for s, c in both_openai.items()})
    same({s: c.moderations.create(input="x") for s, c in both_openai.items()})
    same({s: c.files.create(file=("a.txt", b"\x00\xff" * 5000), purpose="assistants").id for s, c in both_openai.items()})
    same(
        {
            s: c.audio.speech.create(model="tts-1", voice="alloy", input="hello").content
            for s, c in both_openai.items()
        }
    )


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
def test_an_error_is_the_providers_in_class_tries_and_time(status):
    seen = {}
    times = {}
    for side in ("provider", "gateway"):
        client = openai_client(side, max_retries=1)
        start = time.monotonic()
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model=f"fail-{status}", messages=ASK)
        times[side] = time.monotonic() - start
        error = caught.value
        tries = int(error.response.request.headers["x-stainless-retry-count"]) + 1
        seen[side] = (type(error), error.status_code, error.body, error.code, tries)
    same(seen)
    assert seen["gateway"][4] == (2 if status in (429, 500) else 1)
    # The SDK's own back-off is 0.5 to 1 s with jitter, `retry-after` is 1 s.
    assert abs(times["gateway"] - times["provider"]) < 1.0


def test_a_wrong_gateway_key_is_named_and_not_tried_again():
    client = openai.OpenAI(base_url=f"{GATEWAY}/openai/v1", api_key="afk_nobody_nothing", max_retries=5)
    start = time.monotonic()
    with pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(model="gpt-4o-mini", messages=ASK)
    assert time.monotonic() - start < 2
    assert caught.value.code.startswith("affidavit_")
    assert caught.value.response.headers["x-affidavit-reason"]


def test_a_spent_budget_is_a_rate_limit_error_and_not_tried_again():
    client = openai_client("gateway", max_retries=5)
    start = time.monotonic()
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="over-month", messages=ASK)
    assert time.monotonic() - start < 2
    assert caught.value.code == "affidavit_quota_exceeded"
    assert caught.value.type == "rate_limit_error"
    assert int(caught.value.response.headers["retry-after"]) > 0


def test_a_short_limit_is_waited_for():
    client = openai_client("gateway", max_retries=3)
    for _ in range(3):
        assert client.chat.completions.create(model="over-second", messages=ASK).choices


def test_a_caller_that_leaves_mid_stream_leaves():
    client = openai_client("gateway", default_headers={"x-replay": "script:slow:200"})
    stream = client.chat.completions.create(model="gpt-4o-mini", messages=ASK, stream=True)
    for n, _ in enumerate(stream):
        if n == 5:
            stream.close()
            break


def test_a_prompt_of_two_megabytes_passes(both_openai):
    long = [{"role": "user", "content": "word " * 400_000}]
    got = same({s: c.chat.completions.create(model="gpt-4o-mini", messages=long) for s, c in both_openai.items()})
    assert got.usage.prompt_tokens > 400_000


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_coded_request_body_passes(coding):
    body = json.dumps({"model": "gpt-4o-mini", "messages": ASK}).encode()
    coded = gzip.compress(body) if coding == "gzip" else zstandard.compress(body)
    request = urllib.request.Request(
        f"{GATEWAY}/openai/v1/chat/completions",
        data=coded,
        headers={
            "authorization": f"Bearer {KEY}",
            "content-type": "application/json",
            "content-encoding": coding,
        },
    )
    answer = json.load(urllib.request.urlopen(request))
    assert answer["choices"][0]["message"]["content"] == "The record of this is kept."


def test_fifty_at_once_each_get_their_own_answer():
    client = openai_client("gateway", max_retries=0)

    def one(n):
        words = "w " * n
        return client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": words}]
        ).usage.prompt_tokens

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        got = list(pool.map(one, range(1, 51)))
    assert len(set(got)) == 50
    assert [b - a for a, b in zip(got, got[1:])] == [1] * 49


def test_every_answer_names_its_exchange():
    raw = openai_client("gateway").chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=ASK)
    assert len(raw.headers["x-affidavit-exchange"]) == 36
