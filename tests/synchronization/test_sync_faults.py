"""What the other processes say when one fails; a few runs of what `_faults.py` makes 200 of."""

import json
import subprocess
import sys
from functools import partial

import _faults
import pytest
from _faults import Fault

# In a process of its own: one that has no threads yet can be forked.
SCRIPT = "import json, sys, _faults; print(json.dumps(_faults.run(_faults.Fault(*{}), {}, {})))"
GONE = "a rank has died, or has raised an error and left"
LATE = "a rank did not come within the group's timeout"
ELSEWHERE = "expected all ranks in the same call"
# Where nobody waits for it, the group's timeout is one that a busy machine does not reach.
PATIENT = 30.0


def survivors(fault, ranks, timeout):
    """What the ranks without a fault say, and after how long."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(tuple(fault), ranks, timeout)],
        cwd=_faults.__file__.rpartition("/")[0],
        capture_output=True,
        text=True,
        timeout=_faults.LIMIT + 240.0,
        check=True,
    )
    outcomes = json.loads(done.stdout.splitlines()[-1])
    return [outcomes[rank] for rank in sorted(outcomes) if int(rank) != fault.rank]


# All kinds, in seconds: the first and one that waits for the timeout are enough while one works.
more = partial(pytest.param, marks=pytest.mark.slow(reason="starts two or three processes more"))


@pytest.mark.parametrize(
    ("fault", "ranks", "layer", "reasons"),
    [
        (Fault("kill", 1, 2, 1), 2, "blocks.1.1", [GONE]),
        more(Fault("die", 0, 1, 0), 3, "blocks.", [GONE, LATE]),
        more(Fault("raise", 2, 1, 1), 3, "blocks.1.1", [GONE, LATE]),
        more(Fault("skip", 1, 1, 0), 3, "blocks.", [ELSEWHERE, GONE]),
        # To a layer of another width: the two never meet.
        more(Fault("skip", 1, 1, 1), 2, "blocks.", [LATE, GONE]),
        more(Fault("skip", 0, _faults.STEPS - 1, 2), 2, "blocks.2.1", [LATE, GONE]),
        (Fault("stall", 0, 1, 2), 2, "blocks.2.1", [LATE]),
        more(Fault("skip backward", 1, 1, 1), 2, "blocks.", [LATE, GONE, ELSEWHERE]),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, Fault) else "",
)
def test_the_others_get_an_error_that_names_the_layer(fault, ranks, layer, reasons):
    timeout = _faults.TIMEOUT if LATE in reasons else PATIENT
    outcomes = survivors(fault, ranks, timeout)
    assert len(outcomes) == ranks - 1
    for outcome, seconds in outcomes:
        assert _faults.verdict(outcome) == "named", outcome
        assert outcome.startswith(f"RuntimeError: {layer}")
        assert any(reason in outcome for reason in reasons), outcome
        # Far from hanging: the timeout may be waited for once forward, and machines are busy.
        assert seconds < _faults.LIMIT / 2


@pytest.mark.slow(
    reason="starts two processes more; those of test_sync_ranks do not complain either"
)
def test_without_a_fault_nobody_complains():
    for outcome, _ in survivors(Fault("none", -1, -1, -1), 2, PATIENT):
        assert outcome == "finished"
