#!/usr/bin/env python3
"""Verifies Affidavit's evidence as a Spark job: seals, files, records, chain, epochs, expected logs.

    verify.py STORE... --trust trust.yaml [--from TIME] [--to TIME] [--json]      exit 0, 1 (findings), 2 (could not judge)
    spark-submit --master ... verify.py s3a://BUCKET/PREFIX --trust trust.yaml

Several stores are copies of one: each is judged by itself. auditor/spark/README.md says what is judged here and what is not.
"""

import argparse
import contextlib
import json
import os
import sys
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from affidavit import trust as trusts
from affidavit.findings import NOT_JUDGED as UNJUDGED
from affidavit.findings import WORDS, clean
from affidavit.form import FORMAT, Form

JUDGED = "seals, files, records, chain, epochs, expected logs"
NOT_JUDGED = (
    "content and references beyond their files' hashes, exchanges, configurations, costs, counters, order of times and silence within a log, "
    "registry, witnesses, mandates, earlier visits, locks and versions of a bucket"
)


def time_of(text):
    """Microseconds of an RFC 3339 time."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise argparse.ArgumentTypeError(f"`{text}` has no zone: wanted a time such as 2026-11-20T10:15:00Z")
    return int(at.timestamp()) * 1_000_000 + at.microsecond


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", nargs="+", help="a folder that every worker sees, or an address such as s3a://BUCKET/PREFIX")
    parser.add_argument("--trust", required=True, help="the trust file, not from inside the store")
    parser.add_argument("--from", dest="start", type=time_of, help="start of the asked interval")
    parser.add_argument("--to", dest="end", type=time_of, help="its end; default: now less heartbeat bound and batch age")
    parser.add_argument("--format-text", default=str(FORMAT), help="FORMAT.md, whose tables are read as data")
    parser.add_argument("--tasks", type=int, default=10_000, help="at most so many tasks; default: one a batch, up to 10000")
    parser.add_argument("--json", action="store_true", help="one JSON object a store, a line each")
    return parser.parse_args()


def trust_of(path, stores):
    """The trust file; refused inside a store (AU-1), and where it names a registry, which this job does not read."""
    real = Path(path).resolve()
    for store in stores:
        if "://" not in store and real.is_relative_to(Path(store).resolve()):
            raise ValueError("it lies inside the store: it must come over another channel (AU-1)")
    trust = trusts.read(real.read_text())
    if "gateways" not in trust:
        raise ValueError("it names a registry: give what `auditor trust resolve STORE --trust FILE` prints")
    return trust


def show(report):
    head = WORDS[report["effect"]]
    print(f"{head} {JUDGED}; NOT JUDGED HERE: {NOT_JUDGED}")
    for origin, log in sorted(report["logs"].items()):
        end = f"closed ({log['close']['reason']})" if log["close"] else "not closed"
        print(f"  log {origin}\n    {log['records']} records in {log['batches']} proven batches, {end}")
    for finding in report["findings"]:
        print(f"  {finding['code']}  {clean(finding['place'], 1000)}\n    expected {finding['expected']}, found {finding['found']}")
    if report["findings_not_shown"]:
        print(f"  and {report['findings_not_shown']} more of the same batches, or of others")
    print(f"  {report['bytes']} bytes read, {report['leaf_bytes']} bytes of leaves, in {report['seconds']:.1f} s, "
          f"{report['cpu_us'] / 1e6:.1f} core seconds of them in tasks")


def session():
    """A Spark session, and the job; what it needs is asked for here, so that a thing that is missing is told as any other."""
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        # Not by spark-submit: the workers are on this machine, and run what this runs.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    from pyspark.sql import SparkSession

    from affidavit import job

    spark = SparkSession.builder.appName("affidavit-verify").config("spark.ui.showConsoleProgress", "false").getOrCreate()
    job.ship(spark)
    return spark, job


def unjudged(store, error):
    """The report of a store that the job did not come to the end of, whatever the reason."""
    return {"store": store, "verdict": WORDS[UNJUDGED], "effect": UNJUDGED, "error": said(error), "findings": []}


def said(error):
    """An exception in one line: Spark's have the traces of all machines below it."""
    return clean(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}", 1000)


def judge(spark, job, store, trust, form, options):
    """Judges a store and prints what is found. Gives its effect on the exit code; nothing here ends the run."""
    try:
        report = job.verify(spark, store, trust, form, job.Options(options.start, options.end, tasks=options.tasks))
    except Exception as error:
        print(f"COULD-NOT-JUDGE: store `{clean(store, 1000)}`: {said(error)}", file=sys.stderr)
        report = unjudged(store, error)
    if options.json:
        for finding in report["findings"]:
            finding["place"] = finding["place"].fields()
        print(json.dumps({**report, "verdict": WORDS[report["effect"]]}), flush=True)
    elif "error" not in report:
        show(report)
    return report["effect"]


def main():
    options = arguments()
    try:
        trust, form = trust_of(options.trust, options.store), Form(Path(options.format_text))
    except Exception as error:
        print(f"COULD-NOT-JUDGE: trust file `{options.trust}`, or the format's text: {said(error)}", file=sys.stderr)
        return 2
    try:
        spark, job = session()
    except Exception as error:
        print(f"COULD-NOT-JUDGE: no Spark session: {said(error)}", file=sys.stderr)
        return 2
    worst = max(judge(spark, job, store, trust, form, options) for store in options.store)
    with contextlib.suppress(Exception):
        spark.stop()
    return {0: 0, UNJUDGED: 2}.get(worst, 1)


if __name__ == "__main__":
    try:
        code = main()
    except Exception as error:
        # 1 says that something was found in the evidence: only a verdict may say so.
        print(f"COULD-NOT-JUDGE: {said(error)}", file=sys.stderr)
        code = 2
    sys.exit(code)
