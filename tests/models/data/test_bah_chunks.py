from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emi_models.data.bah import BahVideo
from emi_models.data.bah_chunks import BahChunks, ChunkSpans, chunk
from emi_models.data.batches import ClipWindows, collate
from emi_models.data.clip import Clip, FeatureTrack
from emi_models.data.dataset import ClipWriter, ManifestClips
from emi_models.errors import DataError
from emi_models.marked import MARK, TimedWord, marked_text, present_word, spread_words
from tests.models.data.folders import INFO, SHAPES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from emi_models.data.clip import ClipSet

S = 1_000_000_000
WORDS = "a b c d e f g h i j"


def numbered(clip_id: str, seconds: float) -> Clip:
    """Faces at 24 Hz and voice at 50 Hz in which each value is the frame's number."""
    tracks = []
    for hz, dim in ((24, 3), (50, 4)):
        count = int(seconds * hz)
        values = np.repeat(np.arange(count, dtype=np.float32)[:, None], dim, axis=1)
        tracks.append(FeatureTrack((np.arange(count) * (S / hz)).astype(np.int64), values))
    return Clip(clip_id, tracks[0], tracks[1], FeatureTrack.empty(5), round(seconds * S))


def video(name: str, frames: Sequence[int], labels: Sequence[int], split: str = "train") -> BahVideo:
    return BahVideo(
        id=name,
        split=split,
        shows=any(labels),
        transcript=WORDS,
        video=None,
        faces=None,
        frames=np.array(frames, np.int64),
        labels=np.array(labels, np.int64),
    )


def shown(clip: Clip) -> tuple[list[float], list[float]]:
    """The numbers of the frames that a window of 12 s shows, faces and voice."""
    window = clip.window(SHAPES, 12 * S)
    return window.vision[0][window.vision_mask[0], 0].tolist(), window.audio[0][
        window.audio_mask[0], 0
    ].tolist()


def test_each_modality_has_its_own_seconds_around_the_frame() -> None:
    faces, voice = shown(chunk(numbered("x", 60), 30 * S, SHAPES, None))
    assert len(faces) == 400  # of 481 in 20 s
    assert (faces[0], faces[-1]) == (20 * 24, 40 * 24)
    assert set(np.diff(faces)) == {1.0, 2.0}
    assert voice == list(range(24 * 50, 24 * 50 + 599))
    spans = ChunkSpans(vision_s=2.0, audio_s=1.0)
    faces, voice = shown(chunk(numbered("x", 60), 30 * S, SHAPES, None, spans))
    assert faces == list(range(29 * 24, 31 * 24 + 1))
    assert voice == list(range(1475, 1526))


def test_at_the_ends_of_a_video_a_chunk_has_what_there_is() -> None:
    faces, voice = shown(chunk(numbered("x", 60), 0, SHAPES, None))
    assert faces == list(range(241))
    assert voice == list(range(301))
    faces, voice = shown(chunk(numbered("x", 2), 2 * S, SHAPES, None))
    assert faces == list(range(48))
    assert voice == list(range(100))
    assert shown(chunk(numbered("x", 60), 200 * S, SHAPES, None)) == ([], [])


@settings(deadline=None)
@given(seconds=st.floats(0.1, 60), at_s=st.floats(0, 60), span_s=st.floats(0.1, 30))
def test_a_chunk_is_in_order_and_within_its_span(seconds: float, at_s: float, span_s: float) -> None:
    spans = ChunkSpans(vision_s=span_s, audio_s=span_s)
    whole = numbered("x", seconds)
    at_ns = round(at_s * S)
    clip = chunk(whole, at_ns, SHAPES, None, spans)
    for track, source, most in ((clip.vision, whole.vision, 400), (clip.audio, whole.audio, 599)):
        numbers = track.values[:, 0].astype(int)
        assert (np.diff(numbers) > 0).all()
        assert (np.abs(source.t_ns[numbers] - at_ns) <= span_s * S / 2 + 1).all()
        there = (np.abs(source.t_ns - at_ns) <= span_s * S / 2 - 1).sum()
        assert len(numbers) >= min(there, most)
    faces, voice = shown(clip)
    assert (len(faces), len(voice)) == (len(clip.vision.t_ns), len(clip.audio.t_ns))


def test_words_without_times_are_spread_evenly() -> None:
    words = spread_words(" so  it is ", 3 * S)
    assert words == (TimedWord("so", 0, S), TimedWord("it", S, 2 * S), TimedWord("is", 2 * S, 3 * S))
    assert spread_words("  ", 3 * S) == ()


def test_the_present_word_is_the_last_that_has_begun() -> None:
    words = spread_words("so it is", 3 * S)
    assert [present_word(words, at) for at in (-1, 0, S - 1, S, 3 * S, 9 * S)] == [0, 0, 0, 1, 2, 2]
    assert present_word((), S) == -1


def test_the_present_word_is_marked_among_those_around_it() -> None:
    words = spread_words(WORDS, 30 * S)  # one each three seconds
    assert marked_text(words, 0, 100.0) == f"{MARK} {WORDS}"
    assert marked_text(words, 9, 100.0) == f"a b c d e f g h i {MARK} j"
    assert marked_text(words, 5, 20.0) == f"c d e {MARK} f g h"  # the middles from 5 s to 25 s
    assert marked_text(words, 5, 0.1) == f"{MARK} f"


class Lengths:
    """Embeds a text as its words' number, the marker's place, and zeros; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += 1
        rows = [[len(text.split()), text.split().index(MARK), 1, 0, 0] for text in texts]
        return np.array(rows, np.float32)


@pytest.fixture
def features(tmp_path: Path) -> ManifestClips:
    writer = ClipWriter(tmp_path, INFO)
    for name, seconds in (("x", 40.0), ("y", 10.0)):
        writer.write(numbered(name, seconds))
    writer.write_manifest()
    return ManifestClips(tmp_path, first_s=None)


def test_each_labelled_frame_is_a_clip_with_one_target(features: ManifestClips) -> None:
    embed = Lengths()
    videos = [video("x", [0, 480, 959], [0, 1, 1]), video("y", [5], [1], "valid"), video("z", [], [])]
    clips = BahChunks(videos, features, embed)
    as_set: ClipSet = clips
    assert as_set.ids("train") == ("x#0", "x#480", "x#959")
    assert as_set.targets("train").tolist() == [[0], [1], [1]]
    assert as_set.ids("valid") == ("y#5",)
    assert as_set.targets("test").shape == (0, 1)
    assert as_set.description == "BAH: 4 labelled frames of 2 videos"
    assert "research only" in as_set.licence
    assert as_set.encoders == INFO.encoders
    clip = clips.load("x#480")
    assert clip.text.values.tolist() == [[7, 3, 1, 0, 0]]  # words of 4 s: c … i around f, and the mark
    faces, _ = shown(clip)
    assert (faces[0], faces[-1]) == (240, 720)
    clips.load("x#0")
    assert embed.asked == 1
    assert BahChunks(videos, features, embed, text_encoder="gte").encoders["text"] == "gte"


def test_chunks_train_as_any_clips_do(features: ManifestClips) -> None:
    clips = BahChunks([video("x", range(0, 960, 48), [0, 1] * 10)], features, Lengths(), every=2)
    windows = ClipWindows(clips, "train")
    assert len(windows) == 10
    batch, targets = collate([windows[place] for place in range(10)])
    assert targets.shape == (10, 1)
    assert targets.sum() == 0  # each second frame
    assert batch.vision.shape[1] == 400
    assert bool(batch.text_present.all())
    assert windows.lengths_s().tolist() == [12.0] * 10
    first = torch.from_numpy(numbered("x", 40).vision.values[:241])
    assert torch.equal(batch.vision[0, :241], first)


def test_a_few_videos_are_kept_and_the_words_of_all(tmp_path: Path) -> None:
    class Counted(ManifestClips):
        loads = 0

        def load(self, clip_id: str) -> Clip:
            self.loads += 1
            return super().load(clip_id)

    writer = ClipWriter(tmp_path, INFO)
    for number in range(10):
        writer.write(numbered(f"v{number}", 1.0))
    writer.write_manifest()
    embed, counted = Lengths(), Counted(tmp_path)
    clips = BahChunks([video(f"v{n}", [0, 1], [1, 0]) for n in range(10)], counted, embed)
    for _ in range(2):
        for clip_id in clips.ids("train"):
            clips.load(clip_id)
    assert counted.loads == 20  # of ten videos eight are kept, so that the second round reads all again
    assert embed.asked == 10


def test_what_cannot_be_chunks_is_said(features: ManifestClips) -> None:
    videos = [video("x", [0], [1]), video("gone", [0], [1])]
    clips = BahChunks(videos, features, Lengths())
    for wrong in ("x#7", "x", "x#", "w#0", "x#1a"):
        with pytest.raises(DataError, match="no labelled frame"):
            clips.load(wrong)
    with pytest.raises(DataError, match="'gone'"):
        clips.load("gone#0")
    with pytest.raises(DataError, match="none of 1 videos"):
        BahChunks([video("z", [], [])], features, Lengths())
    with pytest.raises(DataError, match="every 0"):
        BahChunks(videos, features, Lengths(), every=0)
    narrow = BahChunks(videos, features, lambda texts: np.zeros((len(texts), 2), np.float32))
    with pytest.raises(DataError, match="10 texts"):
        narrow.load("x#0")


def test_a_causal_chunk_has_only_what_was_before_its_frame() -> None:
    spans = ChunkSpans(window="causal")
    faces, voice = shown(chunk(numbered("x", 60), 30 * S, SHAPES, None, spans))
    assert len(faces) == 400  # of 480 in 20 s
    assert (faces[0], faces[-1]) == (10 * 24 + 1, 30 * 24)
    assert voice == list(range(30 * 50 - 598, 30 * 50 + 1))
    faces, voice = shown(chunk(numbered("x", 60), S // 2, SHAPES, None, spans))
    assert (faces, voice) == (list(range(13)), list(range(26)))


def test_a_causal_text_ends_with_the_present_word() -> None:
    words = spread_words(WORDS, 30 * S)
    assert marked_text(words, 9, 12.0, causal=True) == f"f g h i {MARK} j"
    assert [present_word(words, at, causal=True) for at in (-1, 0, 3 * S)] == [-1, 0, 1]


def test_words_have_the_times_of_the_release(features: ManifestClips) -> None:
    """Spread evenly, the second word would begin at 4 s of 40."""
    said = (TimedWord("I", 0, S), TimedWord("ask", 8 * S, 9 * S))
    one = replace(video("x", [96, 193], [0, 1]), words=said)
    clips = BahChunks([one], features, Lengths())
    assert [clips.load(f"x#{frame}").text.values[0, 1] for frame in (96, 193)] == [0, 1]
    causal = BahChunks([one], features, Lengths(), spans=ChunkSpans(window="causal", text_s=5.0))
    assert len(causal.load("x#193").text.t_ns) == 1
    assert len(causal.load("x#96").text.t_ns) == 1
    assert (
        len(
            BahChunks(
                [replace(one, frames=np.array([150]), labels=np.array([1]))],
                features,
                Lengths(),
                spans=causal.spans,
            )
            .load("x#150")
            .text.t_ns
        )
        == 0
    )


def test_names_of_files_in_subfolders_are_matched(tmp_path: Path) -> None:
    writer = ClipWriter(tmp_path, INFO)
    writer.write(numbered("82579__Visite_1__a_Video", 4.0))
    writer.write_manifest()
    one = replace(video("a_Video", [5], [1]), place="82579/Visite 1/a_Video.mp4")
    clips = BahChunks([one], ManifestClips(tmp_path, first_s=None), Lengths())
    assert clips.has_features("a_Video")
    assert len(clips.load("a_Video#5").vision.t_ns) > 0


def test_words_alone_need_no_features(tmp_path: Path) -> None:
    embed = Lengths()
    for _ in range(2):
        clips = BahChunks(
            [video("x", [0, 24], [0, 1])], None, embed, text_encoder="e", text_dim=5, cache=tmp_path
        )
        assert (clips.encoders, clips.shapes.text_dim, clips.task) == ({"text": "e"}, 5, "bah")
        clip = clips.load("x#24")
        assert (len(clip.vision.t_ns), len(clip.text.t_ns)) == (0, 1)
    assert embed.asked == 1  # the second time from the cache
    with pytest.raises(DataError, match="text encoder"):
        BahChunks([video("x", [0], [1])], None, None)


def test_a_video_without_labels_has_all_its_frames_to_predict(features: ManifestClips) -> None:
    clips = BahChunks([video("y", [], [], "test")], features, Lengths(), unlabelled=True)
    assert len(clips.ids("test")) == 240
    assert np.isnan(clips.targets("test")).all()
    with pytest.raises(DataError, match="window"):
        ChunkSpans(window="future")  # type: ignore[arg-type]  # as a user may write it
