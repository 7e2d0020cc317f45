#!/usr/bin/env python3
"""Run one of emi-live's commands from a fresh checkout: everything it needs is installed into .venv first.

    python3 bootstrap.py emi-live --demo
    python3 bootstrap.py pytest

Needs Linux, Python 3.11 or 3.12 and a package index. The first run downloads about 3.5 GB and takes 6.5 GB of
disk, most of it for PyTorch with its CUDA libraries.
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
NATIVE = {
    "portaudio": ("the microphone", "libportaudio2"),
    "EGL": ("face.backend=mediapipe", "libegl1"),
    "GLESv2": ("face.backend=mediapipe", "libgles2"),
}


def main() -> None:
    """Install, then become the command."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        sys.exit(f"error: Python {sys.version.split()[0]} is running; emi-live needs 3.11 or 3.12")
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    command, *arguments = sys.argv[1:]
    sync = [
        find_uv(),
        "sync",
        "--frozen",
        "--quiet",
        "--all-extras",
        "--python",
        sys.executable,
        "--project",
        str(ROOT),
    ]
    if not (ROOT / ".venv").exists():
        print("installing into .venv (once; downloads about 3.5 GB, takes 6.5 GB of disk) …", file=sys.stderr)
        sync.remove("--quiet")
        sync.append("--compile-bytecode")  # the first start is then as quick as the next
    if subprocess.run(sync, env={**os.environ, "UV_LINK_MODE": "copy"}).returncode != 0:
        sys.exit("error: the packages could not be installed; see the lines above")
    report_native_libraries()
    program = ROOT / ".venv" / "bin" / command
    if not program.exists():
        sys.exit(f"error: there is no command {command!r}; try emi-live, emi or pytest")
    os.execv(program, [str(program), *arguments])


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
