from __future__ import annotations

from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emi_live.config import SpeechConfig
from emi_live.health import Health
from emi_live.messages import END_OF_STREAM, Packet, TranscriptPacket
from emi_live.rings import AudioRing
from emi_live.stages.speech import SpeechStage
from emi_models.encoders.voice_activity import VoiceGate
from emi_models.speech.recognizer import Recognizer
from tests.live.stages.fakes import RATE_HZ, LoudnessGate, ScriptedRecognizer, key, run_stage, sound
from tests.models.encoders.media import cut, read_sound

NS = 1_000_000_000
LONGEST_WAIT_NS = 200_000_000


class Rig:
    """A speech stage on a ring of its own."""

    def __init__(
        self,
        recognizer: Recognizer | None = None,
        gate: VoiceGate | None = None,
        *,
        exact: bool = True,
        capacity_s: float = 30.0,
        **config: Any,
    ) -> None:
        self.ring = AudioRing(capacity_s)
        self.health = Health()
        self.recognizer = recognizer or ScriptedRecognizer()
        fake: Any = LoudnessGate()
        self.stage = SpeechStage(
            self.ring.reader(),
            gate or fake,
            self.recognizer,
            SpeechConfig.model_validate(config),
            exact=exact,
            health=self.health,
        )

    def hear(self, samples: NDArray[np.float32], sizes: list[int], start_ns: int = 0) -> list[Packet]:
        packets: list[Packet] = []
        written = 0
        for block in cut(samples, sizes):
            self.ring.write(block, start_ns + written * NS // RATE_HZ)
            written += block.size
            packets += self.stage.step(0)
        return packets

    def end(self) -> list[Packet]:
        self.ring.close()
        return run_stage(self.stage)

    def count(self, name: str) -> int:
        return self.health.snapshot().counters.get(name, 0)


def words(packet: Packet, *, committed: bool | None = None) -> list[str]:
    assert isinstance(packet, TranscriptPacket)
    return [word.text for word in packet.words if committed in (None, word.committed)]


def test_words_are_partial_while_one_speaks_and_committed_after() -> None:
    rig = Rig()
    packets = rig.hear(sound("..xxxxxxxx....."), [512]) + rig.end()
    during = [packet for packet in packets if words(packet, committed=False)]
    assert during[0].t_ns < NS * 3 // 2
    assert not words(during[0], committed=True)
    for before, after in pairwise(packets[:-1]):  # what is committed only grows
        assert words(after, committed=True)[: len(words(before, committed=True))] == words(
            before, committed=True
        )
    assert len(words(during[-1], committed=True)) > 4
    # 0.3 s of preroll in whole chunks, 2 s of voice, 0.5 s of silence; and a quarter of a second is a word.
    assert words(packets[-2], committed=True) == [f"u0w{k}" for k in range(11)]
    assert words(packets[-2], committed=False) == []
    assert rig.count("speech.utterances") == 1


def test_the_language_is_that_of_the_newest_utterance_in_which_it_was_recognised() -> None:
    rig = Rig(ScriptedRecognizer(languages=["de", "fr"]))
    packets = rig.hear(sound("..xxxx......xxxx......xxxx......"), [512]) + rig.end()
    told = [packet.language for packet in packets[:-1] if isinstance(packet, TranscriptPacket)]
    assert [language for language, _ in groupby(told)] == [None, "de", "fr"]


def test_words_have_the_time_at_which_they_were_said() -> None:
    rig = Rig(preroll_s=0.0)
    start_ns = 7 * NS
    packets = rig.hear(sound("....xxxx...."), [700], start_ns) + rig.end()
    first = packets[-2]
    assert isinstance(first, TranscriptPacket)
    chunk_ns = 512 * NS // RATE_HZ
    assert abs(first.words[0].start_ns - (start_ns + NS)) <= chunk_ns
    assert first.words[0].end_ns - first.words[0].start_ns == NS // 4
    assert all(word.end_ns <= first.t_ns for word in first.words)


def test_progress_is_told_at_least_every_200_ms() -> None:
    rig = Rig()
    packets = rig.hear(sound("....xxxx........"), [512]) + rig.end()
    times = [0, *(packet.t_ns for packet in packets)]
    assert max(after - before for before, after in pairwise(times)) <= LONGEST_WAIT_NS


@pytest.mark.slow
@given(
    pattern=st.text("x.", min_size=1, max_size=12),
    writes=st.lists(st.integers(1, 5000), min_size=1, max_size=6),
    reads=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_any_split_gives_the_same_packets(pattern: str, writes: list[int], reads: int) -> None:
    def run(sizes: list[int], steps: int) -> list[tuple[object, ...]]:
        rig = Rig(trim_s=2.0, limit_s=3.0)
        packets: list[Packet] = []
        written = 0
        for turn, block in enumerate(cut(sound(pattern), sizes)):
            rig.ring.write(block, written * NS // RATE_HZ)
            written += block.size
            if turn % steps == 0:
                packets += rig.stage.step(0)
        return [key(packet) for packet in packets + rig.end()]

    assert run(writes, reads) == run([512], 1)


def test_no_voice_is_lost_between_utterances() -> None:
    rig = Rig(preroll_s=0.0, min_silence_s=0.2)
    said = sound("xxx.xx..xxxxx")
    rig.hear(said, [512])
    rig.end()
    assert isinstance(rig.recognizer, ScriptedRecognizer)
    heard = np.concatenate(rig.recognizer.utterances)
    assert len(rig.recognizer.utterances) == 3
    assert np.count_nonzero(heard) == np.count_nonzero(said)


def test_a_gap_ends_the_utterance() -> None:
    rig = Rig()
    rig.hear(sound("xxxx"), [512])
    packets = rig.hear(sound("xxxx"), [512], start_ns=20 * NS) + rig.end()
    assert rig.count("speech.utterances") == 2
    committed = words(packets[-2], committed=True)
    assert {text[:2] for text in committed} == {"u0", "u1"}
    last = packets[-2]
    assert isinstance(last, TranscriptPacket)
    assert last.words[0].end_ns < NS
    assert last.words[-1].start_ns > 20 * NS


def test_words_are_forgotten_after_30_s() -> None:
    rig = Rig()
    rig.hear(sound("xxxx...."), [512])  # words to 1.5 s
    packets = rig.hear(sound("...."), [512], start_ns=30 * NS)
    assert words(packets[0]) == ["u0w0", "u0w1", "u0w2", "u0w3", "u0w4", "u0w5"]
    assert words(packets[-1]) == ["u0w3", "u0w4", "u0w5"]
    packets = rig.hear(sound("...."), [512], start_ns=33 * NS)
    assert words(packets[-1]) == []


def test_live_a_stage_that_is_behind_asks_less_often() -> None:
    behind, exact = Rig(exact=False), Rig(exact=True)
    for rig in (behind, exact):
        rig.ring.write(sound("x" * 20), 0)
        rig.end()
    assert behind.count("speech.coalesced") > 5
    assert exact.count("speech.coalesced") == 0
    load_control = Rig(exact=False)
    load_control.hear(sound("x" * 20), [512])
    assert load_control.count("speech.coalesced") == 0


def test_overwritten_sound_is_counted() -> None:
    rig = Rig(capacity_s=1.0)
    rig.ring.write(sound("xxxx"), 0)
    rig.ring.write(sound("xxxx"), NS)
    rig.end()
    assert rig.count("speech.lost_samples") == RATE_HZ


def test_after_a_failure_it_hears_again_and_what_was_said_stays_said() -> None:
    rig = Rig(ScriptedRecognizer(fail_at=1))
    rig.hear(sound("xxxx...."), [512])
    with pytest.raises(RuntimeError, match="broke down"):
        rig.hear(sound("xxxx"), [512], start_ns=2 * NS)
    rig.stage.reset()
    packets = rig.hear(sound("xxxx...."), [512], start_ns=3 * NS) + rig.end()
    assert {text[:2] for text in words(packets[-2], committed=True)} == {"u0", "u1"}


def test_a_failure_at_the_very_end_is_tried_again_and_the_stream_ends() -> None:
    recognizer = ScriptedRecognizer()
    rig = Rig(recognizer)
    rig.hear(sound("xxxx"), [512])
    recognizer.fails_to_finish = True
    rig.ring.close()
    with pytest.raises(RuntimeError, match="at the end"):
        run_stage(rig.stage)
    assert not rig.stage.ended
    rig.stage.reset()
    assert run_stage(rig.stage)[-1].progress_ns == END_OF_STREAM


@pytest.mark.parametrize("level_db", [None, -30.0])
def test_five_minutes_of_silence_or_noise_are_never_given_to_a_recogniser(level_db: float | None) -> None:
    samples = np.zeros(300 * RATE_HZ, np.float32)
    if level_db is not None:
        samples += 10 ** (level_db / 20) * np.random.default_rng(0).standard_normal(samples.size)
    rig = Rig(gate=VoiceGate(), capacity_s=301.0)
    packets = rig.hear(samples, [RATE_HZ]) + rig.end()
    assert rig.count("speech.utterances") == 0
    assert len(packets) > 1500
    assert not any(words(packet) for packet in packets)


@pytest.mark.slow
def test_pocketsphinx_hears_the_address(assets: Path) -> None:
    sphinx = pytest.importorskip("emi_models.speech.sphinx")
    pytest.importorskip("pocketsphinx", reason="the extra `pocketsphinx` is not installed")
    samples = read_sound(assets / "av" / "face_and_speech.mp4")[: 8 * RATE_HZ]
    runs = []
    for sizes in ([1600], [512, 3000, 77]):
        rig = Rig(sphinx.SphinxRecognizer(), VoiceGate())
        packets = rig.hear(samples, sizes) + rig.end()
        runs.append([key(packet) for packet in packets])
        rig.recognizer.close()
    assert {"country", "you"} <= set(words(packets[-2], committed=True))
    assert runs[0] == runs[1]
