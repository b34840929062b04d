"""nbgrader's settings for this course: an answer is graded in a process of its own.

nbgrader would run a student's notebook, in whose namespace a check can be changed. Here no cell of
it is run: the functions that it defines are called as by `python -m companion check`.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbconvert.preprocessors import ClearMetadataPreprocessor
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader import preprocessors as stages
from nbgrader.utils import is_grade

from companion.exercises.command import graded
from companion.exercises.isolated import LoadError
from companion.exercises.judging import Report


class CheckAnswers(stages.NbGraderPreprocessor):  # type: ignore[misc]
    """Give each check its output: a report, or an error, which takes the points."""

    def preprocess(self, notebook: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        checks = [cell for cell in notebook.cells if is_grade(cell) and cell.cell_type == "code"]
        names = [cell.metadata.nbgrader.grade_id for cell in checks]
        for cell, report in zip(checks, self.reports(notebook, names), strict=True):
            lines = repr(report).splitlines()
            cell.outputs = [
                new_output("stream", name="stdout", text=repr(report))
                if report
                else new_output("error", ename="NotRight", evalue=lines[0], traceback=lines)
            ]
        return notebook, resources

    @staticmethod
    def reports(notebook: NotebookNode, names: list[str]) -> list[Report]:
        """A report for each exercise; a notebook that does not run has none right."""
        if not names:
            return []
        with TemporaryDirectory() as folder:
            path = Path(folder, "answers.ipynb")
            nbformat.write(notebook, path)
            try:
                return graded(path, names)
            except (LoadError, ValueError) as error:
                return [Report(name, 0, str(error)) for name in names]


c = get_config()  # type: ignore[name-defined]  # noqa: F821  nbgrader's
c.CourseDirectory.course_id = "batch-normalization"
c.CourseDirectory.root = str(Path(__file__).parent)
c.ClearSolutions.code_stub = {"python": "# Complete the function above."}
c.OverwriteCells.add_missing_cells = True
c.Autograde.autograde_preprocessors = [
    CheckAnswers,
    stages.IgnorePattern,
    ClearMetadataPreprocessor,
    stages.LimitOutput,
    stages.SaveAutoGrades,
    stages.AssignLatePenalties,
    stages.CheckCellMetadata,
]
