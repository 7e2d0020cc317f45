from __future__ import annotations

import csv
import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from emi_live.cli.errors import run_app
from emi_live.cli.prepare import synth_app as app
from emi_models.data import DataError, open_clips
from emi_models.data.synth import NOTICE, SynthConfig, SynthCorpus, SynthError, expected_bytes, write_corpus
from emi_models.data.unpickle import read_pickle

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = SynthConfig(clips=60, seed=3, missing_vision=0.2, missing_audio=0.2, missing_text_train=0.2)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "synth"
    done: list[int] = []
    size = write_corpus(SynthCorpus(CONFIG), folder, done.append)
    assert done == list(range(1, 61))
    assert size == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return folder


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def test_the_split_files_are_the_data_sets_to_the_letter(written: Path) -> None:
    for split in ("train", "valid"):
        first = (written / f"{split}_split.csv").read_text(encoding="utf-8").partition("\n")[0]
        assert first == "Filename,Admiration,Amusement,Determination,Empathic Pain,Excitement,Joy"
        table = rows(written / f"{split}_split.csv")[1:]
        corpus = SynthCorpus(CONFIG)
        assert [row[0] for row in table] == list(corpus.ids(split))
        assert all(len(row[0]) == 5 for row in table)
        ratings = np.array([[float(cell) for cell in row[1:]] for row in table])
        np.testing.assert_allclose(ratings, corpus.targets(split), atol=1e-6)


def test_every_stream_is_a_pickled_array_or_absent(written: Path) -> None:
    corpus, absent = SynthCorpus(CONFIG), 0
    for clip_id in corpus.ids("train") + corpus.ids("valid"):
        clip = corpus.load(clip_id)
        for folder, track in (("vit", clip.vision), ("wav2vec2", clip.audio), ("gte", clip.text)):
            path = written / folder / f"{clip_id}.pkl"
            assert path.is_file() == bool(len(track.t_ns))
            if not path.is_file():
                absent += 1
                continue
            array = read_pickle(path)
            assert isinstance(array, np.ndarray)
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, track.values[0] if folder == "gte" else track.values)
        words = (written / "text" / f"{clip_id}.txt").read_text(encoding="utf-8")
        assert bool(words) == bool(len(clip.text.t_ns))
    assert absent > 10


def test_the_truth_is_beside_it_and_says_that_it_is_synthetic(written: Path) -> None:
    metadata = json.loads((written / "truth.json").read_text(encoding="utf-8"))
    assert metadata["notice"] == NOTICE
    assert metadata["settings"]["seed"] == 3
    assert metadata["settings"]["sizes"]["audio_hz"] == 10.0
    truth = SynthCorpus(CONFIG).truth("00007")
    told = metadata["clips"]["00007"]
    assert told["topic"] == truth.topic
    np.testing.assert_allclose(told["intensities"], truth.intensities, atol=1e-4)
    assert [moment[2] for moment in told["moments"]] == [moment.topic for moment in truth.moments]


def test_an_earlier_corpus_is_replaced_whole_and_only_when_asked(tmp_path: Path) -> None:
    write_corpus(SynthCorpus(SynthConfig(clips=20, missing_vision=0.0)), tmp_path, lambda _: None)
    open_clips(tmp_path)  # which converts the features and keeps them next to
    other = SynthCorpus(SynthConfig(clips=10, missing_vision=1.0))
    with pytest.raises(SynthError, match="--force"):
        write_corpus(other, tmp_path, lambda _: None)
    write_corpus(other, tmp_path, lambda _: None, replace=True)
    assert not list((tmp_path / "vit").iterdir())
    clips = open_clips(tmp_path)
    assert len(clips.ids("train") + clips.ids("valid")) == 10
    assert not len(clips.load("00003").vision.t_ns)


def test_a_corpus_that_was_interrupted_is_no_data_set_and_can_be_replaced(tmp_path: Path) -> None:
    class Interrupted(Exception):  # noqa: N818  # stands for KeyboardInterrupt
        pass

    def stop(done: int) -> None:
        if done == 5:
            raise Interrupted

    corpus = SynthCorpus(SynthConfig(clips=10))
    with pytest.raises(Interrupted):
        write_corpus(corpus, tmp_path, stop)
    with pytest.raises(DataError, match="train_split"):
        open_clips(tmp_path)
    write_corpus(corpus, tmp_path, lambda _: None, replace=True)
    assert len(open_clips(tmp_path).ids("train")) == 6


def test_what_is_no_synthetic_corpus_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "train_split.csv").write_text("real")
    with pytest.raises(SynthError, match="no synthetic corpus"):
        write_corpus(SynthCorpus(SynthConfig(clips=10)), tmp_path, lambda _: None, replace=True)
    assert (tmp_path / "train_split.csv").read_text() == "real"


def test_the_data_sets_reader_finds_the_same_clips(written: Path) -> None:
    clips, corpus = open_clips(written), SynthCorpus(CONFIG)
    assert clips.shapes == corpus.shapes
    assert dict(clips.encoders) == dict(corpus.encoders)
    assert "synthetic" in clips.description
    for split in ("train", "valid"):
        assert clips.ids(split) == corpus.ids(split)
        np.testing.assert_allclose(clips.targets(split), corpus.targets(split), atol=1e-6)
    for clip_id in corpus.ids("train"):
        found, made = clips.load(clip_id), corpus.load(clip_id)
        for modality in ("vision", "audio", "text"):
            ours, theirs = getattr(made, modality), getattr(found, modality)
            np.testing.assert_array_equal(theirs.values, ours.values[: len(theirs.values)])
            if modality != "text":
                np.testing.assert_array_equal(theirs.t_ns, ours.t_ns[: len(theirs.t_ns)])


def test_the_size_said_beforehand_is_about_right(tmp_path: Path) -> None:
    corpus = SynthCorpus(SynthConfig(clips=300))
    assert expected_bytes(corpus) == pytest.approx(write_corpus(corpus, tmp_path, lambda _: None), rel=0.15)


def test_what_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SynthError, match="be written"):
        write_corpus(SynthCorpus(SynthConfig(clips=10)), tmp_path / "file" / "folder", lambda _: None)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run_app(app, arguments, "emi synth")
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--clips", "20", "--out", str(tmp_path / "new"), "--missing-text", "1") == 0
    said = capsys.readouterr()
    assert "wrote 20 clips (13 train, 7 valid)" in said.out
    assert NOTICE in said.out
    assert not list((tmp_path / "new" / "gte").iterdir())


def test_the_command_keeps_its_hands_off_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for force in ((), ("--force",)):
        assert run("--clips", "10", "--out", str(tmp_path), *force) == 2
        assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert run("--clips", "10", "--out", str(tmp_path / "mine.txt")) == 2
    assert run("--clips", "5", "--out", str(tmp_path / "few")) == 2
    assert not (tmp_path / "few").exists()
    assert run("--clips", "10", "--out", str(tmp_path / "new")) == 0
    assert run("--clips", "10", "--out", str(tmp_path / "new")) == 2
    assert "--force" in capsys.readouterr().err
    assert run("--clips", "10", "--out", str(tmp_path / "new"), "--force") == 0


def test_the_command_loads_no_torch_for_its_help() -> None:
    import subprocess

    code = "import sys, emi_live.cli.prepare; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
