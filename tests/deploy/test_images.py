"""deploy/container, built by buildah without a container engine, and started. The base image is made of Debian's packages, and in the
place of the toolchain's stands one whose `cargo` gives the binaries that are there: everything else is the file's own."""

import os
import re
import shutil
import subprocess

import pytest
import yaml

from facts import BINARIES, CACHE, CHART, DEPLOY, ROOT, documents, of_kind, ran

FILE = DEPLOY / "container/Containerfile"
DEBIAN = CACHE / "debian-bookworm.tar"
CARGO = """#!/bin/sh
set -eu
[ "$*" = "build --locked --profile image -p gateway -p auditor --bins" ]
mkdir -p target/image
cp /binaries/* target/image/
"""
pytestmark = pytest.mark.skipif("AFFIDAVIT_LONG" not in os.environ, reason="takes minutes: with AFFIDAVIT_LONG=1")


class Images:
    """Images in a folder of their own; containers see nothing of this machine but what is mounted."""

    def __init__(self, folder):
        self.folder = folder
        self.place = ["--root", folder / "store", "--runroot", folder / "run", "--storage-driver", "vfs"]

    def buildah(self, *words, **more):
        return ran("buildah", *self.place, *words, **more)

    def build(self, file, context, name, *more):
        self.buildah("build", "--isolation", "chroot", "--pull-never", "--file", file, "--tag", name, *more, context)

    def run(self, image, script, wanted=0, mounts=(), **variables):
        name = self.buildah("from", "--pull-never", f"localhost/{image}").strip()
        volumes = [word for at, target in mounts for word in ("--volume", f"{at}:{target}:ro")]
        typed = [word for key, value in variables.items() for word in ("--env", f"{key}={value}")]
        return self.buildah("run", "--isolation", "chroot", *volumes, *typed, name, "--", "/bin/sh", "-c", script, wanted=wanted)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    if not DEBIAN.exists():
        DEBIAN.parent.mkdir(parents=True, exist_ok=True)
        ran("mmdebstrap", "--variant=minbase", "bookworm", DEBIAN.with_suffix(".part.tar"))
        DEBIAN.with_suffix(".part.tar").rename(DEBIAN)
    folder = tmp_path_factory.mktemp("images")
    images = Images(folder)
    for name, text in {"debian": "FROM scratch\nADD debian.tar /\n", "rust": "FROM docker.io/library/debian:bookworm-slim\nCOPY cargo /usr/local/bin/\nCOPY binaries /binaries\n"}.items():
        (folder / name).mkdir()
        (folder / name / "Containerfile").write_text(text)
    os.link(DEBIAN, folder / "debian/debian.tar") if os.stat(DEBIAN).st_dev == os.stat(folder).st_dev else shutil.copy(DEBIAN, folder / "debian/debian.tar")
    (folder / "rust/cargo").write_text(CARGO)
    (folder / "rust/cargo").chmod(0o755)
    (folder / "rust/binaries").mkdir()
    for name in ("gateway", "auditor"):
        ran("strip", "-o", folder / "rust/binaries" / name, BINARIES / name)
    bases = re.findall(r"^FROM (docker\.io/\S+) AS", FILE.read_text(), re.M)
    assert sorted(base.split("/")[-1].split(":")[0] for base in bases) == ["debian", "rust"]
    for base in sorted(bases):
        name = base.split("/")[-1].split(":")[0]
        images.build(folder / name / "Containerfile", folder / name, base)
    # The binaries of the images are cargo's for the profile `image`; here they are the tests' own.
    for target in ("gateway", "auditor"):
        images.build(FILE, ROOT, f"affidavit-{target}", "--target", target, "--ignorefile", f"{FILE}.dockerignore")
    yield images
    subprocess.run(["buildah", *images.place, "rm", "--all"], capture_output=True)
    subprocess.run(["buildah", *images.place, "rmi", "--all", "--force"], capture_output=True)


def test_both_images_are_built_and_run_as_nobody_special(images):
    for name in ("gateway", "auditor"):
        said = images.run(f"affidavit-{name}", f'id -u; id -g; stat -c "%a %u" /var/lib/affidavit /etc/affidavit; {name} --version')
        assert said.splitlines()[:4] == ["10001", "10001", "700 10001", "700 10001"] and re.search(rf"^{name} \d", said, re.M), said
        assert "denied" in images.run(f"affidavit-{name}", "touch /usr/here", wanted=1)
    assert images.run("affidavit-gateway", "ls /etc/ssl/certs/ca-certificates.crt /binaries 2>&1 || true").count("No such file") == 1


def test_the_try_out_s_keys_are_made_in_the_image(images):
    mounts = [(DEPLOY / "compose", "/templates"), (ROOT / "policies/prices", "/prices")]
    said = images.run("affidavit-gateway", "sh /templates/init.sh >/dev/null 2>&1; cd /etc/affidavit; ls; ls registrar/entries; gateway check -c gw1/gateway.yaml 2>&1 || true", mounts=mounts)
    assert {"made", "caller.key", "gw1", "gw3", "ar2", "registrar", "auditor", "gw2.entry"} <= set(said.split()), said
    # The providers' keys come with the services, as secrets.
    assert "2 problems" in said and said.count("credential.file") == 2, said


def test_the_chart_s_first_container_runs_in_the_image(images, tmp_path):
    (config,) = of_kind(documents(CHART / "ci/s3-values.yaml"), "ConfigMap", "gateway")
    tmp_path.chmod(0o755)
    for name, text in config["data"].items():
        (tmp_path / name).write_text(text)
    script = "mkdir /var/lib/affidavit/journal; for _ in 1 2; do sh /templates/prepare.sh; done; cat /etc/affidavit/gateway.yaml"
    said = images.run("affidavit-gateway", script, mounts=[(tmp_path, "/templates")], DEPLOYMENT="acme", GATEWAY="affidavit-gateway-0")
    keys = re.findall(r"^# public key: (\S+)$", said, re.M)
    assert len(keys) == 2 and keys[0] == keys[1], said
    assert yaml.safe_load(said.rsplit("# public key:", 1)[1].split("\n", 1)[1])["gateway"] == "affidavit-gateway-0"


def test_the_auditor_s_image_judges_a_store(images):
    vectors = ROOT / "schemas/testdata/v1"
    said = images.run("affidavit-auditor", "auditor verify /v/store --trust /v/trust.yaml", wanted=1, mounts=[(vectors, "/v")])
    assert "3 seals checked" in said, said
