"""deploy/container, as far as it goes without a container engine."""

import fnmatch
import re
import shutil
import subprocess
import tomllib

from facts import BINARIES, DEPLOY, ROOT, ran

FILE = DEPLOY / "container/Containerfile"
# What debian:bookworm-slim has of what our binaries are linked to.
SLIM = {"libgcc_s.so.1", "libm.so.6", "libc.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}


def instructions():
    lines = re.sub(r"\\\n\s*", "", FILE.read_text()).splitlines()
    return [line.split(None, 1) for line in lines if line and not line.startswith("#")]


def stages():
    found = {}
    for word, rest in instructions():
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = (base, [])
        else:
            found[name][1].append((word, rest))
    return found


def test_the_build_is_cargo_s_with_what_the_workspace_has():
    base, steps = stages()["build"]
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    assert base == f"docker.io/library/rust:{cargo['workspace']['package']['rust-version']}-bookworm"
    (command,) = [rest for word, rest in steps if word == "RUN"]
    assert command == "cargo build --locked --profile image -p gateway -p auditor --bins"
    assert "image" in cargo["profile"]
    for binary in ("gateway", "auditor"):
        assert ("COPY", f"--from=build /src/target/image/{binary} /usr/local/bin/{binary}") in stages()[binary][1]


def test_images_run_as_nobody_special_with_state_on_a_volume():
    _, base = stages()["base"]
    assert ("USER", "10001:10001") in base and ("VOLUME", '["/var/lib/affidavit"]') in base
    assert not any(word == "USER" for name in ("gateway", "auditor") for word, _ in stages()[name][1])
    for name in ("gateway", "auditor"):
        assert stages()[name][0] == "base"
        assert ("ENTRYPOINT", f'["/usr/local/bin/{name}"]') in stages()[name][1]
    ports = dict(stages()["gateway"][1])["EXPOSE"].split()
    assert ports == ["8080", "9090"]


def test_the_base_image_has_every_library():
    for name in ("gateway", "auditor"):
        said = ran("readelf", "--dynamic", "--wide", BINARIES / name)
        assert set(re.findall(r"\(NEEDED\).*\[(.+)\]", said)) <= SLIM


def test_the_context_is_whole_and_holds_no_keys(tmp_path):
    """What the ignore file leaves is enough for cargo to find every target of the workspace."""
    lines = [line for line in (FILE.parent / "Containerfile.dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    kept = [line[1:] for line in lines if line.startswith("!")]
    never = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    assert {"target", "*.key"} <= set(never)
    for file in subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        parts = file.split("/")
        if parts[0] in kept and not any(fnmatch.fnmatch(part, pattern) for part in parts for pattern in never):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, tmp_path / file)
    said = ran("cargo", "metadata", "--format-version", "1", "--locked", "--offline", "--no-deps", cwd=tmp_path)
    assert '"name":"gateway"' in said and '"name":"auditor"' in said
    # What is read at compile time is there too.
    for source in tmp_path.rglob("*.rs"):
        before_tests = source.read_text().split("#[cfg(test)]")[0]
        for name in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', before_tests):
            assert (source.parent / name).exists(), f"{source}: {name}"
