"""Compile for an H100 whatever the public functions would launch, on a machine without a GPU.

Run as a program, in a process of its own, for Triton must not be in its interpreter mode. Prints
one line of JSON per kernel: its name, and what came out. Tensors are on the device "meta": they
have shapes and types, and no data. What a kernel is specialized for is left to Triton.
"""

import json
import re
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from companion.kernels import cuda
from companion.kernels.interface import Running

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MULTIPROCESSORS = 132

# (samples, channels, *rest), channels last?
SHAPES = {
    "one part": ((32, 512, 14, 14), False),
    "one part, odd": ((32, 2048, 7, 7), False),
    "one part, rows": ((256, 1000), False),
    "one part, few rows": ((60, 100), False),
    "parts": ((32, 64, 56, 56), False),
    "long parts": ((4, 3, 512, 512), False),
    "neighbours": ((100000, 64, 3), False),
    "rows": ((32, 96, 56, 56), True),
    "folded": ((64, 3, 128, 128), True),
    "more than 2^31 values": ((2**15, 65, 1025), False),
}


class Driver:
    """Takes the place of CUDA's: all that Triton asks before it launches a kernel."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, _device):
        return None


class Recorder:
    """Takes the place of a kernel's launch: compiles it for the arguments it would get."""

    def __init__(self):
        self.compiled, self.lines = [], []

    def run(self, kernel, *args, grid, warmup, **kwargs):
        assert min(grid) > 0
        assert not warmup
        compiled = kernel.compile_only(*args, grid=grid, warmup=True, **kwargs)
        if any(compiled is other for other in self.compiled):
            return
        self.compiled.append(compiled)
        ptx = compiled.asm["ptx"]
        self.lines.append(
            {
                "kernel": kernel.fn.__name__,
                "ptx": len(ptx),
                "cubin": len(compiled.asm["cubin"]),
                "warps": compiled.metadata.num_warps,
                "registers allowed": kwargs.get("maxnreg", 255),
                "shared": compiled.metadata.shared,
                "wide loads": len(re.findall(r"ld\.global\S*\.v[24]\.b", ptx)),
                "loads": len(re.findall(r"ld\.global", ptx)),
                **_resources(compiled.asm["cubin"]),
            }
        )


def _resources(cubin):
    """Registers per thread and bytes spilled, by NVIDIA's tool that comes with Triton."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        return {}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {
        name: int(match[1])
        for name, pattern in (("registers", r"REG:(\d+)"), ("stack", r"STACK:(\d+)"))
        if (match := re.search(pattern, output))
    }


def calls(shape, channels_last, dtype, relu):
    """Call every public function once; with ReLU: residual, cumulative average, no affine map."""
    x = torch.empty(shape, dtype=dtype, device="meta")
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    C = shape[1]
    state_dtype = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    weight = None if relu else torch.empty(C, dtype=state_dtype, device="meta")
    state = torch.empty((2, C), dtype=state_dtype, device="meta")
    count = torch.empty((), dtype=torch.int64, device="meta")
    running = Running(state[0], state[1], count, None if relu else 0.1, relu)
    residual = x if relu else None
    options = (weight, weight, residual)
    y, statistics = cuda.normalize(x, *options, None, running, 1e-5, relu)
    cuda.normalize(x, *options, tuple(statistics), None, 1e-5, relu)
    # ReLU without a residual recomputes the activation: the other way through the same kernel.
    for with_residual in (False, True):
        for training in (True, False):
            arguments = (weight, weight, 1e-5, relu, with_residual, training)
            cuda.differentiate(x, x, y, statistics, *arguments)


def main(dtypes, shapes):
    cuda._multiprocessors = lambda _device: MULTIPROCESSORS
    cuda.launches_on = lambda _device: nullcontext()
    triton.runtime.driver.set_active(Driver())
    recorder = Recorder()
    JITFunction.compile_only = JITFunction.run
    JITFunction.run = lambda kernel, *args, **kwargs: recorder.run(kernel, *args, **kwargs)
    for dtype in dtypes:
        for name in shapes:
            shape, channels_last = SHAPES[name]
            for relu in (False, True):
                calls(shape, channels_last, dtype, relu)
                for line in recorder.lines:
                    print(json.dumps({"dtype": str(dtype), "shape": name, "relu": relu, **line}))
                recorder.lines.clear()
                sys.stdout.flush()


if __name__ == "__main__":
    names = sys.argv[1].split(",") if len(sys.argv) > 1 else None
    main(
        [dtype for dtype in DTYPES if names is None or str(dtype).split(".")[1] in names],
        sys.argv[2].split(";") if len(sys.argv) > 2 else list(SHAPES),
    )
