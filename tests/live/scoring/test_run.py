"""Which clips there are, which are done, and what is never overwritten."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Self

import pytest

from emi_live.config import LiveConfig, load_config
from emi_live.errors import ConfigurationError, SourceError
from emi_live.extract.folder import Entry
from emi_live.extract.pool import Job, Ready, Refused, Written
from emi_live.scoring import run
from emi_live.scoring.run import RECORDS, Plan, Report, Task, find_clips, score_all
from tests.live.scoring.scores import made_up


class Workers:
    """Score in this process; clips whose name begins with "bad" are refused."""

    def __init__(self, task: Task, most: int = 99, recognizer: str = "") -> None:
        self._task = task
        self._most = most
        self._recognizer = recognizer
        self._settings = task.fingerprint({}, recognizer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ready(self) -> Ready:
        return Ready(encoders={}, recognizer=self._recognizer, settings=self._settings)

    def run(self, jobs: Iterable[Job]) -> Iterator[Written | Refused]:
        for number, job in enumerate(jobs):
            if number == self._most:
                raise KeyboardInterrupt
            if job.name.startswith("bad"):
                yield Refused(id=job.id, reason=f"{job.path}: holds nothing")
                continue
            done = run._score(job, Path(job.path), self._task, self._settings, lambda _: made_up(), Lock())
            assert isinstance(done, Written)
            yield done


class Watcher:
    def ready(self, what: Ready, done: int, todo: int) -> None:
        self.begun = (done, todo)

    def wrote(self, entry: Entry) -> None:
        pass

    def refused(self, name: str, reason: str) -> None:
        pass


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"media")
    return folder


def score(
    clips: Path, task: Task, most: int = 99, *, overwrite: bool = False, strict: bool = False
) -> Report:
    listing = find_clips([str(clips)])
    return score_all(listing, task, Workers(task, most), Watcher(), overwrite=overwrite, strict=strict)


def test_folders_files_and_patterns_are_found_once(tmp_path: Path) -> None:
    files(tmp_path / "clips", "a.mp4", "day/b.mov", "day/b.wav", "notes.txt", ".hidden/c.mp4")
    files(tmp_path / "more", "x1.wav", "x2.wav", "a.mp4")
    listing = find_clips(
        [str(tmp_path / "clips"), str(tmp_path / "more" / "x*.wav"), str(tmp_path / "clips/a.mp4")]
    )
    assert [video.id for video in listing.videos] == ["a", "day/b.mov", "day/b.wav", "x1", "x2"]
    assert not listing.unusable
    assert listing.others == {".txt": 1}
    (name, reason), *none = find_clips([str(tmp_path / "clips"), str(tmp_path / "more")]).unusable
    assert not none
    assert name.endswith("more/a.mp4")
    assert "name" in reason


@pytest.mark.parametrize("given", ["nowhere", "*.mp4", "."])
def test_nothing_to_score_is_said(tmp_path: Path, given: str) -> None:
    with pytest.raises(ConfigurationError, match="there is no"):
        find_clips([str(tmp_path / given)])


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    clips = files(tmp_path / "clips", "a.mp4", "bad.mp4", "c.mp4", "d.mp4")
    task = Task(plan=Plan(out=tmp_path / "out", formats=("csv", "bids")), config=LiveConfig())
    with pytest.raises(KeyboardInterrupt):
        score(clips, task, most=2)
    begun = Plan(out=tmp_path / "out").record("c")  # as if killed while the files of c were written
    begun.write_text(json.dumps({"settings": task.fingerprint({}, ""), "done": False}))
    files(tmp_path / "out", "c.csv", ".d.csv.xyz.part", ".theirs.part")
    report = score(clips, task)
    assert report.kept == ["a"]
    assert [entry.id for entry in report.written] == ["c", "d"]
    assert report.refused == [("bad.mp4", "holds nothing")]
    assert [row["file"] for row in report.rows] == ["a.mp4", "c.mp4", "d.mp4"]
    assert sorted(path.name for path in (tmp_path / "out").glob("[a-z]*")) == sorted(
        ["summary.csv", *(f"{clip}{ending}" for clip in "acd" for ending in ENDINGS)]
    )
    assert [path.name for path in (tmp_path / "out").glob(".*.part")] == [".theirs.part"]
    assert score(clips, task).kept == ["a", "c", "d"]
    files(clips, "a.mp4")
    (clips / "a.mp4").write_bytes(b"another clip")
    assert [entry.id for entry in score(clips, task).written] == ["a"]


ENDINGS = (".csv", ".words.csv", "_physio.tsv.gz", "_physio.json")


def test_another_one_s_file_is_not_overwritten_unasked(tmp_path: Path) -> None:
    clips = files(tmp_path / "clips", "a.mp4")
    out = files(tmp_path / "out", "a.csv")
    task = Task(plan=Plan(out=out), config=LiveConfig())
    with pytest.raises(ConfigurationError, match="--overwrite"):
        score(clips, task)
    assert (out / "a.csv").read_bytes() == b"media"
    assert not (out / RECORDS).exists()
    assert score(clips, task, overwrite=True).written
    other = Task(plan=Plan(out=out, cut=0.3), config=LiveConfig())
    with pytest.raises(ConfigurationError, match="--overwrite"):  # ours, but of other settings
        score(clips, other)
    pool = Workers(task, recognizer="whisper-tiny")
    with pytest.raises(ConfigurationError, match="--overwrite"):  # and of other models
        score_all(find_clips([str(clips)]), task, pool, Watcher())


def test_a_folder_that_the_workers_do_not_share_is_said(tmp_path: Path) -> None:
    clips = files(tmp_path / "clips", "a.mp4")
    task = Task(plan=Plan(out=tmp_path / "out"), config=LiveConfig())
    theirs = replace(task, plan=replace(task.plan, out=tmp_path / "elsewhere"))
    listing = find_clips([str(clips)])
    with pytest.raises(ConfigurationError, match="not the same folder on every machine"):
        score_all(listing, task, Workers(theirs), Watcher(), patience_s=0)
    assert not (tmp_path / "out/summary.csv").exists()
    score(clips, task)
    (clips / "a.mp4").write_bytes(b"another clip")  # here lies what the clip was before
    with pytest.raises(ConfigurationError, match="not the same folder"):
        score_all(find_clips([str(clips)]), task, Workers(theirs), Watcher(), patience_s=0)


@pytest.mark.parametrize("name", ["a.words.csv", "a_physio.json", "a.overlay.mp4", "summary.csv"])
def test_nor_is_any_second_file(tmp_path: Path, name: str) -> None:
    clips, out = files(tmp_path / "clips", "a.mp4"), files(tmp_path / "out", name)
    task = Task(plan=Plan(out=out, formats=("csv", "bids"), overlay=True), config=LiveConfig())
    with pytest.raises(ConfigurationError, match="--overwrite"):
        score(clips, task)
    assert (out / name).read_bytes() == b"media"


def test_a_clip_called_summary_leaves_the_summary_its_name(tmp_path: Path) -> None:
    clips = files(tmp_path / "clips", "summary.mp4")
    task = Task(plan=Plan(out=tmp_path / "out"), config=LiveConfig())
    score(clips, task)
    assert (tmp_path / "out/summary.mp4.csv").exists()
    assert (tmp_path / "out/summary.csv").read_text().startswith("file,seconds")


def test_strict_fails_on_the_first_bad_clip(tmp_path: Path) -> None:
    clips = files(tmp_path / "clips", "a.mp4", "bad.mp4")
    task = Task(plan=Plan(out=tmp_path / "out"), config=LiveConfig())
    with pytest.raises(SourceError, match=r"bad\.mp4: holds nothing"):
        score(clips, task, strict=True)


def test_a_worker_that_lacks_a_model_says_so_and_fetches_nothing(tmp_path: Path) -> None:
    settings = ["speech.backend=none", f"models.directory={tmp_path}"]
    with ExitStack() as opened:
        task = Task(plan=Plan(out=tmp_path / "out"), config=load_config(None, settings))
        ready, _ = task.open(opened)
    assert list(ready.unavailable) == ["vision"]  # words are switched off by the settings
    assert "offline" in ready.unavailable["vision"]
    assert list(ready.encoders) == ["audio"]
    assert ready.settings == task.fingerprint(ready.encoders, "")
    assert ready.settings != task.fingerprint({**ready.encoders, "vision": "face"}, "")
