"""Synchronized batch normalization in 2, 3 and 4 real processes under ``torchrun``, over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import _worker
import pytest

SLOW = pytest.mark.slow(reason="starts three processes, or four; two do all that they do")
# The processes of one number of ranks are started once, in the process that tests what they say.
RANKS = [
    pytest.param(2, marks=pytest.mark.xdist_group("ranks-2")),
    pytest.param(3, marks=[SLOW, pytest.mark.xdist_group("ranks-3")]),
    pytest.param(4, marks=[SLOW, pytest.mark.xdist_group("ranks-4")]),
]
# One process more than there are cores, and a slow machine.
SECONDS = 240


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """What each rank says of each check, by the number of ranks; each number runs once.

    So the first test of a number takes over 20 seconds, and the others none.
    """
    by_ranks = {}

    def of_ranks(ranks):
        if ranks not in by_ranks:
            folder = tmp_path_factory.mktemp(f"ranks-{ranks}")
            by_ranks[ranks] = run(ranks, folder)
        return by_ranks[ranks]

    return of_ranks


def run(ranks: int, folder: Path) -> list[dict[str, str | None]]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={ranks}", _worker.__file__, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    reports = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    if done.returncode != 0:
        failed = [text for report in reports for text in report.values() if text]
        pytest.fail("\n".join([*failed, done.stdout, done.stderr]))
    return reports


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("name", sorted(_worker.CHECKS))
def test_in_every_process(results, name, ranks):
    for rank, report in enumerate(results(ranks)):
        assert report[name] is None, f"rank {rank}: {report[name]}"
