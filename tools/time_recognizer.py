"""Measure what it saves to recognise utterances of several people in one call (docs/decisions/0045).

    python tools/time_recognizer.py --model whisper-base --n 5 talk.wav other.flac
    taskset -c 0 python tools/time_recognizer.py --model whisper-base --compute-type float32 talk.wav

The utterances are beginnings of the clips, as long as those that live use asks for. Batches hold utterances
with equally long windows, as in `emi serve`. Each batch is timed right next to the same utterances one by
one, in changing order, so that other programs weigh on both. CPU seconds are of the whole process.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from emi_bench.measurement import Machine, load_average
from emi_models.speech.log_mel import LogMel
from emi_models.speech.recognizer import Hypothesis, Utterance
from emi_models.speech.whisper import WhisperRecognizer

RATE_HZ: Final = 16_000
SIZES: Final = (1, 2, 4, 8)
LENGTHS_S: Final = (0.5, 7.0)  # 5 to 95 % of the hypotheses without a prompt in live use lie between
MARGIN: Final = 400  # frames of silence behind the speech, as of the recogniser


def main() -> None:
    """Print a table: the recogniser as it is, and the encoder alone in batches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sounds", type=Path, nargs="+", help="clips with speech")
    parser.add_argument("--model", type=Path, required=True, help="a folder in CTranslate2's format")
    parser.add_argument("--compute-type", default="int8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--n", type=int, default=5, help="batches of each size")
    options = parser.parse_args()
    recognizer = WhisperRecognizer(options.model, compute_type=options.compute_type, threads=options.threads)
    sounds = [_read(path) for path in options.sounds]
    order = random.Random(0)  # noqa: S311 # not a secret
    cores = len(os.sched_getaffinity(0))
    sys.stdout.write(
        f"{Machine.here().line()}; load {load_average():.1f}. {recognizer.name}, {options.threads} threads, "
        f"{cores} cores. Median [least, most] of n = {options.n} batches.\n\n"
        "| utterances | CPU s each alone | in a call | ratio | wall ratio | encoder's ratio | same words | "
        "same bits |\n|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    )
    _compare(recognizer, _batch(sounds, 1, order), swap=False)  # warms up
    for size in SIZES:
        batches = [_batch(sounds, size, order) for _ in range(options.n)]
        found = [_compare(recognizer, batch, swap=bool(turn % 2)) for turn, batch in enumerate(batches)]
        columns = [_shown([one[index] for one in found]) for index in range(5)]
        words, bits = (f"{sum(one[index] for one in found)} of {size * options.n}" for index in (5, 6))
        sys.stdout.write(f"| {size} | {' | '.join(columns)} | {words} | {bits} |\n")


def _compare(recognizer: WhisperRecognizer, batch: list[Utterance], *, swap: bool) -> tuple[Any, ...]:
    def alone() -> Any:
        return _timed(lambda: [recognizer.recognize([one])[0] for one in batch])

    def together() -> Any:
        return _timed(lambda: recognizer.recognize(batch))

    first, second = (together(), alone()) if swap else (alone(), together())
    each, call = (second, first) if swap else (first, second)
    mels = [_window(one.samples) for one in batch]
    model, view = recognizer._model, recognizer._as_array
    encoded = _timed(lambda: [model.encode(view(mel), to_cpu=False) for mel in mels])
    stacked = _timed(lambda: model.encode(view(np.concatenate(mels)), to_cpu=False))
    pairs = list(zip(each[2], call[2], strict=True))
    size = len(batch)
    return (
        *(each[0] / size, call[0] / size, call[0] / each[0], call[1] / each[1], stacked[0] / encoded[0]),
        sum(_words(one) == _words(other) for one, other in pairs),
        sum(one == other for one, other in pairs),
    )


def _words(found: Hypothesis) -> list[tuple[str, float, float]]:
    """Words and times, without probabilities."""
    return [(word.text, word.start_s, word.end_s) for word in found.words]


def _timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds of CPU and of wall that it took, and its result."""
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    result = work()
    return time.process_time() - cpu_s, time.perf_counter() - wall_s, result


def _batch(sounds: list[NDArray[np.float32]], size: int, order: random.Random) -> list[Utterance]:
    """Utterances whose windows are equally long: all end in the same two seconds."""
    low, high = LENGTHS_S
    step = int(order.uniform(low, high) // 2)
    lengths = [order.uniform(max(low, 2 * step + 0.02), 2 * step + 2) for _ in range(size)]
    chosen = [order.choice([sound for sound in sounds if sound.size >= 2 * RATE_HZ]) for _ in lengths]
    starts = [
        order.randrange(max(1, len(one) - round(s * RATE_HZ))) for one, s in zip(chosen, lengths, strict=True)
    ]
    return [
        Utterance(np.resize(one[start:], round(s * RATE_HZ)))
        for one, start, s in zip(chosen, starts, lengths, strict=True)
    ]


def _window(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    mel = LogMel()
    mel.push(samples)
    return mel.window(-(-(mel.frames + MARGIN) // 200) * 200)[np.newaxis]


def _read(path: Path) -> NDArray[np.float32]:
    """16 kHz mono, of which each clip's beginning is a beginning of speech."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("fltp", "mono", RATE_HZ)
        parts = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        parts += resampler.resample(None)
    return np.concatenate([part.to_ndarray()[0] for part in parts]).astype(np.float32)


def _shown(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


if __name__ == "__main__":
    main()
