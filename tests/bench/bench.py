"""Benchmarks of Affidavit against peers in the same run: nginx (proxy_pass), gzip'd JSON lines, SHA-256, DuckDB.

Placement: the proxy under test alone on core 0, the client and the provider on core 1, for Affidavit and for nginx.
Every figure of Affidavit is with evidence on, fsync included.
"""

import asyncio
import base64
import contextlib
import gzip
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = ROOT / "target" / os.environ.get("BENCH_PROFILE", "release")
SECONDS = int(os.environ.get("BENCH_SECONDS", "8"))
TICKS = os.sysconf("SC_CLK_TCK")
PROMPT = "Please say what this record holds. " * 34
results = []


def note(name, value, peer, ratio, wanted):
    results.append((name, value, peer, ratio, wanted))
    print(f"{name:44} {value:>22} {peer:>26} {ratio:>10}   {wanted}", flush=True)


def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(number, log=None):
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", number), 1):
            return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {number}" + (f": {log.read_text()[-2000:]}" if log else ""))


def start(args, core, **more):
    return subprocess.Popen(["taskset", "-c", str(core), *map(str, args)], **more)


def family(pid):
    """A process and all that it and its children started."""
    found = [pid]
    for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                found += family(int(child))
    return found


def cpu(pid):
    """CPU seconds of a process and its children by thread name."""
    total = {}
    for p in family(pid):
        for task in pathlib.Path(f"/proc/{p}/task").glob("*"):
            with contextlib.suppress(OSError):
                text = (task / "stat").read_text()
                name = text[text.index("(") + 1 : text.rindex(")")]
                fields = text[text.rindex(")") + 2 :].split()
                total[name] = total.get(name, 0) + (int(fields[11]) + int(fields[12])) / TICKS
    return total


def rss(pid, what="VmRSS"):
    return int(re.search(what + r":\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) * 1024


class Provider:
    def __enter__(self):
        self.port = port()
        self.process = start([BIN / "provider", "--listen", f"127.0.0.1:{self.port}", "--forget"], 1, stderr=subprocess.DEVNULL)
        wait_for(self.port)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Nginx:
    def __init__(self, provider):
        self.provider = provider

    def __enter__(self):
        self.dir = tempfile.mkdtemp()
        self.port = port()
        conf = pathlib.Path(self.dir) / "nginx.conf"
        conf.write_text(
            f"worker_processes 1; daemon off; pid {self.dir}/pid; error_log /dev/null; worker_rlimit_nofile 65000;\n"
            "events { worker_connections 60000; }\n"
            f"http {{ access_log off; client_body_temp_path {self.dir}/b; proxy_temp_path {self.dir}/p; fastcgi_temp_path {self.dir}/f;"
            f" uwsgi_temp_path {self.dir}/u; scgi_temp_path {self.dir}/s; keepalive_requests 100000000; client_max_body_size 0;\n"
            f" upstream provider {{ server 127.0.0.1:{self.provider.port}; keepalive 256; keepalive_requests 100000000; }}\n"
            f" server {{ listen 127.0.0.1:{self.port} backlog=8192; location /openai/ {{ proxy_pass http://provider/; proxy_http_version 1.1;"
            ' proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 600s; }} }}\n}\n'.replace("}}", "}")
        )
        self.process = start(["nginx", "-c", conf, "-p", self.dir], 0)
        wait_for(self.port)
        self.headers = {}
        self.base = f"http://127.0.0.1:{self.port}/openai"
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Affidavit:
    def __init__(self, provider, keys="exchange", dir=None, extra="", out=None, evidence="", env=None):
        self.provider, self.keys, self.extra = provider, keys, extra
        self.out, self.evidence, self.env = out, evidence, env
        self.dir = pathlib.Path(dir or tempfile.mkdtemp(dir=ROOT / "target"))

    def __enter__(self):
        self.dir.mkdir(parents=True, exist_ok=True)
        d = self.dir
        self.port, self.admin = port(), port()
        (d / "provider.key").write_text("sk-bench")
        trust = subprocess.run(
            [BIN / "gateway", "keygen", "--deployment", "bench", "--gateway", "gw1", "--out", d / "seal.key"],
            check=True, capture_output=True, text=True,
        ).stdout
        (d / "trust.yaml").write_text(trust)
        out = subprocess.run(
            [BIN / "gateway", "keys", "issue", "--file", d / "keys.yaml", "--consumer", "bench", "--team", "bench",
             "--cost-centre", "cc-1"],
            check=True, capture_output=True, text=True,
        ).stdout
        self.key = next(w for w in out.split() if w.startswith("afk_"))
        book = sorted((ROOT / "policies/prices").glob("*.csv"))[-1]
        (d / "gateway.yaml").write_text(self.configured(
            f"deployment: bench\ngateway: gw1\nlisten:\n  - address: 127.0.0.1:{self.port}\nadmin: 127.0.0.1:{self.admin}\n"
            f"evidence:\n  journal: {d}/journal\n  spool: {d}/spool\n  key_table: {d}/keytable\n  seal_key: {d}/seal.key\n"
            f"  out: {self.out or f'{{ directory: {d}/store }}'}\n  batch_age: 10s\n{self.evidence}"
            "limits:\n  concurrent: 20000\n"
            f"providers:\n  - name: openai\n    dialect: openai\n    base_url: http://127.0.0.1:{self.provider.port}\n"
            f"    credential: {{ file: {d}/provider.key }}\n"
            f"routes:\n  - name: openai\n    path: /openai\n    provider: openai\n    keys: {self.keys}\n{self.extra}"
            f"keys: {d}/keys.yaml\nprices: {book}\n"
        ))
        self.process = start(
            [BIN / "gateway", "serve", "-c", d / "gateway.yaml"], 0,
            stdout=subprocess.DEVNULL, stderr=open(d / "gateway.log", "w"), env={**os.environ, **(self.env or {})},
        )
        wait_for(self.port, d / "gateway.log")
        self.headers = {"Authorization": f"Bearer {self.key}"}
        self.base = f"http://127.0.0.1:{self.port}/openai"
        return self

    def configured(self, text):
        """The configuration of this gateway, from that which all begin with."""
        return text

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(300)

    def __exit__(self, *_):
        self.stop()
        if not os.environ.get("BENCH_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)


def body(stream=False):
    return json.dumps({"model": "gpt-4o-mini", "stream": stream, "messages": [{"role": "user", "content": PROMPT}]})


def wrk(proxy, connections, headers=None, stream=False, seconds=SECONDS):
    return load(proxy, f"{proxy.base}/v1/chat/completions", body(stream), connections, {**proxy.headers, **(headers or {})}, seconds)


def load(proxy, url, text, connections, headers, seconds):
    """The same request on so many connections for so long, and the CPU that the proxy used for it."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write('wrk.method = "POST"\n')
        script.write(f"wrk.body = [==[{text}]==]\n")
        for name, value in {**headers, "Content-Type": "application/json"}.items():
            script.write(f'wrk.headers["{name}"] = "{value}"\n')
        script.write(
            "done = function(s, l, r) io.write(string.format('RESULT %d %d %d %d %d %d\\n', s.requests, s.duration,"
            " l:percentile(50), l:percentile(99), s.errors.status, s.errors.connect + s.errors.read + s.errors.timeout)) end\n"
        )
        script.flush()
        before = cpu(proxy.process.pid)
        text = subprocess.run(
            ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", script.name,
             url],
            check=True, capture_output=True, text=True,
        ).stdout
        after = cpu(proxy.process.pid)
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", text)
    requests, duration, p50, p99, bad, broken = map(int, found.groups())
    if bad or broken:
        print(f"   {bad} answers with an error status, {broken} broken", flush=True)
    used = {name: after[name] - before.get(name, 0) for name in after}
    return {"n": requests, "rps": requests / (duration / 1e6), "p50": p50, "p99": p99, "cpu": used}


def per_request(result, names=None):
    total = sum(v for k, v in result["cpu"].items() if names is None or names(k))
    return total / max(result["n"], 1) * 1e6


def is_sealing(name):
    return any(word in name for word in ("seal", "ship", "rayon", "spool"))


def fsync_time():
    """p50 of write 4 KiB into a zero-filled file + fdatasync beside the evidence, half a millisecond apart, as one caller
    makes them: in microseconds."""
    path = ROOT / "target" / "bench-fsync"
    with open(path, "wb", buffering=0) as f:
        f.write(bytes(4096 * 300))
        os.fsync(f.fileno())
        f.seek(0)
        times = []
        for _ in range(300):
            time.sleep(0.0005)
            start_at = time.perf_counter()
            f.write(b"x" * 4096)
            os.fdatasync(f.fileno())
            times.append(time.perf_counter() - start_at)
    path.unlink()
    return statistics.median(times) * 1e6


def bench_requests():
    with Provider() as provider:
        with Nginx(provider) as nginx:
            wrk(nginx, 32, seconds=2)
            peer = wrk(nginx, 32)
            peer_one = wrk(nginx, 1)
            peer_stream = wrk(nginx, 32, headers={"x-replay": "script:fast:120"}, stream=True)
        with Affidavit(provider) as gateway:
            wrk(gateway, 32, seconds=2)
            ours = wrk(gateway, 32)
            ours_one = wrk(gateway, 1)
            ours_stream = wrk(gateway, 32, headers={"x-replay": "script:fast:120"}, stream=True)
            ours_many = wrk(gateway, 256)
    path = lambda name: not is_sealing(name)  # noqa: E731
    ours_us, peer_us = per_request(ours, path), per_request(peer)
    note("CPU per exchange, request path", f"{ours_us:.1f} us", f"nginx {peer_us:.1f} us", f"{ours_us / peer_us:.2f}x", "<= 2x, first step 4x")
    sealing = per_request(ours, is_sealing)
    size = len(body()) + 700
    note("CPU per exchange, sealing and shipping", f"{sealing:.1f} us", f"{sealing * 1000 / size:.0f} ns/content byte", "", "<= 20 ns/byte")
    note("exchanges/s, 32 connections", f"{ours['rps']:.0f}", f"nginx {peer['rps']:.0f}", f"{ours['rps'] / peer['rps']:.2f}x", "LiteLLM, Portkey: `bench routing`")
    note("exchanges/s, 256 connections", f"{ours_many['rps']:.0f}", "", "", "")
    sync = fsync_time()
    note("one caller p50 added", f"{ours_one['p50'] - peer_one['p50']} us", f"nginx {peer_one['p50']} us, fsync {sync:.0f} us", "", f"<= {300 + 2 * sync:.0f} us")
    note("one caller p99 added", f"{ours_one['p99'] - peer_one['p99']} us", f"nginx {peer_one['p99']} us", "", f"<= {2000 + 2 * sync:.0f} us")
    ours_us, peer_us = per_request(ours_stream, path), per_request(peer_stream)
    note("CPU per stream of 120 events, request path", f"{ours_us:.0f} us", f"nginx {peer_us:.0f} us", f"{ours_us / peer_us:.2f}x", "")


def bench_streams():
    count = int(os.environ.get("BENCH_STREAMS", "10000"))
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Both ends of each stream, at the gateway and at the provider, are descriptors of one process.
    count = min(count, (most - 500) // 2)
    with Provider() as provider, Affidavit(provider) as gateway:
        idle = rss(gateway.process.pid)

        async def open_all():
            request = (
                f"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
                f"content-type: application/json\r\nx-replay: script:stall:3\r\ncontent-length: {len(body(True))}\r\n\r\n{body(True)}"
            ).encode()
            gate = asyncio.Semaphore(200)
            open_streams = []

            async def one():
                async with gate:
                    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
                    writer.write(request)
                    await reader.readuntil(b"word2 ")
                    open_streams.append(writer)

            await asyncio.gather(*(one() for _ in range(count)))
            await asyncio.sleep(2)
            held = rss(gateway.process.pid)
            for writer in open_streams:
                writer.close()
            return held

        held = asyncio.run(open_all())
        note(f"resident with {count} open streams", f"{held / 1e6:.0f} MB", f"idle {idle / 1e6:.0f} MB", "", "<= 400 MB")


def send(gateway, text, headers=None):
    request = urllib.request.Request(
        f"{gateway.base}/v1/chat/completions", data=text.encode(),
        headers={**gateway.headers, "content-type": "application/json", **(headers or {})},
    )
    return urllib.request.urlopen(request).read()


def stored(gateway, kinds):
    return sum(f.stat().st_size for f in (gateway.dir / "store").rglob("*") if f.is_file() and any(k in f.name for k in kinds))


def bench_storage():
    with Provider() as provider:
        # A session of 200 turns: a coding agent that reads these sources, 4 kB a turn, and resends its history.
        with Affidavit(provider, keys="consumer_day") as gateway:
            lines = []
            history = []
            sources = "".join(path.read_text() for path in sorted(ROOT.glob("gateway/**/src/**/*.rs")))
            for turn in range(200):
                history.append({"role": "user", "content": sources[turn * 4000 : (turn + 1) * 4000]})
                text = json.dumps({"model": "gpt-4o-mini", "messages": history})
                answer = send(gateway, text).decode()
                lines.append(json.dumps({"request": text, "response": answer}))
                history.append({"role": "assistant", "content": answer})
            gateway.stop()
            ours = stored(gateway, ["content-"])
            peer = sum(len(gzip.compress(line.encode())) for line in lines)
            note("agent session of 200 turns, stored", f"{ours} bytes", f"gzip'd copies {peer}", f"{ours / peer:.3f}x", "<= 0.05x")
    corpus = ROOT.parent / "shared" / "corpus"
    corpus = pathlib.Path(os.environ.get("AFFIDAVIT_CORPUS", corpus))
    if not corpus.exists():
        print("corpus absent: stored bytes on the corpus are not measured")
        return
    # The test of the whole corpus leaves its store where this variable says.
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as keep:
        subprocess.run(
            ["cargo", "test", "--quiet", "--workspace", "--test", "corpus_gateway"], cwd=ROOT, check=True,
            env={**os.environ, "AFFIDAVIT_KEEP": keep}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        files = [f for f in pathlib.Path(keep).rglob("*.parquet")]
        ours = sum(f.stat().st_size for f in files)
        records = sum(f.stat().st_size for f in files if "records" in f.name)
        exchanges = int((pathlib.Path(keep) / "exchanges").read_text())
        plain = (pathlib.Path(keep) / "exchanges.jsonl").read_bytes()
        whole = len(gzip.compress(plain))
        apart = sum(len(gzip.compress(line)) for line in plain.splitlines())
        note("stored bytes on the corpus, encrypted", f"{ours}", f"one .jsonl.gz {whole}", f"{ours / whole:.2f}x", "<= 0.85x")
        note("", f"{ours}", f"each line .gz {apart}", f"{ours / apart:.2f}x", "")
        note("record files per exchange", f"{records / exchanges:.0f} bytes", "", "", "<= 400 bytes")


def bench_verify():
    import duckdb

    with Provider() as provider, Affidavit(provider) as gateway:
        wrk(gateway, 64, seconds=max(SECONDS * 2, 10))
        gateway.stop()
        store = gateway.dir / "store"
        leaf_bytes = duckdb.sql(
            f"SELECT sum(octet_length(leaf)) FROM read_parquet('{store}/**/*.records.parquet', hive_partitioning=false)"
        ).fetchall()[0][0]
        block = os.urandom(1 << 20)
        begin = time.process_time()
        for _ in range(500):
            hashlib.sha256(block).digest()
        rate = 500 * (1 << 20) / (time.process_time() - begin)
        state = gateway.dir / "state"
        base = [BIN / "auditor", "verify", store, "--trust", gateway.dir / "trust.yaml", "--state", state]
        begin = time.time()
        used = os.times().children_user
        done = subprocess.run(base, capture_output=True, text=True)
        spent, wall = os.times().children_user - used, time.time() - begin
        print("  ", done.stdout.splitlines()[0] if done.stdout else done.stderr)
        note("verify, leaf bytes per core second", f"{leaf_bytes / spent / 1e6:.0f} MB/s", f"SHA-256 {rate / 1e6:.0f} MB/s",
             f"{leaf_bytes / spent / rate:.2f}x", ">= 0.25x")
        note("verify, cores used", f"{spent / wall:.2f}", f"{wall:.2f} s wall", "", "2")
        sql = "SELECT consumer, requested_model, count(*), sum(output_tokens), sum(cost) FROM records WHERE kind = 'outcome' GROUP BY 1, 2"
        query = [BIN / "auditor", "query", store, sql, "--trust", gateway.dir / "trust.yaml", "--state", state, "--format", "csv"]
        subprocess.run(query, check=True, capture_output=True)
        begin = time.time()
        subprocess.run(query, check=True, capture_output=True)
        ours = time.time() - begin
        peer_sql = sql.replace("FROM records", f"FROM read_parquet('{store}/**/*.records.parquet', hive_partitioning=false)")
        # Ours with the start of its process, the peer without.
        begin = time.time()
        duckdb.sql(peer_sql).fetchall()
        peer = time.time() - begin
        note("a later query over proven rows", f"{ours:.2f} s", f"DuckDB {peer:.2f} s", f"{ours / peer:.2f}x", "<= 1x")


# What a fact is in the store's own files, where it is made of records alone; `leaf` is JSON.
RARE = {
    "config": ["reason", "next", "policy", "price_book"],
    "admin": ["action", "actor", "object"],
    "boot": ["gateway_version", "encryption"],
    "erasure": ["exchange", "reason", "actor"],
    "gap": ["reason"],
}
DUCK_TYPES = {"text": "VARCHAR", "integer": "BIGINT", "boolean": "BOOLEAN", "decimal": "DECIMAL(38,12)", "time": "TIMESTAMP"}


def duck_facts(duck, store):
    """The facts as DuckDB makes them once, as the auditor does: exchanges joined, rare kinds out of their leaves."""
    duck.execute(f"""CREATE VIEW records AS SELECT * REPLACE ("at"::TIMESTAMP AS "at"), parse_path(filename)[-4] || '/' || parse_path(filename)[-3]
        || '/' || parse_path(filename)[-2] AS origin FROM read_parquet('{store}/**/*.records.parquet', hive_partitioning=false, filename=true)""")
    duck.execute("""CREATE TABLE exchange AS
        SELECT o.* EXCLUDE (kind, "at", leaf, leaf_hash) REPLACE (coalesce(o.decision, i.decision) AS decision, coalesce(o.served_provider, o.provider) AS provider,
            coalesce(o.served_target, o.target) AS target, coalesce(o.served_dialect, o.dialect) AS dialect), 'ended' AS state, i."at" AS started_at, o."at" AS ended_at FROM records o
        LEFT JOIN (SELECT origin, position, "at", decision FROM records WHERE kind = 'intent') i ON o.origin = i.origin AND o.intent_position = i.position
        WHERE o.kind = 'outcome'
        UNION ALL SELECT * EXCLUDE (kind, "at", leaf, leaf_hash), 'refused', "at", "at" FROM records WHERE kind = 'refusal' AND exchange IS NOT NULL
        UNION ALL SELECT n.* EXCLUDE (kind, "at", leaf, leaf_hash), 'open', "at", NULL FROM records n
        ANTI JOIN (SELECT origin, intent_position FROM records WHERE kind = 'outcome') d ON n.origin = d.origin AND n.position = d.intent_position
        WHERE n.kind = 'intent'""")
    for name, columns in RARE.items():
        fields = ", ".join(f"json_extract_string(decode(leaf), '$.{column}') AS {column}" for column in columns)
        duck.execute(f'''CREATE TABLE {name} AS SELECT origin, position, "at", {fields} FROM records WHERE kind = '{name}' ''')
    duck.execute("CREATE VIEW content AS SELECT * FROM records WHERE kind IN ('intent', 'refusal') AND content_key IS NOT NULL")
    duck.execute("CREATE VIEW intent AS SELECT * FROM records WHERE kind = 'intent'")
    duck.execute("""CREATE VIEW event AS
        SELECT origin, position, "at", kind, consumer AS actor, coalesce(operation, 'other') AS action, "end" AS result,
            coalesce("key", origin) AS source, coalesce(served_provider, provider) AS resource, exchange FROM records WHERE kind = 'outcome'
        UNION ALL SELECT origin, position, "at", kind, consumer, coalesce(operation, 'call'), reason, coalesce("key", origin),
            coalesce(provider, route, 'gateway'), exchange FROM records WHERE kind = 'refusal'
        UNION ALL SELECT origin, position, "at", 'admin', actor, action, CASE action WHEN 'config_refused' THEN 'refused' ELSE 'done' END, origin, object, NULL FROM admin
        UNION ALL SELECT origin, position, "at", 'erasure', actor, 'erasure', 'done', origin, exchange, exchange FROM erasure
        UNION ALL SELECT origin, position, "at", kind, json_extract_string(decode(leaf), '$.actor'),
            concat('hold_', json_extract_string(decode(leaf), '$.phase')), 'done', origin, json_extract_string(decode(leaf), '$.hold'), exchange
            FROM records WHERE kind = 'hold'
        UNION ALL SELECT origin, position, "at", kind, 'gateway', kind, 'done', origin, 'log', NULL FROM records
            WHERE kind IN ('boot', 'close', 'config')""")
    duck.execute("CREATE TABLE period AS SELECT TIMESTAMP '2026-07-01' AS from_at, TIMESTAMP '2026-10-01' AS to_at, now()::TIMESTAMP AS assessed_at")


def duck_questions(duck, packs, folder, known):
    """Asks the controls that need records and registers only; gives the number of exceptions by control."""
    found = {}
    for pack in packs:
        for name, register in pack.get("registers", {}).items():
            columns = ", ".join(f"try_cast(nullif(trim({column}), '') AS {DUCK_TYPES[kind]}) AS {column}"
                                for column, kind in register["columns"].items())
            duck.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT {columns} FROM read_csv('{folder}/{name}.csv', all_varchar=true, header=true)")
        settings = {name: setting["default"] for name, setting in pack.get("settings", {}).items()}
        if settings:
            duck.execute("CREATE OR REPLACE TABLE settings AS SELECT " + ", ".join(f"'{value}' AS {name}" for name, value in settings.items()))
        for control in pack["controls"]:
            if set(control["needs"]) <= known | set(pack.get("registers", {})) | {"settings"}:
                # DuckDB's words: no side is named, and `at` is one of its own.
                population, finds = (re.sub(r"\bat\b", '"at"', control[part].replace("LEFT ANTI JOIN", "ANTI JOIN"))
                                     for part in ("population", "finds"))
                duck.execute(population).fetchall()
                rows = duck.execute(finds)
                count = 0
                while some := rows.fetchmany(10_000):
                    count += len(some)
                found[pack["name"], control["id"]] = count
    return found


class Phases:
    """Says what is done and how long each took, as it ends: a long measure tells where it is."""

    def __init__(self):
        self.begin = self.last = time.monotonic()

    def over(self, what):
        now = time.monotonic()
        print(f"   {what}: {now - self.last:.1f} s, {now - self.begin:.0f} s since the beginning", flush=True)
        self.last = now


def bench_assess():
    import resource

    import duckdb
    import yaml

    packs = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "policies/packs").glob("*.yaml"))]
    known = {"exchange", "intent", "content", "event", "period", *RARE}
    exchanges = os.environ.get("BENCH_EXCHANGES", "1000000")
    phases = Phases()
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as folder:
        folder = pathlib.Path(folder)
        made = subprocess.run([BIN / "quarter", folder, "--exchanges", exchanges], check=True, capture_output=True, text=True)
        phases.over("made " + made.stderr.splitlines()[-1])
        auditor = [BIN / "auditor", "assess", folder / "store", "--trust", folder / "trust.yaml", "--state", folder / "state", "--format", "json",
                   "--from", "2026-07-01", "--to", "2026-10-01"]
        for register in folder.glob("*.csv"):
            auditor += ["--register", f"{register.stem}={register}"]

        def ask(what):
            begin = time.time()
            child = subprocess.Popen([*auditor, *what], stdout=subprocess.PIPE, text=True)
            out, peak = [], 0
            reader = threading.Thread(target=lambda: out.append(child.stdout.read()))
            reader.start()
            while child.poll() is None:
                with contextlib.suppress(OSError, TypeError):
                    peak = max(peak, rss(child.pid, "VmHWM") >> 20)
                time.sleep(0.02)
            reader.join()
            if child.returncode not in (0, 1):
                raise SystemExit(f"assess ended with {child.returncode}")
            phases.over(f"assess {' '.join(what[:2])}{' ...' if len(what) > 2 else ''}")
            return json.loads(out[0]), time.time() - begin, peak

        _, first, peak = ask(["--pack", "all"])
        note(f"assess, {exchanges} exchanges, all packs, first", f"{first:.1f} s", "", "", f"{peak} MiB at most")
        _, second, peak = ask(["--pack", "all"])
        note("the same again", f"{second:.1f} s", "", "", f"{peak} MiB at most")
        # Those that DuckDB can be asked: what needs the verification's report is left out.
        begin = time.time()
        duck = duckdb.connect()
        duck_facts(duck, folder / "store")
        phases.over("DuckDB, facts")
        peers = duck_questions(duck, packs, folder, known)
        peer, peer_peak = time.time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        duck.close()
        phases.over(f"DuckDB, {len(peers)} controls")
        same = [word for control in sorted({control for _, control in peers}) for word in ("--control", control)]
        answer, ours, peak = ask(["--pack", "all", *same])
        counts = {(pack["name"], control["id"]): control["exceptions"] for pack in answer["packs"] for control in pack["controls"]}
        differ = [control for control, count in peers.items() if counts[control] != count]
        print(f"   {len(peers)} controls of the same question, {len(differ)} with other numbers of exceptions {differ[:5]}")
        note(f"{len(peers)} controls over proven rows", f"{ours:.1f} s", f"DuckDB {peer:.1f} s", f"{ours / peer:.2f}x", "printed")
        note("  most memory", f"{peak} MiB", f"DuckDB {peer_peak} MiB", "", "its Python with it")


def bench_routing():
    import routing

    routing.run()


def bench_spark():
    """The Spark job on both cores, beside the auditor over the same store."""
    python = os.environ.get("AFFIDAVIT_SPARK_PYTHON")
    if not python:
        raise SystemExit("AFFIDAVIT_SPARK_PYTHON is not set: run `tests/run bench spark`")
    with Provider() as provider, Affidavit(provider) as gateway:
        wrk(gateway, 64, seconds=max(SECONDS, 5))
        gateway.stop()
        store, trust = gateway.dir / "store", gateway.dir / "trust.yaml"
        begin, used = time.time(), os.times().children_user
        subprocess.run([BIN / "auditor", "verify", store, "--trust", trust, "--state", gateway.dir / "state"], check=True, capture_output=True)
        wall, busy = time.time() - begin, os.times().children_user - used
        done = subprocess.run([python, ROOT / "auditor/spark/verify.py", store, "--trust", trust, "--json"], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"the Spark job: {done.stdout}{done.stderr}")
        report = json.loads(done.stdout)
        leaf_bytes, core_seconds = report["leaf_bytes"], report["cpu_us"] / 1e6
        rate, peer = leaf_bytes / core_seconds, leaf_bytes / busy
        note("leaf bytes an exchange", f"{leaf_bytes / report['records'] * 2:.0f} bytes", f"{report['records'] // 2} exchanges", "", "")
        note("verify by Spark, leaf bytes a core second", f"{rate / 1e6:.2f} MB/s", f"auditor {peer / 1e6:.0f} MB/s", f"{rate / peer:.3f}x", "")
        note("verify by Spark, wall", f"{report['seconds']:.0f} s, {core_seconds:.0f} core s", f"auditor {wall:.1f} s, {busy:.1f} core s", "", "")


KEYS = {"AWS_ACCESS_KEY_ID": "affidavit-bench", "AWS_SECRET_ACCESS_KEY": "affidavit-bench-secret", "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true"}
# List prices of S3 Standard, us-east-1, https://aws.amazon.com/s3/pricing/ (November 2026), in USD.
PUT_PRICE, GET_PRICE, GB_MONTH = 0.005 / 1000, 0.0004 / 1000, 0.023


class Minio:
    """MinIO as `tests/run s3` builds it, on the client's core, with an empty folder."""

    def __enter__(self):
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "affidavit"
        built = sorted(cache.glob("minio-*/minio"))
        if not built:
            raise SystemExit("MinIO is not built: run `tests/run s3` once, or `tests/run bench archive`")
        self.dir = tempfile.mkdtemp(dir=ROOT / "target")
        self.port = port()
        env = {**os.environ, "MINIO_ROOT_USER": KEYS["AWS_ACCESS_KEY_ID"], "MINIO_ROOT_PASSWORD": KEYS["AWS_SECRET_ACCESS_KEY"],
               "MINIO_BROWSER": "off", "MINIO_UPDATE": "off", "GOMAXPROCS": "1"}
        args = [built[-1], "server", "--quiet", "--address", f"127.0.0.1:{self.port}", "--console-address", "127.0.0.1:0", self.dir]
        self.process = start(args, 1, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.port)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def client(self):
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{self.port}", region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}), aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )

    def make_locked(self, name):
        from botocore.exceptions import BotoCoreError, ClientError

        for _ in range(100):
            # It listens before it answers.
            try:
                self.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
                return
            except (BotoCoreError, ClientError):
                time.sleep(0.2)
        raise SystemExit("MinIO does not make a bucket")

    def bytes(self, name):
        pages = self.client().get_paginator("list_object_versions").paginate(Bucket=name)
        return sum(version["Size"] for page in pages for version in page.get("Versions", []))


def s3_out(server, bucket):
    return (f"{{ s3: {{ bucket: {bucket}, prefix: llm, region: us-east-1, endpoint: 'http://127.0.0.1:{server.port}', path_style: true, "
            "retention: { records: 365d, content: 90d } } }")


class Counter:
    """nginx before the store: passes everything, and its access log counts the requests by method, with their bytes."""

    def __init__(self, upstream):
        self.upstream = upstream

    def __enter__(self):
        self.dir = tempfile.mkdtemp(dir=ROOT / "target")
        self.port = port()
        conf = pathlib.Path(self.dir) / "nginx.conf"
        temp = "".join(f" {kind}_temp_path {self.dir}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        conf.write_text(
            f"worker_processes 1; daemon off; pid {self.dir}/pid; error_log /dev/null;\nevents {{ worker_connections 1000; }}\n"
            "http { log_format count '$request_method $status $request_length $bytes_sent';\n"
            f" access_log {self.dir}/log count;{temp} client_max_body_size 0;\n"
            f" server {{ listen 127.0.0.1:{self.port}; location / {{ proxy_pass http://127.0.0.1:{self.upstream};"
            " proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_request_buffering off; proxy_buffering off; } }\n}\n"
        )
        self.process = start(["nginx", "-c", conf, "-p", self.dir], 1)
        wait_for(self.port)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def counts(self):
        """Requests by method, and how many of them the store refused."""
        found, refused = {}, 0
        for line in (pathlib.Path(self.dir) / "log").read_text().splitlines():
            method, status = line.split()[:2]
            found[method] = found.get(method, 0) + 1
            # 404 of a HEAD or of a setting that nobody made is an answer.
            refused += status[0] == "5" or status in ("403", "409", "412")
        return found, refused


def less(after, before):
    return {method: count - before.get(method, 0) for method, count in after.items()}


def watermarks(gateway):
    text = urllib.request.urlopen(f"http://127.0.0.1:{gateway.admin}/metrics").read().decode()
    return {mark: int(float(n)) for mark, n in re.findall(r'^gateway_records\{mark="(\w+)"\} (\S+)', text, flags=re.M)}


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else float("nan")


class Lag:
    """Watches the watermarks: for each record that was journaled, how long it took until it was archived."""

    def __init__(self, gateway):
        import threading

        self.gateway, self.seen, self.over = gateway, [], threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self):
        while not self.over.is_set():
            with contextlib.suppress(OSError):
                marks = watermarks(self.gateway)
                self.seen.append((time.monotonic(), marks["journaled"], marks["archived"]))
            self.over.wait(0.1)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def lags(self):
        """Seconds, one for each 0.1 s in which records were journaled: from then until all of them were archived."""
        found, at = [], 0
        for n, (when, journaled, _) in enumerate(self.seen):
            if n and journaled == self.seen[n - 1][1]:
                continue
            at = max(at, n)
            while at < len(self.seen) and self.seen[at][2] < journaled:
                at += 1
            if at < len(self.seen):
                found.append(self.seen[at][0] - when)
        return found


class Load:
    """Exchanges through a gateway for some seconds, and the wait until all that was journaled is archived."""

    def __init__(self, gateway):
        connections, seconds = int(os.environ.get("BENCH_CONNECTIONS", "32")), SECONDS * 4
        first = watermarks(gateway)["archived"]
        with Lag(gateway) as lag:
            begin = time.monotonic()
            self.taken = wrk(gateway, connections, seconds=seconds)
            self.while_loaded = (watermarks(gateway)["archived"] - first) / 2
            self.loaded_for = time.monotonic() - begin
            # What is journaled now is archived before the watching ends.
            self.records = watermarks(gateway)["journaled"]
            while watermarks(gateway)["archived"] < self.records:
                time.sleep(0.1)
            # Two records of an exchange; over the whole time until the last one was archived.
            self.rate = (self.records - first) / 2 / (time.monotonic() - begin)
            time.sleep(0.3)
        self.lags = lag.lags()


def bench_archive():
    """Into MinIO under Object Lock: lag, sustained rate, requests and money per million exchanges, verifying from there."""
    with Minio() as minio, Counter(minio.port) as proxy, Provider() as provider:
        minio.make_locked("bench")
        with Affidavit(provider, out=s3_out(proxy, "bench"), evidence="  spool_bound: 8GiB\n", env=KEYS) as gateway:
            wrk(gateway, 32, seconds=2)
            time.sleep(12)
            before, _ = proxy.counts()
            load = Load(gateway)
            after, refused = proxy.counts()
            gateway.stop()
            stopped, _ = proxy.counts()
            asked = less(after, before)
            lags, ours = load.lags, load.taken
            exchanges = ours["n"]
            note("archive lag (batch_age 10 s)", f"p50 {quantile(lags, 0.5):.1f} s", f"p99 {quantile(lags, 0.99):.1f} s", "", "")
            note("exchanges/s into MinIO, sustained", f"{load.rate:.0f}", f"taken in {ours['rps']:.0f}", f"{load.rate / ours['rps']:.2f}x", "1x")
            note("archived while the load ran", f"{load.while_loaded:.0f}", f"of {exchanges} in {load.loaded_for:.0f} s", "", "")
            million = {method: count / exchanges * 1e6 for method, count in sorted(asked.items())}
            text = ", ".join(f"{count:.0f} {method}" for method, count in million.items())
            note("S3 requests per million exchanges", text, f"{refused} refused", "", "")
            kept = minio.bytes("bench")
            puts, gets = million.get("PUT", 0) + million.get("POST", 0), million.get("GET", 0) + million.get("HEAD", 0)
            # All that was ever stored, over all that was ever recorded.
            per = kept / (load.records / 2) * 1e6 / 1e9
            money = puts * PUT_PRICE + gets * GET_PRICE
            note("money per million exchanges, requests", f"{money:.4f} USD", "AWS list, us-east-1", "", "")
            note("money per million exchanges, storage", f"{per * GB_MONTH:.4f} USD/month", f"{per:.2f} GB", "", "")
            begin = time.time()
            used = os.times().children_user
            done = subprocess.run(
                [BIN / "auditor", "verify", "s3://bench/llm", "--endpoint-url", f"http://127.0.0.1:{proxy.port}", "--path-style",
                 "--trust", gateway.dir / "trust.yaml", "--state", gateway.dir / "state"],
                capture_output=True, text=True, env={**os.environ, **KEYS},
            )
            spent, wall = os.times().children_user - used, time.time() - begin
            print("  ", done.stdout.splitlines()[0] if done.stdout else done.stderr)
            verified, _ = proxy.counts()
            text = ", ".join(f"{count} {method}" for method, count in sorted(less(verified, stopped).items()))
            note("verify from MinIO", f"{kept / wall / 1e9:.3f} GB/s", f"{kept / 1e6:.0f} MB in {wall:.1f} s", f"{spent / wall:.2f} cores", "")
            note("  its requests", text, "", "", "")


class Kafka:
    """Apache Kafka as `tests/run kafka` fetches it: one process, broker and controller, on the client's core."""

    def __enter__(self):
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "affidavit"
        fetched = sorted(cache.glob("kafka-*/kafka"))
        if not fetched:
            raise SystemExit("Kafka is not there: run `tests/run kafka` once, or `tests/run bench kafka`")
        self.jars = f"{fetched[-1]}/*"
        self.dir = pathlib.Path(tempfile.mkdtemp(dir=ROOT / "target"))
        self.port, controller = port(), port()
        settings = self.dir / "server.properties"
        settings.write_text(
            "process.roles=broker,controller\nnode.id=1\n"
            f"controller.quorum.voters=1@127.0.0.1:{controller}\ncontroller.listener.names=CONTROLLER\n"
            f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}\n"
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}\n"
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n"
            f"log.dirs={self.dir}/data\nauto.create.topics.enable=false\noffsets.topic.replication.factor=1\n"
            "offsets.topic.num.partitions=4\ngroup.initial.rebalance.delay.ms=0\n"
        )
        self.run("kafka.tools.StorageTool", "format", "--cluster-id", "YWZmaWRhdml0LWJlbmNobTE", "--config", settings)
        self.process = start(self.java("kafka.Kafka", settings), 1, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.port)
        return self

    def java(self, name, *args):
        return ["java", "-Xmx1g", "-XX:+UseSerialGC", "-cp", self.jars, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", name, *args]

    def run(self, name, *args):
        done = subprocess.run(["taskset", "-c", "1", *map(str, self.java(name, *args))], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stdout}{done.stderr}")
        return done.stdout

    def producer(self, megabytes=400, size=917_504):
        """MB/s of Kafka's own producer in messages of the chunks' size, acknowledged by all replicas; the broker's CPU ms a MB."""
        server = f"127.0.0.1:{self.port}"
        self.run("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", server, "--create", "--topic", "peer",
                 "--partitions", 12, "--replication-factor", 1)
        used = Used(broker=self.process)
        said = self.run("org.apache.kafka.tools.ProducerPerformance", "--topic", "peer", "--num-records", megabytes * 1_000_000 // size,
                        "--record-size", size, "--throughput", -1, "--producer-props", f"bootstrap.servers={server}", "acks=all",
                        "max.request.size=2000000")
        return float(re.findall(r"\(([0-9.]+) MB/sec\)", said)[-1]) * (1 << 20) / 1e6, used.since()["broker"] / megabytes * 1e3

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Archiver:
    """`gateway archive` on the client's core; its key is made before the gateway that pins it is configured."""

    def __init__(self, kafka, minio):
        self.kafka, self.minio = kafka, minio
        self.dir = pathlib.Path(tempfile.mkdtemp(dir=ROOT / "target"))
        keygen = [BIN / "gateway", "keygen", "--deployment", "bench", "--archiver", "ar1", "--out", self.dir / "archiver.key"]
        self.line = subprocess.run(keygen, check=True, capture_output=True, text=True).stdout.strip().removeprefix("- ")

    def start(self, trust):
        self.metrics = port()
        (self.dir / "archive.yaml").write_text(
            f"deployment: bench\nname: ar1\nkey: archiver.key\ntrust: {trust}\nwork: work\nquarantine: quarantine\n"
            f"metrics: 127.0.0.1:{self.metrics}\n"
            f"kafka: {{ brokers: ['127.0.0.1:{self.kafka.port}'], topic: batches, receipts: receipts }}\n"
            f"out: {s3_out(self.minio, 'through')}\n"
        )
        self.process = start([BIN / "gateway", "archive", "-c", self.dir / "archive.yaml"], 1, stdout=subprocess.DEVNULL,
                             stderr=open(self.dir / "log", "w"), env={**os.environ, **KEYS})
        wait_for(self.metrics)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        shutil.rmtree(self.dir, ignore_errors=True)


def spent(after, before, names=lambda name: True):
    return sum(seconds - before.get(name, 0) for name, seconds in after.items() if names(name))


def is_shipping(name):
    return is_sealing(name) or name.startswith("rdk")


class Used:
    """CPU seconds of some processes since it was made."""

    def __init__(self, **processes):
        self.pids = {name: process.pid for name, process in processes.items()}
        self.before = {name: cpu(pid) for name, pid in self.pids.items()}

    def since(self):
        """By process; of the gateway by what it does."""
        out = {}
        for name, pid in self.pids.items():
            now = cpu(pid)
            if name == "gateway":
                out["gateway, request path"] = spent(now, self.before[name], lambda thread: not is_shipping(thread))
                out["gateway, sealing and shipping"] = spent(now, self.before[name], is_shipping)
            else:
                out[name] = spent(now, self.before[name])
        return out


def bench_kafka():
    """Through Kafka and the archiver into MinIO under Object Lock, beside the gateway that puts into the bucket itself."""
    with Minio() as minio, Provider() as provider:
        minio.make_locked("straight")
        minio.make_locked("through")
        with Affidavit(provider, out=s3_out(minio, "straight"), evidence="  spool_bound: 8GiB\n", env=KEYS) as gateway:
            used = Used(gateway=gateway.process, minio=minio.process)
            wrk(gateway, 32, seconds=2)
            straight = Load(gateway)
            straight_used = used.since()
            gateway.stop()
        with Kafka() as kafka:
            archiver = Archiver(kafka, minio)
            out = (f"{{ kafka: {{ brokers: ['127.0.0.1:{kafka.port}'], topic: batches, receipts: receipts, "
                   f"archivers: [{archiver.line}], create: {{ partitions: 12, replication: 1 }} }} }}")
            with Affidavit(provider, out=out, evidence="  spool_bound: 8GiB\n") as gateway:
                archiver.start(gateway.dir / "trust.yaml")
                used = Used(gateway=gateway.process, archiver=archiver.process, broker=kafka.process, minio=minio.process)
                wrk(gateway, 32, seconds=2)
                through = Load(gateway)
                through_used = used.since()
                gateway.stop()
            archiver.stop()
            size = minio.bytes("through")
            plain, plain_cpu = kafka.producer()
        ours, peer = through.taken, straight.taken
        note("exchanges/s through Kafka into MinIO", f"{through.rate:.0f} of {ours['rps']:.0f} taken in",
             f"straight {straight.rate:.0f} of {peer['rps']:.0f}", f"{through.rate / straight.rate:.2f}x", "")
        note("archive lag through Kafka (batch_age 10 s)", f"p50 {quantile(through.lags, 0.5):.1f} s, p99 {quantile(through.lags, 0.99):.1f} s",
             f"straight p50 {quantile(straight.lags, 0.5):.1f} s, p99 {quantile(straight.lags, 0.99):.1f} s", "", "")
        megabytes, peer_megabytes = size / 1e6, minio.bytes("straight") / 1e6
        note("evidence on its way", f"{size / (through.records / 2):.0f} bytes an exchange", f"{megabytes:.0f} MB", "", "")
        for part, seconds in through_used.items():
            beside = f"straight {straight_used[part] / peer_megabytes * 1e3:.1f} ms" if part in straight_used else ""
            if part == "broker":
                beside = f"under its own producer {plain_cpu:.1f} ms"
            ratio = f"{seconds / megabytes / (straight_used[part] / peer_megabytes):.2f}x" if straight_used.get(part) else ""
            note(f"CPU a MB of evidence, {part}", f"{seconds / megabytes * 1e3:.1f} ms", beside, ratio, "")
        sent = through.rate * size / (through.records / 2) / 1e6
        note("MB/s of evidence through the topic", f"{sent:.1f}", f"Kafka's producer {plain:.0f}", f"{sent / plain:.2f}x", "")


def bench_commit():
    """What `commit: kafka` costs one caller, and many, over `commit: local` in the same run; one broker on this machine."""
    with Kafka() as kafka, Provider() as provider:
        secret = {"COMMIT_SECRET": base64.b64encode(os.urandom(32)).decode()}
        topic = f"  commit: {{ kafka: {{ brokers: ['127.0.0.1:{kafka.port}'], secret: {{ env: COMMIT_SECRET }}, create: {{ partitions: 4, replication: 1 }} }} }}\n"
        measured = {}
        for name, evidence in (("local", ""), ("kafka", topic)):
            with Affidavit(provider, evidence=evidence, env=secret) as gateway:
                wrk(gateway, 8, seconds=2)
                measured[name] = wrk(gateway, 1), wrk(gateway, 32)
        local, ours = measured["local"], measured["kafka"]
        for part in ("p50", "p99"):
            note(f"one caller {part}, commit: kafka", f"{ours[0][part]} us", f"commit: local {local[0][part]} us",
                 f"{ours[0][part] / local[0][part]:.2f}x", "printed")
        note("exchanges/s, 32 connections, commit: kafka", f"{ours[1]['rps']:.0f}", f"commit: local {local[1]['rps']:.0f}",
             f"{ours[1]['rps'] / local[1]['rps']:.2f}x", "printed")


BENCHES = {"requests": bench_requests, "streams": bench_streams, "storage": bench_storage, "verify": bench_verify, "archive": bench_archive,
           "kafka": bench_kafka, "commit": bench_commit, "assess": bench_assess, "spark": bench_spark, "routing": bench_routing}

if __name__ == "__main__":
    (ROOT / "target").mkdir(exist_ok=True)
    print(f"{'measure':44} {'affidavit':>22} {'peer':>26} {'ratio':>10}   wanted")
    for name in sys.argv[1:] or BENCHES:
        BENCHES[name]()
