"""FORMAT.md 11: the trust file. JSON, or the part of YAML that such a file needs."""

import json
import re
from hashlib import sha256

from . import canonical
from .leaf import PART, TYPES
from .seal import Bad, unbase64

KEYS = {"name", "key", "first_origin", "last_origin", "heartbeat_bound_s", "closed", "revoked", "closers", "logs"}


def read(text):
    trust = json.loads(text) if text.lstrip().startswith("{") else yaml(text)
    forms = ({"v", "deployment", "gateways"}, {"v", "deployment", "root", "registry"})
    beside = {"operator"} | ({"witnesses", "timestamp_authorities"} if "registry" in trust else set())
    if set(trust) - beside not in forms or trust["v"] != 1:
        raise Bad("the trust file has other keys than `v: 1`, `deployment`, and `gateways` or `root` and `registry`")
    if not re.fullmatch(PART, trust["deployment"]) or not trust.get("gateways", True):
        raise Bad("the trust file names no deployment or no gateway")
    if "registry" in trust:
        registry = trust["registry"]
        if set(registry) != {"origin", "key"} or registry["origin"] != f"{trust['deployment']}/registry/log":
            raise Bad("`registry` is not `origin` and `key` of this deployment's registry")
        if any(len(unbase64(key)) != 32 for key in (trust["root"], registry["key"])):
            raise Bad("a key of the trust file is not 32 bytes")
    for gateway in trust.get("gateways", []):
        if not {"name", "key"} <= set(gateway) <= KEYS or not re.fullmatch(PART, gateway["name"]):
            raise Bad("a gateway of the trust file has other keys than FORMAT.md 11")
        closers = gateway.get("closers", [])
        if any(len(unbase64(key)) != 32 for key in (gateway["key"], *closers)):
            raise Bad("a key of the trust file is not 32 bytes")
        if len({gateway["key"], *closers}) != 1 + len(closers):
            raise Bad("a closer is named twice, or is the entry's own key")
        if not all({"origin"} <= set(log) <= {"origin", "size", "closed"} for log in gateway.get("logs", [{"origin": ""}])):
            raise Bad("a log of the trust file has other keys than FORMAT.md 11")
        if not gateway.get("logs", True):
            raise Bad("`logs` lists no log")
        for name in ("first_origin", "last_origin"):
            if name in gateway and not TYPES["origin"].fullmatch(gateway[name]):
                raise Bad(f"`{name}` is no origin")
    return trust


def fingerprint(trust):
    return sha256(canonical.encode(trust)).hexdigest()


def key_for(trust, origin):
    """The gateway's entry that lists the origin, or the one whose range of logs holds it."""
    deployment, gateway, _ = origin.split("/")
    for entry in sorted(trust.get("gateways", []), key=lambda entry: "logs" not in entry):
        if (
            "logs" not in entry or listed(entry, origin)
        ) and (
            deployment == trust["deployment"]
            and gateway == entry["name"]
            and entry.get("first_origin", "") <= origin
            and origin <= entry.get("last_origin", "\U0010ffff")
        ):
            return entry
    return None


def listed(entry, origin):
    """What an entry says of one of its logs."""
    return next((log for log in entry.get("logs", []) if log["origin"] == origin), {})


def counts_for(entry, origin, size, closer=False):
    """Whether a key of the entry, its own or a closer's, counts for a seal of the log that ends at `size`."""
    known, revoked = listed(entry, origin), entry.get("revoked")
    if size > known.get("closed", size):
        return False
    if closer:
        return True
    if size > known.get("size", size):
        return False
    return not revoked or origin < revoked["origin"] or (origin == revoked["origin"] and size <= revoked["size"])


def scalar(text):
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    return int(text) if re.fullmatch(r"0|[1-9][0-9]*", text) else text


def yaml(text):
    """Block mappings and lists of them; anything else of YAML is refused."""
    lines = []
    for raw in text.splitlines():
        bare = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        if bare and bare != "---":
            lines.append((len(bare) - len(bare.lstrip()), bare.strip()))

    def mapping(indent):
        out = {}
        while lines and lines[0][0] == indent and not lines[0][1].startswith("- "):
            key, mark, value = lines.pop(0)[1].partition(":")
            if not mark or key in out or (value and value[0] != " ") or value.strip()[:1] in ("&", "*", "|", ">", "{", "["):
                raise Bad(f"`{key}` is beyond the YAML that this verifier reads")
            if value.strip():
                out[key] = scalar(value)
            elif lines and lines[0][1].startswith("- ") and lines[0][0] >= indent:
                out[key] = sequence(lines[0][0])
            elif lines and lines[0][0] > indent:
                out[key] = mapping(lines[0][0])
            else:
                raise Bad(f"`{key}` has no value")
        return out

    def sequence(indent):
        out = []
        while lines and lines[0][0] == indent and lines[0][1].startswith("- "):
            rest = lines[0][1][2:]
            inner = indent + 2 + len(rest) - len(rest.lstrip())
            if ":" not in rest:
                out.append(scalar(rest))
                lines.pop(0)
                continue
            lines[0] = (inner, rest.strip())
            out.append(mapping(inner))
        return out

    out = mapping(0)
    if lines:
        raise Bad(f"`{lines[0][1]}` is beyond the YAML that this verifier reads")
    return out
