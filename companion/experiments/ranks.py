"""One batch on several processes: what each of them does, and how they are started.

A process is called a rank. Three are started, and told where their task is, by ``torchrun
--standalone --nproc-per-node=3 -m companion.experiments.ranks FOLDER``. Each leaves there what it
computed. :func:`run` does all of it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from companion import BatchNorm1d, SyncBatchNorm, convert_sync

PATIENCE = timedelta(seconds=60)  # of a rank that waits for the others
_LOOPBACK = ("lo", "lo0")  # its name on Linux and on macOS


def own_rows(rows: Sequence[int], rank: int) -> slice:
    """Where the rows of `rank` lie in a batch that has the ranks' rows one after the other."""
    first = sum(rows[:rank])
    return slice(first, first + rows[rank])


def normalize(
    x: Tensor,
    grad_y: Tensor,
    rows: Sequence[int],
    group: dist.ProcessGroup | None = None,
) -> dict[str, Tensor | None]:
    """Forward and backward pass of one layer, on the rows of this rank.

    `rows` says how many rows of the batch, and of ∂L/∂y, each rank of the
    group has.
    """
    mine = own_rows(rows, dist.get_rank(group))
    layer = SyncBatchNorm(x.shape[1], process_group=group, dtype=x.dtype)
    share = x[mine].requires_grad_()
    y = layer(share)
    y.backward(grad_y[mine])
    return {
        "y": y.detach(),
        "grad_x": share.grad,
        "grad_gamma": layer.weight.grad,
        "grad_beta": layer.bias.grad,
        "running_mean": layer.running_mean,
        "running_var": layer.running_var,
    }


def network(features: int, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """A small network with batch normalization; the same weights at each call."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        nn.Linear(features, 8, dtype=dtype),
        BatchNorm1d(8, dtype=dtype),
        nn.ReLU(),
        nn.Linear(8, 3, dtype=dtype),
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=dtype, generator=generator))
    return net


def losses(net: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Squared error of each row, ``(m,)``."""
    return cast(Tensor, (net(x) - target).square().sum(dim=1))


def train_step(
    x: Tensor,
    target: Tensor,
    rows: Sequence[int],
) -> dict[str, Tensor | None]:
    """Gradients of a network's mean loss over all rows, on one of the ranks.

    Source: Eq. (5) many-devices/ddp-loss.
    """
    mine, p = own_rows(rows, dist.get_rank()), dist.get_world_size()
    synchronized = convert_sync(network(x.shape[1], x.dtype))
    net = DistributedDataParallel(synchronized)
    loss = p / len(x) * losses(net, x[mine], target[mine]).sum()
    loss.backward()
    weights = net.module.named_parameters()
    return {name: weight.grad for name, weight in weights}


def work(folder: Path) -> None:
    """What a rank does: read the task, compute, and leave the results."""
    dist.init_process_group("gloo", timeout=PATIENCE)
    rank = dist.get_rank()
    task = torch.load(folder / "task.pt", weights_only=True)
    results = []
    for rows in task["splits"]:
        group = dist.new_group(list(range(len(rows))))
        if rank < len(rows):
            results.append(normalize(task["x"], task["grad_y"], rows, group))
    steps = [train_step(task["x"], task["target"], rows) for rows in task["steps"]]
    torch.save({"splits": results, "steps": steps}, folder / f"rank-{rank}.pt")
    dist.destroy_process_group()


def run(
    task: Mapping[str, Any], processes: int = 3, timeout: float = 100.0
) -> list[dict[str, list[dict[str, Tensor]]]]:
    """Start the ranks, and collect what they computed.

    Parameters
    ----------
    task
        "x" and "grad_y" ``(m, C)``, "target" ``(m, 3)``; "splits", how many rows each rank
        normalizes, a list for each experiment, of all ranks or the first few; "steps", the same for
        :func:`train_step`, of all ranks
    processes
        number of ranks
    timeout
        in seconds, after which they are ended

    Returns
    -------
    list[dict[str, list[dict[str, Tensor]]]]
        for each rank its results of "splits", of those it takes part in, and of "steps"

    Raises
    ------
    RuntimeError
        a rank failed, with the end of what it wrote; or PyTorch without ``distributed``
    TimeoutError
        the ranks were not done in time
    """
    if not dist.is_available():
        raise RuntimeError("this build of PyTorch has no torch.distributed")
    with tempfile.TemporaryDirectory() as folder:
        torch.save(dict(task), Path(folder) / "task.pt")
        _torchrun(["-m", "companion.experiments.ranks", folder], processes, timeout)
        paths = [Path(folder) / f"rank-{rank}.pt" for rank in range(processes)]
        return [torch.load(path, weights_only=True) for path in paths]


def _torchrun(program: Sequence[str], processes: int, timeout: float) -> None:
    """Run `program` on several ranks of this machine, over its loopback interface."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--local-addr=127.0.0.1", f"--nproc-per-node={processes}", *program]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    loopback = [name for _, name in socket.if_nameindex() if name in _LOOPBACK]
    if loopback:
        environment.setdefault("GLOO_SOCKET_IFNAME", loopback[0])
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as started:
        try:
            output, _ = started.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            # torchrun ends its ranks when it is asked to end; killed, it would leave them behind.
            started.terminate()
            try:
                started.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                started.kill()
            raise TimeoutError(
                f"timeout: {processes} ranks were not done in {timeout:g} s"
            ) from None
    if started.returncode:
        last = "\n".join(output.strip().splitlines()[-30:])
        raise RuntimeError(f"torchrun ended with status {started.returncode}:\n{last}")


if __name__ == "__main__":
    work(Path(sys.argv[1]))
