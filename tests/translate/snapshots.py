"""Are the bytes that translation writes what the providers' own SDKs say that they are?

    python tests/translate/snapshots.py

Reads every case of gateway/dialects/testdata/translate and checks what the gateway writes in it (requests for OpenAI and
Anthropic, answers and streams for callers of both), and what a case gives to it (requests of callers, answers of both),
against the types in the packages `openai` and `anthropic`: each type of theirs is checked strictly, and a key that no
type has is an error, but for the few below. Each reason to end that these types know has to have its cases. Exit code 1
where one does not fit.
"""

import json
import sys
import types
import typing
from pathlib import Path

import anthropic.types as anthropic
import openai.types.chat as openai
import pydantic
import typing_extensions
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)

CASES = Path(__file__).resolve().parents[2] / "gateway/dialects/testdata/translate"

# What other servers of OpenAI's dialect write for thoughts, and Google for the signature of a call; the cache marks that
# clients of that dialect send to Anthropic's models, and their `top_k`; and how Anthropic's older models are told to draw,
# which its newest SDK leaves to `extra_body`.
DRAW = {"temperature", "top_p", "top_k"}
BESIDE = {
    "MessageCreateParamsNonStreaming": DRAW,
    "MessageCreateParamsStreaming": DRAW,
    "CompletionCreateParamsNonStreaming": {"top_k"},
    "CompletionCreateParamsStreaming": {"top_k"},
    "ChatCompletionMessage": {"reasoning_content", "thinking_blocks"},
    "ChoiceDelta": {"reasoning_content", "thinking_blocks"},
    "ChatCompletionMessageFunctionToolCall": {"extra_content"},
    "ChoiceDeltaToolCall": {"extra_content"},
    "ChatCompletionMessageFunctionToolCallParam": {"extra_content"},
    "ChatCompletionAssistantMessageParam": {"reasoning_content", "thinking_blocks", "annotations", "provider_specific_fields"},
    "ChatCompletionContentPartTextParam": {"cache_control"},
    "ChatCompletionFunctionToolParam": {"cache_control"},
}
# Cases whose request has keys that no type has, or whose answer is of another server of OpenAI's dialect.
REQUEST_BESIDE = {"anthropic-openai/server-tools-refused", "openai-anthropic/meanings-refused", "openai-anthropic/system"}
ANSWER_BESIDE = {
    "anthropic-openai/error-in-the-answer",
    "anthropic-openai/stream-of-azure",
    "anthropic-openai/stream-thinking-in-content",
    "anthropic-openai/stream-usage-of-groq",
    "anthropic-openai/thinking-in-content",
    "anthropic-openai/thinking-off",
}

ANSWER = {"openai": openai.ChatCompletion, "anthropic": anthropic.Message}
EVENT = {"openai": openai.ChatCompletionChunk, "anthropic": anthropic.RawMessageStreamEvent}
REASONS = {
    "openai": typing.get_args(openai.chat_completion.Choice.model_fields["finish_reason"].annotation),
    "anthropic": typing.get_args(anthropic.StopReason),
}


def is_typed_dict(form):
    return typing_extensions.is_typeddict(form)


def is_model(form):
    return isinstance(form, type) and issubclass(form, pydantic.BaseModel)


def fits(form, value, path):
    """The faults of `value` as a value of the type `form`."""
    origin = typing.get_origin(form)
    if str(origin).endswith(("Required", "NotRequired")) or origin is typing.Annotated:
        return fits(typing.get_args(form)[0], value, path)
    if origin in (typing.Union, types.UnionType):
        best = None
        for choice in typing.get_args(form):
            faults = fits(choice, value, path)
            if not faults:
                return []
            # The one that the value says it is, else the one that fits best.
            if best is None or len(faults) < len(best):
                best = faults
        return best
    if origin is typing.Literal:
        return [] if value in typing.get_args(form) else [f"{path}: {value!r} is none of {typing.get_args(form)}"]
    if is_typed_dict(form) or is_model(form):
        return members(form, value, path)
    if origin is dict or form is dict:
        return [] if isinstance(value, dict) else [f"{path}: no object"]
    name = str(origin or form)
    if isinstance(value, list) and ("Iterable" in name or "list" in name or "Sequence" in name):
        inner = typing.get_args(form)[0] if typing.get_args(form) else object
        return [fault for n, element in enumerate(value) for fault in fits(inner, element, f"{path}[{n}]")]
    if form in (str, int, float, bool, type(None)):
        wanted = (int, float) if form is float else form
        right = isinstance(value, wanted) and (form is bool or not isinstance(value, bool))
        return [] if right else [f"{path}: {value!r} is no {form.__name__}"]
    if form in (object, typing.Any):
        return []
    return [f"{path}: {value!r} is no {name}"]


def members(form, value, path):
    if not isinstance(value, dict):
        return [f"{path}: no object"]
    if is_typed_dict(form):
        hints = typing.get_type_hints(form, include_extras=True)
        wanted = form.__required_keys__
        takes_more = form.__name__ in ("InputSchemaTyped",)
    else:
        wanted = {name for name, field in form.model_fields.items() if field.is_required()}
        hints = {name: field.annotation for name, field in form.model_fields.items()}
        takes_more = False
    faults = [f"{path}.{name}: is missing" for name in sorted(wanted) if name not in value]
    for name, inner in value.items():
        if name in hints:
            faults += fits(hints[name], inner, f"{path}.{name}")
        elif not takes_more and name not in BESIDE.get(form.__name__, ()):
            faults.append(f"{path}.{name}: {form.__name__} has no such key")
    return faults


def events(text):
    for event in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in event.splitlines() if line)
        if lines and lines["data"] != "[DONE]":
            data = json.loads(lines["data"])
            assert "event" not in lines or lines["event"] == data["type"], event
            yield data


def request_form(dialect, request):
    stream = request.get("stream", False)
    if dialect.endswith("openai"):
        return CompletionCreateParamsStreaming if stream else CompletionCreateParamsNonStreaming
    return MessageCreateParamsStreaming if stream else MessageCreateParamsNonStreaming


def error_faults(dialect, body, path):
    if dialect == "anthropic":
        error = body.get("error", {})
        if error.get("type") == "request_too_large":  # documented, but no type has it
            body = {**body, "error": {**error, "type": "invalid_request_error"}}
        return fits(anthropic.ErrorResponse, {"request_id": None, **body}, path)
    whole = isinstance(body.get("error"), dict) and set(body["error"]) == {"message", "type", "param", "code"}
    return [] if whole else [f"{path}: {body}"]


def stream_faults(dialect, text, path):
    """The number of events, and their faults."""
    seen, faults = 0, []
    for n, event in enumerate(events(text)):
        if "error" in event:
            faults += error_faults(dialect, event, f"{path}[{n}]")
        elif event.get("type") != "ping":
            faults += fits(EVENT[dialect], event, f"{path}[{n}]")
        seen += 1
    return seen, faults


def holes(pair, prefix, words):
    """The cases that `pair` lacks, of one for each of `words`."""
    names = [prefix + word.lower().replace("_", "-") for word in words]
    return [f"{pair.name}/{name}: no such case" for name in names if not (pair / name).is_dir()]


def given(case, caller, provider):
    """What is checked of what a case gives."""
    seen, faults, name = 0, [], f"{case.parent.name}/{case.name}"
    if name not in REQUEST_BESIDE:
        request = json.loads((case / "request.json").read_text())
        faults += fits(request_form(caller, request), request, f"{case.name}/request")
        seen += 1
    if provider not in ANSWER or name in ANSWER_BESIDE:
        return seen, faults
    answer, stream = case / "provider_answer.json", case / "provider_answer.sse"
    if answer.exists():
        faults += fits(ANSWER[provider], json.loads(answer.read_text()), f"{case.name}/provider_answer")
        seen += 1
    if stream.exists():
        more, wrong = stream_faults(provider, stream.read_text(), f"{case.name}/provider_answer.sse")
        seen, faults = seen + more, faults + wrong
    for file in sorted(case.glob("provider_error.*.json")):
        faults += error_faults(provider, json.loads(file.read_text()), f"{case.name}/{file.name}")
        seen += 1
    return seen, faults


def checked(case, pair):
    """What is checked of a case: the number of values, and their faults."""
    caller, provider = pair.split("-")
    seen, faults = given(case, caller, provider)
    if provider in ("openai", "azure_openai", "anthropic"):
        request = json.loads((case / "provider_request.json").read_text())
        faults += fits(request_form(provider, request), request, f"{case.name}/provider_request")
        seen += 1
    for file in sorted(case.glob("error.*.json")):
        faults += error_faults(caller, json.loads(file.read_text()), f"{case.name}/{file.name}")
        seen += 1
    answer = case / "answer.json"
    if answer.exists():
        faults += fits(ANSWER[caller], json.loads(answer.read_text()), f"{case.name}/answer")
        seen += 1
    stream = case / "answer.sse"
    if stream.exists():
        more, wrong = stream_faults(caller, stream.read_text(), f"{case.name}/answer.sse")
        seen, faults = seen + more, faults + wrong
    return seen, faults


def main():
    seen, faults, cases = 0, [], 0
    for pair in sorted(CASES.iterdir()):
        for prefix in ("stop-", "stream-stop-"):
            faults += holes(pair, prefix, REASONS.get(pair.name.split("-")[1], ()))
        for case in sorted(pair.iterdir()):
            more, wrong = checked(case, pair.name)
            seen, faults, cases = seen + more, faults + [f"{pair.name}: {fault}" for fault in wrong], cases + 1
    print("\n".join(faults))
    print(f"{cases} cases of translation")
    print(f"{seen} checks, {len(faults)} wrong")
    return 1 if faults or not seen else 0


if __name__ == "__main__":
    sys.exit(main())
