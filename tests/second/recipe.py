#!/usr/bin/env python3
"""Checks a store with programs that are not ours: bash, sha256sum, openssl and DuckDB.

    recipe.py STORE --trust trust.yaml [--flips N | --expect-faults]     exit 0 where all holds, else 1

It runs the two blocks of commands of schemas/FORMAT.md 14, as they stand there, over every seal of the store, and compares what
neighbours say of each other. It opens no content. With `--flips` it then flips single bits in a copy of the store, N in
each file, and wants each of them found. `--expect-faults` is for a store that was changed.
"""

import argparse
import base64
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb

FORMAT = Path(__file__).resolve().parents[2] / "schemas" / "FORMAT.md"
ORIGIN = re.compile(r"[a-z0-9.-]+/[a-z0-9.-]+/[a-z0-9.-]+")
DATA = re.compile(r"(\d{10})-[0-9a-f]{64}\.(records|reference|content-[a-z0-9.-]+)\.parquet")


def block(language):
    """The block of commands of section 14 in a language."""
    section = FORMAT.read_text().split("\n## 14. ")[1].split("\n## ")[0]
    return re.search(rf"```{language}\n(.*?)\n```", section, re.DOTALL)[1]


def keys(trust):
    """Name -> key: `<deployment>/<gateway>` of each gateway, the origin of a registry. Reads the plain form only."""
    found, deployment, name = {}, None, None
    for line in Path(trust).read_text().splitlines():
        fact = re.fullmatch(r"\s*(?:- )?(deployment|name|origin|key): *\"?([^\"\s]+)\"?\s*", line)
        if fact is None:
            continue
        if fact[1] == "deployment":
            deployment = fact[2]
        elif fact[1] == "key" and name:
            found[name] = fact[2]
        else:
            name = fact[2] if fact[1] == "origin" else f"{deployment}/{fact[2]}"
    return found


class Recipe:
    def __init__(self, trust):
        self.keys, self.shell, self.sql = keys(trust), block("bash"), block("sql")
        self.faults, self.seals = [], 0

    def store(self, root):
        """Checks every log; the faults, as text."""
        self.faults, self.seals = [], 0
        logs = sorted({path.parent for path in Path(root).rglob("*.seal")})
        for folder in logs:
            self.log(folder, str(folder.relative_to(root)))
        if not logs:
            self.faults.append(f"{root}: no seal: nothing was checked")
        return self.faults

    def log(self, folder, origin):
        key = self.keys.get(origin, self.keys.get(origin.rpartition("/")[0]))
        if not ORIGIN.fullmatch(origin) or key is None:
            self.faults.append(f"{origin}: the trust file has no key for it")
            return
        before, root, named = "", None, set()
        seals = sorted(path.name for path in folder.glob("*.seal"))
        for number, seal in enumerate(seals):
            if seal != f"{number:010}.seal":
                self.faults.append(f"{origin}: {seal} is there, {number:010}.seal is not")
                return
            try:
                root = self.batch(folder, origin, key, seal, before, root, named)
            except (ValueError, OSError, duckdb.Error) as error:
                self.faults.append(f"{origin}/{seal}: {error}")
                return
            self.seals += 1
            before = seal
        for name in sorted(path.name for path in folder.glob("*.parquet")):
            data = DATA.fullmatch(name)
            if name not in named and not (data and int(data[1]) >= len(seals)):
                self.faults.append(f"{origin}/{name}: no seal names it")

    def batch(self, folder, origin, key, seal, before, root, named):
        """Checks one seal and its files; the root that it signs."""
        note = (folder / seal).read_text(encoding="utf-8")
        form = re.fullmatch(r"((?:[^\n]+\n)+)\n((?:— [^ \n]+ [^ \n]+\n)+)", note)
        if form is None:
            raise ValueError("not a note: a text, an empty line, signatures")
        for line in form[2].splitlines():
            signature = line.rpartition(" ")[2]
            if base64.b64encode(base64.b64decode(signature, validate=True)).decode() != signature:
                raise ValueError("a signature is not canonical base64")
        variables = {**os.environ, "LC_ALL": "C", "origin": origin, "key": key, "seal": seal, "before": before}
        ran = subprocess.run(["bash", "-c", self.shell], cwd=folder, env=variables, capture_output=True, text=True)
        if ran.returncode:
            raise ValueError(f"the commands of FORMAT.md 14 end with {ran.returncode}: {ran.stdout}{ran.stderr}")
        files = re.findall(r"^(\S+) \d+ [0-9a-f]{64}$", form[1], re.MULTILINE)
        named.update(files)
        [records] = [name for name in files if name.endswith(".records.parquet")]
        with duckdb.connect() as database:
            for variable, value in (("seal", seal), ("records", records)):
                path = str(folder / value).replace("'", "''")
                database.execute(f"SET VARIABLE {variable} = '{path}'")
            root_holds, leaf_hashes_hold, positions_hold, root_before = database.execute(self.sql).fetchone()
        holds = {"root": root_holds, "leaf hashes": leaf_hashes_hold, "positions": positions_hold}
        wrong = [what for what, held in holds.items() if held is not True]
        if wrong or root_before != root:
            raise ValueError(f"wrong: {wrong}; root before {root_before}, the seal before has {root}")
        return re.search(r"^root (\w+)$", form[1], re.MULTILINE)[1]


def flips(recipe, root, each):
    """Flips single bits in a copy; the ones that were not found, and how many there were."""
    missed, count = [], 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "store"
        shutil.copytree(root, copy, ignore=shutil.ignore_patterns(".tmp", "*.checkpoint", "*.cosignature", "*.timestamp"))
        for path in sorted(path for path in copy.rglob("*") if path.is_file()):
            path.chmod(0o600)
            whole = path.read_bytes()
            for n in range(each):
                at, bit = (2 * n + 1) * len(whole) // (2 * each), n % 8
                path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
                count += 1
                if not recipe.store(copy):
                    missed.append(f"bit {bit} of byte {at} of {path.relative_to(copy)} was flipped and not found")
            path.write_bytes(whole)
        assert not recipe.store(copy), "the copy is whole again"
    return missed, count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store")
    parser.add_argument("--trust", required=True)
    parser.add_argument("--flips", type=int, default=0, help="how many bits of each file to flip in a copy")
    parser.add_argument("--expect-faults", action="store_true", help="exit 0 only where there are faults")
    options = parser.parse_args()
    recipe = Recipe(options.trust)
    faults = list(recipe.store(options.store))
    for fault in faults:
        print(fault)
    print(f"{recipe.seals} seals hold, {len(faults)} faults")
    if options.expect_faults:
        return 0 if faults else 1
    if options.flips and not faults:
        missed, count = flips(recipe, options.store, options.flips)
        for fault in missed:
            print(fault)
        print(f"{count} bits flipped, {count - len(missed)} found")
        faults += missed
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
