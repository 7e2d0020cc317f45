"""`emi bench face`: what a picture costs by each backend of the face stage, and how far apart they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Final

import av
import numpy as np

from emi_bench.live_report import FaceCost, FaceDifference, FaceReport
from emi_bench.measurement import Machine, load_average, percentile
from emi_live.errors import SourceError
from emi_models.encoders.face import BLENDSHAPES, FaceEncoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_models.encoders.face import Backend, FaceResult

__all__ = ["measure_faces"]

WARM_UP: Final = 10  # pictures that are not timed
NS_PER_S: Final = 1_000_000_000

Frame = tuple["NDArray[np.uint8]", int]


@dataclass(frozen=True, slots=True)
class _Course:
    """What one backend made of the clip."""

    cost: FaceCost
    results: list[FaceResult]


def measure_faces(
    clip: Path,
    model: Path,
    backends: Sequence[Backend],
    max_faces: Sequence[int],
    pictures: int,
    show: Callable[[str, int, int], None],
) -> FaceReport:
    """Run each backend over the first pictures of a clip, one after the other.

    Args:
        clip: a media file.
        model: `face_landmarker.task`.
        backends: what is measured.
        max_faces: the values of `face.max_faces`.
        pictures: how many, at most.
        show: is told what is measured, how many cases are done, and of how many.

    Raises:
        SourceError: the clip has no pictures, or too few.
        ModelUnavailableError: a backend is not installed.
    """
    busy = load_average()
    frames = _read(clip, pictures)
    height, width = frames[0][0].shape[:2]
    cases = [(backend, faces) for faces in max_faces for backend in backends]
    courses: dict[tuple[str, int], _Course] = {}
    for done, (backend, faces) in enumerate(cases):
        show(f"{backend}, {faces} faces", done, len(cases))
        courses[backend, faces] = _measure(frames, model, backend, faces)
    return FaceReport(
        machine=Machine.here(),
        load_before=busy,
        clip=clip.name,
        width=width,
        height=height,
        costs=[course.cost for course in courses.values()],
        differences=[
            _compare(faces, courses["litert", faces].results, courses["mediapipe", faces].results)
            for faces in max_faces
            if {"litert", "mediapipe"} <= set(backends)
        ],
    )


def _read(clip: Path, pictures: int) -> list[Frame]:
    frames: list[Frame] = []
    try:
        with av.open(str(clip)) as container:
            for frame in container.decode(video=0):
                frames.append((frame.to_ndarray(format="rgb24"), round((frame.time or 0.0) * NS_PER_S)))
                if len(frames) == pictures:
                    break
    except (av.FFmpegError, IndexError) as error:
        raise SourceError(f"{clip} has no pictures that can be read: {error}") from error
    if len(frames) <= WARM_UP:
        raise SourceError(f"{clip} has {len(frames)} pictures; give a clip with more than {WARM_UP}")
    return frames


def _measure(frames: Sequence[Frame], model: Path, backend: Backend, max_faces: int) -> _Course:
    before = process_time()
    encoder = FaceEncoder(model, max_faces, backend=backend)
    load_s = process_time() - before
    results, cpu_ms, wall_ms = [], [], []
    try:
        for rgb, t_ns in frames:
            started, busy = perf_counter(), process_time()
            results.append(encoder.analyse(rgb, t_ns))
            cpu_ms.append(1e3 * (process_time() - busy))
            wall_ms.append(1e3 * (perf_counter() - started))
    finally:
        encoder.close()
    cpu_ms, wall_ms = cpu_ms[WARM_UP:], wall_ms[WARM_UP:]
    cost = FaceCost(
        backend=backend,
        max_faces=max_faces,
        n=len(cpu_ms),
        with_face=sum(result.faces > 0 for result in results[WARM_UP:]),
        load_cpu_s=load_s,
        cpu_mean_ms=float(np.mean(cpu_ms)),
        cpu_p50_ms=percentile(cpu_ms, 50),
        cpu_p95_ms=percentile(cpu_ms, 95),
        wall_p50_ms=percentile(wall_ms, 50),
    )
    return _Course(cost, results)


def _compare(max_faces: int, ours: Sequence[FaceResult], theirs: Sequence[FaceResult]) -> FaceDifference:
    both = [
        np.abs(first.features - second.features)
        for first, second in zip(ours, theirs, strict=True)
        if first.features is not None and second.features is not None
    ]
    most = [float(each[:BLENDSHAPES].max()) for each in both]
    return FaceDifference(
        max_faces=max_faces,
        n=len(both),
        other_count=sum(first.faces != second.faces for first, second in zip(ours, theirs, strict=True)),
        mean=float(np.mean(most)) if most else 0.0,
        p95=percentile(most, 95) if most else 0.0,
        most=max(most, default=0.0),
        pose_most=max((float(each[BLENDSHAPES:].max()) for each in both), default=0.0),
    )
