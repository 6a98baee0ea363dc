#!/usr/bin/env python3
"""A second verifier of Affidavit's evidence, written from schemas/FORMAT.md alone.

    verify.py STORE --trust trust.yaml [--key-table DIR]     one line a finding; exit 0, 1 (findings), 2 (could not judge)
    verify.py --vectors schemas/testdata/v1                  the golden vectors, both directions

It shares no code with the gateway and the auditor; the format itself is in auditor/spark/affidavit, as the Spark job reads it.
What it does not do: mandates, asked intervals, saved state, silence, the order of attempts (FORMAT.md 3.3), retention: what is
gone is missing, also where its time is over, and holds and erasures of a batch that is gone count only for whoever reads the
registry's entries about them (15.4).
"""

import argparse
import os
import sys
import time
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "auditor" / "spark")]

import content
import holds
import registry as registries
from affidavit import files, tree
from affidavit import seal as seals
from affidavit import trust as trusts
from affidavit.findings import Findings, Place
from affidavit.form import Form


class Store:
    """A directory store, read only."""

    def __init__(self, root, findings):
        self.root = Path(root)
        self.logs = {}
        for folder, below, names in os.walk(self.root, followlinks=False):
            at = Path(folder).relative_to(self.root)
            if at.parts[:1] == (".tmp",):
                continue
            for name in [*names, *(d for d in below if (Path(folder) / d).is_symlink())]:
                path = Path(folder) / name
                if path.is_symlink() or not path.is_file():
                    findings.add("NOT_A_FILE", at / name, "a plain file", "another thing")
                elif at.parts[1:] == ("registry", "log") and (
                    seals.CHECKPOINT_NAME.fullmatch(name) or seals.ANCHOR_NAME.fullmatch(name)
                ):
                    self.logs.setdefault(str(at), set()).add(name)
                elif len(at.parts) == 3 and (seals.NAME.fullmatch(name) or seals.SEAL_NAME.fullmatch(name)):
                    self.logs.setdefault(str(at), set()).add(name)
                else:
                    findings.add("UNKNOWN_OBJECT", at / name, "a name of FORMAT.md 6.1", name)

    def read(self, origin, name, findings):
        try:
            return (self.root / origin / name).read_bytes()
        except OSError as error:
            findings.add("COULD_NOT_READ", f"{origin}/{name}", "readable bytes", error)
            return None


def verify_store(root, trust, key_table, form, findings):
    """Returns (logs, batches, records, parts proven, parts not opened, parts erased)."""
    store = Store(root, findings)
    totals, erasures, destroyed, logs = [0] * 6, set(), [], []
    if not store.logs:
        findings.add("NO_INPUT", root, "evidence", "none")
    registry = None
    if "registry" in trust:
        registry = registries.Registry(trust, form, findings)
        registry.read(store)
        registry.hold(store)
    for entry in trust.get("gateways", []):
        first = entry.get("first_origin")
        if first and first not in store.logs:
            findings.add("LOG_MISSING", first, "the first log of the gateway", "none")
    for origin in sorted(store.logs):
        if registry and origin == registry.origin:
            continue
        entry = registry.entry(origin) if registry else trusts.key_for(trust, origin)
        if entry is None:
            findings.add("UNREGISTERED_LOG", origin, "a log that the trust file covers", "another")
            continue
        log = content.Log(origin, key_table, findings)
        counts = verify_log(store, origin, entry, log, form, findings)
        totals = [a + b for a, b in zip(totals, (1, *counts, log.proven, log.unopened, 0))]
        erasures |= log.erasures
        if registry:
            registry.ledger_of(origin, log.ledger)
        destroyed += log.destroyed
        logs.append(log)
    for erased, place in destroyed:
        if erased in erasures:
            totals[5] += 1
        else:
            findings.add("UNDECLARED_ERASURE", place, "an `erasure` record of the exchange", f"{erased[1]} destroyed")
    holds.judge(logs, findings, time.time_ns() // 1000)
    return totals


def verify_log(store, origin, entry, log, form, findings):
    names = store.logs[origin]
    public = seals.unbase64(entry["key"])
    numbers = sorted(int(found[1]) for found in map(seals.SEAL_NAME.fullmatch, names) if found)
    closers = [seals.unbase64(closer) for closer in entry.get("closers", [])]
    state = {"closers": closers, "closer": False, "own_size": 0, "previous": None, "range": tree.CompactRange(), "closed": False, "encrypted": True, "last": None, "died": None, "sealed": {}}
    named, records = set(), 0
    for number in range(numbers[-1] + 1 if numbers else 0):
        if number not in numbers:
            findings.add("BATCH_MISSING", f"{origin} batch {number}", "a seal", "none")
            state["previous"] = state["range"] = None
            continue
        records += verify_batch(store, origin, number, public, entry, state, log, named, form, findings)
    revoked = entry.get("revoked")
    if revoked and state["previous"] and origin >= revoked["origin"]:
        # A closer may go on where the log's own key counts no longer.
        size = state["own_size"]
        if origin > revoked["origin"] or size > revoked["size"]:
            findings.add("KEY_NOT_VALID_FOR_SIZE", origin, f"no seals beyond {revoked['size']}", size)
    known = trusts.listed(entry, origin)
    if state["own_size"] > known.get("size", state["own_size"]):
        findings.add("KEY_NOT_VALID_FOR_SIZE", origin, f"no seals of the log's key beyond {known['size']}", state["own_size"])
    if state["previous"] and state["previous"]["to"] > known.get("closed", state["previous"]["to"]):
        findings.add("KEY_NOT_VALID_FOR_SIZE", origin, f"nothing beyond {known['closed']}", state["previous"]["to"])
    last_origin = max((o for o in store.logs if o.rpartition("/")[0] == origin.rpartition("/")[0]), default=origin)
    if not state["closed"] and (origin != last_origin or entry.get("closed")):
        findings.add("TAIL_UNPROVEN", origin, "a `close` record", state["last"])
    for name in sorted(names - named):
        if seals.NAME.fullmatch(name):
            findings.add(unnamed(int(name[:10]), numbers, state), f"{origin}/{name}", "a seal that names it", "none")
    return len(numbers), records


def unnamed(number, numbers, state):
    """What a file of a batch is whose seal is not there, or does not name it."""
    died, sealed = state["died"], state["sealed"].get(number)
    if number not in numbers:
        return "LEFTOVER"
    return "LEFTOVER" if died is not None and sealed is not None and sealed > died else "UNREFERENCED_OBJECT"


def verify_batch(store, origin, number, public, entry, state, log, named, form, findings):
    place = f"{origin} batch {number}"
    note = store.read(origin, f"{number:010}.seal", findings)
    if note is None:
        return 0
    try:
        seal = verify_seal(note, public, state, place, findings)
    except seals.Bad as error:
        findings.add("SEAL_INVALID", place, "a seal signed by the log's key", error)
        try:
            # What it says still names places; nothing is proven by it.
            seal = seals.parse(seals.split_note(note)[0])
        except seals.Bad:
            return 0
    if seal["origin"] != origin or seal["batch"] != number:
        findings.add("ORIGIN_MISMATCH", place, place, f"{seal['origin']} batch {seal['batch']}")
    check_chain(seal, note, state, place, findings)
    state["sealed"][number] = seal["time"]
    data = {}
    for name, length, hash_ in seal["files"]:
        named.add(name)
        if name not in store.logs[origin]:
            findings.add("BATCH_MISSING", f"{place}, {name}", "a file", "none")
            continue
        raw = store.read(origin, name, findings)
        if raw is None:
            continue
        if len(raw) != length or sha256(raw).hexdigest() != hash_:
            findings.add("FILE_MISMATCH", f"{origin}/{name}", f"{length} bytes, {hash_}",
                         f"{len(raw)} bytes, {sha256(raw).hexdigest()}")
        data[seals.NAME.fullmatch(name)[3]] = raw
    exact = seal["schema"] == form.fingerprint
    rows = files.records(data["records"], form, exact, Place(origin, number), findings) if "records" in data else None
    after = None
    if rows is not None:
        check_positions(seal, rows, place, findings)
        after = tree.CompactRange(seal["from"], [bytes.fromhex(node) for node in seal["compact"]])
        for row in rows:
            after.append(row[2])
        if after.size != seal["to"] or after.root().hex() != seal["root"]:
            findings.add("ROOT_MISMATCH", place, f"{seal['root']} of size {seal['to']}",
                         f"{after.root().hex()} of size {after.size}")
        check_ends(rows, entry, state, log, place, findings)
    state.update(previous={**seal, "sha256": sha256(note).hexdigest()}, range=after)
    if "reference" in data:
        found = files.references(data["reference"], form, exact, Place(origin, number), findings)
        for h, (media, raw) in found.items():
            if media == "application/zstd-dictionary" and h not in log.dictionaries:
                log.dictionaries[h] = content.dictionary(raw)
    if rows is not None:
        classes = {
            kind.removeprefix("content-"): files.content_rows(raw, form, exact, Place(origin, number), findings)
            for kind, raw in data.items() if kind.startswith("content-")
        }
        log.batch(seal, classes, state["encrypted"])
    return len(rows or [])


def verify_seal(note, public, state, place, findings):
    """By the log's own key, or by a closer; once a closer has sealed, the log's key has no word in that log any more."""
    try:
        seal = seals.verify(note, public)
        if state["closer"]:
            findings.add("KEY_NOT_VALID_FOR_SIZE", place, "a closer's seal", "one by the log's own key")
        state["own_size"] = seal["to"]
        return seal
    except seals.Bad as error:
        for closer in state["closers"]:
            try:
                seal = seals.verify(note, closer)
            except seals.Bad:
                continue
            state["closer"] = True
            return seal
        raise error


def check_chain(seal, note, state, place, findings):
    previous = state["previous"]
    if previous is None:
        if seal["batch"] != 0:
            return  # the missing batch before is a finding of its own
        if seal["from"] != 0 or seal["previous"] is not None:
            findings.add("CHAIN_BROKEN", place, "the beginning of a log", seal["previous"])
        return
    if seal["previous"] != previous["sha256"] or seal["from"] != previous["to"]:
        findings.add("CHAIN_BROKEN", place, f"{previous['sha256']} to {previous['to']}",
                     f"{seal['previous']} from {seal['from']}")
    compact = tree.CompactRange(seal["from"], [bytes.fromhex(node) for node in seal["compact"]])
    if compact.root().hex() != previous["root"]:
        findings.add("CHAIN_BROKEN", place, previous["root"], compact.root().hex())
    if seal["time"] < previous["time"]:
        findings.add("TIME_CONTRADICTION", place, f"at least {previous['time']}", seal["time"])


def check_positions(seal, rows, place, findings):
    positions = [row[0] for row in rows]
    wanted = range(seal["from"], seal["to"])
    if positions == list(wanted):
        return
    if positions != sorted(positions):
        findings.add("ORDER", place, "ascending positions", positions[:8])
    if len(set(positions)) != len(positions):
        findings.add("DUPLICATE_RANGE", place, "each position once", len(positions) - len(set(positions)))
    if foreign := [p for p in positions if p not in wanted]:
        findings.add("FOREIGN_RECORD", place, f"positions of {wanted}", foreign[:8])
    if missing := set(wanted) - set(positions):
        findings.add("SEQ_GAP", place, f"positions of {wanted}", f"{len(missing)} missing, {min(missing)} first")


def check_ends(rows, entry, state, log, place, findings):
    for position, _, _, value in rows:
        if state["closed"]:
            findings.add("AFTER_CLOSE", f"{place}, position {position}", "nothing behind `close`", "a record")
        if value is None:
            continue
        state["last"] = value["kind"]
        if (value["kind"] == "boot") != (position == 0):
            findings.add("BOOT_MISPLACED", f"{place}, position {position}", "`boot` at 0 only", value["kind"])
        if value["kind"] == "boot":
            state["encrypted"] = value["encryption"] == "aes_256_gcm"
            if value["seal_key"] != entry["key"]:
                findings.add("UNTRUSTED_KEY", place, entry["key"], value["seal_key"])
        if value["kind"] == "close":
            state["closed"] = True
            if value["reason"] in ("crash", "salvaged"):
                state["died"] = value["alive_until"]
        log.commit(position, value)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", nargs="?")
    parser.add_argument("--trust")
    parser.add_argument("--key-table")
    parser.add_argument("--vectors")
    options = parser.parse_args()
    if options.vectors:
        import vectors

        return vectors.main(Path(options.vectors))
    if not options.store or not options.trust:
        parser.error("STORE and --trust, or --vectors")
    findings = Findings()
    try:
        trust = trusts.read(Path(options.trust).read_text())
    except (OSError, ValueError, seals.Bad) as error:
        print(f"COULD-NOT-JUDGE: trust file: {error}")
        return 2
    form = Form()
    totals = verify_store(options.store, trust, content.KeyTable(options.key_table), form, findings)
    findings.print(sys.stdout)
    code = findings.exit_code()
    logs, batches, records, proven, unopened, erased = totals
    word = {0: "VERIFIED", 1: "FINDINGS", 2: "COULD-NOT-JUDGE"}[code]
    print(f"{word} {logs} logs, {batches} batches, {records} records; content: {proven} parts proven, "
          f"{unopened} without key, {erased} erased; trust {trusts.fingerprint(trust)}")
    return code


if __name__ == "__main__":
    sys.exit(main())
