"""Install emi-live into an empty environment and say what it weighs: `python -m tools.installed_size`.

    python -m tools.installed_size                  # the base
    python -m tools.installed_size --extra taemi    # with an extra; may be given several times

The wheel of this checkout and the versions of uv.lock are installed with uv, without compiled bytecode.
One MB is 10^6 bytes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["install", "sizes"]

ROOT: Final = Path(__file__).resolve().parent.parent

# Runs in the environment that is measured, on its own standard library.
MEASURE: Final = """
import json
from importlib.metadata import distributions
sizes = {}
for each in distributions():
    paths = {each.locate_file(file).resolve() for file in each.files or ()}
    sizes[each.metadata["Name"]] = sum(p.stat().st_size for p in paths if p.is_file() and p.suffix != ".pyc")
print(json.dumps(sizes))
"""


def install(folder: Path, extras: tuple[str, ...] = ()) -> Path:
    """Build the wheel and install it with the locked versions of what it requires; gives the interpreter.

    Args:
        folder: is filled: `dist` (wheel and source archive), `environment`.
        extras: of pyproject.toml.

    Raises:
        subprocess.CalledProcessError: uv failed; what it said is in `stderr`.
    """
    python = folder / "environment" / "bin" / "python"
    locked = folder / "locked.txt"
    chosen = [part for extra in extras for part in ("--extra", extra)]
    _uv("build", "--quiet", "--out-dir", str(folder / "dist"), str(ROOT))
    _uv("export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", *chosen, "--project", str(ROOT),
        "--output-file", str(locked))  # fmt: skip
    _uv("venv", "--quiet", "--python", sys.executable, str(folder / "environment"))
    (wheel,) = (folder / "dist").glob("*.whl")
    into = ("--quiet", "--python", str(python))
    _uv("pip", "install", *into, "--requirement", str(locked))
    _uv("pip", "install", *into, "--no-deps", str(wheel))
    return python


def sizes(python: Path) -> dict[str, int]:
    """Bytes of each package that is installed for this interpreter, without compiled bytecode."""
    done = subprocess.run([str(python), "-c", MEASURE], check=True, capture_output=True, text=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def _uv(*arguments: str) -> None:
    subprocess.run(["uv", *arguments], check=True, capture_output=True, text=True)


def main() -> int:
    """Print the packages, largest first, and the sum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--extra", action="append", default=[], help="an extra of pyproject.toml")
    parser.add_argument(
        "--at-least", type=float, default=1.0, metavar="MB", help="leave out smaller packages"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.stderr.write("building and installing …\n")
        try:
            found = sizes(install(Path(folder), tuple(options.extra)))
        except FileNotFoundError:
            sys.stderr.write("error: uv is not installed; pip install uv\n")
            return 2
        except subprocess.CalledProcessError as error:
            sys.stderr.write(f"error: {(error.stderr or str(error)).strip().splitlines()[-1]}\n")
            return 1
    for name, size in sorted(found.items(), key=lambda entry: -entry[1]):
        if size >= options.at_least * 1e6:
            sys.stdout.write(f"{size / 1e6:8.1f} MB  {name}\n")
    sys.stdout.write(f"{sum(found.values()) / 1e6:8.1f} MB  in all, {len(found)} packages\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
