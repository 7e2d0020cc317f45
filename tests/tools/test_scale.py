"""The calculated costs of a corpus: operations that are counted, and what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.encoder_flops import ENCODERS, GPUS, Feed, flops_per_s, gpu_table
from tools.scale import CORPORA, MEASURED, table

pytest.importorskip("transformers")
PAGE = Path(__file__).parents[2] / "docs/scale.md"


@pytest.mark.slow
def test_the_counted_operations_of_a_transformer_are_those_of_its_formula() -> None:
    feed = Feed(utterance_s=5.0, text_tokens=100.0, speech=0.5)
    counted = flops_per_s(feed, only="MiniLM")["text: MiniLM L6"]
    tokens, width, layers, inner = 100, 384, 6, 1536
    layer = 2 * tokens * (4 * width**2 + 2 * width * inner) + 2 * 2 * tokens**2 * width
    assert counted == pytest.approx((layers * layer + 2 * width**2) * 0.5 / 5.0)


@pytest.mark.slow
def test_a_whole_clip_and_the_rate_of_pictures_are_what_the_encoders_get() -> None:
    short = flops_per_s(Feed(clip_s=3.0, crops_per_s=3.0), only="base")["audio: wav2vec 2.0 base"]
    long = flops_per_s(Feed(clip_s=12.0), only="wav2vec 2.0 base")["audio: wav2vec 2.0 base"]
    assert short < long < 1.3 * short  # attention grows with the square


@pytest.mark.slow
def test_hours_follow_from_peak_share_and_media() -> None:
    feed = Feed(text_tokens=128.0)
    for gpu in GPUS:
        assert len(gpu_table(feed, gpu, (0.1, 0.4), {"one": 1.0}, only="MiniLM").splitlines()) == 3
    of_the_page = gpu_table(feed, "A100", (0.1, 0.4), CORPORA, only="MiniLM").splitlines()[-1]
    assert of_the_page in PAGE.read_text(encoding="utf-8"), "run: python -m tools.scale calculate"
    cost = flops_per_s(feed, only="MiniLM")["text: MiniLM L6"]
    row = gpu_table(feed, "A100", (0.1, 0.4), {"many": 1e9}, only="MiniLM").splitlines()[-1]
    low, high = 1e9 * cost / 312e12 / 0.4, 1e9 * cost / 312e12 / 0.1
    assert row.endswith(f"| {low:,.0f} to {high:,.0f} |")


@pytest.mark.slow
def test_a_decoder_is_bound_by_the_reading_of_its_weights() -> None:
    name = "words: Whisper base, decoder"
    assert name in ENCODERS
    row = gpu_table(Feed(), "A100", (0.1, 0.4), {"many": 1e9}, only=name).splitlines()[-1]
    low, high = (float(part.replace(",", "")) for part in row.split("|")[-2].split("to"))
    assert high == pytest.approx(16 * low, rel=1e-3)


def test_the_page_has_the_rows_that_are_calculated() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for row in table(MEASURED).splitlines():
        assert row in page, "run: python -m tools.scale calculate"
    for name in ENCODERS:
        assert f"| {name} |" in page
