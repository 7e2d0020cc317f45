from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emi_models.data.synth import OFFICIAL_SIZES, SynthConfig, SynthCorpus, SynthError, probe
from emi_models.data.synth_streams import EXCITEMENT_JOY, MEANS, STEP, ZEROS, draw_intensities, standardised

N = 2000
CORPUS = SynthCorpus(SynthConfig(clips=N))


def all_ids(corpus: SynthCorpus) -> tuple[str, ...]:
    return corpus.ids("train") + corpus.ids("valid")


def all_targets(corpus: SynthCorpus) -> np.ndarray:
    return np.concatenate([corpus.targets("train"), corpus.targets("valid")]).astype(np.float64)


def test_ratings_have_the_published_means_and_zeros() -> None:
    targets = all_targets(CORPUS)
    error = targets.std(axis=0) / np.sqrt(N)
    assert np.abs(targets.mean(axis=0) - MEANS).max() < 4 * error.max()
    assert np.abs((targets == 0).mean(axis=0) - ZEROS).max() < 4 * np.sqrt(0.25 / N)


def test_only_excitement_and_joy_go_together() -> None:
    correlations = np.corrcoef(all_targets(CORPUS).T)
    assert correlations[4, 5] == pytest.approx(EXCITEMENT_JOY, abs=0.08)
    others = correlations[np.triu_indices(6, 1)].tolist()
    others.remove(correlations[4, 5])
    assert np.abs(others).max() < 0.1


def test_a_rating_is_a_fraction_of_twenty_steps() -> None:
    steps = all_targets(CORPUS) / STEP
    assert np.abs(steps - np.round(steps)).max() < 1e-4
    assert steps.max() <= 20.0001


def test_what_is_expressed_is_standardised() -> None:
    random = np.random.default_rng(1)
    drawn = np.array([standardised(draw_intensities(random)) for _ in range(20_000)])
    assert np.abs(drawn.mean(axis=0)).max() < 0.03
    assert np.abs(drawn.std(axis=0) - 1).max() < 0.06  # empathic pain is rare: its spread is the least sure


def test_lengths_have_the_published_mean_and_95th_percentile_and_the_odd_ones() -> None:
    big = SynthCorpus(SynthConfig(clips=12660))
    lengths = np.array([big.truth(clip_id).moments[-1].end_s for clip_id in all_ids(big)])
    assert lengths.mean() == pytest.approx(6.92, abs=0.25)
    assert np.percentile(lengths, 95) == pytest.approx(11.48, abs=0.35)
    assert lengths.min() == 0.064
    assert (lengths == 0.064).sum() >= 3
    assert 60 < lengths.max() < 1250
    assert [len(big.ids(split)) for split in ("train", "valid")] == [8072, 4588]
    for split, share in (("train", 0.0567), ("valid", 0.0634)):
        gone = np.mean(["text" in big.missing(clip_id) for clip_id in big.ids(split)])
        assert gone == pytest.approx(share, abs=0.012)


def test_no_person_is_in_both_splits() -> None:
    people = {split: {CORPUS.truth(i).person for i in CORPUS.ids(split)} for split in ("train", "valid")}
    assert not people["train"] & people["valid"]
    assert min(len(group) for group in people.values()) > 10


def test_a_clip_fits_the_window_and_its_truth() -> None:
    for clip_id in CORPUS.ids("valid")[:50]:
        clip, truth, sizes = CORPUS.load(clip_id), CORPUS.truth(clip_id), CORPUS.config.sizes
        clip.window(CORPUS.shapes, clip.duration_ns).check(CORPUS.shapes)
        missing = {m for m in ("vision", "audio", "text") if not len(getattr(clip, m).t_ns)}
        assert missing == CORPUS.missing(clip_id)
        if "audio" not in missing:
            assert len(clip.audio.t_ns) == max(1, int(truth.moments[-1].end_s * sizes.audio_hz))
        assert truth.moments[0].start_s == 0
        assert all(a.end_s == b.start_s for a, b in zip(truth.moments, truth.moments[1:], strict=False))
        assert any(moment.salient for moment in truth.moments)
        assert all((moment.topic == truth.topic) == moment.salient for moment in truth.moments)


def test_the_same_seed_makes_the_same_clips_and_another_makes_others() -> None:
    clip_id = CORPUS.ids("train")[0]
    again, other = (SynthCorpus(SynthConfig(clips=N, seed=seed)) for seed in (0, 1))
    for modality in ("vision", "audio", "text"):
        first = getattr(CORPUS.load(clip_id), modality).values
        np.testing.assert_array_equal(first, getattr(again.load(clip_id), modality).values)
        assert not np.array_equal(first, getattr(other.load(clip_id), modality).values)


def test_a_setting_changes_what_it_names_only() -> None:
    silent = SynthCorpus(replace(CORPUS.config, missing_audio=1.0, vision_clarity=0.5))
    for clip_id in CORPUS.ids("train")[:20]:
        before, after = CORPUS.load(clip_id), silent.load(clip_id)
        np.testing.assert_array_equal(before.text.values, after.text.values)
        np.testing.assert_array_equal(before.targets, after.targets)
        assert not len(after.audio.t_ns)
        assert len(after.vision.t_ns) == len(before.vision.t_ns)


@pytest.mark.slow
def test_one_modality_alone_lands_where_the_papers_have_it() -> None:
    scores = {m: probe(CORPUS, m).mean() for m in ("text", "audio", "vision")}
    # 1275 clips to learn from: fewer than the targets were set on, so a little less is learned.
    assert scores["text"] == pytest.approx(0.45, abs=0.1)
    assert scores["audio"] == pytest.approx(0.35, abs=0.1)
    assert scores["vision"] == pytest.approx(0.15, abs=0.1)
    assert scores["text"] > scores["audio"] + 0.05 > scores["vision"] + 0.1


@pytest.mark.slow
def test_the_topic_is_what_makes_an_anchor_worth_having() -> None:
    """With the key, who knows the topic hears more in a voice; without it, no more than any listener."""
    keyed = probe(CORPUS, "audio", "marked").mean() - probe(CORPUS, "audio").mean()
    assert keyed > 0.06
    plain = SynthCorpus(replace(CORPUS.config, keyed=False))
    assert probe(plain, "audio", "marked").mean() - probe(plain, "audio").mean() < 0.0
    # What is lost is the way to it: the emotions are still there.
    assert probe(plain, "audio", "salient").mean() - probe(plain, "audio").mean() > 0.06


@settings(max_examples=20, deadline=None)
@given(
    clips=st.integers(10, 300),
    seed=st.integers(0, 2**32 - 1),
    topics=st.integers(2, 20),
    salient=st.floats(0, 1),
)
def test_every_corpus_has_both_splits_and_sound_clips(
    clips: int, seed: int, topics: int, salient: float
) -> None:
    corpus = SynthCorpus(SynthConfig(clips=clips, seed=seed, topics=topics, salient=salient))
    assert sorted(all_ids(corpus)) == [f"{i:05d}" for i in range(clips)]
    assert all(corpus.ids(split) for split in ("train", "valid"))
    clip = corpus.load(corpus.ids("valid")[-1])
    assert all(np.isfinite(track.values).all() for track in (clip.vision, clip.audio, clip.text))
    assert clip.targets is not None
    assert ((clip.targets >= 0) & (clip.targets <= 1)).all()


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"clips": 9}, "9 clips"),
        ({"clips": 100_000}, "five digits"),
        ({"clips": 10, "seed": -1}, "seed -1"),
        ({"clips": 10, "missing_vision": 1.5}, "missing_vision is 1.5"),
        ({"clips": 10, "missing_text_train": float("nan")}, "missing_text_train is nan"),
        ({"clips": 10, "topics": 1}, "1 topics"),
        ({"clips": 10, "topics": 40}, "cannot hold"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(settings: dict[str, float], word: str) -> None:
    with pytest.raises(SynthError, match=word) as caught:
        SynthConfig(**settings)  # type: ignore[arg-type]  # of every kind
    assert "give" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_official_sizes_are_those_of_the_data_set() -> None:
    corpus = SynthCorpus(SynthConfig(clips=10, sizes=OFFICIAL_SIZES))
    assert (corpus.shapes.vision_dim, corpus.shapes.audio_dim) == (384, 768)
    assert corpus.shapes.audio_frames == 600
