from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emi_models.errors import ModelIntegrityError, ModelUnavailableError
from emi_models.speech.guards import Guards
from emi_models.speech.incremental import SoundBuffer
from emi_models.speech.recognizer import RecognizedWord, Segment, Utterance
from emi_models.speech.whisper import WhisperRecognizer
from tests.models.speech.tiny_whisper import make_tiny_whisper

RATE_HZ = 16_000
SOUND = 0.1 * np.random.default_rng(0).standard_normal(3 * RATE_HZ).astype(np.float32)


@pytest.fixture(scope="module")
def saying(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return lambda says: make_tiny_whisper(tmp_path_factory.mktemp("whisper"), says, until_s=2.0)


@pytest.fixture(scope="module")
def model(saying: Callable[[str], Path]) -> Path:
    return saying("how good to see you")


@pytest.fixture(scope="module")
def recognizer(model: Path) -> WhisperRecognizer:
    return WhisperRecognizer(model)


def test_words_come_with_times(recognizer: WhisperRecognizer) -> None:
    recognizer.begin()
    recognizer.accept(SOUND)
    words = recognizer.finish().words
    assert [word.text for word in words] == ["how", "good", "to", "see", "you"]
    times = [time for word in words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert all(type(time) is float for time in times)
    assert times[-1] <= 3.0
    assert all(word.probability > 0.9 for word in words)


def test_an_utterance_grows(recognizer: WhisperRecognizer) -> None:
    recognizer.begin()
    assert recognizer.hypothesis().words == ()
    recognizer.accept(SOUND[:RATE_HZ])
    early = recognizer.hypothesis().words
    assert 0 < len(early) < 5  # it writes five, but the last are not said yet
    assert all(word.end_s <= 1.0 for word in early)
    recognizer.accept(SOUND[RATE_HZ:])
    assert recognizer.hypothesis() == recognizer.hypothesis()
    assert len(recognizer.finish().words) == 5
    recognizer.begin()
    assert recognizer.finish().words == ()


def test_a_dropped_utterance_leaves_nothing(recognizer: WhisperRecognizer) -> None:
    recognizer.begin()
    recognizer.accept(SOUND)
    recognizer.begin()
    assert recognizer.hypothesis().words == ()


class Watched:
    """A model that notes where its encoder was to leave its result."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.to_cpu: list[bool] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, sound: Any, to_cpu: bool) -> Any:
        self.to_cpu.append(to_cpu)
        return self._model.encode(sound, to_cpu=to_cpu)


def test_utterances_that_are_recognised_together_get_the_words_that_each_gets_alone(
    recognizer: WhisperRecognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    utterances = [
        Utterance(SOUND[:RATE_HZ]),
        Utterance(SOUND),
        Utterance(SOUND[:800]),  # too short for words
        Utterance(SOUND[: 2 * RATE_HZ], "how good", last=True),
        Utterance(SOUND[: 2 * RATE_HZ - 1000], last=True),
    ]
    alone = []
    for one in utterances:
        recognizer.begin(one.prompt)
        recognizer.accept(one.samples)
        alone.append(recognizer.finish() if one.last else recognizer.hypothesis())
    recognizer.begin()
    recognizer.accept(SOUND)
    calls: list[int] = []
    decode = recognizer._decode

    def watched(rows: Sequence[Any], start: list[int]) -> list[Segment]:
        calls.append(len(rows))
        return decode(rows, start)

    monkeypatch.setattr(recognizer, "_decode", watched)
    assert recognizer.recognize(utterances) == alone
    assert sorted(calls) == [1, 1, 2], "those with equally long windows and no prompt are one call"
    # What is joined must come back from a GPU, where NumPy cannot read it.
    model = Watched(recognizer._model)
    monkeypatch.setattr(recognizer, "_model", model)
    for on_gpu in (False, True):
        monkeypatch.setattr(recognizer, "_on_gpu", on_gpu)
        model.to_cpu.clear()
        assert recognizer.recognize(utterances) == alone
        assert model.to_cpu == [on_gpu] * 4
    model.to_cpu.clear()
    assert recognizer.recognize(utterances[:1]) == alone[:1]
    assert model.to_cpu == [False]
    assert len(recognizer.finish().words) == 5, "what was accepted before stays"
    assert recognizer.recognize([]) == []


def words_of(text: str, each_s: float = 0.2) -> tuple[RecognizedWord, ...]:
    return tuple(
        RecognizedWord(word, i * each_s, (i + 1) * each_s, 0.9) for i, word in enumerate(text.split())
    )


@pytest.mark.parametrize(
    ("continuing", "alone", "kept"),
    [
        (Segment(words_of("the"), 0.2, -1.1), Segment(words_of("in order for this"), 0.7, -0.2), 4),
        (Segment(words_of("the"), 0.2, -1.1), Segment(words_of("this to"), 0.7, -1.4), 1),
        (Segment(words_of("the"), 0.2, -1.1), Segment(words_of("to " * 30), 0.7, -0.1, stopped=True), 1),
        (Segment(words_of("the"), 0.2, -0.1), Segment(words_of("in order"), 0.7, -0.05), 1),
        (Segment(words_of("to " * 30), 0.2, -0.1, stopped=True), Segment(words_of("to go"), 0.7, -0.3), 2),
    ],
)
def test_where_the_words_before_mislead_it_decodes_again_without_them(
    recognizer: WhisperRecognizer,
    monkeypatch: pytest.MonkeyPatch,
    continuing: Segment,
    alone: Segment,
    kept: int,
) -> None:
    monkeypatch.setattr(
        recognizer, "_decode", lambda rows, start: [continuing if row.prompt else alone for row in rows]
    )
    recognizer.begin("how good")
    recognizer.accept(SOUND)
    (segment,) = recognizer.hypothesis().segments
    assert len(segment.words) == kept
    assert segment.no_speech == 0.2  # of the first: a longer silence behind the sound makes it seem silent


def test_words_that_are_guessed_before_they_are_said_are_left_out(
    recognizer: WhisperRecognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    guessed = (
        *words_of("how good"),
        RecognizedWord("to", 0.4, 0.4, 0.9),
        RecognizedWord("see", 0.4, 0.4, 0.9),
    )
    monkeypatch.setattr(recognizer, "_decode", lambda *given: [Segment(guessed, 0.1, -0.1)])
    recognizer.begin()
    recognizer.accept(SOUND)
    assert [word.text for word in recognizer.hypothesis().words] == ["how", "good"]


def test_a_loop_is_not_speech(saying: Callable[[str], Path]) -> None:
    looping = WhisperRecognizer(saying(" ".join(["la"] * 60)))
    looping.begin()
    looping.accept(SOUND)
    heard = looping.finish()
    assert len(heard.words) > 10
    guards, voice = Guards(), SoundBuffer(4.0)
    voice.append(SOUND, SOUND.size)
    assert [word.text for word in guards.passed(heard, voice)] == ["la"]
    assert guards.dropped == {"repetition": len(heard.words) - 1}
    looping.close()


def test_it_is_named_by_its_model(recognizer: WhisperRecognizer) -> None:
    assert recognizer.name == "Whisper tiny-whisper (int8)"


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"model\.bin"):
        WhisperRecognizer(tmp_path)


def test_a_damaged_model_is_refused(tmp_path: Path, model: Path) -> None:
    for name in ("config.json", "tokenizer.json", "vocabulary.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((model / name).read_bytes())
    (tmp_path / "model.bin").write_bytes(b"not a model")
    with pytest.raises(ModelIntegrityError, match="int8"):
        WhisperRecognizer(tmp_path)
