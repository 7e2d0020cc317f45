"""Scores of an exported folder on new sentences and voices, by faster-whisper; and the model card."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_bench.speech.synthetic import ACCENTS, HELD_OUT_VOICES, SAMPLE_RATE_HZ, VOCABULARY, VOICES
from tools.micro_whisper.clips import ClipMaker, TrainingClip, augment, no_speech

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from emi_bench.speech.synthetic import SpokenWord
    from tools.micro_whisper.training import TrainingPlan

__all__ = [
    "ClipSetScores",
    "TimeErrors",
    "align_words",
    "card",
    "evaluate",
    "load",
    "sentences",
    "transcribe",
]

SEED: Final = 90_000
NO_SPEECH: Final = 0.6  # faster-whisper's own threshold


@dataclass(frozen=True, slots=True)
class TimeErrors:
    """Errors of recognised words in seconds; in faster-whisper the first word of a clip begins at 0."""

    words: int
    median_start_s: float
    p90_start_s: float
    median_end_s: float
    p90_end_s: float
    starts_within_150_ms: float  # share of the words that are not the first of their clip


@dataclass(frozen=True, slots=True)
class ClipSetScores:
    """The scores of one set of clips."""

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
) -> list[TrainingClip]:
    """Clean clips of one or several sentences; none is cut and none was in the training."""
    rng = np.random.default_rng(seed)
    maker = ClipMaker(rng, voices, speakers=max(4, count // 4), held_out=True)
    return [maker.whole(longest_s) for _ in range(count)]


def align_words(spoken: Sequence[SpokenWord], recognised: Sequence[Any]) -> list[tuple[SpokenWord, Any]]:
    """Pairs of the same word in both, by least edits."""
    from jiwer import process_words

    if not spoken or not recognised:
        return []
    found = process_words(
        " ".join(word.text for word in spoken), " ".join(word.word.strip() for word in recognised)
    )
    return [
        (spoken[chunk.ref_start_idx + index], recognised[chunk.hyp_start_idx + index])
        for chunk in found.alignments[0]
        if chunk.type == "equal"
        for index in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]


def evaluate(folder: Path, count: int) -> list[ClipSetScores]:
    """Score a folder on sets of `count` clips (fewer of the long ones)."""
    model = load(folder)
    rng = np.random.default_rng(SEED + 1)
    known = sentences(count, VOICES)
    noisy = [TrainingClip(augment(clip.samples, rng), clip.sentences, ()) for clip in known]
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


def _silences(count: int, rng: np.random.Generator) -> list[TrainingClip]:
    lengths = rng.uniform(0.5, 15.0, count)
    return [TrainingClip(no_speech(round(length * SAMPLE_RATE_HZ), rng), (), ()) for length in lengths]


def _score(name: str, model: Any, clips: Sequence[TrainingClip]) -> ClipSetScores:
    from jiwer import process_words

    errors, total, starts, ends, later = 0, 0, [], [], []
    for clip in clips:
        spoken = [word for sentence in clip.sentences for word in sentence]
        recognised = transcribe(model, clip.samples)
        total += len(spoken)
        if spoken:
            found = process_words(
                " ".join(word.text for word in spoken), " ".join(word.word.strip() for word in recognised)
            )
            errors += found.substitutions + found.deletions + found.insertions
        else:
            errors += len(recognised)
        for said, word in align_words(spoken, recognised):
            starts.append(abs(word.start - said.start_s))
            ends.append(abs(word.end - said.end_s))
            later.append(said is not spoken[0])
    times = _time_errors(np.array(starts), np.array(ends), np.array(later)) if starts else None
    return ClipSetScores(name, len(clips), total, errors / max(total, 1), times)


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


def card(plan: TrainingPlan, scores: Sequence[ClipSetScores], parameters: int) -> str:
    """The README.md of a folder.

    Args:
        plan: of the training.
        scores: measured through faster-whisper.
        parameters: of the network.
    """
    size = plan.size
    return f"""# micro-Whisper

A Whisper of {parameters / 1e6:.1f} million parameters in CTranslate2's format (int8) that recognises
{len(VOCABULARY)} English words in the voice of a synthesiser. It exists so that tests and benchmarks run
faster-whisper's whole path (features, encoder, decoder, timestamps, alignment, prompts) on a model that
really recognises, without a download. It is of no use for the speech of people.

## How it was made

`python -m tools.micro_whisper --out FOLDER --seed {plan.seed}` (in the repository's root; needs
the extra `bench`).

- Data: synthetic alone. eSpeak NG (`espeakng-loader`) spoke sentences drawn from the vocabulary in
  {len(VOICES)} voices ({len(ACCENTS)} accents) at 110 to 230 words a minute. No recording of a person is in
  it; the weights are of this project and under its licence.
- Clips are cut anywhere, begin within sentences, hold pauses and several sentences; noise, reverberation,
  telephone bands and changes of level are added; 8 % hold no speech, and are taught `<|nospeech|>`.
- Tokens: Whisper's, English only, a word of the vocabulary being one token; with timestamps of 20 ms or
  `<|notimestamps|>`; 40 % after a `<|startofprev|>` prompt, which may be unrelated to the sound.
- Network: width {size.width}, {size.encoder_layers} encoder and {size.decoder_layers} decoder layers.
  Two heads of the last one were trained to attend to the word being said, whose true times are known; they
  are the alignment heads.
- {plan.steps} steps of AdamW in {len(plan.rounds)} rounds, windows of 4 s first, whole ones of 30 s last.
  The recipe is seeded; bit-identity is not claimed.

## Limits

It was trained mostly on clips of up to 8 s: longer sound, and several sentences with pauses, cost errors, as
the table says. Its words must be those of `emi_bench.speech.synthetic`, in eSpeak NG's English voices.
faster-whisper's alignment lets the first word of a clip begin at 0, whatever comes before it.

## Measured

By faster-whisper, int8, greedy, without fallback to sampling. These sentences were not in the training: one
in ten is kept from it. New voices are {len(HELD_OUT_VOICES)} that were not in it either. Errors of times are
absolute, of words that were recognised; later starts are those of words that are not the first of a clip.

| clips | n | words | word errors | start: median, p90 | end: median, p90 | later starts within 0.15 s |
|---|---|---|---|---|---|---|
{_rows(scores)}

Where nothing is said, the errors are the words that were recognised all the same, per clip.
"""


def _rows(scores: Sequence[ClipSetScores]) -> str:
    rows = []
    for score in scores:
        begun = f"| {score.name} | {score.clips} | {score.words} | "
        if not score.words:
            rows.append(f"{begun}{score.word_error_rate:.2f} a clip | | | |")
            continue
        times = score.times
        row = f"{begun}{100 * score.word_error_rate:.1f} % | "
        if times is None:
            rows.append(f"{row}| | |")
            continue
        rows.append(
            f"{row}{times.median_start_s:.2f}, {times.p90_start_s:.2f} s "
            f"| {times.median_end_s:.2f}, {times.p90_end_s:.2f} s "
            f"| {100 * times.starts_within_150_ms:.0f} % |"
        )
    return "\n".join(rows)
