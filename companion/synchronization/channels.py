"""Channels: what processes send each other messages through, and what is said when it fails.

A channel belongs to a process group. With gloo it does not use the group's own connections:

- There, a message meets whatever the other process sends next, be it a gradient of
  ``DistributedDataParallel``, whose order depends on which parameters a process used.
- A message longer than the receiver expects ends the receiver (``std::terminate``), without a
  Python exception. So every length has connections of its own, and different lengths never meet:
  a process that waits for the wrong one waits until the timeout, and says so.

Other backends use the group as it is: a second NCCL communicator costs memory on the GPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, distributed

from companion import _torch

from .messages import tag_of, tags

FORWARD, BACKWARD, AGREEMENT = "forward statistics", "backward sums", "agreement at the first call"
_REMEMBERED = 4
_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Call(NamedTuple):
    """A layer's call, in the words of an error."""

    layer: str
    """The layer's name in its model, or what it is; the same on all ranks."""
    key: str
    """Which layer it is, within this process."""
    check: bool
    """Whether to compare the settings of all ranks at the layer's first call."""


class Settings(NamedTuple):
    """What has to be the same on all ranks."""

    channels: int
    dtype: torch.dtype
    eps: float
    momentum: float | None


def ranks_in(group: Any) -> int:
    """The size of a process group, None being all processes; 1 where nothing is distributed."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size(group)


def name_of(group: Any) -> str:
    """The name of a process group, which a compiled graph can hold; "" of None, all processes.

    Raises
    ------
    TypeError
        it is no process group
    ValueError
        this process does not belong to it
    """
    if group is None:
        return ""
    if group is distributed.GroupMember.NON_GROUP_MEMBER:
        raise ValueError("process_group: expected a group that this process belongs to")
    if not isinstance(group, distributed.ProcessGroup):
        came = type(group).__name__
        raise TypeError(f"process_group: expected a process group or None, got {came}")
    return group.group_name


def _resolve(name: str) -> Any:
    if not name:
        return distributed.group.WORLD
    return _torch.group_by_name(name)


_channels: WeakKeyDictionary[Any, Channel] = WeakKeyDictionary()


def channel(name: str, device: torch.device) -> Channel:
    """The channel of the group of that name, opened where it is not open yet."""
    group = _resolve(name)
    opened = _channels.get(group)
    if opened is None:
        opened = _channels[group] = Channel(group, device)
    return opened


class Channel:
    """What one process has to talk to the others of a group.

    Parameters
    ----------
    group
        a process group that this process belongs to
    device
        of the tensors
    """

    def __init__(self, group: Any, device: torch.device) -> None:
        self.rank, self.size = distributed.get_rank(group), distributed.get_world_size(group)
        # A reference to the group itself would keep it alive for ever.
        self._group = "" if group is distributed.group.WORLD else group.group_name
        self._own = _torch.gloo_store(group, device)
        self._by_length: dict[int, Any] = {}
        self._agreed: set[str] = set()
        self._layers: dict[str, None] = {}
        self._history = 0
        self._recent: list[str] = []

    def next_tag(self, call: Call) -> int:
        """What to send with the next forward message of this layer."""
        self._layers.setdefault(call.layer)
        return tag_of(self._history, f"{FORWARD} {call.layer}")

    def agree(self, call: Call, settings: Settings, device: torch.device) -> None:
        """At a layer's first call, compare its settings between all ranks.

        Raises
        ------
        RuntimeError
            they differ, or the ranks are in the calls of different layers
        """
        if not call.check or call.key in self._agreed:
            return
        momentum = -1.0 if settings.momentum is None else settings.momentum
        kind = float(_TYPES.index(settings.dtype))
        tag = float(self.next_tag(call))
        values = [tag, float(settings.channels), kind, settings.eps, momentum]
        mine = torch.tensor(values, dtype=torch.float64, device=device)
        received = self._gather(mine, call, AGREEMENT).tolist()
        self._compare([row[0] for row in received], call, AGREEMENT)
        names = ("channels", "types of activation", "values of eps", "values of momentum")
        for index, name in enumerate(names, start=1):
            values_of_ranks = [row[index] for row in received]
            if len(set(values_of_ranks)) > 1:
                texts = [_shown(name, value) for value in values_of_ranks]
                listed = ", ".join(f"{value} on rank {rank}" for rank, value in enumerate(texts))
                raise RuntimeError(
                    f"{self._where(call, AGREEMENT)}: expected the same {name} on all ranks, "
                    f"got {listed}"
                )
        self._agreed.add(call.key)

    def gather(self, message: Tensor, call: Call) -> Tensor:
        """The messages of all ranks, ``(p, n)``, in the order of the ranks.

        Raises
        ------
        RuntimeError
            a rank is gone, or in another call
        """
        received = self._gather(message, call, FORWARD)
        if received.is_cpu:
            self._compare(tags(received).tolist(), call, FORWARD)
        self._note(f"{FORWARD} {call.layer}")
        return received

    def add(self, sums: Tensor, call: Call) -> Tensor:
        """Add up `sums`, in place, over all ranks.

        Raises
        ------
        RuntimeError
            a rank is gone
        """
        with self._explained(call, BACKWARD):
            if self._own is None:
                distributed.all_reduce(sums, group=_resolve(self._group))
            else:
                # By the same operations in the same order on all ranks.
                self._through(sums.numel()).allreduce([sums]).wait()
        self._note(f"{BACKWARD} {call.layer}")
        return sums

    def _gather(self, message: Tensor, call: Call, operation: str) -> Tensor:
        received = message.new_empty((self.size, message.numel()))
        with self._explained(call, operation):
            if self._own is None:
                flat, group = received.view(-1), _resolve(self._group)
                distributed.all_gather_into_tensor(flat, message, group=group)
            else:
                through = self._through(message.numel())
                through.allgather([list(received.unbind())], [message]).wait()
        return received

    def _through(self, length: int) -> Any:
        """Connections for messages of that length."""
        assert self._own is not None
        group = self._by_length.get(length)
        if group is None:
            store, timeout = self._own
            prefix = f"companion/{length}"
            group = _torch.gloo_group(store, prefix, self.rank, self.size, timeout)
            self._by_length[length] = group
        return group

    def _note(self, call: str) -> None:
        self._history = tag_of(self._history, call)
        self._recent = [*self._recent[1 - _REMEMBERED :], call]

    def _where(self, call: Call, operation: str) -> str:
        return f"{call.layer}: {operation}, rank {self.rank} of {self.size}"

    def _compare(self, received: list[float], call: Call, operation: str) -> None:
        """Raise if the ranks are not all in the same call."""
        others = [rank for rank, tag in enumerate(received) if tag != received[self.rank]]
        if not others:
            return
        layers = {tag_of(self._history, f"{FORWARD} {layer}"): layer for layer in self._layers}
        guesses = {rank: layers.get(int(received[rank])) for rank in others}
        positions = [
            f"rank {rank} is in another call"
            if layer is None
            else f"rank {rank} is in a call of {layer}"
            for rank, layer in guesses.items()
        ]
        recent = ", ".join(self._recent) or "none"
        raise RuntimeError(
            f"{self._where(call, operation)}: expected all ranks in the same call, but "
            f"{', '.join(positions)}; a rank has skipped a call, or made one more, here or before. "
            f"Latest calls of this rank: {recent}"
        )

    @contextmanager
    def _explained(self, call: Call, operation: str) -> Iterator[None]:
        """Say, when a message fails, which it was."""
        started = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            seconds = time.monotonic() - started
            text = str(error)
            if "imed out" in text or "imeout" in text:
                reason = (
                    "a rank did not come within the group's timeout: it skipped this call, is "
                    "busy elsewhere, or hangs"
                )
            elif "onnection" in text or "peer" in text:
                reason = "a rank has died, or has raised an error and left"
            else:
                reason = "the message failed"
            raise RuntimeError(
                f"{self._where(call, operation)}: {reason} (after {seconds:.1f} s). "
                f"The backend's message: {text}"
            ) from error


def _shown(name: str, value: float) -> str:
    """A setting as it was before it became a number."""
    if name == "types of activation":
        return str(_TYPES[int(value)]).removeprefix("torch.")
    if name == "values of momentum" and value < 0.0:
        return "None"
    return f"{value:g}"
