"""What routing, limits and translation cost over native relay, beside nginx, LiteLLM and Portkey: `tests/run bench routing`.

One provider, one machine, one run; each proxy alone on core 0, client, provider and Redis on core 1. The proxies take turns for some
rounds (`BENCH_ROUNDS`), every other one in the opposite order, and each figure is the median of its rounds. Affidavit is with evidence on.

The peers run as their documents say for production: LiteLLM with a master key, one worker for its core, no database, no log of
requests; Portkey's gateway headless in Node, one process. They are installed from PyPI and npm into target/tools, of fixed versions.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import bench
from bench import ROOT, SECONDS, Affidavit, Nginx, Provider, port, start, wait_for

TOOLS = ROOT / "target" / "tools"
LOAD = max(1, SECONDS // 2)
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
# Two lengths of streams: what an event costs is the difference, without what a request costs.
SHORT, LONG = 10, 110
WHOLE, STREAMS, LOW = 32, 8, 1
MASTER = "sk-bench-master"

THREE_TARGETS = """    balance: { by: weight, sticky: conversation }
    targets:
      - { provider: first, weight: 3 }
      - { provider: second, weight: 2 }
      - { provider: third, weight: 1 }
    retry: { attempts: 3, on: [connect, timeout, 5xx], within: 30s, budget: 20% }
"""
# None of these fits; the last one asks the prompt.
MATCHES = """  - { name: by-team, path: /openai, keys: exchange, match: { teams: [finance] }, provider: openai }
  - { name: by-model, path: /openai, keys: exchange, match: { models: ['claude-*', 'o1*'] }, provider: openai }
  - { name: by-content, path: /openai, keys: exchange, match: { content: '(?i)\\binvoice\\b' }, provider: openai }
"""
HEALTH = ", health: { passive: { failures: 5, within: 30s, share: 20, statuses: [5xx], eject_for: 30s } }"
RULES = """  rules:
    - { name: rpm, by: [consumer], count: requests, limit: 1000000000, per: 1m, window: sliding }
    - { name: tpm, by: [consumer, model], count: tokens, limit: 1000000000000, per: 1m }
    - { name: streams, by: [key], count: concurrency, limit: 100000 }
    - { name: budget, by: [team], count: money, currency: USD, limit: 9000000.00, calendar: month }
"""


class Gateway(Affidavit):
    """Affidavit with one of the set-ups: its routes, what stands behind them, further providers as (name, dialect, more keys)."""

    def __init__(self, provider, routes, more="", others=()):
        super().__init__(provider)
        self.routes, self.more, self.others = routes, more, others

    def configured(self, text):
        head, _, tail = text.partition("routes:\n")
        _, _, tail = tail.partition("\nkeys: ")
        url = f"http://127.0.0.1:{self.provider.port}"
        others = "".join(
            f"  - {{ name: {name}, dialect: {dialect}, base_url: '{url}', credential: {{ file: {self.dir}/provider.key }}{more} }}\n"
            for name, dialect, more in self.others
        )
        # What the models are called here has no price in the book.
        book = sorted((ROOT / "policies/prices").glob("*.csv"))[-1]
        rows = "".join(
            f"{name}/words,{name},words-10 words-110,standard,,2024-10-02,,USD,0.15,0.075,,,0.6,,,=,https://example.com/,2025-11-13,,,,,,,\n"
            for name in ("openai", *(name for name, _, _ in self.others))
        )
        (self.dir / "prices.csv").write_text(book.read_text() + rows)
        keys = tail.partition("\n")[0]
        return f"{head}{others}routes:\n{self.routes}{self.more}keys: {keys}\nprices: {self.dir}/prices.csv\n"


class Unmeasured(Exception):
    """Why a proxy cannot be measured."""


class Peer:
    """Another maker's gateway; it is stopped while others are measured."""

    ready = 180

    def __init__(self, provider):
        self.provider = provider
        self.port = port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.dir = pathlib.Path(tempfile.mkdtemp(dir=ROOT / "target"))

    def __enter__(self):
        self.log = self.dir / "log"
        args, env = self.command()
        self.process = start(args, 0, cwd=self.dir, stdout=open(self.log, "w"), stderr=subprocess.STDOUT, env={**os.environ, **env})
        until = time.monotonic() + self.ready
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self.alive}", timeout=2):
                return self
            time.sleep(0.2)
        said = self.log.read_text()[-2000:]
        self.__exit__()
        raise Unmeasured(f"it does not answer: {said}")

    @contextlib.contextmanager
    def awake(self):
        """Runs while it is measured, and is stopped while others are."""
        self.signal(signal.SIGCONT)
        yield self
        self.signal(signal.SIGSTOP)

    def signal(self, number):
        for pid in bench.family(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def __exit__(self, *_):
        self.signal(signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class LiteLLM(Peer):
    """https://docs.litellm.ai/docs/proxy/prod"""

    alive = "/health/liveliness"
    headers = {"Authorization": f"Bearer {MASTER}"}

    def command(self):
        target = f"http://127.0.0.1:{self.provider.port}"
        models = []
        for count in (SHORT, LONG):
            name = f"words-{count}"
            models.append({"model_name": name, "litellm_params": {"model": f"openai/{name}", "api_base": f"{target}/v1", "api_key": "sk-bench"}})
            models.append({"model_name": f"claude-{name}",
                           "litellm_params": {"model": f"anthropic/{name}", "api_base": target, "api_key": "sk-bench"}})
        config = {
            "model_list": models,
            "general_settings": {"master_key": MASTER, "disable_error_logs": True},
            "litellm_settings": {"request_timeout": 600, "set_verbose": False, "json_logs": True},
        }
        (self.dir / "config.yaml").write_text(json.dumps(config))
        env = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
        binary = TOOLS / "bench-litellm" / "bin" / "litellm"
        return [binary, "--config", self.dir / "config.yaml", "--host", "127.0.0.1", "--port", self.port, "--num_workers", 1,
                "--telemetry", "False"], env


class Portkey(Peer):
    """https://github.com/Portkey-AI/gateway: the gateway in Node, without its console. With the newest `@hono/node-server` that npm
    chooses for it every stream ends with status 500 (its issue 1389); `package.json` names the newest one with which streams work."""

    alive = "/"
    headers = {"Authorization": "Bearer sk-bench"}

    def command(self):
        built = TOOLS / "bench-portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
        return ["node", built, "--headless", f"--port={self.port}"], {"NODE_ENV": "production"}


class Redis:
    """Debian's, as `tests/run redis` unpacks it, in memory, on the client's core."""

    def __enter__(self):
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "affidavit"
        unpacked = sorted(cache.glob("redis-*/redis"))
        if not unpacked:
            raise SystemExit("Redis is not there: run `tests/run redis` once, or `tests/run bench routing`")
        self.port = port()
        self.process = start(
            [unpacked[-1] / "usr/bin/redis-server", "--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port", self.port], 1,
            stdout=subprocess.DEVNULL, env={**os.environ, "LD_LIBRARY_PATH": str(unpacked[-1] / "lib")},
        )
        wait_for(self.port)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Way:
    """One way through a proxy: who opens it, and how it is asked."""

    def __init__(self, name, opened, path="/v1/chat/completions", model="words-", headers=None, says="chat.completion", warm=2):
        self.name, self.opened, self.path, self.model, self.headers, self.says = name, opened, path, model, headers or {}, says
        self.warm = warm
        self.rounds = []

    def body(self, count, stream):
        return json.dumps({"model": f"{self.model}{count}", "stream": stream, "max_tokens": 4096,
                           "messages": [{"role": "user", "content": bench.PROMPT}]})

    def check(self):
        """Its answers are what they should be, whole and streamed."""
        with self.opened() as proxy:
            for stream in (False, True):
                request = urllib.request.Request(
                    proxy.base + self.path, data=self.body(LONG, stream).encode(),
                    headers={**proxy.headers, **self.headers, "content-type": "application/json"})
                try:
                    text = urllib.request.urlopen(request, timeout=120).read().decode()
                except urllib.error.HTTPError as error:
                    raise Unmeasured(f"status {error.code}: {error.read().decode()[:1000]}") from error
                words = len(re.findall(r"word\d+ ", text))
                if words != LONG if stream else self.says not in text:
                    raise Unmeasured(f"{words} words of {LONG}: {text[:1000]}")

    def measure(self):
        """CPU of a request and of an event, microseconds; requests a second; latency of one caller, microseconds."""
        with self.opened() as proxy:
            def load(count, stream, connections, seconds, wanted=0):
                settle(proxy)
                headers = {**proxy.headers, **self.headers}
                found = bench.load(proxy, proxy.base + self.path, self.body(count, stream), connections, headers, seconds)
                # What was under way at the end was paid for and does not count: a slow proxy gets longer, once.
                if found["n"] >= wanted or seconds > LOAD:
                    if found["n"] < wanted:
                        print(f"   {self.name}: {found['n']} answers only in {seconds} s", flush=True)
                    return found
                return load(count, stream, connections, seconds * 4, wanted)

            def measured(count, stream, connections):
                return load(count, stream, connections, LOAD, 10 * connections)

            load(SHORT, False, WHOLE, min(self.warm, 2 * LOAD))
            whole = measured(SHORT, False, WHOLE)
            short, long = (bench.per_request(measured(count, True, STREAMS), on_path) for count in (SHORT, LONG))
            one = measured(SHORT, False, LOW)
        self.rounds.append({"request": bench.per_request(whole, on_path), "event": (long - short) / (LONG - SHORT), "rps": whole["rps"],
                            "p50": one["p50"], "p99": one["p99"]})

    def median(self, what):
        return statistics.median(figures[what] for figures in self.rounds)


def settle(proxy):
    """Waits until it is done with what callers left behind; not for ever."""
    for _ in range(50):
        before = sum(bench.cpu(proxy.process.pid).values())
        time.sleep(0.2)
        if sum(bench.cpu(proxy.process.pid).values()) - before < 0.03:
            return


def on_path(thread):
    """What callers wait for; sealing and shipping are a measure of their own."""
    return not bench.is_sealing(thread)


def ways(provider, redis, litellm, portkey):
    """What is measured, native relay first."""
    plain = "  - { name: plain, path: /openai, provider: openai, keys: exchange }\n"
    several = MATCHES + "  - name: routed\n    path: /openai\n    keys: exchange\n" + THREE_TARGETS
    shared = f"quotas:\n  store: {{ redis: {{ urls: ['redis://127.0.0.1:{redis.port}'] }} }}\n{RULES}"
    same = [(name, "openai", HEALTH) for name in ("first", "second", "third")]
    anthropic = {"path": "/v1/messages", "headers": {"anthropic-version": "2023-06-01"}, "says": '"message"'}

    def gateway(*arguments):
        return lambda: Gateway(provider, *arguments)

    def to(name, caller):
        route = f"  - {{ name: other, path: /openai, dialect: {caller}, provider: {name}, keys: exchange }}\n"
        return gateway(route, "", [] if name == "openai" else [(name, name, "")])

    def through_portkey(name):
        return {"x-portkey-provider": name, "x-portkey-custom-host": f"http://127.0.0.1:{provider.port}/v1"}

    found = [
        Way("native relay", gateway(plain)),
        Way("4 matches, 3 targets, health, sticky", gateway(several, "", same)),
        Way("4 limits, local", gateway(plain, "quotas:\n" + RULES)),
        Way("4 limits, Redis", gateway(plain, shared)),
        Way("OpenAI -> Anthropic", to("anthropic", "openai")),
        Way("OpenAI -> Gemini", to("gemini", "openai")),
        Way("Anthropic -> OpenAI", to("openai", "anthropic"), **anthropic),
        Way("nginx proxy_pass", lambda: Nginx(provider)),
    ]
    # Interpreters take longer until they are as fast as they get.
    if litellm:
        found.append(Way("LiteLLM", litellm.awake, warm=8))
        found.append(Way("LiteLLM, OpenAI -> Anthropic", litellm.awake, model="claude-words-", warm=8))
    if portkey:
        found.append(Way("Portkey", portkey.awake, headers=through_portkey("openai"), warm=8))
        found.append(Way("Portkey, OpenAI -> Anthropic", portkey.awake, headers=through_portkey("anthropic"), warm=8))
    return found


def show(measured):
    native, nginx = measured[0], next(way for way in measured if way.name.startswith("nginx"))
    print(f"{'medians of ' + str(ROUNDS) + ' rounds':38} {'us/request':>10} {'native':>7} {'nginx':>7} {'us/event':>9} {'native':>7}"
          f" {'nginx':>7} {'req/s':>7} {'p50 us':>7} {'p99 us':>8}")
    for way in measured:
        cells = [f"{way.name:38}"]
        for what, width in (("request", 10), ("event", 9)):
            cost = way.median(what)
            cells.append(f"{cost:{width}.{1 if what == 'request' else 2}f}")
            cells += [f"{cost / peer.median(what) if peer.median(what) > 0 else float('nan'):6.2f}x" for peer in (native, nginx)]
        cells += [f"{way.median('rps'):7.0f}", f"{way.median('p50'):7.0f}", f"{way.median('p99'):8.0f}"]
        print(" ".join(cells), flush=True)


def run():
    begin = time.monotonic()
    missing = []
    with contextlib.ExitStack() as stack:
        provider, redis = stack.enter_context(Provider()), stack.enter_context(Redis())

        def started(kind):
            try:
                peer = stack.enter_context(kind(provider))
            except Unmeasured as why:
                missing.append(f"{kind.__name__}: {why}")
                return None
            peer.signal(signal.SIGSTOP)
            return peer

        measured = []
        for way in ways(provider, redis, started(LiteLLM), started(Portkey)):
            try:
                way.check()
                measured.append(way)
            except Unmeasured as why:
                if not way.name.startswith(("LiteLLM", "Portkey")):
                    raise SystemExit(f"{way.name}: {why}") from why
                missing.append(f"{way.name}: {why}")
        for number in range(ROUNDS):
            for way in measured if number % 2 == 0 else reversed(measured):
                way.measure()
            print(f"   round {number + 1} of {ROUNDS}, {time.monotonic() - begin:.0f} s", flush=True)
    show(measured)
    if missing:
        raise SystemExit("not measured: " + "\n".join(missing))
