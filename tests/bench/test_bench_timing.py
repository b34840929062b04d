import collections
import gc
import itertools

import pytest

from companion.bench import timing
from companion.bench.timing import Limits, Timer, host_timer, measure, orders, repeats_for


class World:
    """A clock that only moves when somebody is timed; remembers who was, and how often."""

    def __init__(self, **seconds):
        self.now, self.log = 0.0, []
        self.timers = {name: self.timer(name, each) for name, each in seconds.items()}

    def timer(self, name, each, calls=1):
        def run(repeats):
            self.log.append((name, repeats))
            elapsed = repeats * calls * each
            self.now += elapsed
            return elapsed

        return Timer(run, calls)

    def measure(self, **limits):
        return measure(self.timers, Limits(**limits), lambda: self.now)


@pytest.mark.parametrize("k", range(2, 8))
def test_everybody_has_each_place_and_each_predecessor_equally_often(k):
    square = orders(k)
    assert all(sorted(order) == list(range(k)) for order in square)
    places = collections.Counter(
        (place, who) for order in square for place, who in enumerate(order)
    )
    assert len(places) == k * k
    assert len(set(places.values())) == 1
    pairs = collections.Counter(pair for order in square for pair in itertools.pairwise(order))
    assert len(pairs) == k * (k - 1)
    assert len(set(pairs.values())) == 1
    # Already the first k have all places, so that any multiple of k rounds is balanced.
    first = {(place, who) for order in square[:k] for place, who in enumerate(order)}
    assert len(first) == k * k


@pytest.mark.parametrize(
    ("faults", "warm_ups"),
    [
        ([0] * 20, 2),
        ([5000, 4000, 31, 0], 4),
        ([0, 5000, 0, 5000, 0, 0], 6),
        ([5000] * 20, 8),
        ([None] * 20, 1),
    ],
)
def test_rounds_are_not_recorded_until_no_memory_is_mapped(monkeypatch, faults, warm_ups):
    mapped = iter(faults)
    state = [0]

    def page_faults():
        return None if faults[0] is None else state[0]

    def run(_):
        # Both contenders, in two rounds, map their part.
        runs.append(None)
        if len(runs) > 4 and len(runs) % 4 == 0 and faults[0] is not None:
            state[0] += next(mapped, 0)
        return 1.0

    runs = []
    monkeypatch.setattr(timing, "page_faults", page_faults)
    samples = measure({"a": Timer(run), "b": Timer(run)}, Limits(0.0, fewest=2))
    assert len(samples.seconds["a"]) == 2
    assert len(runs) == 4 + 4 * warm_ups + 4


def test_one_contender_has_one_order():
    assert orders(1) == [(0,)]


def test_samples_are_interleaved_in_these_orders():
    names = "abcd"
    world = World(a=1.0, b=2.0, c=3.0, d=4.0)
    samples = world.measure(seconds=0.0, fewest=8)
    # Before: 8 calls to find the repeats, and rounds to warm up.
    assert (len(world.log) - 8) % (2 * 4) == 0
    assert len(world.log) > 8 + 8 * 4
    recorded = [name for name, _ in world.log[-8 * 4 :]]
    expected = [names[index] for order in (orders(4) * 2) for index in order]
    assert recorded == expected
    assert samples.seconds == {name: [float(1 + i)] * 8 for i, name in enumerate(names)}


@pytest.mark.parametrize(("fewest", "rounds"), [(1, 3), (3, 3), (4, 6), (7, 9)])
def test_the_rounds_are_a_multiple_of_the_contenders(fewest, rounds):
    world = World(a=1.0, b=1.0, c=1.0)
    assert len(world.measure(seconds=0.0, fewest=fewest).seconds["a"]) == rounds


def test_measuring_goes_on_while_there_is_time_and_not_beyond_the_most():
    world = World(a=0.5, b=0.5)
    assert len(world.measure(seconds=9.5, fewest=2).seconds["b"]) == 10
    world = World(a=0.5, b=0.5)
    assert len(world.measure(seconds=1e9, fewest=2, most=21).seconds["b"]) == 20


def test_short_calls_are_repeated_until_the_sample_is_long_enough():
    for each in (1e-7, 3e-6, 1e-4, 2e-4, 1.0):
        world = World(it=each)
        repeats = repeats_for(world.timers["it"], 200e-6)
        assert repeats * each >= 200e-6
        assert repeats * each <= max(5 * 200e-6, each)
    # A clock that does not move at first.
    answers = iter([0.0] * 4 + [1.0] * 2)
    assert repeats_for(Timer(lambda _: next(answers)), 1e-3) == 100


def test_a_slow_first_call_does_not_make_a_sample_of_one():
    first = iter([1.0])
    timer = Timer(lambda repeats: next(first, 0.0) + repeats * 1e-6)
    assert 200 <= repeats_for(timer, 200e-6) <= 1000


def test_samples_are_seconds_per_call_whatever_is_repeated():
    world = World(short=1e-6)
    world.timers["graph"] = world.timer("graph", 1e-5, calls=50)
    samples = world.measure(seconds=0.0, fewest=2)
    assert samples.seconds["short"] == pytest.approx([1e-6] * 2)
    assert samples.seconds["graph"] == pytest.approx([1e-5] * 2)
    assert dict(world.log[-4:])["short"] >= 200


def test_the_garbage_collector_waits_and_is_back_afterwards():
    seen = []
    measure({"it": Timer(lambda _: seen.append(gc.isenabled()) or 1.0)}, Limits(0.0))
    assert set(seen) == {False}
    assert gc.isenabled()

    def fails(_):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        measure({"it": Timer(fails)}, Limits(0.0))
    assert gc.isenabled()
    gc.disable()
    try:
        measure({"it": Timer(lambda _: 1.0)}, Limits(0.0))
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_host_timer_calls_as_often_as_it_says(monkeypatch):
    ticks = iter([10.0, 13.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks))
    calls = []
    timer = host_timer(lambda: calls.append(None))
    assert timer.run(7) == 3.0
    assert len(calls) == 7
    assert timer.calls == 1
