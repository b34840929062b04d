"""What the tests of the teacher's kit share: the kit of one chapter, made once."""

import pytest
from _submissions import CHAPTER

from tools.course.__main__ import write


@pytest.fixture(scope="session")
def kit(site, tmp_path_factory):
    """The folder of a kit that has one chapter."""
    del site
    folder = tmp_path_factory.mktemp("kit") / "course"
    write(folder, [CHAPTER])
    return folder
