"""What the README promises."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs():
    [example] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    namespace = {}
    exec(example, namespace)
    assert type(namespace["model"][1]).__module__.startswith("torch")
    assert type(namespace["layer"]).__module__.startswith("companion")


def test_every_linked_file_exists():
    for document in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(
            r"\]\((?!https?:)([^)#]+)\)", (ROOT / document).read_text(encoding="utf-8")
        ):
            assert (ROOT / target).exists(), f"{document}: {target}"


def test_every_target_that_the_text_names_exists():
    targets = set(
        re.findall(
            r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    named = set(
        re.findall(
            r"`make ([a-z]+)", README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
        )
    )
    assert named <= targets
    assert {"book", "test", "notebooks", "lab", "lint", "clean", "help"} <= targets
