"""What a folder recognises through faster-whisper, of sentences and voices that no training heard."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_bench.micro_whisper.augment import augment, no_speech
from emi_bench.micro_whisper.clips import Clip, ClipMaker
from emi_bench.speech.synthetic import SAMPLE_RATE_HZ
from emi_bench.speech.vocabulary import HELD_OUT_VOICES, VOICES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from emi_bench.speech.synthetic import SpokenWord

__all__ = ["Scores", "TimeErrors", "align_words", "evaluate", "load", "sentences", "transcribe"]

SEED: Final = 90_000
NO_SPEECH: Final = 0.6  # faster-whisper's own threshold


@dataclass(frozen=True, slots=True)
class TimeErrors:
    """Of words that were recognised, seconds; faster-whisper lets the first of a clip begin at 0."""

    words: int
    median_start_s: float
    p90_start_s: float
    median_end_s: float
    p90_end_s: float
    starts_within_150_ms: float  # share of the words that are not the first of their clip


@dataclass(frozen=True, slots=True)
class Scores:
    """One set of clips."""

    name: str
    clips: int
    words: int
    word_error_rate: float
    times: TimeErrors | None

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def load(folder: Path, threads: int = 1) -> Any:
    """A faster-whisper model on the CPU, int8."""
    from faster_whisper import WhisperModel

    return WhisperModel(
        str(folder), device="cpu", compute_type="int8", cpu_threads=threads, local_files_only=True
    )


def transcribe(model: Any, samples: NDArray[np.float32], **settings: Any) -> list[Any]:
    """faster-whisper's words by greedy search, without a fallback to sampling."""
    options = {"language": "en", "beam_size": 1, "temperature": 0.0, "condition_on_previous_text": False}
    segments, _ = model.transcribe(samples, word_timestamps=True, **(options | settings))
    return [word for segment in segments for word in segment.words or ()]


def sentences(
    count: int, voices: Sequence[str], seed: int = SEED, *, longest_s: float | None = None
) -> list[Clip]:
    """Clean clips: single sentences, or several with pauses, none of them cut and none heard in training."""
    rng = np.random.default_rng(seed)
    maker = ClipMaker(rng, voices, speakers=max(4, count // 4), held_out=True)
    return [maker.whole(longest_s) for _ in range(count)]


def align_words(spoken: Sequence[SpokenWord], heard: Sequence[Any]) -> list[tuple[SpokenWord, Any]]:
    """Pairs of the same word in both, by least edits."""
    from jiwer import process_words

    if not spoken or not heard:
        return []
    found = process_words(
        " ".join(word.text for word in spoken), " ".join(word.word.strip() for word in heard)
    )
    return [
        (spoken[chunk.ref_start_idx + index], heard[chunk.hyp_start_idx + index])
        for chunk in found.alignments[0]
        if chunk.type == "equal"
        for index in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]


def evaluate(folder: Path, count: int) -> list[Scores]:
    """Score a folder on sets of `count` clips (fewer of the long ones)."""
    model = load(folder)
    rng = np.random.default_rng(SEED + 1)
    known = sentences(count, VOICES)
    noisy = [Clip(augment(clip.samples, rng), clip.sentences, ()) for clip in known]
    return [
        _score("new sentences, known voices", model, known),
        _score("new sentences, new voices", model, sentences(count, HELD_OUT_VOICES, SEED + 2)),
        _score("new sentences, known voices, with noise, rooms and telephones", model, noisy),
        _score(
            "new sentences up to 8 s together, known voices",
            model,
            sentences(count // 2, VOICES, SEED + 3, longest_s=8.0),
        ),
        _score(
            "new sentences up to 15 s together, known voices",
            model,
            sentences(count // 4, VOICES, SEED + 4, longest_s=15.0),
        ),
        _score("no speech: silence, noise, hum, tones, clicks", model, _silences(count, rng)),
    ]


def _silences(count: int, rng: np.random.Generator) -> list[Clip]:
    lengths = rng.uniform(0.5, 15.0, count)
    return [Clip(no_speech(round(length * SAMPLE_RATE_HZ), rng), (), ()) for length in lengths]


def _score(name: str, model: Any, clips: Sequence[Clip]) -> Scores:
    from jiwer import process_words

    errors, total, starts, ends, later = 0, 0, [], [], []
    for clip in clips:
        spoken = [word for sentence in clip.sentences for word in sentence]
        heard = transcribe(model, clip.samples)
        total += len(spoken)
        if spoken:
            found = process_words(
                " ".join(word.text for word in spoken), " ".join(word.word.strip() for word in heard)
            )
            errors += found.substitutions + found.deletions + found.insertions
        else:
            errors += len(heard)
        for said, word in align_words(spoken, heard):
            starts.append(abs(word.start - said.start_s))
            ends.append(abs(word.end - said.end_s))
            later.append(said is not spoken[0])
    times = _time_errors(np.array(starts), np.array(ends), np.array(later)) if starts else None
    return Scores(name, len(clips), total, errors / max(total, 1), times)


def _time_errors(
    starts: NDArray[np.float64], ends: NDArray[np.float64], later: NDArray[np.bool_]
) -> TimeErrors:
    return TimeErrors(
        words=starts.size,
        median_start_s=float(np.median(starts)),
        p90_start_s=float(np.percentile(starts, 90)),
        median_end_s=float(np.median(ends)),
        p90_end_s=float(np.percentile(ends, 90)),
        starts_within_150_ms=float(np.mean(starts[later] <= 0.15)),
    )
