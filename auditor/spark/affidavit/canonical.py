"""FORMAT.md 2: canonical JSON."""

import json

LIMIT = 2**53
MAX_LEAF = 65535
MAX_DEPTH = 32


class NotCanonical(Exception):
    pass


def encode(value):
    """The one text of a value."""
    return "".join(_encode(value, 1)).encode()


def _encode(value, depth):
    if isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, int):
        if abs(value) > LIMIT:
            raise NotCanonical("an integer beyond 2^53")
        yield str(value)
    elif isinstance(value, str):
        yield _string(value)
    elif isinstance(value, (list, dict)):
        if depth > MAX_DEPTH:
            raise NotCanonical("nested too deeply")
        if isinstance(value, list):
            yield "["
            for i, item in enumerate(value):
                yield "," if i else ""
                yield from _encode(item, depth + 1)
            yield "]"
        else:
            yield "{"
            for i, key in enumerate(sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))):
                yield ("," if i else "") + _string(key) + ":"
                yield from _encode(value[key], depth + 1)
            yield "}"
    else:
        raise NotCanonical(f"a value of type {type(value).__name__}")


def _walk(value, depth):
    """The bounds of section 2 that the text alone does not show."""
    if value is None:
        raise NotCanonical("`null`")
    if isinstance(value, (dict, list)):
        if depth > MAX_DEPTH:
            raise NotCanonical("nested too deeply")
        for item in value.values() if isinstance(value, dict) else value:
            _walk(item, depth + 1)
    elif isinstance(value, int) and abs(value) > LIMIT:
        raise NotCanonical("an integer beyond 2^53")


def _plain(value):
    """As `encode`, for text without a character beyond ASCII: there the order of keys is Python's own."""
    _walk(value, 1)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def _string(text):
    return '"' + "".join(SHORT.get(c) or (f"\\u{ord(c):04x}" if c < " " else c) for c in text) + '"'


def parse(data):
    """The value of canonical text; anything else is refused."""

    def pairs(items):
        out = dict(items)
        if len(out) != len(items):
            raise NotCanonical("a duplicate key")
        return out

    def refuse(text):
        raise NotCanonical(f"`{text}`")

    if len(data) > MAX_LEAF:
        raise NotCanonical(f"{len(data)} bytes")
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=pairs, parse_float=refuse, parse_constant=refuse
        )
        text = _plain(value) if data.isascii() else encode(value)
    except (ValueError, RecursionError) as error:
        raise NotCanonical(str(error)) from None
    if text != data:
        raise NotCanonical("not the canonical form of its value")
    return value
