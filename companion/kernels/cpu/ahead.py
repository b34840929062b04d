"""Compile ahead of the first use: one process for each function, one at a time on each core."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

from . import calls, workers

USUAL = ("float32", "float64")
"""Half precision is rare on a CPU."""
_PROGRAM = "from companion.kernels.cpu import workers; workers.compiled({!r}, {!r})"


def compile_missing(dtypes: Iterable[str]) -> int:
    """Compile what is not on the disk yet, so that no later call has to, and say so.

    Parameters
    ----------
    dtypes
        The types of activations, of :data:`.formats.FORMATS`.

    Returns
    -------
    int
        The exit status: 1 if a function could not be compiled, or not kept. Without a C++ compiler,
        or if that fails, everything works, and the status is 0.

    Raises
    ------
    OSError
        There is no place for what is compiled.
    KeyboardInterrupt
        Nothing is left running, and what has been compiled is kept.
    """
    return asyncio.run(_compile(dtypes))


async def _compile(dtypes: Iterable[str]) -> int:
    # The slowest first.
    functions = [
        (backward, dtype)
        for backward in (False, True)
        for dtype in dtypes
        if not workers.is_compiled(backward, dtype)
    ]
    slots = asyncio.Semaphore(_cores())
    jobs = [_compile_function(slots, *function) for function in functions]
    if not calls.path().exists():
        jobs.insert(min(_cores(), len(jobs)), _build_calls(slots))
    if jobs:
        _say(f"compiling {len(jobs)} part{'s' * (len(jobs) > 1)} for this machine, once")
    # Which, if this is interrupted, waits until all have ended.
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(job) for job in jobs]
    return max((task.result() for task in tasks), default=0)


def _cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


async def _compile_function(slots: asyncio.Semaphore, backward: bool, dtype: str) -> int:
    title = workers.title(backward, dtype)
    async with slots:
        start = time.monotonic()
        try:
            status, output = await _run([sys.executable, "-c", _PROGRAM.format(backward, dtype)])
        except OSError as error:
            _say(f"compile: {title} failed: {error}")
            return 1
    if status != 0:
        _say(f"compile: {title} failed:\n{output}")
        return 1
    if not workers.is_compiled(backward, dtype):
        [*_, reason] = output.strip().splitlines() or [f"{title} was not kept"]
        _say(f"compile: {reason}")
        return 1
    _say(f"  {title}: {time.monotonic() - start:.0f} s")
    return 0


async def _build_calls(slots: asyncio.Semaphore) -> int:
    async with slots:
        start = time.monotonic()
        try:
            with calls.building() as (command, environment):
                status, output = await _run(command, environment)
                if status != 0:
                    raise calls.BuildError(f"the C++ compiler failed:\n{output}")
        except (calls.BuildError, OSError) as error:
            # Everything works without it.
            _say(f"compile: calls of small batches remain slower: {error}")
        else:
            _say(f"  the calls of the kernels: {time.monotonic() - start:.0f} s")
    return 0


async def _run(command: list[str], environment: dict[str, str] | None = None) -> tuple[int, str]:
    """The exit status of a command and its output; it ends when this is cancelled."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # An interruption is for this process, which ends the others, and those that they started.
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate()
        return await process.wait(), output.decode(errors="replace")
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                if hasattr(os, "killpg"):
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
            # Which closes the pipe, too.
            await process.communicate()
