"""Recurrent layers against a float64 reference that is written out step by step."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import companion
from companion import convert, reference
from companion.inference import fold
from companion.statistics import update_precise
from companion.variants import (
    BatchNormLSTM,
    BatchNormRNN,
    FrozenBatchNorm1d,
    RecurrentBatchNorm,
    convert_sync,
    freeze,
    unfreeze,
)

BOTH = pytest.mark.parametrize("cls", [BatchNormRNN, BatchNormLSTM])
LENGTHS = [5, 2, 4, 5, 3, 5]
EPS = 1e-5


def made(cls, max_length=5, **options):
    """A layer whose parameters are all random."""
    torch.manual_seed(0)
    layer = cls(3, 4, max_length, dtype=torch.float64, **options)
    for value in layer.parameters():
        nn.init.normal_(value, std=0.6)
    return layer


def batch(length=5, size=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(length, size, 3, generator=generator, dtype=torch.float64) + 0.5
    h = torch.randn(1, size, 4, generator=generator, dtype=torch.float64)
    return x, h, torch.randn(1, size, 4, generator=generator, dtype=torch.float64)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def unrolled(layer, x, h, c, lengths=None):
    """Outputs, last states and what each norm saw at each step, in NumPy and `reference`."""
    own = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    x, h, c = x.numpy(), h[0].numpy().copy(), c[0].numpy().copy()
    lengths = np.array([len(x)] * x.shape[1] if lengths is None else list(lengths))
    outputs, seen = np.zeros((*x.shape[:2], 4)), []

    def norm(name, values, step):
        seen.append((name, step, values))
        beta = own.get(f"{name}.bias")
        return reference.forward(values, own[f"{name}.weight"], beta, eps=EPS).y

    for step in range(lengths.max()):
        rows = np.flatnonzero(lengths > step)
        a = norm("norm_hh", h[rows] @ own["weight_hh"].T, step)
        a = a + norm("norm_ih", x[step, rows] @ own["weight_ih"].T, step) + own["bias"]
        if isinstance(layer, BatchNormRNN):
            h[rows] = np.tanh(a)
        else:
            i, f, g, o = np.split(a, 4, axis=1)
            c[rows] = sigmoid(f) * c[rows] + sigmoid(i) * np.tanh(g)
            h[rows] = sigmoid(o) * np.tanh(norm("norm_c", c[rows], step))
        outputs[step, rows] = h[rows]
    return outputs, h, c, seen


def run(layer, x, h, c, lengths=None):
    given = h if isinstance(layer, BatchNormRNN) else (h, c)
    output, last = layer(x, given, lengths)
    return output, *(last if isinstance(last, tuple) else (last, c))


@BOTH
@pytest.mark.parametrize("lengths", [None, LENGTHS, torch.tensor([2, 2, 2, 1, 1, 2])])
def test_it_is_the_recurrence_written_out(cls, lengths):
    layer, (x, h, c) = made(cls), batch()
    output, *last = run(layer, x, h, c, lengths)
    expected, *states, seen = unrolled(layer, x, h, c, lengths)
    assert np.allclose(output.detach(), expected, rtol=0, atol=1e-12)
    for value, state in zip(last, states, strict=False):
        assert value.shape == (1, 6, 4)
        if cls is BatchNormLSTM or value is last[0]:
            assert np.allclose(value[0].detach(), state, rtol=0, atol=1e-12)
    for name, step, values in seen:
        statistics = getattr(layer, name).steps[step]
        mean, var = values.mean(0), values.var(0, ddof=1)
        assert np.allclose(statistics.running_mean, 0.1 * mean, rtol=0, atol=1e-12)
        assert np.allclose(statistics.running_var, 0.9 + 0.1 * var, rtol=0, atol=1e-12)


@BOTH
def test_shared_statistics_move_at_every_step(cls):
    layer, (x, h, c) = made(cls, max_length=1, momentum=None), batch()
    run(layer, x, h, c)
    *_, seen = unrolled(layer, x, h, c)
    means = [values.mean(0) for name, _, values in seen if name == "norm_hh"]
    (statistics,) = layer.norm_hh.steps
    assert statistics.num_batches_tracked == 5
    assert np.allclose(statistics.running_mean, np.mean(means, axis=0), rtol=0, atol=1e-12)


@BOTH
def test_steps_beyond_the_last_use_and_move_its_statistics(cls):
    layer, (x, h, c) = made(cls, max_length=3), batch()
    run(layer, x, h, c)
    counts = [int(step.num_batches_tracked) for step in layer.norm_ih.steps]
    assert counts == [1, 1, 3]
    longer = made(cls, max_length=5)
    longer.load_state_dict(layer.state_dict(), strict=False)
    for name in ("norm_ih", "norm_hh", *(["norm_c"] if cls is BatchNormLSTM else [])):
        for step in (3, 4):
            own = getattr(layer, name).steps[2].state_dict()
            getattr(longer, name).steps[step].load_state_dict(own)
    outputs = [run(each.eval(), x, h, c)[0] for each in (layer, longer)]
    assert torch.equal(*outputs)


@BOTH
def test_values_after_the_end_are_not_read(cls):
    layer, (x, h, c) = made(cls), batch()
    spoiled = x.clone()
    for row, length in enumerate(LENGTHS):
        spoiled[length:, row] = torch.nan
    results = []
    for values in (x, spoiled):
        fresh = copy.deepcopy(layer)
        values = values.clone().requires_grad_()
        output, h_n, _ = run(fresh, values, h, c, LENGTHS)
        (output.sum() + h_n.square().sum()).backward()
        results.append((output, h_n, values.grad, fresh.weight_hh.grad))
        assert output[2:, 1].abs().max() == 0
        assert torch.equal(output[1, 1], h_n[0, 1])
        assert values.grad[2:, 1].abs().max() == 0
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@BOTH
def test_the_last_sequence_alone_is_normalized_by_running_statistics(cls):
    layer, (x, h, c) = made(cls), batch()
    lengths = [5, 3, 3, 3, 3, 3]
    output, *_ = run(layer, x, h, c, lengths)
    before = [step.num_batches_tracked.item() for step in layer.norm_hh.steps]
    assert before == [1, 1, 1, 0, 0]
    assert torch.isfinite(output).all()
    alone = layer.eval().norm_ih(x[3, :1] @ layer.weight_ih.T, 3)
    assert torch.equal(alone, layer.train().norm_ih(x[3, :1] @ layer.weight_ih.T, 3))


@BOTH
def test_batch_first_turns_input_and_output(cls):
    x, h, c = batch()
    output, *_ = run(made(cls), x, h, c, LENGTHS)
    turned, *_ = run(made(cls, batch_first=True), x.transpose(0, 1), h, c, LENGTHS)
    assert torch.equal(turned, output.transpose(0, 1))


@pytest.mark.parametrize(("cls", "torch_cls"), [(BatchNormRNN, nn.RNN), (BatchNormLSTM, nn.LSTM)])
def test_with_statistics_that_do_nothing_it_is_the_layer_of_torch(cls, torch_cls):
    layer, (x, h, c) = made(cls, gamma=1.0).eval(), batch()
    for part in layer.children():
        part.reset_parameters()
        for step in part.steps:
            step.running_var.fill_(1 - EPS)
    theirs = torch_cls(3, 4, dtype=torch.float64)
    state = {"bias_hh_l0": torch.zeros_like(layer.bias), "bias_ih_l0": layer.bias}
    state |= {f"{name}_l0": getattr(layer, name) for name in ("weight_ih", "weight_hh")}
    theirs.load_state_dict(state)
    output, *_ = run(layer, x, h, c)
    expected, _ = theirs(x, h if torch_cls is nn.RNN else (h, c))
    assert torch.allclose(output, expected, rtol=0, atol=1e-12)


@BOTH
@pytest.mark.parametrize("training", [True, False])
def test_gradients(cls, training):
    layer, (x, h, c) = made(cls).train(training), batch(length=3, size=4)
    names = [name for name, _ in layer.named_parameters()]

    def output(x, h, c, *values):
        given = h if cls is BatchNormRNN else (h, c)
        call = (x, given, [3, 2, 3, 3])
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), call)[0]

    inputs = [value.clone().requires_grad_() for value in (x, h, c)]
    parameters = [value.detach().clone().requires_grad_() for value in layer.parameters()]
    # A momentum of 0: `gradcheck` calls again and again.
    for part in layer.children():
        for step in part.steps:
            step.momentum = 0.0
    assert torch.autograd.gradcheck(output, (*inputs, *parameters))


@BOTH
def test_the_first_state_is_zero(cls):
    x, h, c = batch()
    output, _ = made(cls)(x)
    expected, *_ = run(made(cls), x, 0 * h, 0 * c)
    assert torch.equal(output, expected)


@BOTH
def test_a_batch_without_sequences(cls):
    output, _ = cls(3, 4, 5)(torch.zeros(5, 0, 3), lengths=[])
    assert output.shape == (5, 0, 4)


@BOTH
def test_weights_begin_orthogonal_gate_by_gate(cls):
    layer = cls(3, 4, 2)
    for gate in layer.weight_hh.detach().split(4):
        assert torch.allclose(gate @ gate.T, torch.eye(4), atol=1e-6)
    forget = torch.zeros(16)
    forget[4:8] = 1
    assert torch.equal(layer.bias.detach(), forget if cls is BatchNormLSTM else torch.zeros(4))
    for part in layer.children():
        assert part.weight.unique().tolist() == pytest.approx([0.1])


@BOTH
def test_precise_statistics_are_those_of_each_step(cls):
    layer, (x, h, c) = made(cls), batch()
    parts = [(x[:, :4], h[:, :4], c[:, :4], [5, 3, 5, 4]), (x[:, 4:], h[:, 4:], c[:, 4:], [2, 5])]
    with pytest.raises(ValueError, match=r"at least 2 values per channel in 'norm_ih\.steps\.2'"):
        update_precise(
            layer, parts[1:], forward=lambda model, item: run(model, *item), progress=False
        )
    update_precise(layer, parts[:1], forward=lambda model, item: run(model, *item), progress=False)
    *_, seen = unrolled(layer, *parts[0])
    for name, step, values in seen:
        statistics = getattr(layer, name).steps[step]
        assert np.allclose(statistics.running_mean, values.mean(0), rtol=0, atol=1e-9)
        assert np.allclose(statistics.running_var, values.var(0, ddof=1), rtol=0, atol=1e-9)


@BOTH
def test_freezing_fixes_the_statistics_and_no_more(cls):
    layer, (x, h, c) = made(cls), batch()
    run(layer, x, h, c)
    expected = run(layer.eval(), x, h, c)[0]
    state = copy.deepcopy(layer.state_dict())
    frozen = freeze(layer.train())
    assert isinstance(frozen.norm_hh.steps[0], FrozenBatchNorm1d)
    assert torch.allclose(run(frozen, x, h, c)[0], expected, rtol=0, atol=1e-12)
    assert all(torch.equal(value, state[key]) for key, value in frozen.state_dict().items())
    assert torch.allclose(run(unfreeze(frozen).eval(), x, h, c)[0], expected, rtol=0, atol=1e-12)


@BOTH
def test_tools_for_whole_models_leave_it_right(cls):
    layer, (x, h, c) = made(cls), batch()
    run(layer, x, h, c)
    expected = run(layer.eval(), x, h, c)[0]
    for tool in (
        lambda model: convert(model, to="torch"),
        lambda model: convert(convert(model, to="torch")),
        convert_sync,
        lambda model: fold(model, x)[0],
    ):
        changed = tool(copy.deepcopy(layer)).eval()
        assert torch.allclose(run(changed, x, h, c)[0], expected, rtol=0, atol=1e-12)
    theirs = convert(copy.deepcopy(layer), to="torch")
    assert type(theirs.norm_hh.steps[0]) is nn.BatchNorm1d
    alone = run(theirs.train(), x, h, c, [5, 3, 3, 3, 3, 3])[0]
    assert torch.allclose(alone, run(layer.train(), x, h, c, [5, 3, 3, 3, 3, 3])[0], atol=1e-12)


@BOTH
def test_a_state_dictionary_holds_all(cls):
    layer, (x, h, c) = made(cls), batch()
    run(layer, x, h, c)
    other = cls(3, 4, 5, dtype=torch.float64)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(run(other.eval(), x, h, c)[0], run(layer.eval(), x, h, c)[0])


def test_the_norm_alone_is_batch_norm_with_a_gamma_for_all_steps():
    norm = RecurrentBatchNorm(3, 2, gamma=0.5, dtype=torch.float64)
    nn.init.ones_(norm.bias)
    theirs = [companion.BatchNorm1d(3, dtype=torch.float64) for _ in range(2)]
    for step, x in enumerate(batch()[0]):
        expected = 0.5 * theirs[min(step, 1)](x) + 1
        assert torch.allclose(norm(x, step), expected, rtol=0, atol=1e-12)


@BOTH
def test_half_precision_and_autocast(cls):
    layer = cls(3, 4, 5).bfloat16()
    made_half = cls(3, 4, 5, dtype=torch.bfloat16)
    assert made_half.weight_hh.dtype == torch.bfloat16
    gate = made_half.weight_hh.detach()[:4].float()
    assert torch.allclose(gate @ gate.T, torch.eye(4), atol=0.02)
    assert layer.norm_hh.steps[0].running_mean.dtype == torch.float32
    x = batch()[0].bfloat16()
    assert layer(x, lengths=LENGTHS)[0].dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = cls(3, 4, 5)(x.float(), lengths=LENGTHS)
    assert torch.isfinite(output).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda layer: layer(torch.zeros(5, 6)), ValueError, r"input: expected \(L, N, H_in\)"),
        (lambda layer: layer(torch.zeros(5, 6, 2)), ValueError, r"H_in = 3, got \(5, 6, 2\)"),
        (lambda layer: layer(torch.zeros(0, 6, 3)), ValueError, "at least 1 step"),
        (
            lambda layer: layer(torch.zeros(5, 6, 3), lengths=[5] * 5),
            ValueError,
            "lengths: expected one for each of 6 sequences",
        ),
        (
            lambda layer: layer(torch.zeros(5, 6, 3), lengths=[5, 5, 5, 5, 5, 6]),
            ValueError,
            "lengths: expected numbers from 1 to 5, the steps of the input, got 5 to 6",
        ),
        (
            lambda layer: layer(torch.zeros(5, 6, 3), lengths=[0, 5, 5, 5, 5, 5]),
            ValueError,
            "got 0 to 5",
        ),
        (
            lambda layer: layer(torch.zeros(5, 6, 3), lengths=torch.ones(6, dtype=torch.bool)),
            TypeError,
            r"lengths: expected integers, got torch\.bool",
        ),
        (
            lambda layer: layer(torch.zeros(5, 6, 3), lengths=[]),
            ValueError,
            r"lengths: expected one for each of 6 sequences, got shape \(0,\)",
        ),
        (
            lambda layer: layer(pack_padded_sequence(torch.zeros(5, 6, 3), [5] * 6)),
            TypeError,
            "input: expected a padded tensor, and its lengths, got PackedSequence",
        ),
    ],
)
@BOTH
def test_errors(cls, call, error, message):
    with pytest.raises(error, match=message):
        call(cls(3, 4, 2))


def test_errors_of_states_and_lengths():
    x = torch.zeros(5, 6, 3)
    with pytest.raises(ValueError, match=r"hx: expected h of shape \(1, 6, 4\), got \(6, 4\)"):
        BatchNormRNN(3, 4, 2)(x, torch.zeros(6, 4))
    with pytest.raises(ValueError, match=r"hx: expected c of shape \(1, 6, 4\), got \(1, 6, 5\)"):
        BatchNormLSTM(3, 4, 2)(x, (torch.zeros(1, 6, 4), torch.zeros(1, 6, 5)))
    with pytest.raises(ValueError, match="hx: expected h and c, of shape"):
        BatchNormLSTM(3, 4, 2)(x, torch.zeros(1, 6, 4))
    with pytest.raises(TypeError, match="hx: expected a tensor h, got tuple"):
        BatchNormRNN(3, 4, 2)(x, (torch.zeros(1, 6, 4), torch.zeros(1, 6, 4)))
    with pytest.raises(ValueError, match="max_length: expected at least 1 step, got 0"):
        BatchNormRNN(3, 4, 0)
