"""Batches that can be asked for again, and a training whose state can be taken up again."""

import pytest
import torch
from torch import nn

from companion import BatchNorm1d
from companion.data import Split
from companion.experiments.tasks import Batches, Computation, Record, Training


def test_an_epoch_has_every_example_at_most_once():
    batches = Batches(10, 3, seed=0)
    epoch = torch.cat([batches(t) for t in range(3)])
    assert len(set(epoch.tolist())) == 9
    following = torch.cat([batches(t) for t in range(3, 6)])
    assert len(set(following.tolist())) == 9
    assert not torch.equal(epoch, following)


def test_a_batch_is_the_same_whenever_it_is_asked_for():
    batches, others = Batches(10, 3, seed=1), Batches(10, 3, seed=1)
    forwards = [batches(t) for t in range(12)]
    backwards = [others(t) for t in reversed(range(12))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))


def test_orders_differ_between_seeds():
    assert not torch.equal(Batches(100, 100, seed=1)(0), Batches(100, 100, seed=2)(0))


@pytest.mark.parametrize("batch_size", [0, 11])
def test_a_batch_size_out_of_range_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size: expected 1 to 10, got {batch_size}"):
        Batches(10, batch_size, seed=0)


def training(steps=7, look_every=3, momentum=0.9, **options):
    """A small network with batch normalization, dropout and momentum: all kinds of state."""
    torch.manual_seed(0)
    x = torch.randn(40, 5)
    y = (x[:, 0] > 0).long()
    model = nn.Sequential(nn.Linear(5, 8), BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2))

    def look(model, kept):
        assert not model.training
        assert not torch.is_grad_enabled()
        kept["looks"] = kept.get("looks", torch.zeros(())) + 1
        return {"looks": kept["looks"].item()}

    return Training(
        model,
        Split(x, y, x, y),
        0,
        steps=steps,
        batch_size=8,
        learning_rate=0.1,
        momentum=momentum,
        look_every=look_every,
        probe=look,
        **options,
    )


def finish(task):
    while task.step < task.steps:
        task.advance()
    return task


def test_training_looks_at_the_start_at_intervals_and_at_the_end():
    task = finish(training(conclude=lambda curves: {"first": curves["accuracy"][0]}))
    record = task.record()
    assert record.curves["step"] == [0, 3, 6, 7]
    assert record.curves["looks"] == [1, 2, 3, 4]
    assert record.scalars == {"first": record.curves["accuracy"][0]}
    assert len(task.losses) == 7
    assert task.status().startswith("loss ")
    assert task.model.training


def test_training_learns():
    task = finish(training(steps=200))
    assert task.record().curves["accuracy"][-1] > 0.9
    assert task.losses[-1] < task.losses[0]


def test_a_last_step_at_an_interval_is_looked_at_once():
    assert finish(training(steps=6)).record().curves["step"] == [0, 3, 6]


def test_what_is_done_before_a_step_is_done_before_each():
    seen = []
    finish(training(before_step=lambda task: seen.append(task.step)))
    assert seen == list(range(7))


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.01)])
def test_training_computes_what_pytorchs_sgd_does(momentum, weight_decay):
    task = training(momentum=momentum, weight_decay=weight_decay)
    other = training()
    sgd = torch.optim.SGD(
        other.model.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay
    )
    random = torch.get_rng_state()
    finish(task)
    torch.set_rng_state(random)
    batches = Batches(40, 8, seed=0)
    for step in range(7):
        batch = batches(step)
        logits = other.model(other.split.x_train[batch])
        sgd.zero_grad()
        nn.functional.cross_entropy(logits, other.split.y_train[batch]).backward()
        sgd.step()
    for ours, its in zip(task.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(ours, its)


@pytest.mark.parametrize("at", range(8))
def test_a_training_taken_up_again_ends_with_the_same_bits(at, tmp_path):
    whole = finish(training())
    begun = training()
    while begun.step < at:
        begun.advance()
    torch.save((begun.state_dict(), torch.get_rng_state()), tmp_path / "state.pt")
    torch.manual_seed(1)
    state, random = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = training()
    resumed.load_state_dict(state)
    torch.set_rng_state(random)
    finish(resumed)
    assert resumed.record() == whole.record()
    assert resumed.losses == whole.losses
    for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_computation_is_one_step():
    calls = []
    task = Computation(lambda: calls.append(0) or Record({"a": 1.0}, {}))
    again = Computation(lambda: calls.append(0) or Record({"a": 2.0}, {}))
    again.load_state_dict(task.state_dict())
    assert (again.step, again.steps) == (0, 1)
    task.advance()
    again.load_state_dict(task.state_dict())
    assert again.step == 1
    assert again.record() == Record({"a": 1.0}, {})
    assert len(calls) == 1
