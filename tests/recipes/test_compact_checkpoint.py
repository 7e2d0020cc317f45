"""The packaged checkpoint does as its model card says: words through the real encoder, invented faces and
voices, real speech that shows nothing, and nothing at all."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emi_live.config import AudioConfig
from emi_live.stages.audio import VOICE_CHUNKS
from emi_models import EMOTIONS, MODALITIES
from emi_models.checkpoint import LoadedCheckpoint, load_checkpoint, packaged_checkpoint
from emi_models.encoders import COMPACT_ENCODERS
from emi_models.encoders.prosody import HOP_SAMPLES, ProsodyEncoder
from emi_models.encoders.sentence import SentenceEncoder
from emi_models.encoders.voice_activity import CHUNK_SAMPLES, VoiceGate
from emi_models.inputs import FusionInputs
from recipes.compact.calibrate import read_recordings
from recipes.compact.conduct import WEEPING
from recipes.compact.faces import FaceWindows, make_faces
from recipes.compact.ferplus import RatedFaces, read_rated_faces
from recipes.compact.goemotions import Comments, mean_pearson, read_split, spoken
from recipes.compact.prototypes import displacement
from recipes.compact.scores import (
    Acted,
    dev_scores,
    face_scores,
    infer,
    sentence_scores,
    voice_scores,
    with_face,
    with_voice,
)
from recipes.compact.seeing import at_rest, face_window
from recipes.compact.sentences import HELD_OUT
from recipes.compact.sizes import SHAPES, SPANS_S
from recipes.compact.voices import VoiceTakes, make_voices
from recipes.compact.words import predict, text_window
from tests.models.encoders.media import read_sound

# Two of each, the second as a speech recogniser writes it; none is from the data.
SENTENCES = {
    "admiration": (
        "What an incredible performance, you are a truly brilliant pianist!",
        "she is such an amazing teacher i really look up to her",
    ),
    "amusement": (
        "Haha, that is the funniest thing I have heard all week!",
        "lol that joke made me laugh so hard",
    ),
    "determination": (
        "I am determined to succeed, and I will not stop until I do.",
        "i'm going to work hard and i know we will succeed",
    ),
    "empathic_pain": (
        "I am so sorry for your loss, my heart aches for you and your family.",
        "oh no that is so sad the poor little girl must be hurting",
    ),
    "excitement": (
        "I can't wait for the concert tonight, this is so exciting!",
        "wow oh my god it is finally happening i am so excited",
    ),
    "joy": (
        "I am so happy today, this is the best birthday ever.",
        "i'm so glad you came it makes me really happy",
    ),
}
NEUTRAL = ("The meeting is at three on Tuesday.", "turn left at the next corner and then go straight")


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> SentenceEncoder:
    return SentenceEncoder(minilm)


@pytest.fixture(scope="module")
def compact() -> LoadedCheckpoint:
    return load_checkpoint(packaged_checkpoint("compact"), expect_encoders=COMPACT_ENCODERS)


def answers(compact: LoadedCheckpoint, encoder: SentenceEncoder, *texts: str) -> NDArray[np.float32]:
    return predict(compact.network, torch.from_numpy(encoder.encode(texts)))


@pytest.mark.parametrize("emotion", EMOTIONS)
@pytest.mark.parametrize("way", [0, 1], ids=["written", "spoken"])
def test_a_sentence_of_an_emotion_shows_it_most(
    compact: LoadedCheckpoint, encoder: SentenceEncoder, emotion: str, way: int
) -> None:
    texts = [pair[way] for pair in SENTENCES.values()] + [NEUTRAL[way]]
    column = answers(compact, encoder, *texts)[:, EMOTIONS.index(emotion)]
    assert column.argmax() == list(SENTENCES).index(emotion), dict(zip(texts, column, strict=True))


def test_plain_statements_show_little_of_anything(
    compact: LoadedCheckpoint, encoder: SentenceEncoder
) -> None:
    assert answers(compact, encoder, *NEUTRAL).max() < 0.1  # 0.054


@pytest.fixture(scope="module")
def dev(assets: Path) -> Comments:
    """A part of GoEmotions' dev."""
    whole = read_split(assets / "goemotions", "dev")
    return replace(whole, texts=whole.texts[:1000], targets=whole.targets[:1000])


@pytest.fixture(scope="module")
def written(encoder: SentenceEncoder, dev: Comments) -> torch.Tensor:
    """Embeddings of its comments as they are, (N, 384)."""
    return torch.from_numpy(encoder.encode(dev.texts))


@pytest.mark.slow
@pytest.mark.assets
def test_the_score_of_the_model_card_holds_on_a_part_of_dev(
    compact: LoadedCheckpoint, encoder: SentenceEncoder, dev: Comments, written: torch.Tensor
) -> None:
    choice = random.Random(0)  # noqa: S311  # repeatable, not secret
    said = torch.from_numpy(encoder.encode([spoken(text, choice) for text in dev.texts]))
    for embeddings in (written, said):
        alone = mean_pearson(infer(compact.network, text_window(embeddings)), dev.targets)
        # 0.564 and 0.571; the whole of dev scores 0.53.
        assert alone >= 0.55


@pytest.fixture(scope="module")
def faces() -> FaceWindows:
    """Faces that the network has not learned from."""
    return make_faces(300, SHAPES.vision_frames, SPANS_S["vision"], 12345, lambda _: None)


@pytest.fixture(scope="module")
def voices() -> VoiceTakes:
    """Voices that the network has not learned from."""
    return make_voices(40, 12345, lambda _: None)


def silence(batch: int) -> FusionInputs:
    return FusionInputs(*(t.expand(batch, *t.shape[1:]) for t in FusionInputs.empty(SHAPES).tensors()))


def test_it_takes_all_three_modalities_and_says_how_much_of_each(compact: LoadedCheckpoint) -> None:
    header = compact.header
    assert header.modalities == MODALITIES
    assert header.spans_s == SPANS_S
    assert compact.network.config.shapes == SHAPES
    assert "rated by people" in header.data
    assert "rated by nobody" in header.data
    assert packaged_checkpoint("compact").stat().st_size <= 3_000_000


def test_rest_is_what_neutral_words_say(compact: LoadedCheckpoint, encoder: SentenceEncoder) -> None:
    """So that nothing jumps when words come or go."""
    nothing = infer(compact.network, FusionInputs.empty(SHAPES))[0]
    assert nothing.min() > 0
    assert nothing.max() < 0.07
    plain = ("the train leaves at nine", "he works at an office in the town", "there is a box on the table")
    assert np.abs(answers(compact, encoder, *plain) - nothing).max() < 0.05  # 0.028


def test_what_modalities_show_adds_up(
    compact: LoadedCheckpoint, faces: FaceWindows, voices: VoiceTakes
) -> None:
    text = torch.nn.functional.normalize(torch.ones(20, 384), dim=1)
    window = with_voice(
        with_face(text_window(text), faces, np.arange(20)), voices.values[:20, : SHAPES.audio_frames]
    )
    rest = infer(compact.network, silence(20))
    parts = [
        infer(compact.network, window.without(*gone)) - rest
        for gone in (("audio", "vision"), ("text", "vision"), ("text", "audio"))
    ]
    np.testing.assert_allclose(infer(compact.network, window), rest + sum(parts), rtol=0, atol=1e-5)


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_a_face_shows_most_what_its_prototype_stands_for(
    compact: LoadedCheckpoint, faces: FaceWindows, emotion: str
) -> None:
    answers = infer(
        compact.network, with_face(silence(len(faces.values)), faces, np.arange(len(faces.values)))
    )
    column, shows = (values[:, EMOTIONS.index(emotion)] for values in (answers, faces.shows))
    # Empathic pain follows people's ratings more than the prototypes.
    assert np.corrcoef(column, shows)[0, 1] > (0.6 if emotion == "empathic_pain" else 0.7)
    assert column[shows > 0.35].mean() > 0.2
    assert column[~faces.shows.any(axis=1)].mean() < 0.15


def test_synthesised_laughter_is_amusement(compact: LoadedCheckpoint, voices: VoiceTakes) -> None:
    windows = voices.values[:, : SHAPES.audio_frames]
    answers = infer(compact.network, with_voice(silence(len(windows)), windows))
    shows = np.stack([voices.shows(take, 0, SHAPES.audio_frames) for take in range(len(windows))])
    column = EMOTIONS.index("amusement")
    assert np.corrcoef(answers[:, column], shows[:, column])[0, 1] > 0.6


@pytest.fixture(scope="module")
def acted(assets: Path) -> Acted:
    """Two of the four speakers of EmoDB on which the scores were not calibrated: a man and a woman."""
    found = read_recordings(assets / "voice", ("03", "16"))
    return Acted(
        frames=[ProsodyEncoder().push(each.sound) for each in found],
        emotions=np.array([each.emotion for each in found]),
        speakers=np.array([each.speaker for each in found]),
        numbers=np.arange(len(found)),
    )


@pytest.mark.slow
@pytest.mark.assets
def test_a_voice_shows_what_listeners_heard(compact: LoadedCheckpoint, acted: Acted) -> None:
    scores = voice_scores(compact.network, acted)
    assert scores["emodb_excitement_auc"] >= 0.97  # 0.997
    assert scores["emodb_joy_auc"] >= 0.76  # 0.784
    assert scores["emodb_empathic_pain_auc"] >= 0.95  # 0.983


@pytest.fixture(scope="module")
def rated(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> RatedFaces:
    """Every fifth face of FER+ `valid`."""
    folder = tmp_path_factory.mktemp("faces")
    with np.load(assets / "face/ferplus/valid.npz") as file:
        pictures, names = file["pictures"][::5], file["names"][::5]
    np.savez(folder / "valid.npz", pictures=pictures, names=names)
    (folder / "valid.csv").write_bytes((assets / "face/ferplus/valid.csv").read_bytes())
    model = assets / "mediapipe/face_landmarker.task"
    return read_rated_faces(folder, "valid", model, lambda _: None, folder)


@pytest.mark.slow
@pytest.mark.assets
def test_a_face_shows_what_raters_saw(compact: LoadedCheckpoint, rated: RatedFaces) -> None:
    scores = face_scores(compact.network, rated)
    assert scores["ferplus_joy"] >= 0.85  # 0.868
    assert scores["ferplus_empathic_pain"] >= 0.55  # 0.576
    assert scores["ferplus_excitement"] >= 0.73  # 0.755
    assert scores["ferplus_neutral_from_rest"] <= 0.02  # 0.006
    assert scores["ferplus_anger_from_rest"] <= 0.04  # 0.028, of some forty faces


@pytest.mark.slow
@pytest.mark.assets
def test_neutral_faces_and_voices_leave_words_as_they_are(
    compact: LoadedCheckpoint, written: torch.Tensor, dev: Comments, rated: RatedFaces, acted: Acted
) -> None:
    scores = dev_scores(compact.network, {"written": written}, dev.targets, at_rest(rated), acted.calm)
    beside = scores["dev_written_beside_neutral_pearson_mean"]
    assert beside >= scores["dev_written_pearson_mean"] - 0.01  # 0.0055; on all of dev 0.003


@pytest.mark.slow
def test_most_sentences_that_deny_or_imply_are_on_the_right_side_of_rest(
    compact: LoadedCheckpoint, encoder: SentenceEncoder
) -> None:
    embeddings = torch.from_numpy(encoder.encode([sentence.text for sentence in HELD_OUT]))
    scores = sentence_scores(compact.network, embeddings, HELD_OUT)
    # 0.80 and 0.88, of fifty each; not above rest at all: 0.72 of those that deny.
    assert scores["sentences_denied_right"] >= 0.76
    assert scores["sentences_implied_right"] >= 0.84
    assert scores["sentences_denied_below_rest"] >= 0.66
    assert scores["sentences_right"] >= 0.8


def test_weeping_is_pain_and_not_joy(compact: LoadedCheckpoint) -> None:
    face = displacement(WEEPING)
    shown = infer(compact.network, face_window(face[None, None], np.ones((1, 1), np.bool_)))[0]
    assert shown[EMOTIONS.index("joy")] <= 0.2
    assert shown[EMOTIONS.index("empathic_pain")] >= 0.2


@pytest.mark.assets
@pytest.mark.parametrize(
    "name", ["LJ001-0004.wav", "LJ001-0006.wav", "librispeech_6930-75918-0000.flac", "jfk.flac"]
)
def test_speech_that_is_read_shows_little(compact: LoadedCheckpoint, assets: Path, name: str) -> None:
    """Real voices, which it has never heard: read aloud, and a public speech."""
    sound = read_sound(assets / "speech" / name)
    frames = ProsodyEncoder().push(sound)
    chunks = np.flatnonzero(VoiceGate().push(sound) >= AudioConfig().voice_threshold)
    # The program shows a voice to the network once the gate has found so many chunks of it.
    ends = range((int(chunks[VOICE_CHUNKS - 1]) + 1) * CHUNK_SAMPLES // HOP_SAMPLES, len(frames) + 1, 10)
    nothing = infer(compact.network, FusionInputs.empty(SHAPES))[0]
    answers = []
    for end in ends:
        shown = torch.from_numpy(frames[max(0, end - SHAPES.audio_frames) : end])[None]
        there = torch.ones(shown.shape[:2], dtype=torch.bool)
        window = replace(silence(1), audio=shown, audio_mask=there, audio_present=torch.tensor([True]))
        answers.append(infer(compact.network, window)[0])
    rise = np.array(answers) - nothing
    assert rise.mean(axis=0).max() < 0.05  # 0.02 at most
    assert rise.max() < 0.22  # 0.17


def test_each_modality_alone_can_move_it(
    compact: LoadedCheckpoint, encoder: SentenceEncoder, faces: FaceWindows, voices: VoiceTakes
) -> None:
    text = torch.from_numpy(encoder.encode(SENTENCES["joy"]))[:1]
    nothing = infer(compact.network, silence(1))
    smile = np.array([np.argmax(faces.shows[:, EMOTIONS.index("joy")])])
    laughing = np.argmax([voices.shows(take, 0, 150)[1] for take in range(len(voices.values))])
    for window in (
        text_window(text),
        with_face(silence(1), faces, smile),
        with_voice(silence(1), voices.values[laughing, None, : SHAPES.audio_frames]),
    ):
        assert np.abs(infer(compact.network, window) - nothing).max() > 0.05
