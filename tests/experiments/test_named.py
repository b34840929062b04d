"""The named experiments find, in their quick forms, what they are about; and their parts."""

import math

import pytest
import torch
from torch import nn

from companion import BatchNorm1d, BatchNorm2d
from companion.exercises.reproducing_the_paper import PERCENTILE_BOUND
from companion.experiments import figure_1, figure_2_small, inputs, networks, recurrent, runner
from companion.experiments.catalogue import EXPERIMENTS
from companion.experiments.experiment import Trial, by_seed, ratio, steps_to_accuracy
from companion.experiments.figure_1 import percentile_bands
from companion.experiments.gradient_explosion import gradient_norms, predicted
from companion.experiments.initialization import saturation
from companion.experiments.noisy_bn import activation_inputs
from companion.experiments.smoothness import along_gradient, loss_range
from companion.experiments.tasks import Record
from companion.variants import BatchNormLSTM

# In one process, which runs each experiment's quick form once.
pytestmark = pytest.mark.xdist_group("experiments")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def conclusion_of(tmp_path_factory):
    """The conclusion of an experiment's quick form, for seeds 0 and 1; each is run once."""
    known = {}

    def conclusion(name):
        if name not in known:
            experiment = EXPERIMENTS[name]
            folder = tmp_path_factory.mktemp(name)
            result = runner.run(experiment, experiment.quick, (0, 1), CPU, folder, progress=False)
            known[name] = result["conclusion"]
        return known[name]

    return conclusion


def test_gradients_grow_as_predicted(conclusion_of):
    for ratios in conclusion_of("gradient-explosion").values():
        assert ratios == pytest.approx([1.0, 1.0], abs=0.05)


def test_depth_stops_a_stack_and_not_blocks_with_shortcuts(conclusion_of):
    found = conclusion_of("trainable-depth")
    assert found["relu, 40 deep: growth before"] == pytest.approx([1.21, 1.21], abs=0.03)
    assert min(found["relu, 40 deep: loss"]) > 1.5
    for kind in ("shortcuts", "shortcuts, γ = 0"):
        assert max(found[f"{kind}, 40 deep: loss"]) < 0.5


def test_bn_makes_the_loss_vary_less_along_its_gradient(conclusion_of):
    assert min(conclusion_of("smoothness")["times smaller with bn"]) > 5


def test_noise_after_bn_moves_distributions_more_than_bn(conclusion_of):
    drift = conclusion_of("noisy-bn")
    for noisy, quiet in zip(drift["noisy bn: drift"], drift["bn: drift"], strict=True):
        assert noisy > 3 * quiet


def test_recurrent_networks_learn_with_either_normalization(conclusion_of):
    found = conclusion_of("recurrent")
    for name in ("rnn bn 0.1", "rnn bn 1", "rnn layer"):
        assert min(found[f"{name}: accuracy"]) > 0.7
        assert found[f"{name}: rate"] == 0.1
    layer = recurrent.with_layer_norm(BatchNormLSTM(3, 4, max_length=2))
    assert [type(part) for part in layer.children()] == [recurrent.EveryStep] * 3
    output, _ = layer(torch.randn(7, 1, 3))
    assert torch.isfinite(output).all()


def test_noisy_bn_bears_a_rate_at_which_the_plain_network_fails(conclusion_of):
    found = conclusion_of("rates-and-drift")
    assert min(found["noisy bn at 1: accuracy"]) > max(found["plain at 1: accuracy"]) + 0.3
    assert min(found["noisy bn at 1: drift"]) > 0.2
    assert min(found["plain at 0.03: drift"]) > 20 * max(found["bn at 0.03: drift"])


def test_weights_turn_by_the_predicted_angle(conclusion_of):
    (ratios,) = conclusion_of("weight-decay-equilibrium").values()
    assert ratios == pytest.approx([1.0, 1.0], abs=0.1)


def test_gamma_and_beta_alone_learn_more_in_wider_networks(conclusion_of):
    accuracies = conclusion_of("bn-only")
    assert min(accuracies["width 128"]) > max(accuracies["width 32"])


def test_the_statistics_of_the_test_undo_a_change_of_contrast(conclusion_of):
    accuracies = conclusion_of("test-time-adaptation")
    for name in ("clean", "contrast"):
        assert min(accuracies[f"{name}, the test's"]) > 0.85
    assert accuracies["contrast, the test's"] == pytest.approx(
        accuracies["clean, the test's"], abs=0.005
    )
    assert max(accuracies["contrast, training's statistics"]) < 0.7


def test_bands_of_the_plain_network_drift_more(conclusion_of):
    bands = conclusion_of("figure-1")
    assert min(bands["drift_ratio_until_plains_threshold"]) > 2
    assert bands["drift_ratio_after"] == [None, None], "the plain network never gets there"


def test_drift_is_compared_before_and_after_the_plain_network_learns():
    steps = [0.0, 100.0, 200.0, 300.0, 400.0]
    # The first two drifts are those of statistics that have not settled.
    drifts = {"plain": [0.0, 9.0, 4.0, 1.0, 3.0], "bn": [0.0, 7.0, 2.0, 1.0, 2.0]}
    accuracies = {"plain": [0.1, 0.2, 0.5, 0.9, 0.9], "bn": [0.1, 0.9, 0.9, 0.9, 0.9]}
    widths = {"plain": [5.0, 1.0, 2.0, 4.0, 8.0], "bn": [0.1, 2.0, 3.0, 4.0, 4.0]}
    trials = [
        Trial(
            network,
            0,
            1.0,
            Record(figure_1.scalars(figure_1.Config(), curves), curves),
        )
        for network in ("plain", "bn")
        for curves in [
            {
                "step": steps,
                "accuracy": accuracies[network],
                "width": widths[network],
                "drift": drifts[network],
            }
        ]
    ]
    conclusion = figure_1.EXPERIMENT.conclude(figure_1.Config(), trials)
    assert conclusion["times_sooner_at_threshold"] == [3.0]
    assert conclusion["drift_ratio_until_plains_threshold"] == [4.0 / 2.0]
    assert conclusion["drift_ratio_after"] == [(1.0 + 3.0) / (1.0 + 2.0)]
    assert conclusion["widening_ratio"] == [8.0 / 2.0]


def test_wider_initial_weights_and_a_larger_rate_speed_the_plain_network_up(conclusion_of):
    control = conclusion_of("figure-1-controls")
    as_in_figure_1 = control["plain, weights 0.1, rate 0.1: final accuracy"]
    assert max(as_in_figure_1) < 0.3
    assert min(control["plain, weights 0.4, rate 1: final accuracy"]) > 0.9
    assert max(control["bn, weights 0.1, rate 0.1: steps to threshold"]) <= 200


def test_our_layer_and_pytorchs_train_alike(conclusion_of):
    assert max(conclusion_of("same-curve")["largest difference of the losses"]) < 1e-9


def test_bn_trains_where_the_plain_network_does_not(conclusion_of):
    assert conclusion_of("learning-rate-limit")["largest rate, bn"] == [1.0, 1.0]


def test_bn_learns_from_weights_that_are_too_small_or_too_large(conclusion_of):
    accuracies = conclusion_of("initialization")
    for scale in ("0.1", "10"):
        plain, bn = (accuracies[f"tanh, {kind}, scale {scale} at 0.1"] for kind in ("plain", "bn"))
        assert min(bn) > max(plain) + 0.1


def test_saturation_is_the_share_of_flat_activations():
    # The derivative of tanh is below a tenth beyond artanh √0.9 = 1.82, that of σ beyond 3.637.
    for activation, edge in ((nn.Tanh(), 1.8184), (nn.Sigmoid(), 3.6369)):
        x = torch.tensor([[-edge - 0.001, 0.0], [edge - 0.001, edge + 0.001]])
        assert saturation(nn.Sequential(activation), x) == 0.5
    x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0)) * 100
    layer = BatchNorm1d(4)
    assert saturation(nn.Sequential(layer, nn.Tanh()), x) < 0.12
    assert layer.num_batches_tracked == 0
    assert saturation(nn.Sequential(nn.Tanh()), x) > 0.9


def test_at_two_examples_group_normalization_is_ahead(conclusion_of):
    accuracies = conclusion_of("batch-size")
    for bn, gn in zip(accuracies["bn, m = 2"], accuracies["gn, m = 2"], strict=True):
        assert gn > bn


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_a_quick_form_that_concludes(conclusion_of, name):
    assert conclusion_of(name)


def test_every_experiment_says_what_it_is():
    for name, experiment in EXPERIMENTS.items():
        assert experiment.name == name
        assert type(experiment.quick) is type(experiment.config)
        assert experiment.quick != experiment.config
        assert experiment.config.__dataclass_params__.frozen
        assert len(experiment.variants(experiment.config)) >= 1
        assert experiment.seeds >= 5


def test_predictions():
    assert predicted("relu", 512) == pytest.approx(math.sqrt(math.pi / (math.pi - 1)))
    assert predicted("linear", 8) == pytest.approx(math.sqrt(6 / 5))


def test_gradient_norms_are_of_every_layers_input():
    torch.manual_seed(0)
    norms = gradient_norms("relu", 64, 32, 5)
    assert len(norms) == 5
    assert norms[0] > norms[-1] > 0


def test_the_loss_range_leaves_the_model_as_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.randn(20, 4), torch.arange(20) % 3
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        measured = loss_range(model, x, y, (0.0, 0.5))
        losses, changes = along_gradient(model, x, y, (0.0, 0.5))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    loss = nn.functional.cross_entropy(model(x), y)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    with torch.no_grad():
        for value, gradient in zip(model.parameters(), gradients, strict=True):
            value -= 0.5 * gradient
        moved = nn.functional.cross_entropy(model(x), y)
    assert measured == pytest.approx(abs(loss.item() - moved.item()), abs=1e-6)
    assert losses == pytest.approx([loss.item(), moved.item()], abs=1e-6)
    after = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), list(model.parameters()))
    start, end = (torch.cat([each.flatten() for each in grads]) for grads in (gradients, after))
    assert changes == pytest.approx([0.0, ((end - start).norm() / start.norm()).item()], abs=1e-5)


def test_activation_inputs_are_what_each_relu_receives():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    x = torch.randn(5, 2)
    first, second = activation_inputs(model, x)
    assert torch.equal(first, model[0](x))
    assert torch.equal(second, model[:3](x))


def test_percentile_bands():
    bands = percentile_bands(torch.stack([torch.arange(101.0), -torch.arange(101.0)], dim=1))
    expected = torch.tensor([[15.0, -85.0], [50.0, -50.0], [85.0, -15.0]])
    torch.testing.assert_close(bands, expected)


@pytest.mark.parametrize("m", [2, 3, 20])
def test_percentile_bands_lie_within_their_bound(m):
    chance = torch.Generator().manual_seed(0)
    values = torch.randn(m, 50, dtype=torch.float64, generator=chance) ** 3
    shares = figure_1.PERCENTILES
    assert PERCENTILE_BOUND.error(percentile_bands(values), values, shares) < 1e-12


def test_bands_drift_in_their_own_widths():
    before, bands = torch.tensor([1.0, 5.0]), torch.tensor([[0.0, 0.0], [2.0, 1.0], [4.0, 10.0]])
    assert figure_1.band_drift(before, bands) == (1 / 4 + 4 / 10) / 2


def test_steps_to_accuracy():
    assert steps_to_accuracy([0, 10, 20], [0.1, 0.9, 0.8], 0.9) == 10
    assert steps_to_accuracy([0, 10, 20], [0.1, 0.9, 0.8], 0.95) is None


def test_trials_are_sorted_by_seed_and_ratios_need_both_numbers():
    trials = [Trial("a", seed, 0.0, Record({"seed": seed}, {})) for seed in (2, 0, 1)]
    trials.append(Trial("b", 3, 0.0, Record({}, {})))
    assert [record.scalars["seed"] for record in by_seed(trials, "a")] == [0, 1, 2]
    assert ratio(6.0, 2.0) == 3.0
    assert ratio(None, 2.0) is ratio(6.0, None) is ratio(6.0, 0.0) is None


def test_a_perceptron_has_biases_only_where_nothing_normalizes():
    torch.manual_seed(0)
    plain = networks.perceptron((50, 200, 200, 10), nn.Sigmoid, None, weight_std=0.1)
    normalized = networks.perceptron((50, 200, 200, 10), nn.ReLU, BatchNorm1d)
    assert [type(layer).__name__ for layer in plain] == ["Linear", "Sigmoid"] * 2 + ["Linear"]
    assert [type(layer).__name__ for layer in normalized] == [
        *["Linear", "BatchNorm1d", "ReLU"] * 2,
        "Linear",
    ]
    assert plain[2].weight.std().item() == pytest.approx(0.1, rel=0.05)
    assert normalized[3].weight.std().item() == pytest.approx(0.1, rel=0.05)  # √(2/200)
    assert plain[0].bias.abs().sum() == 0
    assert normalized[0].bias is None
    assert normalized[-1].bias is not None


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (1, 8)])
def test_a_convolutional_network_takes_images_of_its_side(channels, side):
    x = torch.randn(4, channels, side, side)
    for normalization in (None, BatchNorm2d):
        model = networks.convolutional(channels, side, nn.ReLU, normalization, (4, 6))
        assert model(x).shape == (4, 10)
        assert (model[0].bias is None) == (normalization is not None)


def test_the_variants_of_figure_2_have_the_papers_rates():
    factors = {name: variant.rate_factor for name, variant in figure_2_small.VARIANTS.items()}
    assert factors == {
        "plain": 1, "bn-baseline": 1, "bn-x5": 5, "bn-x30": 30, "bn-x5-sigmoid": 5
    }  # fmt: skip


def test_rows_and_pictures_are_the_same_pixels():
    pictures, rows = inputs.pictures("digits", CPU), inputs.rows("digits", CPU)
    assert pictures.x_test.shape == (450, 1, 8, 8)
    assert torch.equal(pictures.x_test.flatten(1), rows.x_test)
    binary = inputs.rows("digits", CPU, binary=True)
    assert torch.equal(binary.x_train, (rows.x_train > 0.5).float())
    with pytest.raises(ValueError, match="dataset: expected one of digits, mnist"):
        inputs.pictures("letters", CPU)
