"""FORMAT.md 3.11: legal holds, and what was erased while one covered it. By the records of proven batches alone."""

SLACK = 60_000_000


def is_by(a, b, slack):
    """Whether what stands at `a` was not later than `b`; places are (log, position, time), without a log where no record says so."""
    if a[0] is not None and a[0] == b[0]:
        return a[1] <= b[1]
    apart = a[0] and b[0] and a[0].rpartition("/")[0] != b[0].rpartition("/")[0]
    return a[2] <= b[2] + (slack if apart else 0)


def covers(scope, exchange, begun):
    """`begun`: subject, consumer and time of the exchange's first record."""
    subject, consumer, at = begun
    return (
        scope.get("exchange", exchange) == exchange
        and scope.get("subject", subject) == subject
        and scope.get("consumer", consumer) == consumer
        and scope.get("from", at) <= at
        and (("to" not in scope) or at < scope["to"])
    )


def in_force(said, when, slack):
    """The beginnings that may be in force (`slack` above 0), or must be (below)."""
    ends = [(place, one["hold"]) for place, one in said if one["phase"] == "end"]
    for place, one in said:
        if one["phase"] == "begin" and is_by(place, when, slack):
            over = (is_by(place, end, -slack) and is_by(end, when, -slack) for end, name in ends if name == one["hold"])
            if not any(over):
                yield one


def judge(logs, findings, now):
    """`logs`: content.Log of every log."""
    said, erased, begun = [], [], {}
    for log in logs:
        begun |= log.begun
        for position, record in log.ledger.items():
            kept = said if record["kind"] == "hold" else erased
            kept.append(((log.origin, position, record["at"]), record))
    erased = [(f"{when[0]}, position {when[1]}", when, one["exchange"], "an `erasure` record") for when, one in erased]
    for place, when, exchange, found in erased + list(untold(logs, now)):
        of = begun.get(exchange)
        for code, slack in (("ERASED_UNDER_HOLD", -SLACK), ("HOLD_ORDER_UNKNOWN", SLACK)):
            names = {one["hold"] for one in in_force(said, when, slack) if of and covers(one, exchange, of)}
            if names:
                expected = f"content that is kept, by legal hold {', '.join(sorted(names))}"
                findings.add(code, place, expected, found)
                break


def untold(logs, now):
    """Keys that are gone without a record of the exchange: gone with the first erasure under the key, else now."""
    told, went = set(), {}
    for log in logs:
        for position, record in log.ledger.items():
            if record["kind"] == "erasure":
                told.add((record["exchange"], record["content_key"]))
                when = log.origin, position, record["at"]
                went[record["content_key"]] = min(went.get(record["content_key"], when), when, key=lambda at: at[2])
    for log in logs:
        for (exchange, key), place in log.destroyed:
            if (exchange, key) not in told:
                yield place, went.get(key, (None, 0, now)), exchange, "a destroyed key, and no record of it"
