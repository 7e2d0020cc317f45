"""What tests of the recipe share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emi_models.errors import ModelUnavailableError
from emi_models.store import ModelStore


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the real sentence encoder."""
    try:
        return ModelStore(offline=True).locate("all-minilm-l6-v2")
    except ModelUnavailableError as error:
        if os.environ.get("EMI_REQUIRE_ASSETS"):
            pytest.fail(str(error))
        pytest.skip(str(error))
