"""Clips as tensors: log-mel features as faster-whisper makes and pads them, tokens, and where words lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from emi_bench.micro_whisper.clips import ClipMaker
from emi_bench.micro_whisper.targets import IGNORED, make_target
from emi_bench.speech.vocabulary import VOCABULARY, VOICES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from emi_bench.micro_whisper.clips import Clip
    from emi_bench.micro_whisper.tokens import Tokens

__all__ = ["PHONEMES", "Batch", "Stage", "batches", "collate"]

FRAME_S: Final = 0.02
MAX_WINDOW_S: Final = 30.0
FULL_SHARE: Final = 0.1  # of the clips are as long as the window
MAX_CLIP_S: Final = 22.0  # of all others: a live buffer is trimmed before it
# Of the vocabulary in all accents, in eSpeak NG's spelling with stress left off.
_PHONEMES: Final = (
    "0 3 3: @ @2 @L A: A@ D E I I# I2 N O2 O: O@ T U V VR a a# aI aI2 aI3 aI@ aU aa b d eI f g h i i: j k l "
    "m n o@ oU p r s t t# t2 u: v w z"
)
PHONEMES: Final = tuple(_PHONEMES.split())
NUMBERS: Final = {name: number for number, name in enumerate(PHONEMES, start=1)}  # 0 is silence
AFTER_FRAMES: Final = 25  # of padding in which frames are asked for silence


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the training."""

    steps: int
    window_s: float  # of sound and padding
    batch: int
    longest_s: float = MAX_CLIP_S  # clips; the window, if it is shorter
    augmented: float = 0.8  # share of the clips
    speakers: int = 100  # at a time


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of a batch; frames are the encoder's, of 20 ms."""

    features: Tensor  # (batch, 80, 2 * frames)
    inputs: Tensor  # (batch, tokens)
    labels: Tensor  # (batch, tokens), IGNORED where nothing is asked
    said: Tensor  # (batch, tokens, 3): where to look while saying a label
    seen: Tensor  # (batch, tokens, 3): where an input lies
    frame_words: Tensor  # (batch, frames): 0 is silence
    frame_phonemes: Tensor  # likewise, of PHONEMES
    silent: Tensor  # (batch,)


def batches(stage: Stage, tokens: Tokens, seed: int) -> Iterator[Batch]:
    """A stage's batches, made by another process ahead of time."""
    loader = DataLoader(
        _Batches(stage, tokens, seed),
        batch_size=None,
        num_workers=1,
        prefetch_factor=6,
        multiprocessing_context="forkserver",  # a fork of a process with threads can hang
    )
    return iter(loader)


class _Batches(IterableDataset[Batch]):
    def __init__(self, stage: Stage, tokens: Tokens, seed: int) -> None:
        self._stage, self._tokens, self._seed = stage, tokens, seed

    def __iter__(self) -> Iterator[Batch]:
        from faster_whisper.feature_extractor import FeatureExtractor
        from threadpoolctl import threadpool_limits

        torch.set_num_threads(1)
        threadpool_limits(1)  # numpy's threads would wait in a spin, on the cores that train
        stage, rng = self._stage, np.random.default_rng(self._seed)
        maker = ClipMaker(rng, VOICES, speakers=stage.speakers, augmented=stage.augmented)
        extractor = FeatureExtractor()
        for _ in range(stage.steps):
            clips = [self._clip(maker, rng) for _ in range(stage.batch)]
            yield collate(clips, self._tokens, extractor, stage.window_s, rng)

    def _clip(self, maker: ClipMaker, rng: np.random.Generator) -> Clip:
        window_s = self._stage.window_s
        if rng.random() < FULL_SHARE:
            return maker.draw(window_s, full=True)
        return maker.draw(min(window_s, self._stage.longest_s))


def collate(
    clips: list[Clip], tokens: Tokens, extractor: Any, window_s: float, rng: np.random.Generator
) -> Batch:
    """A batch of clips that are not longer than the window."""
    frames = round(window_s / FRAME_S)
    features = np.zeros((len(clips), 80, 2 * frames), np.float32)
    words = np.full((len(clips), frames), IGNORED, np.int64)
    sounds = words.copy()
    targets = []
    for row, clip in enumerate(clips):
        # The extractor adds 10 ms, and faster-whisper leaves its last frame out; the rest is zero.
        mel = extractor(clip.samples)[:, :-1][:, : 2 * frames]
        features[row, :, : mel.shape[1]] = mel
        fills = window_s == MAX_WINDOW_S and mel.shape[1] == 2 * frames
        covered = mel.shape[1] // 2
        targets.append(make_target(clip, tokens, covered, rng, fills_window=fills))
        words[row, : covered + AFTER_FRAMES] = 0
        sounds[row, : covered + AFTER_FRAMES] = 0
        for sound in clip.phonemes:
            span = slice(_frame(sound.start_s), _frame(sound.end_s))
            sounds[row, span] = NUMBERS.get(sound.text.strip("',;%="), IGNORED)
        sounds[row, covered + AFTER_FRAMES :] = IGNORED
        for sentence in clip.sentences:
            for word in sentence:
                span = slice(_frame(word.start_s), _frame(word.end_s))
                words[row, span] = VOCABULARY.index(word.text) + 1
    length = max(len(target.inputs) for target in targets)
    return Batch(
        features=torch.from_numpy(features),
        inputs=torch.from_numpy(_padded([t.inputs for t in targets], length, tokens.end)),
        labels=torch.from_numpy(_padded([t.labels for t in targets], length, IGNORED)),
        said=_spans([t.said for t in targets], length),
        seen=_spans([t.seen for t in targets], length),
        frame_words=torch.from_numpy(words),
        frame_phonemes=torch.from_numpy(sounds),
        silent=torch.tensor([t.silent for t in targets]),
    )


def _frame(t_s: float) -> int:
    return max(0, round(t_s / FRAME_S))


def _padded(rows: list[list[int]], length: int, filler: int) -> NDArray[np.int64]:
    padded = np.full((len(rows), length), filler, np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded


def _spans(rows: list[list[tuple[int, int, int]]], length: int) -> Tensor:
    padded = torch.zeros(len(rows), length, 3, dtype=torch.long)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row)
    return padded
