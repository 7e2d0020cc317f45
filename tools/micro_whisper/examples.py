"""Clips as tensors: tokens, log-mel features as in faster-whisper, and the frames where each word is.

Tokens are Whisper's special tokens and timestamps over a vocabulary of whole words. A target is what the
decoder gets and must say for a clip, and the frames that it should attend to while saying it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from emi_bench.speech.synthetic import VOCABULARY, VOICES
from tools.micro_whisper.clips import ClipMaker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from torch import Tensor

    from tools.micro_whisper.clips import TrainingClip

__all__ = [
    "IGNORED",
    "PHONEMES",
    "TIMESTAMPS",
    "Batch",
    "Target",
    "Tokens",
    "TrainingPhase",
    "batches",
    "collate",
    "make_target",
    "make_tokenizer",
]

TIMESTAMPS: Final = 1501  # 0.00 to 30.00 s
STEP_S: Final = 0.02
SPECIAL: Final = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
IGNORED: Final = -100
TIMESTAMP_SHARE: Final = 0.65
PROMPT_SHARE: Final = 0.4
LONG_PROMPT_SHARE: Final = 0.03  # few, because the longest makes its whole batch long
MAX_PROMPT: Final = 222  # faster-whisper's: half of 448 positions, less one, and <|startofprev|>
FIRST_TIMESTAMP_S: Final = 1.0  # faster-whisper allows no later first one
FRAME_S: Final = 0.02
TAIL_FRAMES: Final = 60  # of a pause that still belongs to the word before it
TAIL_SHARE: Final = 0.2
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
class Tokens:
    """Ids of the tokens; faster-whisper takes text below `end`, timestamps above `no_timestamps`."""

    words: dict[str, int]
    letters: tuple[int, ...]  # bytes, which unknown words of a prompt are made of
    end: int
    start: int
    previous: int
    no_speech: int
    no_timestamps: int
    size: int

    def at(self, t_s: float) -> int:
        """The timestamp nearest to a time, 0 to 30 s."""
        return self.no_timestamps + 1 + min(TIMESTAMPS - 1, max(0, round(t_s / STEP_S)))

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Tokens:
        """The ids that a tokenizer gives."""
        ids = tokenizer.get_vocab()
        return cls(
            words={word: ids[f"Ġ{word}"] for word in VOCABULARY},
            letters=tuple(ids[letter] for letter in "Ġabcdefghijklmnopqrstuvwxyz"),
            end=ids["<|endoftext|>"],
            start=ids["<|startoftranscript|>"],
            previous=ids["<|startofprev|>"],
            no_speech=ids["<|nospeech|>"],
            no_timestamps=ids["<|notimestamps|>"],
            size=tokenizer.get_vocab_size(),
        )


def make_tokenizer() -> Tokenizer:
    """A word of the vocabulary with a space before it is one token; any other text is bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    texts = sorted(pre_tokenizers.ByteLevel.alphabet()) + [f"Ġ{word}" for word in VOCABULARY]
    texts = list(dict.fromkeys(texts))
    tokenizer = Tokenizer(
        models.BPE(vocab={text: index for index, text in enumerate(texts)}, merges=[], ignore_merges=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    stamps = [f"<|{index * STEP_S:.2f}|>" for index in range(TIMESTAMPS)]
    tokenizer.add_tokens([AddedToken(stamp, special=False, normalized=False) for stamp in stamps])
    return tokenizer


@dataclass(slots=True)
class Target:
    """One sequence: after `inputs[i]` comes `labels[i]`, with attention to the frames `said[i]`."""

    inputs: list[int]
    labels: list[int]
    said: list[tuple[int, int, int]]  # frames from, to, and to which its tail reaches; from = to: anywhere
    seen: list[tuple[int, int, int]]  # likewise of the input
    silent: bool


def make_target(
    clip: TrainingClip, tokens: Tokens, frames: int, rng: np.random.Generator, *, fills_window: bool = False
) -> Target:
    """Tokens of a clip in one of Whisper's forms: with timestamps or not, after a prompt or not.

    Args:
        clip: the sound and its words.
        tokens: ids.
        frames: the encoder's frames, of 20 ms, that the clip covers.
        rng: for the form.
        fills_window: the clip fills all 30 s, so a last sentence that goes on is left for the next window.
    """
    stamped = rng.random() < TIMESTAMP_SHARE
    target = Target([], [], [], [], not clip.sentences)
    if rng.random() < PROMPT_SHARE:
        for token in (tokens.previous, *_prompt(clip.before, tokens, rng)):
            _add(target, token, IGNORED)
    nowhere = (0, 0, 0)
    said: list[tuple[int, tuple[int, int, int]]] = [] if stamped else [(tokens.no_timestamps, nowhere)]
    if stamped and not clip.sentences:
        said.append((tokens.at(0.0), nowhere))
    sentences = clip.sentences
    for index, sentence in enumerate(sentences):
        start_s, end_s = sentence[0].start_s, sentence[-1].end_s
        following_s = sentences[index + 1][0].start_s if index + 1 < len(sentences) else end_s
        if stamped:
            written_s = start_s if index else min(start_s, FIRST_TIMESTAMP_S)
            said.append((tokens.at(written_s), _around(start_s, frames)))
            if fills_window and clip.goes_on and 0 < index == len(sentences) - 1:
                break
        for number, word in enumerate(sentence):
            first, last = _frame(word.start_s, frames), _frame(word.end_s, frames)
            tail = (
                min(_frame(following_s, frames), last + TAIL_FRAMES) if number + 1 == len(sentence) else last
            )
            said.append((tokens.words[word.text], (first, max(last, first + 1), max(tail, last, first + 1))))
        if stamped:
            said.append((tokens.at(end_s), _around(end_s, frames)))
    last_s = sentences[-1][-1].end_s if sentences else 0.0
    rest = (_frame(last_s, frames), min(frames, _frame(last_s, frames) + 25)) if sentences else (0, 0)
    said.append((tokens.end, (*rest, rest[1])))
    shown, where = tokens.start, nowhere
    for token, looked_at in said:
        # Whether <|notimestamps|> is said is the caller's choice, not to be guessed from the sound.
        _add(target, shown, IGNORED if token == tokens.no_timestamps else token, looked_at, where)
        shown, where = token, looked_at
    return target


def _add(
    target: Target,
    token: int,
    label: int,
    said: tuple[int, int, int] = (0, 0, 0),
    seen: tuple[int, int, int] = (0, 0, 0),
) -> None:
    target.inputs.append(token)
    target.labels.append(label)
    target.said.append(said)
    target.seen.append(seen)


def _prompt(before: tuple[str, ...], tokens: Tokens, rng: np.random.Generator) -> list[int]:
    """The words before the clip, sometimes with timestamps or a word that is spelt in letters."""
    ids = [tokens.words[word] for word in before]
    if rng.random() < 0.2:
        cut = int(rng.integers(len(ids) + 1))
        ids[cut:cut] = [tokens.at(float(rng.uniform(0, 30)))] * 2
    if rng.random() < 0.1:
        ids[:0] = rng.choice(tokens.letters, int(rng.integers(1, 12))).tolist()
    longest = MAX_PROMPT if rng.random() < LONG_PROMPT_SHARE else int(rng.integers(1, 40))
    return ids[-longest:]


def _frame(t_s: float, frames: int) -> int:
    return min(frames, max(0, round(t_s / FRAME_S)))


def _around(t_s: float, frames: int) -> tuple[int, int, int]:
    at = _frame(t_s, frames)
    first, last = max(0, at - 2), min(frames, at + 3)
    return (first, last, last) if last > first else (0, 0, 0)


@dataclass(frozen=True, slots=True)
class TrainingPhase:
    """A part of the training: clips of one kind."""

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


def batches(phase: TrainingPhase, tokens: Tokens, seed: int) -> Iterator[Batch]:
    """A phase's batches, made in advance by another process."""
    loader = DataLoader(
        _Batches(phase, tokens, seed),
        batch_size=None,
        num_workers=1,
        prefetch_factor=6,
        multiprocessing_context="forkserver",  # a fork of a process with threads can hang
    )
    return iter(loader)


class _Batches(IterableDataset[Batch]):
    def __init__(self, phase: TrainingPhase, tokens: Tokens, seed: int) -> None:
        self._phase, self._tokens, self._seed = phase, tokens, seed

    def __iter__(self) -> Iterator[Batch]:
        from faster_whisper.feature_extractor import FeatureExtractor
        from threadpoolctl import threadpool_limits

        torch.set_num_threads(1)
        threadpool_limits(1)  # numpy's threads would wait in a spin, on the cores that train
        phase, rng = self._phase, np.random.default_rng(self._seed)
        maker = ClipMaker(rng, VOICES, speakers=phase.speakers, augmented=phase.augmented)
        extractor = FeatureExtractor()
        for _ in range(phase.steps):
            clips = [self._clip(maker, rng) for _ in range(phase.batch)]
            yield collate(clips, self._tokens, extractor, phase.window_s, rng)

    def _clip(self, maker: ClipMaker, rng: np.random.Generator) -> TrainingClip:
        window_s = self._phase.window_s
        if rng.random() < FULL_SHARE:
            return maker.draw(window_s, full=True)
        return maker.draw(min(window_s, self._phase.longest_s))


def collate(
    clips: list[TrainingClip], tokens: Tokens, extractor: Any, window_s: float, rng: np.random.Generator
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
            span = slice(_frame_at(sound.start_s), _frame_at(sound.end_s))
            sounds[row, span] = NUMBERS.get(sound.text.strip("',;%="), IGNORED)
        sounds[row, covered + AFTER_FRAMES :] = IGNORED
        for sentence in clip.sentences:
            for word in sentence:
                span = slice(_frame_at(word.start_s), _frame_at(word.end_s))
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


def _frame_at(t_s: float) -> int:
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
