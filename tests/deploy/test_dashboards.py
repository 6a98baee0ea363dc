"""The dashboards of deploy/grafana, without a Prometheus: what tests/tests/prometheus/dashboards.rs asks of their queries is not here."""

import importlib.util
import json
import re

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from facts import DEPLOY, compose, documents, of_kind

FOLDER = DEPLOY / "grafana"
FILES = sorted(FOLDER.glob("*.json"))
each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def source():
    spec = importlib.util.spec_from_file_location("dashboards", FOLDER / "dashboards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_what_is_checked_in_is_what_the_source_makes():
    made = source()
    assert {f"{dashboard.name}.json": made.text(dashboard) for dashboard in made.ALL} == {file.name: file.read_text() for file in FILES}


@each
def test_every_panel_is_in_its_place(file):
    dashboard = json.loads(file.read_text())
    assert dashboard["uid"] == f"affidavit-{file.stem}" and dashboard["id"] is None
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
    titles = [panel["title"] for panel in panels(dashboard)]
    assert len(set(titles)) == len(titles)


@each
def test_panels_show_metrics_that_exist(file):
    known = set(re.findall(r"^\| `(gateway_\w+)`", (DEPLOY / "METRICS.md").read_text(), re.M))
    for panel in panels(json.loads(file.read_text())):
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            if target["datasource"]["type"] == "loki":
                assert '{service_name="affidavit"' in target["expr"], panel["title"]
                continue
            found = re.findall(r"gateway_\w+", target["expr"])
            assert found or target["expr"].startswith("up{"), panel["title"]
            assert {name.removesuffix("_bucket") for name in found} <= known, panel["title"]


def lost(ours, theirs, at=""):
    """What of ours is not, or not the same, in theirs."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [found for key, value in ours.items() for found in (lost(value, theirs[key], f"{at}.{key}") if key in theirs else [f"{at}.{key}"] if value is not None else [])]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [found for index, pair in enumerate(zip(ours, theirs)) for found in lost(*pair, f"{at}[{index}]")]
    return [] if ours == theirs else [at]


@each
def test_grafana_s_own_models_know_every_key(file):
    register_default_plugins()
    ours = json.loads(file.read_text())
    theirs = json.loads(JSONEncoder().encode(Dashboard.from_json(ours)))
    assert lost(ours, theirs) == []


def test_the_compose_file_gives_them_to_grafana(tmp_path):
    grafana = compose(tmp_path)["services"]["grafana"]
    mounted = {volume["target"]: volume["source"] for volume in grafana["volumes"] if volume["type"] == "bind"}
    (provided,) = yaml.safe_load(open(mounted["/etc/grafana/provisioning/dashboards/affidavit.yaml"]))["providers"]
    assert mounted[provided["options"]["path"]].endswith("/deploy/grafana")
    kinds = [entry["type"] for entry in yaml.safe_load(open(mounted["/etc/grafana/provisioning/datasources/affidavit.yaml"]))["datasources"]]
    assert {"prometheus", "loki"} <= set(kinds)


def test_the_chart_makes_a_config_map_of_each():
    given = [word for file in FILES for word in ("--set-file", f"monitoring.dashboards.{file.stem}={file}")]
    made = of_kind(documents(None, *given), "ConfigMap", "dashboards")
    assert {key: text for doc in made for key, text in doc["data"].items()} == {f"affidavit-{file.name}": file.read_text() for file in FILES}
    assert len(made) == len(FILES) and all(doc["metadata"]["labels"]["grafana_dashboard"] == "1" for doc in made)
    assert not of_kind(documents(None), "ConfigMap", "dashboards")
