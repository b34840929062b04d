"""ONNX files of models in evaluation mode, frozen, and folded, run by ONNX Runtime."""

import copy
import subprocess
import sys
from collections import Counter

import onnxruntime
import pytest
import torch
from _frozen import norms, settle, settled, values
from torch import nn

import companion
from companion.inference import fold, torch_operators

# PyTorch's exporter, about its own parts.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class Network(nn.Module):
    """A convolution and a normalization, one behind a ReLU, and a residual."""

    def __init__(self, library):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), library.BatchNorm2d(4)
        self.bn2, self.conv2 = library.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.linear, self.bn3 = nn.Linear(4, 5), library.BatchNorm1d(5)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = y + self.conv2(self.bn2(y))
        return self.bn3(self.linear(y.mean((2, 3))))


class FusedNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), companion.BatchNormAct2d(4)
        self.bn2, self.conv2 = companion.BatchNormAct2d(4), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        y = self.bn1(self.conv1(x))
        return self.conv2(self.bn2(y.abs() - 1, residual=y))


def example(batch=2):
    torch.manual_seed(batch)
    return torch.randn(batch, 3, 6, 6)


def export(model):
    """The program, and its operators."""
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(model, (example(),), dynamo=True, dynamic_shapes=shapes)
    return program, Counter(node.op_type for node in program.model.graph)


def worst_error(program, model):
    """Largest difference from the model over batches of other sizes, over the largest value."""
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (given,) = session.get_inputs()
    assert isinstance(given.shape[0], str), "the batch size is fixed"
    errors = []
    for batch in (1, 2, 7):
        x = example(batch)
        (output,) = session.run(None, {given.name: x.numpy()})
        with torch.no_grad():
            expected = values(copy.deepcopy(model)(x))
        errors.append(abs(output - expected).max() / abs(expected).max())
    return max(errors)


NETWORKS = [lambda: Network(companion), lambda: Network(nn), FusedNetwork]


@pytest.mark.parametrize("make", NETWORKS)
def test_evaluation_mode(make):
    model = settle(make())
    program, _ = export(model)
    assert worst_error(program, model) < 1e-5


@pytest.mark.parametrize("make", NETWORKS)
def test_folded(make):
    model = settle(make())
    folded, report = fold(model, example())
    program, plain = export(folded)
    assert worst_error(program, model) < 1e-5
    with torch_operators(folded):
        program, operators = export(folded)
    assert worst_error(program, model) < 1e-5
    # What was kept is one operator each, what was folded none.
    assert len(report.kept) == len(norms(folded)) == operators["BatchNormalization"] == 1
    assert len(norms(model)) - len(report.folded) == 1
    assert sum(operators.values()) <= sum(plain.values())


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("as_torch", [True, False])
def test_frozen_in_a_model_that_trains(make, as_torch):
    model = make().train()
    for module in norms(model):
        settled(module)
    before = copy.deepcopy(model.state_dict())
    if as_torch:
        with torch_operators(model):
            program, operators = export(model)
        assert operators["BatchNormalization"] == 1
    else:
        program, _ = export(model)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert worst_error(program, model) < 1e-5


def test_layers_of_this_package_are_arithmetic_unless_asked_otherwise():
    """bn2 follows a ReLU: the exporter folds the other two itself, where it sees them."""
    model = settle(Network(companion))
    _, plain = export(model)
    assert (plain["BatchNormalization"], plain["Sub"]) == (0, 3)
    with torch_operators(model):
        program, operators = export(model)
    assert (operators["BatchNormalization"], operators["Sub"]) == (1, 0)
    assert sum(operators.values()) <= sum(plain.values()) - 6
    assert worst_error(program, model) < 1e-5
    converted = companion.convert(copy.deepcopy(model), to="torch")
    assert export(converted)[1] == operators


def test_fused_layers_which_cannot_be_converted():
    model = settle(FusedNetwork())
    converted = companion.convert(copy.deepcopy(model), to="torch")
    assert export(converted)[1]["BatchNormalization"] == 0
    with torch_operators(model):
        program, operators = export(model)
    assert (operators["BatchNormalization"], operators["Relu"]) == (1, 2)
    assert worst_error(program, model) < 1e-5


def test_the_backend_comes_back():
    model = nn.Sequential(companion.BatchNorm2d(3, backend="eager"), nn.BatchNorm2d(3))
    companion.convert(model)
    former = [dict(vars(layer)) for layer in model]
    with torch_operators(model) as inside:
        assert inside is model
        assert [layer.backend for layer in model] == ["torch", "torch"]
    assert [dict(vars(layer)) for layer in model] == former
    with pytest.raises(ZeroDivisionError), torch_operators(model):
        _ = 1 / 0
    assert [dict(vars(layer)) for layer in model] == former
    assert [layer.backend for layer in model] == ["eager", "auto"]
    with (
        pytest.raises(TypeError, match=r"^model: expected a torch.nn.Module, got dict"),
        torch_operators({}),
    ):
        pass


def test_importing_stays_light():
    code = "import sys, companion.inference; print([m for m in sys.modules if 'onnx' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'onnx'" not in done.stdout
    assert "onnxruntime" not in done.stdout
