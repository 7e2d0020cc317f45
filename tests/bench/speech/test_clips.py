"""Where clips, their words and times come from, and what is said when they are not as they should be."""

from __future__ import annotations

import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_bench.speech.clips import (
    NotAlignedError,
    folder_clips,
    forced_alignment,
    normalise,
    read_sound,
    real_clips,
)
from emi_bench.speech.conditions import CONDITIONS, make_condition
from emi_live.errors import ConfigurationError

RATE_HZ = 16_000


def write_silence(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        file.writeframes(bytes(RATE_HZ))


@pytest.fixture
def folder(tmp_path: Path, assets: Path) -> Path:
    """Two clips: one with times, one of words that no dictionary has."""
    for suffix in (".wav", ".txt", ".json"):
        shutil.copyfile(assets / f"speech/librivox_sense_0880{suffix}", tmp_path / f"a{suffix}")
    write_silence(tmp_path / "b.wav")
    (tmp_path / "b.txt").write_text("Xyzzyfoo, blah!")
    write_silence(tmp_path / "nobody-wrote-down.wav")
    return tmp_path


@pytest.mark.assets
def test_a_folder_s_clips_have_the_times_given_or_say_why_they_have_none(folder: Path) -> None:
    first, second = folder_clips(folder)
    assert (first.name, first.times, round(first.seconds, 2)) == ("a", "given", 2.99)
    assert [word.text for word in first.words] == normalise("he was not an ill-disposed young man")
    assert [round(word.end_s or 0.0, 2) for word in first.words][:3] == [0.33, 0.56, 1.06]
    assert (second.name, second.times) == ("b", "none")
    assert "xyzzyfoo" in second.note


@pytest.mark.assets
def test_alignment_finds_the_times_that_were_given(folder: Path) -> None:
    (folder / "b.txt").unlink()
    (given,) = folder_clips(folder)
    (folder / "a.json").unlink()
    (found,) = folder_clips(folder)
    assert found.times == "aligned"
    off = [abs((a.end_s or 0) - (b.end_s or 0)) for a, b in zip(found.words, given.words, strict=True)]
    assert max(off) <= 0.05


@pytest.mark.slow
def test_alignment_of_synthetic_speech_is_near_the_truth() -> None:
    pytest.importorskip("espeakng_loader")
    from emi_bench.speech.synthetic import monologue

    off_s = []
    for seed, voice in enumerate(("en-us", "en-us+f2", "en+m3")):
        said = monologue(10.0, seed, voice=voice)
        ends_s = forced_alignment(said.samples, [word.text for word in said.words])
        off_s += [abs(found - word.end_s) for found, word in zip(ends_s, said.words, strict=True)]
    assert len(off_s) > 30
    assert np.median(off_s) <= 0.04
    assert np.percentile(off_s, 90) <= 0.2


def test_words_that_are_not_in_the_sound_are_not_found() -> None:
    with pytest.raises(NotAlignedError, match="text"):
        forced_alignment(np.zeros(8000, np.float32), [])
    with pytest.raises(NotAlignedError, match="words"):
        forced_alignment(np.zeros(1600, np.float32), ["many", "words", "in", "no", "time", "at", "all"])


@pytest.mark.slow
@pytest.mark.assets
def test_the_project_s_clips_all_have_words_and_times(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMI_TEST_ASSETS", str(assets))
    clips = list(real_clips())
    assert (len(clips), sum(len(clip.words) for clip in clips)) == (8, 95)
    for clip in clips:
        ends = [word.end_s for word in clip.words]
        assert None not in ends
        assert ends == sorted(ends, key=lambda end_s: end_s or 0.0)
        assert (ends[-1] or 0.0) <= clip.seconds


def test_what_is_no_clip_is_one_line_with_a_remedy(tmp_path: Path) -> None:
    def refusal() -> str:
        with pytest.raises(ConfigurationError) as refused:
            list(folder_clips(tmp_path))
        return str(refused.value)

    assert "holds no clip: put NAME.wav" in refusal()
    write_silence(tmp_path / "a.wav")
    assert "holds no clip" in refusal()
    (tmp_path / "a.txt").write_text("…")
    assert "has no words" in refusal()
    (tmp_path / "a.txt").write_text("yes")
    (tmp_path / "a.json").write_text("[]")
    assert "holds no times of words" in refusal()
    (tmp_path / "a.json").write_text(json.dumps({"w": [{"b": 0.0, "d": 0.2, "t": "no"}]}))
    assert "has other words than a.txt" in refusal()
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00yes")
    assert "save it as UTF-8" in refusal()


@pytest.mark.assets
def test_sound_of_another_rate_keeps_its_length(assets: Path) -> None:
    assert read_sound(assets / "speech/jfk.flac").size == pytest.approx(11.0 * RATE_HZ, abs=RATE_HZ // 100)


@pytest.mark.parametrize("name", ["silence", "white", "pink", "music", "applause", "hold-tone", "breathing"])
def test_sounds_without_words_are_the_same_each_time(name: str) -> None:
    clip = make_condition(name, 2.0)
    assert clip.samples.size == 2 * RATE_HZ
    np.testing.assert_array_equal(clip.samples, make_condition(name, 2.0).samples)
    assert np.abs(clip.samples).max() <= 1.0
    assert clip.words == ()


def test_noise_has_its_level_and_its_colour() -> None:
    white, pink = (make_condition(name, 10.0).samples.astype(np.float64) for name in ("white", "pink"))
    for samples in (white, pink):
        assert 20 * np.log10(np.sqrt(np.mean(samples**2))) == pytest.approx(-30.0, abs=0.01)

    def octave(samples: NDArray[np.float64], low_hz: float) -> float:
        power = np.abs(np.fft.rfft(samples)) ** 2
        hz = np.fft.rfftfreq(samples.size, 1 / RATE_HZ)
        return float(power[(hz >= low_hz) & (hz < 2 * low_hz)].sum())

    assert octave(pink, 2000) / octave(pink, 250) == pytest.approx(1.0, abs=0.15)  # as much in each octave
    assert octave(white, 2000) / octave(white, 250) == pytest.approx(8.0, abs=0.8)


def test_a_telephone_loses_what_is_above_its_band_and_keeps_the_words() -> None:
    pytest.importorskip("espeakng_loader")
    clean, telephone = make_condition("clean", 8.0), make_condition("telephone", 8.0)
    assert telephone.words == clean.words
    hz = np.fft.rfftfreq(clean.samples.size, 1 / RATE_HZ)
    above, power = hz > 4200, [np.abs(np.fft.rfft(clip.samples)) ** 2 for clip in (clean, telephone)]
    shares = [float(each[above].sum() / each.sum()) for each in power]
    assert shares[1] < 0.02 * shares[0]
    assert {name for name in CONDITIONS if not name.startswith("words-in-")} == {
        *("silence", "white", "pink", "music", "babble", "applause", "hold-tone", "breathing"),
        *("german", "french", "clean", "two-speakers", "telephone"),
    }


@pytest.mark.assets
def test_real_words_are_mixed_into_each_sound_10_db_above_it() -> None:
    sound, mixed = make_condition("pink", 12.0), make_condition("words-in-pink", 12.0)
    words = mixed.samples - sound.samples
    spoken = words[5 * RATE_HZ :]
    level = 20 * np.log10(np.sqrt(np.mean(spoken[: 4 * RATE_HZ] ** 2) / np.mean(sound.samples**2)))
    assert 8.0 < level < 12.0
    assert len(mixed.words) == 14
    assert all(word.end_s is None or word.end_s > 5.0 for word in mixed.words)
    assert not words[: 5 * RATE_HZ].any()
