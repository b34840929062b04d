"""Shared by the tests of kernels: the CPU kernels with one thread and with two."""

import pytest
import torch


@pytest.fixture(params=[1, 2])
def threads(request, monkeypatch):
    """One thread and two; the second also for small tensors, as if these were large."""
    cpu = pytest.importorskip("companion.kernels.cpu", reason="Numba is not installed")
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    if request.param > 1:
        monkeypatch.setattr(cpu.plans, "_VALUES_PER_THREAD", 1)
        monkeypatch.setattr(cpu.plans, "_VALUES_PER_THREAD_ONCE", 1)
        monkeypatch.setattr(cpu.plans, "_FEW_VALUES", 0)
    cpu.Pass.over.cache_clear()
    yield request.param
    torch.set_num_threads(before)
    cpu.Pass.over.cache_clear()
