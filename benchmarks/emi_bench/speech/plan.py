"""What is to be measured, checked before anything is loaded, and then done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from emi_bench.speech.clips import TAIL_S, Clip
from emi_bench.speech.conditions import CONDITIONS, make_condition
from emi_bench.speech.folder import folder_clips, real_clips, speech_assets
from emi_bench.speech.pace import CLOCKS
from emi_bench.speech.words import NORMALISATION
from emi_live.config import load_config
from emi_live.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from emi_bench.speech.pace import ClockName
    from emi_bench.speech.report import SpeechReport
    from emi_bench.speech.run import Progress
    from emi_live.config import LiveConfig
    from emi_models.store import Progress as Download

__all__ = ["Plan", "carry_out", "make_plan"]

SYNTHETIC_CLIPS: Final = 12
SYNTHETIC_S: Final = 15.0
SEED: Final = 1_000  # of the first synthetic clip; training draws from smaller ones
PAUSES_S: Final = (0.3, 1.5)
NO_PAUSES_S: Final = (0.05, 0.3)  # too short to end an utterance


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run of the benchmark."""

    config: LiveConfig
    sets: tuple[str, ...]  # real, synthetic or a folder
    clocks: tuple[ClockName, ...]
    minutes: float | None  # of a monologue
    nonstop: bool  # it has no pause that would end an utterance
    condition_s: float | None  # of silence, noise and music each; None: no conditions
    face_clip: Path | None
    face_turns: int
    most_clips: int | None = None  # of each set; None: all

    @property
    def words(self) -> bool:
        """Whether anything is heard but by the whole engine."""
        return bool(self.sets) or self.minutes is not None or self.condition_s is not None


def make_plan(
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
) -> Plan:
    """A plan that can be carried out, as far as can be seen without loading anything.

    Raises:
        ConfigurationError: it cannot be; the message names the option and what to give.
    """
    strange = [name for name in clocks or () if name not in CLOCKS]
    if strange:
        raise ConfigurationError(f"--clock {strange[0]} is none of {', '.join(CLOCKS)}")
    if nonstop and minutes is None:
        raise ConfigurationError(
            "--nonstop is about the monologue; say how long with --minutes, e.g. --minutes 5"
        )
    overrides = {"backend": backend or ("faster-whisper" if model is not None else None), "model": model}
    speech = {key: value for key, value in overrides.items() if value is not None}
    config = load_config(settings=settings, overrides={"mode": "live", "speech": speech})
    if config.speech.backend == "none":
        raise ConfigurationError("speech.backend=none hears nothing; choose faster-whisper or pocketsphinx")
    if model is not None and config.speech.backend == "pocketsphinx":
        raise ConfigurationError("--model is of faster-whisper; PocketSphinx has one model, so leave it out")
    if face_clip is not None and not face_clip.is_file():
        raise ConfigurationError(
            f"--face-clip {face_clip}: there is no such file; give one with a face and speech"
        )
    asked = minutes is not None or condition_s is not None or face_clip is not None
    sets = tuple(clips) if clips else () if asked else ("synthetic",)
    for name in sets:
        if name == "real":
            speech_assets()
        elif name != "synthetic" and not Path(name).is_dir():
            raise ConfigurationError(
                f"--clips {name}: there is no such folder; give real, synthetic, or a folder with NAME.wav "
                "and NAME.txt"
            )
    return Plan(
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


def carry_out(
    plan: Plan,
    progress: Progress = lambda _what, _done_s, _of_s: None,
    download: Download | None = None,
) -> SpeechReport:
    """Measure.

    Args:
        plan: what.
        progress: told what is heard, how much of it has been, and of how much, in seconds of sound.
        download: told of a model that is fetched.

    Raises:
        EmiError: a clip cannot be read, a part is not installed, or the recogniser broke down.
    """
    from emi_bench.machine import Machine
    from emi_bench.partial import Interrupted
    from emi_bench.speech.recognizers import load_recognizers, warm_up
    from emi_bench.speech.report import SpeechReport, pool
    from emi_bench.speech.run import Listener
    from emi_bench.speech.score import need_jiwer
    from emi_bench.usage import load_average

    need_jiwer()
    load_before = load_average()
    reports, conditions, name, interrupted = [], [], "", False
    if plan.words:
        clips = list(_clips(plan))
        encoders = load_recognizers(plan.config, download)
        try:
            recognizer = encoders.recognizer
            assert recognizer is not None  # noqa: S101  # load_recognizers has raised otherwise
            for one in (recognizer, encoders.smaller_recognizer):
                if one is not None:
                    warm_up(one)
            name = recognizer.name
            listener = Listener(
                recognizer, plan.config.speech, smaller=encoders.smaller_recognizer, progress=progress
            )
            for clip in clips:
                reports.append(listener.report(clip, plan.clocks))
            clocks = [clock for clock in plan.clocks if clock != "unaware"] or plan.clocks
            for condition in CONDITIONS if plan.condition_s is not None else ():
                clip = make_condition(condition, plan.condition_s or 0.0)
                conditions.append(listener.report(clip, clocks[:1], offline=False))
        except KeyboardInterrupt:
            interrupted = True
        finally:
            encoders.close()
    face = None
    if plan.face_clip is not None and not interrupted:
        from emi_bench.speech.face import measure_face

        face = measure_face(plan.config, plan.face_clip, plan.face_turns, progress)
    report = SpeechReport(
        machine=Machine(),
        load_before=load_before,
        recognizer=name or "as in emi-live",
        settings=plan.config.speech.model_dump(mode="json"),
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


def _clips(plan: Plan) -> Iterator[Clip]:
    for name in plan.sets:
        if name == "real":
            clips = real_clips()
        elif name == "synthetic":
            clips = _synthetic()
        else:
            clips = folder_clips(Path(name))
        yield from islice(clips, plan.most_clips)
    if plan.minutes is not None:
        from emi_bench.speech.synthetic import monologue
        from emi_bench.speech.vocabulary import HELD_OUT_VOICES

        said = monologue(
            60 * plan.minutes,
            SEED - 1,
            pause_s=NO_PAUSES_S if plan.nonstop else PAUSES_S,
            voice=HELD_OUT_VOICES[0],
        )
        manner = "without a pause" if plan.nonstop else "with pauses"
        yield Clip.synthetic(f"{plan.minutes:g} minutes {manner}", "monologue", said)


def _synthetic() -> Iterator[Clip]:
    """Sentences of a voice each that no training hears."""
    from emi_bench.speech.synthetic import monologue
    from emi_bench.speech.vocabulary import HELD_OUT_VOICES

    step = max(1, len(HELD_OUT_VOICES) // SYNTHETIC_CLIPS)
    for index in range(SYNTHETIC_CLIPS):
        voice = HELD_OUT_VOICES[index * step % len(HELD_OUT_VOICES)]
        yield Clip.synthetic(voice, "synthetic", monologue(SYNTHETIC_S, SEED + index, voice=voice))
