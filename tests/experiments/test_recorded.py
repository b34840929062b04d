"""The recorded results are of the experiments as they are now, and say what the book may say."""

import dataclasses
import json
from pathlib import Path

import pytest

from companion.experiments import results
from companion.experiments.catalogue import EXPERIMENTS

FOLDER = Path(__file__).parents[2] / "book" / "results"
RECORDED = sorted(name for name in EXPERIMENTS if (FOLDER / f"{name}.json").exists())


def recorded(name):
    return results.load(FOLDER / f"{name}.json")


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_result_is_of_the_experiment_as_it_is(name):
    found, experiment = recorded(name), EXPERIMENTS[name]
    assert found["experiment"] == name
    assert found["config"] == json.loads(json.dumps(dataclasses.asdict(experiment.config)))
    assert found["seeds"] == list(range(experiment.seeds))
    planned = [(v, s) for v in experiment.variants(experiment.config) for s in found["seeds"]]
    assert [(trial["variant"], trial["seed"]) for trial in found["trials"]] == planned
    assert found["revision"]
    assert found["modified"] is False


def test_the_predictions_hold_at_full_length():
    for ratios in recorded("gradient-explosion")["conclusion"].values():
        assert ratios == pytest.approx([1.0] * 5, abs=0.02)
    for ratios in recorded("weight-decay-equilibrium")["conclusion"].values():
        assert ratios == pytest.approx([1.0] * 5, abs=0.02)
    assert max(recorded("same-curve")["conclusion"]["largest difference of the losses"]) < 1e-12


def test_what_the_literature_says_is_seen_in_every_seed():
    smoothness = recorded("smoothness")["conclusion"]
    assert min(smoothness["times smaller with bn"]) > 5
    drift = recorded("noisy-bn")["conclusion"]
    for noisy, quiet in zip(drift["noisy bn: drift"], drift["bn: drift"], strict=True):
        assert noisy > 20 * quiet
    assert min(drift["noisy bn: accuracy"]) > 0.9
    assert min(recorded("learning-rate-limit")["conclusion"]["times larger with bn"]) >= 3
    alone = recorded("bn-only")["conclusion"]
    assert min(alone["width 128"]) > 0.85
    assert min(alone["width 512"]) > max(alone["width 32"]) + 0.15
    shifted = recorded("test-time-adaptation")["conclusion"]
    assert shifted["contrast, the test's"] == shifted["clean, the test's"]
    assert max(shifted["contrast, training's statistics"]) < 0.5
