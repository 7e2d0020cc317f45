"""Every engine that runs here, on the windows of a real clip: the same six numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_engine import EngineKind, load_engine
from emi_engine.protocol import TOLERANCES, FullPassSession, Precision
from emi_engine.torch_engine import TorchEngine
from emi_live import LiveEngine, load_config
from emi_models.checkpoint import load_checkpoint, packaged_checkpoint
from emi_models.inputs import FrameRun, StreamWindow
from tests.live.end_to_end.support import first_seconds

pytestmark = [pytest.mark.assets, pytest.mark.slow]


class Recording(TorchEngine):
    """The oracle, which keeps each window that it is shown and what it said."""

    def __init__(self, path: Path) -> None:
        super().__init__(load_checkpoint(path))
        self.windows: list[StreamWindow] = []
        self.answers: list[NDArray[np.float32]] = []

    def session(self) -> FullPassSession:
        recording = self

        class Session(FullPassSession):
            def infer(self, window: StreamWindow, *, counterfactuals: bool = False) -> NDArray[np.float32]:
                recording.windows.append(_kept(window))
                recording.answers.append(super().infer(window, counterfactuals=counterfactuals))
                return recording.answers[-1]

        return Session(self)


def _kept(window: StreamWindow) -> StreamWindow:
    def copied(run: FrameRun) -> FrameRun:
        return FrameRun(run.start, run.values.copy())

    return replace(window, vision=copied(window.vision), audio=copied(window.audio), text=window.text.copy())


@pytest.fixture(scope="module")
def recorded(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    """5.5 s of a face that speaks: a window each tenth of a second, and what the oracle said to it."""
    clip = first_seconds(assets / "av/face_and_speech.mp4", 5.5, tmp_path_factory.mktemp("clip"))
    with Recording(packaged_checkpoint("compact")) as engine:
        settings = ["models.offline=true", "speech.backend=pocketsphinx", "window.hop_s=0.1"]
        settings += [f'models.directory="{assets / "mediapipe"}"', f'source.input="{clip}"']
        with LiveEngine(load_config(settings=settings), engine=engine) as live:
            estimates = list(live.estimates())
        assert len(estimates) == len(engine.windows) > 50
        used = [name for e in estimates for name, report in e.modalities.items() if report.used]
        assert set(used) == {"vision", "audio", "text"}
        yield engine


@pytest.mark.parametrize("kind", ["onnxruntime", "incremental"])
def test_engines_agree_with_the_oracle(recorded: Recording, kind: EngineKind) -> None:
    with load_engine(packaged_checkpoint("compact"), kind) as engine:
        session = engine.session()
        answers = [session.infer(window) for window in recorded.windows]
    assert np.abs(np.concatenate(answers) - np.concatenate(recorded.answers)).max() <= 1e-5


@pytest.mark.parametrize(("precision", "times"), [("fp16", 1), ("bf16", 2)])  # bf16 is too coarse: engines.md
def test_half_precision_moves_no_intensity_by_more_than_it_may(
    recorded: Recording, precision: Precision, times: int
) -> None:
    with load_engine(packaged_checkpoint("compact"), "torch", precision=precision) as engine:
        session = engine.session()
        answers = [session.infer(window) for window in recorded.windows]
    worst = np.abs(np.concatenate(answers) - np.concatenate(recorded.answers)).max()
    assert 0 < worst <= times * TOLERANCES[precision]
