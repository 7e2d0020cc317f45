"""One clip into columns: every estimate, its states, and the features of face and voice at that time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from emi_live.bundle import bundle_of, with_tuned_encoders
from emi_live.clock import NS_PER_MS, NS_PER_S
from emi_live.config import LiveConfig, SourceConfig
from emi_live.errors import ConfigurationError, SourceError, StageError
from emi_live.health import Health
from emi_live.live import LiveEngine
from emi_live.messages import JSON_SCHEMA, AudioPacket, Estimate, Packet, TranscriptPacket, VisionPacket, Word
from emi_live.sharing import KeptModels
from emi_live.window import AUDIO_FRAME_NS
from emi_live.worker import Worker
from emi_models import MODALITIES
from emi_models.encoders.face import FACE_FEATURES, NEUTRAL_POSITION_CM, POSITION_SCALE_CM
from emi_models.encoders.prosody import ENERGY_DEVIATION_DB, ENERGY_MEAN_DB, MEL_BANDS, REFERENCE_HZ, VOICED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_engine.load import Step
    from emi_live.bus import PacketReader
    from emi_models import Modality
    from emi_models.store import Progress

__all__ = ["ClipScorer", "Scores", "score"]

WAIT_S: Final = 0.1
JOIN_S: Final = 5.0
OLD_NS: Final = 500 * NS_PER_MS  # a face that was seen longer ago is not in the columns of an estimate

# What the bundle `compact` measures, in words and units: docs/score.md.
VISION_COLUMNS: Final = (
    *(name for name in FACE_FEATURES[:52] if name != "_neutral"),
    *("pitch_deg", "yaw_deg", "roll_deg", "x_cm", "y_cm", "z_cm"),
)
AUDIO_COLUMNS: Final = ("f0_hz", "level_dbfs", "voicing")


class Scores(dict[str, Any]):
    """The columns of one clip by name, one row for each estimate: `pandas.DataFrame(scores)` takes them.

    Numbers are float64 arrays of shape (rows,), NaN where nothing is known; texts are lists of strings, None
    where there is none. `targets` names the columns of intensities; `docs/score.md` says what each column is.
    """

    def __init__(
        self,
        columns: dict[str, Any],
        targets: Sequence[str],
        words: Sequence[Word],
        *,
        duration_s: float,
        hop_s: float,
        limits: Sequence[tuple[float, float]],
        pictures: int = 0,
        faces: int = 0,
        damaged: int = 0,
    ) -> None:
        """Keep the columns; `pictures` were analysed, `faces` of them read, `damaged` packets left out."""
        super().__init__(columns)
        self.targets = tuple(targets)
        self.words = tuple(words)
        self.duration_s = duration_s
        self.hop_s = hop_s
        self.limits = tuple(limits)
        self.pictures, self.faces, self.damaged = pictures, faces, damaged

    @property
    def rows(self) -> int:
        """The number of estimates."""
        return len(self["t"])

    @property
    def text(self) -> str:
        """All words."""
        return " ".join(word.text for word in self.words)


@dataclass(slots=True)
class _Collector:
    """Keeps what the stages publish of one clip; `run` is the body of a worker."""

    tap: PacketReader
    named: bool  # whether the features are those of `compact`, which have names
    seen_ns: list[int] = field(default_factory=list)
    faces: list[NDArray[np.float32]] = field(default_factory=list)
    voice_ns: list[NDArray[np.int64]] = field(default_factory=list)
    voices: list[NDArray[np.float32]] = field(default_factory=list)
    words: dict[int, Word] = field(default_factory=dict)
    partial: tuple[Word, ...] = ()
    pictures: int = 0

    def run(self, stop: threading.Event) -> None:
        """Read until `stop` is set and nothing is left."""
        while True:
            packet = self.tap.read()
            if packet is not None:
                self.add(packet)
            elif stop.is_set():
                return
            else:
                self.tap.wait(WAIT_S)

    def add(self, packet: Packet) -> None:
        """Take in one packet."""
        if isinstance(packet, VisionPacket):
            self.pictures += packet.faces >= 0
            if packet.features is not None:
                self.seen_ns.append(packet.t_ns)
                self.faces.append(packet.features if self.named else packet.features[:0])
        elif isinstance(packet, AudioPacket) and self.named and len(packet.frames):
            count = len(packet.frames)
            self.voice_ns.append(packet.t_ns - AUDIO_FRAME_NS * np.arange(count - 1, -1, -1, dtype=np.int64))
            self.voices.append(packet.frames[:, MEL_BANDS : MEL_BANDS + 3].copy())
        elif isinstance(packet, TranscriptPacket):
            self.words |= {word.number: word for word in packet.words if word.committed}
            self.partial = tuple(word for word in packet.words if not word.committed)

    def all_words(self) -> list[Word]:
        """Every word, in the order in which they were spoken."""
        return [*sorted(self.words.values(), key=lambda word: (word.start_ns, word.number)), *self.partial]

    def face_columns(self, ends_ns: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """The newest face at each of the times, (rows,) for each name."""
        table = np.full((len(ends_ns), len(VISION_COLUMNS)), np.nan)
        if self.faces:
            features = np.stack(self.faces).astype(np.float64)
            angles = np.degrees(features[:, 52:55])
            place = features[:, 55:58] * POSITION_SCALE_CM + NEUTRAL_POSITION_CM
            values = np.concatenate([features[:, 1:52], angles, place], axis=1)
            seen_ns = np.array(self.seen_ns)
            newest = np.searchsorted(seen_ns, ends_ns, side="right") - 1
            fresh = (newest >= 0) & (ends_ns - seen_ns[newest] <= OLD_NS)
            table[fresh] = values[newest[fresh]]
        return {name: table[:, place] for place, name in enumerate(VISION_COLUMNS)}

    def voice_columns(self, ends_ns: NDArray[np.int64], hop_ns: int) -> dict[str, NDArray[np.float64]]:
        """F0 (median of the voiced frames), level and voicing (means) over the hop before each time."""
        table = np.full((len(ends_ns), len(AUDIO_COLUMNS)), np.nan)
        if self.voices:
            times, frames = np.concatenate(self.voice_ns), np.concatenate(self.voices).astype(np.float64)
            first = np.searchsorted(times, ends_ns - hop_ns, side="right")
            last = np.searchsorted(times, ends_ns, side="right")
            for row, (start, end) in enumerate(zip(first, last, strict=True)):
                part = frames[start:end]
                if not len(part):
                    continue
                voiced = part[part[:, 1] >= VOICED, 0]
                table[row] = (
                    REFERENCE_HZ * 2.0 ** np.median(voiced) if len(voiced) else np.nan,
                    part[:, 2].mean() * ENERGY_DEVIATION_DB + ENERGY_MEAN_DB,
                    part[:, 1].mean(),
                )
        return {name: table[:, place] for place, name in enumerate(AUDIO_COLUMNS)}


class ClipScorer:
    """Scores clips one after another, each as `emi-live --input CLIP` would, with the same numbers.

    The models stay loaded; they forget each clip before the next one. After a clip at which a part failed,
    they are loaded again. `for_several` makes more scorers, for clips at the same time.

    Attributes:
        announcements: what runs, one line each.
        encoders: the encoder that runs, by modality.
        recognizer: the speech recogniser's name, "" if none runs.
        unavailable: why a modality that the settings do not switch off has no encoder, with the remedy.
    """

    def __init__(
        self, config: LiveConfig | None = None, *, progress: Progress | None = None, step: Step | None = None
    ) -> None:
        """Load all models, and the checkpoint to see that it fits.

        Args:
            config: settings; what it says of sources and outputs means nothing here.
            progress: called on every download of a model.
            step: entered around each part of loading.

        Raises:
            EmiError: as `LiveEngine.load`.
        """
        config = with_tuned_encoders(config or LiveConfig())
        self._config = config.model_copy(
            update={"source": SourceConfig(audio_track=config.source.audio_track), "mode": "exact"}
        )
        self._named = config.bundle == "compact"
        self._models: KeptModels | None = None
        self._again: Callable[[], KeptModels] = self._load  # after a part has failed
        self._progress, self._step = progress, step
        self.announcements: list[str] = []
        self.encoders: dict[Modality, str] = {}
        self.recognizer = ""
        self.unavailable: dict[str, str] = {}
        self._load()

    def _load(self) -> KeptModels:
        from emi_models.store import ModelStore

        config, bundle = self._config, bundle_of(self._config)
        self._store = store = ModelStore(config.models.directory, offline=config.models.offline)
        encoders = bundle.load(
            config, store, vision=True, audio=True, progress=self._progress, step=self._step
        )
        with ExitStack() as opened:
            models = opened.enter_context(KeptModels(encoders))
            probe = LiveEngine(config, shared=models, step=self._step)
            opened.callback(probe.close)
            probe.load()
            self.announcements = list(probe.announcements)
            probe.close()
            opened.pop_all()
        wanted = {
            "vision": config.face.enabled,
            "audio": config.audio.enabled,
            "text": config.speech.backend != "none",
        }
        lacking = encoders.unavailable
        self.unavailable = {modality: why for modality, why in lacking.items() if wanted[modality]}
        self.encoders = {
            modality: encoders.ids[modality]
            for modality in MODALITIES
            if wanted[modality] and modality in encoders.ids and modality not in lacking
        }
        self.recognizer = "" if encoders.recognizer is None else encoders.recognizer.name
        self._models = models
        return models

    @property
    def gains_by_several(self) -> bool:
        """As of `ClipEncoders`."""
        encoders = None if self._models is None else self._models.encoders
        return encoders is not None and encoders.on_gpu and encoders.shares_words

    def for_several(self, count: int) -> list[Self]:
        """As many scorers, for clips at once, with these models; close them before this one.

        The numbers are the same but for the rounding of encoders, which compute in batches.

        Raises:
            EmiError: what a clip has for itself cannot be loaded once more.
        """
        from emi_live.extract.together import EncodersTogether

        models = self._models or self._load()
        together = EncodersTogether(models.encoders, self._config, self._store)
        scorers: list[Self] = []
        try:
            for _ in range(count):
                scorer = copy(self)
                scorer._again = lambda: KeptModels(together.lend(), models.engine)
                scorer._models = scorer._again()
                scorers.append(scorer)
        except BaseException:
            for scorer in scorers:
                scorer.close()
            raise
        return scorers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the models."""
        models, self._models = self._models, None
        if models is not None:
            models.close()

    def score(self, path: str | Path) -> Scores:
        """Score one clip, from its start to its end.

        Raises:
            ConfigurationError: there is no such file.
            SourceError: it cannot be read, is cut off, or holds neither picture nor sound.
            StageError: a stage failed on it.
        """
        path = Path(path)
        if not path.is_file():
            raise ConfigurationError(f"{path}: there is no such file")
        source = SourceConfig(input=path, audio_track=self._config.source.audio_track)
        config = self._config.model_copy(update={"source": source})
        models = self._models = self._models or self._again()
        models.forget()
        health, estimates = Health(), list[Estimate]()
        live = LiveEngine(config, shared=models, health=health, step=self._step)
        with ExitStack() as opened:
            opened.callback(live.close)
            live.load()
            collector = _Collector(live.subscribe(("vision", "audio", "transcript")), self._named)
            worker = Worker("score", collector.run, health)
            worker.start()
            opened.callback(_finish, worker)
            try:
                opened.enter_context(live)
                estimates += live.estimates()
            except BaseException:
                self._models = None
                opened.callback(models.abandon)
                raise
            _finish(worker)
            if worker.error is not None:
                raise StageError(f"{path}: the packets cannot be read: {worker.error}") from worker.error
        if shortfall := health.status("file").detail:
            raise SourceError(f"{path}: {shortfall}")
        if not estimates:
            raise SourceError(f"{path}: it is shorter than one hop of {config.window.hop_s:g} s")
        damaged = health.snapshot().counters.get("file.damaged", 0)
        return _scores(path, config, estimates, collector, damaged)


def _finish(worker: Worker) -> None:
    worker.request_stop()
    worker.join(JOIN_S)


def _scores(
    path: Path, config: LiveConfig, estimates: Sequence[Estimate], collector: _Collector, damaged: int
) -> Scores:
    first = estimates[0]
    rows = len(estimates)
    columns: dict[str, Any] = {
        "file": [path.name] * rows,
        "session": [first.session] * rows,
        "schema": [JSON_SCHEMA] * rows,
        "seq": [estimate.seq for estimate in estimates],
        "t": np.array([estimate.t_s for estimate in estimates]),
    }
    for place, name in enumerate(first.names):
        columns[name] = np.array([estimate.intensities[place] for estimate in estimates])
    if any(estimate.intervals is not None for estimate in estimates):
        for place, name in enumerate(first.names):
            bounds = [_bounds(estimate, place) for estimate in estimates]
            columns[f"{name}_low"], columns[f"{name}_high"] = np.array(bounds).T
    for modality in MODALITIES:
        reports = [estimate.modalities[modality] for estimate in estimates]
        columns[f"{modality}_state"] = [report.state for report in reports]
        columns[f"{modality}_used"] = [report.used for report in reports]
        columns[f"{modality}_age_ms"] = _numbers(report.age_ms for report in reports)
        columns[f"{modality}_reason"] = [report.reason for report in reports]
    texts = [estimate.modalities["text"] for estimate in estimates]
    columns["committed"] = [text.committed or "" for text in texts]
    columns["partial"] = [text.partial or "" for text in texts]
    if config.bundle == "compact":
        ends_ns = np.array([round(estimate.t_s * NS_PER_S) for estimate in estimates], np.int64)
        columns |= collector.face_columns(ends_ns)
        columns |= collector.voice_columns(ends_ns, round(config.window.hop_s * NS_PER_S))
    return Scores(
        columns,
        first.names,
        collector.all_words(),
        duration_s=estimates[-1].t_s,
        hop_s=config.window.hop_s,
        limits=first.limits,
        pictures=collector.pictures,
        faces=len(collector.seen_ns),
        damaged=damaged,
    )


def _bounds(estimate: Estimate, place: int) -> tuple[float, float]:
    found = None if estimate.intervals is None else estimate.intervals[place]
    return (np.nan, np.nan) if found is None else (found[0], found[1])


def _numbers(values: Iterable[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values])


def score(clip: str | Path, config: LiveConfig | None = None) -> Scores:
    """Score one clip; the result is a table for `pandas.DataFrame` or `polars.DataFrame`.

    ::

        table = pandas.DataFrame(emi_live.score("clip.mp4"))
        print(table[["t", "joy", "vision_state"]])

    Models that are not on this machine are fetched, unless `models.offline` is set. For many clips, use
    `ClipScorer`, which keeps the models loaded, or the command `emi score`.

    Args:
        clip: a file with pictures, sound or both.
        config: settings, e.g. `load_config("taemi")`.

    Raises:
        EmiError: the clip cannot be read, or a model is missing.
    """
    with ClipScorer(config) as scorer:
        return scorer.score(clip)
