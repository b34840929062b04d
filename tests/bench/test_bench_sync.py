"""``bench --sync``: the model, the measurement by real processes, and its mistakes."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch

from companion.__main__ import main
from companion.bench import sync
from companion.bench.sync_model import BACKWARD, FORWARD, Model, Point, fit, values
from companion.closed_forms import sync_cost

LATENCY, BANDWIDTH = 30e-6, 2e8
POINTS = [
    Point(ranks, channels, name, Model(LATENCY, BANDWIDTH, 0, 0.0).seconds(ranks, channels, name))
    for ranks in (2, 3, 8)
    for channels in (16, 1024)
    for name in (FORWARD, BACKWARD)
]


def test_the_values_of_a_pass():
    assert values(64, FORWARD) == 129
    assert values(64, BACKWARD) == 128
    model = Model(LATENCY, BANDWIDTH, 0, 0.0)
    expected = sync_cost(4, 129, LATENCY, BANDWIDTH)
    assert model.seconds(4, 64, FORWARD) == expected
    expected = sync_cost(4, 128, LATENCY, BANDWIDTH, operation="all_reduce", schedule="tree")
    assert model.seconds(4, 64, BACKWARD, "tree") == expected


def test_a_fit_finds_what_made_the_points():
    alone = Point(1, 16, FORWARD, 5e-6)
    fitted = fit([alone, *POINTS])
    assert fitted.latency == pytest.approx(LATENCY, rel=1e-9)
    assert fitted.bandwidth == pytest.approx(BANDWIDTH, rel=1e-9)
    assert fitted.points == len(POINTS)
    assert fitted.error < 1e-9


def test_a_fit_says_by_how_much_it_misses():
    factors = [0.8, 1.2] * (len(POINTS) // 2)
    noisy = [p._replace(seconds=p.seconds * f) for p, f in zip(POINTS, factors, strict=True)]
    fitted = fit(noisy)
    assert 0.1 < fitted.error < 0.3
    assert fitted.latency == pytest.approx(LATENCY, rel=0.2)


def test_bytes_that_cost_nothing_make_an_infinite_bandwidth():
    # Large messages that take a little less time, as noise makes them.
    free = Model(LATENCY, math.inf, 0, 0.0)
    points = [
        point._replace(seconds=free.seconds(*point[:3]) * (1.0 - 1e-4 * point.channels))
        for point in POINTS
    ]
    fitted = fit(points)
    assert math.isinf(fitted.bandwidth)
    assert fitted.latency == pytest.approx(LATENCY, rel=0.1)


def test_there_is_no_fit_without_two_points():
    assert fit([]) is None
    assert fit(POINTS[:1]) is None
    assert fit([point._replace(ranks=1) for point in POINTS]) is None
    assert fit([point._replace(seconds=-1e-6) for point in POINTS]) is None


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Standard output and file of a quick run."""
    path = tmp_path_factory.mktemp("sync") / "found.json"
    command = [sys.executable, "-m", "companion", "bench", "--sync", "--quick"]
    done = subprocess.run(
        [*command, "--seconds-per-case", "0.1", "--json", str(path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(path.read_text(encoding="utf-8"))


MEASURED = pytest.mark.slow(reason="measures with one, two and four processes")


@MEASURED
@pytest.mark.xdist_group("bench-sync")
def test_messages_and_bytes_are_those_of_the_layer(measured):
    _, document = measured
    assert {case["ranks"] for case in document["cases"]} == {1, 2, 4}
    for case in document["cases"]:
        together = case["ranks"] > 1
        for name in (FORWARD, BACKWARD):
            assert case[name]["messages"] == together
            assert case[name]["bytes"] == together * 8 * values(case["channels"], name)
            for layer in ("sync", "local"):
                spread = case[name][layer]
                assert 0.0 < spread["low_us"] <= spread["us"] <= spread["high_us"]


@MEASURED
@pytest.mark.xdist_group("bench-sync")
def test_the_model_is_that_of_the_cases_and_goes_to_1024_ranks(measured):
    text, document = measured
    model = fit(list(sync._points(document["cases"])))
    assert document["model"]["latency_us"] == pytest.approx(1e6 * model.latency, rel=1e-3)
    assert (document["model"]["parameters"], document["model"]["points"]) == (2, model.points)
    ranks = {one["ranks"] for one in document["predicted"]}
    assert ranks == {1, 2, 4, 8, 64, 1024}
    for one in document["predicted"]:
        seconds = sum(
            model.seconds(one["ranks"], one["channels"], name, one["schedule"])
            for name in (FORWARD, BACKWARD)
        )
        assert one["us"] == pytest.approx(1e6 * seconds, rel=1e-3)
    assert f"fitted to {model.points} measurements" in text
    assert "p = 1024" in text


@pytest.mark.parametrize(
    "option", [["--only", "rows"], ["--list"], ["--threads", "2"], ["--dtype", "float64"]]
)
def test_options_without_a_meaning_are_refused(capsys, option):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "--sync", *option])
    assert stopped.value.code == 2
    assert f"{option[0]} has no meaning with --sync" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="this machine has the GPUs")
def test_too_few_gpus_are_named(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["bench", "--sync", "--device", "cuda"])
    assert "expected at least 2 GPUs" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["bench", "--sync", "--json", str(tmp_path)])
    assert "is not a file" in capsys.readouterr().err


def test_an_error_of_a_process_ends_the_command(monkeypatch, capsys):
    # Not an activation: the layer refuses it.
    monkeypatch.setattr(sync, "PROCESSES", (1,))
    monkeypatch.setattr(sync, "_QUICK_SHAPES", [(8,)])
    assert main(["bench", "--sync", "--quick"]) == 1
    assert "rank 0 of 1: IndexError" in capsys.readouterr().err
