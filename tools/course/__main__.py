"""Write a teacher's kit into `_build/course`: notebooks, slides, graders, a syllabus.

usage: python -m tools.course
"""

import argparse
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from tools.build_book import SUCCEEDED
from tools.contents import chapters
from tools.course import bundles, slides, syllabus
from tools.downloads import BUILD
from tools.notebooks import SOLUTIONS, TWINS
from tools.wheel import build_wheel

KIT = BUILD / "course"
README = Path(__file__).with_name("README.md")


def write(folder: Path, names: list[str]) -> None:
    """Write the kit of some chapters into a new folder; its syllabus is of all.

    Raises
    ------
    RuntimeError
        The package's wheel, or an assignment, could not be made.
    """
    folder.mkdir()
    shutil.copy(README, folder)
    syllabus.write(folder)
    for source, name in ((TWINS, "notebooks"), (SOLUTIONS, "solutions")):
        (folder / name).mkdir()
        for chapter in names:
            shutil.copy(source / f"{chapter}.ipynb", folder / name)
    slides.write_engine(folder / "slides" / "engine")
    with TemporaryDirectory() as made:
        wheel = build_wheel(Path(made))
        for chapter in tqdm(names, unit="chapter", desc="course"):
            slides.write(chapter, folder / "slides")
            bundles.write_gradescope(chapter, wheel, folder / "gradescope")
        bundles.write_nbgrader(names, wheel, folder / "nbgrader")


def main() -> int:
    argparse.ArgumentParser(
        prog="python -m tools.course",
        description="Write a teacher's kit into _build/course: per chapter its notebooks without "
        "and with solutions, slides, and graders for Gradescope and nbgrader; and a syllabus.",
    ).parse_args()
    if not SUCCEEDED.exists():
        print("The book is not built: run `make book` first.", file=sys.stderr)
        return 1
    with TemporaryDirectory(dir=BUILD) as folder:
        try:
            write(Path(folder, "course"), chapters())
        except (RuntimeError, ValueError, FileNotFoundError) as error:
            print(f"course: {error}", file=sys.stderr)
            return 1
        shutil.rmtree(KIT, ignore_errors=True)
        shutil.move(Path(folder, "course"), KIT)
    print(f"The teacher's kit is in {KIT}: begin with its README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
