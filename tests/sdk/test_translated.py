"""The SDKs, unmodified, in front of a provider of the other dialect: what they raise, stream and join is as from their own."""

import anthropic
import openai
import pytest
from conftest import GATEWAY, KEY

TEXT = "The record of this is kept."
ASK = [{"role": "user", "content": "Is this kept?"}]
SCHEMA = {"type": "object", "properties": {"key": {"type": "string"}}}
OPENAI_TOOLS = [{"type": "function", "function": {"name": "lookup", "parameters": SCHEMA}}]
ANTHROPIC_TOOLS = [{"name": "lookup", "input_schema": SCHEMA}]
MESSAGES = {"model": "gpt-4o-mini", "max_tokens": 100}


def openai_to_anthropic(**more):
    return openai.OpenAI(base_url=f"{GATEWAY}/claude/v1", api_key=KEY, **more)


def anthropic_to_openai(**more):
    return anthropic.Anthropic(base_url=f"{GATEWAY}/gpt", api_key=KEY, **more)


def test_a_whole_answer_of_anthropics_is_one_of_openais():
    answer = openai_to_anthropic().chat.completions.create(model="claude-sonnet-4-5", messages=ASK)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    # Anthropic counts what was read from and written to its cache beside the rest.
    assert answer.usage.prompt_tokens_details.cached_tokens == 30
    assert answer.usage.prompt_tokens > 50
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 6


def test_a_stream_of_anthropics_is_one_of_openais():
    client = openai_to_anthropic()
    ask = {"model": "claude-sonnet-4-5", "messages": ASK, "stream": True}
    chunks = list(client.chat.completions.create(**ask, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
    assert [c.usage is not None for c in chunks].count(True) == 1
    assert not any(c.usage for c in client.chat.completions.create(**ask))
    with client.chat.completions.stream(model="claude-sonnet-4-5", messages=ASK) as stream:
        stream.until_done()
        assert stream.get_final_completion().choices[0].message.content == TEXT


def test_a_tool_call_of_anthropics_round_trips_through_openais():
    client = openai_to_anthropic()
    ask = {"model": "claude-sonnet-4-5", "tools": OPENAI_TOOLS, "tool_choice": "required"}
    with client.chat.completions.stream(messages=ASK, **ask) as stream:
        stream.until_done()
        streamed = stream.get_final_completion().choices[0]
    whole = client.chat.completions.create(messages=ASK, **ask).choices[0]
    for choice in (whole, streamed):
        assert choice.finish_reason == "tool_calls"
        call = choice.message.tool_calls[0]
        assert (call.id, call.function.name, call.function.arguments.replace(" ", "")) == (
            "toolu_1",
            "lookup",
            '{"key":"ab"}',
        )
    # As the SDK gives it, the message goes back.
    follow = [*ASK, whole.message, {"role": "tool", "tool_call_id": "toolu_1", "content": "42"}]
    answer = client.chat.completions.create(model="claude-sonnet-4-5", messages=follow, tools=OPENAI_TOOLS)
    assert answer.choices[0].message.content == TEXT


def test_what_has_no_translation_is_a_bad_request_that_is_not_tried_again():
    with pytest.raises(openai.BadRequestError) as caught:
        openai_to_anthropic().chat.completions.create(model="claude-sonnet-4-5", messages=ASK, n=2)
    assert caught.value.code == "affidavit_untranslatable"
    assert caught.value.response.headers["x-affidavit-untranslatable"] == "several_answers"


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (529, openai.InternalServerError),
    ],
)
def test_an_error_of_anthropics_raises_openais(status, wanted):
    with pytest.raises(wanted) as caught:
        openai_to_anthropic(max_retries=0).chat.completions.create(model=f"fail-{status}", messages=ASK)
    assert caught.value.status_code == (503 if status == 529 else status)
    assert caught.value.body["message"]


def test_a_whole_answer_of_openais_is_one_of_anthropics():
    message = anthropic_to_openai().messages.create(messages=ASK, system="Be short.", **MESSAGES)
    assert (message.content[0].text, message.stop_reason) == (TEXT, "end_turn")
    assert message.usage.output_tokens == 6


def test_a_stream_of_openais_is_one_of_anthropics():
    with anthropic_to_openai().messages.stream(messages=ASK, **MESSAGES) as stream:
        assert "".join(stream.text_stream) == TEXT
        message = stream.get_final_message()
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 6)
    assert message.usage.input_tokens > 0


def test_a_tool_call_of_openais_round_trips_through_anthropics():
    client = anthropic_to_openai()
    with client.messages.stream(messages=ASK, tools=ANTHROPIC_TOOLS, **MESSAGES) as stream:
        streamed = stream.get_final_message()
    whole = client.messages.create(messages=ASK, tools=ANTHROPIC_TOOLS, **MESSAGES)
    for message in (whole, streamed):
        block = message.content[-1]
        assert (block.type, block.id, block.name, block.input) == ("tool_use", "call_1", "lookup", {"key": "a b"})
        assert message.stop_reason == "tool_use"
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "42"}
    follow = [*ASK, {"role": "assistant", "content": whole.content}, {"role": "user", "content": [result]}]
    assert client.messages.create(messages=follow, tools=ANTHROPIC_TOOLS, **MESSAGES).content[0].text == TEXT


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (404, anthropic.NotFoundError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
    ],
)
def test_an_error_of_openais_raises_anthropics(status, wanted):
    with pytest.raises(wanted) as caught:
        anthropic_to_openai(max_retries=0).messages.create(**{**MESSAGES, "model": f"fail-{status}"}, messages=ASK)
    assert caught.value.status_code == status
    assert caught.value.body["error"]["message"]


def test_a_caller_that_leaves_mid_stream_leaves():
    stream = anthropic_to_openai().messages.create(messages=ASK, stream=True, **MESSAGES)
    next(iter(stream))
    stream.close()
