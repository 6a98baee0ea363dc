"""Findings, collected and never raised to stop the work."""

KEPT = 100
UNJUDGED = {"RESOURCE_LIMIT", "COULD_NOT_READ", "KEY_ABSENT", "NO_INPUT"}
NOTES = {"NOT_JUDGED", "LEFTOVER", "ERASED"}


class Findings:
    def __init__(self):
        self.list = []
        self.counts = {}

    def add(self, code, place, expected, found):
        self.counts[code] = self.counts.get(code, 0) + 1
        if self.counts[code] <= KEPT:
            self.list.append((code, place, clean(expected), clean(found)))

    def codes(self):
        return sorted(self.counts)

    def exit_code(self):
        """1: a finding against the evidence; 2: something could not be judged; 0: neither."""
        worst = set(self.counts) - NOTES
        if worst - UNJUDGED:
            return 1
        return 2 if worst else 0

    def print(self, out):
        for code, place, expected, found in self.list:
            out.write(f"{code}: {place}: expected {expected}, found {found}\n")
        for code, count in sorted(self.counts.items()):
            if count > KEPT:
                out.write(f"{code}: {count - KEPT} more\n")


def clean(value):
    """Text of strangers, made safe to print."""
    text = str(value)
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:200])
