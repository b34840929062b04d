"""What a diagnosis says: findings, each with its evidence."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeAlias, overload

from .catalogue import KINDS, SEVERITIES

__all__ = ["Diagnosis", "Evidence", "Finding"]

Evidence: TypeAlias = Mapping[str, float | int | str]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or could be better, in one layer.

    Parameters
    ----------
    code
        what it is; ``python -m companion diagnose --help`` lists all
    layer
        qualified name in the model; empty for what concerns the whole model
    severity
        ``"error"``: results are wrong or will be; ``"warning"``: they are likely worse than they
        could be; ``"note"``: nothing is wrong, but something is to be gained
    evidence
        the numbers that say so, by what they are

    Examples
    --------
    >>> finding = Finding("dead-bias", "conv1", "note", {"parameters": 64})
    >>> print(finding)
    note: dead-bias: conv1: parameters 64
    >>> print(finding.remedy)
    create the layer with bias=False
    """

    code: str
    layer: str
    severity: str
    evidence: Evidence

    @property
    def consequence(self) -> str:
        """What follows from it, in a sentence."""
        return KINDS[self.code].consequence

    @property
    def remedy(self) -> str:
        """What to do about it: a line of code where there is one."""
        return KINDS[self.code].remedy

    @property
    def chapter(self) -> str:
        """The address in the book of what explains it, without the book's own."""
        return KINDS[self.code].chapter

    def __str__(self) -> str:
        return f"{self.severity}: {self.code}: {self.layer or 'the model'}: {self._numbers()}"

    def _numbers(self) -> str:
        return ", ".join(f"{name} {_shown(value)}" for name, value in self.evidence.items())


@dataclass(frozen=True)
class Diagnosis(Sequence[Finding]):
    """All findings of a model, the severest first; a table as text.

    Parameters
    ----------
    findings
        in the order of severity, then of the codes, then of the model
    layers
        how many layers were looked at
    unchecked
        codes that could not be decided, and why

    Examples
    --------
    >>> print(Diagnosis((Finding("before-output", "4", "warning", {"follows": "the loss"}),), 2))
    2 batch normalization layers: 0 errors, 1 warning, 0 notes
    <BLANKLINE>
    warning  before-output  4  follows the loss
      The outputs of an example depend on its batch, and every batch is given the same mean.
      Remedy: let the network end in a linear layer, with a bias
      More: backprop#what-the-last-normalization-does
    """

    findings: tuple[Finding, ...]
    layers: int
    unchecked: Mapping[str, str] = field(default_factory=dict)

    @overload
    def __getitem__(self, index: int) -> Finding: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Finding]: ...

    def __getitem__(self, index: int | slice) -> Finding | Sequence[Finding]:
        return self.findings[index]

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def to_json(self) -> str:
        """Everything as a JSON object: `layers`, `findings`, `unchecked`."""
        findings = [
            asdict(one)
            | {"consequence": one.consequence, "remedy": one.remedy, "chapter": one.chapter}
            for one in self
        ]
        document = {"layers": self.layers, "findings": findings, "unchecked": dict(self.unchecked)}
        return json.dumps(document, indent=2, ensure_ascii=False)

    def __str__(self) -> str:
        counts = [sum(one.severity == severity for one in self) for severity in SEVERITIES]
        totals = ", ".join(
            _count(number, severity) for number, severity in zip(counts, SEVERITIES, strict=True)
        )
        blocks = [f"{_count(self.layers, 'batch normalization layer')}: {totals}"]
        blocks += [self._block(code) for code in dict.fromkeys(one.code for one in self)]
        if self.unchecked:
            reasons: dict[str, list[str]] = {}
            for code, reason in self.unchecked.items():
                reasons.setdefault(reason, []).append(code)
            blocks.append(
                "\n".join(
                    f"not checked, {why}: {', '.join(codes)}" for why, codes in reasons.items()
                )
            )
        return "\n\n".join(blocks)

    def _block(self, code: str) -> str:
        """The findings of one kind, and what they mean."""
        found = [one for one in self if one.code == code]
        names = [one.layer or "the model" for one in found]
        width = max(map(len, names))
        lines = [
            f"{one.severity:7}  {code}  {name:{width}}  {one._numbers()}".rstrip()
            for one, name in zip(found, names, strict=True)
        ]
        lines += [
            textwrap.fill(found[0].consequence, 76, initial_indent="  ", subsequent_indent="  "),
            f"  Remedy: {found[0].remedy}",
            f"  More: {found[0].chapter}",
        ]
        return "\n".join(lines)


def _shown(value: float | int | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
