"""FORMAT.md 7 and 9: parts, encodings, encryption, the key table."""

import hmac
import re
from hashlib import sha256
from pathlib import Path

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CHUNK = 1 << 20
KEY_ID = re.compile(r"(.+)/(\d{6,})/(\d{4,})")


class Bad(Exception):
    pass


class Erased(Exception):
    pass


class KeyAbsent(Exception):
    pass


class DictionaryAbsent(Exception):
    pass


class BaseMissing(Exception):
    """A record commits to it, and its rows are not there."""


def dictionary(raw):
    """FORMAT.md 7.3: raw content of 1 to 1,048,576 bytes, never the trained form."""
    if not 1 <= len(raw) <= CHUNK or raw.startswith(b"\x37\xa4\x30\xec"):
        return None
    return zstandard.ZstdCompressionDict(raw, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def mac(key, message):
    return hmac.new(key, message, sha256).digest()


def aad(origin, exchange, part, chunk, last, encoding, key_id):
    lines = ["affidavit/content/v1", origin, exchange, part, str(chunk), "1" if last else "0", encoding, key_id]
    return "".join(line + "\n" for line in lines).encode()


def encrypt(key, bound, encoded):
    """The data of a row, as a gateway makes it."""
    nonce = mac(mac(key, b"affidavit/nonce/v1"), bound + encoded)[:12]
    return nonce + AESGCM(key).encrypt(nonce, encoded, bound)


def decrypt(key, bound, data):
    if len(data) < 28:
        raise Bad("no ciphertext")
    try:
        return AESGCM(key).decrypt(data[:12], data[12:], bound)
    except InvalidTag:
        raise Bad("does not decrypt") from None


def decode(encoding, data, chunk, dictionaries):
    """The plaintext of a chunk."""
    limit = CHUNK + (32 if chunk == 0 else 0)
    if encoding == "plain":
        out = data
    else:
        made = None
        if encoding.startswith("zstd_dict:"):
            made = dictionaries.get(encoding.partition(":")[2])
            if made is None:
                raise DictionaryAbsent(encoding.partition(":")[2])
        try:
            frame = zstandard.get_frame_parameters(data)
            if frame.has_checksum or not 0 <= frame.content_size <= limit:
                raise Bad(f"a zstd frame of {frame.content_size} bytes")
            engine = zstandard.ZstdDecompressor(dict_data=made)
            stream = engine.decompressobj()
            out = stream.decompress(data)
            if not stream.eof or stream.unused_data or len(out) != frame.content_size:
                raise Bad("not exactly one zstd frame")
        except zstandard.ZstdError as error:
            raise Bad(f"zstd: {error}") from None
    if len(out) > limit:
        raise Bad(f"{len(out)} bytes in a chunk")
    return out


def edit(base, edits, limit):
    """The content that edits make from a base."""
    out, at = bytearray(), 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(edits):
                raise Bad("edits end inside a number")
            byte = edits[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if value >= 2**64 or (byte == 0 and shift > 7):
                    raise Bad("a number that is not in its shortest form, or too large")
                return value
            if shift > 63:
                raise Bad("a number that is too large")

    while at < len(edits):
        op = edits[at]
        at += 1
        if op == 0:
            length = varint()
            piece = edits[at:at + length]
            at += length
        elif op == 1:
            offset, length = varint(), varint()
            piece = base[offset:offset + length]
        else:
            raise Bad(f"edit {op}")
        if length == 0 or len(piece) != length:
            raise Bad("an edit outside of its bytes")
        out += piece
        if len(out) > limit:
            raise Bad("more bytes than the part has")
    return bytes(out)


class KeyTable:
    """Pages below a folder; absent where no folder was given."""

    def __init__(self, folder):
        self.folder = folder and Path(folder)
        self.pages = {}

    def key(self, key_id):
        if self.folder is None:
            raise KeyAbsent(key_id)
        origin, page, slot = KEY_ID.fullmatch(key_id).groups()
        raw = self.page(origin, int(page))
        at = 4096 + 64 * int(slot)
        entry = raw[at:at + 64] if raw else b""
        if len(entry) != 64:
            raise KeyAbsent(key_id)
        if entry == bytes(64):
            raise Erased(key_id)
        key = entry[:32]
        if entry[32:48] != mac(key, b"affidavit/key-check/v1\n" + key_id.encode() + b"\n")[:16] or any(entry[48:]):
            raise Bad(f"slot of {key_id} is damaged")
        return key

    def page(self, origin, page):
        if (origin, page) in self.pages:
            return self.pages[origin, page]
        path = self.folder / origin / f"{page:06}.keys"
        raw = path.read_bytes() if path.is_file() else None
        if raw is not None:
            number, slots, length = (int.from_bytes(raw[at:at + 4], "little") for at in (16, 20, 24))
            sound = (
                raw[:16] == b"affidavit/keys/1"
                and sha256(raw[:4064]).digest() == raw[4064:4096]
                and raw[28:28 + length] == origin.encode()
                and not any(raw[28 + length:4064])
                and number == page
                and 1 <= slots <= 10000
                and len(raw) == 4096 + 64 * slots
            )
            if not sound:
                raise Bad(f"page {origin}/{page:06} is damaged")
        self.pages[origin, page] = raw
        return raw


def encoding_text(row):
    if row["encoding"] == "zstd_dict":
        return f"zstd_dict:{row['dictionary'].hex()}"
    if row["encoding"] == "delta":
        return f"delta:{row['base_exchange']}:{row['base_part']}"
    return row["encoding"]


def sound_row(row):
    base = row["base_exchange"] is not None, row["base_part"] is not None
    wanted = {"plain": (False, False, False), "zstd": (False, False, False), "zstd_dict": (False, False, True),
              "delta": (True, True, False)}
    return wanted.get(row["encoding"]) == (*base, row["dictionary"] is not None)


KINDS = set("boot config intent outcome refusal attempt side_call admin heartbeat gap hold erasure close".split())


class Log:
    """All parts of one log: committed by leaves, found in content files, checked against each other."""

    def __init__(self, origin, keys, findings):
        self.origin, self.keys, self.findings = origin, keys, findings
        self.strangers = set()  # positions of records of unknown kinds: their content is not judged
        self.intents = {}  # position -> (content key, retention, caller, asked)
        self.translated = {}  # position of an open intent -> how its request that went out last was translated
        self.opened = {}  # position of an open intent -> number of the attempt whose request that was
        self.next = 0  # position
        self.lost = -1  # what belonged to an intent before this position may be among records that were lost
        self.begun = {}  # exchange -> (subject, consumer, time) of its first record
        self.committed = {}  # (position, part) -> (exchange, part entry, content key, retention, kept)
        self.contents = {}  # (exchange, part, class) -> bytes, for later deltas
        self.unread = {}  # as `contents` -> why its rows gave no content
        self.kept = set()  # as `contents`: what records commit to and say is kept
        self.depth = {}
        self.dictionaries = {}
        self.erasures = set()
        self.ledger = {}  # position -> `hold` or `erasure` record
        self.destroyed = []  # ((exchange, key id), place): judged when every log was read, an erasure comes later
        self.proven = self.unopened = 0

    def commit(self, position, value):
        if position != self.next or (value["kind"] == "gap" and value["reason"] == "loss"):
            self.lost = position
        self.next = position + 1
        if value["kind"] not in KINDS:
            self.strangers.add(position)
            return
        if value["kind"] == "erasure":
            self.erasures.add((value["exchange"], value["content_key"]))
        if value["kind"] in ("erasure", "hold"):
            self.ledger[position] = value
        kept = value.get("content_key"), value.get("retention")
        if value["kind"] in ("intent", "refusal") and "exchange" in value:
            caller = value.get("caller", {})
            who = [caller.get(name, {}).get("value") for name in ("subject", "consumer")]
            self.begun[value["exchange"]] = (*who, value["at"])
        kept = *kept, value.get("caller"), value.get("asked")
        if value["kind"] == "intent":
            self.intents[position] = kept
            self.translated[position] = value.get("translation")
        if value["kind"] == "attempt" and value["phase"] == "open" and value["intent_position"] in self.translated:
            self.translated[value["intent_position"]] = value.get("translation")
            self.opened[value["intent_position"]] = value["number"]
        if value["kind"] in ("attempt", "side_call", "outcome"):
            for found, wanted in zip(kept, self.intents.get(value["intent_position"], kept)):
                if found not in (None, wanted):
                    place = f"{self.origin}, position {position}"
                    self.findings.add("RECORD_INVALID", place, f"what the intent says, {wanted}", found)
        if value["kind"] == "outcome":
            at, found = value["intent_position"], value.get("translation")
            wanted = self.translated.pop(at, found)
            told, opened = value.get("served", {}).get("number", 0), self.opened.pop(at, 0)
            if found != wanted and (at >= self.lost or told == opened):
                self.findings.add("RECORD_INVALID", f"{self.origin}, position {position}, translation", f"that of the request, {wanted}", found)
            self.intents.pop(at, None)
        for part in value.get("parts", []):
            entry = (value.get("exchange"), part, value.get("content_key"), value.get("retention"))
            self.committed[position, part["part"]] = entry
            if part.get("kept") is not False:
                self.kept.add((value.get("exchange"), part["part"], value.get("retention")))

    def batch(self, seal, classes, encrypted):
        """`classes`: retention class -> iterable of rows. Called once a batch, after its leaves were committed."""
        here = {
            (position, part): entry
            for (position, part), entry in self.committed.items()
            if seal["from"] <= position < seal["to"] and entry[1].get("kept") is not False
        }
        seen = set()
        for retention, rows in classes.items():
            for (position, part), chunks in runs(rows):
                if position in self.strangers:
                    continue
                place = f"{self.origin} batch {seal['batch']}, position {position}, {part}"
                entry = here.get((position, part))
                if entry is None or (position, part) in seen or entry[3] != retention or entry[0] != chunks[0]["exchange"]:
                    self.findings.add("CONTENT_FOREIGN", place, "a part that the record commits to", "rows")
                    continue
                seen.add((position, part))
                self.part(entry, retention, chunks, encrypted, place)
        for position, part in sorted(set(here) - seen):
            place = f"{self.origin} batch {seal['batch']}, position {position}, {part}"
            self.findings.add("CONTENT_MISSING", place, "rows", "none")

    def part(self, entry, retention, chunks, encrypted, place):
        exchange, part, content_key, _ = entry
        named = exchange, part["part"], retention
        try:
            if any(row["key_id"] != (content_key if encrypted else None) for row in chunks):
                raise Bad(f"rows under another key than {content_key}")
            content = self.content(exchange, part, retention, chunks)
        except (KeyAbsent, Erased, DictionaryAbsent, BaseMissing, Bad) as error:
            # Without what it points to.
            self.unread[named] = type(error)(*error.args)
            self.without(error, exchange, place)
        else:
            self.contents[named] = content
            self.proven += 1

    def without(self, error, exchange, place):
        """What it means that a part has rows and no content."""
        if isinstance(error, KeyAbsent):
            self.unopened += 1
            if self.keys.folder is not None:
                self.findings.add("UNDECLARED_ERASURE", place, "its data key, or an `erasure` record", error)
        elif isinstance(error, Erased):
            self.destroyed.append(((exchange, str(error)), place))
        elif isinstance(error, DictionaryAbsent):
            self.findings.add("REFERENCE_MISSING", place, f"the dictionary {error} in this batch or an earlier one", "none")
        elif isinstance(error, BaseMissing):
            self.findings.add("CONTENT_MISSING", place, f"edits of {error}", "not there")
        else:
            self.findings.add("CONTENT_MISMATCH", place, "what the leaf commits to", error)

    def no_base(self, base, retention):
        """Why there is no base: what kept it from being read keeps its edits from it; one that nobody commits to is none."""
        named = (*base, retention)
        error = self.unread.get(named)
        if isinstance(error, (DictionaryAbsent, BaseMissing)):
            return error
        if error is None and named in self.kept:
            return BaseMissing(f"{base[1]} of exchange {base[0]}")
        return Bad("its base is not there" if error is None else "its base is not what a record commits to")

    def content(self, exchange, part, retention, chunks):
        stream, salt, base = b"", None, None
        key = self.keys.key(chunks[0]["key_id"]) if chunks[0]["key_id"] else None
        for n, row in enumerate(chunks):
            if row["chunk"] != n or row["last"] != (n == len(chunks) - 1) or not sound_row(row):
                raise Bad("chunks that are not one part")
            text, data = encoding_text(row), row["data"]
            if key is not None:
                bound = aad(self.origin, exchange, part["part"], n, row["last"], text, row["key_id"])
                data = decrypt(key, bound, data)
            plain = decode(text if row["encoding"] != "delta" else "zstd", data, n, self.dictionaries)
            of = (row["base_exchange"], row["base_part"]) if row["encoding"] == "delta" else None
            if n == 0:
                salt, plain, base = plain[:32], plain[32:], of
            if of != base or (len(plain) != CHUNK and not row["last"]) or (n > 0 and not plain):
                raise Bad("chunks that are not one part")
            stream += plain
        if len(salt) != 32:
            raise Bad("no salt")
        depth = 0
        if base is not None:
            before = self.contents.get((*base, retention))
            if before is None:
                raise self.no_base(base, retention)
            depth = self.depth[(*base, retention)] + 1
            if depth > 256:
                raise Bad("a chain of bases that is too long")
            stream = edit(before, stream, part["length"])
        if len(stream) != part["length"] or sha256(salt + stream).hexdigest() != part["commitment"]:
            raise Bad("content that is not the committed one")
        self.depth[exchange, part["part"], retention] = depth
        return stream


def runs(rows):
    """Neighbouring rows of one part."""
    at, chunks = None, []
    for row in rows:
        here = row["position"], row["part"]
        if here != at or row["chunk"] == 0:
            if chunks:
                yield at, chunks
            at, chunks = here, []
        chunks.append(row)
    if chunks:
        yield at, chunks
