#!/usr/bin/env python3
"""Flips bits of a store's first batch, one at a time, and gives it to the task of the Spark job: no flip may end the task, pass for
proven, or go unnoticed.

    flips.py STORE --trust trust.yaml --every N      each N-th byte of seal and records file; two bits of each where N is 1
    flips.py STORE --trust trust.yaml --known        prints the places that are always tried: a name, its byte and its bits
"""

import argparse
import json
import os
import re
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "auditor" / "spark"))

import pyarrow as pa
from affidavit import gateway, job
from affidavit import trust as trusts
from affidavit.findings import IS_INVALID
from affidavit.form import Form
from affidavit.store import Store

# Places in the footer of a records file, by what stands there, with the bits to turn over and a word of what is found then: the
# reader aborts; text that is none, in a statistic and in a name.
KNOWN = {
    "abort": (rb"\x19\x18\x09operation\x15(\x0c)", 1, "SIG"),
    "text": (rb"\x19\x18\x06config.{1,40}?\x1c6\x00\(@([0-9a-f])", 128, "utf-8"),
    "name": (rb"%\x02\x18\x09(d)elivered", 128, "utf-8"),
}


class Flipped(Store):
    """The store with one object in which some bits of a byte are turned over."""

    name, at, bits = None, 0, 0

    def read(self, name, limit):
        data = super().read(name, limit)
        if name != self.name:
            return data
        return data[:self.at] + bytes([data[self.at] ^ self.bits]) + data[self.at + 1:]


def known(data):
    """The byte and the bits of each of them in a file."""
    found = {}
    for name, (pattern, bits, _) in KNOWN.items():
        places = [place.start(1) for place in re.finditer(pattern, data, re.DOTALL)]
        if len(places) != 1:
            sys.exit(f"`{name}` is at {len(places)} places of the records file, wanted one: {places}")
        found[name] = (places[0], bits)
    return found


def flips(length, every, known):
    yield from known
    for at in range(0, length, every):
        yield at, 1 << at % 8
        if every == 1:
            yield at, 1 << (at + 5) % 8


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store")
    parser.add_argument("--trust", required=True)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--known", action="store_true")
    options = parser.parse_args()
    trust, form, store = trusts.read(Path(options.trust).read_text()), Form(), Flipped(options.store)
    origin, batches = sorted(job.listing(store, trust["deployment"], gateway.Judged()).items())[0]
    unit = {"origin": origin, "batch": 0, "listed": batches[0]["data"], "entry": trusts.key_for(trust, origin)}
    units = pa.RecordBatch.from_pylist([{"unit": json.dumps(unit)}])
    (records,) = [name for name in unit["listed"] if name.endswith(".records.parquet")]
    length, dead, missed = Counter(), 0, []
    places = known((Path(options.store) / origin / records).read_bytes())
    if options.known:
        print(json.dumps(places))
        return 0

    def judged():
        (facts,) = job.task(store, form)([units])
        return facts.to_pylist()[0]

    if (whole := judged())["state"] != "proven" or whole["findings"]:
        print(f"the store is not whole: {whole['findings']}")
        return 1
    words = {places[name]: word for name, (_, _, word) in KNOWN.items()}
    for name, first in ((records, words), ("0000000000.seal", {})):
        store.name = f"{origin}/{name}"
        for at, bits in flips(os.path.getsize(Path(options.store) / store.name), options.every, first):
            store.at, store.bits = at, bits
            facts = judged()
            length[name] += 1
            found = json.loads(facts["findings"] or "[]")
            dead += any("SIG" in seen for *_, seen in found)
            if (word := first.get((at, bits))) and word not in str(found):
                missed.append(f"{name}, byte {at}, bits {bits}: wanted `{word}`: {found}")
            if facts["state"] == "proven" or facts["worst"] != IS_INVALID:
                missed.append(f"{name}, byte {at}, bits {bits}: {facts['state']} {found}")
    print(f"{sum(length.values())} flips, of {len(length)} objects; {dead} of them brought the reader down; {len(missed)} missed")
    print("\n".join(missed[:20]))
    return 1 if missed or not dead else 0


if __name__ == "__main__":
    sys.exit(main())
