"""FORMAT.md 3: what a leaf may say."""

import re

PART = r"[a-z0-9][a-z0-9.-]{0,62}"
TYPES = {
    "hash": re.compile(r"[0-9a-f]{64}"),
    "identifier": re.compile(r"[A-Za-z0-9_.:/@+-]{1,128}"),
    "origin": re.compile(rf"(?=.{{1,110}}\Z){PART}/{PART}/{PART}"),
    "exchange id": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
}
TEXT = re.compile(r"[A-Za-z0-9_.:/@+=-]{1,191}")
MONEY = re.compile(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,12})?")
LINK = re.compile(r"\[(\w+)\]\(#\w+\)")
LISTS = ("parts", "suppression", "rules", "finish_reasons", "tool_names", "groups", "by", "what")
MAPS = ("facts", "rate_limits", "classes")
MONEY_KEYS = ("usage", "cost", "unpriced")
ANSWER_KEYS = ("end", "status", "total_us", "answered", *MONEY_KEYS)


class Invalid(Exception):
    pass


def money(text):
    """Units of 10^-12, or None."""
    if not isinstance(text, str) or not MONEY.fullmatch(text):
        return None
    sign = -1 if text.startswith("-") else 1
    whole, _, fraction = text.lstrip("-").partition(".")
    return sign * int(whole + fraction.ljust(12, "0"))


def check(form, value):
    """Refuses a leaf that breaks FORMAT.md 3; gives the paths of keys that are not judged."""
    if not isinstance(value, dict):
        raise Invalid("not an object")
    check_text(value)
    if value.get("v") != 1 or isinstance(value.get("v"), bool):
        raise Invalid("`v` is not 1")
    kind = value.get("kind")
    if not isinstance(kind, str):
        raise Invalid("no `kind`")
    if not is_int(value.get("at")) or value["at"] < 0:
        raise Invalid("`at` is no time")
    if not isinstance(value.get("config"), str) or not TYPES["hash"].fullmatch(value["config"]):
        raise Invalid("`config` is no hash")
    unknown = []
    table = form.kinds.get(kind)
    if table is None:
        return None
    rest = {key: item for key, item in value.items() if key not in ("v", "kind", "at", "config")}
    check_object(form, table, rest, "", unknown)
    check_attempts(kind, rest)
    limit = rest.get("limit") if kind == "refusal" else None
    if isinstance(limit, dict) and None in [money(limit[key]) for key in ("limit", "used", "wanted")]:
        raise Invalid("an amount of `limit` is no decimal")
    cost = rest.get("cost") if "cost" in table else None
    if isinstance(cost, dict):
        classes = [money(amount) for amount in cost["classes"].values()]
        if None in classes or money(cost["total"]) is None or sum(classes) != money(cost["total"]):
            raise Invalid("`cost.total` is not the sum of its classes")
    return unknown


def check_attempts(kind, value):
    """FORMAT.md 3.3: an exchange has at most 16 attempts, and content has a retention class."""
    if kind == "attempt" and value["number"] > 15:
        raise Invalid("`number` is more than 15")
    if kind in ("attempt", "side_call") and value.get("parts") and "retention" not in value:
        raise Invalid("`retention` is missing beside `parts`")
    if kind in ("attempt", "side_call") and "cost" in value and "usage" not in value:
        raise Invalid("`usage` is missing beside `cost`")
    surplus, missing = (), ()
    if kind == "side_call":
        surplus = MONEY_KEYS
    elif kind == "attempt" and value["phase"] == "open":
        surplus = ANSWER_KEYS
    elif kind == "attempt" and value["phase"] == "end":
        surplus, missing = ("commitment", "translation"), ("end", "usage")
    # An object that may be absent and is empty says nothing.
    if any(key in value and value[key] != {} for key in surplus):
        raise Invalid(f"a key that a `{kind}` like this does not have")
    if any(key not in value for key in missing):
        raise Invalid(f"a key is missing that a `{kind}` like this has")
    if kind == "outcome" and "served" in value and not 1 <= value["served"]["number"] <= 15:
        raise Invalid("`served.number` is not 1 to 15")


def check_text(value):
    if isinstance(value, dict):
        for key, item in value.items():
            if not TEXT.fullmatch(key):
                raise Invalid("a key holds what a leaf may not hold")
            check_text(item)
    elif isinstance(value, list):
        for item in value:
            check_text(item)
    elif isinstance(value, str) and not TEXT.fullmatch(value):
        raise Invalid("a string holds what a leaf may not hold")


def is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)


def check_object(form, table, value, path, unknown):
    if not isinstance(value, dict):
        raise Invalid(f"`{path}` is no object")
    for key, wanted in table.items():
        if key in value:
            check_value(form, wanted.type, value[key], f"{path}.{key}".strip("."), unknown)
        elif not wanted.optional:
            raise Invalid(f"`{path}.{key}` is missing")
    unknown.extend(f"{path}.{key}".strip(".") for key in value if key not in table)


def check_value(form, type_, value, path, unknown):
    wrong = Invalid(f"`{path}` is no {type_}")
    link = LINK.fullmatch(type_)
    if link and link[1] in form.objects:
        check_object(form, form.objects[link[1]], value, path, unknown)
    elif link:
        if not isinstance(value, str) or value not in form.enumerations[link[1]]:
            raise wrong
    elif type_.startswith("list of "):
        if not isinstance(value, list) or (path.rpartition(".")[2] in LISTS and len(value) > 32):
            raise wrong
        for item in value:
            check_value(form, type_[len("list of "):], item, path, unknown)
    elif type_.startswith("map to "):
        if not isinstance(value, dict) or (path.rpartition(".")[2] in MAPS and len(value) > 32):
            raise wrong
        for item in value.values():
            check_value(form, type_[len("map to "):], item, path, unknown)
    elif type_ in TYPES:
        if not isinstance(value, str) or not TYPES[type_].fullmatch(value):
            raise wrong
    elif type_ == "string":
        if not isinstance(value, str):
            raise wrong
    elif type_ == "boolean":
        if not isinstance(value, bool):
            raise wrong
    elif type_ in ("integer", "integer >= 0"):
        if not is_int(value) or (type_.endswith(">= 0") and value < 0):
            raise wrong
    else:
        raise Invalid(f"FORMAT.md has a type `{type_}` that this verifier does not know")


def cell(column, value):
    """FORMAT.md 8.2: the cell of a typed column."""
    _, path, type_ = column
    for key in path:
        if key.isdigit():
            if not isinstance(value, list) or int(key) >= len(value):
                return None
            value = value[int(key)]
        elif isinstance(value, dict) and key in value:
            value = value[key]
        else:
            return None
    if type_ == "string":
        return value if isinstance(value, str) else None
    if type_ == "boolean":
        return value if isinstance(value, bool) else None
    if type_.startswith("decimal"):
        return money(value)
    return value if is_int(value) else None
