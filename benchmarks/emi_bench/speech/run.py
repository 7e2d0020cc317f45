"""The run: settings that are checked before anything is loaded, then every clip in one piece and streamed.

`measure_face` says whether faces wait for words: the whole engine at real pace, in turns with recognition and
without.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from emi_bench.harness import UsageSampler, in_background
from emi_bench.live import WARM_UP_S, EstimateRecorder, PacketRecorder, after_warm_up, passages
from emi_bench.live_report import TOTAL
from emi_bench.measurement import Distribution, means_of_spans, slope
from emi_bench.speech.clips import (
    NORMALISATION,
    TAIL_S,
    SpeechClip,
    folder_clips,
    long_talk,
    prompt_talks,
    real_clips,
    speech_assets,
    with_silence_after,
)
from emi_bench.speech.conditions import CONDITIONS, make_condition
from emi_bench.speech.playback import (
    Playback,
    WatchedRecognizer,
    make_clock,
    offline_words,
    play_through,
    prepare,
)
from emi_bench.speech.report import (
    CLOCKS,
    ClipReport,
    FaceIndependence,
    FaceTimes,
    OfflineResult,
    StreamedClip,
    WordErrors,
)
from emi_bench.speech.scoring import score_words, word_history, word_lateness
from emi_live import LiveEngine
from emi_live.clock import NS_PER_MS, NS_PER_S
from emi_live.config import load_config
from emi_live.errors import ConfigurationError, SourceError
from emi_live.health import Health
from emi_live.rings import SAMPLE_RATE_HZ
from emi_live.stages.speech import SpeechStage
from emi_models.encoders.voice_activity import VoiceGate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from emi_bench.speech.clips import SpeechClip
    from emi_bench.speech.playback import PlaybackClock
    from emi_bench.speech.report import ClockName, SpeechReport
    from emi_live.config import LiveConfig, SpeechConfig
    from emi_models.speech.recognizer import Recognizer
    from emi_models.store import Progress as Download

__all__ = [
    "OFFLINE_LIMIT_S",
    "ClipRunner",
    "SpeechProgress",
    "SpeechSettings",
    "clips_to_play",
    "make_settings",
    "measure_face",
    "measure_speech",
]

PROMPTS: Final = ("prompts", "prompts-nonstop")
SYNTHETIC_CLIPS: Final = 12
SYNTHETIC_S: Final = 15.0
SEED: Final = 1_000  # of the first synthetic clip; training draws from smaller ones
PAUSES_S: Final = (0.3, 1.5)
NO_PAUSES_S: Final = (0.05, 0.3)  # too short to end an utterance
OFFLINE_LIMIT_S: Final = 28.0  # of an utterance in one piece: Whisper takes no more than 30 s
SpeechProgress = Callable[[str, float, float], None]  # what is measured, seconds done, all seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechSettings:
    """What to measure."""

    config: LiveConfig
    sets: tuple[str, ...]  # real, synthetic or a folder
    clocks: tuple[ClockName, ...]
    minutes: float | None  # of a synthetic monologue, or of the prompts if `sets` names them
    nonstop: bool  # the monologue has no pause that ends an utterance
    condition_s: float | None  # of silence, noise and music each; None: no conditions
    face_clip: Path | None
    face_turns: int
    most_clips: int | None = None  # of each set; None: all

    @property
    def words(self) -> bool:
        """Whether the speech stage alone is measured; else only the whole engine is."""
        return bool(self.sets) or self.minutes is not None or self.condition_s is not None

    @property
    def long_prompts(self) -> bool:
        """Whether `minutes` is the length of a talk of the spoken prompts."""
        return self.minutes is not None and any(name in PROMPTS for name in self.sets)


def make_settings(
    *,
    model: str | None = None,
    backend: str | None = None,
    clips: Sequence[str] | None = None,
    clocks: Sequence[str] | None = None,
    minutes: float | None = None,
    nonstop: bool = False,
    condition_s: float | None = None,
    face_clip: Path | None = None,
    face_turns: int = 2,
    settings: Iterable[str] = (),
    most_clips: int | None = None,
) -> SpeechSettings:
    """Check the options, as far as possible without loading anything.

    Raises:
        ConfigurationError: an option is wrong; the message names it and what to give.
    """
    strange = [name for name in clocks or () if name not in CLOCKS]
    if strange:
        raise ConfigurationError(f"--clock {strange[0]} is not one of {', '.join(CLOCKS)}")
    if nonstop and minutes is None:
        raise ConfigurationError(
            "--nonstop needs a monologue; give its length with --minutes, e.g. --minutes 5"
        )
    overrides = {"backend": backend or ("whisper" if model is not None else None), "model": model}
    speech = {key: value for key, value in overrides.items() if value is not None}
    config = load_config(settings=settings, overrides={"mode": "live", "speech": speech})
    if config.speech.backend == "none":
        raise ConfigurationError("speech.backend=none recognises nothing; choose whisper or pocketsphinx")
    if model is not None and config.speech.backend == "pocketsphinx":
        raise ConfigurationError("--model is for Whisper; PocketSphinx has one model, so leave it out")
    if face_clip is not None and not face_clip.is_file():
        raise ConfigurationError(
            f"--face-clip {face_clip}: there is no such file; give one with a face and speech"
        )
    asked = minutes is not None or condition_s is not None or face_clip is not None
    sets = tuple(clips) if clips else () if asked else ("synthetic",)
    for name in sets:
        if name == "real" or name in PROMPTS:
            speech_assets()
        elif name != "synthetic" and not Path(name).is_dir():
            raise ConfigurationError(
                f"--clips {name}: there is no such folder; give real, prompts, prompts-nonstop, synthetic, "
                "or a folder with NAME.wav and NAME.txt"
            )
    return SpeechSettings(
        config=config,
        sets=sets,
        clocks=cast("tuple[ClockName, ...]", tuple(dict.fromkeys(clocks or ("unaware", "aware")))),
        minutes=minutes,
        nonstop=nonstop,
        condition_s=condition_s,
        face_clip=face_clip,
        face_turns=face_turns,
        most_clips=most_clips,
    )


def measure_speech(
    settings: SpeechSettings,
    progress: SpeechProgress = lambda _what, _done_s, _of_s: None,
    download: Download | None = None,
) -> SpeechReport:
    """Measure what the settings name.

    Args:
        settings: from `make_settings`.
        progress: called with what is measured, the seconds of sound done, and all seconds.
        download: called during the download of a model.

    Raises:
        EmiError: a clip cannot be read, a part is not installed, or the recogniser failed.
    """
    from emi_bench.measurement import Machine, load_average
    from emi_bench.report import Interrupted
    from emi_bench.speech.playback import load_recognizers, warm_up
    from emi_bench.speech.report import SpeechReport, pool
    from emi_bench.speech.scoring import need_jiwer

    need_jiwer()
    load_before = load_average()
    reports, conditions, name, interrupted = [], [], "", False
    if settings.words:
        clips = list(clips_to_play(settings))
        encoders = load_recognizers(settings.config, download)
        try:
            recognizer = encoders.recognizer
            assert recognizer is not None  # noqa: S101  # load_recognizers has raised otherwise
            for one in (recognizer, encoders.smaller_recognizer):
                if one is not None:
                    warm_up(one)
            name = recognizer.name
            runner = ClipRunner(
                recognizer, settings.config.speech, smaller=encoders.smaller_recognizer, progress=progress
            )
            for clip in clips:
                reports.append(runner.report(clip, settings.clocks))
            clocks = [clock for clock in settings.clocks if clock != "unaware"] or settings.clocks
            for condition in CONDITIONS if settings.condition_s is not None else ():
                clip = make_condition(condition, settings.condition_s or 0.0)
                conditions.append(runner.report(clip, clocks[:1], offline=False))
        except KeyboardInterrupt:
            interrupted = True
        finally:
            encoders.close()
    face = None
    if settings.face_clip is not None and not interrupted:
        face = measure_face(settings.config, settings.face_clip, settings.face_turns, progress)
    report = SpeechReport(
        machine=Machine.here(),
        load_before=load_before,
        recognizer=name or "as in emi-live",
        settings=settings.config.speech.model_dump(mode="json"),
        normalisation=NORMALISATION,
        tail_s=TAIL_S,
        clips=reports,
        pooled=pool(reports),
        conditions=conditions,
        face=face,
    )
    if interrupted:
        raise Interrupted(report)
    return report


def clips_to_play(settings: SpeechSettings) -> Iterator[SpeechClip]:
    """The clips that the settings name, one after another."""
    for name in settings.sets:
        if name == "real":
            clips = real_clips()
        elif name == "synthetic":
            clips = _synthetic()
        elif name in PROMPTS and settings.minutes is not None:
            clips = iter((long_talk(60 * settings.minutes, nonstop=name == "prompts-nonstop"),))
        elif name in PROMPTS:
            clips = prompt_talks(nonstop=name == "prompts-nonstop")
        else:
            clips = folder_clips(Path(name))
        yield from islice(clips, settings.most_clips)
    if settings.minutes is not None and not settings.long_prompts:
        from emi_bench.speech.synthetic import HELD_OUT_VOICES, monologue

        said = monologue(
            60 * settings.minutes,
            SEED - 1,
            pause_s=NO_PAUSES_S if settings.nonstop else PAUSES_S,
            voice=HELD_OUT_VOICES[0],
        )
        manner = "without a pause" if settings.nonstop else "with pauses"
        yield SpeechClip.synthetic(f"{settings.minutes:g} minutes {manner}", "monologue", said)


def _synthetic() -> Iterator[SpeechClip]:
    """Monologues, each in a voice that is not in the training of the micro-Whisper."""
    from emi_bench.speech.synthetic import HELD_OUT_VOICES, monologue

    step = max(1, len(HELD_OUT_VOICES) // SYNTHETIC_CLIPS)
    for index in range(SYNTHETIC_CLIPS):
        voice = HELD_OUT_VOICES[index * step % len(HELD_OUT_VOICES)]
        yield SpeechClip.synthetic(voice, "synthetic", monologue(SYNTHETIC_S, SEED + index, voice=voice))


class ClipRunner:
    """Runs clips through the speech stage in the calling thread. It does not own its recognisers."""

    def __init__(
        self,
        recognizer: Recognizer,
        config: SpeechConfig,
        *,
        smaller: Recognizer | None = None,
        progress: SpeechProgress = lambda _what, _done_s, _of_s: None,
    ) -> None:
        """Use recognisers that are loaded and warm."""
        self._recognizer = recognizer
        self._smaller = smaller
        self._config = config
        self._progress = progress
        self._gate = VoiceGate()

    def report(self, clip: SpeechClip, clocks: Sequence[ClockName], *, offline: bool = True) -> ClipReport:
        """All results of one clip; with `offline` also in one piece, if it is not too long."""
        return ClipReport(
            name=clip.name,
            kind=clip.kind,
            seconds=clip.seconds,
            words=len(clip.words),
            times=clip.times,
            note=clip.note,
            offline=self._whole(clip) if offline and clip.seconds <= OFFLINE_LIMIT_S else None,
            heard=[self.stream(clip, name, make_clock) for name in clocks],
        )

    def stream(
        self, clip: SpeechClip, clock: ClockName, make: Callable[[ClockName], PlaybackClock] = make_clock
    ) -> StreamedClip:
        """Stream one clip through the stage, with a recogniser that was reset."""
        for recognizer in (self._recognizer, self._smaller):
            if recognizer is not None:
                prepare(recognizer)
        self._gate.reset()
        samples, health = with_silence_after(clip.samples), Health()
        what = f"{clip.name}, {clock}"
        play = Playback(samples, make(clock))
        recognizer = WatchedRecognizer(self._recognizer, play.tick)
        smaller = None if self._smaller is None else WatchedRecognizer(self._smaller, play.tick)
        stage = SpeechStage(
            play.reader,
            self._gate,
            recognizer,
            self._config,
            exact=clock == "unaware",  # nothing is late, so nothing is given up
            health=health,
            smaller=smaller,
        )
        done = play_through(
            stage, play, lambda done_s: self._progress(what, done_s, samples.size / SAMPLE_RATE_HZ)
        )
        stage.close()
        history = word_history(done.shown)
        found = score_words([word.text for word in clip.words], [word.text for word in history.committed])
        late = word_lateness([word.end_s for word in clip.words], history.committed, found)
        lags = [(one.packet.t_ns / 1e9, one.lag_ms) for one in done.shown]
        return StreamedClip(
            clock=clock,
            errors=WordErrors.of(found),
            text=history.text,
            committed=len(history.committed),
            commit_ms=[round(word.committed_ms, 1) for word in late],
            first_seen_ms=[round(word.seen_ms, 1) for word in late],
            audio_s=samples.size / SAMPLE_RATE_HZ,
            busy_s=sum(done.steps_ns) / 1e9,
            calls=recognizer.calls + (0 if smaller is None else smaller.calls),
            steps_ms=Distribution.of([step / 1e6 for step in done.steps_ns]),
            max_backlog_s=done.max_backlog_s,
            taken_back=history.taken_back,
            rewritten=history.rewritten,
            broken=history.broken,
            lag_ms=Distribution.of([lag for _, lag in lags]),
            lag_over_time=[(at_s, round(lag, 1)) for at_s, lag in means_of_spans(lags)],
            lag_slope=slope(means_of_spans(lags)),
            commit_slope=slope(means_of_spans((word.said_s, word.committed_ms) for word in late)),
            counters={
                name: count
                for name, count in sorted(health.snapshot().counters.items())
                if name.startswith("speech.")
            },
        )

    def _whole(self, clip: SpeechClip) -> OfflineResult:
        self._progress(f"{clip.name}, in one piece", 0.0, clip.seconds)
        start_s = time.perf_counter()
        words = offline_words(self._recognizer, clip.samples)
        took_s = time.perf_counter() - start_s
        found = score_words([word.text for word in clip.words], words)
        return OfflineResult(WordErrors.of(found), took_s, " ".join(words))


@dataclass(slots=True)
class VisionSamples:
    """The times of one side, over all its turns."""

    in_all_ms: list[float] = field(default_factory=list)
    stage_ms: list[float] = field(default_factory=list)
    newest_ms: list[float] = field(default_factory=list)
    pictures: int = 0  # without the first of each turn
    seconds: float = 0.0  # from the first to the last
    cores: list[float] = field(default_factory=list)


def measure_face(
    config: LiveConfig,
    clip: Path,
    turns: int = 2,
    progress: Callable[[str, float, float], None] = lambda _what, _done_s, _of_s: None,
) -> FaceIndependence:
    """Play a clip `turns` times with recognition and as often without, in turns.

    Args:
        config: of the engine with recognition.
        clip: a file with picture and sound.
        turns: of each side.
        progress: called with what runs, the seconds done and the seconds of the clip.

    Raises:
        EmiError: as `LiveEngine` raises.
        ConfigurationError: there is no face encoder or no recogniser on this machine.
        SourceError: no estimate of the clip contains a picture.
    """
    source = config.source.model_copy(update={"input": clip})
    on = config.model_copy(update={"mode": "live", "source": source})
    off = on.model_copy(update={"speech": config.speech.model_copy(update={"backend": "none"})})
    import torch  # not every part of this bench needs it

    torch.set_num_threads(config.fusion.threads)  # as `emi-live` does
    with_words, without = VisionSamples(), VisionSamples()
    for turn in range(turns):
        _play(on, with_words, f"{clip.name} with words, turn {turn + 1}", progress)
        _play(off, without, f"{clip.name} without words, turn {turn + 1}", progress)
    for samples in (with_words, without):
        if not samples.in_all_ms:
            raise SourceError(
                f"no picture of {clip} came into an estimate; give a clip of 5 s or more with a face"
            )
    sides = _side(with_words), _side(without)
    return FaceIndependence(clip.name, turns, *sides, _ratio(*sides, "median"), _ratio(*sides, "p95"))


def _play(
    config: LiveConfig, samples: VisionSamples, what: str, progress: Callable[[str, float, float], None]
) -> None:
    recorder, usage = EstimateRecorder(), UsageSampler()
    live = LiveEngine(config, sinks=[recorder])
    live.load()
    for modality in ("vision",) if config.speech.backend == "none" else ("vision", "text"):
        why = [line for line in live.announcements if line.startswith(f"{modality}: unavailable: ")]
        if why:
            live.close()
            raise ConfigurationError(f"faces cannot be compared with and without words: {why[0]}")
    packets, length_s = PacketRecorder(live), _length_s(config)
    with live, in_background("packets", packets), in_background("usage", usage):
        for estimate in live.estimates():
            progress(what, estimate.t_s, length_s)
    if not recorder.seen or len(packets.traces["vision"]) < 2:
        return
    for one, times in passages(recorder.seen, "vision", packets.traces["vision"]):
        if one.estimate.t_s > WARM_UP_S:
            samples.in_all_ms.append(times[TOTAL])
            samples.stage_ms.append(times["face"])
    samples.newest_ms += [
        (one.estimate.published_ns - one.estimate.traces["vision"].t_ns) / NS_PER_MS
        for one in after_warm_up(recorder.seen, WARM_UP_S)
        if "vision" in one.estimate.traces
    ]
    pictures = packets.traces["vision"]
    samples.pictures += len(pictures) - 1
    samples.seconds += (pictures[-1].t_ns - pictures[0].t_ns) / NS_PER_S
    samples.cores += [sample.cores for sample in usage.samples]


def _length_s(config: LiveConfig) -> float:
    """Length of the clip as its container states it; 0 if unknown."""
    from emi_live.sources.container import open_container

    assert config.source.input is not None  # noqa: S101  # set above
    with open_container(config.source.input) as container:
        return (container.duration or 0) / 1e6


def _side(samples: VisionSamples) -> FaceTimes:
    return FaceTimes(
        capture_to_estimate_ms=Distribution.of(samples.newest_ms),
        picture_in_all_ms=Distribution.of(samples.in_all_ms),
        picture_stage_ms=Distribution.of(samples.stage_ms),
        pictures_per_s=samples.pictures / samples.seconds,
        cpu_cores=sum(samples.cores) / len(samples.cores) if samples.cores else 0.0,
    )


def _ratio(on: FaceTimes, off: FaceTimes, name: str) -> float | None:
    a, b = on.capture_to_estimate_ms, off.capture_to_estimate_ms
    return None if a is None or b is None or not getattr(b, name) else getattr(a, name) / getattr(b, name)
