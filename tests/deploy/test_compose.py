"""deploy/compose.yaml, as the loader and the schema of the compose-spec project take it. What it does is in tests/tests/kafka/compose.rs."""

from pathlib import Path

import pytest
import yaml

from facts import DEPLOY, compose, end_of, seconds


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    return compose(tmp_path_factory.mktemp("compose"))["services"]


def ours(services):
    return {name: service for name, service in services.items() if service["image"].startswith("affidavit-")}


def test_our_containers_can_write_to_their_volumes_and_nothing_else(services):
    assert len(ours(services)) == 9
    for name, service in ours(services).items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged") and "user" not in service, name


def test_no_container_is_killed_before_its_gateway_has_ended(services):
    limits = yaml.safe_load((DEPLOY / "compose/gateway.yaml").read_text().replace("@NAME@", "x").replace("@ARCHIVERS@", ""))["limits"]
    gateways = [service for service in services.values() if (service.get("command") or [""])[0] == "serve"]
    assert len(gateways) == 3
    for service in gateways:
        assert seconds(service["stop_grace_period"]) > end_of(limits)


def test_only_gateways_have_a_way_out(services):
    networks = {name: set(service.get("networks") or []) for name, service in services.items()}
    gateways = {name for name, service in services.items() if (service.get("command") or [""])[0] == "serve"}
    assert {name for name, joined in networks.items() if "outside" in joined} == gateways
    assert {name for name, joined in networks.items() if "callers" in joined} == gateways
    # Grafana alone joins the other network that is not internal, for its page.
    assert {name for name, joined in networks.items() if "front" in joined} == {"grafana"}
    inside = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["networks"]
    assert {name for name, network in inside.items() if not network.get("internal")} == {"outside", "front"}
    assert all(service.get("network_mode") in (None, "none") for service in services.values())


def test_images_of_others_are_pinned_and_mounted_files_are_there(services):
    for name, service in services.items():
        if not service["image"].startswith("affidavit-"):
            assert ":" in service["image"] and not service["image"].endswith(":latest"), name
        for volume in service.get("volumes") or []:
            if volume["type"] == "bind" and volume["source"] != "/var/run/docker.sock":
                assert Path(volume["source"]).exists(), volume


def test_secrets_are_files_and_not_variables(services):
    for name, service in ours(services).items():
        for variable in service.get("environment") or {}:
            assert not any(word in variable for word in ("SECRET_ACCESS", "PASSWORD", "API_KEY", "TOKEN")), f"{name}: {variable}"


def test_ports_are_published_on_loopback_only(services):
    for name, service in services.items():
        for port in service.get("ports") or []:
            assert port["host_ip"] == "127.0.0.1", f"{name}: {port}"
