"""Processes that torchrun starts, against the oracle and one process."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from companion import reference
from companion.experiments import ranks

# In one process, which starts the ranks once.
pytestmark = pytest.mark.xdist_group("torchrun")

torch.manual_seed(0)
X = 2 + 3 * torch.randn(9, 4, dtype=torch.float64)
G = torch.randn_like(X)
TARGET = torch.randn(9, 3, dtype=torch.float64)
SPLITS = [[6, 3], [0, 9], [9]]
STEPS = [[7, 2], [9, 0]]


@pytest.fixture(scope="module")
def outputs():
    task = {"x": X, "grad_y": G, "target": TARGET, "splits": SPLITS, "steps": STEPS}
    return ranks.run(task, processes=2)


def test_rows_follow_each_other():
    rows = [2, 0, 3]
    parts = [list(range(5))[ranks.own_rows(rows, rank)] for rank in range(3)]
    assert parts == [[0, 1], [], [2, 3, 4]]


@pytest.mark.parametrize("number", range(len(SPLITS)))
def test_processes_are_one_batch(outputs, number):
    parts = [outputs[rank]["splits"][number] for rank in range(len(SPLITS[number]))]
    batch = reference.forward(X)
    expected = reference.backward(G, batch)
    assert [len(part["y"]) for part in parts] == SPLITS[number]
    joined = {name: torch.cat([part[name] for part in parts]) for name in ("y", "grad_x")}
    added = {name: sum(part[name] for part in parts) for name in ("grad_gamma", "grad_beta")}
    exact = dict(zip(("grad_x", "grad_gamma", "grad_beta", "y"), (*expected, batch.y), strict=True))
    for name, value in {**joined, **added}.items():
        torch.testing.assert_close(value, torch.from_numpy(exact[name]), rtol=0, atol=1e-12)
    mean, var = map(torch.from_numpy, reference.moments(X))
    for part in parts:
        torch.testing.assert_close(part["running_mean"], 0.1 * mean, rtol=0, atol=1e-12)
        unbiased = 0.9 + 0.1 * 9 / 8 * var
        torch.testing.assert_close(part["running_var"], unbiased, rtol=0, atol=1e-12)


def test_a_rank_outside_of_the_group_takes_no_part(outputs):
    assert len(outputs[0]["splits"]) == 3
    assert len(outputs[1]["splits"]) == 2


@pytest.mark.parametrize("number", range(len(STEPS)))
def test_a_step_follows_the_mean_over_all_rows(outputs, number):
    net = ranks.network(4)
    ranks.losses(net, X, TARGET).mean().backward()
    for rank in outputs:
        step = rank["steps"][number]
        assert list(step) == [name for name, _ in net.named_parameters()]
        for name, weight in net.named_parameters():
            torch.testing.assert_close(step[name], weight.grad, rtol=0, atol=1e-12)


def test_the_network_is_the_same_at_each_call():
    weights = [parameter for _ in range(2) for parameter in ranks.network(4).parameters()]
    half = len(weights) // 2
    assert all(map(torch.equal, weights[:half], weights[half:]))


@pytest.mark.slow(reason="starts two ranks more, only to fail")
def test_what_a_rank_raised_is_told():
    task = {"x": X, "grad_y": G, "target": TARGET, "splits": [[3, 3, 3]], "steps": []}
    with pytest.raises(RuntimeError, match=r"torchrun ended with status 1:\n(.|\n)*Error"):
        ranks.run(task, processes=2)


def test_ranks_that_take_too_long_are_ended(tmp_path, monkeypatch):
    program = tmp_path / "sleeps.py"
    program.write_text(
        "import os, pathlib, sys, time\n"
        "(pathlib.Path(sys.argv[1]) / os.environ['RANK']).write_text(str(os.getpid()))\n"
        "time.sleep(300)\n"
    )
    said = [tmp_path / rank for rank in ("0", "1")]

    class Late(subprocess.Popen):
        """The time is over once both ranks have started, however long that takes."""

        def communicate(self, timeout):
            while timeout == 20 and not all(one.exists() and one.read_text() for one in said):
                assert self.poll() is None
                time.sleep(0.05)
            return super().communicate(timeout=0 if timeout == 20 else timeout)

    monkeypatch.setattr(subprocess, "Popen", Late)
    with pytest.raises(TimeoutError, match="2 ranks were not done in 20 s"):
        ranks._torchrun([str(program), str(tmp_path)], 2, 20)
    for one in said:
        with pytest.raises(ProcessLookupError):
            os.kill(int(one.read_text()), 0)


def test_ranks_have_the_loopback_and_one_thread(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    program = tmp_path / "says.py"
    program.write_text(
        "import os, pathlib, sys\n"
        "said = os.environ['OMP_NUM_THREADS'], os.environ.get('GLOO_SOCKET_IFNAME')\n"
        "(pathlib.Path(sys.argv[1]) / os.environ['RANK']).write_text(repr(said))\n"
    )
    ranks._torchrun([str(program), str(tmp_path)], 1, 60)
    interface = "lo" if sys.platform == "linux" else "lo0" if sys.platform == "darwin" else None
    assert Path(tmp_path, "0").read_text() == repr(("1", interface))
