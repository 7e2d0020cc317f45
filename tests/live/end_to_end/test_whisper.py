"""Whisper through the whole engine, with a model of its own format that was made here."""

from __future__ import annotations

from pathlib import Path

import pytest

from emi_live import LiveEngine, load_config
from tests.models.speech.tiny_whisper import make_tiny_whisper

pytestmark = [pytest.mark.assets, pytest.mark.slow]


def test_a_whisper_model_in_a_folder_gives_the_words_of_the_estimates(assets: Path, tmp_path: Path) -> None:
    model = make_tiny_whisper(tmp_path, "hello there", 1.0)
    config = load_config(
        settings=[
            f'source.input="{assets / "speech/LJ001-0002.wav"}"',
            "speech.backend=whisper",
            f'speech.model="{model}"',
            "models.offline=true",
        ]
    )
    with LiveEngine(config) as live:
        estimates = list(live.estimates())
        announced = [line for line in live.announcements if line.startswith("words: ")]
    assert "Whisper" in announced[0]
    text = estimates[-1].modalities["text"]
    assert text.committed == "hello there"
    assert text.state == "live"
    assert {estimate.modalities["text"].partial for estimate in estimates} >= {"", "hello there"}
