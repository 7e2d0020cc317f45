"""What `emi bench speech --peer` needs first: checked options, and the peer's own environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from emi_bench.speech import peer_worker
from emi_bench.speech.clips import folder_clips, long_talk, prompt_talks, real_clips
from emi_bench.speech.peers import Contender
from emi_live.bundle.base import whisper_model
from emi_live.config import load_config
from emi_live.errors import ConfigurationError
from emi_models.files import locked, user_cache
from emi_models.store import ModelStore

if TYPE_CHECKING:
    from emi_bench.speech.clips import SpeechClip
    from emi_models.store import Progress as Download

__all__ = ["PEERS", "PeerPackage", "peer_clips", "peer_contenders", "peer_environment", "whisper_folder"]

SAID_AT_ONCE: Final = "real", "prompts", "prompts-nonstop"
LONGEST_REASON: Final = 200  # characters of uv's own words


@dataclass(frozen=True, slots=True)
class PeerPackage:
    """A peer on the package index: what is installed, and the policies that are measured."""

    requirements: tuple[str, ...]  # the first one names it
    policies: tuple[str, ...]
    size: str  # of its environment, for the announcement


PEERS: Final[Mapping[str, PeerPackage]] = {
    "whisperlivekit": PeerPackage(
        ("whisperlivekit==0.2.26", "faster-whisper==1.2.1"),
        ("localagreement", "simulstreaming"),
        "6 GB with its PyTorch",
    ),
}


def peer_environment(
    peer: str,
    say: Callable[[str], None],
    show: Callable[[str], None],
    environ: Mapping[str, str] = os.environ,
) -> Path:
    """The Python of a peer's own environment, made with uv in the user's cache if it is not there.

    Args:
        peer: in PEERS.
        say: given one line before the installation.
        show: given each line of uv.
        environ: the environment variables; uv obeys its own, e.g. UV_INDEX_URL.

    Raises:
        ConfigurationError: uv is absent or failed; the message has its reason.
    """
    package = PEERS[peer]
    folder = user_cache(environ) / "peers" / package.requirements[0].replace("==", "-")
    python, whole = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join(package.requirements) + "\n"
    if whole.is_file() and whole.read_text(encoding="utf-8") == wanted and python.exists():
        return python
    uv = shutil.which("uv", path=environ.get("PATH"))
    if uv is None:
        raise ConfigurationError(
            f"--peer {peer} needs uv to install it, which is not on PATH: pip install uv"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f"{folder.name}.lock"), lambda: show("another process installs it")):
        say(f"installing {package.requirements[0]} into {folder}, once, about {package.size}")
        shutil.rmtree(folder, ignore_errors=True)
        _uv(peer, (uv, "venv", "--python", sys.executable, str(folder)), show, environ)
        _uv(peer, (uv, "pip", "install", "--python", str(python), *package.requirements), show, environ)
        whole.write_text(wanted, encoding="utf-8")
    return python


def _uv(peer: str, command: Sequence[str], show: Callable[[str], None], environ: Mapping[str, str]) -> None:
    lines: list[str] = []
    with subprocess.Popen(  # noqa: S603  # uv, as found on PATH
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env=dict(environ),
    ) as process:
        assert process.stderr is not None  # noqa: S101  # a pipe was asked for
        for line in process.stderr:
            lines.append(line.strip())
            show(line.strip())
    if process.returncode:
        start = next((i for i, line in enumerate(lines) if line.startswith(("error", "\u00d7"))), -1)
        said = " ".join(" ".join(lines[start:]).split()).removeprefix("error: ")
        reason = said[:LONGEST_REASON] or "it gave no reason"
        raise ConfigurationError(
            f"--peer {peer}: uv could not install it ({reason}); is a package index reachable?"
        )


def whisper_folder(model: str | None, settings: Sequence[str], download: Download | None) -> tuple[str, Path]:
    """The name and the folder of the Whisper model that all systems use, fetched if need be.

    Raises:
        ConfigurationError: a setting is wrong.
        ModelUnavailableError: the model is not here and cannot be fetched.
    """
    speech = {"backend": "whisper"} | ({} if model is None else {"model": model})
    config = load_config(settings=settings, overrides={"mode": "live", "speech": speech})
    store = ModelStore(config.models.directory, offline=config.models.offline)
    name = whisper_model(config, store)
    folder = Path(name) if Path(name).is_dir() else store.locate(name, download)
    return (folder.name if Path(name).is_dir() else name), folder.resolve()


def peer_contenders(
    peers: Sequence[str], pythons: Mapping[str, Path], folder: Path, settings: Sequence[str], scratch: Path
) -> list[Contender]:
    """Ours first, then each policy of each peer; a peer is NAME or NAME:POLICY."""
    ours = (sys.executable, "-P", "-m", "emi_bench.speech.own_worker", str(folder), *settings)
    found = [Contender("emi-live", ours)]
    for asked in peers:
        name, _, policy = asked.partition(":")
        worker = str(Path(peer_worker.__file__).resolve())
        for each in (policy,) if policy else PEERS[name].policies:
            command = (str(pythons[name]), "-P", worker, each, str(folder), str(scratch))
            found.append(Contender(f"{name}, {each}", command, {"HF_HUB_OFFLINE": "1"}))
    return list({each.name: each for each in found}.values())


def check_peers(peers: Sequence[str]) -> list[str]:
    """The names of the peers without their policies.

    Raises:
        ConfigurationError: one is not known.
    """
    for asked in peers:
        name, _, policy = asked.partition(":")
        known = [f"{peer}:{each}" for peer, package in PEERS.items() for each in package.policies]
        if name not in PEERS or (policy and policy not in PEERS[name].policies):
            raise ConfigurationError(f"--peer {asked} is not one of {', '.join([*PEERS, *known])}")
    return list(dict.fromkeys(asked.partition(":")[0] for asked in peers))


def peer_clips(
    sets: Sequence[str], minutes: float | None, *, nonstop: bool, most: int | None
) -> list[SpeechClip]:
    """The clips of all sets, and one long talk of the prompts if `minutes` are given.

    Raises:
        ConfigurationError: a set is not known, or its files are not there.
    """
    found: list[SpeechClip] = []
    for name in sets:
        if name == "real":
            clips = list(real_clips())
        elif name in SAID_AT_ONCE:
            clips = list(prompt_talks(nonstop=name == "prompts-nonstop"))
        else:
            clips = list(folder_clips(Path(name)))
        found += clips[:most]
    if minutes is not None:
        found.append(long_talk(60 * minutes, nonstop=nonstop))
    return found
