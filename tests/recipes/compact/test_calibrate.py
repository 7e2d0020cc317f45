"""The scores of the voice stand in the source; the command that printed them prints the same again."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from recipes.compact.calibrate import main
from recipes.compact.hearing import HEARD, OFFSETS

FITTED_TO_EMODB = 3  # arousal, happiness and sadness, which do not depend on how many takes are synthesised


@pytest.mark.slow
@pytest.mark.assets
def test_what_was_fitted_to_people_is_fitted_to_the_same_numbers(
    assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--voices", str(assets / "voice"), "--takes", "40"]) == 0
    *rows, last = capsys.readouterr().out.splitlines()
    found = ast.literal_eval("{" + "".join(rows) + "}")
    assert list(found) == list(HEARD)
    columns = slice(2 + FITTED_TO_EMODB)  # mean and deviation come first
    np.testing.assert_array_equal(
        [values[columns] for values in found.values()], [values[columns] for values in HEARD.values()]
    )
    offsets = ast.literal_eval(last.removeprefix("OFFSETS: Final = "))
    assert offsets[:FITTED_TO_EMODB] == OFFSETS[:FITTED_TO_EMODB]


def test_without_recordings_it_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--voices", str(tmp_path)]) == 2
    assert "give the folder of EmoDB" in capsys.readouterr().err
