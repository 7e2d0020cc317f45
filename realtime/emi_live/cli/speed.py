"""Measure how fast face, words and network run on this machine, in seconds, on synthetic input."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Final

from emi_live.cli.doctor import Check, State

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emi_live.config import LiveConfig
    from emi_models.store import ModelStore

__all__ = ["drawn_face", "speeds"]

PICTURES: Final = 30
FRAME_NS: Final = 33_000_000
CAMERA_FPS: Final = 30
WINDOWS: Final = 50
HOP_MS: Final = 200.0
SOUND_S: Final = 4.0
RATE_HZ: Final = 16_000


def speeds(store: ModelStore) -> Iterator[Check]:
    """One check each for face, words and network; no model is downloaded for them."""
    from emi_live.config import load_config

    busy, cores = os.getloadavg()[0], os.cpu_count() or 1
    if busy > cores / 2:
        says = f"other programs keep {busy:.1f} of {cores} cores busy: the times below are too long"
        yield Check("load", "warn", says, "emi doctor, when they have ended", {"load": busy, "cores": cores})
    config = load_config(overrides={"models": {"offline": True}})
    for about, measure in (
        ("face speed", lambda: _face(store)),
        ("words speed", lambda: _words(store, config)),
        ("fusion speed", _fusion),
    ):
        yield _guarded(about, measure)


def _guarded(about: str, measure: Callable[[], Check]) -> Check:
    """Run a measurement; a part that cannot run is reported as a failed check, and the doctor continues."""
    from emi_models.errors import EmiError

    try:
        return measure()
    except EmiError as error:
        return Check(about, "fail", str(error), "emi models pull")


def _face(store: ModelStore) -> Check:
    from emi_live.bundle import Encoders, load_face
    from emi_live.config import load_config

    encoders = Encoders()
    load_face(encoders, load_config(), store, None)
    if encoders.face is None:
        return Check("face speed", "warn", "not measured: its model is not here", "emi models pull")
    picture, times, seen = drawn_face(), [], 0
    try:
        for index in range(PICTURES):
            start = perf_counter()
            seen += encoders.face.analyse(picture, index * FRAME_NS).faces
            times.append(1e3 * (perf_counter() - start))
    finally:
        encoders.close()
    ms = median(times[PICTURES // 3 :])
    rate = 1e3 / ms
    what = "a picture with a drawn face" if seen else "a picture without a face"
    says = f"{ms:.0f} ms for {what}"
    facts = {"ms": round(ms, 1), "faces_seen": seen}
    if rate >= CAMERA_FPS:
        return Check("face speed", "ok", f"{says}: fast enough for {CAMERA_FPS} a second", facts=facts)
    state: State = "warn" if rate >= 5 else "fail"
    says = f"{says}: at most {rate:.0f} a second; other frames are skipped"
    return Check("face speed", state, says, f"emi-live --set face.max_fps={max(1, int(rate * 0.8))}", facts)


def _words(store: ModelStore, config: LiveConfig) -> Check:
    from emi_live.bundle import Encoders, load_speech

    encoders = Encoders()
    load_speech(encoders, config, store, None)
    recognizer = encoders.recognizer
    if recognizer is None:
        return Check("words speed", "warn", "not measured: no recogniser is installed", "emi models pull")
    sound = _murmur()
    try:
        for _ in range(2):  # the first is slower
            start = perf_counter()
            recognizer.begin()
            for at in range(0, sound.size, RATE_HZ):
                recognizer.accept(sound[at : at + RATE_HZ])
            recognizer.finish()
            factor = (perf_counter() - start) / SOUND_S
        name = recognizer.name
    finally:
        encoders.close()
    says = f"{name}: {factor:.2f} s of computing for 1 s of sound"
    facts = {"real_time_factor": round(factor, 3), "recognizer": name}
    if factor < 0.5:  # hypotheses are made several times over each utterance
        return Check("words speed", "ok", f"{says}: fast enough", facts=facts)
    if factor < 1.0:
        return Check("words speed", "warn", f"{says}: words may come late", _lighter(name), facts)
    return Check("words speed", "warn", f"{says}: too slow", _lighter(name), facts)


def _lighter(name: str) -> str:
    if "sphinx" in name.lower():
        return "emi-live --set speech.backend=none"
    return "emi-live --set speech.model=tiny.en"


def _fusion() -> Check:
    from emi_engine import load_engine
    from emi_live.bundle import default_bundle
    from emi_models.inputs import StreamWindow

    engine = load_engine(default_bundle().packaged_checkpoint())
    window, session, times = StreamWindow.empty(engine.shapes), engine.session(), []
    try:
        for _ in range(WINDOWS):
            start = perf_counter()
            session.infer(window)
            times.append(1e3 * (perf_counter() - start))
        name = engine.name
    finally:
        engine.close()
    ms = median(times[WINDOWS // 5 :])
    says, facts = f"{name}: {ms:.1f} ms a window", {"ms": round(ms, 2), "engine": name}
    if ms < HOP_MS / 2:
        return Check(
            "fusion speed", "ok", f"{says}: fast enough for {1e3 / HOP_MS:.0f} a second", facts=facts
        )
    return Check(
        "fusion speed", "warn", f"{says}: too slow for 5 a second", "emi-live --set window.hop_s=1", facts
    )


def drawn_face() -> NDArray[np.uint8]:
    """A frame, (480, 640, 3) uint8 RGB, with a drawn face that MediaPipe detects."""
    import cv2
    import numpy as np

    picture = np.full((480, 640, 3), (120, 130, 140), np.uint8)
    cv2.ellipse(picture, (320, 240), (105, 140), 0, 0, 360, (224, 172, 140), -1)  # head, then hair
    cv2.ellipse(picture, (320, 140), (115, 70), 0, 180, 360, (60, 40, 30), -1)
    for x in (278, 362):
        cv2.ellipse(picture, (x, 215), (20, 10), 0, 0, 360, (250, 250, 250), -1)
        cv2.circle(picture, (x, 215), 8, (50, 80, 120), -1)
        cv2.circle(picture, (x, 215), 4, (10, 10, 10), -1)
        cv2.ellipse(picture, (x, 192), (26, 8), 0, 180, 360, (60, 40, 30), 5)
    cv2.line(picture, (320, 220), (312, 268), (190, 130, 105), 4)
    cv2.ellipse(picture, (320, 270), (16, 8), 0, 0, 180, (180, 120, 100), 4)
    cv2.ellipse(picture, (320, 315), (40, 16), 0, 0, 180, (190, 70, 80), -1)
    cv2.line(picture, (280, 315), (360, 315), (140, 40, 50), 3)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 3), np.uint8)


def _murmur() -> NDArray[np.float32]:
    """Synthetic sound that resembles a voice: harmonics in syllables, (n,) at 16 kHz."""
    import numpy as np

    t = np.arange(round(SOUND_S * RATE_HZ)) / RATE_HZ
    voice = sum(np.sin(2 * np.pi * 120.0 * k * t) / k for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 4.0 * t), 0.0, None)
    noise = np.random.default_rng(1).normal(0.0, 0.003, t.size)
    return np.asarray(0.1 * voice * syllables + noise, np.float32)
