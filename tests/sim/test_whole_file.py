"""What stands at a path before, while and after a file is written there."""

import os
import stat
import threading
from pathlib import Path

import pytest

from bssim.errors import InputError
from bssim.whole_file import naming, replacing


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as part:
            part.write_text("ne")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_is_written_and_stays_a_pipe(tmp_path: Path) -> None:
    path, got = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: got.append(path.read_text()), daemon=True)
    reader.start()
    with replacing(path) as part:
        assert part == path  # else nothing would ever end the reader
        part.write_text("text")
    reader.join(timeout=10)
    assert got == ["text"]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "a.txt", tmp_path / "link"
    path.write_text("old")
    link.symlink_to(path)
    with replacing(link) as part:
        part.write_text("new")
    assert link.is_symlink()
    assert path.read_text() == "new"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no folder"), replacing(tmp_path / "no" / "a"):
        pass


def test_an_error_without_a_file_is_given_its_name() -> None:
    def fail(error: OSError) -> None:
        with naming("mine"):
            raise error

    with pytest.raises(OSError, match="No space") as e:
        fail(OSError(28, "No space"))
    assert e.value.filename == "mine"
    with pytest.raises(OSError, match="No space") as e:
        fail(OSError(28, "No space", "other"))
    assert e.value.filename == "other"
