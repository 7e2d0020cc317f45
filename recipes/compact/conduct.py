"""How a checkpoint conducts itself where nobody rated: modalities that come, go and meet, and some displays.

Everything is added up from one rest (docs/decisions/0033), so a step when a modality comes is as large as the
one when it goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from emi_bench.truth.scores import pearson, spearman
from emi_live.config import AudioConfig
from emi_live.stages.audio import VOICE_CHUNKS
from emi_models import EMOTIONS
from emi_models.encoders.face import FaceEncoder
from emi_models.encoders.prosody import HOP_SAMPLES, ProsodyEncoder
from emi_models.encoders.voice_activity import CHUNK_SAMPLES, VoiceGate
from emi_models.inputs import FusionInputs
from recipes.compact.calibrate import HELD_OUT, read_recordings, read_sound
from recipes.compact.goemotions import DataError
from recipes.compact.hearing import AROUSED, CALM, voice_window
from recipes.compact.prototypes import columns, displacement
from recipes.compact.scores import auc, infer, interval, spans, windows_of, with_face_values, with_voice
from recipes.compact.seeing import at_rest, face_window
from recipes.compact.sentences import PLAIN_HELD_OUT
from recipes.compact.sizes import SHAPES
from recipes.compact.synthesiser import RATE_HZ
from recipes.compact.words import text_window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from emi_models.networks.base import FusionNetwork
    from recipes.compact.scores import HeldOut

__all__ = [
    "CLIP",
    "READ",
    "WEEPING",
    "Onset",
    "beside_words",
    "conduct",
    "make_onsets",
    "onset_windows",
    "steps",
    "together",
]

SHOWN: Final = ("joy", "empathic_pain", "excitement")  # of pairs
JOY, PAIN, EXCITEMENT = (EMOTIONS.index(name) for name in SHOWN)
AMUSEMENT: Final = EMOTIONS.index("amusement")
# As a weeping person's blendshapes are: a drawn mouth whose lips do not part, eyes closed and down.
WEEPING: Final = {
    **{"mouthSmile": 0.45, "mouthUpperUp": 0.05, "eyeBlink": 0.72, "eyeLookDown": 0.84, "jawOpen": 0.15},
    **{"browInnerUp": 0.4, "eyeSquint": 0.5, "mouthStretch": 0.2, "pitch": 0.2},
}
CLIP: Final = "face/pyfeat_single_face.mp4"  # a smile that grows and goes
READ: Final = (
    *("speech/LJ001-0004.wav", "speech/LJ001-0006.wav"),
    *("speech/librispeech_6930-75918-0000.flac", "speech/jfk.flac"),
)
PAIRS: Final = 400
HAPPY, SAD = 0.8, 0.6  # share of the raters who say so
FELT: Final = 1.0  # what words of an emotion are rated
ONSETS: Final = 500
SILENCE_S: Final = 1.0  # before a voice begins
GAIN_DB: Final = 6.0
HOP_FRAMES: Final = 10  # the live window moves by 0.2 s
HOPS: Final = 5  # the first one with a voice, and 0.8 s after it
FLASH: Final = 0.2
LARGE: Final = 0.2  # a step that is plainly seen


def conduct(
    network: FusionNetwork, held: HeldOut, assets: Path, embed: Callable[[Sequence[str]], Tensor]
) -> dict[str, float]:
    """Scores by name, each with its n (`NAME_n`).

    Args:
        network: the network to score.
        held: data that it did not learn from.
        assets: folder of the recipe's data; it also has `CLIP` and `READ`.
        embed: gives embeddings (N, 384) of texts.

    Raises:
        DataError: a file is missing.
    """
    rest = infer(network, FusionInputs.empty(SHAPES))[0]
    scores = {f"rest_{name}": float(value) for name, value in zip(EMOTIONS, rest, strict=True)}
    plain = embed([each.text for each in PLAIN_HELD_OUT])
    scores |= steps(network, held, rest, plain) | together(network, held)
    scores |= beside_words(network, held, plain) | _smile(network, assets)
    weeping = infer(network, face_window(displacement(WEEPING)[None, None], np.ones((1, 1), np.bool_)))[0]
    scores |= {"weeping_joy": float(weeping[JOY]), "weeping_empathic_pain": float(weeping[PAIN])}
    scores |= _onsets(network, assets, rest) | _read_speech(network, assets, rest)
    scores |= {"ferplus_n": len(held.faces.values), "emodb_n": len(held.acted.frames)}
    scores["emodb_recordings"] = len(np.unique(held.acted.numbers))
    scores["sentences_n"] = len(held.sentences)
    return {name: round(value, 4) for name, value in scores.items()}


def steps(
    network: FusionNetwork, held: HeldOut, rest: NDArray[np.float32], plain: Tensor
) -> dict[str, float]:
    """The largest of the six steps when words or a face come that show nothing.

    Its median, its maximum, and the share of steps above 0.2.
    """
    nothing = torch.from_numpy(~held.targets.any(axis=1))
    neutral = at_rest(held.faces)
    scores: dict[str, float] = {}
    for name, window in (
        ("words", text_window(held.texts["written"][nothing])),
        ("plain", text_window(plain)),
        ("face", face_window(neutral[:, None], np.ones((len(neutral), 1), np.bool_))),
    ):
        steps = np.abs(infer(network, window) - rest).max(axis=1)
        scores |= {f"step_{name}": float(np.median(steps)), f"step_{name}_n": len(steps)}
        scores |= {
            f"step_{name}_max": float(steps.max()),
            f"step_{name}_large": float((steps > LARGE).mean()),
        }
    return scores


def beside_words(network: FusionNetwork, held: HeldOut, plain: Tensor) -> dict[str, float]:
    """How excitement in a voice follows arousal, alone and next to random words that show none of the six.

    Arousal is high or low, as the acted emotion is. r and AUC have intervals; `kept` is the share of the
    voice's own r.

    Args:
        network: the network to score.
        held: data that it did not learn from; words are its comments without any of the six.
        plain: embeddings (N, 384) of other words that show nothing.
    """
    rng = np.random.default_rng(0)
    rated = np.isin(held.acted.emotions, AROUSED + CALM)
    high = np.isin(held.acted.emotions, AROUSED)
    values, mask = windows_of(held.acted.frames)
    words = {"comments": held.texts["written"][torch.from_numpy(~held.targets.any(axis=1))], "plain": plain}
    answers = {"alone": infer(network, voice_window(values, mask))[:, EXCITEMENT]}
    for name, texts in words.items():
        row = torch.from_numpy(rng.integers(len(texts), size=len(values)))
        answers[name] = infer(network, with_voice(text_window(texts[row]), values, mask))[:, EXCITEMENT]
    names = [f"arousal_{name}_{score}" for name in answers for score in ("r", "auc", "kept")]

    def agree(rows: NDArray[np.intp]) -> list[float]:
        rows = rows[rated[rows]]
        found: list[float] = []
        for excitement in answers.values():
            r = pearson(excitement[rows].astype(np.float64), high[rows].astype(np.float64))
            area = auc(excitement[rows][high[rows]], excitement[rows][~high[rows]])
            found += [np.nan if r is None else r, area]
            found.append(found[-2] / found[0])
        return found

    scores = dict(zip(names, agree(np.arange(len(values))), strict=True))
    scores |= spans(names, interval(agree, held.acted.drawer()))
    return scores | {"arousal_n": int(rated.sum())}


def together(network: FusionNetwork, held: HeldOut, pairs: int = PAIRS) -> dict[str, float]:
    """Means of `SHOWN` of faces, voices and words, alone, and of words with a face or a voice, at random."""
    rng = np.random.default_rng(0)
    faces = {"happy": held.faces.share("happiness") >= HAPPY, "sad": held.faces.share("sadness") >= SAD}
    words = {"joyful": held.targets[:, JOY] >= FELT, "sad": held.targets[:, PAIN] >= FELT}
    face = {
        name: held.faces.values[rng.choice(np.flatnonzero(m), pairs)][:, None] for name, m in faces.items()
    }
    text = {
        name: held.texts["written"][torch.from_numpy(rng.choice(np.flatnonzero(m), pairs))]
        for name, m in words.items()
    }
    values, mask = windows_of(held.acted.frames)
    voice = {
        name: rng.choice(np.flatnonzero(held.acted.emotions == emotion), pairs)
        for name, emotion in {"happy": "happiness", "sad": "sadness"}.items()
    }
    there = np.ones((pairs, 1), np.bool_)
    windows = {f"{name}_face": face_window(values_, there) for name, values_ in face.items()}
    windows |= {f"{name}_voice": voice_window(values[rows], mask[rows]) for name, rows in voice.items()}
    for w, embeddings in text.items():
        alone = text_window(embeddings)
        windows[f"{w}_words"] = alone
        windows |= {f"{f}_face_{w}_words": with_face_values(alone, face[f], there) for f in face}
        windows |= {
            f"{v}_voice_{w}_words": with_voice(alone, values[rows], mask[rows]) for v, rows in voice.items()
        }
    scores: dict[str, float] = {"together_n": pairs}
    for name, window in windows.items():
        mean = infer(network, window).mean(axis=0)
        scores |= {f"{name}_{emotion}": float(mean[EMOTIONS.index(emotion)]) for emotion in SHOWN}
    return scores


def _smile(network: FusionNetwork, assets: Path) -> dict[str, float]:
    """How joy and amusement follow the smile of one clip: rank correlations with `mouthSmile`."""
    encoder = FaceEncoder(assets / "mediapipe/face_landmarker.task")
    found = [encoder.analyse(rgb, t_ns).features for rgb, t_ns in _pictures(assets / CLIP)]
    encoder.close()
    values = np.array([each for each in found if each is not None], np.float32)
    answers = infer(network, face_window(values[:, None], np.ones((len(values), 1), np.bool_)))
    smile = values[:, columns("mouthSmile")].mean(axis=1).astype(np.float64)
    ranks = {
        f"smile_{EMOTIONS[c]}": spearman(answers[:, c].astype(np.float64), smile) for c in (JOY, AMUSEMENT)
    }
    return {"smile_n": len(values), **{name: value or 0.0 for name, value in ranks.items()}}


def _pictures(path: Path) -> list[tuple[NDArray[np.uint8], int]]:
    """The pictures of a clip, RGB, each with its time."""
    import av

    try:
        with av.open(str(path)) as file:
            return [(f.to_ndarray(format="rgb24"), round(f.time * 1e9)) for f in file.decode(video=0)]
    except (OSError, av.FFmpegError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


@dataclass(frozen=True, slots=True, eq=False)
class Onset:
    """A voice that begins after silence: its frames (T, 73), and the ends of its first windows."""

    frames: NDArray[np.float32]
    ends: Sequence[int]


def _heard(sound: NDArray[np.float32], encoder: ProsodyEncoder, gate: VoiceGate) -> Onset | None:
    """A sound as the live program uses it: from the chunk on that makes a voice; None if it stays silent."""
    encoder.reset()
    gate.reset()
    frames = encoder.push(sound)
    voiced = np.flatnonzero(gate.push(sound) >= AudioConfig().voice_threshold)
    if len(voiced) < VOICE_CHUNKS:
        return None
    first = (int(voiced[VOICE_CHUNKS - 1]) + 1) * CHUNK_SAMPLES // HOP_SAMPLES
    return Onset(frames, range(first, len(frames) + 1, HOP_FRAMES))


def make_onsets(sounds: Sequence[NDArray[np.float32]], count: int) -> list[Onset]:
    """Voices that begin somewhere in these recordings, with another gain, after a second of silence."""
    rng, encoder, gate = np.random.default_rng(0), ProsodyEncoder(), VoiceGate()
    shortest = VOICE_CHUNKS * CHUNK_SAMPLES
    long_enough = [sound for sound in sounds if len(sound) > shortest]
    silence = np.zeros(round(SILENCE_S * RATE_HZ), np.float32)
    onsets: list[Onset] = []
    while len(onsets) < count:
        sound = long_enough[int(rng.integers(len(long_enough)))]
        start = int(rng.integers(len(sound) - shortest))
        voice = sound[start:] * 10 ** (rng.uniform(-GAIN_DB, GAIN_DB) / 20)
        heard = _heard(np.concatenate([silence, voice.clip(-1, 1)]).astype(np.float32), encoder, gate)
        if heard is not None and heard.ends:
            onsets.append(Onset(heard.frames, heard.ends[:HOPS]))
    return onsets


def onset_windows(onset: Onset) -> FusionInputs:
    """The windows of a voice at its ends."""
    return voice_window(*windows_of([onset.frames[:end] for end in onset.ends]))


def _onsets(network: FusionNetwork, assets: Path, rest: NDArray[np.float32]) -> dict[str, float]:
    """What voices add in their first second: neutral recordings of speakers on whom nothing was fitted."""
    neutral = [r.sound for r in read_recordings(assets / "voice", HELD_OUT) if r.emotion == "neutral"]
    added = [infer(network, onset_windows(onset)) - rest for onset in make_onsets(neutral, ONSETS)]
    first = np.array([np.abs(each[0]).max() for each in added])
    most = np.array([each.max() for each in added])
    return {
        "step_voice": float(np.median(first)),
        "step_voice_n": len(added),
        "step_voice_max": float(first.max()),
        "step_voice_large": float((first > LARGE).mean()),
        "onset_most": float(most.max()),
        "onset_flashes": int((most > FLASH).sum()),
    }


def _read_speech(network: FusionNetwork, assets: Path, rest: NDArray[np.float32]) -> dict[str, float]:
    """What speech that is read adds: the largest mean of one recording, and the largest of all."""
    encoder, gate = ProsodyEncoder(), VoiceGate()
    means, most = [], []
    for name in READ:
        if heard := _heard(read_sound(assets / name), encoder, gate):
            added = infer(network, onset_windows(heard)) - rest
            means.append(float(added.mean(axis=0).max()))
            most.append(float(added.max()))
    return {"read_mean": max(means), "read_most": max(most), "read_n": len(means)}
