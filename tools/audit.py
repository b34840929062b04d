"""Lighthouse's verdict on every chapter of the built site, as a phone would see it.

usage: python -m tools.audit [--runs N] [PAGE ...]

Not among the tests, for its scores are timings: the machine should do nothing else meanwhile.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from tools.build_book import BUILD, SUCCEEDED
from tools.notebooks import chapters
from tools.pages_server import serve

BARS = {"performance": 95, "accessibility": 100, "best-practices": 95}
SHOWN = ["first-contentful-paint", "largest-contentful-paint", "total-blocking-time"]
MISSING = """\
The audit needs {missing}.
  Lighthouse: npm install --global lighthouse    (or name it: LIGHTHOUSE=/path/to/lighthouse)
  Chromium:   apt-get install chromium           (or name it: CHROME_PATH=/path/to/chromium)"""


class Failure(Exception):
    """Why there is no verdict, in words for whoever runs the audit."""


@dataclass(frozen=True)
class Verdict:
    """Of one page: scores from 0 to 100, timings in ms, and the audits that it fails."""

    scores: dict[str, int]
    timings: dict[str, float]
    faults: tuple[str, ...]


def programs() -> tuple[str, str]:
    """Lighthouse and Chromium."""
    lighthouse = os.environ.get("LIGHTHOUSE") or shutil.which("lighthouse")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    chromium = os.environ.get("CHROME_PATH") or next(filter(None, map(shutil.which, names)), None)
    found = {"Lighthouse": lighthouse, "Chromium": chromium}
    missing = " and ".join(name for name, program in found.items() if not program)
    if not lighthouse or not chromium:
        raise Failure(MISSING.format(missing=missing))
    return lighthouse, chromium


def read(document: dict[str, Any]) -> Verdict:
    """A verdict from Lighthouse's report."""
    audits, categories = document["audits"], document["categories"]
    scores = {}
    for name in BARS:
        if categories[name]["score"] is None:
            raise Failure(f"Lighthouse gave no score for {name}: {document.get('runWarnings')}")
        scores[name] = round(100 * categories[name]["score"])
    judged = {
        entry["id"]
        for name in ("accessibility", "best-practices")
        for entry in categories[name]["auditRefs"]
        if entry["weight"] > 0
    }
    faults = tuple(
        f"{name}: {audits[name]['title']}"
        for name in sorted(judged)
        if audits[name]["score"] is not None and audits[name]["score"] < 1
    )
    return Verdict(scores, {name: audits[name]["numericValue"] for name in SHOWN}, faults)


def run(lighthouse: str, chromium: str, url: str) -> Verdict:
    """One run of Lighthouse, with its own settings: a phone on a slow network."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        ended = subprocess.run(
            [
                *(lighthouse, url, "--quiet", "--output=json", f"--output-path={report}"),
                f"--only-categories={','.join(BARS)}",
                "--chrome-flags=--headless=new --no-sandbox",
            ],
            env={**os.environ, "CHROME_PATH": chromium},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode or not report.exists():
            raise Failure(f"Lighthouse failed on {url}:\n{ended.stderr.strip()[-2000:]}")
        return read(json.loads(report.read_bytes()))


def middle(verdicts: list[Verdict]) -> Verdict:
    """The median of each number; every fault that was seen."""
    first = verdicts[0]
    return Verdict(
        {name: round(median(one.scores[name] for one in verdicts)) for name in first.scores},
        {name: median(one.timings[name] for one in verdicts) for name in first.timings},
        tuple(sorted({fault for one in verdicts for fault in one.faults})),
    )


def row(page: str, verdict: Verdict) -> str:
    numbers = [f"{verdict.scores[name]:>{len(name)}}" for name in BARS]
    times = [f"{verdict.timings[name] / 1000:>{len(name)}.1f}" for name in SHOWN]
    low = [name for name, bar in BARS.items() if verdict.scores[name] < bar]
    return "  ".join(
        [f"{page:24}", *numbers, *times, f"under the bar: {', '.join(low)}" * bool(low)]
    )


def audit(pages: list[str], runs: int) -> bool:
    """Print a row for each page; whether all of them meet the bars."""
    lighthouse, chromium = programs()
    results = {}
    with serve(BUILD / "html") as address, tqdm(total=len(pages) * runs, unit="run") as progress:
        for page in pages:
            verdicts = []
            for _ in range(runs):
                progress.set_description(page)
                verdicts.append(run(lighthouse, chromium, f"{address}/{page}.html"))
                progress.update()
            results[page] = middle(verdicts)
    print("  ".join([f"{'page':24}", *BARS, *SHOWN]) + "   (times in s)")
    for page, verdict in results.items():
        print(row(page, verdict))
        for fault in verdict.faults:
            print(f"    {fault}")
    return all(
        verdict.scores[name] >= bar for verdict in results.values() for name, bar in BARS.items()
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.audit",
        description="Lighthouse's verdict on every chapter of the built site, as a phone sees it.",
    )
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="such as identity; all chapters")
    parser.add_argument("--runs", type=int, default=3, help="of which the median counts (3)")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error(f"--runs must be at least 1, but is {arguments.runs}")
    known = chapters()
    unknown = [page for page in arguments.pages if not (BUILD / "html" / f"{page}.html").exists()]
    if not SUCCEEDED.exists():
        print("The book is not built: run `make book` first.", file=sys.stderr)
        return 1
    if unknown:
        parser.error(f"no such page: {', '.join(unknown)}; chapters: {', '.join(known)}")
    try:
        return 0 if audit(arguments.pages or known, arguments.runs) else 1
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
