"""What the units of deploy/systemd promise besides their form."""

from facts import DEPLOY, behind_drain


def test_no_unit_is_killed_before_its_gateway_has_ended():
    # The examples do not type `limits.drain`: 30 s, the default.
    for unit in (DEPLOY / "systemd").iterdir():
        line = next(line for line in unit.read_text().splitlines() if line.startswith("TimeoutStopSec="))
        assert int(line.split("=")[1]) > 30 + behind_drain(), unit
