"""Our recogniser compared with its peers: the same weights and clips, at real pace, one after the other.

Each system runs in its own processes and speaks one protocol, a JSON object a line. It is sent
`{"samples": PATH}` for each clip (raw 16-bit samples, 16 kHz). It answers:

- `{"event": "ready", "settings": {…}, "versions": {…}}`: the model is loaded;
- `{"event": "show", "at_s": 1.2, "changes": [kept, "text", kept, "text"]}`: committed text and the text after
  it that may change, each as the number of characters that stay and the text after them; seconds since the
  first sample was captured;
- `{"event": "end", "at_s": 9.1, "behind_s": 0.01, "finished": true}`: the clip is over; not finished: it
  was cut off, because the system had too much left to do.

A system that ends, hangs or writes anything else has failed at that clip; the reason is recorded, it is
started again, and the rest goes on.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_bench.harness import ProcessTreeUsage
from emi_bench.measurement import Machine, load_average, means_of_spans, slope
from emi_bench.report import Interrupted
from emi_bench.speech import peer_worker
from emi_bench.speech.clips import (
    NORMALISATION,
    TAIL_S,
    folder_clips,
    long_talk,
    normalise,
    prompt_talks,
    real_clips,
    with_silence_after,
)
from emi_bench.speech.peer_report import PeerReport, PeerRun, TestedSystem
from emi_bench.speech.report import WordErrors
from emi_bench.speech.scoring import Display, need_jiwer, score_words, text_history
from emi_live.bundle.base import whisper_model
from emi_live.config import load_config
from emi_live.errors import ConfigurationError, LiveError
from emi_live.rings import SAMPLE_RATE_HZ
from emi_models.files import locked, user_cache
from emi_models.store import ModelStore

if TYPE_CHECKING:
    from emi_bench.speech.clips import SpeechClip
    from emi_models.store import Progress as Download

__all__ = [
    "PEERS",
    "Contender",
    "Limits",
    "PeerPackage",
    "SystemFailedError",
    "compare",
    "peer_clips",
    "peer_contenders",
    "peer_environment",
    "whisper_folder",
]

WARM_UP_S: Final = 3.0  # of the first clip, played before anything is measured
SAMPLE_S: Final = 0.5  # between two looks at memory and processor time
LONGEST_SHOWN: Final = 120  # characters of a reason
Progress = Callable[[str, float, float], None]  # what runs, seconds done, all seconds


class SystemFailedError(LiveError):
    """A system under test ended, hung, or wrote something other than an event; the message says which."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A system under test, and the command of the process that plays clips to it."""

    name: str
    command: tuple[str, ...]
    environ: dict[str, str] = field(default_factory=dict)  # added to the variables of this process


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait before a system counts as hung, in seconds."""

    load_s: float = 300.0
    after_clip_s: float = 240.0  # for `end`, after the last sample


def compare(
    contenders: Sequence[Contender],
    clips: Sequence[SpeechClip],
    weights: str,
    *,
    before: PeerReport | None = None,
    keep: Callable[[PeerReport], None] = lambda _: None,
    progress: Progress = lambda _what, _done_s, _of_s: None,
    limits: Limits | None = None,
) -> PeerReport:
    """Play every clip to every system, one system after the other.

    Args:
        contenders: in the order of the report; their names differ.
        clips: in this order for each.
        weights: what the report says about the model.
        before: a report whose runs without failure are not measured again; all of them stay in the report.
        keep: given the report so far, marked as partial, after each run.
        progress: called while a clip plays.
        limits: when a system counts as hung.

    Raises:
        Interrupted: Ctrl-C; its report has what was found before it.
    """
    need_jiwer()
    limits = limits or Limits()
    results = {} if before is None else {_key(run): run for run in before.runs if not run.failure}
    systems = {} if before is None else {system.name: system for system in before.systems}
    load = load_average() if before is None else before.load_before

    def report() -> PeerReport:
        """What is known so far, that of the run before included; the newest results last for each system."""
        names = list(dict.fromkeys([*(contender.name for contender in contenders), *systems]))
        return PeerReport(
            machine=Machine.here(),
            load_before=load,
            weights=weights,
            normalisation=NORMALISATION,
            tail_s=TAIL_S,
            systems=[systems[name] for name in names if name in systems],
            runs=[run for name in names for run in results.values() if run.system == name],
        )

    try:
        with TemporaryDirectory(prefix="emi-peers-") as scratch:
            sounds = [_write(Path(scratch) / f"{index}.raw", clip) for index, clip in enumerate(clips)]
            warm_up = _write(Path(scratch) / "warm-up.raw", clips[0], WARM_UP_S)
            for contender in contenders:
                table = _SystemUnderTest(contender, warm_up, Path(scratch), limits, progress)
                try:
                    for clip, sound in zip(clips, sounds, strict=True):
                        if (key := _key(table.empty(clip))) not in results:
                            results[key] = table.run(clip, sound)
                            systems[contender.name] = table.system
                            keep(replace(report(), partial=True))
                finally:
                    table.close()
    except KeyboardInterrupt:
        raise Interrupted(report()) from None
    return report()


def _key(run: PeerRun) -> tuple[str, str, float]:
    """What is measured once."""
    return run.system, run.clip, run.seconds


def _write(path: Path, clip: SpeechClip, seconds: float | None = None) -> Path:
    samples = clip.samples if seconds is None else clip.samples[: round(seconds * SAMPLE_RATE_HZ)]
    (np.clip(with_silence_after(samples), -1.0, 1.0) * 32767).astype(np.int16).tofile(path)
    return path


class _SystemUnderTest:
    """One system: started when a clip needs it, and started again after a failure."""

    def __init__(
        self, contender: Contender, warm_up: Path, scratch: Path, limits: Limits, progress: Progress
    ) -> None:
        self._contender, self._warm_up, self._scratch = contender, warm_up, scratch
        self._limits, self._progress = limits, progress
        self._process: _SystemProcess | None = None
        self.system = TestedSystem(contender.name, {}, {})

    def empty(self, clip: SpeechClip) -> PeerRun:
        """The run of a clip before it has begun."""
        seconds = round(clip.seconds + TAIL_S, 3)
        return PeerRun(system=self._contender.name, clip=clip.name, kind=clip.kind, seconds=seconds)

    def run(self, clip: SpeechClip, sound: Path) -> PeerRun:
        """The result of one clip, or why there is none."""
        empty = self.empty(clip)
        name, seconds = empty.system, empty.seconds
        try:
            process = self._started()
            played = process.play(
                sound, seconds + self._limits.after_clip_s, self._reporter(f"{name}, {clip.name}", seconds)
            )
        except SystemFailedError as error:
            self.close()
            return replace(empty, failure=str(error))
        return _scored(empty, clip, played)

    def close(self) -> None:
        """End its processes."""
        if self._process is not None:
            self._process.close()
        self._process = None

    def _started(self) -> _SystemProcess:
        if self._process is None:
            if self.system.failure:
                raise SystemFailedError(f"it does not start: {self.system.failure}")
            name = self._contender.name
            try:
                process = self._process = _SystemProcess(self._contender, self._scratch / "stderr.txt")
                ready = process.ready(self._limits.load_s, self._reporter(f"{name}, loading", 0.0))
            except SystemFailedError as error:
                self.system = replace(self.system, failure=str(error))
                raise
            self.system = TestedSystem(name, *ready)
            limit_s = WARM_UP_S + TAIL_S + self._limits.after_clip_s
            process.play(self._warm_up, limit_s, self._reporter(f"{name}, warm-up", WARM_UP_S + TAIL_S))
        return self._process

    def _reporter(self, what: str, seconds: float) -> Callable[[float], None]:
        return lambda done_s: self._progress(what, min(done_s, seconds), seconds)


@dataclass(slots=True)
class _Played:
    """What a system showed of one clip, and what that took."""

    shown: list[Display] = field(default_factory=list)
    end_s: float = 0.0
    behind_s: float = 0.0
    finished: bool = True
    cpu_s: float = 0.0
    peak_mib: float = 0.0
    main_mib: float = 0.0
    children_mib: float = 0.0

    def look(self, usage: ProcessTreeUsage) -> None:
        """Note the memory of now."""
        main, *children = usage.pss_mib()
        self.main_mib = max(self.main_mib, main)
        self.children_mib = max(self.children_mib, sum(children))
        self.peak_mib = max(self.peak_mib, main + sum(children))


class _SystemProcess:
    """The process of a system, and its answers line by line."""

    def __init__(self, contender: Contender, errors: Path) -> None:
        self._errors = errors
        try:
            with errors.open("wb") as file:
                self._process = subprocess.Popen(  # noqa: S603  # a command of the bench
                    contender.command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    env=os.environ | contender.environ,
                    start_new_session=True,  # so that it ends with its children
                )
        except OSError as error:
            raise SystemFailedError(f"{contender.command[0]}: {error.strerror or error}") from error
        self._usage = ProcessTreeUsage(self._process.pid)
        self._rest = b""

    def ready(
        self, limit_s: float, progress: Callable[[float], None]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Its settings and versions, once it has loaded."""
        for line in self._lines(limit_s, progress, lambda: None):
            settings, versions = line.get("settings"), line.get("versions")
            if line.get("event") == "ready" and isinstance(settings, dict) and isinstance(versions, dict):
                return _texts(settings), _texts(versions)
            raise _rubbish(line)
        raise AssertionError  # _lines ends only with an error

    def play(self, sound: Path, limit_s: float, progress: Callable[[float], None]) -> _Played:
        """Play one file to it."""
        played, before_s = _Played(), self._usage.cpu_s()
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101  # a pipe was asked for
        try:
            stdin.write(json.dumps({"samples": str(sound)}).encode() + b"\n")
            stdin.flush()
        except OSError as error:
            raise self._ended() from error
        committed = partial = ""
        for line in self._lines(limit_s, progress, lambda: played.look(self._usage)):
            try:
                if line["event"] == "end":
                    played.end_s, played.behind_s = float(line["at_s"]), float(line["behind_s"])
                    played.finished = bool(line["finished"])
                    break
                kept, text, kept_partial, partial_text = line["changes"]
                committed, partial = committed[:kept] + text, partial[:kept_partial] + partial_text
                played.shown.append(Display(float(line["at_s"]), committed, partial))
            except (KeyError, TypeError, ValueError) as error:
                raise _rubbish(line) from error
        played.look(self._usage)
        played.cpu_s = self._usage.cpu_s() - before_s
        return played

    def close(self) -> None:
        """End it and its children."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # unsent bytes of a process that has ended
                    pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2.0)
        with suppress(ProcessLookupError):  # the whole group may have ended
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _lines(
        self, limit_s: float, progress: Callable[[float], None], look: Callable[[], None]
    ) -> Iterator[dict[str, Any]]:
        """Its lines as they come; `look` is called in between. There is always an error at the end."""
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101  # a pipe was asked for
        start_s = last_s = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while True:
                while b"\n" in self._rest:
                    line, _, self._rest = self._rest.partition(b"\n")
                    yield _parsed(line)
                now_s = time.monotonic()
                if now_s - start_s > limit_s:
                    raise SystemFailedError(f"no end after {limit_s:.0f} s")
                if now_s - last_s >= SAMPLE_S:
                    last_s = now_s
                    look()
                    self._usage.cpu_s()  # of children that end before the clip does
                    progress(now_s - start_s)
                if selector.select(min(SAMPLE_S, limit_s)):
                    data = os.read(stdout.fileno(), 65_536)
                    if not data:
                        raise self._ended()
                    self._rest += data

    def _ended(self) -> SystemFailedError:
        code = self._process.wait()
        lines = self._errors.read_text(encoding="utf-8", errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "nothing on standard error")
        return SystemFailedError(f"its process ended with code {code}: {said[:LONGEST_SHOWN]}")


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = line.decode("utf-8", "replace")
    if not isinstance(found, dict):
        raise _rubbish(found)
    return found


def _rubbish(found: object) -> SystemFailedError:
    return SystemFailedError(f"wrote {repr(found)[:LONGEST_SHOWN]}, which is not an event")


def _texts(found: dict[Any, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in found.items()}


def _scored(run: PeerRun, clip: SpeechClip, played: _Played) -> PeerRun:
    history = text_history(played.shown)
    said = [text for word in clip.words for text in normalise(word.text)]
    found = score_words(said, history.words)
    late = [
        (end_s, 1e3 * (history.committed_s[heard] - end_s), 1e3 * (history.seen_s[heard] - end_s))
        for index, heard in found.pairs
        if (end_s := clip.words[index].end_s) is not None
    ]
    lags = means_of_spans((end_s, committed_ms) for end_s, committed_ms, _ in late)
    return replace(
        run,
        errors=WordErrors.of(found),
        text=played.shown[-1].committed if played.shown else "",
        committed=len(history.words),
        commit_ms=[round(committed_ms, 1) for _, committed_ms, _ in late],
        first_seen_ms=[round(seen_ms, 1) for _, _, seen_ms in late],
        taken_back=history.taken_back,
        broken=history.broken,
        end_s=round(played.end_s, 3),
        behind_s=round(played.behind_s, 3),
        finished=played.finished,
        cpu_s=round(played.cpu_s, 3),
        peak_mib=round(played.peak_mib, 1),
        main_mib=round(played.main_mib, 1),
        children_mib=round(played.children_mib, 1),
        lag_over_time=[(at_s, round(ms, 1)) for at_s, ms in lags],
        lag_slope=slope(lags),
    )


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
    worker = str(Path(peer_worker.__file__).resolve())
    ours = (sys.executable, "-P", worker, peer_worker.OURS, str(folder), *settings)
    found = [Contender("emi-live", ours)]
    for asked in peers:
        name, _, policy = asked.partition(":")
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
