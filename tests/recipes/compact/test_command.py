"""The recipe's command: a whole run at toy size, and one line for bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emi_engine.onnxruntime_engine import HASH_KEY, metadata
from emi_models import MODALITIES
from emi_models.checkpoint import content_hash, load_checkpoint
from emi_models.encoders import COMPACT_ENCODERS
from emi_models.encoders.sentence import SENTENCE_DIM
from recipes.compact import __main__ as command
from recipes.compact.__main__ import main
from recipes.compact.goemotions import embed
from recipes.compact.sizes import SHAPES, SPANS_S
from tests.recipes.compact.test_goemotions import LABELS

SOME = ("happiness", "anger", "sadness", "neutral", "fear")


class Letters:
    """An encoder that counts letters, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def encode(self, texts: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        self.asked += len(texts)
        return np.array([[t.count(chr(97 + i % 26)) for i in range(SENTENCE_DIM)] for t in texts], np.float32)


def test_embeddings_are_computed_once(tmp_path: Path) -> None:
    encoder = Letters()
    done: list[int] = []
    texts = ["a b c", "hello", "zz"]
    first = embed(texts, lambda: encoder, done.append, tmp_path / "kept")  # type: ignore[arg-type,return-value]  # it is no SentenceEncoder
    again = embed(texts, lambda: encoder, done.append, tmp_path / "kept")  # type: ignore[arg-type,return-value]  # as above
    assert encoder.asked == 3
    assert sum(done) == 6
    assert np.array_equal(first, again)
    assert first[1, ord("l") - 97] == 2


def small_assets(assets: Path, folder: Path) -> None:
    """A folder as the command wants it: some of each data set."""
    (folder / "goemotions").mkdir(parents=True)
    (folder / "goemotions/labels.txt").write_text("\n".join(LABELS) + "\n")
    for name, count in (("train", 60), ("dev", 20)):
        lines = [f"comment number {i} says {LABELS[i % 11]}\t{i % 11}\tid{i}" for i in range(count)]
        (folder / f"goemotions/{name}.tsv").write_text("\n".join(lines) + "\n")
    (folder / "mediapipe").symlink_to(assets / "mediapipe")
    (folder / "face/ferplus").mkdir(parents=True)
    with np.load(assets / "face/ferplus/valid.npz") as file:
        pictures, names = file["pictures"], file["names"]
    for name, part in (("train", slice(120)), ("valid", slice(120, 200))):
        np.savez(folder / f"face/ferplus/{name}.npz", pictures=pictures[part], names=names[part])
        (folder / f"face/ferplus/{name}.csv").symlink_to(assets / "face/ferplus/valid.csv")
    (folder / "voice").mkdir()
    (folder / "voice/emodb").symlink_to(assets / "voice/emodb")
    header, *rows = (assets / "voice/emodb.tsv").read_text().splitlines()
    some = [row for row in rows if "\t03\t" in row and any(f"\t{e}\t" in row for e in SOME)]
    (folder / "voice/emodb.tsv").write_text("\n".join([header, *some[::3]]) + "\n")


@pytest.mark.slow
@pytest.mark.assets
def test_a_toy_run_writes_a_checkpoint_that_says_what_it_learned_from(
    tmp_path: Path,
    assets: Path,
    monkeypatch: pytest.MonkeyPatch,
    minilm: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    few = {kind: own[::40] for kind, own in command.SENTENCES.items()}  # of 5,500, most of the time
    monkeypatch.setattr(command, "SENTENCES", few)
    small_assets(assets, tmp_path)
    out = tmp_path / "toy.safetensors"
    toy = ["--readers", "1", "--epochs", "1", "--steps", "2", "--faces", "60", "--voices", "10"]
    assert main(["--assets", str(tmp_path), "--out", str(out), "--minilm", str(minilm), *toy]) == 0
    loaded = load_checkpoint(out, expect_encoders=COMPACT_ENCODERS)
    assert loaded.header.modalities == MODALITIES
    assert loaded.header.spans_s == SPANS_S
    assert loaded.network.config.shapes == SHAPES
    assert "rated by nobody" in loaded.header.data
    assert "dev_written_pearson_mean" in loaded.header.scores
    assert "ferplus_joy" in loaded.header.scores
    assert metadata(out.with_suffix(".onnx").read_bytes())[HASH_KEY] == loaded.content_hash
    capsys.readouterr()
    again = ["--assets", str(tmp_path), "--checkpoint", str(out), "--minilm", str(minilm), *toy]
    assert main(again) == 0, "the same scores, without training"
    shown = capsys.readouterr().out
    assert f"{loaded.header.scores['ferplus_joy']:.4f}" in shown
    assert content_hash(out) == loaded.content_hash


def test_a_folder_without_data_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "net.safetensors"
    assert main(["--assets", str(tmp_path), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "labels.txt cannot be read" in error
    assert not out.exists()
