"""A cell that shows a figure with a fault fails: run before the first cell of each notebook.

nbval's kernels do: see `book/notebooks/conftest.py`.
"""


def look_at_figures():
    import sys
    from pathlib import Path

    from matplotlib.figure import Figure

    from companion.explore import InteractiveFigure

    sys.path.append(str(Path(__file__).parents[3] / "plots"))
    from _figures import faults

    sys.path.pop()

    def look(cell):
        shown = cell.result
        if isinstance(shown, InteractiveFigure):
            shown = shown.picture()
        if isinstance(shown, Figure):
            faults_seen = "\n".join(faults(shown))
            assert not faults_seen, f"the figure cannot be read:\n{faults_seen}"

    get_ipython().events.register("post_run_cell", look)  # noqa: F821


look_at_figures()
del look_at_figures
