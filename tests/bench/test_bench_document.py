import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from _documents import QUIET, case_record, document, pass_record

from companion.bench.document import check_writable, summarize, write

ROOT = Path(__file__).parents[2]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_back_with_six_digits(tmp_path):
    path = tmp_path / "found.json"
    write(document([case_record(copy_us=1234.56789)]), path)
    results = json.loads(path.read_text(encoding="utf-8"))
    assert results["cases"][0]["copy_us"] == 1234.57
    assert results["cases"][0]["bytes"] == 25690112
    assert results["cases"][0]["error"]["y"]["ours"] == 1e-7
    assert results["cases"][0]["error"]["grad_x"]["torch"] is None
    assert path.read_bytes().endswith(b"}\n")
    assert names(tmp_path) == ["found.json"]


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path):
    path = tmp_path / "found.json"
    write({"a": 1}, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.chmod(0o640)
    write({"a": 2}, path)
    assert json.loads(path.read_text()) == {"a": 2}
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_keeps_pointing_at_the_file(tmp_path):
    path, link = tmp_path / "found.json", tmp_path / "link.json"
    path.write_text("old")
    link.symlink_to(path)
    write({"a": 1}, link)
    assert link.is_symlink()
    assert json.loads(path.read_text()) == {"a": 1}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full")])
@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_an_interruption_leaves_what_was_there(tmp_path, monkeypatch, step, error):
    path = tmp_path / "found.json"
    path.write_text("old")

    def fails(*_):
        raise error

    monkeypatch.setattr(os, step, fails)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        write({"a": 1}, path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["found.json"]


def test_the_new_file_is_prepared_in_the_same_folder(tmp_path, monkeypatch):
    # Elsewhere could be another disk, from which nothing can be moved in one step.
    moved, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda one, other: moved.append(one) or replace(one, other))
    write({"a": 1}, tmp_path / "found.json")
    assert [Path(name).parent for name in moved] == [tmp_path]


KILLED = """
import os, pathlib, signal, sys
from companion.bench.document import write
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
write({"a": "long" * 10**5}, pathlib.Path(sys.argv[1]))
"""


def test_a_kill_leaves_what_was_there(tmp_path):
    path = tmp_path / "found.json"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, cwd=ROOT)
    assert done.returncode == -9
    assert path.read_text() == "old"


def test_numbers_that_json_does_not_know_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write({"a": float("nan")}, tmp_path / "found.json")
    assert names(tmp_path) == []


def test_what_cannot_be_written_is_known_beforehand(tmp_path, monkeypatch):
    check_writable(tmp_path / "found.json")
    assert names(tmp_path) == []
    with pytest.raises(OSError, match="there is no folder"):
        check_writable(tmp_path / "nowhere" / "found.json")
    with pytest.raises(OSError, match="is not a file"):
        check_writable(tmp_path)
    with pytest.raises(OSError, match="is not a file"):
        check_writable(Path(os.devnull))

    def refused(**_):
        raise PermissionError(13, "Permission denied")

    # As root, a test can write everywhere.
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refused)
    with pytest.raises(OSError, match=r"found.json: cannot write there: Permission denied"):
        check_writable(tmp_path / "found.json")


def test_checking_leaves_a_file_alone(tmp_path):
    path = tmp_path / "found.json"
    path.write_text("old")
    check_writable(path)
    assert path.read_text() == "old"


def test_means_are_geometric_and_without_the_module():
    cases = [
        case_record("a", forward=pass_record(4.0, compile_speedup=3.0)),
        case_record("b", forward=pass_record(1.0)),
        case_record("c", forward=pass_record(100.0), both=pass_record(0.8), module=True),
    ]
    results = summarize(cases, ["d"], 5.0, interrupted=False)
    assert results["cases"] == 3
    assert results["speedup"]["forward"] == pytest.approx(2.0)
    assert results["speedup"]["both"] == pytest.approx(2.0)
    assert results["compile_speedup"] == {
        "forward": pytest.approx(3.0),
        "backward": None,
        "both": None,
        "fixed": None,
    }
    assert results["module_ratio"] == pytest.approx(1.25)
    assert (results["skipped"], results["seconds"]) == (["d"], 5.0)


def test_the_noise_is_the_mean_over_cases():
    def noisy(low, ratio, high):
        each = {"ratio": ratio, "low": low, "high": high}
        return dict.fromkeys(("forward", "backward", "both", "fixed"), each)

    cases = [case_record(noise=noisy(0.9, 1.1, 4.0)), case_record(noise=noisy(0.4, 1.1, 1.0))]
    results = summarize(cases, [], 0.0, interrupted=False)["noise"]["backward"]
    assert results == {
        "ratio": pytest.approx(1.1),
        "low": pytest.approx(0.6),
        "high": pytest.approx(2.0),
    }


def test_what_is_slower_is_listed_by_case_and_pass():
    slow = pass_record(0.5, "slower")
    cases = [case_record("a", fixed=slow), case_record("b", module=True, both=slow)]
    cases += [case_record("c", both=pass_record(0.9, "even"))]
    results = summarize(cases, [], 0.0, interrupted=False)["slower"]
    assert [(one["name"], one["pass_name"]) for one in results] == [("b", "both"), ("a", "fixed")]
    assert results[0]["speedup"] == 0.5
    assert results[0]["speedup_high"] == pytest.approx(0.55)
    assert results[0]["noise"] == QUIET


def test_the_copies_beyond_the_cache_are_those_of_contiguous_tensors():
    def large(copies, **changed):
        return case_record(forward=pass_record(ours_copies=copies), **changed)

    cases = [
        large(1.4, beyond_cache=True),
        large(1.5, beyond_cache=True),
        large(9.0, beyond_cache=True, layout="channels-last"),
        large(9.0, beyond_cache=False),
    ]
    assert summarize(cases, [], 0.0, interrupted=False)["beyond_cache_forward_copies"] == 1.5
    assert summarize(cases[2:], [], 0.0, interrupted=False)["beyond_cache_forward_copies"] is None


def test_of_no_cases_nothing_is_concluded():
    results = summarize([], [], 0.0, interrupted=False)
    assert set(results["speedup"].values()) == set(results["noise"].values()) == {None}
    assert results["module_ratio"] is None
    assert results["slower"] == []
