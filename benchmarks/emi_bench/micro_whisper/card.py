"""The model card: how the folder was made, and what was measured of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emi_bench.speech.vocabulary import ACCENTS, HELD_OUT_VOICES, VOCABULARY, VOICES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emi_bench.micro_whisper.evaluate import Scores
    from emi_bench.micro_whisper.train import Plan

__all__ = ["card"]


def card(plan: Plan, scores: Sequence[Scores], parameters: int) -> str:
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
faster-whisper's whole path (features, encoder, decoder, timestamps, alignment, prompts) on a model that truly
listens, without a download. It is of no use for people's speech.

## How it was made

`python -m emi_bench.micro_whisper --out FOLDER --seed {plan.seed}` (needs the extra `bench`).

- Data: synthetic alone. eSpeak NG (`espeakng-loader`) spoke sentences drawn from the vocabulary in
  {len(VOICES)} voices ({len(ACCENTS)} accents) at 110 to 230 words a minute. No recording of a person is in
  it; the weights are of this project and under its licence.
- Clips are cut anywhere, begin within sentences, hold pauses and several sentences; noise, reverberation,
  telephone bands and changes of level are added; 8 % hold no speech, and are taught `<|nospeech|>`.
- Tokens: Whisper's, English only, a word of the vocabulary being one token; with timestamps of 20 ms or
  `<|notimestamps|>`; 40 % after a `<|startofprev|>` prompt, which may be unrelated to the sound.
- Network: width {size.width}, {size.encoder_layers} encoder and {size.decoder_layers} decoder layers.
  Two heads of the last one were taught to look at the word being said, whose true times are known; they are
  the alignment heads.
- {plan.steps} steps of AdamW in {len(plan.rounds)} rounds, windows of 4 s first, whole ones of 30 s last.
  The recipe is seeded; bit-identity is not claimed.

## Limits

It was taught mostly on clips of up to 8 s: longer sound, and several sentences with pauses, cost errors, as
the table says. Its words must be those of `emi_bench.speech.vocabulary`, in eSpeak NG's English voices.
faster-whisper's alignment lets the first word of a clip begin at 0, whatever comes before it.

## Measured

By faster-whisper, int8, greedy, without fallback to sampling. No training heard these sentences: one in ten
is kept from it. New voices are {len(HELD_OUT_VOICES)} that it did not hear either. Errors of times are
absolute, of words that were recognised; later starts are those of words that are not the first of a clip.

| clips | n | words | word errors | start: median, p90 | end: median, p90 | later starts within 0.15 s |
|---|---|---|---|---|---|---|
{_rows(scores)}

Where nothing is said, the errors are the words that were heard all the same, per clip.
"""


def _rows(scores: Sequence[Scores]) -> str:
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
