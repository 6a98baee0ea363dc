"""FORMAT.md 15: the registry, and the logs of the store held against it."""

import base64
import re
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from affidavit import canonical, files, tree
from affidavit import leaf as leaves
from affidavit import seal as seals
from affidavit.findings import Place

ACTIONS = {"key_added": "add", "key_rotated": "rotate", "key_revoked": "revoke"}


def statement(deployment, action, entry):
    """15.3: the text that the root key signs."""
    closers = sorted(entry.get("closers", []))
    until = f"{entry['until_origin']} {entry['until_size']}" if "until_origin" in entry else "none"
    lines = ["affidavit/key/v1", f"deployment {deployment}", f"action {action}", f"gateway {entry['gateway']}"]
    lines += [f"key {entry['key']}", f"replaces {entry.get('replaces', 'none')}"]
    lines += [f"heartbeat {entry.get('heartbeat_bound_s', 'none')}", f"closers {len(closers)}", *closers]
    return "\n".join([*lines, f"until {until}"]) + "\n"


def holds(public, text, signature):
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text.encode())
        return True
    except InvalidSignature:
        return False


def rest(value):
    return {key: item for key, item in value.items() if key not in ("v", "at", "config")}


def entry_of(origin, position, record):
    """15.2: the entry about a record, without what every leaf holds."""
    if record is None:
        return None
    own = {key: item for key, item in rest(record).items() if key != "kind"}
    if record["kind"] == "hold":
        kind = "legal_hold"
    else:
        kind = "content_erased"
        own["of_origin"], own["of_position"] = own.pop("origin"), own.pop("position")
    return {**own, "kind": kind, "origin": origin, "position": position, "recorded_at": record["at"]}


def checkpoint_text(origin, size, root):
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"


class Registry:
    """What the entries say together (15.4)."""

    def __init__(self, trust, form, findings):
        self.deployment, self.form, self.findings = trust["deployment"], form, findings
        self.origin = trust["registry"]["origin"]
        self.public = seals.unbase64(trust["registry"]["key"])
        self.root = seals.unbase64(trust["root"])
        self.trust, self.keys, self.logs, self.opening, self.size = trust, {}, {}, None, 0
        self.witnessed = {}
        self.ledger = {}  # (log, position) -> entry about a `hold` or `erasure` record

    def bad(self, code, position, expected, found):
        self.findings.add(code, f"{self.origin}, position {position}", expected, found)

    def read(self, store):
        names = store.logs.get(self.origin, set())
        numbers = sorted(int(found[1]) for found in map(seals.SEAL_NAME.fullmatch, names) if found)
        if not numbers:
            self.findings.add("LOG_MISSING", self.origin, "the registry", "none")
        previous, named = None, set()
        for number in range(numbers[-1] + 1 if numbers else 0):
            previous = self.batch(store, number, previous, names, named)
            if previous is None:
                return
        for name in sorted(names - named):
            if seals.NAME.fullmatch(name):
                self.findings.add("LEFTOVER", f"{self.origin}/{name}", "a seal that names it", "none")

    def batch(self, store, number, previous, names, named):
        place = f"{self.origin} batch {number}"
        note = store.read(self.origin, f"{number:010}.seal", self.findings)
        try:
            seal = seals.verify(note or b"", self.public)
        except seals.Bad as error:
            self.findings.add("SEAL_INVALID", place, "a seal by the registry's key", error)
            return None
        wanted = (previous["sha256"], previous["to"], number) if previous else (None, 0, 0)
        if (seal["previous"], seal["from"], seal["batch"]) != wanted or seal["origin"] != self.origin:
            self.findings.add("CHAIN_BROKEN", place, wanted, (seal["previous"], seal["from"], seal["batch"]))
            return None
        before = tree.CompactRange(seal["from"], [bytes.fromhex(node) for node in seal["compact"]])
        if previous and before.root().hex() != previous["root"]:
            self.findings.add("CHAIN_BROKEN", place, previous["root"], before.root().hex())
        rows = None
        for name, length, hash_ in seal["files"]:
            named.add(name)
            raw = store.read(self.origin, name, self.findings)
            if raw is None or len(raw) != length or sha256(raw).hexdigest() != hash_:
                self.findings.add("FILE_MISMATCH", f"{self.origin}/{name}", hash_, "other bytes")
                return None
            if seals.NAME.fullmatch(name)[3] == "records":
                exact = seal["schema"] == self.form.fingerprint
                rows = files.records(raw, self.form, exact, Place(self.origin, number), self.findings)
            else:
                files.references(raw, self.form, True, Place(self.origin, number), self.findings)
        if rows is None or [row[0] for row in rows] != list(range(seal["from"], seal["to"])):
            self.findings.add("SEQ_GAP", place, "a row for each position", "others")
            return None
        for row in rows:
            before.append(row[2])
            if row[3] is not None:
                self.apply(row[0], row[3])
        if before.root().hex() != seal["root"]:
            self.findings.add("ROOT_MISMATCH", place, seal["root"], before.root().hex())
            return None
        self.checkpoint(store, number, seal, names)
        for name in sorted(names):
            if name.startswith(f"{number:010}-") and name.endswith(".cosignature"):
                self.cosignature(store, name, seal)
        self.size = seal["to"]
        return {**seal, "sha256": sha256(note).hexdigest()}

    def checkpoint(self, store, number, seal, names):
        name = f"{number:010}.checkpoint"
        if name not in names:
            self.findings.add("BATCH_INCOMPLETE", f"{self.origin}/{name}", "a checkpoint", "none")
            return
        try:
            text, signatures = seals.split_note(store.read(self.origin, name, self.findings) or b"")
        except seals.Bad as error:
            self.findings.add("SEAL_INVALID", f"{self.origin}/{name}", "a checkpoint", error)
            return
        public = seals.unbase64(self.opening["checkpoint_key"])
        own = [s for n, i, s in signatures if n == self.origin and i == seals.key_id(self.origin, public)]
        if not own or not all(holds(public, text, signature) for signature in own):
            self.findings.add("SEAL_INVALID", f"{self.origin}/{name}", "the checkpoint key's signature", "none")
        elif text != checkpoint_text(self.origin, seal["to"], bytes.fromhex(seal["root"])):
            self.findings.add("EQUIVOCATION", f"{self.origin}/{name}", seal["root"], text)

    def cosignature(self, store, name, seal):
        """15.6: the checkpoint with lines of witnesses. Timestamps are `openssl ts`'s to check."""
        place, raw = f"{self.origin}/{name}", store.read(self.origin, name, self.findings) or b""
        if sha256(raw).hexdigest() != seals.ANCHOR_NAME.fullmatch(name)[2]:
            self.findings.add("FILE_MISMATCH", place, "the SHA-256 of its name", "other bytes")
            return
        try:
            text, signatures = seals.split_note(raw)
        except seals.Bad as error:
            self.findings.add("COSIGNATURE_INVALID", place, "a checkpoint with cosignatures", error)
            return
        if text.split("\n")[:2] == [self.origin, str(seal["to"])] and text != checkpoint_text(
            self.origin, seal["to"], bytes.fromhex(seal["root"])
        ):
            self.findings.add("EQUIVOCATION", place, seal["root"], text)
            return
        public = seals.unbase64(self.opening["checkpoint_key"])
        own = [s for n, i, s in signatures if n == self.origin and i == seals.key_id(self.origin, public)]
        if not own or not all(holds(public, text, signature) for signature in own):
            self.findings.add("COSIGNATURE_INVALID", place, "the checkpoint key's signature", "none")
        for witness in self.trust.get("witnesses", []):
            who, _, key = witness["key"].split("+", 2)
            key = seals.unbase64(key)[1:]
            for n, i, signature in signatures:
                if n == who and i == seals.key_id(who, key, 4):
                    at = int.from_bytes(signature[:8], "big")
                    if not holds(key, f"cosignature/v1\ntime {at}\n{text}", signature[8:]):
                        self.findings.add("COSIGNATURE_INVALID", place, f"a cosignature by {who}", "none that holds")
                    else:
                        self.witnessed[witness["organisation"]] = seal["to"]

    def apply(self, position, value):
        kind = value["kind"]
        table = self.form.entries.get(kind)
        if table is None:
            self.findings.add("NOT_JUDGED", f"{self.origin}, position {position}", "a known kind", kind)
            return
        rest = {key: item for key, item in value.items() if key not in ("v", "kind", "at", "config")}
        try:
            leaves.check_object(self.form, table, rest, "", [])
        except leaves.Invalid as error:
            self.bad("LEAF_INVALID", position, f"a `{kind}`", error)
            return
        if (kind == "registry") != (position == 0):
            self.bad("BOOT_MISPLACED", position, "`registry` at 0 only", kind)
        if kind == "registry":
            self.opening = self.opening or value
            if (value["seal_key"], value["root_key"]) != (self.trust["registry"]["key"], self.trust["root"]):
                self.bad("TRUST_MISMATCH", position, "the trusted keys", value["seal_key"])
        elif kind in ACTIONS:
            self.key(position, ACTIONS[kind], value)
        elif kind == "log_opened":
            key = self.keys.get(value["key"])
            in_force = key and not key["ended"] and value["origin"].split("/")[:2] == [self.deployment, key["gateway"]]
            if value["origin"] in self.logs:
                self.bad("EPOCH_REUSE", position, "one opening", value["origin"])
                return
            if not in_force:
                self.bad("KEY_NOT_VALID_FOR_SIZE", position, "a key in force", value["key"])
            self.logs[value["origin"]] = {**value, "heads": {}, "closed": None, "limit": None if in_force else 0}
        elif kind in ("log_head", "log_closed", "log_lost"):
            self.about_log(position, kind, value)
        elif kind in ("legal_hold", "content_erased"):
            about = (value["origin"], value["position"])
            if value["origin"] not in self.logs:
                self.bad("UNREGISTERED_LOG", position, "a log that was opened", value["origin"])
            elif about in self.ledger:
                self.bad("LEDGER_MISMATCH", position, "one entry for a record", about)
            else:
                self.ledger[about] = value

    def key(self, position, action, value):
        code = "ROTATION_INVALID" if action == "rotate" else "UNTRUSTED_KEY"
        text = statement(self.deployment, action, value)
        if not holds(self.root, text, seals.unbase64(value["root_signature"])):
            self.bad(code, position, "the root key's signature", "none that holds")
            return
        known, old = self.keys.get(value["key"]), self.keys.get(value.get("replaces"))
        if (action == "revoke") != (known is not None):
            self.bad(code, position, "a new key, or a known one to revoke", value["key"])
        elif action == "rotate" and (not old or old["ended"] or old["gateway"] != value["gateway"]):
            self.bad(code, position, "the place of a key in force", value["replaces"])
        elif action == "revoke" and (known["revoked"] or known["gateway"] != value["gateway"]):
            self.bad(code, position, "a key that was not revoked", value["key"])
        elif action == "revoke":
            known.update(ended=True, revoked=True)
            for origin, log in self.logs.items():
                if log["key"] == value["key"]:
                    self.limit(origin, log, value)
        else:
            if old:
                old["ended"] = True
            closers = value.get("closers", [])
            self.keys[value["key"]] = {"gateway": value["gateway"], "ended": False, "revoked": False, "closers": closers}

    def limit(self, origin, log, value):
        if "until_origin" not in value:
            log["limit"] = max((head["size"] for head in log["heads"].values()), default=0)
        elif origin >= value["until_origin"]:
            log["limit"] = value["until_size"] if origin == value["until_origin"] else 0

    def about_log(self, position, kind, value):
        log = self.logs.get(value["origin"])
        if log is None:
            self.bad("UNREGISTERED_LOG", position, "a log that was opened", value["origin"])
            return
        last = max(log["heads"], default=-1)
        size = log["heads"][last]["size"] if log["heads"] else 0
        if kind == "log_closed":
            if log["closed"] or value["size"] != size:
                self.bad("CLOSED_BUT_ACTIVE", position, f"one end at {size}", value["size"])
            log["closed"] = value
        elif kind == "log_head":
            if log["closed"]:
                self.bad("CLOSED_BUT_ACTIVE", position, "no head behind the end", value["size"])
            if value["batch"] <= last or value["size"] <= size:
                self.bad("EPOCH_REUSE", position, f"more than batch {last}", value["batch"])
                return
            log["heads"][value["batch"]] = value

    def ledger_of(self, origin, records):
        """15.4: entries and the `hold` and `erasure` records of a proven log, in both directions."""
        for (log, position), entry in self.ledger.items():
            if log == origin and entry_of(origin, position, records.get(position)) != rest(entry):
                self.findings.add("LEDGER_MISMATCH", f"{origin}, position {position}", "the record of the entry", entry["kind"])
        heads = self.logs.get(origin, {}).get("heads", {})
        read = heads[max(heads)].get("read", 0) if heads else 0
        size = heads[read - 1]["size"] if read - 1 in heads else 0
        for position, record in records.items():
            if position < size and (origin, position) not in self.ledger:
                self.findings.add("LEDGER_MISSING", f"{origin}, position {position}", "an entry of the registry", record["kind"])

    def entry(self, origin):
        """As an entry of a trust file; `None` for a log that is not registered."""
        log = self.logs.get(origin)
        if log is None:
            return None
        entry = {"name": origin.split("/")[1], "key": log["key"]}
        entry["closers"] = self.keys.get(log["key"], {}).get("closers", [])
        if log["limit"] is not None:
            entry["revoked"] = {"origin": origin, "size": log["limit"]}
        return entry

    def hold(self, store):
        for origin, log in self.logs.items():
            if origin not in store.logs:
                self.findings.add("LOG_MISSING", origin, "a registered log", "none")
                continue
            newest = max((int(n[:10]) for n in store.logs[origin] if seals.SEAL_NAME.fullmatch(n)), default=-1)
            self.same(store, origin, 0, log["seal"], None, "EPOCH_REUSE", newest)
            for number, head in log["heads"].items():
                self.same(store, origin, number, head["seal"], head, "DIVERGED", newest)
            if log["closed"] and log["heads"] and newest > max(log["heads"]):
                self.findings.add("CLOSED_BUT_ACTIVE", origin, f"no batch beyond {max(log['heads'])}", newest)

    def same(self, store, origin, number, wanted, head, code, newest):
        name = f"{number:010}.seal"
        if name not in store.logs[origin]:
            if number > newest:
                missing = "BATCH_MISSING" if head.get("ahead") else "ROLLBACK"
                self.findings.add(missing, f"{origin}/{name}", wanted, f"batches to {newest}")
            return
        note = store.read(origin, name, self.findings)
        if note is None or sha256(note).hexdigest() == wanted:
            return
        if head and re.search(rf"^root {head['root']}$", note.decode(errors="replace"), flags=re.M):
            code = "EQUIVOCATION"
        self.findings.add(code, f"{origin}/{name}", wanted, sha256(note).hexdigest())


def vectors(check, form, folder, vectors):
    """The golden registry, in both directions."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    root = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vectors["root_seed"]))
    public = root.public_key().public_bytes_raw()
    name = vectors["origin"].split("/")[0] + "/root"
    entries = []
    for vector in vectors["entries"]:
        raw = vector["leaf"].encode()
        value = canonical.parse(raw)
        entries.append(value)
        check.same("entry, written anew", canonical.encode(value), raw)
        check.same("entry, hash", tree.leaf_hash(raw).hex(), vector["hash"])
    keyed = [value for value in entries if value["kind"] in ACTIONS]
    for value, note in zip(keyed, vectors["key_statements"], strict=True):
        text = statement(name.split("/")[0], ACTIONS[value["kind"]], value)
        raw = seals.key_id(name, public) + root.sign(text.encode())
        made = f"{text}\n\u2014 {name} {base64.b64encode(raw).decode()}\n"
        check.same(f"key statement {value['kind']}, made anew", made, note)
        check.same(f"{value['kind']}, signature", value["root_signature"], base64.b64encode(raw[4:]).decode())
        check.refused(f"{value['kind']} as a seal", lambda note=note: seals.parse(seals.split_note(note.encode())[0]), seals.Bad)
    witness = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vectors["checkpoint_seed"]))
    for number, hash_ in enumerate(vectors["seals"]):
        base = folder / "registry" / vectors["origin"]
        note = (base / f"{number:010}.seal").read_bytes()
        check.same(f"registry seal {number}, hash", sha256(note).hexdigest(), hash_)
        seal = seals.parse(seals.split_note(note)[0])
        check.same(f"registry seal {number}, made anew", seals.sign(seal, bytes.fromhex(vectors["seal_seed"])), note)
        text = checkpoint_text(vectors["origin"], seal["to"], bytes.fromhex(seal["root"]))
        raw = seals.key_id(vectors["origin"], witness.public_key().public_bytes_raw()) + witness.sign(text.encode())
        made = f"{text}\n\u2014 {vectors['origin']} {base64.b64encode(raw).decode()}\n".encode()
        check.same(f"checkpoint {number}, made anew", made, (base / f"{number:010}.checkpoint").read_bytes())
