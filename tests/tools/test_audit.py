"""The audit, with a stand-in for Lighthouse that gives the scores it is told to."""

import json
import sys

import pytest

from tools import audit

LIGHTHOUSE = """\
#!{python}
import json, sys, urllib.request
from pathlib import Path
folder = Path(__file__).parent
url = sys.argv[1]
path = next(a.partition("=")[2] for a in sys.argv if a.startswith("--output-path="))
page = urllib.request.urlopen(url)
assert page.headers["Content-Encoding"] == "gzip"
count = folder / "runs"
run = int(count.read_text()) if count.exists() else 0
count.write_text(str(run + 1))
scores = json.loads((folder / "scores.json").read_text())
if scores is None:
    sys.exit("no page could be loaded")
score = scores[run % len(scores)]
report = {{
    "categories": {{
        "performance": {{"score": score, "auditRefs": []}},
        "accessibility": {{"score": 1, "auditRefs": [{{"id": "contrast", "weight": 7}}]}},
        "best-practices": {{"score": 0.96, "auditRefs": [{{"id": "errors", "weight": 1}}]}},
    }},
    "audits": {{
        "contrast": {{"title": "Contrast is enough", "score": 1}},
        "errors": {{"title": "The console has errors", "score": 0}},
        **{{name: {{"numericValue": 1000.0 * (run + 1)}} for name in {shown}}},
    }},
}}
Path(path).write_text(json.dumps(report))
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A built site of one page, and programs that stand in for the real ones."""
    site = tmp_path / "build" / "html"
    site.mkdir(parents=True)
    (site / "page.html").write_text("<p>text</p>")
    (tmp_path / "build" / ".succeeded").touch()
    monkeypatch.setattr(audit, "BUILD", site.parent)
    monkeypatch.setattr(audit, "SUCCEEDED", site.parent / ".succeeded")
    program = tmp_path / "lighthouse"
    program.write_text(LIGHTHOUSE.format(python=sys.executable, shown=audit.SHOWN))
    program.chmod(0o755)
    monkeypatch.setenv("LIGHTHOUSE", str(program))
    monkeypatch.setenv("CHROME_PATH", sys.executable)
    return tmp_path


def audited(machine, monkeypatch, scores, *arguments):
    (machine / "scores.json").write_text(json.dumps(scores))
    monkeypatch.setattr(sys, "argv", ["audit", *arguments])
    return audit.main()


def test_the_median_of_the_runs_counts(machine, monkeypatch, capsys):
    assert audited(machine, monkeypatch, [0.2, 0.97, 0.99], "page") == 0
    header, row, fault = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["page", "performance", "accessibility", "best-practices"]
    assert row.split() == ["page", "97", "100", "96", "2.0", "2.0", "2.0"]
    assert fault.strip() == "errors: The console has errors"


def test_a_page_under_a_bar_fails_the_audit(machine, monkeypatch, capsys):
    assert audited(machine, monkeypatch, [0.94], "--runs", "1", "page") == 1
    assert "under the bar: performance" in capsys.readouterr().out


@pytest.mark.parametrize("scores", [None, [None]])
def test_a_failing_lighthouse_is_told_in_words(machine, monkeypatch, capsys, scores):
    assert audited(machine, monkeypatch, scores, "page") == 1
    error = capsys.readouterr().err
    assert "no page could be loaded" in error or "no score for performance" in error
    assert "Traceback" not in error


def test_what_is_missing_is_named(machine, monkeypatch, capsys):
    monkeypatch.delenv("LIGHTHOUSE")
    monkeypatch.setenv("PATH", "")
    assert audited(machine, monkeypatch, [1], "page") == 1
    assert "The audit needs Lighthouse.\n" in capsys.readouterr().err


def test_a_page_that_is_none_is_refused(machine, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        audited(machine, monkeypatch, [1], "nowhere")
    assert "no such page: nowhere" in capsys.readouterr().err
