"""Grade one submission on Gradescope: write `results/results.json`.

Each answer runs in a process of its own, by `python -m companion check`; as the user `student`
where there is one. Whatever a submission does, there is a result for every exercise.
"""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = Path(os.environ.get("AUTOGRADER", "/autograder"))
STUDENT = os.environ.get("AUTOGRADER_USER", "student")  # setup.sh makes this user
LIMIT = float(os.environ.get("AUTOGRADER_SECONDS", "420"))  # Gradescope stops after ten minutes


class Refused(Exception):
    """There is nothing to grade; the message says why."""


def submitted(folder: Path, chapter: str) -> Path:
    """The one file to grade: that of the chapter's name, or the only one.

    Raises
    ------
    Refused
        there is none, or more than one
    """
    files = [path for path in sorted(folder.rglob("[!._]*")) if path.suffix in (".ipynb", ".py")]
    named = [path for path in files if path.stem == chapter]
    if len(named or files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise Refused(f"expected {chapter}.ipynb, or one .ipynb or .py file; got {names}")
    return (named or files)[0]


def privileges() -> dict[str, Any]:
    """What makes a process that of the student, where this one may choose."""
    try:
        student = pwd.getpwnam(STUDENT)
    except KeyError:
        return {}
    if os.geteuid() != 0:
        return {}
    return {"user": student.pw_uid, "group": student.pw_gid, "extra_groups": []}


def reports(file: Path, names: list[str]) -> dict[str, Any]:
    """What the check says of each exercise.

    Raises
    ------
    Refused
        the file does not run, or does not end
    """
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        copy = Path(shutil.copy(file, folder))
        copy.chmod(0o644)
        command = [sys.executable, "-P", "-m", "companion", "check", copy.name, "--json"]
        command += [word for name in names for word in ("--only", name)]
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "HOME": folder, "COMPANION_PROGRESS": f"{folder}/solved.json"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
            **privileges(),
        )
        try:
            out, err = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise Refused(f"it was stopped after {LIMIT:.0f} seconds") from None
    if process.returncode not in (0, 1):
        raise Refused(err.strip().removeprefix("check: ") or "it ended the check")
    return {each["name"]: each for each in json.loads(out)}


def graded(assignment: dict[str, Any]) -> list[dict[str, Any]]:
    """Gradescope's form of the result of each exercise: all its points, or none."""
    exercises = assignment["exercises"]
    refusal, found = "", {}
    try:
        file = submitted(ROOT / "submission", assignment["chapter"])
        found = reports(file, [each["name"] for each in exercises])
    except (Refused, OSError, ValueError, TypeError, KeyError) as error:
        refusal = str(error)
    tests = []
    for each in exercises:
        report = found.get(each["name"], {"right": False, "report": refusal})
        right = report["right"] is True
        tests.append(
            {
                "name": each["title"],
                "score": each["points"] if right else 0,
                "max_score": each["points"],
                "status": "passed" if right else "failed",
                "output": report["report"],
            }
        )
    return tests


def main() -> None:
    start = time.monotonic()
    assignment = json.loads((HERE / "assignment.json").read_text(encoding="utf-8"))
    tests = graded(assignment)
    result = {"tests": tests, "execution_time": round(time.monotonic() - start)}
    target = ROOT / "results" / "results.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.with_suffix(".new")
    made.write_text(json.dumps(result, ensure_ascii=False, indent=1), encoding="utf-8")
    made.replace(target)


if __name__ == "__main__":
    main()
