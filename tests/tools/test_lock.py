from tools.lock import pinned


def test_installers_build_tags_and_editable_packages_are_left_out():
    assert pinned("torch==2.13.0+cpu\npip==25.0\n-e x\n") == ["torch==2.13.0"]
