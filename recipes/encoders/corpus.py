"""Clips of invented speech and drawn faces; ratings follow from the words, the voice and the mouth.

Text: each word has three values in [0, 1], drawn once; admiration, amusement and determination are their
means over a clip. Audio: excitement is the pitch, joy the rate of speech. Vision: empathic pain is how far
the corners of the mouth hang. So a text encoder must learn each word, an audio encoder pitch and tempo.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
import torch

from emi_bench.speech.synthetic import Synthesizer
from emi_models import EMOTIONS
from emi_models.data.clip import Clip, FeatureTrack, Rating
from emi_models.data.dataset import ClipWriter, DatasetInfo
from emi_models.data.media import ClipMedia, media_path, write_media
from emi_models.encoders.pretrained import quiet_transformers
from emi_models.encoders.text import TransformerTextEncoder, identify_text
from emi_models.encoders.vit import VitEncoder, identify_face
from emi_models.encoders.wav2vec import Wav2vecEncoder, frame_ends_ns, identify_speech
from emi_models.inputs import FusionShapes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["WORDS", "Corpus", "draw_face", "tiny_encoders", "write_corpus"]

WORDS: Final = (
    *("apple", "basket", "candle", "dinner", "engine", "forest", "garden", "hammer", "island", "jacket"),
    *("kitchen", "lemon", "mountain", "needle", "ocean", "pencil", "quarter", "river", "silver", "table"),
    *("umbrella", "valley", "window", "yellow", "anchor", "bottle", "castle", "desert", "evening", "finger"),
    *("guitar", "honey", "insect", "jungle", "kettle", "ladder", "market", "number", "orange", "paper"),
)
SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SIDE_PX: Final = 32
FACES: Final = 3  # in a clip, a sixth of a second apart
FACE_NS: Final = 166_666_667
PITCH: Final = (10, 90)  # eSpeak NG's, 0 to 100
RATE_WPM: Final = (140, 320)
WIDTH: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """How many clips, of how many words; the same seed makes the same files."""

    train: int = 400
    valid: int = 150
    words: int = 3
    vocabulary: int = len(WORDS)  # how many words are said
    seed: int = 0


def draw_face(sadness: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A drawn face (SIDE_PX, SIDE_PX, 3); the corners of the mouth hang at `sadness` 1, are raised at 0."""
    picture = np.full((SIDE_PX, SIDE_PX, 3), rng.integers(60, 120), np.uint8)
    skin = tuple(int(value) for value in rng.integers(150, 230, 3))
    x, y = (int(value) for value in rng.integers(-2, 3, 2))
    middle = SIDE_PX // 2
    cv2.circle(picture, (middle + x, middle + y), 12, skin, -1)
    for side in (-5, 5):
        cv2.circle(picture, (middle + side + x, middle - 4 + y), 1, (20, 20, 20), -1)
    bend = round(4 * (1 - 2 * sadness))
    points = [(-6, -bend), (-3, 0), (0, bend // 2), (3, 0), (6, -bend)]
    line = np.array([(middle + dx + x, middle + 6 + dy + y) for dx, dy in points], np.int32)
    cv2.polylines(picture, [line], isClosed=False, color=(20, 20, 20), thickness=1)
    return picture


def tiny_encoders(folder: Path, seed: int = 0) -> dict[str, Path]:
    """Random models of the three kinds, in the format of the hub, by modality; takes a second or two."""
    from transformers import BertConfig, BertModel, ViTConfig, ViTModel, Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    words = (*SPECIAL, *WORDS)
    speech = Wav2Vec2Config(
        **sizes,
        conv_dim=(12,) * 7,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
    )
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    text = BertConfig(**sizes, **still, vocab_size=len(words), initializer_range=0.1)
    models = {
        "vision": ViTModel(ViTConfig(**sizes, **still, image_size=SIDE_PX, patch_size=8)),
        "audio": Wav2Vec2Model(speech),
        "text": BertModel(text),
    }
    folders = {}
    for modality, model in models.items():
        folders[modality] = folder / modality
        with quiet_transformers():
            model.save_pretrained(folders[modality])
    scale = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": SIDE_PX}
    sound = {"do_normalize": True, "sampling_rate": 16_000}
    for modality, said in (("vision", scale), ("audio", sound)):
        (folders[modality] / "preprocessor_config.json").write_text(json.dumps(said), encoding="utf-8")
    (folders["text"] / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    return folders


def write_corpus(corpus: Corpus, encoders: dict[str, Path], out: Path) -> None:
    """Write the clips as `emi extract --keep-media` does: features, media, words and ratings.

    Raises:
        SpeechUnavailableError: eSpeak NG does not load.
    """
    face = VitEncoder(encoders["vision"], identify_face(encoders["vision"]))
    voice = Wav2vecEncoder(encoders["audio"], identify_speech(encoders["audio"]))
    text = TransformerTextEncoder(encoders["text"], identify_text(encoders["text"]))
    info = DatasetInfo(
        bundle="taemi",
        encoders={"vision": face.encoder_id, "audio": voice.encoder_id, "text": text.encoder_id},
        shapes=FusionShapes(400, face.dim, 599, voice.dim, text.dim),
        description="invented speech and drawn faces",
        licence="Apache-2.0; contains no person",
    )
    writer, rng = ClipWriter(out, info), np.random.default_rng(corpus.seed)
    values = dict(zip(WORDS, rng.random((len(WORDS), 3)), strict=True))
    ratings: dict[str, Rating] = {}
    speech = Synthesizer()
    for number in range(corpus.train + corpus.valid):
        said = tuple(str(word) for word in rng.choice(WORDS[: corpus.vocabulary], corpus.words))
        pitch, rate, sadness = rng.random(3)
        sound = speech.say(
            said,
            rate_wpm=round(RATE_WPM[0] + rate * (RATE_WPM[1] - RATE_WPM[0])),
            pitch=round(PITCH[0] + pitch * (PITCH[1] - PITCH[0])),
        ).samples
        crops = np.stack([draw_face(sadness, rng) for _ in range(FACES)])
        told = np.mean([values[word] for word in said], axis=0)
        rated = dict(zip(("admiration", "amusement", "determination"), told.tolist(), strict=True))
        rated |= {"empathic_pain": sadness, "excitement": pitch, "joy": rate}
        frames = voice.encode(sound)
        duration_ns = len(sound) * 1_000_000_000 // 16_000
        stamps = np.arange(FACES, dtype=np.int64) * FACE_NS
        clip = Clip(
            f"clip{number:04}",
            FeatureTrack(stamps, face.encode(crops)),
            FeatureTrack(frame_ends_ns(len(frames)), frames),
            FeatureTrack(np.array([duration_ns // 2]), text.encode([" ".join(said)])),
            duration_ns,
        )
        writer.write(clip, transcript=" ".join(said))
        write_media(media_path(out, clip.id), ClipMedia(sound, 0, crops, stamps))
        targets = np.array([rated[emotion] for emotion in EMOTIONS], np.float32)
        ratings[clip.id] = Rating(targets, "train" if number < corpus.train else "valid")
    writer.write_manifest(ratings)
