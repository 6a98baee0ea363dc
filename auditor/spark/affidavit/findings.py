"""Findings: a stable code, a place, what was expected and what was found. Collected, never raised to stop the work."""

from dataclasses import asdict, dataclass, replace

KEPT = 100
UNJUDGED = {"RESOURCE_LIMIT", "COULD_NOT_READ", "KEY_ABSENT", "NO_INPUT"}
NOTES = {"NOT_JUDGED", "LEFTOVER", "ERASED", "BATCH_IN_FLIGHT", "HOLD_ORDER_UNKNOWN"}
INCOMPLETE = {"BATCH_MISSING", "BATCH_INCOMPLETE", "LOG_MISSING", "TAIL_UNPROVEN", "PERIOD_NOT_PROVEN", "PREDECESSOR_MISSING"}
DIVERGED = {"PREDECESSOR_FORK", "PREDECESSOR_MISMATCH", "ROLLBACK"}
POLICIES = {"ERASED_UNDER_HOLD"}
NOTE, NOT_JUDGED, POLICY, IS_INCOMPLETE, IS_DIVERGED, IS_INVALID = range(6)
WORDS = ("VERIFIED", "COULD-NOT-JUDGE", "POLICY", "INCOMPLETE", "DIVERGED", "INVALID")


def effect(code):
    """What a finding does to the verdict, the worse the larger: an index into `WORDS`."""
    for codes, is_ in ((NOTES, NOTE), (UNJUDGED, NOT_JUDGED), (POLICIES, POLICY), (INCOMPLETE, IS_INCOMPLETE), (DIVERGED, IS_DIVERGED)):
        if code in codes:
            return is_
    return IS_INVALID


@dataclass(frozen=True)
class Place:
    """Where a finding is: the same fields that the auditor's JSON report has."""

    origin: str | None = None
    batch: int | None = None
    object: str | None = None
    position: int | None = None
    item: str | None = None

    def within(self, name):
        """In the object of that name."""
        return replace(self, object=name)

    def at(self, position):
        """At a record."""
        return replace(self, position=position)

    def of(self, item):
        """Of a column, a line, a file or a part."""
        return replace(self, item=item)

    def fields(self):
        """The fields that say something."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self):
        parts = [self.object] if self.object else [f"log {self.origin}"] if self.origin else []
        if self.batch is not None and not self.object:
            parts.append(f"batch {self.batch}")
        if self.position is not None:
            parts.append(f"position {self.position}")
        return ", ".join([*parts, *([self.item] if self.item else [])]) or "the store"


class Findings:
    """Of each code the first ones whole, the others counted."""

    def __init__(self):
        self.list = []
        self.counts = {}

    def add(self, code, place, expected, found):
        self.counts[code] = self.counts.get(code, 0) + 1
        if self.counts[code] <= KEPT:
            self.list.append((code, place, clean(expected), clean(found)))

    def count(self, code, more):
        """Counts some that were found elsewhere and not kept."""
        self.counts[code] = self.counts.get(code, 0) + more

    def kept(self):
        """All of it as JSON has it."""
        return {"list": [(code, place.fields(), e, f) for code, place, e, f in self.list], "counts": self.counts}

    def take(self, kept):
        """What `kept` gave, in the place of what is here."""
        self.list = [(code, Place(**place), e, f) for code, place, e, f in kept["list"]]
        self.counts = kept["counts"]

    def codes(self):
        return sorted(self.counts)

    def exit_code(self):
        """1: a finding against the evidence; 2: something could not be judged; 0: neither."""
        worst = set(self.counts) - NOTES
        if worst - UNJUDGED:
            return 1
        return 2 if worst else 0

    def print(self, out):
        kept = {}
        for code, place, expected, found in self.list:
            kept[code] = kept.get(code, 0) + 1
            out.write(f"{code}: {place}: expected {expected}, found {found}\n")
        for code, count in sorted(self.counts.items()):
            if count > kept.get(code, 0):
                out.write(f"{code}: {count - kept.get(code, 0)} more\n")


def clean(value, most=200):
    """Text of strangers, made safe to print."""
    text = str(value)
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:most])
