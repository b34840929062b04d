"""What hooks and changed attributes do holds for models that were compiled before."""

import copy
import math

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

import companion
from companion import variants

BATCHES = torch.randn(5, 8, 3, generator=torch.Generator().manual_seed(1)).unbind()
LAYERS = [nn.BatchNorm1d, companion.BatchNormAct1d]


def accumulated(model, call):
    with companion.accumulated_statistics(model):
        return [call(x) for x in BATCHES]


def preserved(model, call):
    with companion.preserved_statistics(model):
        return [call(x) for x in BATCHES]


def finite(model, call):
    bad = BATCHES[1].clone()
    bad[0, 0] = math.inf
    with companion.finite_statistics(model):
        return [call(x) for x in (BATCHES[0], bad, BATCHES[2])][::2]


def adapted(model, call):
    with torch.no_grad(), variants.adapted_statistics(model, BATCHES[3], source_size=4):
        return [call(BATCHES[3])]


def monte_carlo(_, call):
    generator = torch.Generator().manual_seed(0)
    numbers = {"batch_size": 8, "samples": 3, "generator": generator}
    return [variants.monte_carlo_predict(call, BATCHES[0], torch.cat(BATCHES), **numbers)]


def entropy(_, call):
    with variants.tent(call, learning_rate=0.1) as adapt:
        return [adapt(x) for x in BATCHES]


def precise(_, call):
    companion.update_precise(call, BATCHES, progress=False, passes=2)
    return []


def torch_operators(model, call):
    with companion.inference.torch_operators(model):
        return [call(BATCHES[0])]


USES = [accumulated, preserved, finite, adapted, monte_carlo, entropy, precise, torch_operators]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("layer", LAYERS, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_a_model_compiled_before_does_what_it_does_uncompiled(use, layer):
    torch.compiler.reset()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), layer(4), nn.ReLU(), nn.Linear(4, 2))
    alike = copy.deepcopy(model)
    compiled = torch.compile(model, backend="aot_eager")
    for each in (alike, compiled):
        # In both modes, so that nothing is compiled anew because of those.
        with torch.no_grad():
            each.eval()(BATCHES[0])
        each.train()(BATCHES[0])
    for _ in range(2):
        expected, found = use(alike, alike), use(model, compiled)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.state_dict(), alike.state_dict(), rtol=1e-4, atol=1e-5)


def test_accumulating_compiles_no_more_however_many_batches():
    torch.compiler.reset()
    model = nn.Sequential(companion.BatchNorm1d(3))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    graphs = []
    for batches in (2, 12):
        counters.clear()
        with companion.accumulated_statistics(model):
            for _ in range(batches):
                compiled(BATCHES[0])
        graphs.append(counters["stats"]["unique_graphs"])
    # One for the first batch, one for all others. Before 2.11, PyTorch compiles them for each hook.
    assert graphs == ([2, 2] if torch.__version__ < "2.11" else [2, 0])
    assert model[0].num_batches_tracked.item() == 2


def test_hooks_compile_nothing():
    torch.compiler.reset()
    model = nn.Sequential(nn.BatchNorm1d(3))
    compiled = torch.compile(model, backend="aot_eager")
    counters.clear()
    precise(model, compiled)
    assert not counters["stats"]["unique_graphs"]
    assert model[0].num_batches_tracked.item() == 5


def test_a_model_with_layers_of_its_own_is_refused():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    deaf = nn.Sequential(model)
    exported = torch.export.export(copy.deepcopy(model).eval(), (BATCHES[0],)).module()
    deaf.forward = lambda x: exported(x)
    before = copy.deepcopy(deaf.state_dict())
    message = "model: expected calls of its batch normalization layers, got none"
    with pytest.raises(RuntimeError, match=message):
        monte_carlo(deaf, deaf)
    with pytest.raises(RuntimeError, match=message):
        adapted(deaf, deaf)
    with pytest.raises(RuntimeError, match=r"model: expected calls of 0\.1, got none"):
        precise(deaf, deaf)
    torch.testing.assert_close(deaf.state_dict(), before, rtol=0, atol=0)
