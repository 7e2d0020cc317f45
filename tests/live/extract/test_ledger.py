from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from emi_live.errors import ConfigurationError
from emi_live.extract.folder import LEDGER, Entry, Ledger, Video, claimed, leave_note

ENTRY = Entry(
    id="a",
    source="a.mp4",
    size=10,
    mtime_ns=20,
    settings="s",
    duration_s=1.5,
    pictures=3,
    faces=2,
    sounds=1,
    words=0,
)
VIDEO = Video("a", "/clips/a.mp4", "a.mp4", 10, 20)


def test_entries_are_read_back_and_the_last_one_of_a_clip_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for entry in (ENTRY, replace(ENTRY, id="b"), replace(ENTRY, words=4)):
        ledger.add(entry)
    assert Ledger(tmp_path).entries == {"a": replace(ENTRY, words=4), "b": replace(ENTRY, id="b")}


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_line_that_a_crash_cut_off_is_no_entry_and_does_no_harm(tmp_path: Path, cut: int) -> None:
    Ledger(tmp_path).add(ENTRY)
    Ledger(tmp_path).add(replace(ENTRY, id="b"))
    path = tmp_path / LEDGER
    path.write_bytes(path.read_bytes()[:-cut] + (b"" if cut > 1 else b"\xff"))
    ledger = Ledger(tmp_path)
    assert set(ledger.entries) == {"a"}
    ledger.add(replace(ENTRY, id="c"))
    assert set(Ledger(tmp_path).entries) == {"a", "c"}


def test_an_entry_is_of_a_file_until_that_or_the_settings_change() -> None:
    assert ENTRY.of(VIDEO, "s")
    assert not ENTRY.of(VIDEO, "t")
    for changed in ({"size": 11}, {"mtime_ns": 21}, {"name": "a.mov"}):
        assert not ENTRY.of(replace(VIDEO, **changed), "s")


@pytest.mark.slow
def test_one_run_at_a_time_may_write_to_a_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from emi_live.extract.folder import claimed\n"
        "with claimed(Path(sys.argv[1])): print('claimed', flush=True); sys.stdin.read()"
    )
    folder = tmp_path / "new/one"
    with subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"claimed\n"
        with pytest.raises(ConfigurationError, match="another run"), claimed(folder):
            pass
        other.kill()  # a run that was killed holds nothing
        other.wait()
    with claimed(folder):
        pass


def test_a_folder_that_cannot_be_made_is_bad_use(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be written"), claimed(tmp_path / "file"):
        pass


def test_a_clip_whose_answer_nobody_read_is_entered_from_its_note(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    leave_note(tmp_path, replace(ENTRY, id="b"))
    (tmp_path / "features/.c.json").write_text("{", encoding="utf-8")  # no note
    assert Ledger(tmp_path).entries == {"b": replace(ENTRY, id="b")}
    assert not (tmp_path / "features/.b.json").exists()
    assert set(Ledger(tmp_path).entries) == {"b"}
