"""The logs of one gateway together: the chain of epochs, and the proven interval against the asked one."""

from datetime import UTC, datetime

from .findings import INCOMPLETE, NOTE, Place, effect

SECOND = 1_000_000
BOUND = 300 * SECOND
LAST = 2**63


class Judged:
    """Findings with what they do to the verdict; one about a time outside of what was asked is a note."""

    def __init__(self):
        self.list = []

    def add(self, code, place, expected, found, during=None):
        self.list.append({"code": code, "place": place, "expected": str(expected), "found": str(found),
                          "effect": effect(code), "during": during})

    def outside_is_note(self, asked, exact_from, exact_to):
        if not asked:
            return
        start, end = min(a for a, _ in asked), max(b for _, b in asked)
        for finding in self.list:
            during = finding["during"]
            if during and finding["code"] in INCOMPLETE and (
                (exact_from and during[1] <= start) or (exact_to and during[0] >= end)
            ):
                finding["effect"] = NOTE


def text(at):
    """A time as the auditor prints it."""
    if not 0 <= at < 253402300800 * SECOND:
        return str(at)
    return datetime.fromtimestamp(at // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def slack(bound):
    """How much a sealed heartbeat may be behind its bound."""
    return bound // 20 + 5 * SECOND


def bound_of(boot):
    return boot["heartbeat_bound_ms"] * 1000


class Gateway:
    """`logs`: origin -> {boot, close, told_at, size, root, runs}, as their proven batches say."""

    def __init__(self, trust, name, logs, options, findings):
        self.entries = sorted(
            (entry for entry in trust["gateways"] if entry["name"] == name), key=lambda entry: entry.get("first_origin", "")
        )
        self.name, self.options, self.findings = name, options, findings
        self.logs = dict(sorted(logs.items(), key=lambda item: (starts(item[1]), item[0])))
        self.closed = self.entries[-1].get("closed") is True
        seconds = [entry["heartbeat_bound_s"] for entry in self.entries if "heartbeat_bound_s" in entry]
        self.bound = min(seconds) * SECOND if seconds else None

    def judge(self):
        """The asked interval."""
        self.bounds()
        self.epochs()
        asked = self.asked()
        if asked:
            self.coverage(*asked)
        return asked

    def bounds(self):
        """What `boot` promises is not less than what the trust file asks for."""
        for origin, log in self.logs.items():
            if self.bound is not None and log["boot"] and self.bound < bound_of(log["boot"]):
                place = Place(origin, position=0, item="heartbeat_bound_ms")
                expected = f"a heartbeat bound of at most {self.bound // SECOND} s, as in the trust file"
                self.findings.add("TRUST_MISMATCH", place, expected, f"{bound_of(log['boot']) // SECOND} s")

    def epochs(self):
        """Each log but the first names its predecessor, no two name the same, and what they say of it is so."""
        first = self.entries[0].get("first_origin")
        if first and first not in self.logs:
            self.findings.add("LOG_MISSING", Place(first), "the gateway's first log, as in the trust file", "nothing")
        if not first:
            without = (o for o, log in self.logs.items() if log["boot"] and "predecessor" not in log["boot"])
            first = next(without, None)
        successors = {}
        for origin, log in self.logs.items():
            if log["boot"]:
                self.predecessor(origin, log, first, successors)
        for origin, named_by in sorted(successors.items()):
            if len(named_by) > 1:
                self.findings.add("PREDECESSOR_FORK", Place(origin), "one successor", ", ".join(named_by))
        for origin, log in self.logs.items():
            successor = (log["close"] or {}).get("successor")
            if successor and successor not in self.logs:
                expected = f"the log {successor}, which `close` of {origin} names as the next"
                self.findings.add("LOG_MISSING", Place(successor), expected, "nothing", (starts(log), LAST))

    def predecessor(self, origin, log, first, successors):
        place, named = Place(origin, position=0), log["boot"].get("predecessor")
        if named is None:
            if first not in (None, origin):
                expected = "a `boot` that names its predecessor: only the gateway's first log has none"
                self.findings.add("PREDECESSOR_MISSING", place, expected, "none")
            return
        if first == origin:
            expected = "none: the trust file names this log as the first"
            self.findings.add("PREDECESSOR_MISMATCH", place, expected, f"predecessor {named['origin']}")
        if named["origin"].rpartition("/")[0] != origin.rpartition("/")[0] or named["origin"] == origin:
            self.findings.add("PREDECESSOR_MISMATCH", place, "another log of the same gateway", named["origin"])
            return
        successors.setdefault(named["origin"], []).append(origin)
        before = self.logs.get(named["origin"])
        if before is None:
            expected = f"the log {named['origin']}, which {origin} names as its predecessor"
            # One that was not closed yet went on beside its successor: nobody knows until when.
            during = (-LAST, log["boot"]["at"]) if "size" in named else None
            self.findings.add("LOG_MISSING", Place(named["origin"]), expected, "nothing", during)
        elif "size" in named and before["size"] is not None:
            expected = f"{named['origin']} at size {named['size']}, root {named.get('root')}"
            found = f"size {before['size']}, root {before['root']}"
            if before["size"] < named["size"]:
                self.findings.add("ROLLBACK", Place(named["origin"]), expected, found)
            elif before["size"] > named["size"] or named.get("root", before["root"]) != before["root"]:
                self.findings.add("PREDECESSOR_MISMATCH", place, expected, found)

    def asked(self):
        """The user's, else from the first opening to now less heartbeat bound and batch age; the newest proven record
        while the gateway is younger than that."""
        begins = min((starts(log) for log in self.logs.values() if starts(log) != LAST), default=None)
        newest = max((log["runs"][-1][1] for log in self.logs.values() if log["runs"]), default=None)
        last = next((log["boot"] for log in reversed(self.logs.values()) if log["boot"]), None)
        bound = self.bound or (bound_of(last) if last else BOUND)
        age = last["batch_age_ms"] * 1000 if last else 10 * SECOND
        start = self.options.start if self.options.start is not None else begins
        end = self.options.end
        if end is None and start is not None:
            settled = self.options.now - bound - age
            end = newest if begins is not None and begins > settled else settled
        return None if start is None or end is None else (start, end)

    def declared(self):
        """Silence that a log declares: from `alive_until` of its predecessor to its `boot`."""
        for log in self.logs.values():
            named = (log["boot"] or {}).get("predecessor")
            close = named and self.logs.get(named["origin"], {}).get("close")
            if close and close["alive_until"] < log["boot"]["at"]:
                yield close["alive_until"], log["boot"]["at"]

    def coverage(self, start, end):
        """Whether proven runs and declared silence cover what was asked."""
        whole, exact = Place(item=f"gateway {self.name}"), self.options.end is not None
        if start > end:
            self.findings.add("PERIOD_NOT_PROVEN", whole, "an interval that ends after it begins", f"{text(start)} to {text(end)}")
            return
        bounds = [bound_of(log["boot"]) for log in self.logs.values() if log["boot"]]
        allowed = slack(max(bounds, default=self.bound or BOUND))
        tails = [(origin, log) for origin, log in self.logs.items() if log["close"] is None]
        for origin, log in tails:
            last = log["told_at"] if log["told_at"] is not None else start
            if last + (0 if exact else allowed) < end and not self.closed:
                found = f"no `close`, and nothing after {text(last)}"
                self.findings.add("TAIL_UNPROVEN", Place(origin), f"records to {text(end)}", found, (last, end))
        reached = start
        for begins, ends in sorted([*(run for log in self.logs.values() for run in log["runs"]), *self.declared()]):
            exact_start = self.options.start is not None and reached == start
            if begins > reached + (0 if exact_start else allowed) and min(begins, end) > reached:
                found = f"nothing proven from {text(reached)} to {text(min(begins, end))}"
                self.findings.add("PERIOD_NOT_PROVEN", whole, "the asked interval proven", found, (reached, min(begins, end)))
            reached = max(reached, ends)
            if reached >= end:
                return
        if reached + (0 if exact else allowed) >= end or self.closed:
            return
        if not tails:
            found = f"the last log is closed; nothing after {text(reached)}"
            self.findings.add("TAIL_UNPROVEN", whole, f"a next log, or records to {text(end)}", found, (reached, end))


def starts(log):
    return log["boot"]["at"] if log["boot"] else log["first_at"] if log["first_at"] is not None else LAST
