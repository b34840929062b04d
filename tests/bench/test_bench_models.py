"""``bench --models``: the networks, the record, and its mistakes."""

import json
import shutil
import signal

import pytest
import torch
from torch import nn

import companion
from companion.__main__ import main
from companion.bench import machine, models, networks
from companion.bench.timing import Samples

# Seconds in odd and in even rounds.
TIMES = {
    "torch": (60e-3, 120e-3),
    "again": (60e-3, 126e-3),
    "ours": (40e-3, 80e-3),
    "fused": (30e-3, 60e-3),
    "compiled torch": (30e-3, 60e-3),
    "compiled ours": (40e-3, 80e-3),
    "compiled fused": (30e-3, 60e-3),
}
# With 4 channels, channels-last, oneDNN's gradient of a 1×1 convolution with stride 2 corrupts
# memory on processors that have AVX2 and no AVX-512.
TINY = {
    "resnet": lambda: networks.resnet((1, 1), width=8),
    "mobilenet": lambda: networks.mobilenet((4, 8)),
    "densenet": lambda: networks.densenet((1, 1), growth=2),
}


def norms(model: nn.Module) -> list[nn.Module]:
    return [one for one in model.modules() if isinstance(one, nn.BatchNorm2d)]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(models, "NETWORKS", TINY)
    monkeypatch.setattr(models, "_RESERVED", 1)
    monkeypatch.setattr(machine, "reuse_memory", lambda: False)


def asked(*cases: models.Case) -> models.Request:
    return models.Request(list(cases), 2, 32, 0.0, None, True)


@pytest.mark.parametrize(
    ("name", "layers", "parameters"),
    # Without the last layer as many as in the papers' networks of these depths.
    [("resnet", 20, 11_176_512), ("mobilenet", 27, 3_206_976), ("densenet", 121, 6_953_856)],
)
def test_the_networks_are_the_well_known_ones(name, layers, parameters):
    with torch.device("meta"):
        model = networks.NETWORKS[name]()
    assert len(norms(model)) == layers
    last = model[-1]
    assert isinstance(last, nn.Linear)
    counted = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in last.parameters())
    assert counted == parameters
    assert model(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, networks.CLASSES)


@pytest.mark.parametrize("network", sorted(TINY))
def test_contenders_compute_the_same(network):
    case = models.Case(network, channels_last=True, compiled=False)
    found = models.contenders(case, asked(case))
    assert list(found) == ["torch", "again", "ours", "fused"]
    for name, one in found.items():
        assert all(
            isinstance(n, companion.BatchNorm2d) == (name in models.OURS) for n in norms(one.model)
        )
        one.step()
        one.model.eval()
    expected = found["torch"]
    for one in found.values():
        torch.testing.assert_close(one.evaluation(), expected.evaluation(), rtol=1e-4, atol=1e-4)
        for a, b in zip(one.model.parameters(), expected.model.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4)
            assert a.is_contiguous(memory_format=torch.channels_last) or a.ndim != 4
    assert found["fused"].model is not found["ours"].model
    blocks = [type(one) for one in found["fused"].model.modules()]
    assert blocks != [type(one) for one in found["ours"].model.modules()], "nothing was fused"


def test_a_step_changes_no_parameter():
    case = models.Case("mobilenet", channels_last=False, compiled=False)
    network = models.contenders(case, asked(case))["torch"]
    former = [p.detach().clone() for p in network.model.parameters()]
    network.step()
    network.step()
    for before, after in zip(former, network.model.parameters(), strict=True):
        assert torch.equal(before, after)


def test_a_record_has_medians_paired_ratios_and_verdicts():
    samples = Samples({name: list(times) * 4 for name, times in TIMES.items()}, 3)
    record = models.conclude(samples)
    assert record["times_ms"]["torch"] == pytest.approx({"median": 90, "low": 60, "high": 120})
    speedups = {name: one["median"] for name, one in record["speedup"].items()}
    assert speedups == pytest.approx(
        {"ours": 1.5, "fused": 2.0, "compiled ours": 0.75, "compiled fused": 1.0}
    )
    assert record["verdict"] == {
        "ours": "faster",
        "fused": "faster",
        "compiled ours": "slower",
        "compiled fused": "even",
    }
    assert record["noise"]["high"] == pytest.approx(1.05)
    case = {"name": "one", "step": record, "evaluation": record}
    summary = models.summarize([case, case])
    assert summary["mean"]["step"]["fused"] == pytest.approx(2.0)
    assert summary["least"]["evaluation"]["compiled ours"] == pytest.approx(0.75)
    assert {(one["mode"], one["with"]) for one in summary["slower"]} == {
        ("step", "compiled ours"),
        ("evaluation", "compiled ours"),
    }


def test_a_run_prints_and_writes_all_networks(capsys, tmp_path):
    path = tmp_path / "found.json"
    command = ["bench", "--models", "--no-compile", "--seconds-per-case", "0.001"]
    assert main([*command, "--json", str(path)]) == 0
    written = json.loads(path.read_text(encoding="utf-8"))
    names = [case["name"] for case in written["cases"]]
    assert names == [name + end for name in TINY for end in ("", "-channels-last")]
    text = capsys.readouterr().out
    for case in written["cases"]:
        for mode in models.MODES:
            assert set(case[mode]["speedup"]) == set(models.OURS)
            assert case[mode]["samples"] >= 4
            assert f"{case['name']} {mode}" in text
    assert written["summary"]["mean"]["step"]["compiled ours"] is None
    assert "networks: 6, in" in text
    assert set(models.report(written).splitlines()) <= set(text.splitlines())


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.slow(reason="compiles six functions; the record without them has the same form")
def test_compiled_networks_take_part():
    case = models.Case("mobilenet", channels_last=False, compiled=True)
    record = models.measure_case(case, asked(case))
    for mode in models.MODES:
        assert set(record[mode]["times_ms"]) == set(TIMES)
        assert set(record[mode]["verdict"]) == set(TIMES) - {"torch", "again", "compiled torch"}


def test_one_network_that_fails_costs_no_other(capsys, monkeypatch):
    monkeypatch.setitem(TINY, "resnet", lambda: nn.Conv2d(1, 1, 1))
    assert main(["bench", "--models", "--quick", "--seconds-per-case", "0.001"]) == 1
    printed = capsys.readouterr()
    assert "failed, see the error above: resnet-channels-last" in printed.out
    assert "networks: 2, in" in printed.out
    assert "expected input" in printed.err


def test_an_interrupted_run_reports_what_it_has(capsys, monkeypatch):
    measured = models.measure_case

    def interrupted(case, request):
        signal.raise_signal(signal.SIGINT)
        return measured(case, request)

    monkeypatch.setattr(models, "measure_case", interrupted)
    assert main(["bench", "--models", "--quick", "--seconds-per-case", "0.001"]) == 130
    text = capsys.readouterr().out
    assert "ended by Ctrl-C" in text
    assert "networks: 1, in" in text


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--dtype", "float64"], "--dtype has no meaning with --models"),
        (["--device", "cuda"], "--device has no meaning with --models"),
        (["--only", "vgg"], "--only vgg: no case matches"),
    ],
)
def test_mistakes_are_named(capsys, option, said):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "--models", *option])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_the_networks_are_listed(capsys):
    assert main(["bench", "--models", "--list", "--only", "resnet"]) == 0
    assert capsys.readouterr().out.split() == ["resnet", "resnet-channels-last"]
