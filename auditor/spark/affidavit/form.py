"""The tables of FORMAT.md, read as data: kinds, objects, enumerations, typed columns, file schemas."""

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

FORMAT = Path(__file__).resolve().parents[3] / "schemas" / "FORMAT.md"


def block(text, name):
    return text.split(f"<!-- begin {name} -->", 1)[1].split(f"<!-- end {name} -->", 1)[0]


def sections(text):
    """Heading of level 4 -> lines below it."""
    for section in re.split(r"^#### ", text, flags=re.M)[1:]:
        heading, body = section.split("\n", 1)
        yield heading, body


def rows(body):
    for line in body.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


@dataclass
class Key:
    type: str
    optional: bool


class Form:
    def __init__(self, path=FORMAT):
        text = path.read_text()
        self.kinds, self.objects, self.enumerations = {}, {}, {}
        for heading, body in sections(block(text, "kinds")):
            table = {key.strip("`"): Key(type_, opt == "opt") for key, type_, opt, _ in rows(body)}
            for kind in re.findall(r"`(\w+)`", heading):
                self.kinds[kind] = table
        self.entries = {}
        for heading, body in sections(block(text, "registry kinds")):
            table = {key.strip("`"): Key(type_, opt == "opt") for key, type_, opt, _ in rows(body)}
            for kind in re.findall(r"`(\w+)`", heading):
                self.entries[kind] = table
        self.entries["heartbeat"] = self.kinds["heartbeat"]
        for heading, body in sections(block(text, "objects")):
            self.objects[heading.strip()] = {
                key.strip("`"): Key(type_, opt == "opt") for key, type_, opt, _ in rows(body)
            }
        for heading, body in sections(block(text, "enumerations")):
            self.enumerations[heading.strip()] = {name for row in rows(body) for name in re.findall(r"`([^`]+)`", row[0])}
        self.columns = [
            (name.strip("`"), path.strip("`").split("."), type_) for name, path, type_ in rows(block(text, "columns"))
        ]
        self.schema_text = block(text, "schema text").split("```\n")[1]
        self.fingerprint = sha256(self.schema_text.encode()).hexdigest()
        self.schemas = {}
        for name, body in re.findall(r"message (\w+) \{\n(.*?)\}\n", self.schema_text, flags=re.S):
            self.schemas[name] = [schema_column(line) for line in body.splitlines()]


def schema_column(line):
    """(name, optional, physical type, length, logical) of a line of a message type."""
    found = re.fullmatch(r"  (REQUIRED|OPTIONAL) (\w+)(?: \((\d+)\))? (\w+)(?: \((.+)\))?;", line)
    repetition, physical, length, name, logical = found.groups()
    return name, repetition == "OPTIONAL", physical, int(length or 0), logical
