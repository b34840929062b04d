"""Synchronized batch normalization on GPUs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.cuda
def test_two_ranks_on_gpus():
    worker = Path(__file__).with_name("_cuda_worker.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc-per-node=2", str(worker)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
