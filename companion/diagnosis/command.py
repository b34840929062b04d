"""``python -m companion diagnose``: what is wrong with a model that a function makes."""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from torch import nn

from .catalogue import KINDS
from .session import diagnose

__all__ = ["add_to"]

_FIELDS = ("model", "loader", "loss", "optimizer", "forward")


class _Mistake(Exception):
    """Something the user can mend, in a sentence."""


def add_to(commands: Any) -> None:
    """Add the command to those of ``python -m companion``."""
    parser = commands.add_parser(
        "diagnose",
        help="find what goes wrong with batch normalization in a model",
        description="Find what goes wrong with batch normalization in a model. The factory is a "
        "function without arguments in a module that can be imported from here. It returns a "
        "model, or a dictionary with one and what is given besides: model, loader, loss, "
        "optimizer, forward, as companion.diagnose takes them. Nothing is changed, nothing is "
        "sent anywhere.",
        epilog=f"Codes: {', '.join(KINDS)}. Exit status: 0 if there are notes at most, 1 if there "
        "are errors or warnings, 2 after a mistake.",
    )
    parser.add_argument("factory", metavar="MODULE:FACTORY", help="such as train:make_model")
    parser.add_argument(
        "--batches", type=_at_least_2, default=8, metavar="N", help="of the loader (default: 8)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    parser.set_defaults(run=_run)


def _at_least_2(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"expected a whole number from 2 on, got {text!r}")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    try:
        given = _made(options.factory)
        model = given.pop("model")
        try:
            found = diagnose(model, **given, batches=options.batches, progress=not options.json)
        except Exception as error:
            raise _Mistake(f"{_described(error)}") from error
    except _Mistake as mistake:
        print(f"diagnose: {mistake}", file=sys.stderr)
        return 2
    print(found.to_json() if options.json else found)
    return int(any(one.severity != "note" for one in found))


def _made(factory: str) -> dict[str, Any]:
    """What the factory makes, by the names of `diagnose`'s arguments."""
    name, colon, attribute = factory.partition(":")
    if not (name and colon and attribute):
        raise _Mistake(f"expected MODULE:FACTORY, got {factory!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        function = getattr(importlib.import_module(name), attribute, None)
        if not callable(function):
            raise _Mistake(f"expected a function {attribute!r} in {name}, got none")
        made = function()
    except _Mistake:
        raise
    except Exception as error:
        raise _Mistake(f"{factory}: {_described(error)}") from error
    if isinstance(made, nn.Module):
        return {"model": made}
    if not isinstance(made, Mapping) or not isinstance(made.get("model"), nn.Module):
        raise _Mistake(
            f"{factory}: expected a torch.nn.Module, or a dictionary with one as 'model', got "
            f"{type(made).__name__}"
        )
    wrong = [str(key) for key in made if key not in _FIELDS]
    if wrong:
        raise _Mistake(f"{factory}: expected the keys {', '.join(_FIELDS)}, got {', '.join(wrong)}")
    return dict(made)


def _described(error: Exception) -> str:
    """What was raised, and where in the file that it comes from."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error).splitlines()[0] if str(error) else "no message"
    return f"{type(error).__name__}: {text} ({last.filename}, line {last.lineno})"
