"""One SDK in front of one provider: once straight to a provider that speaks its format, once through the gateway."""

import copy
import functools
import itertools
import json
import os
import threading
import urllib.request
from importlib.metadata import version
from types import SimpleNamespace

from pydantic import BaseModel

PROVIDER = os.environ["AFFIDAVIT_PROVIDER"]
BEDROCK = os.environ["AFFIDAVIT_BEDROCK"]
GATEWAY = os.environ["AFFIDAVIT_GATEWAY"]
KEY = os.environ["AFFIDAVIT_KEY"]
WRONG_KEY = KEY[:-1] + ("a" if KEY[-1] != "a" else "b")
SIDES = ("provider", "gateway")
NOT_HERE = "not in this SDK"

PARAMETERS = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "lookup", "description": "looks up", "parameters": PARAMETERS}}
CALL = ["lookup", {"key": "a b"}]


class Answer(BaseModel):
    """What is wanted of structured output."""

    answer: str
    sure: bool


def said(text=None, calls=(), finish=None, usage=None, raw=None):
    """What an answer says; `raw` is all of it as data, which a translated one has no twin of."""
    return {"text": text, "calls": [list(call) for call in calls], "finish": finish, "usage": usage, "raw": plain(raw)}


# Set by the SDKs anew for each call, or the head of the answer (the gateway adds one of its own).
OF_THE_CALL = {"sdk_http_response", "timestamp", "run_id", "id", "headers", "created", "response_ms", "conversation_id"}


def plain(value):
    """A result as data: models of pydantic, lists, and what stands in them; without what names the very call."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    elif hasattr(value, "__dataclass_fields__"):
        value = {name: getattr(value, name) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items() if name not in OF_THE_CALL}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value


class Subject:
    """An SDK's ways to ask. Each takes a call (client, model, prompt) and gives what was said, or raises as the SDK does."""

    package = ""
    provider = "its own"
    route = ""
    model = ""
    # The model on the gateway's side, where another provider answers.
    model_behind = None
    translated = False
    statuses = (400, 401, 404, 429, 500)
    # Whether the SDK can be told to try again, and shows the answer's headers in what it raises.
    tries_again = True
    shows_headers = True
    # Whether a stream that is left may be read on behind the caller's back.
    may_read_on = False
    # Columns that are not asked of it, and why.
    lacks = {}
    # Further ways to ask that only this SDK has.
    others = ()

    @property
    def name(self):
        return f"{self.title} {version(self.package)}"

    @property
    def title(self):
        return self.package

    def __str__(self):
        return f"{self.title} to {self.provider}"

    @functools.lru_cache(maxsize=None)
    def client(self, side, retries=0, key=None):
        base = f"{GATEWAY}/{self.route}" if side == "gateway" else PROVIDER
        return self.make(base, key or (KEY if side == "gateway" else "sk-direct"), retries)

    def call(self, side, prompt, model=None, **more):
        behind = self.model_behind if side == "gateway" else None
        return SimpleNamespace(client=self.client(side, **more), model=model or behind or self.model, prompt=prompt)

    def make(self, base, key, retries):
        raise NotImplementedError

    def many(self, calls, one):
        """All calls at once, each with the one client; what each said, in order."""
        results = [None] * len(calls)

        def run(n):
            results[n] = one(n, calls[n])

        threads = [threading.Thread(target=run, args=(n,)) for n in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    def message(self, error):
        """What the SDK gives of the error's words, for whoever reads them."""
        return str(error)

    def headers(self, error):
        response = getattr(error, "response", None)
        return getattr(response if response is not None else error, "headers", None) or {}

    def status(self, error):
        return getattr(error, "status_code", None) or getattr(error, "code", None)


# Behind translation: provider, the end of the route's name, model.
FURTHER = [
    ("Gemini", "gemini", "gemini-2.5-flash"),
    ("Vertex AI", "vertex", "gemini-2.5-flash"),
    ("Bedrock", "bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
]
BEHIND = {
    "openai": [("Anthropic", "anthropic", "claude-sonnet-4-6"), *FURTHER],
    "anthropic": [("OpenAI", "openai", "gpt-4o-mini"), *FURTHER],
}


def and_translated(subject):
    """The subject, and the same in front of each provider that the gateway translates its dialect for."""
    yield subject
    for provider, route, model in BEHIND[subject.route]:
        behind = copy.copy(subject)
        behind.translated, behind.provider, behind.model_behind = True, provider, model
        behind.route = f"{subject.route}-to-{route}"
        behind.statuses = Subject.statuses
        yield behind


NUMBERS = itertools.count(1)


def mark():
    """A word of its own: of this process and this call."""
    return f"mark-{os.getpid()}-{next(NUMBERS):05}"


def seen(word):
    """When requests with this word came to the providers, straight and through the gateway, in milliseconds."""
    came = {side: [] for side in SIDES}
    for url in (PROVIDER, BEDROCK):
        with urllib.request.urlopen(f"{url}/seen/{word}") as answer:
            for side, times in json.load(answer).items():
                came[side] += times
    return came
