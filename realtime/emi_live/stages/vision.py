"""The vision stages: `FaceStage` of `compact` and `CropStage` of `taemi`; frames in, face features out.

`FaceStage` publishes one packet for every frame analysed. `CropStage` encodes face crops, six a second.
`FrameReader` takes frames from the ring, no more a second than the stage wants, and counts the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from emi_live.clock import NS_PER_MS, NS_PER_S, seconds_to_ns
from emi_live.config import FaceConfig
from emi_live.health import Health
from emi_live.messages import MAX_BOXES, NOTHING_YET, Packet, VisionPacket, end_of_stream
from emi_live.rings import Frame, VideoReader
from emi_live.stages import PROMISE_STEP_NS, Promise
from emi_models.encoders.face import STAMP_JITTER_NS, FrameSampler, SteadySquare, cut_square, face_square

if TYPE_CHECKING:
    from emi_live.bundle import CropEncoder, FaceReader
    from emi_models.encoders.face import FaceResult

__all__ = ["CropStage", "FaceStage", "FrameReader"]

EARLY: Final = 0.9  # share of the shortest interval after which a frame is used already, since cameras jitter


class FrameReader:
    """Reads one ring. Live, the newest frame wins; a lossless ring gives every frame.

    Frames that were overwritten are counted as `camera.overwritten`; those closer together than `max_fps`
    allows are left out and counted as `face.skipped`, the others as `face.frames`.
    """

    def __init__(self, reader: VideoReader, max_fps: float, health: Health) -> None:
        self._reader = reader
        self._promise = Promise(reader)
        self._shortest_ns = round(EARLY * NS_PER_S / max_fps)
        self._health = health
        self._overwritten = 0
        self._newest_ns: int | None = None

    @property
    def newest_ns(self) -> int | None:
        """Capture time of the last frame returned."""
        return self._newest_ns

    @property
    def ended(self) -> bool:
        """Whether the last frame has been returned."""
        return self._reader.ended

    @property
    def more(self) -> bool:
        """Whether another frame is in the ring."""
        return self._reader.backlog > 0

    def wait(self, timeout_s: float) -> bool:
        """Wait for a frame, for progress, or for the end."""
        return self._promise.wait(timeout_s)

    def read(self) -> Frame | None:
        """The next frame; None if there is none, or if it is too close to the one before."""
        frame = self._reader.read()
        self._health.count("camera.overwritten", self._reader.overwritten - self._overwritten)
        self._overwritten = self._reader.overwritten
        if frame is None:
            return None
        if self._newest_ns is not None and frame.t_ns - self._newest_ns < self._shortest_ns:
            self._health.count("face.skipped")
            return None
        self._newest_ns = frame.t_ns
        self._health.count("face.frames")
        return frame

    @property
    def progress_ns(self) -> int | None:
        """All frames to come were captured at or after this; None if unknown, or if frames are unread."""
        return self._reader.progress_ns

    def promise(self) -> list[VisionPacket]:
        """A packet with progress alone, if one is due; packets of all frames before must be out."""
        progress_ns = self._promise.due()
        if progress_ns is None:
            return []
        t_ns = NOTHING_YET if self._newest_ns is None else self._newest_ns
        return [VisionPacket(t_ns=t_ns, progress_ns=progress_ns, faces=-1, features=None)]

    def close(self) -> None:
        """Leave the ring."""
        self._reader.close()


class FaceWatch:
    """Counts faces that cannot be read as `face.unreadable`, and a change of the face as `face.changed`.

    A change is also said as the status of the face part, which is logged.
    """

    def __init__(self, health: Health, landmarks: threading.Event | None) -> None:
        """`landmarks` is set while somebody wants them in packets; None = never."""
        self._health = health
        self._landmarks = landmarks
        self._changes: int | None = None  # of the newest result

    def readable(self, result: FaceResult) -> bool:
        """Whether the face may be used; without a face it may not either."""
        if self._changes is not None and result.changes > self._changes:
            self._health.count("face.changed", result.changes - self._changes)
            said = f"another face is followed than before ({result.changes} changes so far)"
            self._health.report("face", "running", said)
        self._changes = result.changes
        if result.problem is not None:
            self._health.count("face.unreadable")
        return result.features is not None and result.problem is None

    def places(self, result: FaceResult) -> dict[str, Any]:
        """Where the faces are, as fields of a `VisionPacket`."""
        followed = result.followed
        points = result.landmarks
        if self._landmarks is None or not self._landmarks.is_set():
            points = None
        return {
            "boxes": tuple(
                (box.left, box.top, box.right - box.left, box.bottom - box.top)
                for box in result.boxes[:MAX_BOXES]
            ),
            "changes": result.changes,
            "followed": followed if followed is not None and followed < MAX_BOXES else None,
            "landmarks": None if points is None else _packed(points),
        }


def _packed(points: NDArray[np.float32]) -> bytes:
    """Points (n, 2) in fractions of a picture as 16-bit numbers; those outside are put on its edge."""
    packed: NDArray[np.uint16] = np.rint(np.clip(points, 0, 1) * np.float32(65535)).astype("<u2")
    return packed.tobytes()


class FaceStage:
    """Reads the face that is followed. Live, the newest frame wins; in exact mode every frame is analysed.

    Frames closer together than `max_fps` allows are left out and counted as `face.skipped`. A face that
    cannot be read (`face_quality`) has a packet without features, with the reason.
    """

    name = "face"
    topic = "vision"

    def __init__(
        self,
        reader: VideoReader,
        encoder: FaceReader,
        config: FaceConfig,
        health: Health,
        landmarks: threading.Event | None = None,
    ) -> None:
        """`landmarks` is set while somebody wants them in packets; None = never."""
        self._frames = FrameReader(reader, config.max_fps, health)
        self._encoder = encoder
        self._watch = FaceWatch(health, landmarks)
        self.ended = False

    def wait(self, timeout_s: float) -> bool:
        """Wait for a frame."""
        return self._frames.wait(timeout_s)

    def step(self, now_ns: int) -> Sequence[Packet]:
        """The packet of the next frame, if there is one; in a gap, a packet with progress."""
        frame = self._frames.read()
        if frame is None:
            if not self._frames.ended:
                return self._frames.promise()
            if self.ended:
                return ()
            self.ended = True
            return (end_of_stream(self.topic, self._frames.newest_ns or 0),)
        result = self._encoder.analyse(frame.rgb, frame.t_ns)
        return (
            VisionPacket(
                t_ns=frame.t_ns,
                progress_ns=frame.t_ns,
                arrived_ns=frame.arrived_ns,
                faces=result.faces,
                features=result.features if self._watch.readable(result) else None,
                reason=result.problem,
                **self._watch.places(result),
            ),
        )

    def reset(self) -> None:
        """Look for the face again."""
        self._encoder.reset()

    def close(self) -> None:
        """Leave the input."""
        self._frames.close()


BEHIND_NS: Final = 500 * NS_PER_MS
AGAIN_NS: Final = 250 * NS_PER_MS
GAP_NS: Final = NS_PER_S  # without frames, beyond the time that a batch takes to fill: then it is not filled


@dataclass(frozen=True, slots=True)
class HeldCrop:
    """The packet of one frame, not published yet; if there is a crop, its features are still missing."""

    packet: VisionPacket
    crop: NDArray[np.uint8] | None


class CropStage:
    """Detects the face in every frame, and encodes its crop `crop_fps` times a second.

    Every frame gives a packet, so that a face that is lost or found again is known at once. Packets of frames
    that were not cropped have no features. The square of the crop is smoothed over time, so that it does not
    tremble; a face that is new, or found again, is cropped where it is, in the first frame that shows it.

    Crops go through the network up to `batch` at once. In `exact` mode batches depend on capture times alone:
    a batch is encoded when it is full, or when its first crop has waited as long as a batch takes to fill. If
    no frame comes for a second longer than that, the batch is encoded without the next frame. Live, crops are
    encoded as soon as no newer frame is in the ring, or the next crop is due. If features are published more
    than half a second after their frame, packets say so (`behind`), the part's status too, and
    `face.fell_behind` counts it. Encoded crops are counted as `face.crops`.
    """

    name = "face"
    topic = "vision"

    def __init__(
        self,
        reader: VideoReader,
        face: FaceReader,
        encoder: CropEncoder,
        config: FaceConfig,
        health: Health,
        *,
        exact: bool,
        landmarks: threading.Event | None = None,
    ) -> None:
        """`face` finds the face; `encoder` encodes its crop; `landmarks` is as in `FaceStage`."""
        self._frames = FrameReader(reader, config.max_fps, health)
        self._face = face
        self._encoder = encoder
        self._watch = FaceWatch(health, landmarks)
        self._sampler = FrameSampler(config.crop_fps)
        self._steady = SteadySquare()
        self._batch = config.batch
        self._patience_ns = seconds_to_ns((config.batch if exact else 1) / config.crop_fps) - STAMP_JITTER_NS
        self._exact = exact
        self._health = health
        self._held: list[HeldCrop] = []  # packets from the first crop on that waits for its batch
        self._told_ns = NOTHING_YET  # capture time of the newest frame whose packet has been released
        self._encoded_ns: int | None = None  # when the oldest frame of the last batch had arrived
        self._behind = False
        self.ended = False

    def wait(self, timeout_s: float) -> bool:
        """Wait for a frame."""
        return self._frames.wait(timeout_s)

    def step(self, now_ns: int) -> Sequence[Packet]:
        """The packets that the next frame completes."""
        self._check_lateness(now_ns)
        frame = self._frames.read()
        if frame is not None:
            waited = self._release() if self._is_overdue(frame.t_ns) else []
            first = not self._held
            self._held.append(self._look(frame))
            if self._is_time():
                return [*waited, *self._release()]
            return [*waited, *(self._up_to(frame) if first and self._exact else ())]
        if self._frames.ended:
            if self.ended:
                return ()
            packets = [*self._release(), end_of_stream(self.topic, self._frames.newest_ns or 0)]
            self.ended = True  # not before: what fails is tried again
            return packets
        if self._is_overdue(self._frames.progress_ns) or self._is_time():
            return [*self._release(), *self._frames.promise()]
        return ()

    def reset(self) -> None:
        """Look for the face again."""
        self._face.reset()
        self._steady.reset()
        self._held.clear()

    def close(self) -> None:
        """Leave the input."""
        self._frames.close()

    def _look(self, frame: Frame) -> HeldCrop:
        seen = self._face.analyse(frame.rgb, frame.t_ns)
        crop = None
        if not self._watch.readable(seen) or seen.landmarks is None:
            self._steady.reset()
        else:
            height, width = frame.rgb.shape[:2]
            square = self._steady.push(face_square(seen.landmarks, width, height), frame.t_ns)
            # Not asked for frames without a face: the next frame with one is cropped in their place.
            if self._sampler.take(frame.t_ns):
                crop = cut_square(frame.rgb, square, self._encoder.side_px)
        packet = VisionPacket(
            t_ns=frame.t_ns,
            progress_ns=frame.t_ns,
            arrived_ns=frame.arrived_ns,
            faces=seen.faces,
            features=None,
            behind=self._behind,
            reason=seen.problem,
            **self._watch.places(seen),
        )
        return HeldCrop(packet, crop)

    def _is_time(self) -> bool:
        """Whether the packets that are held must be released now."""
        crops = [held.packet.t_ns for held in self._held if held.crop is not None]
        if not crops or len(crops) >= self._batch:
            return True
        if self._held[-1].packet.t_ns - crops[0] >= self._patience_ns:
            return True
        return not (self._exact or self._frames.more)

    def _is_overdue(self, t_ns: int | None) -> bool:
        """Exact: whether the held packets must be released before a frame of that time is analysed."""
        if not self._exact or t_ns is None or not self._held:
            return False
        first_ns = next(held.packet.t_ns for held in self._held if held.crop is not None)
        return t_ns - first_ns >= self._patience_ns + GAP_NS

    def _up_to(self, frame: Frame) -> list[VisionPacket]:
        """A packet that promises progress up to a held frame, if that is much further than before.

        Without it the windows before that frame would wait for the batch, and the batch for media that wait
        for those windows.
        """
        if frame.t_ns - self._told_ns < PROMISE_STEP_NS:
            return []
        return [VisionPacket(t_ns=self._told_ns, progress_ns=frame.t_ns - 1, faces=-1, features=None)]

    def _check_lateness(self, now_ns: int) -> None:
        """Measure how late the features of the last batch were, right after it."""
        encoded_ns, self._encoded_ns = self._encoded_ns, None
        if self._exact or encoded_ns is None:
            return
        late_ns = now_ns - encoded_ns
        if not self._behind and late_ns > BEHIND_NS:
            self._behind = True
            self._health.count("face.fell_behind")
            self._health.report(
                self.name,
                "running",
                f"a face takes {late_ns / NS_PER_S:.1f} s to encode; try more fusion.threads, a smaller "
                "model as face.model, or a longer window.vision_dropout_s",
            )
        elif self._behind and late_ns < AGAIN_NS:
            self._behind = False
            self._health.report(self.name, "running", "keeps up again")

    def _release(self) -> list[Packet]:
        """All held packets, with features where there is a crop."""
        held, self._held = self._held, []
        self._told_ns = held[-1].packet.t_ns if held else self._told_ns
        crops = [one.crop for one in held if one.crop is not None]
        if not crops:
            return [one.packet for one in held]
        features = iter(self._encoder.encode(np.stack(crops)))
        self._health.count("face.crops", len(crops))
        self._encoded_ns = next(one.packet.arrived_ns for one in held if one.crop is not None)
        return [
            one.packet if one.crop is None else replace(one.packet, features=next(features).copy())
            for one in held
        ]
