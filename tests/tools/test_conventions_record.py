"""The record of how frameworks normalize: as the layers here answer, and as its tables say."""

import math

import pytest

from companion.experiments import conventions
from tools.conventions.cited import CITED
from tools.conventions.frameworks import onnx, pytorch
from tools.conventions.measure import answers

HERE = {**pytorch.LAYERS, **onnx.LAYERS}


def same(recorded, asked):
    if isinstance(recorded, dict):
        return "error" in recorded or all(same(recorded[key], asked[key]) for key in recorded)
    if isinstance(recorded, list):
        return all(map(same, recorded, asked))
    if isinstance(recorded, float):
        return math.isclose(recorded, asked, rel_tol=2e-3, abs_tol=1e-6)
    return recorded == asked


@pytest.mark.parametrize("name", HERE)
def test_what_is_installed_here_answers_as_recorded(name):
    recorded, asked = conventions.recorded()["layers"][name], answers(HERE[name])
    assert recorded.keys() == asked.keys()
    assert [key for key in asked if not same(recorded[key], asked[key])] == []


def test_the_record_has_every_framework_and_what_is_cited():
    record = conventions.recorded()
    assert {name: record["layers"][name] for name in CITED} == CITED
    assert {"torch", "keras", "flax", "equinox", "onnx", "tensorflow"} <= set(record["versions"])
    questions = set(record["layers"]["PyTorch"])
    for name, layer in record["layers"].items():
        assert set(layer) - {"source"} <= questions
        assert name in CITED or set(layer) == questions


def test_a_table_has_a_row_for_layers_that_answer_alike():
    layers = {
        "one": {"call": "batch"},
        "two": {"call": "running", "source": "a page"},
        "three": {"call": "batch"},
        "four": {"call": {"error": "TypeError: no"}},
        "silent": {},
        "whole (a)": {"call": "sometimes"},
        "whole (b)": {"call": "sometimes"},
        "part (a)": {"call": "never"},
        "part (b)": {"call": "never"},
        "part (c)": {"call": "batch"},
    }
    columns = {"a bare call": conventions.TRAINING["a bare call"]}
    assert conventions.table({"layers": layers}, columns).splitlines() == [
        "| layer | a bare call |",
        "| --- | --- |",
        "| one, three, part (c) | batch |",
        "| two† | running |",
        "| four | error |",
        "| whole | sometimes |",
        "| part (a, b) | never |",
    ]


@pytest.mark.parametrize("columns", ["MOMENTUM", "VARIANCE", "TRAINING", "PRECISION", "NAMES"])
def test_every_layer_that_was_called_has_its_row(columns):
    record = conventions.recorded()
    lines = conventions.table(record, getattr(conventions, columns)).splitlines()
    heads = [line.removeprefix("| ").split(" | ")[0] for line in lines[2:]]
    for name in record["layers"].keys() - CITED.keys():
        family, _, kind = name.removesuffix(")").partition(" (")
        assert any(family in head and (kind in head or "(" not in head) for head in heads), name
    assert not any("nan" in line for line in lines)
