"""Recurrent layers with batch normalization: a tanh network and an LSTM.

Each term of a step is normalized with the batch's own statistics; γ is shared over the steps, and
the running statistics are one set for each step, or one for all.

Source: Cooijmans et al. (2017), arXiv:1603.09025.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn import init

from .stepwise import RecurrentBatchNorm

__all__ = ["BatchNormLSTM", "BatchNormRNN"]

State: TypeAlias = tuple[Tensor, ...]


class _BatchNormRecurrent(nn.Module):
    """What the two layers share: their arguments, and the walk over the steps."""

    _gates: ClassVar[int]
    _states: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        max_length: int,
        *,
        batch_first: bool = False,
        gamma: float = 0.1,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.batch_first = batch_first
        rows = self._gates * hidden_size
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight_ih = nn.Parameter(torch.empty(rows, input_size, **place))
        self.weight_hh = nn.Parameter(torch.empty(rows, hidden_size, **place))
        self.bias = nn.Parameter(torch.empty(rows, **place))
        options: dict[str, Any] = {"gamma": gamma, "eps": eps, "momentum": momentum, **place}
        self.norm_ih = RecurrentBatchNorm(rows, max_length, bias=False, **options)
        self.norm_hh = RecurrentBatchNorm(rows, max_length, bias=False, **options)
        self._add_parts(max_length, options)
        self.reset_parameters()

    def _add_parts(self, max_length: int, options: dict[str, Any]) -> None:
        """What a layer has beyond the two terms."""

    def reset_parameters(self) -> None:
        """Make the weights orthogonal, gate by gate, and all else what it begins with."""
        with torch.no_grad():
            for weight in (self.weight_ih, self.weight_hh):
                for gate in weight.chunk(self._gates):
                    # PyTorch has no QR decomposition in half precision.
                    wide = gate.to(torch.promote_types(gate.dtype, torch.float32))
                    gate.copy_(init.orthogonal_(wide))
        init.zeros_(self.bias)
        for part in self.children():
            if isinstance(part, RecurrentBatchNorm):
                part.reset_parameters()

    def _step(self, x: Tensor, state: State, step: int) -> State:
        """The state after a step, from W_x·x and the state before; the first is the output."""
        raise NotImplementedError

    def _terms(self, x: Tensor, h: Tensor, step: int) -> Tensor:
        recurrent = self.norm_hh(F.linear(h, self.weight_hh), step)
        return recurrent + self.norm_ih(x, step) + self.bias

    def _walk(
        self, input: Tensor, hx: Sequence[Tensor] | None, lengths: Iterable[int] | Tensor | None
    ) -> tuple[Tensor, State]:
        """Outputs of all steps, and the state after each sequence's last."""
        if not isinstance(input, Tensor):
            raise TypeError(
                f"input: expected a padded tensor, and its lengths, got {type(input).__name__}"
            )
        if input.dim() != 3 or input.shape[2] != self.input_size:
            expected = "(N, L, H_in)" if self.batch_first else "(L, N, H_in)"
            raise ValueError(
                f"input: expected {expected} with H_in = {self.input_size}, "
                f"got {tuple(input.shape)}"
            )
        x = input.transpose(0, 1) if self.batch_first else input
        length, batch = x.shape[:2]
        if length == 0:
            raise ValueError(f"input: expected at least 1 step, got {tuple(input.shape)}")
        state = self._first_state(hx, x)
        valid = _valid(lengths, length, batch)
        terms = F.linear(x, self.weight_ih)
        outputs = []
        for step in range(length):
            if valid is None or bool(valid[step].all()):
                state = self._step(terms[step], state, step)
                outputs.append(state[0])
                continue
            rows = valid[step].nonzero().squeeze(1).to(x.device)
            output = torch.zeros_like(state[0])
            if len(rows):
                new = self._step(terms[step, rows], tuple(part[rows] for part in state), step)
                state = tuple(
                    part.index_copy(0, rows, value.to(part.dtype))
                    for part, value in zip(state, new, strict=True)
                )
                output = output.index_copy(0, rows, new[0].to(output.dtype))
            outputs.append(output)
        return torch.stack(outputs, dim=1 if self.batch_first else 0), state

    def _first_state(self, hx: Sequence[Tensor] | None, x: Tensor) -> State:
        shape = (1, x.shape[1], self.hidden_size)
        if hx is None:
            return tuple(x.new_zeros(shape[1:]) for _ in self._states)
        if len(hx) != len(self._states):
            expected = " and ".join(self._states)
            raise ValueError(f"hx: expected {expected}, of shape {shape} each, got {len(hx)}")
        for name, part in zip(self._states, hx, strict=True):
            if not isinstance(part, Tensor):
                raise TypeError(f"hx: expected a tensor {name}, got {type(part).__name__}")
            if tuple(part.shape) != shape:
                raise ValueError(f"hx: expected {name} of shape {shape}, got {tuple(part.shape)}")
        return tuple(part.squeeze(0) for part in hx)

    def extra_repr(self) -> str:
        """Sizes, and the layout if it is not PyTorch's default."""
        text = f"{self.input_size}, {self.hidden_size}"
        return f"{text}, batch_first=True" if self.batch_first else text


def _valid(lengths: Iterable[int] | Tensor | None, length: int, batch: int) -> Tensor | None:
    """Which sequences have a step, ``(L, N)``, on the CPU; None if all have all."""
    if lengths is None:
        return None
    given = lengths if isinstance(lengths, Tensor) else list(lengths)
    counts = torch.as_tensor(given).cpu() if len(given) else torch.empty(0, dtype=torch.int64)
    if counts.is_floating_point() or counts.is_complex() or counts.dtype == torch.bool:
        raise TypeError(f"lengths: expected integers, got {counts.dtype}")
    if tuple(counts.shape) != (batch,):
        raise ValueError(
            f"lengths: expected one for each of {batch} sequences, got shape {tuple(counts.shape)}"
        )
    least, most = (int(counts.min()), int(counts.max())) if batch else (1, 1)
    if least < 1 or most > length:
        raise ValueError(
            f"lengths: expected numbers from 1 to {length}, the steps of the input, got "
            f"{least} to {most}"
        )
    return torch.arange(length)[:, None] < counts


class BatchNormRNN(_BatchNormRecurrent):
    """A tanh recurrent layer whose two terms are batch-normalized, ``torch.nn.RNN``'s counterpart.

    h_t = tanh(BN(W_h·h_{t-1}) + BN(W_x·x_t) + b): one layer, one direction. Each normalization has
    a γ for every unit and no β, whose place b takes.

    Parameters
    ----------
    input_size, hidden_size
        H_in and H
    max_length
        how many steps have running statistics of their own, see :class:`RecurrentBatchNorm`: such
        that at least two sequences of most batches are that long. 1: one set for all steps
    batch_first
        whether input and output are ``(N, L, ...)`` and not ``(L, N, ...)``
    gamma
        what every γ begins with
    eps
        added to each variance, inside the root
    momentum
        weight of a batch in the running statistics; None averages all batches alike
    device, dtype
        of parameters and statistics; the latter are float32 for half precision

    Raises
    ------
    ValueError
        `max_length` is under 1

    Notes
    -----
    W_h and W_x begin orthogonal, b at 0.

    While all sequences are alike, as at a first step from ``hx=None``, the variance of W_h·h is 0:
    the term is then 0, and multiplies gradients by up to γ/√ε. Where the first *inputs* are the
    same in all sequences, one such step follows another; a little noise as `hx` helps.

    A step below `max_length` that no sequence of training has reached has the statistics 0 and 1,
    and is not normalized in evaluation mode; :func:`companion.diagnose` names it, `never-updated`.

    Synchronized by :func:`convert_sync`, the ranks have to make equally many steps.

    References
    ----------
    Cooijmans et al. (2017), arXiv:1603.09025; Eq. (2) recurrent/normalized-cell.

    Examples
    --------
    >>> layer = BatchNormRNN(4, 16, max_length=8, batch_first=True)
    >>> output, h = layer(torch.randn(32, 8, 4), lengths=[8, 8, *[5] * 30])
    >>> output.shape, h.shape, output[2, 5:].abs().max().item()
    (torch.Size([32, 8, 16]), torch.Size([1, 32, 16]), 0.0)
    """

    _gates = 1
    _states = ("h",)

    def forward(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        lengths: Iterable[int] | Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run over the steps of `input`.

        Parameters
        ----------
        input
            ``(L, N, H_in)``, or ``(N, L, H_in)`` if `batch_first`
        hx
            the first state, ``(1, N, H)``; zeros if None
        lengths
            of the N sequences, in any order, each from 1 to L; all L if None. What stands after a
            sequence's end is not read, and has no part in statistics or gradients

        Returns
        -------
        output : Tensor
            the states of all steps, ``(L, N, H)`` or ``(N, L, H)``; 0 after a sequence's end
        h_n : Tensor
            the state after each sequence's last step, ``(1, N, H)``

        Raises
        ------
        ValueError
            `input`, `hx` or `lengths` of another shape, or a length that is not from 1 to L
        TypeError
            lengths that are not integers; a packed sequence
        """
        output, (h,) = self._walk(input, None if hx is None else (hx,), lengths)
        return output, h.unsqueeze(0)

    def _step(self, x: Tensor, state: State, step: int) -> State:
        return (torch.tanh(self._terms(x, state[0], step)),)


class BatchNormLSTM(_BatchNormRecurrent):
    """The batch-normalized LSTM of Cooijmans et al., ``torch.nn.LSTM``'s counterpart.

    i, f, g, o = BN(W_h·h_{t-1}) + BN(W_x·x_t) + b; c_t = σ(f)·c_{t-1} + σ(i)·tanh(g);
    h_t = σ(o)·tanh(BN(c_t)). The normalization of the cell has a γ and a β, the other two have a γ,
    and b in place of a β. What is carried on is c_t, not its normalization.

    Parameters
    ----------
    input_size, hidden_size, max_length, batch_first, gamma, eps, momentum, device, dtype
        as in :class:`BatchNormRNN`

    Raises
    ------
    ValueError
        `max_length` is under 1

    Notes
    -----
    The gates stand in PyTorch's order, i, f, g, o. W_h and W_x begin orthogonal in each gate, b at
    1 in the forget gate, else at 0. Otherwise the notes on :class:`BatchNormRNN` hold.

    References
    ----------
    Cooijmans et al. (2017), arXiv:1603.09025, Eqs. 6 to 8.

    Examples
    --------
    >>> layer = BatchNormLSTM(4, 16, max_length=8)
    >>> output, (h, c) = layer(torch.randn(8, 32, 4))
    >>> output.shape, h.shape, c.shape
    (torch.Size([8, 32, 16]), torch.Size([1, 32, 16]), torch.Size([1, 32, 16]))
    """

    _gates = 4
    _states = ("h", "c")

    def _add_parts(self, max_length: int, options: dict[str, Any]) -> None:
        self.norm_c = RecurrentBatchNorm(self.hidden_size, max_length, **options)

    def reset_parameters(self) -> None:
        """As :class:`BatchNormRNN`; the forget gate's bias is 1."""
        super().reset_parameters()
        init.ones_(self.bias[self.hidden_size : 2 * self.hidden_size])

    def forward(
        self,
        input: Tensor,
        hx: tuple[Tensor, Tensor] | None = None,
        lengths: Iterable[int] | Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run over the steps of `input`, as :meth:`BatchNormRNN.forward`.

        `hx` and what is returned second are pairs: the states h and c, each ``(1, N, H)``.
        """
        output, (h, c) = self._walk(input, hx, lengths)
        return output, (h.unsqueeze(0), c.unsqueeze(0))

    def _step(self, x: Tensor, state: State, step: int) -> State:
        i, f, g, o = self._terms(x, state[0], step).chunk(4, dim=1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(self.norm_c(c, step)), c
