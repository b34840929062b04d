"""How the book is taught: plans of courses, objectives by level, what comes before what.

The plans stand in the front matter of the page `teaching`: for 2, 6 and 12 sessions, what a session
reads, what it solves, and what it talks about. The page and the syllabus of the teacher's kit are
made from them and from what the chapters say about themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tools.contents import (
    asked,
    chapter_table,
    chapters,
    head,
    numbers,
    objectives,
    title,
)

PAGE = "teaching"
EXERCISE = 15  # minutes, coding or in words: an assumption

# What an objective asks of a student, by its first word.
LEVELS = {
    "Explain": ["define", "name", "read", "recognize", "say"],
    "Apply": [
        *("carry", "change", "compute", "count", "differentiate", "estimate", "fold", "merge"),
        *("normalize", "order", "predict", "put", "replace", "rerun", "switch", "write"),
    ],
    "Analyse and judge": ["choose", "derive", "find", "tell"],
}


@dataclass(frozen=True)
class Session:
    """What a session of a course reads before it, talks about, and solves after it."""

    read: tuple[str, ...]
    solve: tuple[str, ...]  # names of exercises, without `ex-`
    talk: str  # MyST

    @property
    def reading(self) -> int:
        """Minutes, as the chapters say."""
        return sum(int(asked(chapter)["minutes"]) for chapter in self.read)

    @property
    def solving(self) -> int:
        return EXERCISE * len(self.solve)


def plans() -> dict[int, list[Session]]:
    """The courses, by their number of sessions."""
    return {
        count: [
            Session(tuple(each["read"]), tuple(each["solve"]), each["talk"]) for each in sessions
        ]
        for count, sessions in head(PAGE)["plans"].items()
    }


def plan(count: str) -> list[str]:
    """The course of `count` sessions as a list in MyST, and what it takes."""
    sessions = plans()[int(count)]
    lines = []
    for number, each in enumerate(sessions, start=1):
        read = ", ".join(f"{{doc}}`{chapter}`" for chapter in each.read)
        solve = ", ".join(f"{{numref}}`ex-{name}`" for name in each.solve)
        lines += [
            f"{number}. **Read** {read} ({each.reading} minutes).\\",
            f"   **In class:** {each.talk}\\",
            f"   **Solve** {solve} ({each.solving} minutes).",
        ]
    reading = sum(each.reading for each in sessions)
    solving = sum(each.solving for each in sessions)
    counts = [sum(len(each.read) for each in sessions), sum(len(each.solve) for each in sessions)]
    total = (
        f"Together {reading + solving} minutes outside of class: {reading} to read "
        f"{counts[0]} chapters, {solving} for {counts[1]} exercises."
    )
    return [*lines, "", total]


def by_level() -> dict[str, list[tuple[str, str]]]:
    """Chapter and objective, in the book's order, for each level.

    Raises
    ------
    ValueError
        an objective begins with a word that has no level
    """
    levels = {word: level for level, words in LEVELS.items() for word in words}
    found: dict[str, list[tuple[str, str]]] = {level: [] for level in LEVELS}
    for chapter in chapters():
        for objective in objectives(chapter):
            word = objective.split()[0].rstrip(",")
            if word not in levels:
                raise ValueError(
                    f"{chapter}.md: expected an objective that begins with a word in "
                    f"tools.teaching.LEVELS, got {word!r}"
                )
            found[levels[word]].append((chapter, objective))
    return found


def objective_lists(_argument: str = "") -> list[str]:
    """A closed box in MyST for each level."""
    lines = []
    for level, each in by_level().items():
        lines += [f"````{{dropdown}} {level}: {len(each)} objectives", ""]
        for chapter in dict.fromkeys(chapter for chapter, _ in each):
            said = "; ".join(objective for owner, objective in each if owner == chapter)
            lines.append(f"- {{doc}}`{chapter}`: {said}.")
        lines += ["", "````", ""]
    return lines


def direct_needs() -> dict[str, list[str]]:
    """For each chapter those that it needs, less those which another of them needs."""
    asks = {chapter: list(asked(chapter)["needs"]) for chapter in chapters()}
    before: dict[str, set[str]] = {}
    for chapter in chapters():
        before[chapter] = {*asks[chapter]}.union(*(before[need] for need in asks[chapter]))
    return {
        chapter: [
            need
            for need in asks[chapter]
            if not any(need in before[other] for other in asks[chapter])
        ]
        for chapter in chapters()
    }


def short(chapter: str) -> str:
    """Number and title of a chapter, without what stands behind a colon or a comma."""
    number = f"{numbers()[chapter]}. " if chapter in numbers() else ""
    return number + title(chapter).partition(":")[0].partition(",")[0]


def in_words(_argument: str = "") -> list[str]:
    """What the graph draws, as a list in Markdown."""
    lines = []
    for chapter, needs in direct_needs().items():
        *others, last = [*map(short, needs)] or [""]
        after = f"{', '.join(others)} and {last}" if others else last
        lines.append(f"- {short(chapter)}" + (f": after {after}" if after else ""))
    return lines


# What stands for these directives, of their argument, in MyST.
MADE: dict[str, Callable[[str], list[str]]] = {
    "chapters": lambda _argument: chapter_table(),
    "plan": plan,
    "objectives": objective_lists,
    "prerequisites": in_words,
}
