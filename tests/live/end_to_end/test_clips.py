"""The test clips in exact mode, through the program itself."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest

from emi_models import EMOTIONS, MODALITIES
from emi_models.checkpoint import packaged_checkpoint, read_header
from tests.live.end_to_end.support import HOP_S, Run, emi_live

pytestmark = [pytest.mark.assets, pytest.mark.slow]


@pytest.fixture(scope="module")
def face_and_speech(assets: Path) -> Run:
    return emi_live(assets, "--input", assets / "av/face_and_speech.mp4")


@pytest.fixture(scope="module")
def face_lost(assets: Path) -> Run:
    return emi_live(assets, "--input", assets / "av/face_lost_4s_to_8s_speech_throughout.mp4", backend="none")


@pytest.fixture(scope="module")
def speech_stops(assets: Path) -> Run:
    return emi_live(assets, "--input", assets / "av/face_throughout_speech_stops_at_5s.mp4")


def assert_steady(run: Run) -> None:
    """An estimate every hop, finite and in range; it stays as it is while nothing is live."""
    assert run.exit_code == 0, run.stderr
    assert [line["t"] for line in run.lines] == [round(HOP_S * k, 3) for k in range(1, len(run.lines) + 1)]
    for line in run.lines:
        assert tuple(line["intensities"]) == EMOTIONS
        assert all(0.0 <= value <= 1.0 for value in line["intensities"].values())
        assert tuple(line["modalities"]) == MODALITIES
    for one, other in itertools.pairwise(run.lines):
        if not any(report["used"] for line in (one, other) for report in line["modalities"].values()):
            assert one["intensities"] == other["intensities"]


def test_face_and_speech(face_and_speech: Run) -> None:
    run = face_and_speech
    assert_steady(run)
    assert 55 <= len(run.lines) <= 56
    modalities = run.at(8.0)["modalities"]
    assert {name: report["state"] for name, report in modalities.items()} == dict.fromkeys(MODALITIES, "live")
    assert all(report["used"] for report in modalities.values())
    spans_s = read_header(packaged_checkpoint("compact")).spans_s
    for name, frames_a_s in (("vision", 30), ("audio", 50)):
        # Frames less than a span older than the newest are shown, that one included.
        assert modalities[name]["frames"] == math.ceil(spans_s[name] * frames_a_s)
    last = run.lines[-1]["modalities"]["text"]
    words = f"{last['committed']} {last['partial']}".split()
    assert "country" in words
    assert "you" in words
    assert run.lines[-1]["engine"] == "onnxruntime-cpu"
    assert "words: pocketsphinx" in run.stderr


def test_two_runs_are_identical(face_and_speech: Run, assets: Path) -> None:
    again = emi_live(assets, "--input", assets / "av/face_and_speech.mp4", "--duration", "5")
    known = int(4.6 / HOP_S)  # where the run ends, the last words are committed earlier
    assert len(again.lines) > known
    assert again.lines[known - 1]["modalities"]["text"]["used"]
    assert again.comparable()[:known] == face_and_speech.comparable()[:known]


def test_a_lost_face_turns_missing_and_comes_back(face_lost: Run) -> None:
    assert_steady(face_lost)
    states = face_lost.states("vision")
    last_face_s, return_s = 3.97, 7.9
    missing = [t for t, state in states if state == "missing"]
    assert last_face_s + 1.0 <= missing[0] <= last_face_s + 1.0 + HOP_S
    assert return_s - HOP_S <= missing[-1] <= return_s + 2 * HOP_S
    assert all(missing[0] <= t <= missing[-1] for t, state in states if state != "live")
    assert face_lost.at(6.0)["modalities"]["vision"]["reason"] == "no face"
    assert face_lost.at(6.0)["modalities"]["audio"]["state"] == "live"


def test_speech_that_stops_takes_voice_and_then_words_with_it(speech_stops: Run) -> None:
    assert_steady(speech_stops)
    voice = [t for t, state in speech_stops.states("audio") if state == "live"][-1]
    assert 5.0 <= voice <= 5.5 + 1.0 + HOP_S
    after = speech_stops.at(8.0)["modalities"]
    assert (after["audio"]["state"], after["audio"]["reason"]) == ("missing", "silence")
    assert after["text"]["state"] == "live"
    last = speech_stops.lines[-1]["modalities"]
    assert (last["text"]["state"], last["text"]["reason"]) == ("missing", "no words")
    assert last["vision"]["state"] == "live"


def test_a_hard_cut_with_sound_shorter_than_picture(assets: Path) -> None:
    run = emi_live(assets, "--input", assets / "face/pyfeat_face_noface.mov", backend="none")
    assert_steady(run)
    assert {state for _, state in run.states("vision")} == {"live", "missing"}
    assert run.lines[-1]["t"] >= 6.2


def test_never_a_face(assets: Path) -> None:
    run = emi_live(assets, "--input", assets / "face/pyfeat_no_face.mp4", backend="none")
    assert_steady(run)
    assert {line["modalities"]["vision"]["reason"] for line in run.lines} == {"no face"}
    assert {line["modalities"]["vision"]["frames"] for line in run.lines} == {0}


@pytest.mark.parametrize("name", ["LJ001-0004.wav", "librivox_sense_0880.wav", "english_one_two_three.wav"])
def test_sound_alone(assets: Path, name: str) -> None:
    run = emi_live(assets, "--input", assets / "speech" / name)
    assert_steady(run)
    assert {line["modalities"]["vision"]["reason"] for line in run.lines} == {"no source"}
    assert "live" in {state for _, state in run.states("audio")}
    assert run.lines[-1]["modalities"]["text"]["committed"]
