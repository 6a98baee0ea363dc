#!/usr/bin/env python3
"""Flips bits of a store's first batch, one at a time, and gives it to the task of the Spark job: no flip may end the task, pass for
proven, or go unnoticed.

    flips.py STORE --trust trust.yaml --every N      each N-th byte of seal and records file; two bits of each where N is 1
"""

import argparse
import json
import os
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

# In the records file of the first vectors: the reader aborts; text that is not UTF-8, in a statistic and in a name.
KNOWN = ((7822, 4), (6596, 128), (5409, 128))


class Flipped(Store):
    """The store with one object in which some bits of a byte are turned over."""

    name, at, bits = None, 0, 0

    def read(self, name, limit):
        data = super().read(name, limit)
        if name != self.name:
            return data
        return data[:self.at] + bytes([data[self.at] ^ self.bits]) + data[self.at + 1:]


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
    options = parser.parse_args()
    trust, form, store = trusts.read(Path(options.trust).read_text()), Form(), Flipped(options.store)
    origin, batches = sorted(job.listing(store, trust["deployment"], gateway.Judged()).items())[0]
    unit = {"origin": origin, "batch": 0, "listed": batches[0]["data"], "entry": trusts.key_for(trust, origin)}
    units = pa.RecordBatch.from_pylist([{"unit": json.dumps(unit)}])
    (records,) = [name for name in unit["listed"] if name.endswith(".records.parquet")]
    length, dead, missed = Counter(), 0, []

    def judged():
        (facts,) = job.task(store, form)([units])
        return facts.to_pylist()[0]

    if (whole := judged())["state"] != "proven" or whole["findings"]:
        print(f"the store is not whole: {whole['findings']}")
        return 1
    for name, known in ((records, KNOWN), ("0000000000.seal", ())):
        store.name = f"{origin}/{name}"
        for at, bits in flips(os.path.getsize(Path(options.store) / store.name), options.every, known):
            store.at, store.bits = at, bits
            facts = judged()
            length[name] += 1
            found = json.loads(facts["findings"] or "[]")
            dead += any("SIG" in seen for *_, seen in found)
            if facts["state"] == "proven" or facts["worst"] != IS_INVALID:
                missed.append(f"{name}, byte {at}, bits {bits}: {facts['state']} {found}")
    print(f"{sum(length.values())} flips, of {len(length)} objects; {dead} of them brought the reader down; {len(missed)} missed")
    print("\n".join(missed[:20]))
    return 1 if missed or not dead else 0


if __name__ == "__main__":
    sys.exit(main())
