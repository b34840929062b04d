"""Time several contenders against each other, in rounds that interleave them.

In every round each contender is timed once, so that sample i of one and sample i of another were
taken under the same conditions: *paired*. From round to round the order changes: nobody always
comes first, nor always after the same other one, which leaves its own data in the caches.
"""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from .machine import page_faults

_MOST_WARM_UPS = 8
# Of 4 KiB; what Python needs now and then.
_FEW_PAGES = 32


class Timer(NamedTuple):
    """Something that can be timed."""

    run: Callable[[int], float]
    """``run(repeats)`` takes this many seconds."""
    calls: int = 1
    """How often one repeat calls what is timed."""


class Limits(NamedTuple):
    """How much is measured."""

    seconds: float
    """Stop after this time, once there are `fewest` rounds."""
    fewest: int = 6
    most: int = 2000
    least_sample: float = 200e-6
    """Seconds of the shortest sample: shorter calls are repeated, so that the clock's resolution
    and the loop around them do not matter."""


class Samples(NamedTuple):
    """What was measured."""

    seconds: dict[str, list[float]]
    """Per contender, seconds per call; those at the same index belong to the same round."""
    page_faults: int | None
    """How often new memory had to be mapped meanwhile; None where the system does not say."""


def host_timer(call: Callable[[], Any]) -> Timer:
    """Time a function that has finished when it returns."""

    def run(repeats: int) -> float:
        rounds = itertools.repeat(None, repeats)
        start = time.perf_counter()
        for _ in rounds:
            call()
        return time.perf_counter() - start

    return Timer(run)


def orders(contenders: int) -> list[tuple[int, ...]]:
    """Orders in which everybody has each place equally often, and each predecessor too.

    A Latin square of Williams' kind (1949, Australian Journal of Scientific Research 2, 149): 0, 1,
    k-1, 2, k-2, ..., and the same with 1, 2, ... added, modulo k. For odd k, the mirror image of
    these orders is needed too.
    """
    first = [0]
    for step in range(1, contenders):
        first.append((step + 1) // 2 if step % 2 else contenders - step // 2)
    square = [tuple((place + row) % contenders for place in first) for row in range(contenders)]
    if contenders % 2 and contenders > 1:
        square += [order[::-1] for order in square]
    return square


def repeats_for(timer: Timer, least_sample: float) -> int:
    """How often to repeat a call until a sample lasts `least_sample` seconds."""
    repeats, elapsed = 1, _faster_of_two(timer, 1)
    while elapsed < least_sample:
        # Some more than would do, but not far more: the first calls are slower than those to come.
        growth = min(10.0, max(2.0, 1.2 * least_sample / max(elapsed, 1e-9)))
        repeats = math.ceil(repeats * growth)
        elapsed = _faster_of_two(timer, repeats)
    return repeats


def _faster_of_two(timer: Timer, repeats: int) -> float:
    """The time of one sample, if another is slow: the very first call may plan, or compile."""
    return min(timer.run(repeats), timer.run(repeats))


def measure(
    timers: Mapping[str, Timer], limits: Limits, clock: Callable[[], float] = time.perf_counter
) -> Samples:
    """Time all contenders, paired and interleaved.

    The number of rounds is a multiple of the number of contenders, so that each of them has been
    in each place equally often. The first rounds are not recorded: see :func:`_warm_up`.
    """
    names = list(timers)
    schedule = orders(len(names))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with _without_garbage_collection():
        repeats = {name: repeats_for(timer, limits.least_sample) for name, timer in timers.items()}
        _warm_up([(timers[names[i]], repeats[names[i]]) for i in schedule[0] + schedule[-1]])
        faults, start = page_faults(), clock()
        for number, order in enumerate(itertools.cycle(schedule)):
            if number % len(names) == 0 and number >= limits.fewest:
                late = clock() - start >= limits.seconds
                if late or number + len(names) > limits.most:
                    break
            for index in order:
                name = names[index]
                elapsed = timers[name].run(repeats[name])
                seconds[name].append(elapsed / (repeats[name] * timers[name].calls))
        after = page_faults()
    return Samples(seconds, None if faults is None or after is None else after - faults)


def _warm_up(rounds: list[tuple[Timer, int]]) -> None:
    """Run until the allocator finds a place for every output without new memory from the system.

    It takes a while: aligned blocks need more space than they leave when they are freed, and what
    they leave is cut by small objects that stay. Hence it has to find a place twice in a row.
    """
    quiet = 0
    for _ in range(_MOST_WARM_UPS):
        before = page_faults()
        for timer, repeats in rounds:
            timer.run(repeats)
        after = page_faults()
        if before is None or after is None:
            break
        quiet = quiet + 1 if after - before < _FEW_PAGES else 0
        if quiet == 2:
            break


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Keep Python's collector, which runs when it likes, out of the samples."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
