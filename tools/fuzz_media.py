"""Damage media files in many ways and check that `emi-live` does not hang, crash or report false success.

    python tools/fuzz_media.py --n 500 --out result.json           # whole runs of the command, about 8 s each
    python tools/fuzz_media.py --n 500 --out result.json --fast    # many files in one child, about 1 s each
    python tools/fuzz_media.py --out result.json --only 17 --keep bad   # one of them again, and keep its file

Run it with the Python of the environment that has emi-live. The face model comes from EMI_MODEL_DIR, or from
`mediapipe` in EMI_TEST_ASSETS. File I of a seed is always the same, so a run that was stopped goes on where
it was when it is started again with the same --out and --seed. What counts as bad:

    hang           not done within the time limit
    abort          ended by a signal: a fault of native code
    traceback      an exception that is not one of ours
    bad exit       a code other than 0, 1, 2 and 3
    empty success  exit 0 without one estimate
    short success  exit 0, but FFmpeg's own tool decodes far more pictures (fast mode only; look at it by eye)

The result is one JSON object: seed, mode, n, counts by outcome and by exit code, the bad ones with reasons.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

PICTURE: Final = ("-f", "lavfi", "-i", "testsrc=size=96x64:rate=15:duration=2")
SOUND: Final = ("-f", "lavfi", "-i", "sine=frequency=300:duration=2")
SEEDS: Final[dict[str, tuple[str, ...]]] = {
    "avc.mp4": (*PICTURE, *SOUND, "-c:v", "libx264", "-g", "15", "-c:a", "aac"),
    "fast.mp4": (*PICTURE, *SOUND, "-c:v", "libx264", "-c:a", "aac", "-movflags", "faststart"),
    "fragments.mp4": (
        *PICTURE,
        *SOUND,
        "-c:v",
        "libx264",
        "-c:a",
        "aac",
        "-movflags",
        "frag_keyframe+empty_moov",
    ),
    "avc.mkv": (*PICTURE, *SOUND, "-c:v", "libx264", "-c:a", "libopus"),
    "vp8.webm": (*PICTURE, *SOUND, "-c:v", "libvpx", "-c:a", "libvorbis"),
    "avc.ts": (*PICTURE, *SOUND, "-c:v", "libx264", "-g", "15", "-c:a", "aac"),
    "mpeg2.ts": (*PICTURE, *SOUND, "-r", "25", "-c:v", "mpeg2video", "-c:a", "mp2"),
    "mjpeg.avi": (*PICTURE, *SOUND, "-c:v", "mjpeg", "-c:a", "pcm_s16le"),
    "mpeg4.avi": (*PICTURE, *SOUND, "-c:v", "mpeg4", "-c:a", "libmp3lame"),
    "h263.flv": (*PICTURE, *SOUND, "-c:v", "flv1", "-c:a", "libmp3lame", "-ar", "44100"),
    "raw.nut": (*PICTURE, *SOUND, "-c:v", "ffv1", "-c:a", "flac"),
    "jpeg.mov": (*PICTURE, *SOUND, "-c:v", "mjpeg", "-c:a", "pcm_s24be"),
    "anim.gif": (*PICTURE,),
    "pcm.wav": (*SOUND,),
    "surround.wav": (*SOUND, "-af", "pan=5.1|c0=c0|c2=c0|c5=c0"),
    "float16.wav": (*SOUND, "-af", "pan=16c|c0=c0|c9=c0", "-c:a", "pcm_f32le"),
    "tone.flac": (*SOUND,),
    "tone.mp3": (*SOUND,),
    "tone.ogg": (*SOUND, "-c:a", "libvorbis"),
    "tone.wv": (*SOUND,),
}
CLIPS: Final = (
    "av/face_and_speech.mp4",
    "face/pyfeat_single_face.mp4",
)  # of EMI_TEST_ASSETS, two seconds of each
EXTREMES: Final = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
MARKS: Final = (  # where sizes, rates, channels, matrices and time stamps are
    *(
        b"tkhd",
        b"stsd",
        b"avc1",
        b"mp4a",
        b"esds",
        b"avcC",
        b"stts",
        b"ctts",
        b"mdhd",
        b"mvhd",
        b"elst",
        b"stco",
    ),
    *(
        b"fmt ",
        b"avih",
        b"strh",
        b"strf",
        b"fLaC",
        b"OpusHead",
        b"vorbis",
        b"trun",
        b"tfdt",
        b"\xb0",
        b"\xba",
        b"\x9f",
    ),
)
OPTIONS: Final = ("--no-ui", "--offline", "--set", "speech.backend=none", "--json", "-")
LIMIT_S: Final = 60.0
START_S: Final = 120.0  # for a child to load models on a busy machine


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How one file went."""

    index: int
    what: str  # the seed and what was done to it
    outcome: str
    exit_code: int | None = None
    detail: str = ""

    @property
    def good(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.outcome == "good"


def make_seeds(folder: Path) -> list[Path]:
    """Small files of many formats; one that this FFmpeg cannot make is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    recipes = dict(SEEDS)
    assets = os.environ.get("EMI_TEST_ASSETS")
    for clip in CLIPS:
        if assets and (path := Path(assets, clip)).exists():
            recipes[path.name] = ("-t", "2", "-i", str(path), "-c", "copy")
    made = []
    for name, recipe in recipes.items():
        path = folder / name
        if not path.exists():
            command = ["ffmpeg", "-v", "error", "-y", *recipe, "-bitexact", str(path)]
            subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True)  # ours
        if path.exists() and path.stat().st_size:
            made.append(path)
    if not made:
        raise SystemExit("no media could be made: is ffmpeg installed?")
    return made


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> tuple[bytes, str]:
    """A damaged copy, and in words what was done."""
    damaged, done = bytearray(data), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.choice(
            ("bits", "bits", "header", "header", "header", "block", "swap", "cut", "join", "drop")
        )
        if kind == "join" and len(damaged) < 2_000_000:
            damaged += rng.choice((data, data, rng.choice(others)))
        else:
            _damage(damaged, kind, rng)
        done.append(kind)
    return bytes(damaged), "+".join(done)


def _damage(data: bytearray, kind: str, rng: random.Random) -> None:
    size = len(data)
    if size < 64:
        return
    if kind == "bits":
        for _ in range(rng.choice((1, 4, 16, 64, 256))):
            data[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == "header":
        for _ in range(rng.choice((1, 2, 6))):
            _overwrite_field(data, rng)
    elif kind == "block":
        start, length = rng.randrange(size), rng.choice((16, 200, 4_000))
        filler = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
        data[start : start + length] = filler[: max(0, size - start)]
    elif kind == "swap":
        length = rng.choice((188, 512, 4_096))
        a, b = (rng.randrange(max(1, size - length)) for _ in range(2))
        data[a : a + length], data[b : b + length] = data[b : b + length], data[a : a + length]
    elif kind == "cut":
        del data[rng.randrange(size // 4, size) :]
    elif kind == "drop":
        start = rng.randrange(size)
        del data[start : start + rng.choice((1, 188, 1_000, size // 4))]


def _overwrite_field(data: bytearray, rng: random.Random) -> None:
    """A number of 1, 2 or 4 bytes near something that looks like a header becomes an extreme one."""
    places = [place for mark in MARKS if (place := data.find(mark)) >= 0]
    near = rng.choice(places) if places and rng.random() < 0.7 else 0
    place = min(near + rng.randrange(100 if near else min(600, len(data))), len(data) - 4)
    width = rng.choice((1, 2, 4))
    value = rng.choice(EXTREMES) & (256**width - 1)
    data[place : place + width] = value.to_bytes(width, rng.choice(("big", "little")))


def models() -> dict[str, str]:
    """The environment of the runs: the user's, and where the face model is."""
    environment = dict(os.environ)
    if "EMI_MODEL_DIR" not in environment and "EMI_TEST_ASSETS" in environment:
        environment["EMI_MODEL_DIR"] = str(Path(environment["EMI_TEST_ASSETS"], "mediapipe"))
    return environment


def run_command(path: Path, limit_s: float) -> dict[str, Any]:
    """One run of the command, as a user would start it."""
    program = str(Path(sys.executable).with_name("emi-live"))
    command = [program, "--input", str(path), *OPTIONS]
    try:
        done = subprocess.run(  # our own program
            command, capture_output=True, timeout=limit_s, check=False, env=models(), stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return {"hang": True}
    error = done.stderr.decode("utf-8", "replace")
    return {
        "exit": done.returncode,
        "lines": done.stdout.count(b"\n"),
        "trace": "Traceback" in error,
        "detail": " ".join(error.split()[-40:]),
    }


class Child:
    """A process that runs one file after the other through the engine; started again after a crash."""

    def __init__(self, log: Path) -> None:
        """`log` takes what it says on standard error."""
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self.starts = 0

    def run(self, path: Path, limit_s: float) -> dict[str, Any]:
        """The result for one file."""
        if self._process is None:
            self._start()
        process = self._process
        assert process is not None and process.stdin is not None  # noqa: S101, PT018  # started above
        told = self._log.stat().st_size
        with suppress(OSError):  # it is gone: seen below
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
        answer = self._answer(limit_s)
        if answer is None:
            code = process.poll() if self._ended(process) else None
            self.close()
            answer = (
                {"hang": True} if code is None else {"exit": code, "lines": 0, "detail": "the child died"}
            )
        with self._log.open(encoding="utf-8", errors="replace") as log:
            log.seek(told)
            text = log.read()
        if "Traceback" in text:
            answer |= {"trace": True, "detail": " ".join(text.split()[-60:])}
        return answer

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    @staticmethod
    def _ended(process: subprocess.Popen[str]) -> bool:
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _start(self) -> None:
        self.starts += 1
        with self._log.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(  # ourselves
                [sys.executable, __file__, "--child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=models(),
            )
        if self._answer(START_S) is None:
            self.close()
            raise SystemExit(f"the child did not start; see {self._log}")

    def _answer(self, limit_s: float) -> dict[str, Any] | None:
        assert self._process is not None and self._process.stdout is not None  # noqa: S101, PT018  # as above
        if not select.select([self._process.stdout], [], [], limit_s)[0]:
            return None
        line = self._process.stdout.readline()
        return json.loads(line) if line.endswith("\n") else None


def serve(paths: IO[str], answers: IO[str]) -> None:
    """The child: one path a line in, one JSON object a line out. Encoders are loaded once."""
    from emi_live.bundle import bundle_of
    from emi_live.bundle.base import Encoders
    from emi_live.cli.errors import exit_code
    from emi_live.config import load_config
    from emi_live.live import LiveEngine
    from emi_models.errors import EmiError
    from emi_models.store import ModelStore

    class Kept(Encoders):
        def close(self) -> None:
            self.forget()

    overrides = {"models": {"offline": True}, "output": {"ui": False}}
    config = load_config(None, ["speech.backend=none", "mode=exact"], overrides)
    store = ModelStore(config.models.directory, offline=True)
    loaded = bundle_of(config).load(config, store, vision=True, audio=True)
    _say(answers, {"ready": True})
    for line in paths:
        source = config.source.model_copy(update={"input": Path(line.rstrip("\n"))})
        answer: dict[str, Any] = {"exit": 0, "lines": 0, "detail": ""}
        fields = {name: getattr(loaded, name) for name in Encoders.__dataclass_fields__}
        engine = LiveEngine(config.model_copy(update={"source": source}), encoders=Kept(**fields))
        try:
            with engine as live:
                for _ in live.estimates():
                    answer["lines"] += 1
        except EmiError as error:
            answer |= {"exit": exit_code(error), "detail": str(error)[:300]}
        answer["counters"] = engine.health.snapshot().counters
        _say(answers, answer)


def _say(answers: IO[str], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def judge(index: int, what: str, answer: dict[str, Any], decodable: int | None) -> RunOutcome:
    """What to think of a run; `decodable` pictures are what FFmpeg's own tool finds, where it was asked."""
    if answer.get("hang"):
        return RunOutcome(index, what, "hang")
    code, lines, detail = answer["exit"], answer.get("lines", 0), answer.get("detail", "")
    frames = sum(answer.get("counters", {}).get(name, 0) for name in ("video.frames", "video.out_of_order"))
    if code < 0 or code >= 128:
        outcome = "abort"
    elif answer.get("trace"):
        outcome = "traceback"
    elif code not in (0, 1, 2, 3):
        outcome = "bad exit"
    elif code == 0 and lines == 0:
        outcome = "empty success"
    elif code == 0 and decodable is not None and frames < 0.8 * decodable - 3:
        outcome, detail = "short success", f"{frames} pictures of {decodable}"
    else:
        return RunOutcome(index, what, "good", code)
    return RunOutcome(index, what, outcome, code, detail)


def decodable_pictures(path: Path) -> int | None:
    """How many pictures of the first track FFmpeg's own tool decodes; None if it cannot say."""
    command = ["ffprobe", "-v", "quiet", "-select_streams", "v:0", "-count_frames", "-show_entries"]
    command += ["stream=nb_read_frames", "-of", "csv=p=0", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return None
    first = done.stdout.split("\n")[0].strip(", ")
    return int(first) if first.isdecimal() else None


def fuzz(options: argparse.Namespace, folder: Path) -> Iterator[RunOutcome]:
    """The outcome of each file that is not done yet."""
    seeds = make_seeds(folder / "seeds")
    contents = [path.read_bytes() for path in seeds]
    child = Child(folder / "child.log")
    (folder / "child.log").touch()
    try:
        for index in options.todo:
            rng = random.Random(f"{options.seed}:{index}")  # noqa: S311  # not for secrets
            number = rng.randrange(len(seeds))
            data, done = mutate(contents[number], contents, rng)
            path = folder / f"{index:05d}_{seeds[number].name}"
            path.write_bytes(data)
            answer = child.run(path, options.limit) if options.fast else run_command(path, options.limit)
            decodable = decodable_pictures(path) if options.fast and answer.get("exit") == 0 else None
            outcome = judge(index, f"{seeds[number].name}: {done}", answer, decodable)
            if options.keep is not None and (not outcome.good or options.only is not None):
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / path.name).write_bytes(data)
            path.unlink()
            yield outcome
    finally:
        child.close()


def summarise(options: argparse.Namespace, outcomes: Sequence[RunOutcome]) -> dict[str, Any]:
    """The result as it is written."""
    return {
        "seed": options.seed,
        "mode": "fast" if options.fast else "command",
        "n": len(outcomes),
        "outcomes": dict(Counter(one.outcome for one in outcomes)),
        "exit_codes": dict(Counter(str(one.exit_code) for one in outcomes)),
        "bad": [asdict(one) for one in outcomes if not one.good],
        "done": {str(one.index): one.exit_code for one in outcomes if one.good},
    }


def resumed(path: Path, seed: int) -> list[RunOutcome]:
    """What an earlier run with the same seed has found."""
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["seed"] != seed:
        raise SystemExit(f"{path} is of seed {found['seed']}; give another --out")
    good = [RunOutcome(int(index), "", "good", code) for index, code in found["done"].items()]
    return good + [RunOutcome(**one) for one in found["bad"]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 1 if anything bad was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=500, help="how many files (default 500)")
    parser.add_argument("--seed", type=int, default=1, help="another seed makes other files (default 1)")
    parser.add_argument(
        "--out", type=Path, help="the result, written after each file; an earlier one is continued"
    )
    parser.add_argument("--fast", action="store_true", help="many files in one child process")
    parser.add_argument(
        "--limit", type=float, default=LIMIT_S, help="seconds after which a run hangs (default 60)"
    )
    parser.add_argument("--only", type=int, help="run only the file of this number")
    parser.add_argument("--keep", type=Path, help="a folder for the files that went badly")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        with os.fdopen(os.dup(1), "w") as answers:  # nothing else may write among the answers
            os.dup2(2, 1)
            serve(sys.stdin, answers)
        return 0
    outcomes = resumed(options.out, options.seed) if options.out and options.only is None else []
    done = {one.index for one in outcomes}
    wanted = range(options.n) if options.only is None else [options.only]
    options.todo = [index for index in wanted if index not in done]
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for outcome in fuzz(options, Path(folder)):
            outcomes.append(outcome)
            if not outcome.good:
                sys.stderr.write(f"{outcome.index} {outcome.what}: {outcome.outcome}: {outcome.detail}\n")
            if options.out and options.only is None:
                options.out.write_text(
                    json.dumps(summarise(options, outcomes), indent=1) + "\n", encoding="utf-8"
                )
    result = summarise(options, outcomes)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(result["outcomes"].items()))
    seconds = time.monotonic() - started_s
    sys.stdout.write(
        f"{len(outcomes)} files, seed {options.seed}, {result['mode']} mode: {counts}; {seconds:.0f} s\n"
    )
    return int(any(not one.good for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
