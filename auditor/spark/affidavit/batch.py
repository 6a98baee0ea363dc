"""One batch by itself: its seal, its files, its records. Runs inside a task and knows nothing of other batches."""

from dataclasses import dataclass
from hashlib import sha256

from . import apart, files, tree
from . import seal as seals
from . import trust as trusts
from .findings import Findings, Place
from .store import TooLarge

SEAL_LIMIT = 256 << 10
RECORDS_LIMIT = 512 << 20
RECOVERY_CLOSES = ("crash", "salvaged")
RECOVERY_ACTIONS = ("salvaged", "loss_accepted")


@dataclass
class Unit:
    """What a task is told of a batch: what the store lists for it, and by whom its seal may be signed."""

    origin: str
    batch: int
    listed: dict  # name of a data file -> length
    entry: dict  # the trust file's entry for the log


def facts_of(seal, note, signer):
    """What other batches are held against."""
    before = tree.CompactRange(seal["from"], [bytes.fromhex(node) for node in seal["compact"]])
    return {
        "state": "sealed", "signer": signer, "from": seal["from"], "to": seal["to"], "root": seal["root"],
        "before": before.root().hex(), "previous": seal["previous"], "sha256": sha256(note).hexdigest(), "time": seal["time"],
    }


class Batch:
    """Checks one batch. Nothing is raised: what is wrong is a finding, and what could be told is in `facts`."""

    def __init__(self, store, unit, form):
        self.store, self.unit, self.form = store, unit, form
        self.findings = Findings()
        self.facts = {"origin": unit.origin, "batch": unit.batch, "state": "broken", "bytes": 0, "records": 0}

    def place(self, name):
        return Place(self.unit.origin, self.unit.batch, f"{self.unit.origin}/{name}")

    def read(self, name, limit):
        place = self.place(name)
        try:
            data = self.store.read(f"{self.unit.origin}/{name}", limit)
        except TooLarge as error:
            self.findings.add("RESOURCE_LIMIT", place, f"at most {limit} bytes", error)
        except OSError as error:
            self.findings.add("COULD_NOT_READ", place, "a readable object", error)
        else:
            self.facts["bytes"] += len(data)
            return data
        return None

    def check(self):
        name = f"{self.unit.batch:010}.seal"
        note = self.read(name, SEAL_LIMIT)
        seal = note is not None and self.seal(note, self.place(name))
        if seal:
            self.files(seal)
        return self

    def seal(self, note, place):
        """The seal, where it is signed and stands in its place."""
        origin, number = self.unit.origin, self.unit.batch
        try:
            seal, signer = self.signed(note)
        except seals.Bad as error:
            self.bad_seal(note, error, place)
            return None
        if seal["origin"] != origin:
            self.findings.add("ORIGIN_MISMATCH", place, origin, seal["origin"])
            return None
        if seal["batch"] != number:
            known = self.store.has(f"{origin}/{seal['batch']:010}.seal")
            code = "DUPLICATE_RANGE" if known else "PATH_MISMATCH"
            self.findings.add(code, place, f"the seal of batch {number}", f"the seal of batch {seal['batch']}")
            return None
        self.facts.update(facts_of(seal, note, signer))
        self.facts["counts"] = trusts.counts_for(self.unit.entry, origin, seal["to"], signer == "closer")
        return seal

    def signed(self, note):
        """The seal, and whether the log's own key or a closer signed it."""
        try:
            return seals.verify(note, seals.unbase64(self.unit.entry["key"])), "own"
        except seals.Bad as error:
            for closer in self.unit.entry.get("closers", []):
                try:
                    return seals.verify(note, seals.unbase64(closer)), "closer"
                except seals.Bad:
                    continue
            raise error

    def bad_seal(self, note, error, place):
        try:
            said = seals.parse(seals.split_note(note)[0])
        except seals.Bad:
            said = None
        if said and said["origin"] != self.unit.origin:
            self.findings.add("ORIGIN_MISMATCH", place, self.unit.origin, said["origin"])
        elif isinstance(error, seals.NotSigned):
            self.findings.add("UNTRUSTED_KEY", place, "a signature by the trusted key", error)
        else:
            self.findings.add("SEAL_INVALID", place, "a seal signed by the trusted key", error)

    def files(self, seal):
        listed, named = self.unit.listed, set()
        for name, length, hash_ in seal["files"]:
            named.add(name)
            place = self.place(name)
            if name not in listed:
                self.findings.add("BATCH_MISSING", place, f"a file of {length} bytes", "nothing")
            elif seals.NAME.fullmatch(name)[3] == "records":
                self.records(seal, name, length, hash_)
            else:
                if listed[name] != length:
                    self.findings.add("FILE_MISMATCH", place, f"{length} bytes", f"{listed[name]} bytes")
                self.whole(name, hash_, place)
        # What they are is told by how their log ended.
        self.facts["unnamed"] = sorted(set(listed) - named)

    def whole(self, name, hash_, place):
        """A file that is held against its hash and not read further."""
        hasher = sha256()
        try:
            for piece in self.store.pieces(f"{self.unit.origin}/{name}"):
                hasher.update(piece)
                self.facts["bytes"] += len(piece)
        except OSError as error:
            self.findings.add("COULD_NOT_READ", place, "a readable object", error)
            return
        if hasher.hexdigest() != hash_:
            self.findings.add("FILE_MISMATCH", place, hash_, hasher.hexdigest())

    def records(self, seal, name, length, hash_):
        place = self.place(name)
        if self.unit.listed[name] != length:
            self.findings.add("FILE_MISMATCH", place, f"{length} bytes", f"{self.unit.listed[name]} bytes")
        data = self.read(name, RECORDS_LIMIT)
        if data is None:
            return
        found = sha256(data).hexdigest()
        if len(data) != length:
            self.findings.add("FILE_MISMATCH", place, f"{length} bytes", len(data))
        if found != hash_:
            self.findings.add("FILE_MISMATCH", place, hash_, found)
        whole = len(data) == length and found == hash_
        try:
            done = apart.call(lambda: self.judged(seal, data, whole, place))
        except apart.Died as error:
            self.findings.add("UNREADABLE", place.of("records"), "a Parquet file that can be read", error)
        except apart.Bound as error:
            self.findings.add("RESOURCE_LIMIT", place.of("records"), "a file that is read within the bounds of a task", error)
        except (RuntimeError, OSError) as error:
            self.findings.add("COULD_NOT_READ", place.of("records"), "a file that this job can judge", error)
        else:
            self.findings.take(done["findings"])
            self.facts = done["facts"]

    def judged(self, seal, data, whole, place):
        """Runs in a child: findings and facts with what the records of a file are."""
        before = dict(self.findings.counts)
        rows = files.records(data, self.form, seal["schema"] == self.form.fingerprint, place, self.findings)
        if rows is not None:
            self.positions(seal, rows, place)
            self.root(seal, rows, place)
            self.ends(rows, place)
            found = any(n > before.get(code, 0) for code, n in self.findings.counts.items() if code != "NOT_JUDGED")
            if whole and not found:
                self.facts["state"] = "proven"
            self.tell(rows)
        return {"findings": self.findings.kept(), "facts": self.facts}

    def root(self, seal, rows, place):
        """The tree that grows from the seal's compact range by the leaves is the seal's."""
        after = tree.CompactRange(seal["from"], [bytes.fromhex(node) for node in seal["compact"]])
        for _, _, hash_, _ in rows:
            after.append(hash_)
        if after.size != seal["to"] or after.root().hex() != seal["root"]:
            found = f"{after.root().hex()} of size {after.size}"
            self.findings.add("ROOT_MISMATCH", place.of("seal root"), f"{seal['root']} of size {seal['to']}", found)

    def positions(self, seal, rows, place):
        """Exactly the positions of the range, in order (AU-3: not by the footer's word)."""
        place, positions = place.of("position"), [row[0] for row in rows]
        wanted = range(seal["from"], seal["to"])
        if positions == list(wanted):
            return
        before = None
        for position in positions:
            if position not in wanted:
                self.findings.add("FOREIGN_RECORD", place.at(position), wanted, position)
            if before is not None and before > position:
                self.findings.add("ORDER", place.at(position), f"more than {before}", position)
            before = position
        positions.sort()
        for one, two in zip(positions, positions[1:]):
            if one == two:
                self.findings.add("DUPLICATE_RANGE", place.at(one), "one row", "two")
        following = seal["from"]
        for position in [p for p in positions if p in wanted] + [seal["to"]]:
            if position > following:
                self.findings.add("SEQ_GAP", place.at(following), "a row for each position", f"none for {following}..{position}")
            following = max(following, position + 1)

    def ends(self, rows, place):
        """`boot` at 0 and nowhere else, nothing behind `close`."""
        closed = False
        for position, _, _, value in rows:
            if closed:
                self.findings.add("AFTER_CLOSE", place.at(position).of("kind"), "no record behind `close`", "a record")
                return
            if value is None:
                continue
            if (value["kind"] == "boot") != (position == 0):
                expected = "no second `boot`" if position else "`boot`"
                self.findings.add("BOOT_MISPLACED", place.at(position).of("kind"), expected, value["kind"])
            closed = value["kind"] == "close"

    def tell(self, rows):
        """What the log and the gateway are judged by: times, `boot`, `close`."""
        values = [(position, value) for position, _, _, value in rows if value and value["kind"] in self.form.kinds]
        times = [(value["at"], position) for position, value in values]
        alive, recovers = [], False
        for _, value in values:
            recovers |= is_recovery(value)
            if not recovers and not is_loss(value):
                alive.append(value["at"])
        told = [value["at"] for _, value in values if not is_loss(value)]
        self.facts.update(
            records=len(rows), first_at=min(times)[0] if times else None, last_at=max(times)[0] if times else None,
            latest_position=max(times)[1] if times else None, alive_at=max(alive, default=None), recovers=recovers,
            told_at=max(told, default=None), leaf_bytes=sum(len(leaf) for _, leaf, _, _ in rows),
            boot=next((value for position, value in values if value["kind"] == "boot" and position == 0), None),
            close=next((value for _, value in values if value["kind"] == "close"), None),
        )


def is_loss(value):
    """Made by recovery in the place of a lost record: its time says nothing about its neighbours."""
    return value["kind"] == "gap" and value["reason"] == "loss"


def is_recovery(value):
    """Made after the process had died."""
    return (
        (value["kind"] == "outcome" and value["end"] == "interrupted")
        or (value["kind"] == "gap" and value["reason"] == "torn_tail")
        or (value["kind"] == "close" and value["reason"] in RECOVERY_CLOSES)
        or (value["kind"] == "admin" and value["action"] in RECOVERY_ACTIONS)
    )
