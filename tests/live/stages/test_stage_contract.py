"""What every stage promises to the worker that runs it, checked on a fake stage and on all the real ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from emi_live.config import AudioConfig, FaceConfig, SpeechConfig
from emi_live.health import Health
from emi_live.messages import END_OF_STREAM, Packet, TranscriptPacket, Word, end_of_stream
from emi_live.rings import AudioRing, VideoRing
from emi_live.stages import Stage
from emi_live.stages.audio import ProsodyStage, Wav2vecStage
from emi_live.stages.speech import SpeechStage
from emi_live.stages.text import TextStage
from emi_live.stages.vision import CropStage, FaceStage
from emi_models.encoders.prosody import ProsodyEncoder
from emi_models.encoders.voice_activity import VoiceGate
from tests.live.stages.fakes import (
    BatchEncoder,
    BrightnessFace,
    LengthEncoder,
    LoudnessGate,
    MeshFace,
    ScriptedRecognizer,
    StepModel,
    WindowModel,
    run_stage,
    sound,
)
from tests.support.fakes import ListReader

MS = 1_000_000
STEPS = 20  # pieces of input that each rig is fed


@dataclass
class Rig:
    """A stage, and how to feed it piece n, and how to end its input."""

    stage: Stage
    feed: Callable[[int], None]
    end: Callable[[], None]
    holds_back: bool = False  # says how far it has heard before it says what


class EchoStage:
    """The fake: one packet for each packet read."""

    name = "echo"
    topic = "transcript"

    def __init__(self, reader: ListReader) -> None:
        self._reader = reader
        self.ended = False

    def wait(self, timeout_s: float) -> bool:
        return self._reader.wait(timeout_s)

    def step(self, now_ns: int) -> list[Packet]:
        packet = self._reader.read()
        self.ended |= packet is not None and packet.progress_ns == END_OF_STREAM
        return [] if packet is None else [packet]

    def reset(self) -> None: ...

    def close(self) -> None:
        self._reader.close()


def transcript(n: int) -> TranscriptPacket:
    t_ns = n * 200 * MS
    return TranscriptPacket(
        t_ns=t_ns, progress_ns=t_ns, words=(Word(f"w{n}", t_ns - 1, t_ns, committed=False),)
    )


def echo() -> Rig:
    reader = ListReader()
    return Rig(
        EchoStage(reader),
        lambda n: reader.add(transcript(n)),
        lambda: reader.add(end_of_stream("transcript", 9 * 1000 * MS)),
    )


def text() -> Rig:
    reader = ListReader()
    stage = TextStage(reader, LengthEncoder(), 12.0)
    return Rig(
        stage,
        lambda n: reader.add(transcript(n)),
        lambda: reader.add(end_of_stream("transcript", 9 * 1000 * MS)),
    )


def face() -> Rig:
    ring = VideoRing()
    encoder: Any = BrightnessFace()
    stage = FaceStage(ring.reader(), encoder, FaceConfig(), Health())
    frame = np.full((4, 4, 3), 9, np.uint8)
    return Rig(stage, lambda n: ring.write(frame * (n % 3 > 0), n * 40 * MS), ring.close)


def crops(exact: bool) -> Rig:
    ring = VideoRing(32, lossless=exact)
    face: Any = MeshFace()
    stage = CropStage(ring.reader(), face, BatchEncoder(), FaceConfig(), Health(), exact=exact)
    frame = np.full((4, 4, 3), 9, np.uint8)
    return Rig(stage, lambda n: ring.write(frame * (n % 3 > 0), n * 40 * MS), ring.close)


def voice(exact: bool, model: StepModel | WindowModel) -> Rig:
    ring, gate = AudioRing(), LoudnessGate()
    config = AudioConfig(context="full" if isinstance(model, WindowModel) else "cached")
    stage = Wav2vecStage(ring.reader(), model, gate, config, Health(), exact=exact)  # type: ignore[arg-type] # a fake
    piece = sound("x.", 0.05)
    return Rig(stage, lambda n: ring.write(piece, n * 100 * MS), ring.close, holds_back=True)


def audio(fakes: bool) -> Rig:
    ring = AudioRing()
    gate: Any = LoudnessGate() if fakes else VoiceGate()
    stage = ProsodyStage(ring.reader(), ProsodyEncoder(), gate, AudioConfig(), Health())
    piece = sound("x.", 0.05)
    return Rig(stage, lambda n: ring.write(piece, n * 100 * MS), ring.close)


def speech(fakes: bool, *, gaps: bool = False) -> Rig:
    """With `gaps`, each piece of speech is of whole chunks and followed by a gap."""
    ring = AudioRing()
    gate: Any = LoudnessGate() if fakes else VoiceGate()
    recognizer = ScriptedRecognizer() if fakes else None
    stage = SpeechStage(
        ring.reader(),
        gate,
        recognizer,
        SpeechConfig(),
        exact=True,
        health=Health(),
    )
    if gaps:
        return Rig(stage, lambda n: ring.write(sound("x", 0.512), n * 900 * MS), ring.close)
    pieces = [sound("x", 0.2), sound(".", 0.2)]
    return Rig(stage, lambda n: ring.write(pieces[n % 8 // 4], n * 200 * MS), ring.close)


RIGS: dict[str, Callable[[], Rig]] = {
    "fake": echo,
    "face": face,
    "crops, exact": lambda: crops(exact=True),
    "crops, live": lambda: crops(exact=False),
    "voice": lambda: voice(False, StepModel()),
    "voice, said again, exact": lambda: voice(True, WindowModel()),
    "voice, said again, live": lambda: voice(False, WindowModel()),
    "audio": lambda: audio(fakes=False),
    "audio, fakes": lambda: audio(fakes=True),
    "speech without a recogniser": lambda: speech(fakes=False),
    "speech, fakes": lambda: speech(fakes=True),
    "speech, cut off": lambda: speech(fakes=True, gaps=True),
    "text": text,
}


@pytest.fixture(params=sorted(RIGS))
def rig(request: pytest.FixtureRequest) -> Rig:
    name: str = request.param
    return RIGS[name]()


def test_without_input_there_is_nothing_to_do(rig: Rig) -> None:
    assert not rig.stage.wait(0.0)
    assert list(rig.stage.step(0)) == []
    assert not rig.stage.ended


def test_an_empty_input_ends_at_once(rig: Rig) -> None:
    rig.end()
    (last,) = run_stage(rig.stage)
    assert last.progress_ns == END_OF_STREAM


def test_packets_keep_their_promises(rig: Rig) -> None:
    turns = iter(range(1, STEPS + 1))

    def feed() -> bool:
        turn = next(turns, None)
        if turn == STEPS:
            rig.end()
        elif turn is not None:
            rig.feed(turn)
        return turn is not None

    packets = run_stage(rig.stage, feed)
    assert len(packets) > 5
    assert {packet.topic for packet in packets} == {rig.stage.topic}
    for before, after in pairwise(packets):
        assert before.t_ns <= after.t_ns or rig.holds_back
        assert before.progress_ns <= after.progress_ns
        assert before.progress_ns < after.progress_ns or rig.holds_back
        assert after.t_ns > before.progress_ns or after.progress_ns == END_OF_STREAM
    assert [packet.progress_ns == END_OF_STREAM for packet in packets].index(True) == len(packets) - 1
    assert list(rig.stage.step(0)) == []


def test_a_reset_keeps_the_place_in_the_input(rig: Rig) -> None:
    for n in range(1, STEPS):
        rig.feed(n)
    first = list(rig.stage.step(0))
    rig.stage.reset()
    rig.end()
    rest = run_stage(rig.stage)
    assert rest[-1].progress_ns == END_OF_STREAM
    if first:
        assert all(packet.t_ns > first[-1].t_ns for packet in rest[:-1])
