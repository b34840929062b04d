"""Layers carried between the conventions of frameworks: the same numbers, and what is lost."""

import numpy as np
import pytest
import torch
from torch import nn

import companion
from companion.conversion import from_caffe, from_flax, from_keras, to_caffe, to_flax, to_keras
from companion.experiments import conventions

KERAS = ("gamma", "beta", "moving_mean", "moving_variance")
FLAX = ("scale", "bias", "mean", "var")
WAYS = {"keras": (from_keras, to_keras, KERAS), "flax": (from_flax, to_flax, FLAX)}
RATES = [0.0, 0.001, 0.01, 0.1, 0.3, 0.9, 0.99, 0.999, 1.0, 1 / 3]


def numbers(dtype=np.float32, channels=5):
    """γ, β, mean and variance."""
    random = np.random.default_rng(0)
    return [random.normal(size=channels).astype(dtype) for _ in range(3)] + [
        random.gamma(1.0, size=channels).astype(dtype)
    ]


def evaluated(carried, x, layer_class=nn.BatchNorm1d):
    layer = layer_class(**carried.settings)
    state = {name: torch.from_numpy(array) for name, array in carried.arrays.items()}
    dtype = state["running_mean"].dtype
    layer = layer.to(dtype).eval()
    layer.load_state_dict(state)
    return layer(torch.from_numpy(x).to(dtype)).detach().numpy()


def formula(x, gamma, beta, mean, var, eps):
    return (x - mean) / np.sqrt(var + eps) * gamma + beta


def lost(carried):
    return {item.what for item in carried.lost}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layer_class", [nn.BatchNorm1d, companion.BatchNorm1d])
def test_evaluation_is_the_formula_with_the_frameworks_epsilon(way, layer_class):
    there, _, names = WAYS[way]
    x = np.random.default_rng(1).normal(size=(7, 5))
    arrays = numbers(np.float64)
    for settings, eps in [({}, {"keras": 1e-3, "flax": 1e-5}[way]), ({"epsilon": 0.25}, 0.25)]:
        y = evaluated(there(dict(zip(names, arrays, strict=True)), settings), x, layer_class)
        np.testing.assert_allclose(y, formula(x, *arrays, eps), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("framework", "there", "names"),
    [
        ("Keras 3 (TensorFlow)", from_keras, KERAS),
        ("Keras 2", from_keras, KERAS),
        ("TensorFlow 1", from_keras, KERAS),
        ("Flax (NNX)", from_flax, FLAX),
        ("Flax (Linen)", from_flax, FLAX),
    ],
)
def test_evaluation_is_what_the_framework_has_put_out(framework, there, names):
    record = conventions.recorded()["carried"]
    given = record["numbers"]
    arrays = [np.array(given[name]) for name in ("weight", "bias", "mean", "var")]
    settings = {"epsilon": given["eps"], "momentum": given["momentum"]}
    y = evaluated(there(dict(zip(names, arrays, strict=True)), settings), np.array(given["x"]))
    expected = np.array(record["found"][framework]["evaluation"])
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_there_and_back_is_the_same_bit_for_bit(way, dtype):
    there, back, names = WAYS[way]
    arrays = dict(zip(names, numbers(dtype), strict=True))
    for momentum in RATES:
        carried = there(arrays, {"momentum": momentum, "epsilon": 1e-4})
        again = back(carried.arrays, carried.settings)
        assert list(again.arrays) == list(names)
        for name, array in arrays.items():
            assert again.arrays[name].dtype == dtype
            assert (again.arrays[name] == array).all()
        assert again.settings["epsilon"] == 1e-4
        # A third has more digits than its complement has room for.
        assert again.settings["momentum"] == pytest.approx(momentum, abs=1e-16)
        assert momentum == 1 / 3 or again.settings["momentum"] == momentum


def test_momentum_is_turned_round_as_it_is_written():
    arrays = dict(zip(KERAS, numbers(), strict=True))
    assert from_keras(arrays, {"momentum": 0.99}).settings["momentum"] == 0.01
    assert from_keras(arrays).settings["momentum"] == 0.01
    state = nn.BatchNorm1d(5).state_dict()
    assert to_keras(state).settings["momentum"] == 0.9
    assert to_flax(state, {"momentum": 1.0}).settings["momentum"] == 0.0


@pytest.mark.parametrize("way", WAYS)
def test_a_missing_gamma_or_beta(way):
    there, back, names = WAYS[way]
    whole = dict(zip(names, numbers(np.float64), strict=True))
    x = np.random.default_rng(1).normal(size=(7, 5))
    for gone, kept in [(names[0], names[1]), (names[1], names[0])]:
        arrays = {name: array for name, array in whole.items() if name != gone}
        carried = there(arrays, {"epsilon": 1e-3})
        assert f"no {gone}" in lost(carried)
        ones = np.ones(5) if gone == names[0] else np.zeros(5)
        full = formula(x, *({**whole, gone: ones}[name] for name in names), 1e-3)
        np.testing.assert_allclose(evaluated(carried, x), full, rtol=1e-14, atol=1e-14)
        assert kept in back(carried.arrays).arrays
    bare = {name: whole[name] for name in names[2:]}
    carried = there(bare)
    assert carried.settings["affine"] is False
    assert not any(what.startswith("no ") for what in lost(carried))
    again = back(carried.arrays)
    assert list(again.arrays) == list(names[2:])
    assert [value for value in again.settings.values() if isinstance(value, bool)] == [False] * 2


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"renorm": True}, "renorm=True"),
        ({"synchronized": True}, "synchronized=True"),
        ({"virtual_batch_size": 8}, "virtual_batch_size=8"),
        ({"trainable": False}, "trainable=False"),
        ({"gamma_regularizer": "l2"}, "gamma_regularizer=l2"),
        ({"dtype": {"config": {"name": "mixed_float16"}}}, "dtype=mixed_float16"),
        ({"of_tomorrow": 3}, "of_tomorrow=3"),
    ],
)
def test_what_keras_settings_ask_for_is_named(settings, what):
    arrays = dict(zip(KERAS, numbers(), strict=True))
    always = {"axis", "running variance", "mask"}
    silent = {
        "name": "bn",
        "trainable": True,
        "dtype": {"config": {"name": "float32"}},
        "axis": -1,
        "scale": True,
        "gamma_initializer": {},
        "beta_regularizer": None,
        "synchronized": False,
        "renorm": False,
        "renorm_clipping": None,
        "renorm_momentum": 0.99,
    }
    assert lost(from_keras(arrays, silent)) == always
    assert lost(from_keras(arrays, {**silent, **settings})) == {*always, what}
    for axis in (1, [1]):  # Keras 2 keeps a list
        assert "axis" not in lost(from_keras(arrays, {"axis": axis}))


def test_what_flax_settings_ask_for_is_named():
    arrays = dict(zip(FLAX, numbers(), strict=True))
    always = {"axis", "running variance", "mask"}
    assert lost(from_flax(arrays)) == {*always, "use_fast_variance=True"}
    exact = {"use_fast_variance": False, "use_running_average": False, "axis_name": None}
    assert lost(from_flax(arrays, exact)) == always
    assert lost(from_flax(arrays, {**exact, "use_running_average": None})) == always
    parallel = lost(from_flax(arrays, {**exact, "axis_name": "batch"}))
    assert parallel == {*always, "axis_name=batch"}


@pytest.mark.parametrize("back", [to_keras, to_flax])
def test_what_torch_has_and_the_others_have_not(back):
    carried = back(nn.BatchNorm1d(5, momentum=None).state_dict(), {"momentum": None})
    assert "momentum=None" in lost(carried)
    assert "momentum" not in carried.settings
    assert {"axis", "running variance"} <= lost(carried)


def test_renorms_own_statistics_are_left():
    arrays = dict(zip(KERAS, numbers(), strict=True))
    more = {name: np.ones(5) for name in ("moving_stddev", "renorm_mean", "renorm_stddev")}
    carried = from_keras({**arrays, **more}, {"renorm": True})
    assert set(carried.arrays) == set(nn.BatchNorm1d(5).state_dict())


def test_names_may_be_paths():
    arrays = {f"net/bn/{name}:0": a for name, a in zip(KERAS, numbers(), strict=True)}
    plain = from_keras(dict(zip(KERAS, numbers(), strict=True)))
    for name, array in from_keras(arrays).arrays.items():
        assert (array == plain.arrays[name]).all()


def test_half_precision_keeps_its_values():
    carried = from_keras(dict(zip(KERAS, numbers(np.float16), strict=True)))
    assert "float16" in lost(carried)
    for name, array in zip(("weight", "bias", "running_mean"), numbers(np.float16), strict=False):
        assert carried.arrays[name].dtype == np.float32
        assert (carried.arrays[name] == array).all()


def caffe(factor, dtype=np.float32):
    scale, bias, mean, var = numbers(dtype)
    factor = dtype(factor)
    blobs = {"mean": mean * factor, "variance": var * factor, "factor": np.array([factor])}
    return {**blobs, "scale": scale, "bias": bias}


def test_caffes_statistics_are_what_caffe_computes_from_its_blobs():
    blobs = caffe(950.3)
    carried = from_caffe({name: blob.reshape(1, -1, 1, 1) for name, blob in blobs.items()})
    inverse = np.float32(1) / blobs["factor"]  # in the blobs' own type, then a product
    assert (carried.arrays["running_mean"] == blobs["mean"] * inverse).all()
    assert (carried.arrays["running_var"] == blobs["variance"] * inverse).all()
    assert carried.settings["momentum"] == 0.001
    assert carried.settings["eps"] == 1e-5
    assert "running variance" not in lost(carried), "Caffe's is unbiased, too"


def test_caffes_factor_in_half_precision_is_divided_by_in_single():
    blobs = {"mean": [[3.0]], "variance": [1.0], "factor": [1000.0]}
    carried = from_caffe({name: np.float16(blob) for name, blob in blobs.items()})
    assert carried.arrays["running_mean"] == np.float32(3) * (1 / np.float32(1000))


def test_a_young_or_untrained_average_of_caffes_is_named():
    assert lost(from_caffe(caffe(999.9))) == set()
    assert lost(from_caffe(caffe(100))) == {"moving average"}
    assert lost(from_caffe(caffe(999.9), {"use_global_stats": True})) == {"use_global_stats=True"}
    carried = from_caffe(caffe(0))
    assert lost(carried) == {"factor", "moving average"}
    assert not carried.arrays["running_mean"].any()
    assert not carried.arrays["running_var"].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_to_caffe_and_back_is_the_same_bit_for_bit(dtype):
    names = ("weight", "bias", "running_mean", "running_var")
    state = dict(zip(names, numbers(dtype), strict=True))
    for momentum in [0.001, 0.01, 0.1, 0.3, 1.0]:
        blobs = to_caffe(state, {"momentum": momentum, "eps": 1e-4})
        assert 2 / 3 < blobs.arrays["factor"][0] * momentum < 3 / 2
        again = from_caffe(blobs.arrays, blobs.settings)
        assert again.settings["momentum"] == momentum
        assert again.settings["eps"] == 1e-4
        for name, array in state.items():
            assert (again.arrays[name] == array).all()
    assert "moving average" in lost(to_caffe(state, {"momentum": 0.1}))
    assert "moving average" not in lost(to_caffe(state, {"momentum": 0.25}))


def test_caffes_cumulative_average():
    state = {**nn.BatchNorm1d(5).state_dict(), "num_batches_tracked": np.array(32)}
    blobs = to_caffe(state, {"momentum": None})
    assert blobs.settings["moving_average_fraction"] == 1
    again = from_caffe(blobs.arrays, blobs.settings)
    assert again.settings["momentum"] is None
    assert again.arrays["num_batches_tracked"] == 32
    resting = to_caffe(state, {"momentum": 0})
    assert resting.settings["use_global_stats"] is True
    assert "moving_average_fraction" not in resting.settings
    assert "momentum=0" in lost(resting)


def mistakes():
    arrays = dict(zip(KERAS, numbers(), strict=True))
    short = {**arrays, "beta": np.zeros(4, np.float32)}
    whole = {**arrays, "beta": np.zeros(5, int)}
    without = {name: arrays[name] for name in KERAS[:3]}
    bare = {name: arrays[name] for name in KERAS[2:]}
    blobs = caffe(1)
    two = {f"a/{name}": array for name, array in arrays.items()} | {"b/beta": arrays["beta"]}
    square = {name: np.ones((2, 2), np.float32) for name in ("mean", "variance")}
    return [
        (lambda: from_keras(without), ValueError, r"arrays: expected .*moving_variance, got"),
        (lambda: from_keras({**arrays, "x": arrays["beta"]}), ValueError, r"got .*, x \(5,\)"),
        (lambda: from_keras(short), ValueError, r"'beta' in gamma \(5,\), beta \(4,\)"),
        (lambda: from_keras(whole), TypeError, "floating-point numbers, got 'beta' of int64"),
        (lambda: from_keras(arrays, {"scale": False}), ValueError, "expected no 'gamma', as"),
        (lambda: from_keras(bare, {"scale": True}), ValueError, "expected 'gamma', as the setting"),
        (lambda: from_keras(arrays, {"momentum": 1.5}), ValueError, "momentum: .* from 0 to 1"),
        (lambda: from_keras(arrays, {"momentum": None}), TypeError, "momentum: expected a number"),
        (lambda: from_keras(arrays, {"epsilon": -1.0}), ValueError, "epsilon: expected a number"),
        (lambda: to_keras(nn.BatchNorm1d(5, track_running_stats=False).state_dict()),
         ValueError, "arrays: expected .*running_mean, running_var, got weight"),
        (lambda: to_keras(nn.BatchNorm1d(5, affine=False).state_dict(), {"affine": True}),
         ValueError, "arrays: expected 'weight', as the settings say, got running_mean"),
        (lambda: to_caffe(nn.BatchNorm1d(5).state_dict(), {"momentum": "0.1"}),
         TypeError, "momentum: expected a number, got '0.1'"),
        (lambda: to_caffe(nn.BatchNorm1d(5).state_dict(), {"momentum": 1.5}),
         ValueError, "momentum: expected a number from 0 to 1, got 1.5"),
        (lambda: from_caffe({**blobs, "factor": np.ones(2)}), ValueError, "'factor', one number"),
        (lambda: from_caffe({**blobs, "factor": [-1.0]}), ValueError, "factor: expected a number"),
        (lambda: from_caffe({**square, "factor": [1.0]}), ValueError, "expected one axis"),
        (lambda: from_keras(two), ValueError, r"those of one layer, got .*, b/beta \(5,\)"),
    ]  # fmt: skip


@pytest.mark.parametrize("case", range(17))
def test_a_mistake_is_named(case):
    call, error, message = mistakes()[case]
    with pytest.raises(error, match=message):
        call()
