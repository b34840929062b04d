"""Downloads from a real server on this machine, in good order and in bad."""

import gzip
import hashlib
import os
import socket
import threading

import pytest
from _server import Server

from companion.data import DownloadError, folder, remote
from companion.data.remote import RemoteFile

CONTENT = os.urandom(300_000)
PACKED = gzip.compress(CONTENT, mtime=0)


@pytest.fixture
def server():
    running = Server()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def impatient(monkeypatch):
    """Where a server falls silent on purpose."""
    monkeypatch.setattr(remote, "TIMEOUT", 1.5)


def file_at(*mirrors, of_content=True):
    checked = CONTENT if of_content else PACKED
    checksum = "sha256:" + hashlib.sha256(checked).hexdigest()
    return RemoteFile("set/values.gz", mirrors, checksum, of_content)


def served(server, path="/a", content=PACKED, faults=()):
    server.files[path] = content
    server.faults[path] = list(faults)
    return server.address + path


def read(file, **options):
    return remote.read(file, progress=False, **options)


def left_over(data_folder):
    return {path.name for path in (data_folder / "set").iterdir()} - {"values.gz.lock"}


def test_a_file_is_fetched_once(server, data_folder):
    file = file_at(served(server))
    assert read(file) == CONTENT
    assert read(file) == CONTENT
    assert server.requests == [("/a", 0)]
    assert left_over(data_folder) == {"values.gz"}


def test_what_lies_in_the_folder_is_not_fetched(server, data_folder):
    (data_folder / "set").mkdir(parents=True)
    (data_folder / "set" / "values.gz").write_bytes(PACKED)
    assert read(file_at(served(server))) == CONTENT
    assert server.requests == []


def test_mirrors_may_pack_the_same_content_differently(server):
    assert read(file_at(served(server, content=gzip.compress(CONTENT, 1)))) == CONTENT


def test_a_server_may_unpack_on_the_way(server):
    assert read(file_at(served(server, content=CONTENT))) == CONTENT


def test_the_packed_file_can_be_what_is_checked(server):
    other = served(server, "/other", content=gzip.compress(CONTENT, 1))
    with pytest.raises(DownloadError, match="its content is wrong"):
        read(file_at(other, of_content=False))
    assert read(file_at(served(server), of_content=False)) == CONTENT


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", ["error", "corrupt", "truncate", "stall"])
def test_the_next_mirror_is_asked_when_one_fails(server, data_folder, fault):
    bad, good = served(server, "/bad", faults=[fault]), served(server, "/good")
    assert read(file_at(bad, good)) == CONTENT
    assert [path for path, _ in server.requests] == ["/bad", "/good"]
    assert left_over(data_folder) == {"values.gz"}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", ["truncate", "stall"])
def test_the_next_attempt_goes_on_where_one_broke_off(server, data_folder, fault):
    file = file_at(served(server, faults=[fault]))
    with pytest.raises(DownloadError):
        read(file)
    assert left_over(data_folder) == {"values.gz.part"}
    size = (data_folder / "set" / "values.gz.part").stat().st_size
    assert len(PACKED) // 2 - 1024 < size <= len(PACKED) // 2
    assert read(file) == CONTENT
    assert server.requests == [("/a", 0), ("/a", size)]
    assert left_over(data_folder) == {"values.gz"}


def test_a_server_without_ranges_sends_all_of_it_again(server):
    file = file_at(served(server, faults=["truncate", "no ranges"]))
    with pytest.raises(DownloadError):
        read(file)
    assert read(file) == CONTENT
    first, resumed, again = (start for _, start in server.requests)
    assert first == again == 0 < resumed


def test_a_rest_of_another_file_is_dropped(server, data_folder):
    (data_folder / "set").mkdir(parents=True)
    (data_folder / "set" / "values.gz.part").write_bytes(b"something else")
    assert read(file_at(served(server))) == CONTENT
    assert [start for _, start in server.requests] == [14, 0]


def test_a_rest_that_is_longer_than_the_file_is_dropped(server, data_folder):
    (data_folder / "set").mkdir(parents=True)
    (data_folder / "set" / "values.gz.part").write_bytes(PACKED + b"more")
    assert read(file_at(served(server))) == CONTENT


def test_a_whole_rest_is_not_fetched_again(server, data_folder):
    (data_folder / "set").mkdir(parents=True)
    (data_folder / "set" / "values.gz.part").write_bytes(PACKED)
    assert read(file_at(served(server))) == CONTENT
    assert [start for _, start in server.requests] == [len(PACKED)]


@pytest.mark.usefixtures("impatient")
def test_the_error_names_every_mirror_with_its_reason(server, data_folder):
    free = socket.create_server(("127.0.0.1", 0))
    closed = f"http://127.0.0.1:{free.getsockname()[1]}/closed"
    free.close()
    faults = {
        served(server, "/error", faults=["error"]): "the server answered with status 503",
        served(server, "/corrupt", faults=["corrupt"]): "its content is wrong",
        served(server, "/stall", faults=["stall"]): r"no byte came for 1.5 s",
        closed: "no connection",
    }
    with pytest.raises(DownloadError) as stopped:
        read(file_at(*faults))
    lines = str(stopped.value).splitlines()
    assert lines[0] == "values.gz could not be downloaded:"
    for line, (mirror, reason) in zip(lines[1:], faults.items(), strict=False):
        assert line.startswith(f"  {mirror}: ")
        assert reason in line
    assert str(data_folder / "set" / "values.gz") in lines[-1]
    assert "COMPANION_DATA" in lines[-1]


def test_wrong_content_leaves_nothing(server, data_folder):
    with pytest.raises(DownloadError, match="content is wrong"):
        read(file_at(served(server, faults=["corrupt"])))
    assert left_over(data_folder) == set()


def test_a_broken_off_gzip_file_is_wrong_content(server, data_folder):
    with pytest.raises(DownloadError, match="not a whole gzip file"):
        read(file_at(served(server, content=PACKED[:-100])))
    assert left_over(data_folder) == set()


def test_a_damaged_file_is_not_read(server, data_folder):
    file = file_at(served(server))
    read(file)
    path = data_folder / "set" / "values.gz"
    path.write_bytes(PACKED[:1000])
    with pytest.raises(DownloadError, match=r"values.gz: what came is not .* delete it"):
        read(file)


def test_nothing_is_fetched_unasked(server):
    with pytest.raises(DownloadError, match="downloads were not asked for"):
        read(file_at(served(server)), download=False)
    assert server.requests == []


def test_two_that_want_the_same_file_fetch_it_once(server):
    file = file_at(served(server))
    contents = []
    threads = [threading.Thread(target=lambda: contents.append(read(file))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents == [CONTENT] * 4
    assert len(server.requests) == 1


def test_a_progress_bar_is_drawn_unless_unwanted(server, capsys):
    remote.read(file_at(served(server)))
    assert "100%" in capsys.readouterr().err
    (folder() / "set" / "values.gz").unlink()
    read(file_at(served(server)))
    assert capsys.readouterr().err == ""


def test_the_folder_is_the_users_cache_unless_one_is_named(monkeypatch):
    monkeypatch.setenv("COMPANION_DATA", "~/somewhere")
    assert folder() == folder().home() / "somewhere"
    monkeypatch.delenv("COMPANION_DATA")
    assert folder().name == "batchnorm-companion"


def test_without_pooch_the_error_says_what_to_install(monkeypatch, server):
    monkeypatch.setitem(__import__("sys").modules, "pooch", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'batchnorm-companion\[data\]'"):
        read(file_at(served(server)))
