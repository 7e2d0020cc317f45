"""A neutral of one's own: what a face and a voice are at rest, learned in a session, and taken off.

People differ at rest: brows that stand high, a mouth that hangs, a deep voice. `Baseline` learns the median
of one stream's frames and maps it onto the median of many people at rest, so that a network that was trained
on many people sees this one as it sees them. Training and live use call the same `Baseline.push`, frame by
frame in the order of time; nothing is learned from later frames.

Two ways: `running` begins at once, moves with the last minute, and stays within what nine of ten people at
rest show, so that a long smile stays a smile. `calibrate` learns from the first five seconds, in which the
person is at rest, and then stays.

Frames of a head that is turned, and of silence, do not count. Only the features of `compact` are known here
(docs/decisions/0043).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

import numpy as np

from emi_models.encoders.face import BLENDSHAPES, FACE_FEATURES
from emi_models.encoders.face import ENCODER_ID as FACE
from emi_models.encoders.prosody import ENCODER_ID as PROSODY
from emi_models.encoders.prosody import (
    ENERGY,
    F0,
    F0_SQUARED,
    FLUX,
    MEL_BANDS,
    PROSODY_DIM,
    RHYTHM,
    SCALE,
    VOICING,
)
from emi_models.errors import DataError
from emi_models.population import FACE_AT_REST, FACE_HIGH, FACE_LOW, VOICE_AT_REST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from emi_models import Modality
    from emi_models.data.clip import Clip, FeatureTrack

__all__ = [
    "BASELINES",
    "LEARNED_S",
    "Baseline",
    "BaselineMode",
    "Learned",
    "baselines_for",
    "check_baseline",
    "normalised_clip",
]

BaselineMode = Literal["off", "running", "calibrate"]
BASELINES: Final = get_args(BaselineMode)

NS_PER_S: Final = 1_000_000_000
SAMPLE_S: Final = 0.1  # of the frames that count, one is kept in this time
SAMPLE_NS: Final = round(SAMPLE_S * NS_PER_S)
LEARNED_S: Final = 5.0  # of frames that count, after which a neutral is known
REMEMBERED_S: Final = 60.0  # what `running` looks back on
HALF_S: Final = 3.0  # of frames that count, after which `running` takes half of the difference off
MOST_TURNED: Final = 0.35  # radians, 20 degrees: beyond it blendshapes change with the pose
PITCH, YAW = FACE_FEATURES.index("pitch"), FACE_FEATURES.index("yaw")
HEARD: Final = 0.6  # voicing from which a frame is a voice
LEAST_RANGE: Final = 0.05  # above a neutral, of a blendshape; less would stretch noise
# How far a voice's neutral may be from that of others: F0 by an octave, bands by 15 dB, level by 15 dB.
F0_REACH, BAND_REACH, LEVEL_REACH, FLUX_REACH = 1.0, 1.0, 1.5, 0.3


@dataclass(frozen=True, slots=True)
class Learned:
    """How far a neutral is known: seconds of frames that counted, and whether these are enough."""

    seconds: float
    ready: bool

    @property
    def share(self) -> float:
        """How much of it is known, in [0, 1]."""
        return 1.0 if self.ready else min(1.0, self.seconds / LEARNED_S)


class Baseline:
    """One stream's neutral, for one modality: frames in, normalised frames out. One thread at a time."""

    def __init__(self, modality: Modality, mode: BaselineMode) -> None:
        """`modality` is `vision` or `audio`; `mode` is `running` or `calibrate`."""
        self._face = modality == "vision"
        self._calibrates = mode == "calibrate"
        self._usual = FACE_AT_REST if self._face else VOICE_AT_REST
        self.restart()

    def restart(self, t_ns: int | None = None) -> None:
        """Forget the neutral: another person is seen, from `t_ns` on."""
        most = round((LEARNED_S if self._calibrates else REMEMBERED_S) / SAMPLE_S)
        self._samples: deque[NDArray[np.float32]] = deque(maxlen=most)
        self._count = 0  # samples since the start
        self._place: int | None = None  # in units of `SAMPLE_NS`, of the newest sample
        self._own = self._usual
        if t_ns is None:  # when how many samples were known
            self._known: deque[tuple[int, int]] = deque(maxlen=round(REMEMBERED_S / SAMPLE_S))
        else:
            self._known.append((t_ns, 0))

    def push(
        self,
        times_ns: NDArray[np.int64],
        values: NDArray[np.float32],
        counts: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float32]:
        """The next frames, as the network is to see them; a new array.

        Args:
            times_ns: capture times (n,), increasing; a recording may begin again at 0.
            values: features (n, D) as the encoder gives them.
            counts: which frames (n,) the neutral may be learned from, apart from what they show themselves;
                None = all.
        """
        usable = self._usable(values) if counts is None else self._usable(values) & counts
        found = np.empty_like(values)
        begin, last_place = 0, self._place
        for row in np.flatnonzero(usable).tolist():
            t_ns = int(times_ns[row])
            place = t_ns // SAMPLE_NS
            if self._full or place == last_place:
                continue
            found[begin:row] = self._mapped(values[begin:row])
            begin, last_place = row, place
            self._learn(values[row])
            self._known.append((t_ns, self._count))
        found[begin:] = self._mapped(values[begin:])
        self._place = last_place
        return found

    def learned(self, end_ns: int) -> Learned:
        """How far the neutral was known at a capture time not much older than the newest frame."""
        count = next((count for t_ns, count in reversed(self._known) if t_ns <= end_ns), 0)
        return Learned(round(count * SAMPLE_S, 3), count * SAMPLE_S >= LEARNED_S)

    @property
    def _full(self) -> bool:
        """Whether a calibration is over."""
        return self._calibrates and self._count * SAMPLE_S >= LEARNED_S

    def _usable(self, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        if self._face:
            turned: NDArray[np.bool_] = np.abs(values[:, [PITCH, YAW]]).max(axis=1) > MOST_TURNED
            return ~turned
        voiced: NDArray[np.bool_] = (values[:, VOICING] >= HEARD) & (values[:, F0] != 0)
        return voiced

    def _learn(self, frame: NDArray[np.float32]) -> None:
        self._samples.append(frame[: len(self._usual)].copy())
        self._count += 1
        if self._calibrates and not self._full:
            return
        # Each of the first fifty samples moves the median; then each fifth is enough.
        if self._count * SAMPLE_S > LEARNED_S and self._count % 5:
            return
        away = np.median(np.stack(self._samples), axis=0).astype(np.float32) - self._usual
        if not self._calibrates:
            known_s = len(self._samples) * SAMPLE_S
            away = known_s / (known_s + HALF_S) * np.clip(away, *self._reach())
        self._own = self._usual + away.astype(np.float32)

    def _reach(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """How far a running neutral may be from that of others, down and up."""
        if self._face:
            return FACE_LOW - FACE_AT_REST, FACE_HIGH - FACE_AT_REST
        reach = np.full(PROSODY_DIM, BAND_REACH, np.float32)
        reach[[F0, VOICING, ENERGY, FLUX]] = F0_REACH, 0, LEVEL_REACH, FLUX_REACH
        reach[RHYTHM:] = 0  # rhythm and change are what a voice does, not what it is at rest
        return -reach, reach

    def _mapped(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._own is self._usual:
            return values
        found = values.copy()
        if self._face:
            shown, own, usual = values[:, :BLENDSHAPES], self._own, self._usual
            # 0 stays 0 and 1 stays 1, the own neutral becomes the usual one, and the order is kept.
            above = usual + (shown - own) * (1 - usual) / np.maximum(1 - own, LEAST_RANGE)
            below = shown * usual / np.maximum(own, 1e-6)
            found[:, :BLENDSHAPES] = np.clip(np.where(shown >= own, above, below), 0, 1)
            return found
        away = self._own - self._usual
        away[:MEL_BANDS] = away[:MEL_BANDS].mean()  # level, and not the colour of a voice
        away[VOICING] = 0  # how strongly a frame is voiced says whether it is a voice
        away[RHYTHM:] = 0
        found -= away
        found[:, F0] = np.where(values[:, F0] == 0, 0, found[:, F0])  # 0 is no pitch
        found[:, F0_SQUARED] = np.float32(SCALE) * np.square(found[:, F0])
        return found


def baselines_for(
    encoders: Mapping[str, str] | Mapping[Modality, str], mode: BaselineMode
) -> dict[Modality, Baseline]:
    """A baseline for each modality of which the features are known; none with `off`.

    Args:
        encoders: ids of the encoders that run.
        mode: off, running or calibrate.

    Raises:
        DataError: the mode is unknown, or of none of these features a neutral can be learned.
    """
    known: dict[Modality, str] = {"vision": FACE, "audio": PROSODY}
    if check_baseline(mode) == "off":
        return {}
    found = {m: Baseline(m, mode) for m, encoder in known.items() if encoders.get(m) == encoder}
    if not found:
        raise DataError(
            f"a neutral of one's own ({mode}) is known only of the features of compact, blendshapes and "
            "prosody; use off"
        )
    return found


def check_baseline(text: str) -> BaselineMode:
    """The mode of this name.

    Raises:
        DataError: there is none.
    """
    if text not in BASELINES:
        raise DataError(f"no baseline is called {text!r}; there are: {', '.join(BASELINES)}")
    return cast("BaselineMode", text)


def normalised_clip(clip: Clip, baselines: Mapping[Modality, Baseline]) -> Clip:
    """The clip as these baselines see it; they learn from it, and go on with the next clip of the person."""

    def seen(modality: Modality, track: FeatureTrack) -> FeatureTrack:
        baseline = baselines.get(modality)
        if baseline is None or not len(track.t_ns):
            return track
        return replace(track, values=baseline.push(track.t_ns, track.values))

    return replace(clip, vision=seen("vision", clip.vision), audio=seen("audio", clip.audio))
