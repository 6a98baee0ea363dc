"""The chart, as far as it goes without a cluster."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

import api_schemas
from facts import BINARIES, CHART, NAMESPACE, ROOT, SETS, documents, end_of, helm, of_kind, ran, rendered, tool

KUBERNETES = "v1.36.3"
OPERATOR = {"PodMonitor", "PrometheusRule"}  # the Prometheus operator's, not the API's
sets = pytest.mark.parametrize("values", SETS, ids=lambda values: values.stem if values else "defaults")
WITHOUT = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def pods(docs):
    return [doc["spec"]["template"] for doc in docs if doc["kind"] in ("StatefulSet", "Deployment")]


def matches(selector, labels):
    assert set(selector) <= {"matchLabels"}
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def containers(pod):
    return pod["spec"].get("initContainers", []) + pod["spec"]["containers"]


@sets
def test_lint_finds_nothing(values):
    helm("lint", "--strict", CHART, *(["--values", values] if values else []))


def test_every_object_is_one_of_the_api(tmp_path):
    module = json.loads(ran("go", "mod", "download", "-json", f"k8s.io/kubernetes@{KUBERNETES}", cwd=tmp_path, env=os.environ | {"GOFLAGS": "-mod=mod"}))
    description = Path(module["Dir"]) / "api/openapi-spec/swagger.json"
    docs = [doc for values in SETS for doc in documents(values)]
    unknown = api_schemas.write(description, {(doc["apiVersion"], doc["kind"]) for doc in docs}, tmp_path)
    assert {kind for _, kind in unknown} == OPERATOR
    check = [tool("kubeconform", "v0.8.0"), "-strict", "-summary", "-skip", ",".join(OPERATOR), "-schema-location", f"{tmp_path}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"]
    for index, values in enumerate(SETS):
        file = tmp_path / f"{index}.yaml"
        file.write_text(rendered(values))
        said = ran(*check, file)
        assert "Invalid: 0, Errors: 0" in said, said
    # And it does find what is wrong.
    broken = tmp_path / "broken.yaml"
    broken.write_text(rendered(None).replace("terminationGracePeriodSeconds", "terminationGracePeriod"))
    assert "terminationGracePeriod" in ran(*check, broken, wanted=1)


@sets
def test_no_pod_is_killed_before_its_gateway_has_ended(values):
    docs = documents(values)
    (gateway,) = of_kind(docs, "StatefulSet")
    pod = gateway["spec"]["template"]["spec"]
    config = yaml.safe_load(of_kind(docs, "ConfigMap", "gateway")[0]["data"]["gateway.yaml"])
    before = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert before >= 1
    assert {"drain", "archive"} <= config["limits"].keys()
    assert pod["terminationGracePeriodSeconds"] > before + end_of(config["limits"])


@sets
def test_claims_outlive_pods_and_hold_all_that_must_survive(values):
    docs = documents(values)
    (gateway,) = of_kind(docs, "StatefulSet")
    spec = gateway["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    claims = {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}
    # One that all gateways share is not the chart's.
    claims |= {volume["name"] for volume in spec["template"]["spec"]["volumes"] if "persistentVolumeClaim" in volume}
    mounts = {mount["mountPath"] for mount in spec["template"]["spec"]["containers"][0]["volumeMounts"] if mount["name"] in claims}
    evidence = yaml.safe_load(of_kind(docs, "ConfigMap", "gateway")[0]["data"]["gateway.yaml"])["evidence"]
    for key in ("journal", "spool", "key_table", "seal_key"):
        assert any(evidence[key].startswith(f"{mount}/") for mount in mounts), f"{key}: {evidence[key]}"
    (budget,) = of_kind(docs, "PodDisruptionBudget", "gateway")
    assert matches(budget["spec"]["selector"], spec["template"]["metadata"]["labels"])


@sets
def test_pods_are_restricted_and_whole(values):
    docs = documents(values)
    made = {doc["metadata"]["name"] for doc in of_kind(docs, "ConfigMap")}
    pages = {"gateway": "admin/pages.rs", "archiver": "commands/shown.rs", "registrar": "commands/shown.rs"}
    answered = {name: re.findall(r'"(/\w+)"', (ROOT / "gateway/src" / file).read_text()) for name, file in pages.items()}
    for pod in pods(docs):
        spec = pod["spec"]
        security = spec["securityContext"]
        assert security["runAsNonRoot"] and security["runAsUser"] == 10001 and security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert not any("hostPath" in volume for volume in volumes.values())
        claims = {claim["metadata"]["name"] for doc in of_kind(docs, "StatefulSet") for claim in doc["spec"]["volumeClaimTemplates"]}
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys() | claims
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("livenessProbe", "readinessProbe"):
                asked = container.get(probe, {}).get("httpGet")
                assert asked is None or asked["port"] in ports and asked["path"] in answered[container["name"]], f"{probe}: {asked}"
        own = {v["configMap"]["name"] for v in volumes.values() if "configMap" in v and v["configMap"]["name"].startswith("affidavit-gateway")}
        assert own <= made


def test_who_closes_a_lost_gateway_s_log_has_its_content_keys_and_a_closing_key():
    (gateway,) = of_kind(documents(CHART / "ci/commit-values.yaml"), "StatefulSet")
    pod = gateway["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    folders = {mount["mountPath"] for mount in container["volumeMounts"]}
    shared = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
    assert shared == ["affidavit-key-table"] and "/var/lib/affidavit/key-table" in folders
    said = ran(BINARIES / "gateway", *container["args"], "--help")
    assert "--closing-key" in said
    files = [word for word in container["args"] if word.startswith("/run/")]
    assert len(files) == 4 and all(os.path.dirname(file) in folders for file in files)


@sets
def test_pods_of_a_part_are_kept_apart(values):
    for pod in pods(documents(values)):
        (term,) = pod["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
        term = term["podAffinityTerm"]
        assert term["topologyKey"] == "kubernetes.io/hostname" and matches(term["labelSelector"], pod["metadata"]["labels"])


def world(rule):
    return [to["ipBlock"]["cidr"] for to in rule.get("to", []) if "ipBlock" in to and to["ipBlock"]["cidr"] in ("0.0.0.0/0", "::/0")]


@sets
def test_the_gateway_is_the_only_way_out(values):
    docs = documents(values)
    policies = of_kind(docs, "NetworkPolicy")
    if values and values.stem == "open-values":
        assert not policies
        return
    own = [policy for policy in policies if policy["metadata"].get("namespace", NAMESPACE) == NAMESPACE]
    assert [policy["spec"] for policy in own].count(WITHOUT) == 1
    for pod in pods(docs):
        labels = pod["metadata"]["labels"]
        chosen = [p for p in own if p["spec"] != WITHOUT and matches(p["spec"]["podSelector"], labels)]
        assert len(chosen) == 1, f"one policy of its own for {labels}"
        spec = chosen[0]["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        assert all(rule.get("to") and rule.get("ports") for rule in spec["egress"]), "a rule without `to` or `ports` is the whole world"
        assert all(rule.get("from") and rule.get("ports") for rule in spec["ingress"])
        ports = {port["name"] for container in containers(pod) for port in container.get("ports", [])}
        assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} <= ports
        outside = [cidr for rule in spec["egress"] for cidr in world(rule)]
        assert bool(outside) == (labels["app.kubernetes.io/component"] == "gateway"), f"{labels}: {outside}"
    # Each application's namespace: names, the gateway's calls, nothing else.
    typed = yaml.safe_load(values.read_text())["networkPolicy"]["callerNamespaces"] if values else []
    theirs = [policy for policy in policies if policy not in own]
    assert sorted(policy["metadata"]["namespace"] for policy in theirs) == sorted(typed)
    (gateway,) = of_kind(docs, "StatefulSet")
    for policy in theirs:
        spec = policy["spec"]
        assert spec["podSelector"] == {} and spec["policyTypes"] == ["Egress"]
        names, calls = spec["egress"]
        assert {port["port"] for port in names["ports"]} == {53} and not world(names)
        (to,) = calls["to"]
        assert to["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}
        assert matches(to["podSelector"], gateway["spec"]["template"]["metadata"]["labels"])
        assert to["podSelector"]["matchLabels"] and calls["ports"] == [{"protocol": "TCP", "port": 8080}]
        (own_gateway,) = [p for p in own if p["metadata"]["name"] == "affidavit-gateway"]
        let_in = [source for rule in own_gateway["spec"]["ingress"] for source in rule["from"]]
        assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": policy["metadata"]["namespace"]}}} in let_in


NAMES, PROVIDERS, STORE, KAFKA, TAPS, COLLECTOR, WITNESSES = "names", "providers", "store", "kafka", "taps", "collector", "witnesses"
# By set and part: where its pods may go, and nowhere else.
GOES = {
    "defaults": {"gateway": [NAMES, PROVIDERS]},
    "s3-values": {"gateway": [NAMES, PROVIDERS, STORE]},
    "kafka-values": {"gateway": [NAMES, PROVIDERS, KAFKA], "archiver": [NAMES, KAFKA, STORE], "registrar": [NAMES, STORE]},
    "commit-values": {"gateway": [NAMES, PROVIDERS, KAFKA, STORE, TAPS, COLLECTOR]},
    "registrar-values": {"gateway": [NAMES, PROVIDERS, KAFKA, STORE], "archiver": [NAMES, KAFKA, STORE], "registrar": [NAMES, STORE, KAFKA, WITNESSES]},
}


@sets
def test_every_part_reaches_what_its_configuration_names_and_nothing_else(values):
    name = values.stem if values else "defaults"
    docs = documents(values)
    typed = yaml.safe_load((CHART / "values.yaml").read_text())["networkPolicy"]
    typed |= yaml.safe_load(values.read_text())["networkPolicy"] if values else {}
    places = {NAMES: (typed["dns"]["to"], {53})} | {place: (typed[place]["to"], set(typed[place]["ports"])) for place in (PROVIDERS, STORE, KAFKA, TAPS, COLLECTOR, WITNESSES)}
    found = {}
    for policy in of_kind(docs, "NetworkPolicy"):
        part = policy["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/component")
        if part:
            rules = [(rule["to"], {port["port"] for port in rule["ports"]}) for rule in policy["spec"]["egress"]]
            found[part] = [place for rule in rules for place, is_it in places.items() if is_it == rule]
            assert len(found[part]) == len(rules), f"{part}: {rules}"
    assert {part: sorted(goes) for part, goes in found.items()} == {part: sorted(goes) for part, goes in GOES.get(name, {}).items()}


def here(text, places):
    for target, folder in places.items():
        text = text.replace(target, str(folder))
    return text


@sets
def test_the_gateway_takes_its_rendered_configuration(values, tmp_path):
    docs = documents(values)
    data = of_kind(docs, "ConfigMap", "gateway")[0]["data"]
    places = {f"/{name}": tmp_path / name for name in ("templates", "etc/affidavit", "var/lib/affidavit", "run/secrets", "run/files", "run/tls")}
    for folder in [*places.values(), *(tmp_path / f"var/lib/affidavit/{claim}" for claim in ("journal", "spool"))]:
        folder.mkdir(parents=True)
    for name, text in data.items():
        (tmp_path / "templates" / name).write_text(here(text, places))
    environment = os.environ | {"PATH": f"{BINARIES}:{os.environ['PATH']}", "DEPLOYMENT": "acme", "GATEWAY": "affidavit-gateway-0", "KAFKA_PASSWORD": "secret", "HOOK_SECRET": "h" * 32}
    key = tmp_path / "var/lib/affidavit/journal/seal.key"
    for _ in range(2):  # a pod that starts again keeps its key
        said = ran("sh", tmp_path / "templates/prepare.sh", env=environment)
        assert "# public key:" in said
        kept = key.read_bytes()
    assert key.read_bytes() == kept and key.stat().st_mode & 0o077 == 0
    (tmp_path / "run/secrets/keys").mkdir()
    (tmp_path / "run/secrets/providers").mkdir()
    ran(BINARIES / "gateway", "keys", "issue", "--file", tmp_path / "run/secrets/keys/keys.yaml", "--consumer", "demo")
    (tmp_path / "run/secrets/providers/openai").write_text("sk-none\n")
    shutil.copy(sorted((ROOT / "policies/prices").glob("*.csv"))[-1], tmp_path / "run/files/prices.csv")
    tls = tmp_path / "run/tls"
    ran("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=gateway", "-keyout", tls / "tls.key", "-out", tls / "tls.crt")
    shutil.copy(tls / "tls.crt", tmp_path / "run/files/kafka-ca.pem")
    ran(BINARIES / "gateway", "keygen", "--deployment", "acme", "--gateway", "gw1", "--out", tmp_path / "other.key", "--commit-secret", tls / "commit.secret")
    ran(BINARIES / "gateway", "check", "-c", tmp_path / "etc/affidavit/gateway.yaml", env=environment)
    typed = yaml.safe_load((tmp_path / "etc/affidavit/gateway.yaml").read_text())
    assert typed["gateway"] == "affidavit-gateway-0" and len([key for key in typed["evidence"]["out"]]) == 1
    listens = {int(listen["address"].rsplit(":", 1)[1]) for listen in typed["listen"]} | {int(typed["admin"].rsplit(":", 1)[1])}
    (gateway,) = of_kind(docs, "StatefulSet")
    assert listens == {port["containerPort"] for port in gateway["spec"]["template"]["spec"]["containers"][0]["ports"]}


@pytest.mark.parametrize("name, archivers", [("kafka-values", 2), ("registrar-values", 1)])
@pytest.mark.parametrize("part, command, word", [("archiver", "archive", "archiving"), ("registrar", "registrar", "keeping the registry")])
def test_archivers_and_registrar_take_their_rendered_configurations(part, command, word, name, archivers, tmp_path):
    docs = documents(CHART / f"ci/{name}.yaml")
    found = of_kind(docs, "ConfigMap", part)
    assert len(found) == {"archiver": archivers, "registrar": 1}[part]
    places = {target: tmp_path / target.strip("/") for target in ("/etc/affidavit", "/var/lib/affidavit", "/run/secrets", "/run/entries", "/run/files", "/run/kafka")}
    for folder in places.values():
        folder.mkdir(parents=True)
    (tmp_path / "run/kafka/token").write_text("a.b.c")
    authority = tmp_path / "run/files/kafka-ca.pem"
    ran("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=kafka", "-keyout", tmp_path / "kafka.key", "-out", authority)
    for name in ("archiver", "registry"):
        (tmp_path / "run/secrets" / name).mkdir()
    keygen = [BINARIES / "gateway", "keygen", "--deployment", "acme"]
    ran(*keygen, "--archiver", "ar1", "--out", tmp_path / "run/secrets/archiver/archiver.key")
    for name in ("registry", "checkpoint"):
        ran(*keygen, "--gateway", "registry", "--out", tmp_path / f"run/secrets/registry/{name}.key")
    environment = os.environ | {"KAFKA_PASSWORD": "secret", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_EC2_METADATA_DISABLED": "true"}
    for doc in found:
        for name, text in doc["data"].items():
            text = here(text, places)
            # Loopback, and a port that nobody has to have free: another helper's metrics are not these.
            (tmp_path / "etc/affidavit" / name).write_text(re.sub(r"0\.0\.0\.0:94\d\d", "127.0.0.1:0", text))
        (config,) = [name for name in doc["data"] if name != "trust.yaml"]
        log = tmp_path / "log"
        with log.open("w") as out:
            process = subprocess.Popen([BINARIES / "gateway", command, "-c", tmp_path / "etc/affidavit" / config], stdout=out, stderr=out, env=environment)
        try:
            deadline = time.monotonic() + 30
            while word not in log.read_text():
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait()


def test_metrics_are_read_of_every_pod_under_the_names_that_compose_has_too():
    docs = documents(CHART / "ci/kafka-values.yaml")
    jobs = set()
    for monitor in of_kind(docs, "PodMonitor"):
        chosen = [pod for pod in pods(docs) if matches(monitor["spec"]["selector"], pod["metadata"]["labels"])]
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert chosen and all(endpoint["port"] in {port["name"] for c in containers(pod) for port in c.get("ports", [])} for pod in chosen)
        jobs |= {rule["replacement"] for rule in endpoint["relabelings"] if rule["targetLabel"] == "job"}
    scraped = yaml.safe_load((ROOT / "deploy/compose/prometheus.yaml").read_text())
    assert jobs == {job["job_name"] for job in scraped["scrape_configs"]} and len(jobs) == 3
    (rules,) = of_kind(docs, "PrometheusRule")
    assert [group["name"] for group in rules["spec"]["groups"]] == ["affidavit"]


@pytest.mark.parametrize(
    "typed, said",
    [
        (["gateway.config.limits.drain=5s"], "gateway.drainSeconds"),
        (["gateway.config.limits.archive=5s"], "gateway.archiveSeconds"),
        (["gateway.config.gateway=gw1"], "is put in by the chart"),
        (["gateway.config.evidence.journal=/tmp"], "is put in by the chart"),
        (["gateway.replica=2"], "replica"),
        (["gateway.drainSeconds=soon"], "drainSeconds"),
        (["gateway.archiveSeconds=0"], "archiveSeconds"),
        (["deployment=ACME"], "deployment"),
        (["registrar.enabled=true"], "root"),
        (["archiver.enabled=true"], "instances"),
        (["networkPolicy.store.ports={}"], "ports"),
    ],
)
def test_values_that_make_no_sense_are_refused(typed, said):
    told = helm("template", "affidavit", CHART, *(word for one in typed for word in ("--set", one)), wanted=1)
    assert said in told, told


@pytest.mark.parametrize(
    "name, place, part, less",
    [
        ("kafka-values", "store", "archiver", []),
        ("kafka-values", "store", "registrar", ["archiver.enabled=false"]),
        ("kafka-values", "kafka", "archiver", []),
        ("kafka-values", "kafka", "gateway", ["archiver.enabled=false"]),
        ("commit-values", "kafka", "gateway", ["gateway.config.evidence.tap=null"]),
        ("commit-values", "kafka", "gateway", ["gateway.config.evidence.commit=local"]),
        ("commit-values", "taps", "gateway", []),
        ("commit-values", "collector", "gateway", []),
        ("registrar-values", "witnesses", "registrar", ["registrar.config.timestamp=null"]),
        ("registrar-values", "witnesses", "registrar", ["registrar.config.witnesses=null"]),
        ("registrar-values", "kafka", "registrar", ["archiver.enabled=false", "gateway.config.evidence.out.kafka=null"]),
    ],
)
def test_parts_that_could_not_reach_what_they_need_are_refused(name, place, part, less):
    chosen = [word for one in less for word in ("--set", one)]
    told = helm("template", "affidavit", CHART, "--values", CHART / f"ci/{name}.yaml", *chosen, "--set-json", f"networkPolicy.{place}.to=[]", wanted=1)
    assert f"networkPolicy.{place}.to: the {part} has to reach it" in told, told
