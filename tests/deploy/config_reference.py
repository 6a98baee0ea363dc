#!/usr/bin/env python3
"""deploy/CONFIG.md out of the configuration's JSON Schema: `config_reference.py` prints it."""

import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "schemas/json/config.schema.json"

HEAD = """# Every key of `gateway.yaml`

Made of the schema that `gateway check --schema` prints ([config.schema.json](../schemas/json/config.schema.json)), which is made of the types that
read the file. [README.md](README.md) says what to do with the keys, [examples](examples) has whole set-ups. `gateway check -c gateway.yaml` says
all that is wrong with a file at once, by line and key.

*Restart*: read when the process starts; everything else follows the file while the gateway runs. A *duration* is a whole number with its unit
(`500ms`, `30s`, `10m`, `24h`, `7d`), a *size* too (`64KiB`, `512MiB`, `10GB`). A key in **bold** must be there.
"""


class Reference:
    def __init__(self, schema):
        self.definitions = schema["$defs"]
        self.waiting, self.used = [], {}
        self.sections, self.defaults = [], {}
        self.section("gateway.yaml", None, schema)
        while self.waiting:
            name = self.waiting.pop(0)
            self.section(name, self.used[name], self.definitions[name])

    def section(self, name, places, schema):
        """A type with keys, or one of several words or forms."""
        lines = [f"## {name}", ""]
        if schema.get("description"):
            lines += [text(schema["description"]), ""]
        if places:
            lines += ["At " + ", ".join(f"`{place}`" for place in places) + ".", ""]
        if "properties" in schema:
            lines += self.keys(name, schema)
        else:
            lines += ["| form | what it says |", "|---|---|"]
            for form in schema.get("oneOf") or schema["anyOf"]:
                description = form.get("description") or self.definitions.get(named(form), {}).get("description", "")
                lines.append(f"| {self.form(form, name)} | {cell(description)} |")
            lines.append("")
        # The places of what is used later in the same section are known only now.
        self.sections.append((name, places, lines))

    def keys(self, name, schema):
        lines = ["| key | form | default | what it says |", "|---|---|---|---|"]
        must = schema.get("required", [])
        for key, value in schema["properties"].items():
            place = key if name == "gateway.yaml" else f"{name}.{key}"
            shown = f"**`{key}`**" if key in must else f"`{key}`"
            if isinstance(value.get("default"), dict) and named(value):
                self.defaults[named(value)] = value["default"]
            value = value if "default" in value else {**value, "default": self.defaults.get(name, {}).get(key)}
            described = value.get("description") or self.definitions.get(named(value), {}).get("description", "")
            lines.append(f"| {shown} | {self.form(value, place)} | {default(value)} | {cell(described)} |")
        return [*lines, ""]

    def form(self, value, place):
        """How a value is written; a type that has its own section is a link to it."""
        if "$ref" in value:
            name = named(value)
            target = self.definitions[name]
            if not ("properties" in target or "oneOf" in target or "anyOf" in target) or name == "LimitText":
                return self.form(target, place)
            if name not in self.used:
                self.used[name] = []
                self.waiting.append(name)
            if place not in self.used[name]:
                self.used[name].append(place)
            return f"[{name}](#{name.lower()})"
        if "const" in value:
            return f"`{value['const']}`"
        if "oneOf" in value or "anyOf" in value:
            forms = [self.form(form, place) for form in value.get("oneOf") or value["anyOf"] if form.get("type") != "null"]
            return " or ".join(dict.fromkeys(forms))
        if "properties" in value:
            return "<br>".join(f"`{key}:` {self.form(form, place)}" for key, form in value["properties"].items())
        types = [kind for kind in aslist(value.get("type", "anything")) if kind != "null"]
        if types == ["array"]:
            return f"list of {self.form(value.get('items', {}), place)}"
        if types == ["object"]:
            inner = value.get("additionalProperties")
            return f"map to {self.form(inner, place)}" if isinstance(inner, dict) else "map"
        form = " or ".join({"string": "text", "boolean": "`true`, `false`", "anything": "any value"}.get(kind, kind) for kind in types)
        for unit, word in (("ms|s|m|h|d", "duration"), ("B|KiB|MiB", "size")):
            if unit in value.get("pattern", ""):
                return word
        if "pattern" in value:
            form += f" as `{value['pattern'].replace('|', chr(92) + '|')}`"
        # 0 and the ends of machine integers bound nothing that a reader would write.
        least, most = value.get("minimum", 0), value.get("maximum")
        if least:
            form += f", at least {least}"
        if most is not None and most not in (2**16 - 1, 2**8 - 1, 2**32 - 1):
            form += f", at most {most}"
        return form

    def markdown(self):
        out = [HEAD]
        for name, places, lines in self.sections:
            if places is not None:
                at = next((n for n, line in enumerate(lines) if line.startswith("At `")), None)
                if at is not None:
                    lines[at] = "At " + ", ".join(f"`{place}`" for place in self.used[name]) + "."
            out += ["\n".join(lines).rstrip() + "\n"]
        return "\n".join(out)


def aslist(value):
    return value if isinstance(value, list) else [value]


def named(value):
    """The type that a value refers to, also where it may be left out."""
    for form in [value, *value.get("anyOf", [])]:
        if "$ref" in form:
            return form["$ref"].rsplit("/", 1)[1]
    return None


def text(description):
    return description.strip()


def cell(description):
    """A description in a table's cell: paragraphs stay apart."""
    return "<br>".join(" ".join(part.split()) for part in description.split("\n\n")).replace("|", "\\|")


def default(value):
    if "default" not in value or value["default"] is None:
        return ""
    said = value["default"]
    if isinstance(said, dict):
        # Its own section has them.
        return ""
    return f"`{json.dumps(said) if not isinstance(said, str) else said}`" if said not in ("", []) else ""


def made():
    return Reference(json.loads(SCHEMA.read_text())).markdown()


if __name__ == "__main__":
    print(made(), end="")
