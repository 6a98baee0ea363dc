#!/usr/bin/env python3
"""Grafana's dashboards of Affidavit: this file is their source, the JSON beside it is what it makes.

    dashboards.py             writes the JSON files
    dashboards.py --queries   prints every query with its panel, for the test that runs them against a real Prometheus

The dashboard of logs asks a Loki, to which a sink of the gateways' tap pushes; `tests/run loki` runs its queries against a real one.

Every query must return data there, on real traffic and real failures, and something that is not 0. Where 0 is the right
answer, or nothing can be shown before something happened, a panel says so by `calm`, with the reason.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
WIDTH = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
LOKI = {"type": "loki", "uid": "${datasource}"}
# `$instance` chooses processes; Grafana puts the others in.
OF = 'instance=~"$instance"'
RATE = "[$__rate_interval]"
RANGE = "[$__range]"


@dataclass
class Panel:
    title: str
    says: str
    queries: list
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 12
    height: int = 8
    calm: str = ""
    # Values from which on a panel turns yellow and red.
    warn: float | None = None
    bad: float | None = None
    stack: bool = False
    # Values may be below 0.
    signed: bool = False


@dataclass
class Row:
    title: str
    panels: list = field(default_factory=list)


@dataclass
class Dashboard:
    name: str
    title: str
    says: str
    rows: list
    # The metric whose instances may be chosen.
    instances: str = "gateway_ready"
    # Where its panels ask.
    source: dict = field(default_factory=lambda: SOURCE)


def stat(title, says, expr, legend="", **more):
    return Panel(title, says, [(expr, legend)], kind="stat", **{"width": 6, "height": 4, **more})


def rate(metric, *by, where="", times=""):
    """The rate of a counter, summed by labels."""
    return f"sum by ({', '.join(by)}) (rate({chosen(metric, where)}{RATE})){times}"


def grown(metric, *by, where=""):
    """How much a counter grew in the time that is shown, summed by labels."""
    return f"sum by ({', '.join(by)}) (increase({chosen(metric, where)}{RANGE}))"


def chosen(metric, where=""):
    return f"{metric}{{{', '.join(part for part in (OF, where) if part)}}}"


def quantile(share, metric, *by):
    return f"histogram_quantile({share}, sum by ({', '.join((*by, 'le'))}) (rate({chosen(metric + '_bucket')}{RATE})))"


def quantiles(metric):
    return [(quantile(share, metric), name) for share, name in ((0.5, "half"), (0.95, "95 %"), (0.99, "99 %"))]


def total(metric, where="", over=RATE):
    """The same of all that is chosen, as one number: a rate, or the growth in the time that is shown."""
    return f"sum ({'rate' if over == RATE else 'increase'}({chosen(metric, where)}{over}))"


def share(part, whole):
    return f"{part} / ({whole} > 0)"


def named(expr, label, empty):
    """A name in the place of an empty label."""
    return f'label_replace({expr}, "{label}", "{empty}", "{label}", "")'


NO_TEAM = "(no team)"

COST = Dashboard(
    "cost",
    "Affidavit: cost",
    "What models cost, whose cost it is, and what could not be priced. The evidence counts, not these figures: `auditor cost` reports from it.",
    [
        Row(
            "Cost",
            [
                stat("Cost in this time", "By currency.", grown("gateway_cost_total", "currency"), "{{currency}}"),
                stat("Cost an hour, now", "By currency, at the rate of the last minutes.", rate("gateway_cost_total", "currency", times=" * 3600"), "{{currency}}"),
                stat(
                    "Cost of an exchange",
                    "Of all exchanges that ended, free ones too.",
                    f"{rate('gateway_cost_total', 'currency')} / on () group_left () {total('gateway_exchanges_total')}",
                    "{{currency}}",
                ),
                stat(
                    "Exchanges without a price",
                    "They may have cost something: the book has no price, or no usage came. What is shown as cost leaves them out.",
                    grown("gateway_unpriced_exchanges_total", "reason"),
                    "{{reason}}",
                    warn=1,
                ),
                Panel("Cost an hour by route", "", [(rate("gateway_cost_total", "route", "currency", times=" * 3600"), "{{route}} {{currency}}")], stack=True),
                Panel(
                    "Cost an hour by team",
                    "The team that the caller's key, or the route, says. What a caller asserts is in the evidence and not here.",
                    [(named(rate("gateway_cost_by_team_total", "team", "currency", times=" * 3600"), "team", NO_TEAM), "{{team}} {{currency}}")],
                    stack=True,
                ),
                Panel(
                    "Cost in this time by model",
                    "The 20 dearest rows of the price book.",
                    [(f"topk(20, {grown('gateway_cost_by_price_total', 'price', 'currency')})", "{{price}} {{currency}}")],
                    kind="bargauge",
                ),
                Panel(
                    "Cost in this time by team",
                    "The 20 dearest teams.",
                    [(named(f"topk(20, {grown('gateway_cost_by_team_total', 'team', 'currency')})", "team", NO_TEAM), "{{team}} {{currency}}")],
                    kind="bargauge",
                ),
            ],
        ),
        Row(
            "Tokens",
            [
                Panel("Tokens a second by class", "Each token is in one class. `input` is what was not read from a cache.", [(rate("gateway_tokens_total", "class"), "{{class}}")], stack=True),
                Panel("Tokens a second by route", "All classes.", [(rate("gateway_tokens_total", "route"), "{{route}}")], stack=True),
                Panel(
                    "Share of input that came from a cache",
                    "By route. Cached input costs a fraction.",
                    [
                        (share(rate("gateway_tokens_total", "route", where='class="cache_read"'), rate("gateway_tokens_total", "route", where='class!="output"')), "{{route}}")
                    ],
                    unit="percentunit",
                ),
                Panel(
                    "Answers whose caller had left",
                    "They are read on for their usage: `usage` came, or `none`. What was left early is paid for all the same.",
                    [(rate("gateway_drains_total", "reason"), "{{reason}}")],
                    unit="reqps",
                ),
            ],
        ),
    ],
)

TRAFFIC = Dashboard(
    "traffic",
    "Affidavit: traffic and latency",
    "How much goes through the gateways, how it ends, how long callers wait, and what the evidence adds to that.",
    [
        Row(
            "Traffic",
            [
                stat("Exchanges a second", "Exchanges that ended.", total("gateway_exchanges_total"), unit="reqps"),
                stat(
                    "Complete",
                    "Share of the exchanges in this time whose answer went to its end.",
                    share(total("gateway_exchanges_total", 'end="complete"', RANGE), total("gateway_exchanges_total", over=RANGE)),
                    unit="percentunit",
                ),
                stat("Under way", "Exchanges between intent and outcome.", f"sum ({chosen('gateway_exchanges_open')})"),
                stat("Connections", "Connections of callers.", f"sum ({chosen('gateway_caller_connections')})"),
                Panel("Exchanges a second by route", "", [(rate("gateway_exchanges_total", "route"), "{{route}}")], unit="reqps", stack=True),
                Panel("Exchanges a second by status", "The class of the status that the caller got; `none`: it left before.", [(rate("gateway_exchanges_total", "status"), "{{status}}")], unit="reqps", stack=True),
                Panel("Exchanges a second by gateway", "", [(rate("gateway_exchanges_total", "instance"), "{{instance}}")], unit="reqps", stack=True),
                Panel("Exchanges under way by gateway", "", [(chosen("gateway_exchanges_open"), "{{instance}}")], stack=True),
            ],
        ),
        Row(
            "Waiting",
            [
                Panel("Waiting for the first byte", "From the request's head to the first byte of the provider's body.", quantiles("gateway_time_to_first_byte_seconds"), unit="s"),
                Panel("Time to the first token", "From the request's head to the first event with model output: streams only.", quantiles("gateway_time_to_first_token_seconds"), unit="s"),
                Panel("Waiting for the first byte by route, 95 %", "", [(quantile(0.95, "gateway_time_to_first_byte_seconds", "route"), "{{route}}")], unit="s"),
                Panel("Time to the first token by route, 95 %", "", [(quantile(0.95, "gateway_time_to_first_token_seconds", "route"), "{{route}}")], unit="s"),
                Panel(
                    "Time to the first token, how often",
                    "",
                    [(f"sum by (le) (increase({chosen('gateway_time_to_first_token_seconds_bucket')}{RATE}))", "{{le}}")],
                    kind="heatmap",
                    unit="s",
                ),
                Panel("Whole exchange by route, 95 %", "From the request's head to the known end.", [(quantile(0.95, "gateway_exchange_duration_seconds", "route"), "{{route}}")], unit="s"),
                Panel("What the evidence adds", "How long an intent waits until it is on stable storage: no request leaves before.", quantiles("gateway_intent_commit_seconds"), unit="s"),
                Panel("Output tokens a second", "By route.", [(rate("gateway_tokens_total", "route", where='class="output"'), "{{route}}")]),
            ],
        ),
    ],
)

FAILED = 'answer=~"5xx|429|cut|timeout|unreachable"'
PROVIDERS = Dashboard(
    "providers",
    "Affidavit: providers and failures",
    "What providers answer, which of them fail and how, what fails before it reaches one, and which processes are down.",
    [
        Row(
            "Providers",
            [
                Panel(
                    "Failing answers by provider",
                    "Share of answers with 5xx or 429, cut, too late, or not to be had. 429 is the provider's limit, not its fault.",
                    [(share(rate("gateway_provider_answers_total", "provider", where=FAILED), rate("gateway_provider_answers_total", "provider")), "{{provider}}")],
                    unit="percentunit",
                    warn=0.01,
                    bad=0.1,
                ),
                Panel("Answers a second by provider", "", [(rate("gateway_provider_answers_total", "provider"), "{{provider}}")], unit="reqps", stack=True),
                Panel(
                    "Failing answers by kind",
                    "`cut`: the answer began and did not end. `timeout`: over `limits.first_byte` or `limits.idle`. `unreachable`: no connection.",
                    [(rate("gateway_provider_answers_total", "provider", "answer", where=FAILED) + " > 0", "{{provider}} {{answer}}")],
                    unit="reqps",
                ),
                Panel("Refused as too many (429)", "", [(rate("gateway_provider_answers_total", "provider", where='answer="429"'), "{{provider}}")], unit="reqps"),
                Panel(
                    "All answers in this time",
                    "",
                    [(grown("gateway_provider_answers_total", "provider", "answer") + " > 0", "{{provider}} {{answer}}")],
                    kind="bargauge",
                ),
                Panel("Waiting for the first byte by route, 95 %", "A provider that gets slow is seen here first.", [(quantile(0.95, "gateway_time_to_first_byte_seconds", "route"), "{{route}}")], unit="s"),
            ],
        ),
        Row(
            "What callers saw",
            [
                Panel(
                    "Exchanges that did not end well",
                    "`client_abort`: the caller left. `provider_abort`, `unreachable`, `timeout`: the provider. `gateway_abort`: the gateway ended it.",
                    [(rate("gateway_exchanges_total", "route", "end", where='end!="complete"'), "{{route}} {{end}}")],
                    unit="reqps",
                ),
                Panel(
                    "5xx by route",
                    "Share of the exchanges that reached a provider.",
                    [(share(rate("gateway_exchanges_total", "route", where='status="5xx"'), rate("gateway_exchanges_total", "route")), "{{route}}")],
                    unit="percentunit",
                ),
                Panel("Failures below HTTP in this time", "What never became a request: no HTTP, failed handshakes, heads that do not come.", [(grown("gateway_failures_total", "reason"), "{{reason}}")], kind="bargauge"),
                Panel("Processes", "1: Prometheus reads it.", [('up{job=~"affidavit-.*"}', "{{job}} {{instance}}")]),
                Panel("What gateways do", "1 for `starting` (recovery), `serving` or `draining`.", [(f"{chosen('gateway_phase')} == 1", "{{instance}} {{state}}")]),
                Panel(
                    "Clocks",
                    "How far each clock is from Prometheus' own. Times in the evidence come from them.",
                    [
                        (f"{chosen(name)} - timestamp({chosen(name)})", "{{instance}}")
                        for name in ("gateway_clock_timestamp_seconds", "gateway_archive_clock_timestamp_seconds", "gateway_registrar_clock_timestamp_seconds")
                    ],
                    unit="s",
                    signed=True,
                ),
            ],
        ),
    ],
    instances='up{job=~"affidavit-.*"}',
)

NO_KAFKA = "the test's gateway writes into a folder"
EVIDENCE = Dashboard(
    "evidence",
    "Affidavit: evidence health",
    "Whether every exchange is written down, how far it is on its way into the archive, what stands in that way, and whether the registry is witnessed.",
    [
        Row(
            "Now",
            [
                stat("Gateways that are ready", "They admit new exchanges.", f"sum ({chosen('gateway_ready')})"),
                stat("Oldest record not archived", "Of all gateways.", f"max ({chosen('gateway_oldest_unarchived_seconds')})", unit="s", warn=900, bad=3600, calm="a record is archived within a second"),
                stat(
                    "Exchanges without a record",
                    "In this time, on routes with `fail_mode: open`.",
                    total("gateway_unrecorded_exchanges_total", over=RANGE),
                    bad=1,
                    calm="no route of the test has `fail_mode: open`",
                ),
                stat(
                    "Logs that are lost or stopped",
                    "Lost: silent past their bounds, as the store shows. Stopped: journal and store do not agree. Someone must act.",
                    "(sum (" + chosen("gateway_earlier_logs", 'state="stopped"') + ') or vector(0)) + (sum (gateway_registrar_logs{state="lost"}) or vector(0))',
                    bad=1,
                    calm="no log is lost",
                ),
            ],
        ),
        Row(
            "From the exchange to the archive",
            [
                Panel("Records behind", "Journaled, and not yet sealed, shipped, archived.", [(f"sum by (mark) ({chosen('gateway_records_behind')})", "{{mark}}")], calm="what waits here for a second is gone"),
                Panel("Records up to each mark", "Of the logs that are written now.", [(f"sum by (mark) ({chosen('gateway_records')})", "{{mark}}")]),
                Panel(
                    "Age of the oldest record that waits",
                    "Unsealed: in the journal only. Unshipped: on this disk only. Unarchived: the store has not confirmed it.",
                    [(f"max (gateway_oldest_{what}_seconds{{{OF}}})", what) for what in ("unsealed", "unshipped", "unarchived")],
                    unit="s",
                    warn=900,
                    calm="what waits here for a second is gone",
                ),
                Panel(
                    "Refusing for want of evidence",
                    "1: no evidence can be written, for this reason, and traffic is refused.",
                    [(f"max by (instance, reason) ({chosen('gateway_evidence_unavailable')})", "{{instance}} {{reason}}")],
                    bad=1,
                    calm="evidence can be written",
                ),
                Panel("What keeps the store away", "1 for the reason.", [(f"max by (instance, reason) ({chosen('gateway_store_trouble')})", "{{instance}} {{reason}}")], bad=1, calm="the store is back"),
                Panel("Batches that the store did not take", "They wait in the spool, and are tried again.", [(rate("gateway_store_failures_total", "instance", "reason"), "{{instance}} {{reason}}")]),
            ],
        ),
        Row(
            "Room",
            [
                Panel(
                    "Spool",
                    "Batches on their way out, as a share of `spool_bound`. At 1 traffic is refused.",
                    [(f"{chosen('gateway_spool_bytes')} / {chosen('gateway_spool_bound_bytes')}", "{{instance}}")],
                    unit="percentunit",
                    warn=0.5,
                    bad=0.9,
                    calm="the spool is empty",
                ),
                Panel("Spool full in", "If it goes on as in the last minutes. Nothing: it does not fill.", [(f"min by (instance) ({chosen('gateway_spool_full_in_seconds')})", "{{instance}}")], unit="s", calm="it does not fill"),
                Panel("Journal", "", [(chosen("gateway_journal_bytes"), "{{instance}}")], unit="bytes"),
                Panel("Free space", "Where the folders are.", [(f"min by (instance, folder) ({chosen('gateway_disk_free_bytes')})", "{{instance}} {{folder}}")], unit="bytes"),
            ],
        ),
        Row(
            "Commit through Kafka, erasure, earlier logs",
            [
                Panel("Age of the lease", "With `commit: kafka`: beyond the lease traffic is refused.", [(chosen("gateway_commit_lease_age_seconds"), "{{instance}}")], unit="s", calm=NO_KAFKA),
                Panel("Not committed", "Bytes that the brokers have not acknowledged.", [(chosen("gateway_uncommitted_bytes"), "{{instance}}")], unit="bytes", calm=NO_KAFKA),
                Panel("Erasures due", "Recorded, and the key is not destroyed yet.", [(chosen("gateway_erasures_due"), "{{instance}}")], bad=1, calm="nothing is erased"),
                Panel("Logs of earlier processes", "Waiting for recovery or store, running while they drain, or stopped.", [(f"sum by (instance, state) ({chosen('gateway_earlier_logs')})", "{{instance}} {{state}}")], calm="there is one process"),
                Panel(
                    "Forged messages in this time",
                    "Receipts and commit messages that nobody with a key wrote.",
                    [(total("gateway_receipts_forged_total", over=RANGE), "receipts"), (total("gateway_commit_messages_forged_total", over=RANGE), "commit")],
                    bad=1,
                    calm="nobody forges",
                ),
            ],
        ),
        Row(
            "Live tap",
            [
                Panel("Sinks: age of the oldest leaf", "That the sink has not acknowledged.", [(f"max by (instance, sink) ({chosen('gateway_tap_oldest_seconds')})", "{{instance}} {{sink}}")], unit="s", calm="the sink takes all at once"),
                Panel("Sinks: leaves a second", "", [(rate("gateway_tap_sent_total", "sink"), "{{sink}}")]),
                Panel("Sinks: tries that failed in this time", "", [(grown("gateway_tap_errors_total", "sink", "reason"), "{{sink}} {{reason}}")], kind="bargauge"),
                Panel("Sinks: gaps in this time", "Leaves that a sink does not get. The evidence has them.", [(grown("gateway_tap_gap_total", "sink"), "{{sink}}")], bad=1, calm="the sink misses nothing"),
            ],
        ),
        Row(
            "OpenTelemetry",
            [
                Panel("Collector: exchanges a second", "By what became of their spans. The evidence has those that were dropped too.", [(rate("gateway_otlp_exchanges_total", "result"), "{{result}}")]),
                Panel("Collector: tries that failed in this time", "Of spans and of metrics, with the reason.", [(grown("gateway_otlp_failures_total", "signal", "reason"), "{{signal}} {{reason}}")], kind="bargauge", bad=1),
            ],
        ),
        Row(
            "Archivers",
            [
                Panel(
                    "Archivers: behind the topic",
                    "How long the message read last had been in the topic, and since when the oldest unsettled one is here.",
                    [("gateway_archive_read_lag_seconds", "read {{instance}}"), ("gateway_archive_oldest_open_seconds", "open {{instance}}")],
                    unit="s",
                    warn=900,
                    calm=NO_KAFKA,
                ),
                Panel("Archivers: records a second", "", [("sum by (instance) (rate(gateway_archive_records_total[$__rate_interval]))", "{{instance}}")], calm=NO_KAFKA),
                Panel(
                    "Archivers: what was set aside in this time",
                    "By fault. It was not archived; someone should look.",
                    [("sum by (instance, fault) (increase(gateway_archive_set_aside_total[$__range])) or on (instance) sum by (instance) (gateway_archive_reading) * 0", "{{instance}} {{fault}}")],
                    bad=1,
                    calm=NO_KAFKA,
                ),
                Panel(
                    "Archivers: room",
                    "Share of `work_bound` and `quarantine_bound`.",
                    [
                        ("gateway_archive_work_bytes / gateway_archive_work_bound_bytes", "work {{instance}}"),
                        ("gateway_archive_quarantine_bytes / gateway_archive_quarantine_bound_bytes", "quarantine {{instance}}"),
                    ],
                    unit="percentunit",
                    warn=0.5,
                    bad=0.9,
                    calm=NO_KAFKA,
                ),
            ],
        ),
        Row(
            "Registry",
            [
                Panel("Logs by state", "As the store shows them: `open`, `closed`, `lost`.", [("sum by (gateway, state) (gateway_registrar_logs)", "{{gateway}} {{state}}")]),
                Panel("Age of each gateway's newest seal", "In the store.", [("time() - max by (gateway) (gateway_registrar_log_sealed_timestamp_seconds)", "{{gateway}}")], unit="s", warn=1800),
                Panel("Registrars: rounds in this time", "", [("sum by (result) (increase(gateway_registrar_rounds_total[$__range]))", "{{result}}")], kind="bargauge"),
                Panel("Age of the witnesses' word", "Of the newest registry that each witness or authority gave its word on.", [("time() - max by (by) (gateway_registrar_anchored_sealed_timestamp_seconds)", "{{by}}")], unit="s", warn=93600),
            ],
        ),
    ],
)

AUTH = 'reason=~"missing_key|unknown_key|revoked_key|expired_key"'
POLICY = Dashboard(
    "policy",
    "Affidavit: policy and refusals",
    "What the policy decides and which rule decided, and everything else that the gateway refuses.",
    [
        Row(
            "Policy",
            [
                stat("Denied", "In this time. They were refused with 403.", total("gateway_policy_verdicts_total", 'decision="deny"', RANGE)),
                stat(
                    "Would be denied",
                    "In this time, of a policy that only observes: they passed.",
                    total("gateway_policy_verdicts_total", 'decision="would_deny"', RANGE) + " or vector(0)",
                ),
                stat(
                    "Share of requests against the policy",
                    "Denied, or it would be.",
                    share(total("gateway_policy_verdicts_total", 'decision!="allow"', RANGE), total("gateway_policy_verdicts_total", over=RANGE)),
                    unit="percentunit",
                ),
                stat("Refused a second", "All reasons.", total("gateway_refusals_total"), unit="reqps"),
                Panel("Verdicts a second", "", [(rate("gateway_policy_verdicts_total", "decision"), "{{decision}}")], unit="reqps", stack=True),
                Panel("Rules that denied", "In this time, or would have. `default`: no rule speaks about the request.", [(grown("gateway_policy_verdicts_total", "rule", "decision", where='decision!="allow"') + " > 0", "{{rule}} {{decision}}")], kind="bargauge"),
                Panel("Rules that allowed", "In this time.", [(grown("gateway_policy_verdicts_total", "rule", where='decision="allow"') + " > 0", "{{rule}}")], kind="bargauge"),
                Panel("Against the policy, by rule", "A second.", [(rate("gateway_policy_verdicts_total", "rule", "decision", where='decision!="allow"'), "{{rule}} {{decision}}")], unit="reqps", stack=True),
            ],
        ),
        Row(
            "Refusals",
            [
                Panel("Refusals a second by reason", "", [(rate("gateway_refusals_total", "reason"), "{{reason}}")], unit="reqps", stack=True),
                Panel("Refusals in this time", "", [(grown("gateway_refusals_total", "reason"), "{{reason}}")], kind="bargauge"),
                Panel("Callers without a key that counts", "A flood of `unknown_key` may be someone who tries keys.", [(rate("gateway_refusals_total", "reason", where=AUTH), "{{reason}}")], unit="reqps"),
                Panel("Reloads in this time", "`refused`: the old configuration and policy rule on.", [(grown("gateway_reloads_total", "instance", "result"), "{{instance}} {{result}}")], kind="bargauge"),
            ],
        ),
    ],
)



def logged(kind, *stages):
    """Entries of some kinds, of the gateways that are chosen."""
    return " ".join((f'{{service_name="affidavit", deployment=~"$deployment", gateway=~"$gateway", kind=~"{kind}"}}', *stages))


def counted(kind, *stages, by):
    return f"sum by ({by}) (count_over_time({logged(kind, *stages)} [$__auto]))"


# What nobody typed lets everything through, entries that have no such field too.
CHOSEN = '| consumer=~"$consumer" | model=~"$model" | exchange=~"$exchange"'
ALARM = '| level=~"warn|error|critical"'
A_VIEW = "What Loki has is a view and no evidence: the archive counts, and `auditor verify` says whether it is whole."
QUIET = "nothing was lost in the test"


def log(title, says, expr, **more):
    return Panel(title, says, [(expr, "")], kind="logs", **{"width": 24, "height": 12, **more})


LOGS = Dashboard(
    "logs",
    "Affidavit: logs",
    "Exchanges, refusals, errors of providers and alarms of the evidence, one line each, without any content. " + A_VIEW,
    [
        Row(
            "Exchanges",
            [
                Panel("Exchanges by end", "", [(counted("outcome", CHOSEN, by="end"), "{{end}}")], stack=True, width=8),
                Panel("Cost by consumer", "", [(f"sum by (consumer, currency) (sum_over_time({logged('outcome', CHOSEN, '| cost!=``', '| unwrap cost')} [$__auto]))", "{{consumer}} {{currency}}")], stack=True, width=8),
                Panel("Whole exchange by model, 95 %", "", [(f"quantile_over_time(0.95, {logged('outcome', CHOSEN, '| total_ms!=``', '| unwrap total_ms')} [$__auto]) by (model)", "{{model}}")], unit="ms", width=8),
                log("Exchanges", "How each ended. Open a line for its fields: origin, position and leaf hash find it in the archive. " + A_VIEW, logged("outcome", CHOSEN)),
            ],
        ),
        Row(
            "What went wrong",
            [
                Panel("Refusals by reason", "What the gateways refused. Many at once are folded into one record with a count.", [(counted("refusal", by="reason"), "{{reason}}")], stack=True),
                Panel("Errors of providers", "By status and the provider's own word.", [(counted("outcome", '| provider_status=~"[45].."', by="provider, provider_status, error"), "{{provider}} {{provider_status}} {{error}}")], stack=True),
                log("Refusals", "", logged("refusal", CHOSEN), height=9),
                log("Exchanges that failed", "Cut, too late, not to be reached, or answered with 4xx and 5xx; not those whose caller left.", logged("outcome", CHOSEN, ALARM), height=9),
            ],
        ),
        Row(
            "Evidence",
            [
                log("Alarms", "What is not in the log, ends that were no shutdown, and leaves that this Loki did not get (`tap_gap`). Someone must look.", logged("gap|close|tap_gap", ALARM), height=9, calm=QUIET),
                log("Life of the logs", "Starts, configurations, keys, erasures, holds and ends.", logged("boot|config|admin|erasure|hold|close"), height=9),
            ],
        ),
    ],
    source=LOKI,
)

ALL = [COST, TRAFFIC, PROVIDERS, EVIDENCE, POLICY, LOGS]


def steps(panel):
    found = [{"color": "green", "value": None}]
    for color, value in (("orange", panel.warn), ("red", panel.bad)):
        if value is not None:
            found.append({"color": color, "value": value})
    return found


def options(panel):
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if panel.kind == "stat":
        graded = panel.warn is not None or panel.bad is not None
        return {"reduceOptions": last, "colorMode": "value" if graded else "none", "graphMode": "area", "textMode": "auto", "orientation": "auto", "justifyMode": "auto"}
    if panel.kind == "bargauge":
        return {"reduceOptions": last, "displayMode": "basic", "orientation": "horizontal", "valueMode": "color", "showUnfilled": True, "minVizHeight": 16, "minVizWidth": 8}
    if panel.kind == "heatmap":
        return {"calculate": False, "yAxis": {"unit": panel.unit}, "tooltip": {"mode": "single", "yHistogram": False}, "legend": {"show": True}}
    if panel.kind == "logs":
        return {"showTime": True, "showLabels": False, "showCommonLabels": False, "wrapLogMessage": True, "prettifyLogMessage": False, "enableLogDetails": True, "dedupStrategy": "none", "sortOrder": "Descending"}
    return {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}, "tooltip": {"mode": "multi", "sort": "desc"}}


def drawn(panel):
    """How the values of a panel look."""
    field = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps(panel)}}
    if panel.kind == "timeseries":
        if not panel.signed:
            field["min"] = 0
        field["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 20 if panel.stack else 5,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if len(steps(panel)) > 1 else "off"},
        }
    return {"defaults": field, "overrides": []}


def asked_of_loki(index, expr, legend):
    found = {"datasource": LOKI, "refId": "ABCDEFGH"[index], "editorMode": "code", "expr": expr, "queryType": "range"}
    return {**found, "legendFormat": legend} if legend else found


def target(dashboard, panel, index, expr, legend):
    if dashboard.source == LOKI:
        return asked_of_loki(index, expr, legend)
    over_range = panel.kind in ("stat", "bargauge")
    return {
        "datasource": SOURCE,
        "refId": "ABCDEFGH"[index],
        "editorMode": "code",
        "expr": expr,
        "legendFormat": legend or "__auto",
        "range": not over_range,
        "instant": over_range,
        "format": "heatmap" if panel.kind == "heatmap" else "time_series",
    }


def panels(dashboard):
    made, y, number = [], 0, 0
    for row in dashboard.rows:
        number += 1
        made.append({"type": "row", "id": number, "title": row.title, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})
        x, y, height = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y, height = 0, y + height, 0
            number += 1
            made.append(
                {
                    "type": panel.kind,
                    "id": number,
                    "title": panel.title,
                    "description": panel.says,
                    "datasource": dashboard.source,
                    "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
                    "fieldConfig": drawn(panel),
                    "options": options(panel),
                    "targets": [target(dashboard, panel, index, expr, legend) for index, (expr, legend) in enumerate(panel.queries)],
                }
            )
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return made


def typed_by_label(label, title):
    """Values of a label, as Loki has them."""
    return {
        "name": label,
        "label": title,
        "type": "query",
        "datasource": LOKI,
        "query": {"label": label, "refId": label, "stream": '{service_name="affidavit"}', "type": 1},
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "regex": "",
        "options": [],
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def typed_by_hand(name, title):
    """A regular expression."""
    every = {"text": ".*", "value": ".*", "selected": True}
    return {"name": name, "label": title, "type": "textbox", "query": ".*", "hide": 0, "options": [every], "current": every}


def variables_of_logs():
    source = {"name": "datasource", "label": "Loki", "type": "datasource", "query": "loki", "refresh": 1, "hide": 0, "multi": False, "includeAll": False, "regex": "", "options": [], "current": {}}
    chosen = [typed_by_label("deployment", "Deployment"), typed_by_label("gateway", "Gateway")]
    return [source, *chosen, *(typed_by_hand(name, name.capitalize()) for name in ("consumer", "model", "exchange"))]


def variables(dashboard):
    if dashboard.source == LOKI:
        return variables_of_logs()
    instances = f"label_values({dashboard.instances}, instance)"
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1, "hide": 0, "multi": False, "includeAll": False, "regex": "", "options": [], "current": {}},
        {
            "name": "instance",
            "label": "Process",
            "type": "query",
            "datasource": SOURCE,
            "query": {"query": instances, "refId": "instances", "qryType": 1},
            "refresh": 2,
            "sort": 1,
            "hide": 0,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "regex": "",
            "options": [],
            "current": {"text": ["All"], "value": ["$__all"]},
        },
    ]


def dashboard_json(dashboard):
    return {
        "uid": f"affidavit-{dashboard.name}",
        "title": dashboard.title,
        "description": dashboard.says,
        "tags": ["affidavit"],
        "schemaVersion": 42,
        "version": 1,
        "id": None,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "annotations": {"list": []},
        "links": [{"type": "dashboards", "title": "Affidavit", "tags": ["affidavit"], "asDropdown": True, "includeVars": False, "keepTime": True, "targetBlank": False, "icon": "", "tooltip": "", "url": ""}],
        "templating": {"list": variables(dashboard)},
        "panels": panels(dashboard),
    }


def text(dashboard):
    return json.dumps(dashboard_json(dashboard), indent=1, ensure_ascii=False) + "\n"


def queries():
    found = []
    for dashboard in ALL:
        for panel in (panel for row in dashboard.rows for panel in row.panels):
            found += [{"dashboard": dashboard.name, "panel": panel.title, "expr": expr, "legend": legend, "calm": panel.calm, "source": dashboard.source["type"]} for expr, legend in panel.queries]
    return found


def main():
    if sys.argv[1:] == ["--queries"]:
        print(json.dumps(queries(), indent=1))
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        for dashboard in ALL:
            (HERE / f"{dashboard.name}.json").write_text(text(dashboard))


if __name__ == "__main__":
    main()
