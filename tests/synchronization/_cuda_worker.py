"""What each process does on a GPU: two ranks, over NCCL where each has a GPU of its own."""

from __future__ import annotations

from datetime import timedelta

import torch
import torch.distributed as dist

import companion

C = 5


def main() -> None:
    gpus = torch.cuda.device_count()
    own = gpus >= 2
    # Two NCCL ranks on one GPU are refused; gloo takes CUDA tensors by way of the host.
    dist.init_process_group("nccl" if own else "gloo", timeout=timedelta(seconds=60))
    rank = dist.get_rank()
    device = torch.device("cuda", rank % gpus)
    torch.cuda.set_device(device)
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(44, C, 6, 6, generator=generator).to(device)
    grad_y = torch.randn(44, C, 6, 6, generator=generator).to(device)
    part = whole.split([4, 40])[rank].clone().requires_grad_()
    grad_part = grad_y.split([4, 40])[rank]
    whole.requires_grad_()
    local = companion.BatchNorm2d(C, momentum=1.0).to(device)
    synced = companion.SyncBatchNorm(C, momentum=1.0).to(device)
    expected = local(whole)
    expected.backward(grad_y)
    y = synced(part)
    y.backward(grad_part)
    torch.testing.assert_close(y, expected.split([4, 40])[rank], rtol=0.0, atol=1e-5)
    torch.testing.assert_close(part.grad, whole.grad.split([4, 40])[rank], rtol=0.0, atol=1e-5)
    torch.testing.assert_close(synced.running_var, local.running_var, rtol=1e-6, atol=0.0)
    if own:
        without_waiting(synced, part, grad_part)
        in_a_graph(synced, part)
    dist.destroy_process_group()


def without_waiting(layer, x, grad_y):
    """Nothing in a call reads a value of the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        layer(x).backward(grad_y)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def in_a_graph(layer, x):
    """A CUDA graph holds the call, and replays it."""
    x = x.detach()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        for _ in range(3):
            layer(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        y = layer(x)
    x.mul_(2.0).add_(1.0)
    graph.replay()
    torch.testing.assert_close(y, layer(x))


if __name__ == "__main__":
    main()
