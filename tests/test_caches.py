"""Caches as Linux describes them, from folders made here."""

from companion import caches


def describe(folder, name, **texts):
    (folder / name).mkdir()
    for key, text in texts.items():
        (folder / name / key).write_text(text)


def test_the_largest_cache_of_each_level(tmp_path, monkeypatch):
    monkeypatch.setattr(caches, "_CACHES", tmp_path)
    assert caches.sizes() == {}
    describe(tmp_path, "index0", level="1\n", size="32K\n")
    describe(tmp_path, "index1", level="1\n", size="48K\n")
    describe(tmp_path, "index2", level="2\n", size="2M\n")
    describe(tmp_path, "index3", level="3\n", size="1G\n")
    describe(tmp_path, "index4", level="4\n", size="512\n")
    describe(tmp_path, "index5", level="a word\n", size="1M\n")
    describe(tmp_path, "index6", size="1M\n")
    assert caches.sizes() == {1: 48 * 2**10, 2: 2**21, 3: 2**30, 4: 512}
