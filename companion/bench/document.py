"""The file that ``python -m companion bench --json FILE`` writes, schema 2.

The classes here are the JSON objects, their attributes the keys. Times are microseconds per call,
sizes bytes. Numbers have six digits; one that was not measured is null. Times are medians over the
samples. Ratios (``*_copies``, ``speedup``) are medians of the ratios within each round, so they
need not be exactly the ratios of the medians. Quartiles are pairs, lower and upper.

Nothing in it names the machine's owner: no host, no user, no path.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from .operations import PASSES
from .spread import Verdict, geometric_mean

SCHEMA = 2
_DIGITS = 6


class Gpu(TypedDict):
    """The GPU, and what its bounds are computed from."""

    name: str
    multiprocessors: int
    l2_bytes: int
    on_chip_bytes: int
    """Registers and shared memory of all multiprocessors."""
    bandwidth_bytes_per_s: float
    """Measured with a large copy: bytes read plus bytes written."""
    launch_us: float
    """Measured with tiny kernels, in a graph."""


class Machine(TypedDict):
    """Where it ran."""

    processor: str
    system: str
    cores: int
    threads: int
    last_level_cache_bytes: int
    """As the system says."""
    dependable_cache_bytes: int
    """What of it, or of a GPU's L2 cache, was counted on; see ``machine.dependable_cache``."""
    load: float | None
    """Programs that were running or waiting for a core in the minute before the start."""
    gpu: Gpu | None


class Settings(TypedDict):
    """How it ran."""

    device: str
    dtypes: list[str]
    backend: str
    quick: bool
    only: str | None
    seconds_per_case: float
    compile: bool
    compile_note: str | None
    """Why not, if not."""
    memory_reused: bool
    """Whether glibc was told to keep freed memory, so that outputs cost no page faults."""


class Bounds(TypedDict):
    """How near ours is to what a GPU's memory allows; None on the CPU."""

    bound_us: float | None
    """The least time that memory traffic allows (``cuda.bound``)."""
    bound_fraction: float | None
    """bound/ours."""
    bandwidth_fraction: float | None
    """Of the GPU's measured bandwidth: each activation read once and written once, in ours_us."""


class PassRecord(Bounds):
    """One of "forward", "backward", "both" and "fixed" (see ``operations.PASSES``)."""

    copy_us: float
    ours_us: float
    torch_us: float
    compile_us: float | None
    native_us: float | None
    """PyTorch without cuDNN, on a GPU."""
    ours_copies: float
    torch_copies: float
    compile_copies: float | None
    native_copies: float | None
    speedup: float
    """torch/ours: above 1, ours is faster."""
    compile_speedup: float | None
    """compile/ours."""
    native_speedup: float | None
    """native/ours."""
    verdict: Verdict
    """``spread.verdict`` of the speed-up, given this pass's noise."""
    quartiles: dict[str, list[float]]
    """Of the measured keys above that end in ``_us``, ``_copies`` or ``speedup``."""
    samples: int
    page_faults: int | None
    """While all samples of all contenders were taken."""


class Noise(TypedDict):
    """PyTorch's time over PyTorch's, measured as two contenders: median and quartiles."""

    ratio: float
    low: float
    high: float


class OutputError(TypedDict):
    """Largest absolute error, relative to the largest absolute value, both over all values checked.

    None if it is not a number.
    """

    ours: float | None
    torch: float | None


class ErrorRecord(TypedDict):
    """Against the float64 oracle, given the same inputs."""

    y: OutputError
    grad_x: OutputError
    channels: int
    """How many channels were checked: all, or of large tensors some, evenly spaced."""


class CaseRecord(TypedDict):
    """One case."""

    name: str
    group: str
    shape: list[int]
    layout: str
    """"contiguous" or "channels-last"; ``(N, C)`` is contiguous."""
    dtype: str
    bytes: int
    """Of one activation tensor."""
    module: bool
    """``BatchNorm1d`` was called instead of the function."""
    beyond_cache: bool
    """The tensor is larger than the cache that was counted on."""
    copy_us: float
    """Median over the samples of all passes."""
    forward: PassRecord
    backward: PassRecord
    both: PassRecord
    fixed: PassRecord
    error: ErrorRecord
    noise: dict[str, Noise]
    """By pass."""
    compile_note: str | None
    """Why this case has no compiled column, where the others have one."""


class Slower(TypedDict):
    """A pass that is slower than PyTorch beyond noise."""

    name: str
    pass_name: str
    speedup: float
    speedup_high: float
    """Upper quartile."""
    noise: Noise


class Summary(TypedDict):
    """Over all cases. Means are geometric, and without the module's case."""

    cases: int
    skipped: list[str]
    """Cases for which the GPU's memory did not suffice."""
    speedup: dict[str, float | None]
    """By pass: mean of torch/ours."""
    compile_speedup: dict[str, float | None]
    """By pass: mean of compile/ours, over the cases that have it."""
    noise: dict[str, Noise | None]
    """By pass: means of the ratio and of its quartiles."""
    slower: list[Slower]
    beyond_cache_forward_copies: float | None
    """The most copies that our forward pass took, of contiguous tensors beyond the cache."""
    module_ratio: float | None
    """Forward and backward pass of ``BatchNorm1d`` on 60×100: ours over ``torch.nn``'s."""
    seconds: float
    """How long the suite took."""
    interrupted: NotRequired[bool]
    """Whether Ctrl-C ended it before its last case; runs of earlier versions could not go on."""
    failed: NotRequired[list[str]]
    """Cases that raised an error; in earlier versions that ended the run."""


class Document(TypedDict):
    """The whole file."""

    schema: int
    date: str
    """ISO 8601, UTC."""
    revision: str | None
    """Of git; with ``modified``, None if the package is not in a checkout."""
    modified: bool | None
    versions: dict[str, str | None]
    machine: Machine
    settings: Settings
    cases: list[CaseRecord]
    summary: Summary


def pass_of(case: CaseRecord, name: str) -> PassRecord:
    """The record of one of the passes."""
    record: PassRecord = case[name]  # type: ignore[literal-required]
    return record


def summarize(
    cases: list[CaseRecord],
    skipped: Iterable[str],
    seconds: float,
    interrupted: bool,
    failed: Iterable[str] = (),
) -> Summary:
    """Draw the conclusions from all cases."""
    functions = [case for case in cases if not case["module"]]
    modules = [case for case in cases if case["module"]]
    large = [
        case["forward"]["ours_copies"]
        for case in functions
        if case["beyond_cache"] and case["layout"] == "contiguous"
    ]
    speedup, compile_speedup = {}, {}
    noise: dict[str, Noise | None] = {}
    slower: list[Slower] = []
    for name in PASSES:
        records = [pass_of(case, name) for case in functions]
        speedup[name] = geometric_mean(record["speedup"] for record in records)
        ratios = (record["compile_speedup"] for record in records)
        compile_speedup[name] = geometric_mean(ratio for ratio in ratios if ratio is not None)
        noise[name] = _mean_noise([case["noise"][name] for case in functions])
        slower += [_slower(case, name) for case in cases if _is_slower(case, name)]
    return Summary(
        cases=len(cases),
        skipped=list(skipped),
        speedup=speedup,
        compile_speedup=compile_speedup,
        noise=noise,
        slower=slower,
        beyond_cache_forward_copies=max(large, default=None),
        module_ratio=1.0 / modules[0]["both"]["speedup"] if modules else None,
        seconds=seconds,
        interrupted=interrupted,
        failed=list(failed),
    )


def _is_slower(case: CaseRecord, name: str) -> bool:
    return pass_of(case, name)["verdict"] == "slower"


def _slower(case: CaseRecord, name: str) -> Slower:
    record = pass_of(case, name)
    return Slower(
        name=case["name"],
        pass_name=name,
        speedup=record["speedup"],
        speedup_high=record["quartiles"]["speedup"][1],
        noise=case["noise"][name],
    )


def _mean_noise(noises: list[Noise]) -> Noise | None:
    ratio = geometric_mean(noise["ratio"] for noise in noises)
    low = geometric_mean(noise["low"] for noise in noises)
    high = geometric_mean(noise["high"] for noise in noises)
    if ratio is None or low is None or high is None:
        return None
    return Noise(ratio=ratio, low=low, high=high)


def check_writable(path: Path) -> None:
    """Find out, before the measuring starts, whether `path` can be written.

    Raises
    ------
    OSError
        it cannot; the message says why, in words for a user
    """
    folder = path.resolve().parent
    if not folder.is_dir():
        raise OSError(f"{path}: there is no folder {folder}")
    if path.exists() and not path.is_file():
        raise OSError(f"{path}: is not a file")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".tmp"):
            pass
    except OSError as error:
        raise OSError(f"{path}: cannot write there: {error.strerror}") from error


def write(document: Document | dict[str, Any], path: Path) -> None:
    """Write JSON such that `path` is, at any time, what it was or the whole new file.

    Raises
    ------
    OSError
        it cannot be written
    """
    text = json.dumps(rounded(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    target = path.resolve()
    # Temporary files are for their owner only; this one is to become an ordinary file.
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o644
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def rounded(value: Any) -> Any:
    """Numbers with the digits that mean something."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
