"""Compile for an H100 whatever the public functions would launch, on a machine without a GPU.

Run as a program, in a process of its own, for Triton must not be in its interpreter mode. Prints
one line of JSON per kernel: its name, what it was compiled for, and what came out. Tensors are on
the device "meta": they have shapes and types, and no data.
"""

import json
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from companion.kernels import cuda
from companion.kernels.cuda import backward, forward, running
from companion.kernels.interface import Running

TARGET = GPUTarget("cuda", 90, 32)
TYPES = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
DTYPES = tuple(dtype for dtype in TYPES if dtype.is_floating_point)
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


class Recorder:
    """Takes the place of a kernel's launch: compiles it for the arguments it would get."""

    def __init__(self, seen):
        self.seen, self.lines = seen, []

    def run(self, kernel, *args, grid, warmup, **kwargs):
        assert min(grid) > 0
        assert not warmup
        options = {name: kwargs.pop(name) for name in ("num_warps", "maxnreg") if name in kwargs}
        arguments = dict(zip(kernel.arg_names, args, strict=False)) | kwargs
        signature, constants, attributes = {}, {}, {}
        for index, parameter in enumerate(kernel.params):
            value = arguments[parameter.name]
            special = type(value) is int and not parameter.do_not_specialize
            if parameter.is_constexpr or value is None or (special and value == 1):
                signature[parameter.name] = "constexpr"
                constants[(index,)] = value
            elif isinstance(value, torch.Tensor):
                signature[parameter.name] = TYPES[value.dtype]
                attributes[(index,)] = [["tt.divisibility", 16]]
            else:
                signature[parameter.name] = "i32" if -(2**31) <= value < 2**31 else "i64"
                if special and value % 16 == 0:
                    attributes[(index,)] = [["tt.divisibility", 16]]
        key = (kernel.fn.__name__, str(signature), str(constants), str(attributes), str(options))
        if key in self.seen:
            return
        self.seen.add(key)
        source = ASTSource(kernel, signature, constants, attributes)
        compiled = triton.compile(source, target=TARGET, options=options)
        ptx = compiled.asm["ptx"]
        self.lines.append(
            {
                "kernel": kernel.fn.__name__,
                "ptx": len(ptx),
                "cubin": len(compiled.asm["cubin"]),
                "warps": compiled.metadata.num_warps,
                "registers allowed": options.get("maxnreg", 255),
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
        name: int(found[1])
        for name, pattern in (("registers", r"REG:(\d+)"), ("stack", r"STACK:(\d+)"))
        if (found := re.search(pattern, output))
    }


def kernels():
    for module in (forward, running, backward):
        for value in vars(module).values():
            if isinstance(value, triton.JITFunction) and value.__module__ == module.__name__:
                yield value


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
            rest = (weight, weight, 1e-5, relu, with_residual, training)
            cuda.differentiate(x, x, y, statistics, *rest)


def main(dtypes, shapes):
    cuda._multiprocessors = lambda _device: MULTIPROCESSORS
    recorder = Recorder(set())
    for kernel in kernels():
        kernel.run = partial(recorder.run, kernel)
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
