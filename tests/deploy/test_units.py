"""What the units of deploy/systemd promise besides their form."""

from facts import DEPLOY, end_of


def test_no_unit_is_killed_before_its_gateway_has_ended():
    # The examples type neither `limits.drain` nor `limits.archive`.
    for unit in (DEPLOY / "systemd").iterdir():
        line = next(line for line in unit.read_text().splitlines() if line.startswith("TimeoutStopSec="))
        assert int(line.split("=")[1]) > end_of({}), unit
