"""Whisper base itself, as it runs live: words, windows, loops, numbers, languages (EMI_TEST_MODELS)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from emi_models.encoders.voice_activity import VoiceGate
from emi_models.errors import ModelIntegrityError, ModelUnavailableError
from emi_models.speech.incremental import Endpointer, IncrementalRecognizer, IncrementalSettings
from emi_models.speech.isolated import IsolatedRecognizer, isolated_command
from emi_models.speech.log_mel import FRAMES_PER_S, LogMel
from emi_models.speech.recognizer import Recognizer, Utterance
from emi_models.speech.whisper import LanguageGuess, WhisperRecognizer
from tests.models.encoders.media import read_sound

pytestmark = pytest.mark.assets
JFK = (
    "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
)
CHUNK = 512


@pytest.fixture(scope="module")
def english(whisper_base: Path) -> Iterator[WhisperRecognizer]:
    recognizer = WhisperRecognizer(whisper_base)
    yield recognizer
    recognizer.close()


def plain(text: str) -> str:
    return " ".join("".join(c for c in text.casefold() if c.isalnum() or c in " '").split())


def in_one_piece(recognizer: Recognizer, sound: np.ndarray) -> str:
    recognizer.begin()
    recognizer.accept(sound)
    return " ".join(word.text for word in recognizer.finish().words)


def streamed(
    recognizer: Recognizer, sound: np.ndarray, every_s: float = 0.5
) -> tuple[str, IncrementalRecognizer]:
    """The committed words, in the utterances that the voice gate finds."""
    gate, endpointer = VoiceGate(), Endpointer(0.5, 0.5, 0.3)
    words = IncrementalRecognizer(recognizer, IncrementalSettings(every_s=every_s))
    sound = np.concatenate((sound, np.zeros(16_000, np.float32)))
    committed: list[str] = []
    for start in range(0, sound.size - CHUNK, CHUNK):
        chunk = sound[start : start + CHUNK]
        for block in endpointer.push(chunk, float(gate.push(chunk)[0])):
            if block.first:
                words.begin()
            if update := words.push(block.samples, block.voiced):
                committed += [word.text for word in update.committed]
            if block.last:
                committed += [word.text for word in words.finish().committed]
    return " ".join(committed), words


@pytest.mark.slow
def test_a_sentence_is_recognised_word_for_word_in_one_piece_and_live(
    english: WhisperRecognizer, assets: Path
) -> None:
    sound = read_sound(assets / "speech/jfk.flac")
    assert plain(in_one_piece(english, sound)) == JFK
    assert plain(streamed(english, sound)[0]) == JFK


def test_words_lie_in_the_sound_in_order(english: WhisperRecognizer, assets: Path) -> None:
    sound = read_sound(assets / "speech/librivox_sense_0880.wav")
    english.begin()
    english.accept(sound)
    words = english.hypothesis().words
    times = [time for word in words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert 0.0 <= times[0] < times[-1] <= sound.size / 16_000
    assert all(0.0 <= word.probability <= 1.0 for word in words)
    assert english.hypothesis() == english.hypothesis()


def test_the_encoder_is_given_the_speech_and_a_margin_not_30_s(
    english: WhisperRecognizer, monkeypatch: pytest.MonkeyPatch, assets: Path
) -> None:
    windows: list[int] = []
    encode = english._encode

    def watched(mel: LogMel, window: int, **how: bool) -> object:
        windows.append(window)
        return encode(mel, window, **how)

    monkeypatch.setattr(english, "_encode", watched)
    sound = read_sound(assets / "speech/jfk.flac")
    for seconds in (1.0, 4.0, 11.0):
        in_one_piece(english, sound[: round(seconds * 16_000)])
    assert windows == [seconds * FRAMES_PER_S for seconds in (6, 8, 16)]  # at least 4 s more, in steps of 2 s


@pytest.mark.slow
def test_where_it_repeats_itself_it_looks_again_and_loses_nothing(
    english: WhisperRecognizer, assets: Path
) -> None:
    sound = read_sound(assets / "speech/librispeech_6930-75918-0000.flac")
    assert plain(in_one_piece(english, sound)).endswith("returned to its place amidst the tents")
    text, words = streamed(english, sound)
    assert plain(text) == "concord returned to its place amidst the tents"
    assert not words.dropped["compression"]


@pytest.mark.slow
@pytest.mark.parametrize(("clip", "kept"), [("haha", "so funny"), ("nono", "no")])
def test_laughter_and_loops_leave_the_other_words(
    whisper_base: Path, assets: Path, clip: str, kept: str
) -> None:
    # Not int8, which rounds otherwise on other processors: on an AMD EPYC it hears no words in this laughter.
    recognizer = WhisperRecognizer(whisper_base, compute_type="float32")
    text, words = streamed(recognizer, read_sound(assets / f"faults/{clip}.wav"), every_s=1.0)
    recognizer.close()
    assert plain(text).endswith(kept)
    assert words.dropped["repetition"]
    assert len(text.split()) <= 8


@pytest.mark.slow
def test_numbers_are_not_said_twice(english: WhisperRecognizer, assets: Path) -> None:
    text, _ = streamed(english, read_sound(assets / "faults/num.wav"))
    digits = "".join(letter for letter in text if letter.isdigit())
    assert digits.startswith("415")
    assert digits.count("415") == 1
    assert digits.endswith("1984")
    assert len(digits) <= len(
        "4155552671120050301984"
    )  # "twelve hundred and fifty" as 1250, or as 1200 and 50
    assert digits.count("30") == digits.count("50") == 1


def test_a_process_of_its_own_gives_the_same(
    english: WhisperRecognizer, whisper_base: Path, assets: Path
) -> None:
    sound = read_sound(assets / "speech/LJ001-0002.wav")
    isolated = IsolatedRecognizer(isolated_command("whisper", folder=str(whisper_base)))
    assert (isolated.name, isolated.agreement) == (english.name, english.agreement)
    assert in_one_piece(isolated, sound) == in_one_piece(english, sound)
    isolated.forget()
    assert in_one_piece(isolated, sound) == in_one_piece(english, sound)
    assert isolated.batching == english.batching
    utterances = [Utterance(sound), Utterance(sound[:-1600], last=True)]
    together = isolated.recognize(utterances)
    assert together == [answer for one in utterances for answer in english.recognize([one])]
    isolated.close()


def test_german_is_told_by_itself_and_translated(whisper_base: Path, assets: Path) -> None:
    sound = read_sound(assets / "voice/emodb/03a07Nc.flac")  # in sieben Stunden wird es soweit sein
    auto = WhisperRecognizer(whisper_base, language="auto")
    assert plain(in_one_piece(auto, sound)).startswith("in sieben stunden wird es so")
    auto.begin()
    auto.accept(sound)
    assert auto.hypothesis().language == "de"
    auto.close()
    english = WhisperRecognizer(whisper_base, language="auto", translate=True)
    assert plain(in_one_piece(english, sound)).startswith("in 7 hours it will be")
    assert english.name == "Whisper base (int8, auto to English)"
    english.close()


def test_another_language_than_the_one_that_was_set_is_reported(
    english: WhisperRecognizer, assets: Path
) -> None:
    english.forget()
    english.begin()
    english.accept(read_sound(assets / "faults/es.wav"))
    assert english.finish().other_language == "es"
    english.begin()
    english.accept(read_sound(assets / "speech/jfk.flac"))
    assert english.finish().other_language is None


def test_a_language_that_does_not_exist_is_refused(whisper_base: Path) -> None:
    with pytest.raises(ValueError, match="'de'"):
        WhisperRecognizer(whisper_base, language="German")


def test_a_language_that_the_model_does_not_know_is_refused_at_the_start(whisper_base: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="Cantonese"):  # came with large-v3
        WhisperRecognizer(whisper_base, language="yue")


def test_a_tokenizer_of_another_model_is_refused(whisper_base: Path, tmp_path: Path) -> None:
    for file in whisper_base.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {}, "merges": []}}')
    with pytest.raises(ModelIntegrityError, match="tokenizer"):
        WhisperRecognizer(tmp_path)
    with pytest.raises(ModelUnavailableError, match="tokenizer"):  # as a process of its own says it
        IsolatedRecognizer(isolated_command("whisper", folder=str(tmp_path)))


def test_the_guess_of_the_language_needs_evidence() -> None:
    guess = LanguageGuess("auto")
    guess.take([("<|de|>", 0.4)], 1.0)
    assert guess.language == "de"  # nothing better is known
    guess.take([("<|nl|>", 0.5)], 2.0)
    assert guess.language == "de"
    guess.take([("<|nl|>", 0.7)], 4.5)
    assert guess.language == "nl"
    assert not guess.wanted(last=True)
    guess.begin()
    assert guess.wanted(last=False)
    assert guess.language == "nl"
    guess.forget()
    assert guess.language == "en"
    fixed = LanguageGuess("en")
    assert [fixed.wanted(last=last) for last in (False, True)] == [False, True]
    fixed.take([("<|es|>", 0.9)], 1.0)
    assert fixed.other is None
    fixed.take([("<|es|>", 0.9)], 3.0)
    assert [fixed.language, fixed.other] == ["en", "es"]
