import pytest
from _documents import GPU, QUIET, case_record, document, pass_record

from companion.bench import report


def test_the_header_says_where_and_how():
    text = report.header(document())
    for part in (
        *("companion 0.1 (0123456789)", "python 3.11", "torch 2.13", "2026-01-02", "Some CPU"),
        *("2 cores", "1 thread,", "cache 16 MiB", "float32 on cpu", "1 s per case", "load 0.2"),
        *("torch.compile: off (--no-compile)", "glibc was told to reuse"),
    ):
        assert part in text
    assert "numba" not in text


def test_the_header_says_what_is_different():
    results = document(gpu=GPU, memory_reused=False, compile=True, device="cuda")
    results["modified"] = True
    text = report.header(results)
    assert "(0123456789, modified)" in text
    assert "torch.compile: on" in text
    assert "Some GPU: 4000 GB/s copied, 1.5 µs per launch, 100 multiprocessors with 60 MiB" in text
    assert "CUDA graphs" in text
    results["revision"] = None
    assert "companion 0.1," in report.header(results)
    assert "may cost page faults" in report.header(document(memory_reused=False))


def test_columns_are_under_their_titles():
    cases = [case_record("short"), case_record("a-longer-name", copy_us=98765.4)]
    table = report.timings([case["name"] for case in cases], report.TRAINING, document(cases))
    passes, titles = table.head().split("\n")
    rows = [table.row(case) for case in cases]
    assert titles.split() == ["copy", "µs", *["ours", "torch", "×"] * 3]
    assert rows[0].split() == ["short", "10.0", *["2.00", "4.00", "2.00"] * 3]
    assert rows[1].split()[:2] == ["a-longer-name", "98765.4"]
    assert {len(line) for line in (titles, *rows)} == {len(titles)}
    assert len(passes) == len(titles)
    # The title of a pass spans its columns.
    for name in report.TRAINING:
        place = passes.index(name)
        assert titles[place - 8 : place + 12].split()[0] in ("ours", "urs", "torch", "rs", "s")


def test_optional_columns_have_a_dash_where_nothing_was_measured():
    measured = pass_record(compile_copies=3.25, native_copies=7.5)
    case = case_record("one", forward=measured)
    results = document([case], gpu=GPU, compile=True)
    table = report.timings(["one"], ["forward", "both"], results)
    assert (
        table.head().split("\n")[1].split()[2:] == ["ours", "torch", "native", "compile", "×"] * 2
    )
    assert table.row(case).split()[2:] == [
        *("2.00", "4.00", "7.50", "3.25", "2.00"),
        *("2.00", "4.00", "–", "–", "2.00"),
    ]


def test_large_multiples_do_not_run_into_each_other():
    stalled = pass_record(12345.678, ours_copies=456.78, torch_copies=99.994)
    case = case_record("one", forward=stalled)
    table = report.timings(["one"], ["forward"], document([case]))
    assert table.row(case).split() == ["one", "10.0", "457", "99.99", "12346"]


def test_contiguous_tensors_beyond_the_cache_are_marked():
    assert report.label(case_record("one", beyond_cache=True)) == "one*"
    assert report.label(case_record("one", beyond_cache=True, layout="channels-last")) == "one"
    assert report.label(case_record("one")) == "one"


def test_errors_and_noise_have_a_table():
    head, row = report.errors([case_record("one")]).split("\n")
    assert head.split("  ")[-1].strip() == "noise fixed"
    assert row.split()[:5] == ["one", "1e-07", "3e-07", "2e-07", "–"]
    assert row.count("0.99 … 1.01") == 4


def test_only_a_gpu_has_a_table_of_bounds():
    known = pass_record(bound_us=5.0, bound_fraction=0.25, bandwidth_fraction=0.125)
    case = case_record("one", forward=known)
    assert "bound" not in report.tables(document([case]))
    text = report.tables(document([case], gpu=GPU))
    assert text.split("\n")[-1].split()[1:6] == ["20.0", "25%", "12%", "20.0", "–"]


def test_conclusions_name_means_bars_and_noise():
    cases = [
        case_record(beyond_cache=True, forward=pass_record(ours_copies=1.55, compile_speedup=1.5)),
        case_record("module", module=True, both=pass_record(0.8)),
    ]
    text = report.conclusions(document(cases, skipped=["huge"]))
    assert "forward  2.00 over PyTorch, 1.50 over torch.compile; PyTorch over itself 1.000" in text
    assert "takes at most 1.55 copies" in text
    assert "BatchNorm1d on 60×100, forward and backward: 1.25 times" in text
    assert "not enough memory on the GPU: huge" in text
    assert "Slower than PyTorch beyond noise: no case." in text
    assert "2 cases in 12 s" in text


def test_conclusions_list_what_is_slower():
    slow = case_record("slow", both=pass_record(0.5, "slower"))
    lines = report.conclusions(document([slow])).split("\n")
    assert "Slower than PyTorch beyond noise:" in lines
    expected = "  slow both: speed-up 0.50, upper quartile 0.55; PyTorch over itself 0.99 … 1.01"
    assert expected in lines
    assert QUIET["low"] == 0.99


@pytest.mark.parametrize("gpu", [None, GPU], ids=["no GPU", "a GPU"])
def test_there_may_be_nothing_to_report(gpu):
    results = document(gpu=gpu)
    assert report.tables(results) == "no case was measured"
    assert "geometric" not in report.conclusions(results)
    assert "0 cases" in report.conclusions(results)
