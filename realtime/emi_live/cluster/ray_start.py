"""Starts Ray on this machine, or joins a cluster that runs: no port beyond loopback, no statistics.

Ray looks outside in four places, each of which is closed here (docs/decisions/0044, seen in Ray 2.60):

- To learn its own address it opens a UDP socket to 8.8.8.8, even if it is told 127.0.0.1, and then binds its
  ports to the address that it found. `RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0` makes it use loopback, as it does
  on Windows and macOS.
- Its head process asks the metadata services of three clouds where it runs (169.254.169.254 and a look-up of
  metadata.google.internal), even with statistics off, unless `~/ray_bootstrap_config.yaml` is there. Ray's
  own processes therefore get a home of their own with an empty one; the workers keep yours.
- Usage statistics, which a cluster made by `ray start` sends: `RAY_USAGE_STATS_ENABLED=0`.
- gRPC reads the name servers' addresses at its start: `GRPC_DNS_RESOLVER=native`.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from emi_live.errors import ConfigurationError, StageError
from emi_live.health import Health
from emi_live.worker import Worker
from emi_models.console import native_stderr_logged
from emi_models.files import sweep_folders, temporary_folder
from emi_models.libraries import require

__all__ = ["AUTO", "Cluster", "check_address", "connected", "watched"]

AUTO: Final = "auto"
FOLDER: Final = "emi-ray-"
# Ray's sockets lie at most 64 characters below its folder, and a path of a socket has at most 107.
LONGEST_FOLDER: Final = 107 - 64
SHORT_FOLDER: Final = "/tmp"  # noqa: S108  # mkdtemp makes a folder of ours in it
STORE_BYTES: Final = 128 << 20  # what actors exchange is small: features go to files
BEFORE_RAY: Final[Mapping[str, str]] = {  # read when `ray` is imported
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # `uv run` would have the working folder copied to the workers
    # Errors of its own code, such as those of an actor that ends, would come between our lines.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "GRPC_DNS_RESOLVER": "native",  # gRPC's own one reads the name servers' addresses at its start
}
BUSY: Final[Mapping[str, str]] = {  # for a machine that does other things too
    "RAY_worker_niceness": "0",  # Ray's 15 has the replicas of a live service wait for all other programs
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "50",  # in place of five seconds, after which it is ended
    "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",  # who hangs cannot send its sessions elsewhere
}
LOOPBACK: Final[Mapping[str, str]] = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
QUIET: Final = ("ray", "ray.data", "ray.serve")
LONGEST_WARNING: Final = 200  # characters; the rest is in Ray's log files
# Each replica and actor is a process, which Ray counts against the cores, though they sleep most of the time.
# Ray also asks its controller once more to end when it has just ended, and ends actors when the command does.
EXPECTED: Final = re.compile(
    r"worker processes have been started|Task ServeController\.\w*shutdown failed|killed by `ray\.kill`"
)

# When the head is gone, Ray waits a minute for it, and then ends this process without a message.
LOOK_EVERY_S: Final = 1.0
SAID_AFTER: Final = 5  # tries in a row without an answer
PATIENCE_S: Final = 50.0  # less than Ray's own
LAST_S: Final = 5.0  # for the command to end in order
GIVE: Final = "give HOST:PORT of a head that `ray start --head` started"
CONNECT_S: Final = 10.0  # for a head to answer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What Ray has to give."""

    address: str  # of the head, "127.0.0.1:PORT" if it was started here
    here: bool  # whether it was started here, and ends with us
    cpus: float
    gpus: float
    nodes: tuple[float, ...] = ()  # the cores of each machine
    nodes_gpus: tuple[float, ...] = ()  # and its GPUs


@contextmanager
def connected(
    address: str = AUTO, *, cpus: int | None = None, store_bytes: int = STORE_BYTES
) -> Iterator[Cluster]:
    """Connect this process to Ray for a `with` block; import `ray` inside it, not before.

    Args:
        address: `auto`: start Ray on this machine, on loopback, and end it when the `with` block ends; nobody
            else can join it. Else HOST:PORT of a head that `ray start --head` started.
        cpus: how many cores a Ray that is started here believes to have; None: those of this machine.
        store_bytes: shared memory of a Ray that is started here.

    Raises:
        MissingPackageError: Ray is not installed.
        ConfigurationError: the address is none, or nobody answers there.
        StageError: Ray could not be started, or its head is gone.
    """
    check_address(address)
    with ExitStack() as opened:
        opened.enter_context(_environ(BEFORE_RAY))
        loopback = address == AUTO or _is_loopback(address.rpartition(":")[0])
        if loopback:
            opened.enter_context(_environ(LOOPBACK))
        if address == AUTO:  # with a token, other users of this machine stay out
            token = os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)
            opened.enter_context(_environ({**BUSY, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}))
        from ray._private import ray_constants  # not earlier: Ray reads the token when it is imported

        if loopback:
            ray_constants.ENABLE_RAY_CLUSTER = False  # for a program that imported Ray before us
        if address == AUTO:
            folder = opened.enter_context(_folder())
            cluster = opened.enter_context(_started(folder, cpus, store_bytes))
        else:
            folder = None
            cluster = opened.enter_context(_joined(address))
        with watched(cluster.address, folder):
            yield cluster


@contextmanager
def watched(address: str, folder: Path | None = None) -> Iterator[None]:
    """A span in which a head that is gone is said, and ends the span.

    The main thread gets a KeyboardInterrupt, which becomes the error. If it stays in a call of Ray, the
    process ends with the same line.

    Args:
        address: HOST:PORT of the head.
        folder: of a Ray that this process started, which does not come back; None: others started it, and it
            is waited for, since a head with a database may return.

    Raises:
        StageError: the head is gone.
    """
    gone, host, port = threading.Event(), *address.rpartition(":")[::2]
    reason = "Ray, which this command started, has died; the same command begins again"
    if folder is None:
        reason = f"the head of Ray at {address} is gone; start it again, and then the same command"

    left: list[psutil.Process] = []  # Ray's, some of which would go on for ever

    def look(stop: threading.Event) -> None:
        silent = 0
        while not stop.wait(LOOK_EVERY_S):
            silent = 0 if _answers(host.strip("[]"), int(port)) else silent + 1
            if silent == 1 and folder is not None:
                left[:] = psutil.Process().children(recursive=True)
            if silent == SAID_AFTER and folder is None:
                logger.warning("the head of Ray at %s does not answer; waiting for %g s", address, PATIENCE_S)
            if silent >= SAID_AFTER + (PATIENCE_S / LOOK_EVERY_S if folder is None else 0):
                gone.set()
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                if not stop.wait(LAST_S):
                    _kill(left)
                    if folder is not None:
                        shutil.rmtree(folder.parent, ignore_errors=True)
                    sys.stderr.write(f"error: {reason}\n")
                    os._exit(1)
                return

    watch = Worker("ray-head", look, Health())
    watch.start()
    try:
        yield
    finally:
        watch.request_stop()
        watch.join(LAST_S)
        if gone.is_set():
            _kill(left)
            raise StageError(reason) from None


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):  # it has ended
            process.kill()


def _refusal(error: BaseException) -> str:
    """Why a cluster does not take this process in, which Ray says in the errors behind its own."""
    said = [str(error)]
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
        said.append(str(error))
    whole = " ".join(" ".join(said).split())
    if "InvalidAuthToken" in whole:
        return "it has another token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as where it was started"
    if found := re.search(r"Version mismatch: .*?(?=$|This process)", whole):
        return f"{found[0].strip()}; install the same here"
    return f"{said[0].strip().splitlines()[0]}; {GIVE}"


def _answers(host: str, port: int, timeout_s: float = LOOK_EVERY_S) -> bool:
    try:
        socket.create_connection((host, port), timeout_s).close()
    except OSError:
        return False
    return True


@contextmanager
def _started(folder: Path, cpus: int | None, store_bytes: int) -> Iterator[Cluster]:
    import ray

    home = folder.parent / "home"
    yours = os.environ.get("HOME", str(home))
    try:
        with _environ({"HOME": str(home)}), _signal_kept(), native_stderr_logged(logger):
            ray.init(
                "local",
                num_cpus=cpus,
                include_dashboard=False,
                dashboard_host="127.0.0.1",
                object_store_memory=store_bytes,
                runtime_env={"env_vars": {"HOME": yours}},
                _node_ip_address="127.0.0.1",
                _temp_dir=str(folder),
                **_quiet(),
            )
    except Exception as error:  # some of Ray's are just `Exception`: a busy machine that needs over 30 s
        ray.shutdown()
        raise StageError(
            f"Ray did not start: {_line(error)} Try again when less runs here, or leave --cluster out"
        ) from error
    try:
        yield _cluster(here=True)
    finally:
        ray.shutdown()


@contextmanager
def _joined(address: str) -> Iterator[Cluster]:
    import ray
    from ray._private.services import find_node_ids

    host, port = address.rpartition(":")[::2]
    if not _answers(host.strip("[]"), int(port), CONNECT_S):
        raise ConfigurationError(f"--cluster {address}: nobody answers there; {GIVE}")
    if not find_node_ids():  # Ray would look for one for a minute
        raise ConfigurationError(
            f"--cluster {address}: this machine is none of the cluster; first run `ray start --address "
            f"{address}` here, with --num-cpus 0 if it is not to work"
        )
    try:
        with _signal_kept(), native_stderr_logged(logger):
            ray.init(address, **_quiet())
    except Exception as error:  # as above
        ray.shutdown()
        raise ConfigurationError(f"--cluster {address}: {_refusal(error)}") from error
    try:
        yield _cluster(here=False)
    finally:
        ray.shutdown()


@contextmanager
def _signal_kept() -> Iterator[None]:
    """Ray takes SIGTERM over and answers it with a trace of the stack; the command's own way to end stays."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _quiet() -> dict[str, object]:
    """Ray's own lines stay in its log files; its warnings, which it writes to standard output, are logged."""
    from ray._private import worker

    worker.print_to_stdstream = log_warning
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    return {"configure_logging": False, "log_to_driver": False, "logging_level": logging.ERROR}


def log_warning(data: Mapping[str, Any], ignore_prefix: bool = False) -> None:
    """Log what Ray has to say, one line each; what is expected is for `--debug` alone.

    Args:
        data: as Ray gives it to its `print_to_stdstream`: `lines`.
        ignore_prefix: of no use here.
    """
    for text in data.get("lines", ()):
        level = logging.DEBUG if EXPECTED.search(text) else logging.WARNING
        logger.log(level, "Ray: %s", textwrap.shorten(str(text), LONGEST_WARNING, placeholder=" …"))


def _cluster(*, here: bool) -> Cluster:
    import ray

    found = ray.cluster_resources()
    address = ray.get_runtime_context().gcs_address
    if here:
        host = address.rpartition(":")[0].strip("[]")
        if not _is_loopback(host):  # a later release has no such setting
            raise StageError(f"Ray listens on {host}, not on loopback: install the release in uv.lock")
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores, gpus = (tuple(node.get(kind, 0.0) for node in alive) for kind in ("CPU", "GPU"))
    return Cluster(address, here, found.get("CPU", 0.0), found.get("GPU", 0.0), cores, gpus)


def check_address(address: str) -> None:
    """Return if Ray is installed and this can be the address of a cluster; nothing is contacted.

    Raises:
        MissingPackageError: Ray is not installed.
        ConfigurationError: it is neither `auto` nor HOST:PORT.
    """
    require("ray", extra="cluster", what="--cluster")
    if address == AUTO:
        return
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise ConfigurationError(f"--cluster {address}: give auto, or HOST:PORT of a Ray head")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for Ray's logs and sockets; removed at the end, or by the next command after `kill -9`.

    Ray gives everybody all rights to its folder, so it is one below a folder of ours.
    """
    base = tempfile.gettempdir()
    if len(base) + len("/emi-ray-12345678/r") > LONGEST_FOLDER:
        base = SHORT_FOLDER
    sweep_folders(FOLDER, base)
    with temporary_folder(FOLDER, base) as ours:
        (ours / "home").mkdir()
        (ours / "home" / "ray_bootstrap_config.yaml").write_text("{}\n", encoding="utf-8")
        yield ours / "r"


@contextmanager
def _environ(values: Mapping[str, str]) -> Iterator[None]:
    """A span with other environment variables, which the processes that are started in it inherit."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _line(error: BaseException) -> str:
    """The first line of a message that may have many."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
