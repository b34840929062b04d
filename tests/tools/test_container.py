"""What the Dockerfile and Binder's files name is there; to build images takes more than a test."""

import json
import re
import sys
import tomllib

import pytest

from tools import live
from tools.publication import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.parametrize(("more", "ip"), [(True, "0.0.0.0"), (False, "127.0.0.1")])
def test_the_book_is_served_out_of_the_container_and_else_to_this_machine(
    monkeypatch, site, more, ip
):
    (_, flag, module, *arguments) = json.loads(re.search(r"^CMD (.*)$", DOCKERFILE, re.M)[1])
    assert (flag, module) == ("-m", live.__name__)
    configured = []

    class Started(Exception):
        pass

    def server(config):
        configured.append(config.ServerApp)
        raise Started

    monkeypatch.setattr(live, "ServerApp", server)
    monkeypatch.setattr(live, "SITE", site)
    monkeypatch.setattr(live, "LIVE", ".")
    monkeypatch.setattr(sys, "argv", [module, *(arguments if more else arguments[:-1])])
    with pytest.raises(Started):
        live.main()
    assert [(each.ip, each.open_browser) for each in configured] == [(ip, False)]


def test_binder_installs_extras_that_there_are():
    text = (ROOT / "binder" / "requirements.txt").read_text(encoding="utf-8")
    extras = re.search(r"^--editable \.\[(.*)\]$", text, re.M)[1].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extras) <= set(project["optional-dependencies"])
    constraint = re.search(r"^--constraint (.*)$", text, re.M)[1]
    assert (ROOT / "binder" / constraint).resolve() == (ROOT / "requirements.lock").resolve()


def test_the_dev_container_is_a_stage_of_the_dockerfile():
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8")
    settings = json.loads(re.sub(r"^//.*$", "", text, flags=re.M))
    assert f" AS {settings['build']['target']}\n" in DOCKERFILE
    assert (ROOT / ".devcontainer" / settings["build"]["dockerfile"]).samefile(ROOT / "Dockerfile")
    assert f" {settings['remoteUser']}\n" in DOCKERFILE
