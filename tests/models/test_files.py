from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from emi_models.errors import DataError
from emi_models.files import atomic_write, locked, replacing

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.txt"
    with replacing(path) as part:
        part.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as part:
            part.write_text("new")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataError, match="written"),
        replacing(tmp_path / "file" / "x.txt"),
    ):
        pass


def test_text_and_bytes_are_written_whole(tmp_path: Path) -> None:
    atomic_write(tmp_path / "new" / "text", "é")
    atomic_write(tmp_path / "new" / "text", b"bytes")
    assert (tmp_path / "new" / "text").read_bytes() == b"bytes"


def test_a_write_error_is_also_an_os_error_with_the_cause(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be written") as caught:
        atomic_write(tmp_path / "file" / "x", b"")
    assert caught.value.strerror


def test_a_lock_held_elsewhere_is_reported_once_and_can_be_refused(tmp_path: Path) -> None:
    def refuse() -> None:
        raise KeyError("busy")

    with (
        locked(tmp_path / "lock", refuse),
        pytest.raises(KeyError, match="busy"),
        locked(tmp_path / "lock", refuse),
    ):
        pass
    with locked(tmp_path / "lock", refuse):
        pass
