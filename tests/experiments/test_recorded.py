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
    run, experiment = recorded(name), EXPERIMENTS[name]
    assert run["experiment"] == name
    assert run["config"] == json.loads(json.dumps(dataclasses.asdict(experiment.config)))
    assert run["seeds"] == list(range(experiment.seeds))
    planned = [(v, s) for v in experiment.variants(experiment.config) for s in run["seeds"]]
    assert [(trial["variant"], trial["seed"]) for trial in run["trials"]] == planned
    assert run["revision"]
    assert run["modified"] is False


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
    starts = recorded("initialization")["conclusion"]
    for variant, accuracies in starts.items():
        if ", bn, " in variant and not variant.endswith("scale 10 at 0.01"):
            assert min(accuracies) > 0.9
    small = [a for name, found in starts.items() if ", plain, scale 0.1 at" in name for a in found]
    assert max(small) < 0.2
    rates = recorded("rates-and-drift")["conclusion"]
    assert max(rates["plain at 1: accuracy"]) < 0.2
    assert min(rates["noisy bn at 1: accuracy"]) > 0.85
    assert min(rates["noise 3 at 1: drift"]) > 1
    assert max(rates["noise 3 at 1: accuracy"]) < min(rates["noise 1 at 1: accuracy"])
    assert max(rates["small bn at 0.01: loss"]) < min(rates["plain at 0.01: loss"])
    alone = recorded("bn-only")["conclusion"]
    assert min(alone["width 128"]) > 0.85
    assert min(alone["width 512"]) > max(alone["width 32"]) + 0.15
    shifted = recorded("test-time-adaptation")["conclusion"]
    assert shifted["contrast, the test's"] == shifted["clean, the test's"]
    assert max(shifted["contrast, training's statistics"]) < 0.5


def test_batch_norm_is_above_layer_norm_in_the_recurrent_networks_of_every_seed():
    found = recorded("recurrent")["conclusion"]
    for cell in ("rnn", "lstm"):
        batch = min(found[f"{cell} bn 0.1: accuracy"])
        assert batch > max(found[f"{cell} layer: accuracy"])


def test_how_deep_a_stack_learns():
    run = recorded("trainable-depth")["conclusion"]
    for kind in ("relu", "relu, plain", "relu, equal turns"):
        assert min(run[f"{kind}, 60 deep: loss"]) > 2
    for kind in ("shortcuts", "shortcuts, γ = 0"):
        assert max(run[f"{kind}, 60 deep: loss"]) < 0.02
    assert max(run["sigmoid, 60 deep: loss"]) < 0.5
    assert max(run["relu, 60 deep: growth after"]) < 1.1 < min(run["relu, 60 deep: growth before"])


def test_figure_1_reproduces_in_every_seed():
    run = recorded("figure-1")["conclusion"]
    assert min(run["times_sooner_at_threshold"]) >= 4
    # In one seed the plain network has an early lucky look at its own final accuracy.
    sooner = run["times_sooner_at_plains_final_accuracy"]
    assert sum(factor >= 2 for factor in sooner) == 4
    assert min(sooner) > 1.5
    assert min(run["final_accuracy_gain"]) > 0
    assert min(run["drift_ratio_until_plains_threshold"]) > 1.5
    assert min(run["widening_ratio"]) > 5


def test_what_figure_1_owes_to_its_setting():
    run = recorded("figure-1-controls")["conclusion"]
    plain, bn = (
        [
            sum(run[f"{network}, weights {w}, rate {r}: steps to threshold"]) / 5
            for w in ("0.1", "0.4")
            for r in ("0.1", "1")
        ]
        for network in ("plain", "bn")
    )
    assert plain[0] > 4 * bn[0], "the setting of Figure 1"
    assert min(plain) < 1.5 * min(bn), "each at its best"
    assert bn[2] > plain[2], "large weights with a small rate"


def test_the_small_figure_2():
    run = recorded("figure-2-small")["conclusion"]
    plain, bn, x5, x30, sigmoid = (
        run[f"{name}: maximum accuracy"]
        for name in ("plain", "bn-baseline", "bn-x5", "bn-x30", "bn-x5-sigmoid")
    )
    assert max(plain) < min(bn)
    assert max(plain) < min(sigmoid) + 0.001
    assert max(x30) < min(bn + x5), "not so in the paper"


def test_without_normalization_larger_rates_and_sigmoids_fail():
    run = recorded("figure-2-controls")
    for trial in run["trials"]:
        end = trial["curves"]["accuracy"][-1]
        if trial["variant"] == "plain-x5":
            assert end > 0.97
        elif trial["variant"] == "plain-x30":
            assert end < 0.12
    assert min(run["conclusion"]["plain-x5-sigmoid: maximum accuracy"]) < 0.12


def test_small_batches_and_ghosts():
    sizes = recorded("batch-size")["conclusion"]
    for bn, renorm, gn in zip(
        sizes["bn, m = 2"], sizes["renorm, m = 2"], sizes["gn, m = 2"], strict=True
    ):
        assert bn < renorm < gn
    ghost = recorded("ghost")["conclusion"]
    mean = {name: sum(values) / 5 for name, values in ghost.items()}
    assert mean["large batches"] < mean["large batches, ghosts"] < mean["small batches"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_recorded(name):
    assert name in RECORDED
