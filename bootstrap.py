#!/usr/bin/env python3
"""Run one of emi-live's commands from a fresh checkout: what the command needs is installed into .venv first.

    python3 bootstrap.py emi-live --demo      # the live engine: 0.7 GB of disk, no PyTorch
    python3 bootstrap.py emi train --help     # with the extra `train`: PyTorch and its CUDA libraries
    python3 bootstrap.py pytest               # everything: 6.5 GB of disk, 3.5 GB of it downloaded

Needs Linux, Python 3.11 or 3.12 and a package index. Models are fetched by the command that uses them, or
before by `emi models pull`. What one command has installed stays for the next.
"""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
TOOLS = ROOT / ".bootstrap"  # uv, where the machine has none

# Native libraries that wheels do not carry: what for, and the Debian package.
NATIVE = {"portaudio": ("the microphone", "libportaudio2")}

# The extras of pyproject.toml that a subcommand of `emi` needs; the others need none.
EXTRAS = {
    "train": ("train",),
    "eval": ("train",),
    "convert": ("train",),
    "synth": ("train",),
    "compile": ("gpu", "tensorrt-rtx"),
    "bench": ("bench", "gpu"),
    "serve": ("webrtc",),
    "predict": ("train",),
    "paper": ("train",),
    "score": ("score",),
    "plot": ("score",),
}
# The extras that a word in the command line asks for.
FOR_WORDS = {
    "--web": ("web",),
    "--record": ("record",),
    "serve": ("web",),
    "--encoder": ("taemi",),
    "--train-encoders": ("taemi",),
}


def main() -> None:
    """Install, then become the command."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        sys.exit(f"error: Python {sys.version.split()[0]} is running; emi-live needs 3.11 or 3.12")
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    command, *arguments = sys.argv[1:]
    wanted = what_it_needs(command, arguments)
    sync = [find_uv(), "sync", "--frozen", "--inexact", "--quiet", *wanted]
    sync += ["--python", sys.executable, "--project", str(ROOT)]
    if not (ROOT / ".venv").exists():
        size = "3.5 GB of downloads, 6.5 GB" if "--all-extras" in wanted else "0.3 GB of downloads, 0.7 GB"
        if "--extra" in wanted:
            size = "about 3 GB of downloads, 5 GB"
        print(f"installing into .venv (once; {size} of disk) …", file=sys.stderr)
        sync.remove("--quiet")
        sync.append("--compile-bytecode")  # the first start is then as quick as the next
    if subprocess.run(sync, env={**os.environ, "UV_LINK_MODE": "copy"}).returncode != 0:
        sys.exit("error: the packages could not be installed; see the lines above")
    report_native_libraries()
    program = ROOT / ".venv" / "bin" / command
    if not program.exists():
        sys.exit(f"error: there is no command {command!r}; try emi-live, emi or pytest")
    os.execv(program, [str(program), *arguments])


def what_it_needs(command: str, arguments: list[str]) -> list[str]:
    """The options of `uv sync` for a command: the base for `emi-live`, everything for development."""
    if command not in ("emi-live", "emi"):
        return ["--all-extras"]
    extras = EXTRAS.get(arguments[0], ()) if command == "emi" and arguments else ()
    words = [word.partition("=")[0] for word in arguments]
    extras += tuple(extra for word in words for extra in FOR_WORDS.get(word, ()))
    if any(argument.endswith(".mcap") for argument in arguments):
        extras += ("record",)
    if any("taemi" in argument for argument in arguments):
        extras += ("taemi",)
    return ["--no-dev", *(part for extra in dict.fromkeys(extras) for part in ("--extra", extra))]


def find_uv() -> str:
    """The uv on this machine, or one installed next to this file."""
    if found := shutil.which("uv"):
        return found
    local = TOOLS / "bin" / "uv"
    if not local.exists():
        print("installing uv …", file=sys.stderr)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(TOOLS), "uv"]
        if subprocess.run(pip).returncode != 0:
            sys.exit("error: uv could not be installed with pip; install it yourself, then run this again")
    return str(local)


def report_native_libraries() -> None:
    """Say which native libraries are missing, and for what; the rest works without them."""
    missing = {
        package: what for name, (what, package) in NATIVE.items() if ctypes.util.find_library(name) is None
    }
    if missing:
        packages = " ".join(sorted(missing))
        uses = " and ".join(sorted(set(missing.values())))
        print(f"note: {uses} will not work before you run: sudo apt-get install {packages}", file=sys.stderr)


if __name__ == "__main__":
    main()
