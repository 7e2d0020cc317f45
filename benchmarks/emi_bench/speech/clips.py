"""Clips whose words are known: from a folder, from the test media, or synthetic.

Words are compared without case and punctuation; titles and small numbers are spelt out. There is no other
normalisation: "ill-disposed" is two words, "don't" is one, and "okay" is not "ok". Word error rates of papers
that use Whisper's own, larger normaliser are a little lower.
"""

from __future__ import annotations

import csv
import json
import os
import re
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_bench.speech.report import ClipKind, WordTimes
from emi_live.errors import ConfigurationError
from emi_live.rings import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from emi_bench.speech.report import ClipKind
    from emi_bench.speech.synthetic import SyntheticUtterance

__all__ = [
    "NORMALISATION",
    "NotAlignedError",
    "SaidWord",
    "SpeechClip",
    "folder_clips",
    "forced_alignment",
    "long_talk",
    "normalise",
    "prompt_talks",
    "read_sound",
    "real_clips",
    "speech_assets",
    "with_silence_after",
]

NORMALISATION: Final = (
    "lower case; no punctuation; a hyphen separates two words; mr, mrs, dr and the numbers 0 to 12 spelt out"
)
NUMBERS: Final = (
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)
SPELT: Final = {"mr": "mister", "mrs": "missus", "dr": "doctor"} | {
    str(number): word for number, word in enumerate(NUMBERS)
}
APOSTROPHES: Final = dict.fromkeys(map(ord, "’‘`´"), "'")  # noqa: RUF001 # as recognisers and people write it
# A microphone continues after speech: the last words are committed in the silence after them.
TAIL_S: Final = 2.0
FRAME_S: Final = 0.01
VARIANT: Final = re.compile(r"\(\d+\)$")  # read(2): the second pronunciation of "read"
NOT_A_WORD: Final = ("<", "[", "+")
BEAMS: Final = dict.fromkeys(
    ("beam", "wbeam", "pbeam"), 1e-150
)  # the words are known, so almost nothing is pruned
SOUNDS: Final = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".mkv", ".webm")
PAUSE: Final = re.compile(r"^[<\[+]")
# The words of the test media that have no .txt file; also in their MANIFEST.tsv.
KNOWN: Final = {
    "jfk": "And so, my fellow Americans, ask not what your country can do for you, "
    "ask what you can do for your country.",
    "english_one_two_three": "one two three",
    "librispeech_6930-75918-0000": "concord returned to its place amidst the tents",
}
RATE_HZ: Final = 16_000
SEED: Final = 20_260
PROMPTS_IN_TALK: Final = 14


def normalise(text: str) -> list[str]:
    """The words of a text; a recogniser's word may give none or several."""
    plain = "".join(
        letter if letter.isalnum() or letter == "'" else " "
        for letter in text.translate(APOSTROPHES).casefold()
    )
    bare = (word.strip("'") for word in plain.split())
    return [SPELT.get(word, word) for word in bare if word]


@dataclass(frozen=True, slots=True)
class SaidWord:
    """A word as `normalise` gives it, and its end in seconds; None: unknown."""

    text: str
    end_s: float | None


@dataclass(frozen=True, slots=True, eq=False)
class SpeechClip:
    """Sound, shape (n,), 16 kHz mono, in [-1, 1], and what is said in it."""

    name: str
    kind: ClipKind
    samples: NDArray[np.float32] = field(repr=False)
    words: tuple[SaidWord, ...]
    times: WordTimes
    note: str = ""  # why there are no times

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.samples.size / SAMPLE_RATE_HZ

    @classmethod
    def synthetic(cls, name: str, kind: ClipKind, said: SyntheticUtterance) -> SpeechClip:
        """An utterance of `emi_bench.speech.synthetic`."""
        words = tuple(SaidWord(text, word.end_s) for word in said.words for text in normalise(word.text))
        return cls(name, kind, said.samples, words, "true")


def with_silence_after(samples: NDArray[np.float32], seconds: float = TAIL_S) -> NDArray[np.float32]:
    """The sound with silence after it."""
    return np.concatenate((samples, np.zeros(round(seconds * SAMPLE_RATE_HZ), np.float32)))


def read_sound(path: Path) -> NDArray[np.float32]:
    """All sound of a media file, decoded, mixed down and resampled as the engine does it, shape (n,), 16 kHz.

    Raises:
        ConfigurationError: the path is not that of a file.
        SourceError: it cannot be read, or has no sound.
    """
    from emi_live.errors import SourceError
    from emi_live.resample import StreamingResampler
    from emi_live.sources.container import open_container, require_file
    from emi_live.sources.decode import StreamReader

    require_file(path)
    blocks: list[NDArray[np.float32]] = []
    resampler: StreamingResampler | None = None
    with open_container(path) as container:
        stream = next((s for s in container.streams.audio if s.codec_context), None)
        if stream is None:
            raise SourceError(f"{path} has no sound; give a recording of speech")
        reader = StreamReader(container, stream, (container.start_time or 0) * 1_000)
        for block in reader.blocks():
            if resampler is None:
                resampler = StreamingResampler(block.rate_hz)
            blocks += [made.samples for made in resampler.push(block.samples.mean(axis=1), block.t_ns)]
    if resampler is not None:
        blocks += [made.samples for made in resampler.flush()]
    if not blocks:
        raise SourceError(f"nothing in {path} can be decoded as sound; try another file")
    return np.concatenate(blocks)


class NotAlignedError(Exception):
    """The words cannot be found in the sound; the message says why."""


def forced_alignment(samples: NDArray[np.float32], words: Sequence[str]) -> list[float]:
    """When each word ends, in seconds, by PocketSphinx; half within 20 ms (docs/benchmarks/speech.md).

    Args:
        samples: shape (n,), 16 kHz mono, in [-1, 1]; they contain `words` and no other speech.
        words: as `spoken` gives them.

    Raises:
        NotAlignedError: PocketSphinx is absent, does not know a word, or does not find them in the sound.
    """
    try:
        from pocketsphinx import Decoder
    except ImportError as error:
        raise NotAlignedError("PocketSphinx is not installed: pip install 'emi-live[bench]'") from error
    decoder = Decoder(samprate=16_000, loglevel="FATAL", bestpath=False, **BEAMS)
    unknown = [word for word in dict.fromkeys(words) if decoder.lookup_word(word) is None]
    if unknown or not words:
        raise NotAlignedError(f"PocketSphinx's dictionary lacks {', '.join(unknown) or 'an empty text'}")
    decoder.set_align_text(" ".join(words))
    decoder.start_utt()
    pcm = (np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16)
    decoder.process_raw(pcm.tobytes(), full_utt=True)  # the cepstral mean is that of the clip
    decoder.end_utt()
    found = [
        (VARIANT.sub("", segment.word), (segment.end_frame + 1) * FRAME_S)
        for segment in decoder.seg() or ()
        if not segment.word.startswith(NOT_A_WORD)
    ]
    if [text for text, _ in found] != list(words):
        raise NotAlignedError("PocketSphinx does not find the words in the sound")
    return [end_s for _, end_s in found]


def speech_assets() -> Path:
    """The folder of the project's test clips of read speech.

    Raises:
        ConfigurationError: it is not on this machine.
    """
    folder = Path(os.environ.get("EMI_TEST_ASSETS", "../shared/assets")) / "speech"
    if not folder.is_dir():
        raise ConfigurationError(
            f"the clips of --clips real are not at {folder}: set EMI_TEST_ASSETS to the folder that holds "
            "speech/, or measure --clips synthetic, or a folder of your own with NAME.wav and NAME.txt"
        )
    return folder


def real_clips() -> Iterator[SpeechClip]:
    """Read speech of the project's test media."""
    yield from folder_clips(speech_assets(), "real", KNOWN)


def prompt_talks(*, nonstop: bool) -> Iterator[SpeechClip]:
    """The spoken prompts of the project's test media, 14 to a talk, with pauses of 0.2 to 3 s or without any.

    Raises:
        ConfigurationError: the list of prompts is not on this machine.
    """
    rows, rng = _prompt_rows(), np.random.default_rng(SEED)
    kind: ClipKind = "prompts-nonstop" if nonstop else "prompts"
    for number, start in enumerate(range(0, len(rows), PROMPTS_IN_TALK), start=1):
        talk = _Talk(rng, nonstop=nonstop)
        for row in rows[start : start + PROMPTS_IN_TALK]:
            talk.add(*_prompt(row))
        yield talk.clip(f"{kind} {number}", kind)


def long_talk(seconds: float, *, nonstop: bool) -> SpeechClip:
    """One talk of all the prompts, from the first again after the last, as long as a whole prompt fits.

    Args:
        seconds: its length at most.
        nonstop: without pauses; else with pauses of 0.2 to 3 s.

    Raises:
        ConfigurationError: the list of prompts is not on this machine, or the first is longer than `seconds`.
    """
    rows, talk = _prompt_rows(), _Talk(np.random.default_rng(SEED), nonstop=nonstop)
    for samples, words in cycle(_prompt(row) for row in rows):  # read as far as needed, and once
        if talk.seconds + samples.size / RATE_HZ > seconds:
            break
        talk.add(samples, words)
    if not talk.words:
        raise ConfigurationError(f"no prompt fits into {seconds:g} s; ask for a longer talk")
    manner = "without a pause" if nonstop else "with pauses"
    return talk.clip(
        f"prompts for {seconds / 60:g} minutes {manner}", "prompts-nonstop" if nonstop else "prompts"
    )


class _Talk:
    """Prompts one after another."""

    def __init__(self, rng: np.random.Generator, *, nonstop: bool) -> None:
        self._rng, self._nonstop = rng, nonstop
        self._parts: list[NDArray[np.float32]] = []
        self.words: list[SaidWord] = []

    @property
    def seconds(self) -> float:
        return sum(part.size for part in self._parts) / RATE_HZ

    def add(self, samples: NDArray[np.float32], words: Sequence[SaidWord]) -> None:
        begin_s = self.seconds
        self.words += [
            SaidWord(word.text, None if word.end_s is None else begin_s + word.end_s) for word in words
        ]
        pause_s = 0.0 if self._nonstop else self._rng.uniform(0.2, 3.0)
        self._parts += [samples, np.zeros(round(pause_s * RATE_HZ), np.float32)]

    def clip(self, name: str, kind: ClipKind) -> SpeechClip:
        return SpeechClip(name, kind, np.concatenate(self._parts), tuple(self.words), "aligned")


def _prompt_rows() -> list[dict[str, str]]:
    try:
        with (speech_assets() / "prompts.tsv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except OSError as error:
        raise ConfigurationError(f"the list of prompts cannot be read: {error}") from error


def _prompt(row: Mapping[str, str]) -> tuple[NDArray[np.float32], list[SaidWord]]:
    samples, texts = read_sound(speech_assets() / row["file"]), normalise(row["text"])
    try:
        ends_s: Sequence[float | None] = forced_alignment(samples, texts)
    except NotAlignedError:
        ends_s = [None] * len(texts)
    return samples, [SaidWord(text, end_s) for text, end_s in zip(texts, ends_s, strict=True)]


def folder_clips(
    folder: Path, kind: ClipKind = "yours", known: Mapping[str, str] | None = None
) -> Iterator[SpeechClip]:
    """The clips of a folder whose words are known, by name.

    Times are those of NAME.json if there is one, as PocketSphinx writes it, begin and duration in seconds:
    `{"w": [{"b": 0.2, "d": 0.17, "t": "and"}, …]}`; else they are found by forced alignment.

    Raises:
        ConfigurationError: there is no clip, or a file of a clip cannot be read.
    """
    if not folder.is_dir():
        raise ConfigurationError(
            f"--clips {folder}: there is no such folder; give real, synthetic, or a folder with NAME.wav "
            "and NAME.txt"
        )
    texts = dict(known or {})
    for path in folder.glob("*.txt"):
        texts[path.stem] = _read_text(path)
    paths = [
        path for path in sorted(folder.iterdir()) if path.suffix.lower() in SOUNDS and path.stem in texts
    ]
    if not paths:
        raise ConfigurationError(
            f"{folder} holds no clip: put NAME.wav (or {', '.join(SOUNDS[1:])}) there, and NAME.txt with "
            "its words"
        )
    for path in paths:
        yield _clip(path, kind, normalise(texts[path.stem]))


def _clip(path: Path, kind: ClipKind, texts: list[str]) -> SpeechClip:
    if not texts:
        raise ConfigurationError(f"{path.with_suffix('.txt')} has no words; write down what is said")
    samples = read_sound(path)
    timed = path.with_suffix(".json")
    if timed.is_file():
        return SpeechClip(path.stem, kind, samples, _given(timed, texts), "given")
    try:
        ends_s = forced_alignment(samples, texts)
    except NotAlignedError as error:
        unknown = tuple(SaidWord(text, None) for text in texts)
        return SpeechClip(path.stem, kind, samples, unknown, "none", str(error))
    return SpeechClip(path.stem, kind, samples, tuple(map(SaidWord, texts, ends_s)), "aligned")


def _given(path: Path, texts: list[str]) -> tuple[SaidWord, ...]:
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["w"]
        words = tuple(
            SaidWord(text, float(entry["b"]) + float(entry["d"]))
            for entry in entries
            if not PAUSE.match(entry["t"])
            for text in normalise(VARIANT.sub("", entry["t"]))
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} holds no times of words ({type(error).__name__}: {error}); remove it to have them found"
        ) from error
    if [word.text for word in words] != texts:
        raise ConfigurationError(
            f"{path} has other words than {path.with_suffix('.txt').name}; correct one of them"
        )
    return words


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read as text ({error}); save it as UTF-8") from error
