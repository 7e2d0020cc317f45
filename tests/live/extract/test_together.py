"""Clips at once in one process: what waits together is encoded together, and each gets its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emi_live.bundle.base import Encoders
from emi_live.config import LiveConfig
from emi_live.extract.together import Batches, EncodersTogether
from emi_models.errors import EmiError
from emi_models.store import ModelStore
from tests.live.stages.fakes import BrightnessFace, ScriptedRecognizer
from tests.support.waiting import until


class Gated:
    """An encoder whose first call waits, so that the others come meanwhile."""

    side_px = 2

    def __init__(self) -> None:
        self.go = threading.Event()
        self.calls: list[int] = []

    def encode(self, what: Sequence[str] | NDArray[np.uint8]) -> NDArray[np.float32]:
        self.calls.append(len(what))
        if len(self.calls) == 1:
            assert self.go.wait(10)
        if any(isinstance(one, str) and one == "bad" for one in what):
            raise ValueError("bad")
        numbers = [float(one) if isinstance(one, str) else float(one.sum()) for one in what]
        return np.array(numbers, np.float32)[:, None]

    encode_marked = encode


def ask_together(encode: Batches, gate: Gated, given: Sequence[object]) -> list[object]:
    """The answers to callers of which all but the first come while its call runs; errors as they are."""
    with ThreadPoolExecutor(len(given)) as threads:
        jobs = [threads.submit(encode, given[0])]
        until(lambda: len(gate.calls) == 1)
        jobs += [threads.submit(encode, what) for what in given[1:]]
        until(lambda: len(encode.waiting) == len(given) - 1)
        gate.go.set()
        return [job.exception() or job.result() for job in jobs]


def together(gate: Gated, what: str) -> Any:
    """An encoder that one of several clips has."""
    own = Encoders()
    setattr(own, what, gate)
    return getattr(EncodersTogether(own, LiveConfig(), ModelStore(offline=True)).lend(), what)


def test_texts_and_crops_that_wait_are_one_batch_and_each_gets_its_own() -> None:
    gate = Gated()
    encode = together(gate, "sentence").encode
    answers = ask_together(encode, gate, [["1"], ["2", "3"], ["4"], []])
    assert [np.asarray(one).ravel().tolist() for one in answers] == [[1.0], [2.0, 3.0], [4.0], []]
    assert gate.calls == [1, 3]
    assert encode.sizes == {1: 1, 3: 1}

    gate = Gated()
    lent = together(gate, "crops")
    assert lent.side_px == 2
    crops = [np.full((count, 2, 2, 3), count, np.uint8) for count in (1, 2, 3)]
    answers = ask_together(lent.encode, gate, crops)
    assert [np.asarray(one).ravel().tolist() for one in answers] == [[12.0], [24.0] * 2, [36.0] * 3]
    assert gate.calls == [1, 5]


def test_an_error_is_that_of_the_clip_that_made_it() -> None:
    gate = Gated()
    encode = together(gate, "sentence").encode
    first, second, bad, last = ask_together(encode, gate, [["1"], ["2"], ["bad"], ["3"]])
    assert isinstance(bad, ValueError)
    assert [np.asarray(one).ravel().tolist() for one in (first, second, last)] == [[1.0], [2.0], [3.0]]


def test_a_gpu_is_for_several_clips_unless_each_needs_a_recogniser() -> None:
    class OnGpu(Gated):
        device = torch.device("cuda", 0)

    class Learns:
        batching = None

    assert not Encoders(crops=Gated()).on_gpu
    both = Encoders(crops=OnGpu())
    assert both.on_gpu
    assert both.shares_words
    setattr(both, "recognizer", Learns())  # noqa: B010  # it has no more of a recogniser
    assert not both.shares_words


@pytest.mark.parametrize("what", ["face", "recognizer"])
def test_what_each_clip_has_for_itself_must_be_there(what: str) -> None:
    own = Encoders()
    setattr(own, what, ScriptedRecognizer() if what == "recognizer" else BrightnessFace())
    config = LiveConfig.model_validate({"speech": {"backend": "whisper", "model": "/nowhere"}})
    encoders = EncodersTogether(own, config, ModelStore(Path("/nowhere"), offline=True))
    if what == "recognizer":  # the first clip has the one that is there
        encoders.lend().close()
        assert not getattr(own.recognizer, "closed")  # noqa: B009  # it stays its owner's
    with pytest.raises(EmiError, match=r"face-landmarker|/nowhere"):
        encoders.lend()
