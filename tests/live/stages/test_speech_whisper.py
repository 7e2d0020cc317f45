"""The speech stage with Whisper base on a talk that was made of real prompts."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import jiwer
import numpy as np
import pytest
from numpy.typing import NDArray

from emi_bench.speech.clips import normalise
from emi_live.messages import Packet, TranscriptPacket
from emi_models.encoders.voice_activity import VoiceGate
from emi_models.speech.whisper import WhisperRecognizer
from tests.live.stages.test_speech import Rig
from tests.models.encoders.media import read_sound

pytestmark = [pytest.mark.assets, pytest.mark.slow]
NS = 1_000_000_000
RATE_HZ = 16_000


@pytest.fixture(scope="module")
def whisper(whisper_base: Path) -> Iterator[WhisperRecognizer]:
    recognizer = WhisperRecognizer(whisper_base)
    yield recognizer
    recognizer.close()


def talk(assets: Path, pause_s: float, first: int, most: int) -> tuple[NDArray[np.float32], list[str]]:
    with (assets / "speech/prompts.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[first : first + most]
    pause = np.zeros(round(pause_s * RATE_HZ), np.float32)
    parts = [part for row in rows for part in (read_sound(assets / "speech" / row["file"]), pause)]
    return np.concatenate(parts), [word for row in rows for word in normalise(row["text"])]


def spanish(assets: Path) -> NDArray[np.float32]:
    return read_sound(assets / "faults/es.wav")[: 5 * RATE_HZ]


def error_rate(said: list[str], texts: list[str]) -> float:
    return float(jiwer.wer(" ".join(said), " ".join(word for text in texts for word in normalise(text))))


def committed(packets: Sequence[Packet]) -> list[tuple[str, int]]:
    """All words that were committed, and how long after their end, by the sound."""
    found: dict[int, tuple[str, int]] = {}
    for packet in packets:
        assert isinstance(packet, TranscriptPacket)
        for word in packet.words:
            if word.committed:
                found.setdefault(word.number, (word.text, packet.t_ns - word.end_ns))
    return list(found.values())


def test_words_are_committed_while_they_are_spoken(whisper: WhisperRecognizer, assets: Path) -> None:
    sound, said = talk(assets, pause_s=1.0, first=5, most=6)
    rig = Rig(whisper, VoiceGate())
    words = committed(rig.hear(sound, [512]) + rig.end())
    assert error_rate(said, [text for text, _ in words]) <= 0.08
    waits_s = sorted(wait_ns / NS for _, wait_ns in words)
    assert waits_s[len(waits_s) // 2] < 1.0  # the policy's own wait: two hypotheses, 0.5 s apart
    assert rig.count("speech.erased") < 0.4 * rig.count("speech.words")
    assert rig.count("speech.utterances") >= 5


def test_a_long_talk_without_a_pause_is_cut_and_goes_on(whisper: WhisperRecognizer, assets: Path) -> None:
    sound, said = talk(assets, pause_s=0.0, first=0, most=4)
    rig = Rig(whisper, VoiceGate(), trim_s=5.0, limit_s=8.0, min_silence_s=3.0)
    words = committed(rig.hear(sound, [512]) + rig.end())
    assert rig.count("speech.utterances") == 1
    assert rig.count("speech.cut_word") >= 2
    assert error_rate(said, [text for text, _ in words]) <= 0.10


def test_a_talk_that_nearly_repeats_itself_is_no_loop(whisper: WhisperRecognizer, assets: Path) -> None:
    """To increase, to decrease your speaking volume: said in a row, and the words before are the prompt."""
    sound, said = talk(assets, pause_s=0.0, first=18, most=4)
    rig = Rig(whisper, VoiceGate(), min_silence_s=3.0)
    words = committed(rig.hear(sound, [512]) + rig.end())
    assert rig.count("speech.cut_word") >= 1
    assert error_rate(said, [text for text, _ in words]) <= 0.08


def test_the_transcript_names_the_language_that_is_spoken(whisper_base: Path, assets: Path) -> None:
    recognizer = WhisperRecognizer(whisper_base, language="auto")
    rig = Rig(recognizer, VoiceGate(), language="auto")
    packets = rig.hear(spanish(assets), [512]) + rig.end()
    recognizer.close()
    assert [told(packet) for packet in packets if committed([packet])][-1] == "es"


def told(packet: Packet) -> str | None:
    assert isinstance(packet, TranscriptPacket)
    return packet.language


def test_another_language_than_the_one_that_was_set_is_counted_and_named(
    whisper: WhisperRecognizer, assets: Path
) -> None:
    whisper.forget()
    rig = Rig(whisper, VoiceGate())
    rig.hear(spanish(assets), [512])
    rig.end()
    assert rig.count("speech.other_language") == 1
    assert "Spanish" in rig.health.status("speech").detail
