"""Intervals of the recipe's scores: what is drawn together, and how far they reach."""

from __future__ import annotations

import numpy as np
import pytest

from emi_models.checkpoint import load_checkpoint, packaged_checkpoint
from emi_models.encoders.prosody import FLUX
from emi_models.population import VOICE_AT_REST
from recipes.compact.scores import Acted, auc, interval, spans, voice_scores

GAINS = 3


def acted(recordings: int) -> Acted:
    """Sounds of two speakers, each recording at three gains; the first of four kinds in turn."""
    kinds = np.resize(["happiness", "anger", "sadness", "neutral"], recordings)
    speakers = np.resize(["03", "08", "08"], recordings)
    rng = np.random.default_rng(0)
    frames = []
    for kind in kinds:
        frame = np.tile(VOICE_AT_REST, (60, 1))
        frame[:, FLUX] += rng.uniform(0, 1) + (kind in ("happiness", "anger"))
        frames += [frame] * GAINS
    return Acted(
        frames=frames,
        emotions=kinds.repeat(GAINS),
        speakers=speakers.repeat(GAINS),
        numbers=np.arange(recordings).repeat(GAINS),
    )


def test_all_gains_of_a_recording_are_drawn_together_and_speakers_too() -> None:
    sounds = acted(24)
    draw, rng, of_one_speaker = sounds.drawer(), np.random.default_rng(1), 0
    for _ in range(50):
        rows = draw(rng)
        counts = np.bincount(rows, minlength=len(sounds.frames)).reshape(-1, GAINS)
        assert (counts == counts[:, :1]).all()
        of_one_speaker += len(set(sounds.speakers[rows])) == 1
    assert 10 < of_one_speaker < 40  # a half is expected


def test_gains_do_not_make_an_interval_narrower() -> None:
    values = np.random.default_rng(0).normal(size=200)
    alone = interval(lambda rows: [float(values[rows].mean())], 200)
    assert alone[1, 0] - alone[0, 0] == pytest.approx(2 * 1.96 / np.sqrt(200), rel=0.2)
    one = Acted(
        frames=[np.zeros((1, 73), np.float32)] * 600,
        emotions=np.full(600, "neutral"),
        speakers=np.full(600, "03"),
        numbers=np.arange(200).repeat(GAINS),
    )
    thrice = interval(lambda rows: [float(values.repeat(GAINS)[rows].mean())], one.drawer())
    assert np.ptp(thrice) == pytest.approx(float(np.ptp(alone)), rel=0.1)


def test_a_draw_without_one_of_the_kinds_is_left_out() -> None:
    assert np.isnan(auc(np.array([]), np.array([1.0])))
    kinds = np.array([1.0] + [0.0] * 9)
    found = interval(lambda rows: [auc(kinds[rows][kinds[rows] > 0], kinds[rows][kinds[rows] == 0])], 10)
    assert found.tolist() == [[1.0], [1.0]]


def test_each_score_of_voices_is_in_its_interval() -> None:
    network = load_checkpoint(packaged_checkpoint("compact")).network
    scores = voice_scores(network, acted(48))
    names = [name for name in scores if not name.endswith(("_low", "_high"))]
    assert len(names) == 4
    for name in names:
        assert scores[f"{name}_low"] <= scores[name] <= scores[f"{name}_high"]
    assert scores["emodb_excitement_auc"] > 0.9


def test_intervals_are_scores_of_their_own() -> None:
    found = spans(["a", "b"], np.array([[0.1, 0.2], [0.3, 0.4]]))
    assert found == {"a_low": 0.1, "b_low": 0.2, "a_high": 0.3, "b_high": 0.4}


def test_draws_in_which_an_emotion_is_missing_do_not_end_the_scores() -> None:
    network = load_checkpoint(packaged_checkpoint("compact")).network
    scores = voice_scores(network, acted(8))  # two of each kind, so many draws lack one
    assert all(np.isfinite(value) for value in scores.values())
