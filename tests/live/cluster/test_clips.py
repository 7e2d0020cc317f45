"""Clips on Ray: what is lost with an actor and with a driver, and that the features are those of the pool."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from emi_live.cluster import ray_start
from emi_live.cluster.clips import Actor, RayWorkers, Share, _failure, await_room, share
from emi_live.cluster.ray_start import Cluster, check_address, log_warning
from emi_live.errors import ConfigurationError
from emi_live.extract.pool import Do, Failed, Job, Ready, Refused, Written, from_text, to_text
from emi_models.data import open_clips
from emi_models.data.clip import Clip
from tests.live.extract.bodies import entry_of
from tests.support.ports import free_port
from tests.support.waiting import until

pytest.importorskip("ray")
TASKS = "tests.live.cluster.tasks"
ACTORS = 2


@pytest.fixture(scope="module")
def head() -> Iterator[dict[str, str]]:
    """A head of Ray in a process of its own; the environment in which others can join it."""
    command = [sys.executable, "-m", TASKS, "head"]
    # The workers of a cluster have the environment of their machine, not that of who joins it.
    environ = {**os.environ, "EMI_MODEL_DIR": str(Path(os.environ.get("EMI_TEST_ASSETS", "")) / "mediapipe")}
    with subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address, token = process.stdout.readline().split()
        yield {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "EMI_TEST_HEAD": address}
        process.stdin.close()


def driver(
    head: dict[str, str], folder: Path, pause_s: float = 0.0, at_once: int = 1
) -> subprocess.Popen[str]:
    where = [str(folder / name) for name in ("videos", "out", "log")]
    return subprocess.Popen(
        [sys.executable, "-m", TASKS, head["EMI_TEST_HEAD"], *where, str(pause_s), str(at_once)],
        env=head,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate(timeout=120)
    finally:
        process.kill()


def write_videos(folder: Path, *names: str) -> None:
    (folder / "videos").mkdir()
    for size, name in enumerate(names, start=1):
        (folder / "videos" / f"{name}.mp4").write_bytes(b"x" * size)


def test_an_address_is_auto_or_host_and_port() -> None:
    check_address("auto")
    check_address("10.0.0.1:6379")
    for wrong in ("10.0.0.1", "", ":6379", "ray://10.0.0.1:x"):
        with pytest.raises(ConfigurationError, match="HOST:PORT"):
            check_address(wrong)


def test_warnings_of_ray_are_logged_in_one_line_each_and_expected_ones_for_debug_alone(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    many = "WARNING: 8 PYTHON worker processes have been started on node: f0, which is 2x the maximum"
    log_warning({"lines": [many, "A worker died.\n\nWhy: " + 300 * "it was killed "], "pid": "raylet"})
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in said] == ["DEBUG", "WARNING"]
    assert said[1][1].startswith("Ray: A worker died. Why: it was")
    assert all(len(text) <= 210 and "\n" not in text for _, text in said)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("nodes", "count", "each"),
    [
        ([2.0], 1, 2.0),
        ([2.0], 2, 1.0),
        ([8.0, 8.0], 8, 2.0),
        ([1.0, 1.0, 1.0, 1.0], 2, 1.0),  # no machine has two
        ([3.0, 3.0], 3, 1.5),
        ([3.0], 7, 0.4285),
        ([4.0, 1.0], 3, 1.3333),
        ([0.0], 1, 0.0),
    ],
)
def test_every_actor_fits_on_a_machine(nodes: list[float], count: int, each: float) -> None:
    assert share(machines(*((cores, 0.0) for cores in nodes)), "auto", count) == Share(count, each)
    assert not each or sum(int(cores / each) for cores in nodes) >= count


def machines(*nodes: tuple[float, float]) -> Cluster:
    cores, gpus = zip(*nodes, strict=True)
    return Cluster("head:1", False, sum(cores), sum(gpus), cores, gpus)


@pytest.mark.parametrize(
    ("nodes", "asked", "found"),
    [
        ([(16.0, 1.0)], None, Share(4, 2.0, 0.25)),  # four for a GPU
        ([(4.0, 1.0)], None, Share(2, 2.0, 0.5)),  # as many as there are cores for
        ([(64.0, 2.0), (64.0, 0.0)], None, Share(8, 2.0, 0.25)),  # the second machine has no GPU
        ([(16.0, 2.0)], 3, Share(3, 2.0, 0.5)),  # an actor lies on one GPU
        ([(16.0, 4.0)], 3, Share(3, 2.0, 1.0)),
        ([(64.0, 1.0), (4.0, 1.0)], 8, Share(8, 1.0, 0.25)),  # four on each, or a GPU would be short
    ],
)
def test_actors_share_the_gpus(nodes: list[tuple[float, float]], asked: int | None, found: Share) -> None:
    for device in ("auto", "cuda"):
        assert share(machines(*nodes), device, asked) == found
    assert share(machines(*nodes), "cpu", 2) == Share(2, 2.0)


def test_a_gpu_that_nobody_has_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="Ray knows of no GPU at head:1: start its machines with --num"
    ):
        share(machines((8.0, 0.0)), "cuda", None)
    with pytest.raises(ConfigurationError, match="Ray chooses which GPU an actor has; give --device cuda"):
        share(machines((8.0, 2.0)), "cuda:1", None)


class BusyRay:
    """A cluster whose cores others have, for a while."""

    def wait(self, refs: list[object], timeout: float) -> tuple[list[object], list[object]]:
        return [], refs

    def get(self, ref: object) -> object:
        return ref

    def available_resources(self) -> dict[str, float]:
        return {"memory": 1.0}

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 8.0, "GPU": 1.0}


def test_that_no_core_is_free_is_said(caplog: pytest.LogCaptureFixture) -> None:
    await_room(BusyRay(), "started", Share(1, 2.0), 0.0)
    await_room(BusyRay(), "started", Share(1, 2.0, 0.25), 0.0)
    cores, both = [record.getMessage() for record in caplog.records]
    assert cores.endswith("has for a worker 2 free cores (0 of all 8 are free)")
    assert both.endswith("2 free cores (0 of all 8 are free) and 0.25 free GPUs (0 of all 1 are free)")


class Breaking:
    """A task that does what the name of a clip says, and counts how often it was opened."""

    debug = False
    device = "cpu"

    def __init__(self, *ready: Ready) -> None:
        self.ready = ready
        self.opened = 0

    def open(self, opened: ExitStack) -> tuple[Ready, Do]:
        def do(job: Job) -> Written | Refused | Failed:
            if job.id == "break":
                raise ZeroDivisionError("one\nof ours")
            return (
                Failed(reason="the disk is full")
                if job.id == "full"
                else Written(entry=entry_of(job), damaged=0)
            )

        self.opened += 1
        return self.ready[min(self.opened, len(self.ready)) - 1], do


def ready(settings: str = "s", **unavailable: str) -> Ready:
    return Ready(encoders={}, recognizer="", settings=settings, unavailable=unavailable)


def ask(actor: Actor, *names: str) -> list[object]:
    jobs = [Job(id=name, path=f"memory://{name}", name=name, size=1, mtime_ns=1) for name in names]
    return [from_text(text) for text in actor({"job": [to_text(job) for job in jobs]})["done"]]


def test_an_error_that_nobody_expected_is_told_and_costs_one_clip() -> None:
    task = Breaking(ready())
    broken, good = ask(Actor(task, "s"), "break", "good")
    assert broken == Refused(id="break", reason=f"ZeroDivisionError on {socket.gethostname()}: one of ours")
    assert isinstance(good, Written)
    assert task.opened == 2, "what is loaded may be broken"


def test_models_are_loaded_again_once_no_clip_has_them() -> None:
    inside, go = threading.Event(), threading.Event()
    closed: list[bool] = []

    class Waiting(Breaking):
        def open(self, opened: ExitStack) -> tuple[Ready, Do]:
            found, do = super().open(opened)
            opened.callback(lambda: closed.append(go.is_set()))

            def wait(job: Job) -> Written | Refused | Failed:
                if job.id == "slow":
                    inside.set()
                    assert go.wait(10)
                return do(job)

            return found, wait

    task = Waiting(ready())
    actor = Actor(task, "s")
    with ThreadPoolExecutor(3) as threads:
        slow = threads.submit(ask, actor, "slow")
        assert inside.wait(10)
        assert isinstance(ask(actor, "break")[0], Refused)
        later = threads.submit(ask, actor, "good")
        until(lambda: bool(actor._changed._waiters))  # type: ignore[attr-defined]
        assert (task.opened, closed) == (1, [])
        go.set()
        assert all(isinstance(one.result()[0], Written) for one in (slow, later))
    assert (task.opened, closed) == (2, [True])


def test_an_actor_that_cannot_work_names_its_machine() -> None:
    here = f"on {socket.gethostname()}: "
    (full,) = ask(Actor(Breaking(ready()), "s"), "full")
    assert full == Failed(reason=f"{here}the disk is full")
    (other,) = ask(Actor(Breaking(ready("t")), "s"), "good")
    assert isinstance(other, Failed)
    assert other.reason.startswith(f"{here}a worker runs other models")
    (lacking,) = ask(Actor(Breaking(ready(vision="no face model")), "s"), "good")
    assert isinstance(lacking, Failed)
    assert "vision cannot be extracted: no face model" in lacking.reason
    (older,) = ask(Actor(Breaking(ready()), "s", "9.9"), "good")
    assert isinstance(older, Failed)
    assert older.reason.startswith(f"{here}emi-live ")
    assert older.reason.endswith(" is installed, not 9.9; install that")
    *_, later = ask(Actor(Breaking(ready(), ready(text="no memory")), "s"), "break", "good")
    assert isinstance(later, Failed), "what it loads again must be what it had"


def test_a_clip_that_the_machine_of_an_actor_does_not_have_is_told_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    for name in ("none", "other"):
        job = Job(id=name, path=str(tmp_path / name), name=name, size=1, mtime_ns=1)
        (text,) = Actor(Breaking(ready()), "s")({"job": [to_text(job)]})["done"]
        reason = f"is not there, or another file, on {socket.gethostname()}"
        assert from_text(text) == Refused(id=name, reason=reason)


@pytest.mark.slow
def test_an_actor_that_dies_loses_nothing_and_only_a_clip_that_kills_is_refused(
    head: dict[str, str], tmp_path: Path
) -> None:
    """Whatever shares the actor with it."""
    write_videos(tmp_path, "a", "b", "die", "once", "refuse")
    output, errors = finish(driver(head, tmp_path, pause_s=0.5, at_once=3))
    busy = (tmp_path / "log.busy").read_text(encoding="utf-8").split()
    assert max(map(int, busy)) > 1, "clips at once in one actor"
    lines = set(output.splitlines())
    assert {"ready 0 5", "wrote a", "wrote b", "wrote once", "refused refuse.mp4: it is bad"} <= lines, errors
    assert "refused die.mp4: the actor died on it, each time" in lines
    clips = open_clips(tmp_path / "out")
    assert clips.ids("train") == ("a", "b", "once")
    assert [clips.load(name).vision.values.item() for name in ("a", "b", "once")] == [1.0, 2.0, 4.0]
    assert clips.transcript("once") == "words of once"
    assert [path.name for path in (tmp_path / "out/shards").iterdir()] == ["part-000000.parquet"]
    assert list((tmp_path / "out/features").glob("[!.]*")) == []


@pytest.mark.slow
def test_a_killed_driver_loses_at_most_the_clip_under_way_in_each_actor(
    head: dict[str, str], tmp_path: Path
) -> None:
    names = [f"clip{number}" for number in range(10)]
    write_videos(tmp_path, *names)
    process = driver(head, tmp_path, pause_s=0.3)
    assert process.stdout is not None
    written = 0
    while written < 3:
        line = process.stdout.readline()
        assert line, "it ended before it was killed"
        written += line.startswith("wrote")
    process.kill()
    process.communicate()
    begun = (tmp_path / "log").read_text(encoding="utf-8").split()
    output, errors = finish(driver(head, tmp_path))
    assert output.count("wrote") >= 1, errors
    assert open_clips(tmp_path / "out").ids("train") == tuple(names)
    twice = [name for name in names if (tmp_path / "log").read_text(encoding="utf-8").split().count(name) > 1]
    assert len(twice) <= ACTORS, (begun, twice)
    assert set(twice) <= set(begun)


@pytest.mark.assets
@pytest.mark.slow
def test_one_process_two_processes_two_clips_at_once_and_two_actors_give_the_same_features(
    head: dict[str, str], assets: Path, tmp_path: Path
) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the clips are cut by ffmpeg: sudo apt install ffmpeg")
    (tmp_path / "videos").mkdir()
    for number in range(2):
        cut = ["ffmpeg", "-loglevel", "error", "-ss", str(number), "-t", "1", "-i"]
        source = str(assets / "av/face_and_speech.mp4")
        subprocess.run([*cut, source, str(tmp_path / f"videos/{number}.mp4")], check=True)
    emi = str(Path(sys.executable).with_name("emi"))
    common = [emi, "extract", "--videos", "videos", "--without", "text", "--offline"]
    environ = {**head, "EMI_MODEL_DIR": str(assets / "mediapipe")}
    ways = {
        "one": ["--workers", "1"],
        "two": ["--workers", "2"],
        "at once": ["--workers", "1", "--at-once", "2"],  # nothing of these clips is encoded in batches
        "actors": ["--workers", "2", "--cluster", head["EMI_TEST_HEAD"]],
    }
    found: dict[str, list[Clip]] = {}
    for name, options in ways.items():
        command = [*common, *options, "--out", name]
        run = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, check=False)
        assert run.returncode == 0, run.stderr
        clips = open_clips(tmp_path / name)
        found[name] = [clips.load(clip_id) for clip_id in ("00000", "00001")]
    for other in (found["two"], found["at once"], found["actors"]):
        for ours, theirs in zip(found["one"], other, strict=True):
            assert len(ours.vision.t_ns) > 0
            assert len(ours.audio.t_ns) > 0
            for modality in ("vision", "audio"):
                one, two = getattr(ours, modality), getattr(theirs, modality)
                assert one.t_ns.tobytes() == two.t_ns.tobytes()
                assert one.values.tobytes() == two.values.tobytes()


def test_a_cluster_that_does_not_take_this_machine_in_says_why_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def join(address: str) -> str:
        with pytest.raises(ConfigurationError) as refused, ray_start._joined(address):
            pass
        return str(refused.value)

    assert "nobody answers there" in join(f"127.0.0.1:{free_port()}")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr("ray._private.services.find_node_ids", set)
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert f"none of the cluster; first run `ray start --address {address}` here" in join(address)


def test_what_runs_is_ended_before_ray_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    def done(*_: object) -> Iterator[Refused]:
        try:
            yield Refused(id="a", reason="it is bad")
        finally:
            ended.append("clips")

    workers = RayWorkers(Breaking(ready()), "auto")
    workers._opened.callback(ended.append, "Ray")
    monkeypatch.setattr(workers, "_done", done)
    next(iter(results := workers.run([Job(id="a", path="a", name="a", size=1, mtime_ns=1)])))
    workers.__exit__()
    assert ended == ["clips", "Ray"]
    assert list(results) == []


def test_a_machine_without_emi_live_is_named() -> None:
    trace = "ray::MapWorker.__init__() (pid=7, ip=10.0.0.2, actor_id=f0)\nNo module named 'emi_live'"
    without = _failure(RuntimeError(trace), "Ray failed")
    assert isinstance(without, ConfigurationError)
    assert str(without).startswith("emi-live is not installed on 10.0.0.2")
    assert str(_failure(RuntimeError("a trace\nlast line"), "Ray failed")) == "Ray failed: last line"


def test_reasons_of_ray_behind_its_error_become_one_line() -> None:
    outer = ConnectionError("Failed to connect to 10.0.0.1:6379\nmore")
    assert ray_start._refusal(outer).startswith("Failed to connect to 10.0.0.1:6379; give HOST:PORT")
    outer.__cause__ = RuntimeError("RPC error: InvalidAuthToken: the token is missing or incorrect.")
    assert "it has another token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in ray_start._refusal(outer)
    other = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.12.1\nThis process"
    )
    assert ray_start._refusal(RuntimeError(f"{other} on 10.0.0.2 was started with: …")) == (
        "Version mismatch: The cluster was started with: Ray: 2.60.0 Python: 3.12.1; install the same here"
    )


@pytest.mark.parametrize("name", ["extract", "score"])
def test_a_wrong_address_is_one_line(name: str, tmp_path: Path) -> None:
    write_videos(tmp_path, "a")
    where = ["--videos", "videos"] if name == "extract" else ["videos"]
    emi = str(Path(sys.executable).with_name("emi"))
    command = [emi, name, *where, "--out", "out", "--cluster", "nowhere", "--offline", "--without", "text"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert run.returncode != 0
    assert "HOST:PORT" in run.stderr
    assert "Traceback" not in run.stderr
