"""What is printed: a header, a row per case as soon as it is measured, and conclusions."""

from __future__ import annotations

from collections.abc import Sequence

from .document import CaseRecord, Document, Machine, Noise, Settings, Slower, Summary, pass_of
from .operations import PASSES

TRAINING = ("forward", "backward", "both")
# Contiguous tensors beyond the cache, in tables.
_MARK = "*"


def header(document: Document) -> str:
    """Machine, versions and settings, a line each."""
    machine, versions, settings = document["machine"], document["versions"], document["settings"]
    present = [f"{name} {number}" for name, number in versions.items() if number is not None]
    revision = document["revision"]
    if revision is not None:
        present[0] += f" ({revision[:10]}{', modified' if document['modified'] else ''})"
    lines = [
        ", ".join(present),
        f"{document['date']}, {_machine(machine)}",
        *([_gpu(machine)] if machine["gpu"] is not None else []),
        f"{_settings(settings)}",
        _memory(settings),
    ]
    return "\n".join(lines)


def _machine(machine: Machine) -> str:
    return (
        f"{machine['processor']}, {machine['system']}, {_counted(machine['cores'], 'core')}, "
        f"{_counted(machine['threads'], 'thread')}, "
        f"cache {machine['dependable_cache_bytes'] / 2**20:.0f} MiB"
        + ("" if machine["load"] is None else f", load {machine['load']:.1f} before the start")
    )


def _gpu(machine: Machine) -> str:
    gpu = machine["gpu"]
    assert gpu is not None
    return (
        f"{gpu['name']}: {gpu['bandwidth_bytes_per_s'] / 1e9:.0f} GB/s copied, "
        f"{gpu['launch_us']:.1f} µs per launch, {gpu['multiprocessors']} multiprocessors with "
        f"{gpu['on_chip_bytes'] / 2**20:.0f} MiB of registers and shared memory, "
        f"L2 cache {gpu['l2_bytes'] / 2**20:.0f} MiB"
    )


def _settings(settings: Settings) -> str:
    note = settings["compile_note"]
    return (
        f"{', '.join(settings['dtypes'])} on {settings['device']}, backend {settings['backend']}, "
        f"{settings['seconds_per_case']:g} s per case, "
        f"torch.compile: {'on' if settings['compile'] else f'off ({note})'}"
    )


def _memory(settings: Settings) -> str:
    if settings["device"] == "cuda":
        return "CUDA graphs over rotated tensors that exceed the L2 cache"
    if settings["memory_reused"]:
        return "memory: glibc was told to reuse what is freed, so that outputs cost no page faults"
    return "memory: the system's allocator as it is; large outputs may cost page faults"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


class Table:
    """Aligned columns: names to the left, numbers to the right."""

    def __init__(self, name_width: int, columns: Sequence[tuple[str, int]]) -> None:
        self._name_width, self._columns = name_width, columns

    def head(self) -> str:
        """The columns' titles."""
        return self.row("", [title for title, _ in self._columns])

    def row(self, name: str, values: Sequence[str]) -> str:
        """A case's numbers."""
        widths = (width for _, width in self._columns)
        cells = (value.rjust(width) for value, width in zip(values, widths, strict=True))
        return (name.ljust(self._name_width) + "".join(cells)).rstrip()


def _columns(compiled: bool, native: bool) -> list[tuple[str, int]]:
    """Of one pass: multiples of a copy, and the speed-up."""
    return [
        ("ours", 8),
        ("torch", 8),
        *([("native", 8)] if native else []),
        *([("compile", 9)] if compiled else []),
        ("×", 7),
    ]


class _Timings:
    """The table of times: of the passes in training, or of the one with fixed statistics."""

    def __init__(
        self, names: Sequence[str], passes: Sequence[str], *, compiled: bool, native: bool
    ) -> None:
        self._passes, self._compiled, self._native = passes, compiled, native
        self._width = max(map(len, names)) + 2
        columns = _columns(compiled, native)
        self._group = sum(width for _, width in columns)
        self._table = Table(self._width, [("copy µs", 11), *columns * len(passes)])

    def head(self) -> str:
        """Two lines: the passes, and what is under each."""
        titles = "".join(
            f" {name} ".center(self._group - 2, "─").rjust(self._group) for name in self._passes
        )
        return " " * (self._width + 11) + titles + "\n" + self._table.head()

    def row(self, case: CaseRecord) -> str:
        """One case."""
        values = [f"{case['copy_us']:.1f}"]
        for name in self._passes:
            record = pass_of(case, name)
            values += [_number(record["ours_copies"]), _number(record["torch_copies"])]
            values += [_number(record["native_copies"])] if self._native else []
            values += [_number(record["compile_copies"])] if self._compiled else []
            values.append(_number(record["speedup"]))
        return self._table.row(label(case), values)


def timings(names: Sequence[str], passes: Sequence[str], document: Document) -> _Timings:
    """The table of times with the columns that this run has."""
    native = document["machine"]["gpu"] is not None
    return _Timings(names, passes, compiled=document["settings"]["compile"], native=native)


def tables(document: Document) -> str:
    """What is printed when all cases are measured."""
    cases = document["cases"]
    if not cases:
        return "no case was measured"
    fixed = timings([case["name"] for case in cases], ["fixed"], document)
    rows = [fixed.head(), *map(fixed.row, cases)]
    parts = ["With fixed statistics", *rows, "", "Errors relative to the largest value, and noise"]
    parts.append(errors(cases))
    if document["machine"]["gpu"] is not None:
        parts += ["", "Ours, and how much of the bound and of the copy bandwidth it reaches"]
        parts.append(bounds(cases))
    return "\n".join(parts)


def label(case: CaseRecord) -> str:
    """The case's name, marked if it is contiguous and beyond the cache."""
    marked = case["beyond_cache"] and case["layout"] == "contiguous"
    return case["name"] + (_MARK if marked else "")


def _number(value: float | None) -> str:
    """Three digits or more, in few enough places for every column."""
    if value is None:
        return "–"
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def errors(cases: Sequence[CaseRecord]) -> str:
    """The table of errors and of noise."""
    columns = [("y: ours", 10), ("torch", 9), ("grad_x: ours", 14), ("torch", 9)]
    columns += [(f"noise {name}", 17) for name in PASSES]
    table = Table(max(len(case["name"]) for case in cases) + 2, columns)
    lines = [table.head()]
    for case in cases:
        values = [
            "–" if value is None else f"{value:.0e}"
            for output in (case["error"]["y"], case["error"]["grad_x"])
            for value in (output["ours"], output["torch"])
        ]
        values += [_noise(case["noise"][name]) for name in PASSES]
        lines.append(table.row(case["name"], values))
    return "\n".join(lines)


def _noise(noise: Noise, digits: int = 2) -> str:
    return f"{noise['low']:.{digits}f} … {noise['high']:.{digits}f}"


def bounds(cases: Sequence[CaseRecord]) -> str:
    """On a GPU: how near to its limits each pass is, in percent."""
    columns = [
        (f"{name}: µs", 14) if not unit else (unit, 9)
        for name in PASSES
        for unit in ("", "of bound", "of copy")
    ]
    table = Table(max(len(case["name"]) for case in cases) + 2, columns)
    lines = [table.head()]
    for case in cases:
        values = []
        for name in PASSES:
            record = pass_of(case, name)
            values.append(f"{record['ours_us']:.1f}")
            for fraction in (record["bound_fraction"], record["bandwidth_fraction"]):
                values.append("–" if fraction is None else f"{100 * fraction:.0f}%")
        lines.append(table.row(case["name"], values))
    return "\n".join(lines)


def conclusions(document: Document) -> str:
    """Means, bars, noise, and the cases that are slower than PyTorch."""
    summary = document["summary"]
    lines = ["Speed-up, geometric mean over the cases:"] if any(summary["speedup"].values()) else []
    lines += [_mean(summary, name) for name in PASSES if summary["speedup"][name] is not None]
    copies, ratio = summary["beyond_cache_forward_copies"], summary["module_ratio"]
    if copies is not None:
        text = "beyond the cache: our forward pass takes at most"
        lines.append(f"{_MARK} {text} {copies:.2f} copies")
    if ratio is not None:
        lines.append(
            f"BatchNorm1d on 60×100, forward and backward: {ratio:.2f} times torch.nn's time"
        )
    lines += [f"skipped, not enough memory on the GPU: {name}" for name in summary["skipped"]]
    lines += [f"failed, see the error above: {name}" for name in summary.get("failed", [])]
    lines += _slower(summary["slower"])
    if summary.get("interrupted"):
        lines.append("ended by Ctrl-C; the cases that were not measured are missing")
    lines.append(f"{_counted(summary['cases'], 'case')} in {summary['seconds']:.0f} s")
    return "\n".join(lines)


def _mean(summary: Summary, name: str) -> str:
    compiled, noise = summary["compile_speedup"][name], summary["noise"][name]
    line = f"  {name:<9}{summary['speedup'][name]:.2f} over PyTorch"
    if compiled is not None:
        line += f", {compiled:.2f} over torch.compile"
    if noise is not None:
        line += f"; PyTorch over itself {noise['ratio']:.3f} ({_noise(noise, 3)})"
    return line


def _slower(slower: Sequence[Slower]) -> list[str]:
    if not slower:
        return ["Slower than PyTorch beyond noise: no case."]
    lines = ["Slower than PyTorch beyond noise:"]
    for case in slower:
        lines.append(
            f"  {case['name']} {case['pass_name']}: speed-up {case['speedup']:.2f}, upper "
            f"quartile {case['speedup_high']:.2f}; PyTorch over itself {_noise(case['noise'])}"
        )
    return lines
