"""The Spark job: a task for each batch, windows over the batches of a log, the logs of a gateway in the driver.

```text
listing (driver) -> batch (tasks: files, leaves, root) -> chain (window over log and batch) -> epochs (driver)
```

What leaves a task is one row of facts for a batch, and its findings; leaves and hashes stay in it.
"""

import json
import resource
import tempfile
import time
import zipfile
from pathlib import Path

import pyarrow as pa
from pyspark.sql import Window
from pyspark.sql import functions as f

from . import gateway as gateways
from . import seal as seals
from . import trust as trusts
from .batch import RECOVERY_CLOSES, Batch, Unit
from .findings import Place, effect
from .leaf import TYPES
from .store import LEFTOVERS, Store

# What this job looks for: of these the auditor names the same, at the same places.
CODES = (
    "AFTER_CLOSE", "BATCH_INCOMPLETE", "BATCH_IN_FLIGHT", "BATCH_MISSING", "BOOT_MISPLACED", "CHAIN_BROKEN", "COLUMN_NOT_LEAF",
    "COULD_NOT_READ", "DUPLICATE_RANGE", "FILE_MISMATCH", "FOREIGN_RECORD", "KEY_NOT_VALID_FOR_SIZE", "LEAF_INVALID",
    "LEAF_MISMATCH", "LEFTOVER", "LOG_MISSING", "NON_CANONICAL_LEAF", "NOT_A_FILE", "NO_INPUT", "ORDER", "ORIGIN_MISMATCH",
    "PATH_MISMATCH", "PERIOD_NOT_PROVEN", "PREDECESSOR_FORK", "PREDECESSOR_MISMATCH", "PREDECESSOR_MISSING", "RESOURCE_LIMIT",
    "ROLLBACK", "ROOT_MISMATCH", "SCHEMA_DRIFT", "SEAL_INVALID", "SEQ_GAP", "STATS_LIE", "TAIL_UNPROVEN", "TIME_CONTRADICTION",
    "TRUST_MISMATCH", "UNKNOWN_OBJECT", "UNREADABLE", "UNREFERENCED_OBJECT", "UNREGISTERED_LOG", "UNTRUSTED_KEY",
)
SHOWN = 10_000
SUMS = ("records", "bytes", "leaf_bytes", "omitted", "cpu_us")
SLACK = 60 * gateways.SECOND
COLUMNS = {
    "origin": "string", "batch": "bigint", "state": "string", "signer": "string", "from": "bigint", "to": "bigint",
    "root": "string", "before": "string", "previous": "string", "sha256": "string", "time": "bigint", "counts": "boolean",
    "records": "bigint", "bytes": "bigint", "leaf_bytes": "bigint", "first_at": "bigint", "last_at": "bigint",
    "latest_position": "bigint", "alive_at": "bigint", "told_at": "bigint", "recovers": "boolean", "boot": "string",
    "close": "string", "unnamed": "string", "findings": "string", "worst": "int", "omitted": "bigint", "cpu_us": "bigint",
}
ARROW = {"string": pa.string(), "bigint": pa.int64(), "boolean": pa.bool_(), "int": pa.int32()}
SCHEMA = pa.schema([(name, ARROW[type_]) for name, type_ in COLUMNS.items()])


class Options:
    """What is asked: an interval, or the default; the auditor's clock; how many tasks at most."""

    def __init__(self, start=None, end=None, now=None, tasks=10_000):
        self.start, self.end, self.tasks = start, end, tasks
        self.now = now if now is not None else time.time_ns() // 1000


def ship(spark):
    """Gives the tasks this package."""
    package = Path(__file__).resolve().parent
    archive = Path(tempfile.mkdtemp()) / "affidavit.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in sorted(package.glob("*.py")):
            zipped.write(path, f"affidavit/{path.name}")
    if hasattr(spark, "_jsc"):
        spark.sparkContext.addPyFile(str(archive))
    else:
        spark.addArtifacts(str(archive), pyfile=True)


def listing(store, deployment, findings):
    """origin -> {number: {"seal": bool, "data": {name: length}}}; everything else that is there is a finding."""
    logs, left = {}, {}
    for folder, name, length, kind in store.entries():
        path = f"{folder}/{name}" if folder else name
        top = folder.split("/")[0]
        is_log = bool(TYPES["origin"].fullmatch(folder))
        if top in LEFTOVERS and not is_log:
            left[folder] = left.get(folder, 0) + 1
        elif kind != "file":
            findings.add("NOT_A_FILE", Place(object=path), "a plain file", "another thing")
        elif folder == f"{deployment}/registry/log":
            logs.setdefault(folder, {})
        elif not is_log or not (found := seals.SEAL_NAME.fullmatch(name) or seals.NAME.fullmatch(name)):
            if is_log:
                logs.setdefault(folder, {})
            findings.add("UNKNOWN_OBJECT", Place(object=path), "a name of FORMAT.md 6.1", "another name")
        else:
            batch = logs.setdefault(folder, {}).setdefault(int(found[1]), {"seal": False, "data": {}})
            if name.endswith(".seal"):
                batch["seal"] = True
            else:
                batch["data"][name] = length
    for folder, count in sorted(left.items()):
        findings.add("LEFTOVER", Place(object=folder), "nothing, or writes under way", f"{count} objects")
    return logs


def task(store, form):
    """What runs in a task: units in, facts out."""

    def check(batches):
        for units in batches:
            rows = []
            for text in units.column(0).to_pylist():
                begun = spent()
                row = row_of(Batch(store, Unit(**json.loads(text)), form).check())
                rows.append({**row, "cpu_us": round((spent() - begun) * 1e6)})
            yield pa.RecordBatch.from_pylist(rows, schema=SCHEMA)

    return check


def spent():
    """Core seconds of this process and of the children that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def row_of(done):
    found = done.findings
    row = {**done.facts, "omitted": sum(found.counts.values()) - len(found.list)}
    for name in ("boot", "close", "unnamed"):
        row[name] = json.dumps(row[name]) if row.get(name) else None
    row["worst"] = max((effect(code) for code in found.counts), default=0)
    row["findings"] = json.dumps([(code, place.fields(), e, x) for code, place, e, x in found.list]) if found.list else None
    return {name: row.get(name) for name in COLUMNS}


def chained(facts):
    """Each batch beside the one that it must continue, and whether its records are told."""
    order = Window.partitionBy("origin").orderBy("batch")
    before = order.rowsBetween(Window.unboundedPreceding, -1)
    closer = f.min(f.when(f.col("signer") == "closer", f.col("batch"))).over(before)
    facts = facts.withColumn("closed_from", closer).withColumn(
        "silenced", (f.col("signer") == "own") & f.col("closed_from").isNotNull()
    ).fillna(False, ["silenced"])
    tail = f.struct("batch", "state", "to", "root", "sha256", "time", f.col("close").isNotNull().alias("closed"))
    facts = (
        facts.withColumn("tail", f.last(f.when(~f.col("silenced"), tail), ignorenulls=True).over(before))
        .withColumn("missing", f.col("batch") > f.coalesce(f.lag("batch").over(order), f.lit(-1)) + 1)
        .withColumn("reached", f.coalesce(f.max("to").over(before), f.lit(0)))
    )
    held = f.coalesce(f.col("tail.state") != "broken", f.lit(False)) & ~f.col("missing")
    facts = facts.withColumn("held", held & (f.col("state") != "broken") & ~f.col("silenced"))
    wrong = {
        "number": f.col("batch") != f.col("tail.batch") + 1,
        "previous": ~f.col("previous").eqNullSafe(f.col("tail.sha256")),
        "range": f.col("from") != f.col("tail.to"),
        "compact range": f.col("before") != f.col("tail.root"),
        "time": f.col("time") < f.col("tail.time"),
        "closed": (f.col("tail.state") == "proven") & f.col("tail.closed"),
    }
    broken = f.array(*(f.when(f.col("held") & condition, f.lit(name)) for name, condition in wrong.items()))
    facts = facts.withColumn("broken", f.array_compact(broken))
    told = (f.col("state") == "proven") & ~f.col("silenced") & (f.size("broken") == 0)
    facts = facts.withColumn("told", told)
    torn = f.col("missing") | ~f.coalesce(f.lag("told").over(order), f.lit(False))
    return facts.withColumn("run", f.sum(f.when(f.col("told") & torn, 1).otherwise(0)).over(order))


def runs(told):
    """The proven intervals of each log: a run ends with the living process, whatever recovery wrote behind it."""
    order = Window.partitionBy("origin", "run").orderBy("batch")
    before = order.rowsBetween(Window.unboundedPreceding, -1)
    died = f.coalesce(f.max(f.col("recovers").cast("int")).over(before), f.lit(0)) == 1
    alive = f.max("mine").over(order.rowsBetween(Window.unboundedPreceding, 0))
    end = f.coalesce(f.least(alive, f.col("last_at")), f.col("last_at"))
    return (
        told.withColumn("mine", f.when(~died, f.col("alive_at"))).withColumn("end", end)
        .groupBy("origin", "run").agg(f.min("first_at").alias("start"), f.max("end").alias("end"))
    )


def anomalies(facts, now):
    """The few rows that are wrong beside others."""
    late = f.col("told") & (f.col("last_at") > f.col("time") + SLACK)
    ahead = f.col("told") & (f.col("time") > now + 5 * SLACK)
    proven = (f.col("state") == "proven") & ~f.col("silenced")
    beyond = proven & ~f.col("counts")
    twice = proven & (f.col("from") < f.col("reached"))
    facts = facts.withColumns({"late": late, "ahead": ahead, "beyond": beyond, "twice": twice})
    return facts.filter("silenced or size(broken) > 0 or late or ahead or beyond or twice")


def name_anomaly(row, now, findings):
    origin, number = row["origin"], row["batch"]
    batch = Place(origin, number)
    place = batch.within(f"{origin}/{number:010}.seal")
    if row["silenced"]:
        expected = f"no seal by the log's own key behind batch {row['closed_from']}, which a closer sealed"
        findings.add("KEY_NOT_VALID_FOR_SIZE", place, expected, "one by that key")
    for what in row["broken"]:
        at, tail = place.at(row["from"]), row["tail"]
        pairs = {"previous": (tail["sha256"], row["previous"]), "range": (tail["to"], row["from"]),
                 "compact range": (tail["root"], row["before"]), "number": (tail["batch"] + 1, number)}
        if what == "time":
            findings.add("TIME_CONTRADICTION", at.of(f"batch {number}, time"), f"at least {tail['time']}", row["time"])
        elif what == "closed":
            findings.add("AFTER_CLOSE", at.of(f"batch {number}"), "no batch behind `close`", "a batch")
        else:
            findings.add("CHAIN_BROKEN", at.of(f"batch {number}, {what}"), *pairs[what])
    if row["beyond"]:
        findings.add("KEY_NOT_VALID_FOR_SIZE", place, "a seal up to where its key counts for this log", f"tree size {row['to']}")
    if row["twice"]:
        findings.add("DUPLICATE_RANGE", place, f"a batch that begins at {row['reached']}", f"one that begins at {row['from']}")
    if row["late"]:
        expected = f"a time before its seal's, {gateways.text(row['time'])}"
        findings.add("TIME_CONTRADICTION", Place(origin, position=row["latest_position"]), expected, gateways.text(row["last_at"]))
    if row["ahead"]:
        findings.add("TIME_CONTRADICTION", batch.of("time"), f"a time before {gateways.text(now)}", gateways.text(row["time"]))


def holes(origin, batches, findings):
    """Seals that are missing below the newest, and data files whose seal is not there. Gives the files behind the newest."""
    numbers = sorted(number for number, batch in batches.items() if batch["seal"])
    following = 0
    for number in numbers:
        if number > following:
            findings.add("BATCH_MISSING", Place(origin, following), f"the seals of batches {following} to {number - 1}", "none")
        following = number + 1
    return [
        (number, f"{origin}/{name}", number - following)
        for number, batch in sorted(batches.items()) if not batch["seal"] for name in sorted(batch["data"])
    ]


def of_batches(facts, findings):
    """The findings of the tasks, as far as they can be shown. Gives the sums over all batches."""
    for row in facts.filter("findings is not null").orderBy("origin", "batch").select("findings").limit(SHOWN).collect():
        for code, place, expected, seen in json.loads(row["findings"]):
            findings.add(code, Place(**place), expected, seen)
    sums = facts.agg(*(f.sum(name).alias(name) for name in SUMS), f.count("findings").alias("found"), f.max("worst").alias("worst"))
    return sums.first().asDict()


def logs_of(facts):
    """What the proven batches of each log say together."""
    told = facts.filter("told")
    logs = {}
    for row in told.groupBy("origin").agg(
        f.min_by("boot", "batch").alias("boot"), f.max_by("close", "batch").alias("close"), f.max("told_at").alias("told_at"),
        f.min("first_at").alias("first_at"), f.max("to").alias("size"), f.max_by("root", "to").alias("root"),
        f.sum("records").alias("records"), f.count("*").alias("batches"),
    ).collect():
        log = row.asDict()
        for name in ("boot", "close"):
            log[name] = json.loads(log[name]) if log[name] else None
        logs[row["origin"]] = {**log, "runs": []}
    for row in sorted(runs(told).collect()):
        logs[row["origin"]]["runs"].append((row["start"], row["end"]))
    return logs


def died(log):
    """Until when the log's process is known to have lived, where another one closed the log."""
    close = log["close"]
    return close["alive_until"] if close and close["reason"] in RECOVERY_CLOSES else None


def unnamed(facts, logs, findings):
    """Data files that the seal of their batch does not name. A process that died may have put some whose seal it did not come to."""
    rows = facts.filter("unnamed is not null").orderBy("origin", "batch").select("origin", "batch", "time", "unnamed")
    for row in rows.toLocalIterator():
        until = died(logs[row["origin"]])
        code = "LEFTOVER" if until is not None and row["time"] > until else "UNREFERENCED_OBJECT"
        for name in json.loads(row["unnamed"]):
            place = Place(row["origin"], row["batch"], f"{row['origin']}/{name}")
            findings.add(code, place, "an object that the seal names", "one that it does not")


def nothing():
    return {"boot": None, "close": None, "told_at": None, "first_at": None, "size": None, "root": None, "records": 0, "batches": 0,
            "runs": []}


def verify(spark, address, trust, form, options):
    """Verifies a store against a trust file that names gateways. Gives the report."""
    findings, store, begun = gateways.Judged(), Store(address), time.monotonic()
    listed = listing(store, trust["deployment"], findings)
    units, logs, left = [], {}, {}
    for origin, batches in sorted(listed.items()):
        entry = trusts.key_for(trust, origin)
        if origin == f"{trust['deployment']}/registry/log":
            findings.add("NOT_JUDGED", Place(origin), "a log of a gateway", "the registry")
        elif entry is None:
            expected = f"gateways of `{trust['deployment']}` that the trust file names"
            findings.add("UNREGISTERED_LOG", Place(origin), expected, "a log of none of their keys")
        else:
            logs[origin], left[origin] = nothing(), holes(origin, batches, findings)
            units += [
                json.dumps({"origin": origin, "batch": number, "listed": batch["data"], "entry": entry})
                for number, batch in sorted(batches.items()) if batch["seal"]
            ]
    report = {"codes": CODES, "store": store.address, "deployment": trust["deployment"], "trust_fingerprint": trusts.fingerprint(trust),
              "records": 0, "batches": 0, "leaf_bytes": 0, "bytes": 0, "cpu_us": 0, "findings_not_shown": 0}
    worst = 0
    if units:
        frame = spark.createDataFrame([(unit,) for unit in units], "unit string").repartition(min(len(units), options.tasks))
        schema = ", ".join(f"`{name}` {type_}" for name, type_ in COLUMNS.items())
        # What is left are some hundred bytes a batch.
        spark.conf.set("spark.sql.shuffle.partitions", max(1, min(200, len(units) // 500)))
        facts = chained(frame.mapInArrow(task(store, form), schema)).persist()
        sums = of_batches(facts, findings)
        worst, unseen = sums.pop("worst"), sums.pop("omitted") + max(0, sums.pop("found") - SHOWN)
        report.update(sums, findings_not_shown=unseen)
        for row in anomalies(facts, options.now).collect():
            name_anomaly(row, options.now, findings)
        logs.update(logs_of(facts))
        unnamed(facts, logs, findings)
        facts.unpersist()
    judge(trust, logs, left, options, findings)
    report["batches"] = sum(log["batches"] for log in logs.values())
    if not logs:
        findings.add("NO_INPUT", Place(), f"logs of deployment `{trust['deployment']}`", "none")
    elif not report["batches"] and all(finding["effect"] == 0 for finding in findings.list):
        findings.add("NO_INPUT", Place(), "at least one proven batch", "none")
    report["effect"] = max([worst, *(finding["effect"] for finding in findings.list)])
    report["findings"] = sorted(findings.list, key=lambda finding: (-finding["effect"], finding["code"], str(finding["place"])))
    report["logs"] = {origin: {name: log[name] for name in ("records", "batches", "size", "root", "close")} for origin, log in logs.items()}
    report["seconds"] = time.monotonic() - begun
    return report


def judge(trust, logs, left, options, findings):
    for origin, log in sorted(logs.items()):
        entry = trusts.key_for(trust, origin)
        if log["boot"] and log["boot"]["seal_key"] != entry["key"]:
            findings.add("UNTRUSTED_KEY", Place(origin, position=0), f"seal key {entry['key']}", log["boot"]["seal_key"])
        for number, name, beyond in left[origin]:
            code = "BATCH_INCOMPLETE"
            if beyond == 0 and log["close"] is None:
                code = "BATCH_IN_FLIGHT"
            elif beyond >= 0 and died(log) is not None:
                code = "LEFTOVER"
            findings.add(code, Place(origin, number, name), "the batch's seal", "none")
    asked = []
    for name in dict.fromkeys(entry["name"] for entry in trust["gateways"]):
        own = {origin: log for origin, log in logs.items() if origin.split("/")[1] == name}
        # A folder with something in it is not yet a log.
        there = any(
            log["batches"] or any(x["effect"] and x["place"].origin == origin for x in findings.list) for origin, log in own.items()
        )
        if logs and not there:
            findings.add("LOG_MISSING", Place(item=f"gateway {name}"), f"a log of gateway `{name}`", "none")
        asked += [interval for interval in [gateways.Gateway(trust, name, own, options, findings).judge()] if interval]
    findings.outside_is_note(asked, options.start is not None, options.end is not None)
