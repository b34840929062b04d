"""Processes that fail on purpose, and what the others say.

``python _faults.py [RUNS [SEED]]`` makes that many runs with random faults and prints what came of
them; the tests make a few. Processes are forked from one that has imported PyTorch, so that a run
takes less than a second where nobody waits for a timeout.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch

# What is imported at its first use is imported here once, not in every process.
import torch._dynamo
import torch.distributed as dist
from torch import nn

from companion import convert_sync

LAYERS, STEPS = 3, 4
# The group's timeout, which a busy machine does not reach by itself, and the hard limit of a run.
TIMEOUT, LIMIT = 5.0, 120.0
KINDS = ("die", "kill", "raise", "skip", "stall", "skip backward")


class Fault(NamedTuple):
    """What one rank does wrong, and when."""

    kind: str
    rank: int
    step: int
    layer: int


class Model(nn.Module):
    """Layers of different and of equal widths, one after the other; `fault` strikes before one."""

    def __init__(self, fault: Fault | None):
        super().__init__()
        widths = [4, 4, 4, 6]
        blocks = [
            nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b)) for a, b in itertools.pairwise(widths)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.fault, self.step = fault, 0

    def forward(self, x):
        for number, block in enumerate(self.blocks):
            struck = self.fault is not None and self.fault[2:] == (self.step, number)
            if struck and self.fault.kind == "skip":
                x = block[0](x)
                continue
            if struck:
                strike(self.fault.kind)
            x = block(x)
            if struck and self.fault.kind == "skip backward":
                x = x.detach()
        self.step += 1
        return x


def strike(kind: str) -> None:
    if kind == "die":
        os._exit(1)
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "raise":
        raise ValueError("a mistake of one rank")
    if kind == "stall":
        time.sleep(TIMEOUT + 1.0)


def process(rank: int, ranks: int, fault: Fault, folder: str, timeout: float) -> None:
    """One rank: train until something fails; write down what."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    started, outcome = time.monotonic(), "finished"
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/store",
            rank=rank,
            world_size=ranks,
            timeout=timedelta(seconds=timeout),
        )
        model = convert_sync(Model(fault if rank == fault.rank else None))
        for module in model.modules():
            module.backend = "eager"
        started = time.monotonic()
        for _ in range(STEPS):
            model(torch.randn(3, 4)).square().sum().backward()
    except (RuntimeError, ValueError) as error:
        outcome = f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - started
    Path(folder, f"{rank}.json").write_text(json.dumps([outcome, seconds]), encoding="utf-8")
    # Not through the interpreter's end: it is the test runner's.
    os._exit(0)


def run(fault: Fault, ranks: int, timeout: float = TIMEOUT) -> dict[int, tuple[str, float]]:
    """What each surviving rank says, and after how many seconds; "hangs" if it had to be killed."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        started = [
            context.Process(target=process, args=(rank, ranks, fault, folder, timeout))
            for rank in range(ranks)
        ]
        for one in started:
            one.start()
        deadline = time.monotonic() + LIMIT
        outcomes = {}
        for rank, one in enumerate(started):
            one.join(max(0.0, deadline - time.monotonic()))
            path = Path(folder, f"{rank}.json")
            if one.is_alive():
                one.kill()
                one.join()
                outcomes[rank] = ("hangs", LIMIT)
            elif path.exists():
                outcome, seconds = json.loads(path.read_text(encoding="utf-8"))
                outcomes[rank] = (outcome, seconds)
            elif rank != fault.rank or fault.kind not in ("die", "kill"):
                outcomes[rank] = (f"ended without a word, exit status {one.exitcode}", 0.0)
        return outcomes


def verdict(outcome: str) -> str:
    """Whether an error names the layer and the operation."""
    if outcome == "finished" or outcome == "hangs" or outcome.startswith("ended"):
        return outcome
    layer = any(f"blocks.{number}.1: " in outcome for number in range(LAYERS))
    operation = any(
        name in outcome
        for name in ("forward statistics, rank", "backward sums, rank", "agreement at the first")
    )
    return "named" if layer and operation else f"unclear: {outcome}"


def random_fault(generator: random.Random, ranks: int) -> Fault:
    return Fault(
        generator.choice(KINDS),
        generator.randrange(ranks),
        generator.randrange(STEPS),
        generator.randrange(LAYERS),
    )


def main(runs: int = 200, seed: int = 0) -> int:
    generator = random.Random(seed)
    counted: Counter[str] = Counter()
    slowest, bad = 0.0, 0
    for number in range(runs):
        ranks = generator.choice((2, 3))
        fault = random_fault(generator, ranks)
        outcomes = run(fault, ranks)
        for rank, (outcome, seconds) in outcomes.items():
            if rank == fault.rank:
                continue
            word = verdict(outcome)
            counted[f"{fault.kind}: {word}"] += 1
            slowest = max(slowest, seconds)
            # Who waits for a first connection is patient: a rank that stalls may come in time.
            if word != "named" and (fault.kind, word) != ("stall", "finished"):
                bad += 1
                print(f"run {number}, {fault}, rank {rank} of {ranks}: {outcome}", flush=True)
    for word, count in sorted(counted.items()):
        print(f"{count:5} {word}")
    print(f"{runs} runs, slowest survivor {slowest:.1f} s, timeout {TIMEOUT} s, {bad} not named")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
