"""Records with plain numbers, for tests of what is computed from them and printed."""

from companion.bench.document import (
    SCHEMA,
    Bounds,
    CaseRecord,
    Document,
    ErrorRecord,
    Gpu,
    Machine,
    Noise,
    OutputError,
    PassRecord,
    Settings,
    summarize,
)

GPU = Gpu(
    name="Some GPU",
    multiprocessors=100,
    l2_bytes=50 * 2**20,
    on_chip_bytes=60 * 2**20,
    bandwidth_bytes_per_s=4e12,
    launch_us=1.5,
)
QUIET = Noise(ratio=1.0, low=0.99, high=1.01)


def pass_record(speedup=2.0, verdict="faster", **changed):
    record = PassRecord(
        copy_us=10.0,
        ours_us=20.0,
        torch_us=20.0 * speedup,
        compile_us=None,
        native_us=None,
        ours_copies=2.0,
        torch_copies=2.0 * speedup,
        compile_copies=None,
        native_copies=None,
        speedup=speedup,
        compile_speedup=None,
        native_speedup=None,
        verdict=verdict,
        quartiles={"speedup": [speedup * 0.9, speedup * 1.1]},
        samples=8,
        page_faults=0,
        **Bounds(bound_us=None, bound_fraction=None, bandwidth_fraction=None),
    )
    return {**record, **changed}


def case_record(name="32x64x56x56", **changed):
    record = CaseRecord(
        name=name,
        group="resnet50",
        shape=[32, 64, 56, 56],
        layout="contiguous",
        dtype="float32",
        bytes=25690112,
        module=False,
        beyond_cache=False,
        copy_us=10.0,
        forward=pass_record(),
        backward=pass_record(),
        both=pass_record(),
        fixed=pass_record(),
        error=ErrorRecord(
            y=OutputError(ours=1e-7, torch=3e-7),
            grad_x=OutputError(ours=2e-7, torch=None),
            channels=64,
        ),
        noise=dict.fromkeys(("forward", "backward", "both", "fixed"), QUIET),
        compile_note=None,
    )
    return {**record, **changed}


def document(cases=(), gpu=None, skipped=(), **settings):
    cases = list(cases)
    chosen = Settings(
        device="cpu",
        dtypes=["float32"],
        backend="auto",
        quick=False,
        only=None,
        seconds_per_case=1.0,
        compile=False,
        compile_note="--no-compile",
        memory_reused=True,
    )
    return Document(
        schema=SCHEMA,
        date="2026-01-02T03:04:05+00:00",
        revision="0123456789abcdef",
        modified=False,
        versions={"companion": "0.1", "python": "3.11", "torch": "2.13", "numba": None},
        machine=Machine(
            processor="Some CPU",
            system="Linux x86_64",
            cores=2,
            threads=1,
            last_level_cache_bytes=2**25,
            dependable_cache_bytes=2**24,
            load=0.25,
            gpu=gpu,
        ),
        settings={**chosen, **settings},
        cases=cases,
        summary=summarize(cases, skipped, 12.3, interrupted=False),
    )
