"""What the tests of deploy/ read: the checkout, the tools, what is rendered, and bounds that the gateway's code has."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm/affidavit"
SETS = [None, *sorted(CHART.glob("ci/*.yaml"))]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "affidavit"
BINARIES = ROOT / "target/debug"
NAMESPACE = "egress"


def ran(*command, wanted=0, **more):
    """Runs a command; what it printed. Fails where it ends otherwise than wanted."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600, **more)
    said = done.stdout + done.stderr
    assert done.returncode == wanted, f"{command} ended with {done.returncode}:\n{said}"
    return done.stdout if wanted == 0 else said


def tool(name, version):
    """A program that `tests/run deploy` built."""
    path = CACHE / f"{name}-{version}" / name
    assert path.exists(), f"{path} is not there: `tests/run deploy` makes it"
    return path


def helm(command, *arguments, **more):
    # Built without its release's flags it takes the cluster for an old one.
    return ran(tool("helm", "v3.22.0"), command, "--kube-version", "1.33.0", *arguments, **more)


def rendered(values, *more):
    """The text of the chart with a set of values."""
    chosen = ["--values", values] if values else []
    return helm("template", "affidavit", CHART, "--namespace", NAMESPACE, *chosen, *more)


def documents(values, *more):
    """What the chart makes, as a list."""
    return [doc for doc in yaml.safe_load_all(rendered(values, *more)) if doc]


def of_kind(docs, kind, part=None):
    found = [doc for doc in docs if doc["kind"] == kind]
    return [doc for doc in found if part is None or doc["metadata"].get("labels", {}).get("app.kubernetes.io/component") == part]


def seconds(text):
    """A duration as `90s` or `2m` in seconds."""
    parts = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text)
    assert text and parts, f"`{text}` is no duration of minutes and seconds"
    return int(parts[1] or 0) * 60 + int(parts[2] or 0)


def by_default(key):
    """A duration of `limits` where it is not typed, in seconds: as gateway/src/config/defaults.rs has it."""
    text = (ROOT / "gateway/src/config/defaults.rs").read_text()
    return int(re.search(rf"^ +{key}: seconds\((\d+)\),$", text, re.M)[1])


def end_of(limits):
    """The longest time that the end of a gateway with these `limits` takes: they, and the bounds of gateway/src/serve.rs."""
    typed = [seconds(limits[key]) if key in limits else by_default(key) for key in ("drain", "archive")]
    return sum(typed) + besides()


def besides():
    """What the end takes besides `limits.drain` and `limits.archive`."""
    text = (ROOT / "gateway/src/serve.rs").read_text()
    bounds = {name: int(value) for name, value in re.findall(r"^(?:pub\(crate\) )?const (\w+): Duration = Duration::from_secs\((\d+)\);", text, re.M)}
    end = text[text.index("    async fn end(") :]
    end = end[: end.index("\n    }\n")]
    used = re.findall(r"\b(LAST_RECORDS|ERASURES|LAST_ANSWERS)\b", end)
    assert sorted(used) == ["ERASURES", "LAST_ANSWERS", "LAST_RECORDS", "LAST_RECORDS", "LAST_RECORDS"], used
    assert end.count("limits.drain") == 1 and end.count("limits.archive") == 1 and end.count(", archive).await") == 2, "one for each way to close"
    shutdown = int(re.search(r"runtime\.shutdown_timeout\(Duration::from_secs\((\d+)\)\)", text)[1])
    return sum(bounds[name] for name in used) + shutdown


def compose(folder):
    """deploy/compose.yaml as the loader of the compose-spec project reads it, in a copy: secrets are made beside it."""
    shutil.copytree(DEPLOY, folder / "deploy", ignore=shutil.ignore_patterns("secrets"))
    shutil.copytree(ROOT / "policies/prices", folder / "policies/prices")
    ran(folder / "deploy/compose/make-secrets")
    return json.loads(ran("go", "run", ".", folder / "deploy/compose.yaml", cwd=ROOT / "tests/deploy/compose"))
