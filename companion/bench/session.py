"""A whole run: prepare the process, measure all cases, print, conclude."""

from __future__ import annotations

import platform
import sys
import time
import traceback
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import torch

from ..interruption import Interruption
from . import cuda, document, machine, operations, report
from .document import CaseRecord, Document, Gpu, Machine, Settings
from .measure import Bench, warm_up
from .suite import Case


class Request(NamedTuple):
    """What was asked for, with the defaults filled in."""

    device: str
    backend: str
    quick: bool
    only: str | None
    seconds_per_case: float
    threads: int | None
    compiled: bool
    compile_note: str | None
    """Why nothing is compiled."""


def run(cases: list[Case], request: Request) -> Document:
    """Measure `cases`, print the report on standard output, and return it.

    Changes the process: the number of PyTorch's threads, and how the C library reuses memory.
    """
    started, load = time.perf_counter(), machine.load()
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    memory_reused = request.device == "cpu" and machine.reuse_memory()
    warm_up(request.device)
    with ExitStack() as stack:
        bench, gpu = _bench(request, stack)
        results = _document(cases, request, gpu, memory_reused, load, bench.cache_bytes)
        print(report.header(results), flush=True)
        missing = _measure_all(cases, bench, results)
    seconds = time.perf_counter() - started
    results["summary"] = document.summarize(
        results["cases"], missing.skipped, seconds, missing.interrupted, missing.failed
    )
    print("", report.tables(results), "", report.conclusions(results), sep="\n", flush=True)
    return results


def _bench(request: Request, stack: ExitStack) -> tuple[Bench, Gpu | None]:
    fewest = 4 if request.quick else 8
    if request.device == "cpu":
        return Bench(
            request.seconds_per_case,
            request.compiled,
            machine.dependable_cache(),
            request.backend,
            fewest=fewest,
        ), None
    stack.enter_context(cuda.side_stream())
    gpu = cuda.gpu()
    return Bench(
        request.seconds_per_case,
        request.compiled,
        gpu["l2_bytes"],
        request.backend,
        device="cuda",
        fewest=fewest,
        bounds=partial(cuda.describe, gpu),
        make_timer=cuda.graph_timer,
        count_sets=lambda case: cuda.count_sets(case.bytes, gpu["l2_bytes"]),
        reserve=lambda _size: None,
    ), gpu


def _document(
    cases: list[Case],
    request: Request,
    gpu: Gpu | None,
    memory_reused: bool,
    load: float | None,
    cache_bytes: int,
) -> Document:
    """Everything but the measurements."""
    revision = machine.revision()
    return Document(
        schema=document.SCHEMA,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        revision=None if revision is None else revision[0],
        modified=None if revision is None else revision[1],
        versions=machine.versions(),
        machine=Machine(
            processor=machine.processor(),
            system=f"{platform.system()} {platform.machine()}",
            cores=machine.cores(),
            threads=torch.get_num_threads(),
            last_level_cache_bytes=machine.last_level_cache(),
            dependable_cache_bytes=cache_bytes,
            load=load,
            gpu=gpu,
        ),
        settings=Settings(
            device=request.device,
            dtypes=list(dict.fromkeys(case.dtype for case in cases)),
            backend=request.backend,
            quick=request.quick,
            only=request.only,
            seconds_per_case=request.seconds_per_case,
            compile=request.compiled,
            compile_note=request.compile_note,
            memory_reused=memory_reused,
        ),
        cases=[],
        summary=document.summarize([], [], 0.0, False),
    )


class _Missing(NamedTuple):
    """What was not measured."""

    skipped: list[str]
    """The cases that the GPU has no memory for."""
    failed: list[str]
    """The cases that raised an error."""
    interrupted: bool
    """Whether Ctrl-C kept others from being measured."""


def _measure_all(cases: list[Case], bench: Bench, results: Document) -> _Missing:
    """Measure and print case by case, to the last, or until Ctrl-C.

    The error of one case is printed, and costs no other case.
    """
    from tqdm import tqdm

    names = [case.name for case in cases]
    table = report.timings(names, report.TRAINING, results)
    group, skipped, failed = None, [], []
    # No bar where nobody would see it; rows of the table go past it.
    progress = tqdm(cases, file=sys.stderr, disable=None, leave=False, unit="case")
    with progress, Interruption() as interruption:
        tqdm.write("\n" + table.head(), file=sys.stdout)
        sys.stdout.flush()
        for case in progress:
            progress.set_description(case.name)
            try:
                record = _measure(case, bench)
            except Exception:
                # A compiler that runs for this case is interrupted too, and fails.
                if interruption.asked:
                    break
                failed.append(case.name)
                tqdm.write(f"{case.name}: {traceback.format_exc()}", file=sys.stderr)
                continue
            if record is None:
                skipped.append(case.name)
            else:
                results["cases"].append(record)
                if case.group != group:
                    group = case.group
                    tqdm.write(group, file=sys.stdout)
                tqdm.write(table.row(record), file=sys.stdout)
                sys.stdout.flush()
            if interruption.asked:
                break
    done = len(results["cases"]) + len(skipped) + len(failed)
    return _Missing(skipped, failed, interrupted=done < len(cases))


def _measure(case: Case, bench: Bench) -> CaseRecord | None:
    try:
        return bench.case(case)
    except torch.cuda.OutOfMemoryError:
        return None
    finally:
        if bench.device == "cuda":
            torch.cuda.empty_cache()
        if bench.compiled:
            operations.forget_compiled()
