from __future__ import annotations

from pathlib import Path

import jiwer
import pytest

from emi_bench.speech.synthetic import monologue
from emi_live.messages import TranscriptPacket
from emi_models.encoders.voice_activity import VoiceGate
from emi_models.speech.whisper import WhisperRecognizer
from tests.live.stages.test_speech import Rig

FOLDER = Path(__file__).parents[2] / "data" / "micro-whisper"
NS = 1_000_000_000


@pytest.fixture(scope="module")
def whisper() -> WhisperRecognizer:
    return WhisperRecognizer(FOLDER)


@pytest.mark.slow
def test_whisper_commits_words_while_they_are_spoken(whisper: WhisperRecognizer) -> None:
    talk = monologue(12.0, 77, pause_s=(0.7, 1.2))
    rig = Rig(whisper, VoiceGate())
    packets = rig.hear(talk.samples, [512]) + rig.end()
    shown: dict[int, tuple[str, int]] = {}  # number -> text, when it was first committed
    for packet in packets:
        assert isinstance(packet, TranscriptPacket)
        for word in packet.words:
            if word.committed:
                shown.setdefault(word.number, (word.text, packet.t_ns - word.end_ns))
    assert (
        jiwer.wer(" ".join(word.text for word in talk.words), " ".join(t for t, _ in shown.values())) <= 0.1
    )
    waits_s = sorted(wait_ns / NS for _, wait_ns in shown.values())
    assert waits_s[len(waits_s) // 2] < 1.0  # the policy's own wait: two hypotheses, 0.4 s apart
    assert rig.count("speech.erased") < 0.3 * rig.count("speech.words")
    assert rig.count("speech.utterances") > 1


@pytest.mark.slow
def test_a_long_talk_without_a_pause_is_cut_and_goes_on(whisper: WhisperRecognizer) -> None:
    talk = monologue(14.0, 78, pause_s=(0.0, 0.1))
    rig = Rig(whisper, VoiceGate(), trim_s=5.0, limit_s=7.0, min_silence_s=2.0)
    packets = rig.hear(talk.samples, [512]) + rig.end()
    last = packets[-2]
    assert isinstance(last, TranscriptPacket)
    assert rig.count("speech.utterances") == 1
    assert rig.count("speech.cut_word") >= 2
    heard = " ".join(word.text for word in last.words)
    assert jiwer.wer(" ".join(word.text for word in talk.words), heard) <= 0.25
