"""The golden vectors of schemas/testdata/v1, in both directions."""

import base64
import json
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path

import content
import holds
import registry
import zstandard
from affidavit import canonical, leaf, tree
from affidavit import seal as seals
from affidavit import trust as trusts
from affidavit.findings import Findings
from affidavit.form import Form


class Counter:
    def __init__(self):
        self.checks, self.wrong = 0, []

    def same(self, what, found, wanted):
        self.checks += 1
        if found != wanted:
            self.wrong.append(f"{what}: {str(found)[:160]} is not {str(wanted)[:160]}")

    def refused(self, what, action, *errors):
        self.checks += 1
        try:
            action()
        except errors:
            return
        self.wrong.append(f"{what}: accepted")


def main(folder):
    check = Counter()
    form = Form()
    leaf_vectors(check, form, json.loads((folder / "leaves.json").read_text()))
    tree_vectors(check, json.loads((folder / "tree.json").read_text()))
    content_vectors(check, json.loads((folder / "content.json").read_text()))
    store_vectors(check, form, folder, json.loads((folder / "store.json").read_text()))
    registry_vectors(check, form, folder, json.loads((folder / "registry.json").read_text()))
    translation_vectors(check)
    base_vectors(check)
    hold_vectors(check)
    for line in check.wrong:
        print(line)
    print(f"{check.checks} checks, {len(check.wrong)} wrong")
    return 1 if check.wrong or not check.checks else 0


def leaf_vectors(check, form, vectors):
    for vector in vectors["accepted"]:
        raw = vector["leaf"].encode()
        value = canonical.parse(raw)
        leaf.check(form, value)
        check.same(f"leaf {vector['name']}, written anew", canonical.encode(value), raw)
        check.same(f"leaf {vector['name']}, hash", tree.leaf_hash(raw).hex(), vector["hash"])
    for vector in vectors["refused"]:
        raw = base64.b64decode(vector["leaf_base64"])
        check.refused(
            f"refused leaf: {vector['why']}",
            lambda raw=raw: leaf.check(form, canonical.parse(raw)),
            canonical.NotCanonical,
            leaf.Invalid,
        )


def translation_vectors(check):
    """An outcome tells of the request that went out last, in its translation too."""
    one, other = ({"from": "openai", "to": to, "dropped": {}} for to in ("anthropic", "gemini"))
    gap = {"kind": "gap", "reason": "loss"}

    def attempt(translation, number=1):
        return {"kind": "attempt", "phase": "open", "intent_position": 0, "translation": translation, "number": number}

    for name, between, told, said, wanted in (
        ("the intent's", [], 0, one, []),
        ("another's", [], 0, other, ["RECORD_INVALID"]),
        ("none", [], 0, None, ["RECORD_INVALID"]),
        ("the attempt's", [attempt(other)], 1, other, []),
        ("the intent's behind an attempt", [attempt(other)], 1, one, ["RECORD_INVALID"]),
        ("of a request that a loss may have taken", [gap], 1, other, []),
        ("of one before a loss, and none behind it", [gap], 0, other, ["RECORD_INVALID"]),
        ("of the attempt before a loss", [attempt(other), gap], 1, one, ["RECORD_INVALID"]),
        ("of the one that a loss may have taken", [attempt(other), gap], 2, one, []),
    ):
        findings = Findings()
        log = content.Log("origin", None, findings)
        served = {"served": {"number": told}} if told else {}
        outcome = {"kind": "outcome", "intent_position": 0, "translation": said, **served}
        for position, value in enumerate([{"kind": "intent", "translation": one}, *between, outcome]):
            log.commit(position, value)
        check.same(f"translation of an outcome: {name}", [code for code, *_ in findings.list], wanted)


def base_vectors(check):
    """Edits of a part that is kept and whose rows are gone are missing with it; edits of what nobody commits to are a lie."""
    salt, whole = bytes(32), b"what is said again"
    edits = b"\x01\x00" + bytes([len(whole)])
    packed = zstandard.ZstdCompressor(write_content_size=True).compress(salt + edits)
    commitment = sha256(salt + whole).hexdigest()

    def record(kind, exchange, part="client_request"):
        parts = [{"part": part, "length": len(whole), "commitment": commitment}]
        return {"kind": kind, "exchange": exchange, "at": 0, "retention": "standard", "parts": parts}

    def row(position, exchange, base=None, data=packed):
        based = {"base_exchange": base, "base_part": base and "client_request", "encoding": "delta" if base else "plain"}
        whose = {"position": position, "part": "client_request", "exchange": exchange, "key_id": None, "dictionary": None}
        return {**whose, **based, "chunk": 0, "last": True, "data": data}

    base = row(0, "one", None, salt + whole)
    for name, rows, wanted, proven in (
        ("its base", [base, row(1, "two", "one")], [], 2),
        ("a base whose rows are gone", [row(1, "two", "one")], ["CONTENT_MISSING", "CONTENT_MISSING"], 0),
        ("edits of those", [row(1, "two", "one"), row(2, "three", "two")], ["CONTENT_MISSING"] * 3, 0),
        ("a base that nobody has", [base, row(1, "two", "nobody")], ["CONTENT_MISMATCH"], 1),
        ("a base that is another", [row(0, "one", None, salt + b"x"), row(1, "two", "one")], ["CONTENT_MISMATCH"] * 2, 0),
    ):
        findings = Findings()
        log = content.Log("origin", content.KeyTable(None), findings)
        for position, exchange in enumerate(["one", "two", "three"][: 3 if name == "edits of those" else 2]):
            log.commit(position, record("intent", exchange))
        log.batch({"batch": 0, "from": 0, "to": 3}, {"standard": rows}, False)
        check.same(f"edits of {name}", sorted(code for code, *_ in findings.list), wanted)
        check.same(f"parts proven with {name}", log.proven, proven)


def hold_vectors(check):
    """What is gone under a hold without a word of it is found as what is told."""
    hold = {"kind": "hold", "hold": "case-1", "phase": "begin", "at": 1}
    erasure = {"kind": "erasure", "exchange": "two", "content_key": "key", "at": 5}
    for name, ledger, destroyed, wanted in (
        ("an erasure", {1: hold, 2: erasure}, [], ["ERASED_UNDER_HOLD"]),
        ("an erasure before it", {1: erasure, 2: hold}, [], []),
        ("a key that is gone", {1: hold}, [(("one", "key"), "place")], ["ERASED_UNDER_HOLD"]),
        ("a key that went before it", {1: erasure, 2: hold}, [(("one", "key"), "place")], []),
        ("no key that is gone", {1: hold}, [], []),
        ("one that is over", {1: hold, 2: {**hold, "phase": "end"}}, [(("one", "key"), "place")], []),
    ):
        findings = Findings()
        log = content.Log("acme/gw1/e1", None, findings)
        log.begun = {exchange: (None, None, 0) for exchange in ("one", "two")}
        log.ledger, log.destroyed = ledger, destroyed
        holds.judge([log], findings, 10)
        check.same(f"a hold and {name}", [code for code, *_ in findings.list], wanted)


def tree_vectors(check, vectors):
    hashes = [bytes.fromhex(h) for h in vectors["leaf_hashes"]]
    roots, growing = {}, tree.CompactRange()
    for size in range(len(hashes) + 1):
        roots[size] = tree.root(hashes[:size])
        check.same(f"both roots of size {size}", growing.root(), roots[size])
        for vector in vectors["sizes"]:
            if vector["size"] == size:
                check.same(f"root of size {size}", roots[size].hex(), vector["root"])
                check.same(f"compact range at {size}", [n.hex() for n in growing.nodes], vector["compact"])
        if size < len(hashes):
            growing.append(hashes[size])
    for vector in vectors["inclusion"]:
        index, size = vector["index"], vector["size"]
        proof = [bytes.fromhex(h) for h in vector["proof"]]
        found = tree.inclusion_root(hashes[index], index, size, proof)
        check.same(f"inclusion of {index} in {size}", found, roots[size])
    for vector in vectors["consistency"]:
        old, new = vector["old"], vector["new"]
        proof = [bytes.fromhex(h) for h in vector["proof"]]
        found = tree.consistency_holds(old, roots[old], new, roots[new], proof)
        check.same(f"consistency of {old} and {new}", found, True)


def content_vectors(check, vectors):
    origin, key_id = vectors["origin"], vectors["key_id"]
    key = bytes.fromhex(vectors["data_key"])
    check.same("nonce key", content.mac(key, b"affidavit/nonce/v1").hex(), vectors["nonce_key"])
    dictionary = base64.b64decode(vectors["dictionary_base64"])
    dictionaries = {sha256(dictionary).hexdigest(): content.dictionary(dictionary)}
    contents = {}
    for part in vectors["parts"]:
        name = part["name"]
        stream, salt, base = b"", b"", None
        for row in part["rows"]:
            data = base64.b64decode(row["data_base64"])
            encoding = row["encoding"]
            if row.get("key_id"):
                bound = content.aad(
                    origin, part["exchange"], part["part"], row["chunk"], row["last"], encoding, row["key_id"]
                )
                encoded = content.decrypt(key, bound, data)
                check.same(f"{name}, chunk {row['chunk']}, encrypted anew", content.encrypt(key, bound, encoded), data)
                data = encoded
            if encoding.startswith("delta:"):
                base, encoding = encoding.removeprefix("delta:"), "zstd"
            plain = content.decode(encoding, data, row["chunk"], dictionaries)
            if row["chunk"] == 0:
                salt, plain = plain[:32], plain[32:]
            stream += plain
        if base:
            stream = content.edit(contents[base], stream, part["length"])
        contents[f"{part['exchange']}:{part['part']}"] = stream
        check.same(f"{name}, salt", salt.hex(), part["salt"])
        check.same(f"{name}, length", len(stream), part["length"])
        check.same(f"{name}, commitment", sha256(salt + stream).hexdigest(), part["commitment"])
        given = part["content"]
        if isinstance(given, dict) and "base64" in given:
            check.same(f"{name}, content", stream, base64.b64decode(given["base64"]))
    check.same("key id", bool(content.KEY_ID.fullmatch(key_id)), True)
    for vector in vectors["refused_edits_of_a_base_of_10_bytes"]:
        edits = bytes.fromhex(vector["edits"])
        check.refused(
            f"refused edits: {vector['why']}", lambda edits=edits: content.edit(bytes(10), edits, 1 << 20), content.Bad
        )


def store_vectors(check, form, folder, vectors):
    from verify import verify_store

    origin, seed = vectors["origin"], bytes.fromhex(vectors["seal_seed"])
    trust = trusts.read((folder / "trust.yaml").read_text())
    check.same("trust fingerprint", trusts.fingerprint(trust), vectors["trust_fingerprint"])
    public = seals.unbase64(trusts.key_for(trust, origin)["key"])
    name = f"{origin}/seal"
    verifier = f"{name}+{seals.key_id(name, public).hex()}+{base64.b64encode(bytes([1]) + public).decode()}"
    check.same("verifier key", verifier, vectors["verifier_key"])
    for number, hash_ in enumerate(vectors["seals"]):
        note = (folder / "store" / origin / f"{number:010}.seal").read_bytes()
        seal = seals.verify(note, public)
        check.same(f"seal {number}, hash", sha256(note).hexdigest(), hash_)
        check.same(f"seal {number}, made anew", seals.sign(seal, seed), note)
        check.same(f"seal {number}, schema", seal["schema"], form.fingerprint)
        # Ed25519 signatures bind every byte of the text.
        for at in range(0, len(note), 7):
            bad = note[:at] + bytes([note[at] ^ 1]) + note[at + 1:]
            check.refused(f"seal {number} with byte {at} changed", lambda bad=bad: seals.verify(bad, public), seals.Bad)
    for vector in vectors["objects"]:
        raw = (folder / "store" / vector["name"]).read_bytes()
        found = len(raw), sha256(raw).hexdigest()
        check.same(vector["name"], found, (vector["length"], vector["sha256"]))
    keys = content.KeyTable(folder / "keys")
    for key_id, key in vectors["data_keys"].items():
        check.same(f"data key {key_id}", keys.key(key_id).hex(), key)
    for key_id in vectors["destroyed"]:
        check.refused(f"destroyed key {key_id}", lambda key_id=key_id: keys.key(key_id), content.Erased)
    for table in (keys, content.KeyTable(None)):
        findings = Findings()
        verify_store(folder / "store", trust, table, form, findings)
        check.same("findings in the store", [line for line in findings.list if line[0] != "NOT_JUDGED"], [])
    damaged_store_vectors(check, form, folder, trust, vectors)


def registry_vectors(check, form, folder, vectors):
    """The registry with the log that it registers: whole, and with each of its objects changed or gone."""
    from verify import verify_store

    registry.vectors(check, form, folder, vectors)
    trust = trusts.read((folder / "trust-registry.yaml").read_text())
    check.same("trust fingerprint, registry", trusts.fingerprint(trust), vectors["trust_fingerprint"])
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "store"
        shutil.copytree(folder / "store", copy)
        shutil.copytree(folder / "registry", copy, dirs_exist_ok=True)

        def codes():
            findings = Findings()
            verify_store(copy, trust, content.KeyTable(None), form, findings)
            return sorted({line[0] for line in findings.list if line[0] != "NOT_JUDGED"})

        check.same("findings in the store with its registry", codes(), [])
        for vector in vectors["objects"]:
            path = copy / vector["name"]
            raw = path.read_bytes()
            for at in (0, len(raw) // 2, len(raw) - 1):
                path.write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1:])
                check.same(f"{vector['name']} with byte {at} changed is found", bool(codes()), True)
            path.unlink()
            check.same(f"{vector['name']} removed is found", bool(codes()), True)
            path.write_bytes(raw)
        log = copy / "acme/gw1"
        log.rename(copy / "elsewhere")
        check.same("a registered log is gone", codes()[:1], ["LOG_MISSING"])


def damaged_store_vectors(check, form, folder, trust, vectors):
    """Each object with a changed byte, and without it, is a finding."""
    from verify import verify_store

    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "store"
        shutil.copytree(folder / "store", copy)
        for vector in vectors["objects"]:
            path = copy / vector["name"]
            raw = path.read_bytes()
            changed = [raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1:] for at in (0, len(raw) // 2, len(raw) - 1)]
            for bad in [*changed, raw[:-1], None]:
                path.unlink()
                if bad is not None:
                    path.write_bytes(bad)
                findings = Findings()
                verify_store(copy, trust, content.KeyTable(None), form, findings)
                what = "removed" if bad is None else f"changed to {sha256(bad).hexdigest()[:8]}"
                check.same(f"{vector['name']} {what} is found", findings.exit_code(), 1)
                path.write_bytes(raw)
