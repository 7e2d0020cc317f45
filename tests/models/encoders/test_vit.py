from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emi_models.encoders.vit import VitEncoder
from emi_models.errors import EmiError, ModelIntegrityError
from tests.models.encoders.tiny_models import VIT, WIDTH, edit_json, tiny_vit


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    return tiny_vit(tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def encoder(tiny: tuple[Path, Any]) -> VitEncoder:
    return VitEncoder(tiny[0], VIT)


@pytest.fixture(scope="module")
def crops() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3), np.uint8)


def test_it_is_the_mean_over_all_tokens_of_the_normalised_picture(
    tiny: tuple[Path, Any], encoder: VitEncoder, crops: NDArray[np.uint8]
) -> None:
    pixels = torch.tensor(crops).permute(0, 3, 1, 2).double() / 255
    with torch.inference_mode():
        hidden = tiny[1](pixel_values=((pixels - 0.5) / 0.5).float()).last_hidden_state
    assert hidden.shape == (5, 197, WIDTH)
    features = encoder.encode(crops)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, hidden.mean(dim=1).numpy(), atol=1e-5)
    # The mean without [CLS] is another number, so which one it is can be told.
    assert np.abs(features - hidden[:, 1:].mean(dim=1).numpy()).max() > 1e-4


def test_it_normalises_as_the_model_s_own_processor(
    tiny: tuple[Path, Any], encoder: VitEncoder, crops: NDArray[np.uint8]
) -> None:
    pytest.importorskip("PIL", reason="transformers' image processor needs Pillow")
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    taken = ViTImageProcessorPil.from_pretrained(tiny[0])(images=list(crops), return_tensors="pt")
    with torch.inference_mode():
        mean = tiny[1](**taken).last_hidden_state.mean(dim=1).numpy()
    np.testing.assert_allclose(encoder.encode(crops), mean, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_a_crop_does_not_depend_on_its_batch_mates(
    encoder: VitEncoder, crops: NDArray[np.uint8], batch_size: int
) -> None:
    alone = np.concatenate([encoder.encode(crop[None]) for crop in crops])
    np.testing.assert_allclose(encoder.encode(crops, batch_size=batch_size), alone, atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3  # they do differ


def test_the_same_crops_give_the_same_bits(encoder: VitEncoder, crops: NDArray[np.uint8]) -> None:
    assert encoder.encode(crops).tobytes() == encoder.encode(crops).tobytes()


def test_nothing_gives_nothing(encoder: VitEncoder) -> None:
    assert encoder.encode(np.zeros((0, 224, 224, 3), np.uint8)).shape == (0, WIDTH)


def test_pictures_that_may_not_be_written_are_taken(encoder: VitEncoder, crops: NDArray[np.uint8]) -> None:
    locked = crops[:1].copy()
    locked.flags.writeable = False
    assert encoder.encode(locked).tobytes() == encoder.encode(crops[:1]).tobytes()


@pytest.mark.parametrize("shape", [(224, 224, 3), (2, 112, 224, 3), (2, 3, 224, 224), (2, 224, 224, 1)])
def test_other_shapes_are_refused(encoder: VitEncoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(EmiError, match="uint8"):
        encoder.encode(np.zeros(shape, np.uint8))


def test_crops_in_0_to_1_are_refused(encoder: VitEncoder) -> None:
    with pytest.raises(EmiError, match="float32"):
        encoder.encode(np.zeros((1, 224, 224, 3), np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 384}, "384 px"),
        ({"image_mean": None}, "size"),
        ({"image_std": [0.5]}, "size"),
        ({"size": {"shortest_edge": 224}}, "size"),
    ],
)
def test_a_processor_of_another_model_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder, _ = tiny_vit(tmp_path)
    edit_json(folder / "preprocessor_config.json", **changes)
    with pytest.raises(ModelIntegrityError, match=message):
        VitEncoder(folder, VIT)


def test_a_size_with_height_and_width_is_read(tmp_path: Path) -> None:
    folder, _ = tiny_vit(tmp_path)
    edit_json(folder / "preprocessor_config.json", size={"height": 224, "width": 224})
    assert VitEncoder(folder, VIT).side_px == 224
