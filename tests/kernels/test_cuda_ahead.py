"""The CUDA kernels are compiled for an H100, which takes no GPU."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)
if importlib.util.find_spec("triton.backends.nvidia") is None:
    pytest.skip("this Triton has no NVIDIA backend", allow_module_level=True)

HERE = Path(__file__).parent
KERNELS = {
    *("meeting_forward", "part_moments", "merge_moments", "normalize", "move_running"),
    *("meeting_backward", "part_sums", "merge_sums", "project"),
}
slow = pytest.mark.slow(reason="a kernel takes a third of a second: these are some two hundred")


# What differs most, rather than everything.
@pytest.mark.parametrize(
    ("dtype", "shapes"),
    [
        ("bfloat16", "parts;rows"),
        pytest.param("bfloat16", "one part;one part, few rows;folded", marks=slow),
        pytest.param("float16", "neighbours;more than 2^31 values", marks=slow),
        pytest.param("float32", "one part, rows;long parts", marks=slow),
        pytest.param("float64", "parts", marks=slow),
    ],
)
def test_kernels_compile_for_an_h100(dtype, shapes, tmp_path):
    environment = dict(os.environ, TRITON_CACHE_DIR=str(tmp_path), OMP_NUM_THREADS="1")
    environment.pop("TRITON_INTERPRET", None)
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    command = [sys.executable, str(HERE / "_cuda_ahead.py"), dtype, shapes]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    compiled = [json.loads(line) for line in result.stdout.splitlines()]
    if shapes == "parts;rows":
        assert {line["kernel"] for line in compiled} == KERNELS
    assert compiled
    for line in compiled:
        assert line["ptx"] > 0
        assert line["cubin"] > 0
        # As many programs run at a time as a plan counts on; and where a block is one channel, the
        # registers that are left suffice, but for some around what hardly ever runs.
        assert line.get("registers", 0) <= line["registers allowed"], line
        if "part" in line["shape"] and "rows" not in line["shape"]:
            with_relu = 160 if torch.__version__ >= "2.9" else 176  # Triton 3.4 needs more
            assert line.get("stack", 0) <= (with_relu if line["relu"] else 64), line
        # Rows that begin at multiples of 8 bytes are loaded so, and no value by itself. 1000
        # channels are a multiple of 8, and of no number that Triton looks for by itself. The other
        # loads are those of channels, which Triton 3.7 repeats.
        if line["shape"] in ("one part", "parts", "one part, rows") and "meeting" in line["kernel"]:
            assert line["wide loads"] >= line["loads"] / 3, line
