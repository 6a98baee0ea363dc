"""Reads bytes of strangers in a child process: what brings the reader down there is a finding here, and the work goes on."""

import json
import os
import resource
import select
import signal
import time

# Loaded once, before there is a child: pyarrow would load it in each of them.
import pandas  # noqa: F401

MEMORY = 8 << 30  # bytes that a child may take beside what it begins with
CPU_S = 900
WALL_S = 3600
# Ends by a bound of the machine's, or of ours: they say nothing about the bytes.
BOUNDS = (signal.SIGKILL, signal.SIGXCPU, signal.SIGTERM)


class Died(Exception):
    """The child was ended by what it read."""


class Bound(Exception):
    """The child took more memory or time than it may have, or was ended from outside."""


def call(work):
    """What `work` gives, as JSON has it; it runs in a child. An exception of `work` itself is a `RuntimeError` here."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ours)
            answer(work, theirs)
        finally:
            # Nothing of the parent's that is open or buffered is flushed or closed twice.
            os._exit(1)
    os.close(theirs)
    said = None
    try:
        said = heard(ours)
    finally:
        os.close(ours)
        if said is None:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if said is None:
        raise Bound(f"more than {WALL_S} s")
    done = parsed(said)
    if done is None:
        raise ended(os.waitstatus_to_exitcode(status))
    if "bound" in done:
        raise Bound(done["bound"])
    if "failed" in done:
        raise RuntimeError(done["failed"])
    return done["gave"]


def ended(code):
    """Why there is no answer."""
    if code >= 0:
        return RuntimeError(f"the reader ended with {code}")
    text = f"the reader was ended by {signal.Signals(-code).name}"
    return Bound(text) if -code in BOUNDS else Died(text)


def heard(pipe):
    """All that the child writes; None where it does not end in time."""
    said, until = [], time.monotonic() + WALL_S
    while left := max(0, until - time.monotonic()):
        if select.select([pipe], [], [], left)[0]:
            piece = os.read(pipe, 1 << 20)
            if not piece:
                return b"".join(said)
            said.append(piece)
    return None


def parsed(said):
    """The child's whole answer; None where it did not come to its end."""
    try:
        return json.loads(said)
    except ValueError:
        return None


def answer(work, pipe):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    bounded(resource.RLIMIT_AS, held() + MEMORY)
    bounded(resource.RLIMIT_CPU, CPU_S)
    try:
        said = json.dumps({"gave": work()})
    except MemoryError:
        said = json.dumps({"bound": f"more than {MEMORY} bytes of memory"})
    except Exception as error:
        said = json.dumps({"failed": f"{type(error).__name__}: {error}"})
    said = said.encode()
    while said:
        said = said[os.write(pipe, said):]


def bounded(what, limit):
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def held():
    """Bytes of address space that this process has; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0
