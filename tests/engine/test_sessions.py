"""The contract of `FusionSession`, on every engine: a window's answer is that of the window alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_engine import EngineError, EngineKind, FusionEngine, load_engine
from emi_engine.incremental import IncrementalEngine
from emi_models.checkpoint import packaged_checkpoint
from emi_models.inputs import COMPACT_SHAPES, TAEMI_SHAPES, FrameRun, InputError, StreamWindow
from tests.engine.incremental.streams import Person

KINDS: tuple[EngineKind, ...] = ("torch", "onnxruntime", "incremental")
EXACT = 1e-5


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, checkpoint: Path) -> Iterator[FusionEngine]:
    with load_engine(checkpoint, request.param) as loaded:
        yield loaded


def alone(engine: FusionEngine, window: StreamWindow) -> NDArray[np.float32]:
    return engine.infer(window.inputs(engine.shapes))


def test_a_stream_that_moves_on_is_answered_window_by_window(engine: FusionEngine) -> None:
    session, person = engine.session(), Person(shapes=COMPACT_SHAPES)
    for hop in range(12):
        person.audio.hop(10 if hop % 4 else 90, hop)
        person.vision.hop(6, hop)
        if hop % 3 == 0:
            person.speak()
        window = person.window(vision=hop % 5 > 0, text=hop > 2)
        answer = session.infer(window)
        assert answer.shape == (1, 6)
        assert answer.dtype == np.float32
        assert np.abs(answer - alone(engine, window)).max() <= EXACT


def test_counterfactuals_are_the_windows_without_each_modality(engine: FusionEngine) -> None:
    session, person = engine.session(), Person(shapes=COMPACT_SHAPES)
    person.audio.hop(100, 0)
    person.vision.hop(50, 0)
    window = person.window()
    rows = session.infer(window, counterfactuals=True)
    wanted = [window, *(window.without(name) for name in ("vision", "audio", "text"))]
    assert rows.shape == (4, 6)
    assert np.abs(rows - np.concatenate([alone(engine, each) for each in wanted])).max() <= EXACT
    silent = session.infer(replace(window, audio_present=False), counterfactuals=True)
    assert np.abs(silent[0] - silent[2]).max() <= 1e-6  # what is missing already has nothing to take away


def test_nothing_at_all_is_the_same_for_every_session(engine: FusionEngine) -> None:
    empty = StreamWindow.empty(COMPACT_SHAPES)
    person = Person(shapes=COMPACT_SHAPES)
    person.audio.hop(30, 0)
    session = engine.session()
    session.infer(person.window())
    session.restart()
    assert np.abs(session.infer(empty) - engine.session().infer(empty)).max() <= 1e-6
    assert np.abs(session.infer(replace(empty, audio_present=True)) - session.infer(empty)).max() <= 1e-6


def test_sessions_know_nothing_of_each_other(engine: FusionEngine) -> None:
    people = [Person(seed, COMPACT_SHAPES) for seed in (1, 2)]
    sessions = [engine.session() for _ in people]
    for _ in range(3):
        for person, session in zip(people, sessions, strict=True):
            person.audio.hop(20, 0)
            assert np.abs(session.infer(person.window()) - alone(engine, person.window())).max() <= EXACT


def test_frames_are_only_read_and_answers_are_the_caller_s(engine: FusionEngine) -> None:
    session, person = engine.session(), Person(shapes=COMPACT_SHAPES)
    person.audio.hop(20, 0)
    window = person.window()
    before = window.audio.values.copy()
    first = session.infer(window)
    kept = first.copy()
    person.audio.hop(20, 0)
    session.infer(person.window())
    first_again = first.copy()
    assert np.array_equal(window.audio.values, before)
    assert np.array_equal(kept, first_again)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_and_the_next_window_is_answered(
    engine: FusionEngine, value: float
) -> None:
    session, person = engine.session(), Person(shapes=COMPACT_SHAPES)
    person.audio.hop(20, 0)
    good = person.window()
    spoiled = good.audio.values.copy()
    spoiled[7, 3] = value
    with pytest.raises(InputError, match="audio"):
        session.infer(replace(good, audio=FrameRun(0, spoiled)))
    assert np.abs(session.infer(good) - alone(engine, good)).max() <= EXACT


def test_finite_values_that_overflow_are_an_error_and_leave_no_trace(engine: FusionEngine) -> None:
    session, person = engine.session(), Person(shapes=COMPACT_SHAPES)
    person.audio.hop(20, 0)
    good = person.window()
    with pytest.raises(EngineError, match="finite"):
        session.infer(replace(good, audio=FrameRun(0, np.full_like(good.audio.values, 3e38))))
    assert np.abs(session.infer(good) - alone(engine, good)).max() <= EXACT


def test_windows_that_do_not_fit_are_refused(engine: FusionEngine) -> None:
    session = engine.session()
    with pytest.raises(InputError, match="vision has frames"):
        session.infer(StreamWindow.empty(TAEMI_SHAPES))
    empty = StreamWindow.empty(COMPACT_SHAPES)
    with pytest.raises(InputError, match=r"\(600, 73\)"):
        session.infer(replace(empty, audio=FrameRun(0, np.zeros((600, 73), np.float32))))
    with pytest.raises(InputError, match="float64"):
        session.infer(replace(empty, text=np.zeros(384)))  # type: ignore[arg-type]  # what a caller may hold


def test_a_closed_engine_s_session_says_so(engine: FusionEngine) -> None:
    session = engine.session()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        session.infer(StreamWindow.empty(COMPACT_SHAPES))
    with pytest.raises(EngineError, match="closed"):
        engine.session()


def test_the_packaged_checkpoint_is_reused_across_hops() -> None:
    path = packaged_checkpoint("compact")
    with load_engine(path, "incremental") as engine, load_engine(path, "torch") as oracle:
        assert isinstance(engine, IncrementalEngine)
        session, person = engine.session(), Person(shapes=engine.shapes)
        for _ in range(40):
            person.audio.hop(10, 0)
            person.vision.hop(6, 0)
            window = person.window()
            assert np.abs(session.infer(window) - alone(oracle, window)).max() <= EXACT
        assert session.computed < 1.5 * (person.audio.stop + person.vision.stop)
