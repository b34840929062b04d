"""Work in steps whose whole state can be written down and taken up again, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

Probe = Callable[[nn.Module, dict[str, Tensor]], dict[str, float]]
"""Looks at a model; may keep tensors in the dictionary until the next look."""


class Record(NamedTuple):
    """What a task found.

    Curves are lists of equal length; one of them, "step", says at which steps the others were
    taken. A scalar is None where there is no such number: the step of an accuracy never reached.
    """

    scalars: dict[str, float | None]
    curves: dict[str, list[float]]


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
    examples, batch_size : how many there are, and how many a batch takes
    seed : of all the orders

    Raises
    ------
    ValueError : `batch_size` is not between 1 and `examples`
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


@dataclass
class Training:
    """Gradient descent on a classifier's cross-entropy, looked at from time to time.

    Parameters
    ----------
    model : in training mode between the probes
    x, y : inputs ``(m, ...)`` and classes ``(m,)``, on the model's device
    optimizer : of the model's parameters
    steps, batch_size, seed : how many steps, of how many examples, in which order
    probe : called with the model in evaluation mode, without gradients, before the first step,
        after every `probe_every` steps and after the last; what it returns becomes the curves
    conclude : turns the curves into the record's scalars
    before_step : called with this object before each step, to set a learning rate, for example
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    optimizer: torch.optim.Optimizer
    steps: int
    batch_size: int
    seed: int
    probe: Probe
    probe_every: int
    conclude: Callable[[dict[str, list[float]]], dict[str, float | None]] = lambda _: {}
    before_step: Callable[[Training], None] = lambda _: None
    step: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._batches = Batches(len(self.x), self.batch_size, self.seed)
        self._losses = torch.zeros(self.steps, device=self.x.device)
        self._curves: dict[str, list[float]] = {}
        self._kept: dict[str, Tensor] = {}
        self.model.train()
        self._look()

    def advance(self) -> None:
        """One step of gradient descent, and a look if one is due."""
        self.before_step(self)
        batch = self._batches(self.step).to(self.x.device)
        loss = nn.functional.cross_entropy(self.model(self.x[batch]), self.y[batch])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self._losses[self.step] = loss.detach()
        self.step += 1
        if self.step % self.probe_every == 0 or self.step == self.steps:
            self._look()

    @torch.no_grad()
    def _look(self) -> None:
        self.model.eval()
        found = {"step": float(self.step), **self.probe(self.model, self._kept)}
        self.model.train()
        for name, value in found.items():
            self._curves.setdefault(name, []).append(value)

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": self._losses[: self.step],
            "curves": self._curves,
            "kept": self._kept,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._losses[: self.step] = state["losses"]
        self._curves, self._kept = state["curves"], state["kept"]

    @property
    def losses(self) -> list[float]:
        """The mini-batch losses of the steps done, in nats."""
        return self._losses[: self.step].tolist()

    def status(self) -> str:
        seen = self._curves.get("accuracy")
        accuracy = f", accuracy {seen[-1]:.1%}" if seen else ""
        return f"loss {self._losses[self.step - 1]:.3f}{accuracy}"

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
        self._found: Record | None = None

    def advance(self) -> None:
        self._found = self._find()
        self.step = 1

    def state_dict(self) -> dict[str, Any]:
        return {"found": None if self._found is None else tuple(self._found)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["found"] is not None:
            self._found, self.step = Record(*state["found"]), 1

    def status(self) -> str:
        return ""

    def record(self) -> Record:
        assert self._found is not None
        return self._found
