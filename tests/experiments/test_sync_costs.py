"""The table of a recorded run of the benchmark of synchronization."""

import json

import pytest

from companion.experiments import sync_costs


def a_case(ranks, channels, forward, backward):
    return {
        "ranks": ranks,
        "channels": channels,
        "forward": {"messages": 1, "bytes": 16 * channels + 8, "added": {"us": forward}},
        "backward": {"messages": 1, "bytes": 16 * channels, "added": {"us": backward}},
    }


RUN = {
    "date": "2026-11-21T12:00:00+00:00",
    "machine": {"processor": "A processor", "cores": 2},
    "settings": {"device": "cpu", "threads_per_process": 1},
    "cases": [a_case(1, 64, 0.0, 0.0), a_case(2, 64, 100.4, 50.2), a_case(4, 64, 300.0, 200.0)],
    "predicted": [
        {"ranks": 2, "channels": 64, "schedule": "ring", "us": 140.0},
        {"ranks": 2, "channels": 64, "schedule": "tree", "us": 99.0},
    ],
}


def test_a_row_has_both_passes_and_the_ring():
    head, _, title, *rows = sync_costs.table(RUN).splitlines()
    assert head == "2026-11-21, A processor, 2 cores, cpu, 1 thread per process"
    assert title.split("  ") == [
        "ranks",
        "channels",
        "messages",
        "bytes given",
        "added µs",
        "model µs",
    ]
    assert [row.split() for row in rows] == [
        ["2", "64", "2", "2056", "151", "140"],
        ["4", "64", "2", "2056", "500", "–"],
    ]


def test_a_recorded_run_is_read(tmp_path):
    (tmp_path / "bench-sync.json").write_text(json.dumps(RUN), encoding="utf-8")
    assert sync_costs.recorded(tmp_path) == RUN


def test_a_run_that_is_not_there_says_how_to_record_it(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"bench --sync --json book/results/bench-sync\.json"
    ):
        sync_costs.recorded(tmp_path)
