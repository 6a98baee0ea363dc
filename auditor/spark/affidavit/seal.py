"""FORMAT.md 5 and 6.1: signed notes, seals, object names."""

import base64
import re
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .leaf import PART, TYPES

HASH = "[0-9a-f]{64}"
NAME = re.compile(rf"([0-9]{{10}})-({HASH})\.(records|reference|content-({PART}))\.parquet")
SEAL_NAME = re.compile(r"([0-9]{10})\.seal")
CHECKPOINT_NAME = re.compile(r"([0-9]{10})\.checkpoint")
ANCHOR_NAME = re.compile(rf"([0-9]{{10}})-({HASH})\.(cosignature|timestamp)")


class Bad(Exception):
    pass


class NotSigned(Bad):
    """A note of the right form by somebody else."""


def key_id(name, public, kind=1):
    return sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


def split_note(note):
    """(text, [(key name, key id, signature)])"""
    try:
        whole = note.decode()
    except UnicodeDecodeError:
        raise Bad("not UTF-8") from None
    if any(c < " " and c != "\n" for c in whole):
        raise Bad("a control character")
    text, mark, lines = whole.rpartition("\n\n")
    if not mark or not lines.endswith("\n"):
        raise Bad("not a note")
    signatures = []
    for line in lines[:-1].split("\n"):
        found = re.fullmatch("\u2014 ([^ +]+) ([A-Za-z0-9+/]+={0,2})", line)
        if not found:
            raise Bad("a signature line that is none")
        raw = unbase64(found[2])
        if len(raw) < 5:
            raise Bad("a signature that is too short")
        signatures.append((found[1], raw[:4], raw[4:]))
    if len(signatures) > 64:
        raise Bad("too many signatures")
    return text + "\n", signatures


def unbase64(text):
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raise Bad("not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise Bad("base64 that is not canonical")
    return raw


def verify(note, public):
    """The seal, where a signature by `<origin>/seal` under `public` holds."""
    text, signatures = split_note(note)
    seal = parse(text)
    name = seal["origin"] + "/seal"
    good = False
    for signer, id_, signature in signatures:
        if signer == name and id_ == key_id(name, public):
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(signature, text.encode())
            except InvalidSignature:
                raise Bad("a signature of the log's key does not hold") from None
            good = True
    if not good:
        raise NotSigned("no signature by the log's key")
    return seal


def parse(text):
    lines = text.split("\n")
    if lines.pop() != "" or not lines or lines.pop(0) != "affidavit/seal/v1":
        raise Bad("the first line is not `affidavit/seal/v1`")

    def take(pattern):
        found = re.fullmatch(pattern, lines.pop(0)) if lines else None
        if not found:
            raise Bad(f"a line that is not `{pattern}`")
        return found

    number = "(0|[1-9][0-9]{0,18})"
    seal = {"origin": take("(.*)")[1]}
    if not TYPES["origin"].fullmatch(seal["origin"]):
        raise Bad("no origin")
    seal["batch"] = int(take(f"batch {number}")[1])
    seal["from"], seal["to"] = (int(n) for n in take(f"range {number} {number}").groups())
    seal["root"] = take(f"root ({HASH})")[1]
    seal["compact"] = [take(f"({HASH})")[1] for _ in range(bounded(take(f"compact {number}")[1]))]
    seal["files"] = [
        (f[1], int(f[2]), f[3])
        for f in (take(f"([^ ]+) {number} ({HASH})") for _ in range(bounded(take(f"files {number}")[1])))
    ]
    previous = take(f"previous ({HASH}|none)")[1]
    seal["previous"] = None if previous == "none" else previous
    seal["schema"] = take(f"schema ({HASH})")[1]
    seal["time"] = int(take(f"time {number}")[1])
    if lines:
        raise Bad("more lines")
    check(seal)
    return seal


def bounded(text):
    if int(text) > 4096:
        raise Bad("too many lines")
    return int(text)


def check(seal):
    if max(seal["to"], seal["time"]) > 2**53 or seal["batch"] > 9999999999:
        raise Bad("a number that is too large")
    if seal["from"] >= seal["to"]:
        raise Bad("an empty range")
    if (seal["batch"] == 0) != (seal["from"] == 0) or (seal["batch"] == 0) != (seal["previous"] is None):
        raise Bad("batch 0, position 0 and `previous none` belong together")
    if len(seal["compact"]) != seal["from"].bit_count():
        raise Bad("a compact range of another length")
    names = [name for name, _, _ in seal["files"]]
    if names != sorted(set(names), key=str.encode):
        raise Bad("files are not in order")
    kinds = []
    for name, _, hash_ in seal["files"]:
        found = NAME.fullmatch(name)
        if not found or int(found[1]) != seal["batch"] or found[2] != hash_:
            raise Bad(f"`{name}` is no name of a file of this batch")
        kinds.append(found[3])
    if len(set(kinds)) != len(kinds) or "records" not in kinds:
        raise Bad("not one file of each kind with one records file")


def text(seal):
    """The text of a seal."""
    lines = ["affidavit/seal/v1", seal["origin"], f"batch {seal['batch']}", f"range {seal['from']} {seal['to']}"]
    lines += [f"root {seal['root']}", f"compact {len(seal['compact'])}", *seal["compact"]]
    lines += [f"files {len(seal['files'])}", *(f"{n} {length} {h}" for n, length, h in seal["files"])]
    lines += [f"previous {seal['previous'] or 'none'}", f"schema {seal['schema']}", f"time {seal['time']}"]
    return "\n".join(lines) + "\n"


def sign(seal, seed):
    """The whole note, as a gateway with this seed makes it."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    name = seal["origin"] + "/seal"
    raw = key_id(name, key.public_key().public_bytes_raw()) + key.sign(text(seal).encode())
    return f"{text(seal)}\n\u2014 {name} {base64.b64encode(raw).decode()}\n".encode()
