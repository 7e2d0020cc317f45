"""What the README and the pages of docs/ say to type, works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}
PROGRAMS = (
    "emi-live",
    *(f"emi {name}" for name in ("bench fusion", "bench live", "compile", "convert", "eval")),
    *(f"emi {name}" for name in ("extract", "models list", "privacy", "train")),
)


def blocks(language: str, page: str = "README.md") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)


@pytest.mark.slow
@pytest.mark.assets
def test_the_embedding_example_runs(assets: Path) -> None:
    [example] = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", example],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "EMI_MODEL_DIR": str(assets / "mediapipe")},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 10
    assert all("'empathic_pain': 0." in line for line in lines)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_of_the_commands_exists(program: str) -> None:
    typed = {
        option
        for page in PAGES
        for block in blocks("sh", page)
        for line in block.splitlines()
        if program in line.partition("#")[0]
        for option in re.findall(r"(--[a-z-]+)", line.partition("#")[0].partition("|")[0])
    }
    command = [str(Path(sys.executable).with_name(program.split()[0])), *program.split()[1:], "--help"]
    shown = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"}
    )
    assert typed <= set(re.findall(r"--[a-z-]+", shown.stdout))


@pytest.mark.parametrize("page", PAGES)
def test_the_files_it_points_to_exist(page: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.assets
@pytest.mark.slow
def test_the_examples_of_the_embedding_page_run(assets: Path) -> None:
    """One after the other in one process, which they share the loading of libraries in."""
    page = (ROOT / "docs/embedding.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(examples) == 3
    # The recogniser takes most of the time to load, and is not what the page is about.
    fast = 'LiveEngine(__import__("emi_live").load_config(settings=["speech.backend=none"]))'
    examples = [example.replace("LiveEngine()", fast) for example in examples]
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", "\n".join(examples)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, "EMI_MODEL_DIR": str(assets / "mediapipe")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("empathic_pain") == 5
    assert "Traceback" not in done.stderr
