"""Every SDK's every way to ask: what it gives through the gateway is what it gives straight from a provider that speaks its
format. Writes a line of JSON for each cell, with what the gateway's records are to say of it."""

import importlib
import json
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from subject import CALL, SIDES, WRONG_KEY, mark, plain, seen

SUBJECTS = [subject for name in os.environ["AFFIDAVIT_SUBJECTS"].split(",") for subject in importlib.import_module(name).SUBJECTS]
MANY = 50
# Draw how long they wait between two tries.
BY_CHANCE = ("boto3", "cohere", "google-genai", "mistralai")


def text_of(word):
    return f"The record of {word} is kept."


class Cell:
    """What one cell has done so far."""

    def __init__(self, subject, column):
        self.subject, self.column, self.asked = subject, column, []

    def ask(self, way, prompt="Is {} kept?", end="complete", **options):
        """Both sides at once; gives what each said or raised, after what translation cannot keep is taken away."""
        subject, results, words = self.subject, {}, {side: mark() for side in SIDES}

        def run(side):
            try:
                call = subject.call(side, prompt.format(words[side]), **options)
                results[side] = (way(call), None)
            except Exception as error:
                results[side] = (None, error)

        threads = [threading.Thread(target=run, args=(side,)) for side in SIDES]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        got = results["gateway"][0]
        usage = got.get("usage") if isinstance(got, dict) else None
        self.note(words["gateway"], end, usage)
        return words, results

    def note(self, word, end, usage=None):
        tries = len(seen(word)["gateway"])
        self.asked.append({"mark": word, "tries": tries, "end": end, "usage": usage})

    def same(self, way, **options):
        """What both sides said, which is the same."""
        words, results = self.ask(way, **options)
        for _, error in results.values():
            if error is not None:
                raise error
        shown = {side: self.comparable(results[side][0], words[side]) for side in SIDES}
        assert shown["gateway"] == shown["provider"]
        return json.loads(json.dumps(shown["gateway"]).replace("MARK", words["gateway"])), words["gateway"]

    def comparable(self, got, word):
        got = json.loads(json.dumps(plain(got)).replace(word, "MARK"))
        if self.subject.translated and isinstance(got, dict) and "raw" in got:
            # Another provider counts its own prompt.
            got = {**got, "raw": None, "usage": (got["usage"] or [])[1:]}
        return got

    def words_of(self, error):
        """An error's message; a translated one has no id of the request in it, and the provider's own code."""
        message = self.subject.message(error)
        if self.subject.translated:
            message = re.sub(r""", ?(['"])(request_id|code)\1: ?\1\w+\1""", "", message)
        return message

    def raised(self, status, retries):
        """What both sides raised, which is the same: class, status, words, tries, and how long the provider asked to wait."""
        subject = self.subject
        words, results = self.ask(subject.whole, model=f"fail-{status}", retries=retries)
        shown = {}
        for side in SIDES:
            error = results[side][1]
            assert error is not None, f"{side} raised nothing"
            times = seen(words[side])[side]
            shown[side] = {
                "class": f"{type(error).__module__}.{type(error).__qualname__}",
                "status": subject.status(error),
                "message": self.words_of(error).replace(words[side], "MARK"),
                "retry-after": subject.headers(error).get("retry-after"),
                "tries": len(times),
            }
            # Where no wait was asked for, how long it takes is the SDK's own affair.
            if status == 429 and not subject.name.startswith(BY_CHANCE):
                shown[side]["waited"] = all(after - before >= 950 for before, after in zip(times, times[1:]))
        assert shown["gateway"] == shown["provider"]
        return shown["gateway"]

    def write(self, got):
        line = {"sdk": self.subject.name, "provider": self.subject.provider, "column": self.column, "got": got}
        with open(os.environ["AFFIDAVIT_CELLS"], "a") as cells:
            cells.write(json.dumps({**line, "asked": self.asked}) + "\n")


def whole(cell):
    got, word = cell.same(cell.subject.whole)
    assert got["text"] == text_of(word)


def stream(cell):
    got, word = cell.same(cell.subject.stream)
    assert "".join(got["text"]) == text_of(word)
    assert len([piece for piece in got["text"] if piece]) >= 6, "it came in pieces"


def tools(cell):
    """A call, the same streamed where the SDK streams calls, and the answer behind the tool's result."""
    for way in (cell.subject.tools, cell.subject.tools_streamed):
        got, _ = cell.same(way)
        assert got["calls"] == [CALL]
    got, word = cell.same(cell.subject.tool_answered)
    assert got["text"] == text_of(word)


def objects(cell):
    got, _ = cell.same(cell.subject.objects)
    assert got == {"answer": "kept", "sure": True}


def embeddings(cell):
    if cell.subject.translated:
        words, results = cell.ask(cell.subject.embed, end="refused")
        reason = cell.subject.headers(results["gateway"][1])["x-affidavit-reason"]
        assert reason == "untranslatable" and len(seen(words["gateway"])["gateway"]) == 0
        return "refused: untranslatable"
    got, _ = cell.same(cell.subject.embed)
    assert len(got) == 2 and len(got[0]) == 3


def errors(cell):
    for status in cell.subject.statuses:
        got = cell.raised(status, retries=0)
        assert got["tries"] == 1 and (not cell.subject.shows_headers or (got["retry-after"] == "1") == (status == 429))


def retries(cell):
    """At a 429 and a 500 as many tries, and the wait that the provider asked for."""
    again = cell.subject.tries_again
    for status in (429, 500):
        got = cell.raised(status, retries=1)
        assert got["tries"] == (2 if again else 1)
    return None if again else "same; it does not try again"


def abort(cell):
    """Leaves behind the second piece: the record says so."""
    reads_on = cell.subject.may_read_on
    end = "client_abort or complete" if reads_on else "client_abort"
    got, _ = cell.same(cell.subject.leave, prompt="Say slowly: is {} kept?", end=end)
    assert got == 2
    return "same; it may read on" if reads_on else None


def fifty_at_once(cell):
    """Each has a word of its own in question and answer, every other one is streamed."""
    subject = cell.subject
    words = [mark() for _ in range(MANY)]
    calls = [subject.call("gateway", f"Is {word} kept?") for word in words]
    got = subject.many(calls, lambda n, call: (subject.stream if n % 2 else subject.whole)(call))
    for word, answer in zip(words, got):
        assert "".join(answer["text"]) == text_of(word)
        cell.asked.append({"mark": word, "tries": 1, "end": "complete", "usage": answer["usage"]})


def refused(cell):
    """A wrong gateway key: the class that the SDK raises for a wrong key of the provider, at once, and nothing is sent."""
    subject, word = cell.subject, mark()
    with pytest.raises(Exception) as own:
        subject.whole(subject.call("provider", "Is it?", model=f"fail-{subject.statuses[1]}"))
    with pytest.raises(type(own.value)) as caught:
        subject.whole(subject.call("gateway", f"Is {word} kept?", key=WRONG_KEY, retries=3))
    assert "gateway key" in str(getattr(caught.value, "body", None) or caught.value)
    cell.asked.append({"mark": word, "tries": 0, "end": "refused", "usage": None})


def others(cell):
    """What else the SDK asks: each of `subject.others`."""
    for way in cell.subject.others:
        cell.same(way)
    return ", ".join(way.__name__ for way in cell.subject.others)


COLUMNS = {
    "whole": whole,
    "streamed": stream,
    "tools": tools,
    "structured output": objects,
    "embeddings": embeddings,
    "exceptions": errors,
    "tries, retry-after": retries,
    "left mid-stream": abort,
    "50 at once": fifty_at_once,
    "wrong gateway key": refused,
    "others": others,
}


def fill(subject, column):
    """Runs a cell, and writes it."""
    cell = Cell(subject, column)
    missing = subject.lacks.get(column) or (column == "others" and not subject.others and "-")
    if missing:
        cell.write(missing)
        return
    try:
        cell.write(COLUMNS[column](cell) or "same")
    except BaseException:
        cell.write("DIFFERENT")
        raise


@pytest.fixture(scope="session")
def cells():
    """All cells, run several at a time, for mostly they wait; fifty at once have the process for themselves."""
    alone = "50 at once"
    with ThreadPoolExecutor(6) as several:
        running = {(subject, column): several.submit(fill, subject, column) for subject in SUBJECTS for column in COLUMNS if column != alone}
    with ThreadPoolExecutor(1) as one:
        running |= {(subject, alone): one.submit(fill, subject, alone) for subject in SUBJECTS}
    return running


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_is_the_same(cells, subject, column):
    cells[subject, column].result()
