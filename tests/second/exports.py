"""Checks what `auditor export` and `auditor cost` wrote, by DuckDB and a JSON Schema: exports.py check DIR SCHEMA."""

import json
import sys
from decimal import Decimal
from pathlib import Path

import duckdb
import jsonschema

_, _, folder, schema = sys.argv
folder = Path(folder)


def sums(file: str, currency: str, cost: str) -> dict:
    read = "read_parquet" if file.endswith(".parquet") else "read_csv"
    options = "" if file.endswith(".parquet") else ", all_varchar=true"
    rows = duckdb.sql(
        f"SELECT {currency}, sum({cost}::DECIMAL(38,12)) FROM {read}('{folder / file}'{options}) "
        f"WHERE {currency} IS NOT NULL GROUP BY 1"
    ).fetchall()
    return {name: Decimal(total) for name, total in rows}


cost = sums("cost.csv", "currency", "cost")
assert cost and all(total > 0 for total in cost.values()), cost
for file in ["focus.csv", "focus.parquet"]:
    assert sums(file, "BillingCurrency", "BilledCost") == cost, (file, cost)
assert sums("savings.csv", "currency", "cost") == cost
# Today is all that there is: what was spent so far is all of the month.
assert sums("forecast.csv", "currency", "actual") == cost
assert sums("forecast.csv", "currency", "forecast")["USD"] >= cost["USD"]
wrong = duckdb.sql(
    f"SELECT count(*) FROM read_parquet('{folder}/focus.parquet') WHERE ListUnitPrice * PricingQuantity <> ListCost "
    "OR ChargePeriodStart > x_At OR ChargePeriodEnd <= x_At OR BillingPeriodStart > ChargePeriodStart "
    "OR ConsumedQuantity <> PricingQuantity * 1000000 OR json_extract_string(Tags, '$.consumer') <> 'tester'"
).fetchall()
assert wrong == [(0,)], wrong

events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
validator = jsonschema.Draft202012Validator(json.loads(Path(schema).read_text()))
for event in events:
    validator.validate(event)
kinds = [event["metadata"]["event_code"] for event in events]
assert kinds.count("outcome") == kinds.count("intent") == 13, kinds
print(f"{len(events)} events hold the schema; {cost} in every form")
