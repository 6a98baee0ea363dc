#!/usr/bin/env python3
"""The plan of deploy/SCALE.md, recomputed: `scale.py` prints its tables, `scale.py NAME=VALUE...` with your own numbers.

`scale.py --check FILE` fails where FILE quotes other tables than these, or where README.md says something else than a figure that
was measured; `--write FILE` puts the tables in.
"""

import math
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"
DAY, DAYS = 86_400, 30
GB, TB = 1e9, 1e12

MEASURED, CHOICE = "README, Measured", "chosen"
S3 = "https://aws.amazon.com/s3/pricing/"
EC2 = "https://www.factualminds.com/blog/amazon-ec2-on-demand-pricing-instance-families-2026/"
EBS = "https://aws.amazon.com/ebs/pricing/"
KMS = "https://www.wring.co/blog/aws-kms-pricing-guide"
ZONES = "https://finopsforge.com/reduce-aws-data-transfer-costs"

# name: (value, what it is, source, the README's own words where it was measured)
INPUTS = {
    "peak": (100_000, "exchanges a second at the peak", "what is planned", None),
    "month": (10_000_000_000, "exchanges in 30 days", "what is planned", None),
    "headroom": (0.5, "share of a core, and of the topic's disks, that is planned with", CHOICE, None),
    "answer_seconds": (10, "seconds that an answer streams", "an example", None),
    "consumers": (10_000, "callers with keys of their own", "an example", None),
    "content_days": (90, "days that content is kept", CHOICE, None),
    "records_days": (365, "days that records and seals are kept", CHOICE, None),
    "batch_age": (60, "seconds, `batch_age`", "default for a bucket", None),
    "batch_records": (50_000, "records at which a batch ends", "`deploy/README.md`", None),
    "batch_bytes": (64 * 2**20, "journaled bytes at which a batch ends", "default", None),
    "topic_days": (7, "days that the topic keeps, `outage`", "default", None),
    "thread_rate": (7_200, "exchanges a second of a gateway on one hyperthread", MEASURED, "7,200 to 7,400"),
    "streams": (9_750, "open streams of one gateway", MEASURED, "resident with 9,750 open streams"),
    "streams_mb": (717, "MB resident with them", MEASURED, "| 717 MB |"),
    "record_bytes": (510, "bytes of record files an exchange", MEASURED, "470 to 510 bytes"),
    "corpus_mb": (7.17, "MB, the recorded corpus as stored", MEASURED, "7.17 MB (8.06 MB without the dictionary)"),
    "corpus_records_mb": (0.96, "MB of it records", MEASURED, "0.96 MB records"),
    "corpus": (1_892, "exchanges in the corpus", MEASURED, "1,892 recorded OpenAI- and Anthropic-dialect exchanges"),
    "leaf_bytes": (2_674, "bytes of leaves an exchange, as they are hashed", MEASURED, "2,674 bytes of leaves"),
    "verify_rate": (53, "MB of leaves a core second, `auditor verify`", MEASURED, "53 to 58 MB/s, 1.3 cores used"),
    "spark_rate": (4.5, "MB of leaves a core second, the Spark job, on a machine with other jobs", MEASURED, "4.5 MB/s a core"),
    "sha_rate": (1_530, "MB a core second, SHA-256", MEASURED, "SHA-256 1,530 to 1,590 MB/s"),
    "broker_cpu": (6.3, "broker CPU, ms a MB, under its own producer (one replica)", MEASURED, "its broker 6.3 ms"),
    "archiver_cpu": (48, "archiver CPU, ms a MB of evidence", MEASURED, "archiver 48 ms"),
    "replicas": (3, "replicas of the topic", "`deploy/examples`", None),
    "put": (0.005, "USD a 1,000 PUT or LIST, us-east-1", S3, None),
    "get": (0.0004, "USD a 1,000 GET or HEAD", S3, None),
    "gb_month": (0.023, "USD a GB and month, S3 Standard, the first 50 TB", S3, None),
    "gb_month_next": (0.022, "USD, the next 450 TB", S3, None),
    "m7g_large": (0.0816, "USD an hour, m7g.large: 2 vCPU, 8 GiB", EC2, None),
    "gp3": (0.08, "USD a GB and month, EBS gp3", EBS, None),
    "kms": (0.03, "USD a 10,000 KMS requests", KMS, None),
    "zone": (0.02, "USD a GB from zone to zone, both directions", ZONES, None),
    "internet": (0.09, "USD a GB out to the internet", ZONES, None),
    "network": (12.5, "Gbit/s that one machine reads from S3", CHOICE, None),
}


def number(value):
    if isinstance(value, str):
        return value
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def usd(value):
    return f"{value:,.0f} USD" if value >= 10 else f"{value:.2f} USD"


def up(value, step=1):
    """Rounded up: there are no parts of machines."""
    return math.ceil(value / step - 1e-9) * step


class Plan:
    """Every figure of the plan from the inputs. `rows` are (what, formula, result)."""

    def __init__(self, values):
        self.__dict__.update(values)
        self.tables = {}
        self.traffic()
        self.gateways()
        self.objects()
        self.storage()
        self.kafka()
        self.keys()
        self.auditing()
        self.money()

    def table(self, name, rows):
        self.tables[name] = rows

    def traffic(self):
        self.content_bytes = (self.corpus_mb - self.corpus_records_mb) * 1e6 / self.corpus
        self.stored = self.record_bytes + self.content_bytes
        self.journaled = self.leaf_bytes + self.content_bytes
        self.average = self.month / (DAYS * DAY)
        self.month_bytes = self.month * self.stored
        self.table("traffic", [
            ("content an exchange, stored", "(corpus_mb - corpus_records_mb) / corpus", f"{self.content_bytes:,.0f} bytes"),
            ("evidence an exchange, stored", "record_bytes + content", f"{self.stored:,.0f} bytes"),
            ("on average", "month / 30 days", f"{self.average:,.0f} exchanges/s"),
            ("peak over average", "peak / average", f"{self.peak / self.average:.0f}x"),
            ("evidence at the peak", "peak x stored", f"{self.peak * self.stored / 1e6:,.0f} MB/s"),
            ("evidence in a month", "month x stored", f"{self.month_bytes / TB:,.1f} TB"),
        ])

    def gateways(self):
        self.fleet = up(self.peak / (self.thread_rate * self.headroom), 3)
        self.each = self.peak / self.fleet
        self.spool = self.each * self.stored * DAY
        self.table("gateways", [
            ("gateways, in threes for three zones", "peak / (thread_rate x headroom)", number(self.fleet)),
            ("each at the peak", "peak / gateways", f"{self.each:,.0f} exchanges/s, {self.each * self.stored / 1e6:.1f} MB/s of evidence"),
            ("each on average", "average / gateways", f"{self.average / self.fleet:,.0f} exchanges/s"),
            ("open streams, each", "each x answer_seconds", number(self.each * self.answer_seconds)),
            ("resident for them", "open streams x streams_mb / streams",
             f"{self.each * self.answer_seconds * self.streams_mb / self.streams / 1000:.1f} GB"),
            ("spool of a day at the peak", "each x stored x 24 h", f"{self.spool / GB:,.0f} GB"),
        ])

    def objects(self):
        full = min(self.batch_age, self.batch_records / (2 * self.each), self.batch_bytes / (self.each * self.journaled))
        by_time = self.fleet * DAYS * DAY / self.batch_age
        by_size = max(self.month * 2 / self.batch_records, self.month * self.journaled / self.batch_bytes)
        self.batches = by_time + by_size
        self.puts = 3 * self.batches
        self.table("objects", [
            ("a batch at the peak ends after", "min(batch_age, batch_records / 2 each, batch_bytes / (each x journaled))", f"{full:.1f} s"),
            ("PUTs at the peak", "3 x gateways / that", f"{3 * self.fleet / full:.0f} a second"),
            ("batches in a month, at most", "gateways x 30 days / batch_age + month x journaled / batch_bytes", number(self.batches)),
            ("objects: records, content, seal", "3 x batches", number(self.puts)),
            ("bytes of an object", "month's evidence / objects", f"{self.month_bytes / self.puts / 1e6:.1f} MB"),
        ])

    def storage(self):
        self.kept = self.month * (self.content_bytes * self.content_days + self.record_bytes * self.records_days) / DAYS
        self.table("storage", [
            ("kept once the retentions are reached", "month / 30 x (content x content_days + record_bytes x records_days)",
             f"{self.kept / TB:,.0f} TB"),
            ("of it records", "month / 30 x record_bytes x records_days",
             f"{self.month * self.record_bytes * self.records_days / DAYS / TB:,.0f} TB"),
        ])

    def kafka(self):
        flow = self.peak * self.stored / 1e6
        self.brokers = max(3, up(flow * self.broker_cpu / 1000 * self.replicas / self.headroom / 2, 3))
        self.archivers = up(flow * self.archiver_cpu / 1000 / self.headroom / 2)
        self.topic = self.month_bytes / DAYS * self.topic_days * self.replicas
        self.crossed = self.month_bytes * (2 / 3 + (self.replicas - 1) + 2 / 3)
        self.table("kafka", [
            ("messages of 896 KiB at the peak", "peak x stored / 917,504", f"{flow * 1e6 / 917_504:,.0f} a second"),
            ("partitions: one log is one partition", "4 x gateways, so that two logs seldom share one", number(4 * self.fleet)),
            ("brokers of 2 vCPU", "peak MB/s x broker_cpu x replicas / headroom / 2", number(self.brokers)),
            ("archivers of 2 vCPU", "peak MB/s x archiver_cpu / headroom / 2", number(self.archivers)),
            ("disks of the topic, all replicas", "month's evidence / 30 x topic_days x replicas", f"{self.topic / TB:,.1f} TB"),
            ("from zone to zone in a month", "month's evidence x (2/3 + (replicas - 1) + 2/3)", f"{self.crossed / TB:,.0f} TB"),
        ])

    def keys(self):
        slot = 64 + 4096 / 1024
        self.own_keys = self.month * slot * self.content_days / DAYS
        shared = self.consumers * self.fleet * slot * self.content_days
        self.table("keys", [
            ("key table, `keys: exchange`", "month / 30 x content_days x (64 + 4096 / 1024) bytes", f"{self.own_keys / GB:,.0f} GB"),
            ("its files, each gateway", "month / 30 x content_days / 1,024 / gateways",
             number(self.month * self.content_days / DAYS / 1024 / self.fleet)),
            ("key table, `keys: consumer_day`, at most", "consumers x gateways x content_days x (64 + 4096 / 1024) bytes",
             f"{shared / GB:,.1f} GB"),
        ])

    def auditing(self):
        leaves = self.month * self.leaf_bytes
        content = self.month * self.content_bytes / (self.sha_rate * 1e6) / 3600
        self.hours = leaves / (self.verify_rate * 1e6) / 3600 + content
        self.spark_hours = leaves / (self.spark_rate * 1e6) / 3600 + content
        gets = self.puts * self.get / 1000 + self.puts / 1000 * self.put / 1000
        locks = self.puts * self.get / 1000
        self.core = self.m7g_large / 2
        reading = self.month_bytes * 8 / (self.network * 1e9) / 3600
        self.table("auditing", [
            ("bytes read", "month's evidence", f"{self.month_bytes / TB:,.1f} TB, {leaves / TB:,.1f} TB of leaves hashed"),
            ("`auditor verify`, core hours", "month x leaf_bytes / verify_rate + content / sha_rate", number(self.hours)),
            ("one machine: the network alone", "month's evidence x 8 / network", f"{reading:.1f} h"),
            ("GETs and LISTs", "objects x get + objects / 1,000 x put", usd(gets)),
            ("lock states, `--lock-state all`", "objects x get", usd(locks)),
            ("machines, at list price", "core hours x m7g_large / 2", usd(self.hours * self.core)),
            ("read from outside of the region", "month's evidence x internet, at most", usd(self.month_bytes / GB * self.internet)),
            ("Spark, core hours", "month x leaf_bytes / spark_rate + content / sha_rate", number(self.spark_hours)),
            ("Spark on 256 cores", "core hours / 256", f"{self.spark_hours / 256:.1f} h"),
            ("Spark, machines at list price", "core hours x m7g_large / 2", usd(self.spark_hours * self.core)),
        ])

    def money(self):
        hours = DAYS * 24
        first = min(self.kept / GB, 50_000)
        stored = first * self.gb_month + max(0, self.kept / GB - 50_000) * self.gb_month_next
        rows = [
            ("gateways, the peak's fleet all month", "gateways x m7g_large x 720 h", self.fleet * self.m7g_large * hours),
            ("their disks: spool and journal", "gateways x 2 x spool x gp3", self.fleet * 2 * self.spool / GB * self.gp3),
            ("S3: PUT and HEAD of every object", "objects x (put + get)", self.puts * (self.put + self.get) / 1000),
            ("S3: storage in the steady state", "kept, by tiers", stored),
            ("key table with `keys: exchange`, on gp3", "its GB x gp3", self.own_keys / GB * self.gp3),
            ("KMS, without bucket keys", "objects x kms", self.puts * self.kms / 10_000),
        ]
        straight = sum(row[2] for row in rows)
        through = [
            ("brokers", "brokers x m7g_large x 720 h", self.brokers * self.m7g_large * hours),
            ("their disks", "topic x gp3 / headroom", self.topic / GB * self.gp3 / self.headroom),
            ("archivers", "archivers x m7g_large x 720 h", self.archivers * self.m7g_large * hours),
            ("from zone to zone", "crossed x zone", self.crossed / GB * self.zone),
        ]
        both = straight + sum(row[2] for row in through)
        million = self.month / 1e6
        self.table("money", [
            *((what, how, usd(cost)) for what, how, cost in rows),
            ("**straight into the bucket**", "sum", f"**{usd(straight)}**, {straight / million:.2f} USD a million exchanges"),
            *((what, how, usd(cost)) for what, how, cost in through),
            ("**through Kafka**", "sum", f"**{usd(both)}**, {both / million:.2f} USD a million exchanges"),
        ])


def inputs_table(values):
    lines = ["| input | value | what | source |", "|---|---|---|---|"]
    for name, (_, what, source, _) in INPUTS.items():
        lines.append(f"| `{name}` | {number(values[name])} | {what} | {source} |")
    return lines


def tables(values):
    """Name -> lines of the table."""
    out = {"inputs": inputs_table(values)}
    for name, rows in Plan(values).tables.items():
        out[name] = ["| figure | formula | result |", "|---|---|---|", *(f"| {what} | {how} | {result} |" for what, how, result in rows)]
    return out


def filled(text, made):
    """The document with the tables in their places."""
    for name, lines in made.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(f"`{name}` has no place, or two")
        head, rest = text.split(begin)
        text = head + begin + "\n".join(lines) + "\n" + end + rest.split(end, 1)[1]
    return text


def main(arguments):
    values = {name: value for name, (value, *_) in INPUTS.items()}
    if arguments[:1] in (["--check"], ["--write"]) and len(arguments) == 2:
        path = Path(arguments[1])
        text = path.read_text()
        computed = tables(values)
        made = filled(text, computed)
        if arguments[0] == "--write":
            path.write_text(made)
            return 0
        said = README.read_text()
        missing = [f"README.md does not say `{words}`, which `{name}` is taken from" for name, (*_, words) in INPUTS.items()
                   if words and words not in said]
        if made != text:
            missing.append(f"{path} quotes other tables: run `tests/bench/scale.py --write {path}`")
        print("\n".join(missing) or f"{len(computed)} tables of {len(values)} inputs as they are computed")
        return 1 if missing else 0
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name not in values:
            raise SystemExit(f"`{argument}` is no input: wanted NAME=VALUE with one of {', '.join(values)}")
        values[name] = float(value)
    for name, lines in tables(values).items():
        print(f"\n{name}\n" + "\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
