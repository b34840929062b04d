"""Work in steps whose whole state can be written down and taken up again, to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from companion.data import Split

Scalars = dict[str, float | None]
Curves = dict[str, list[float]]
Probe = Callable[[nn.Module, dict[str, Tensor]], dict[str, float]]
"""Looks at a model; may keep tensors in the dictionary until the next look."""


class Record(NamedTuple):
    """What a task found.

    Curves are lists of equal length; one of them, "step", says at which steps the others were
    taken. A scalar is None where there is no such number: the step of an accuracy never reached.
    """

    scalars: Scalars
    curves: Curves


class Task(Protocol):
    """One network's training, or any other work in `steps` steps."""

    steps: int
    step: int
    """How many are done."""

    def advance(self) -> None:
        """Do one step."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the steps to come depend on, and everything found: tensors and numbers.

        Random numbers are drawn from PyTorch's default generator, which the runner looks after.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`, of a task that was made alike."""

    def status(self) -> str:
        """What a progress bar says beside the step."""

    def record(self) -> Record:
        """What was found, once all steps are done."""


class Batches:
    """Mini-batch number t of an endless sequence, the same whenever it is asked for.

    Each epoch goes through the examples in an order of its own and leaves out the remainder.

    Parameters
    ----------
    examples, batch_size
        how many there are, and how many a batch takes
    seed
        of all the orders

    Raises
    ------
    ValueError
        `batch_size` is not between 1 and `examples`
    """

    def __init__(self, examples: int, batch_size: int, seed: int) -> None:
        if not 1 <= batch_size <= examples:
            raise ValueError(f"batch_size: expected 1 to {examples}, got {batch_size}")
        self.examples, self.batch_size, self.seed = examples, batch_size, seed
        self._epoch, self._order = -1, torch.empty(0)

    def __call__(self, t: int) -> Tensor:
        """The examples' numbers, ``(batch_size,)``, int64, on the CPU."""
        epoch, batch = divmod(t, self.examples // self.batch_size)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(hash((self.seed, epoch)))
            self._epoch, self._order = epoch, torch.randperm(self.examples, generator=generator)
        return self._order[batch * self.batch_size : (batch + 1) * self.batch_size]


def test_accuracy(model: nn.Module, split: Split) -> float:
    """Fraction of the test set that `model`, in the mode it is in, classifies rightly."""
    return (model(split.x_test).argmax(1) == split.y_test).double().mean().item()


@dataclass
class Training:
    """Gradient descent on a classifier's cross-entropy, looked at from time to time.

    Parameters
    ----------
    model
        trained in training mode; its parameters that require a gradient are
    split
        inputs ``(m, ...)`` and classes ``(m,)`` to train and to test with, on its device
    seed
        of the order of the examples
    steps, batch_size
        how many steps, of how many examples
    learning_rate, momentum, weight_decay
        of PyTorch's SGD
    look_every
        steps from look to look; there is one before the first step and one after the last in any
        case. None: no others
    probe
        called at each look with the model in evaluation mode, without gradients; what it returns
        becomes the curves, beside "step" and "accuracy", the test accuracy
    conclude
        turns the curves into the record's scalars; by default "accuracy", the last one
    before_step
        called with this object before each step
    """

    model: nn.Module
    split: Split
    seed: int
    _: KW_ONLY
    steps: int
    batch_size: int
    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    look_every: int | None = None
    probe: Probe = lambda _model, _kept: {}
    conclude: Callable[[Curves], Scalars] = lambda curves: {"accuracy": curves["accuracy"][-1]}
    before_step: Callable[[Training], None] = lambda _: None
    step: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        x = self.split.x_train
        self._learned: list[Tensor] = [
            value for value in self.model.parameters() if value.requires_grad
        ]
        self._momenta: list[Tensor | None] = [None] * len(self._learned)
        self._batches = Batches(len(x), self.batch_size, self.seed)
        self._losses = torch.zeros(self.steps, device=x.device)
        self._curves: Curves = {}
        self._kept: dict[str, Tensor] = {}
        self.model.train()
        self._look()

    def advance(self) -> None:
        """One step of gradient descent, and a look if one is due."""
        self.before_step(self)
        x, y = self.split.x_train, self.split.y_train
        batch = self._batches(self.step).to(x.device)
        logits = self.model(x.index_select(0, batch))
        loss = nn.functional.cross_entropy(logits, y.index_select(0, batch))
        self._descend(torch.autograd.grad(loss, self._learned))
        self._losses[self.step] = loss.detach()
        self.step += 1
        if self.step == self.steps or (self.look_every and self.step % self.look_every == 0):
            self._look()

    @torch.no_grad()
    def _descend(self, gradients: Sequence[Tensor]) -> None:
        """What a step of ``torch.optim.SGD`` computes, without the cost of its hooks."""
        sgd(
            self._learned,
            list(gradients),
            self._momenta,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            foreach=self.split.x_train.is_cuda,
        )

    @torch.no_grad()
    def _look(self) -> None:
        self.model.eval()
        values = {
            "step": float(self.step),
            "accuracy": test_accuracy(self.model, self.split),
            **self.probe(self.model, self._kept),
        }
        self.model.train()
        for name, value in values.items():
            self._curves.setdefault(name, []).append(value)

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "momenta": self._momenta,
            "losses": self._losses[: self.step],
            "curves": self._curves,
            "kept": self._kept,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self._momenta = state["momenta"]
        self._losses[: self.step] = state["losses"]
        self._curves, self._kept = state["curves"], state["kept"]

    @property
    def losses(self) -> list[float]:
        """The mini-batch losses of the steps done, in nats."""
        return self._losses[: self.step].tolist()

    def status(self) -> str:
        accuracy = self._curves["accuracy"][-1]
        return f"loss {self._losses[self.step - 1]:.3f}, accuracy {accuracy:.1%}"

    def record(self) -> Record:
        return Record(self.conclude(self._curves), self._curves)


class Computation:
    """A task of one step: call `find`, and keep what it returns.

    It is done again, from the start, if the process was killed meanwhile.
    """

    steps = 1

    def __init__(self, find: Callable[[], Record]) -> None:
        self.step = 0
        self._find = find
        self._record: Record | None = None

    def advance(self) -> None:
        self._record = self._find()
        self.step = 1

    def state_dict(self) -> dict[str, Any]:
        return {"found": None if self._record is None else tuple(self._record)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["found"] is not None:
            self._record, self.step = Record(*state["found"]), 1

    def status(self) -> str:
        return ""

    def record(self) -> Record:
        assert self._record is not None
        return self._record
