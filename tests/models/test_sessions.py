"""Threads of ONNX Runtime: as many as were asked for, and none of them spins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import pytest

from emi_models.checkpoint import packaged_checkpoint
from emi_models.encoders.voice_activity import VoiceGate
from emi_models.libraries import cpu_options


def open_session(threads: int) -> onnxruntime.InferenceSession:
    model: Path = packaged_checkpoint("compact").with_suffix(".onnx")
    return onnxruntime.InferenceSession(model.read_bytes(), cpu_options(threads))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_session_has_the_threads_that_were_asked_for(threads: int) -> None:
    open_session(1)  # whatever ONNX Runtime starts once
    process = psutil.Process()
    before = process.num_threads()
    session = open_session(threads)
    assert process.num_threads() - before == threads - 1
    options = session.get_session_options()
    assert options.intra_op_num_threads == threads
    assert options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_the_voice_gate_starts_no_thread() -> None:
    open_session(1)
    process = psutil.Process()
    before = process.num_threads()
    VoiceGate().push(np.zeros(16_000, np.float32))
    assert process.num_threads() == before
