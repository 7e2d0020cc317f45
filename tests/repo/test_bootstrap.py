"""`bootstrap.py` installs what its command needs, and no more."""

from __future__ import annotations

import importlib.util
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bootstrap() -> Any:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def extras(bootstrap: Any, line: str) -> set[str]:
    command, *arguments = line.split()
    told = bootstrap.what_it_needs(command, arguments)
    return {after for before, after in pairwise(told) if before == "--extra"}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("emi-live --camera 0", set()),
        ("emi-live --camera 0 --web 8765", {"web"}),
        ("emi-live --config taemi --checkpoint f", {"taemi"}),
        ("emi-live session.mcap", {"record"}),
        ("emi serve", {"web", "webrtc"}),
        ("emi bench serve --input talk.mp4", {"bench", "gpu", "web"}),
        ("emi extract --videos clips --out features", set()),
        ("emi extract --data hume --encoder dinov2", {"taemi"}),
        ("emi train --system taemi --data d --out o", {"train", "taemi"}),
        ("emi train --system two_stage --data d --out o --train-encoders audio", {"train", "taemi"}),
        ("emi predict --checkpoint f --data d --out p.csv", {"train"}),
        ("emi paper two_stage --table 3 --data d", {"train"}),
        ("emi score clips --out scores", {"score"}),
        ("emi doctor", set()),
    ],
)
def test_a_command_gets_its_extras(bootstrap: Any, line: str, wanted: set[str]) -> None:
    assert extras(bootstrap, line) == wanted


def test_every_command_and_extra_of_its_table_exists(bootstrap: Any) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(bootstrap.EXTRAS) <= set(project["entry-points"]["emi.commands"])
    named = {
        extra
        for found in (bootstrap.EXTRAS, bootstrap.FOR_WORDS)
        for some in found.values()
        for extra in some
    }
    assert named <= set(project["optional-dependencies"])
