"""Deploying `emi serve --cluster`: what is refused and said before, what is waited for, and who owns it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emi_live.errors import ConfigurationError, StageError

if TYPE_CHECKING:
    from emi_live.web.replicas import Plan


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (("127.0.0.1", 8765, None), None),
        (("127.0.0.1", 0, None), None),
        (("127.0.0.1", 8766, None), "runs there at 127.0.0.1:8765"),
        (("0.0.0.0", 8765, None), "runs there at 127.0.0.1:8765"),  # noqa: S104 # is not opened
        (("127.0.0.1", 8765, Path("c.pem")), "no certificate"),
    ],
)
def test_a_new_version_is_reached_where_the_old_one_is(
    wanted: tuple[str, int, Path | None], why: str | None
) -> None:
    pytest.importorskip("ray")
    from rich.console import Console

    from emi_live.cli.serve_cluster import Wanted, _check_same
    from emi_live.web.access import Access
    from emi_live.web.deploy import Door

    host, port, certificate = wanted
    with nullcontext() if why is None else pytest.raises(ConfigurationError, match=why):
        options = Wanted(host, port, certificate, certificate, self_signed=False)
        _check_same("127.0.0.1:6379", options, Door("127.0.0.1", 8765), Access(), Console())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("host", "runs", "given", "has"),
    [
        ("10.0.0.5", "theirs", None, "theirs"),
        ("10.0.0.5", "theirs", "theirs", "theirs"),
        ("10.0.0.5", "theirs", "mine", None),
        ("10.0.0.5", None, "mine", "mine"),  # an older version has left no note of it
        ("127.0.0.1", "theirs", None, "theirs"),
        ("127.0.0.1", None, None, ""),
        ("127.0.0.1", None, "mine", None),
    ],
)
def test_a_new_version_keeps_the_token(
    host: str, runs: str | None, given: str | None, has: str | None
) -> None:
    pytest.importorskip("ray")
    from rich.console import Console

    from emi_live.cli.serve_cluster import Wanted, _check_same, _with_token
    from emi_live.web.access import Access
    from emi_live.web.deploy import Door

    found, wanted = Door(host, 8765, token=runs), Wanted(host, 8765, None, None, self_signed=False)
    with nullcontext() if has is not None else pytest.raises(ConfigurationError, match="token"):
        _check_same("10.0.0.5:6379", wanted, found, Access(given), Console())
        assert (_with_token(Access(given), host, found).token or "") == has


def test_a_self_signed_certificate_is_refused_where_other_machines_would_lack_it() -> None:
    pytest.importorskip("ray")
    from emi_live.cli.serve_cluster import Wanted, _check_certificate

    wanted = Wanted("10.0.0.5", 8765, None, None, self_signed=True)
    with pytest.raises(ConfigurationError, match="on this machine alone, and the cluster has 2"):
        _check_certificate(wanted, 2)


@pytest.mark.parametrize(
    ("setting", "networks", "why"),
    [
        ("fusion.device=cuda", 0, "add --networks 1"),
        ("fusion.device=cuda", 1, None),
        ("models.device=auto", 1, "leave models.device out"),
        ("fusion.device=cpu", 0, None),
    ],
)
def test_a_gpu_that_nobody_would_get_is_refused(setting: str, networks: int, why: str | None) -> None:
    from emi_live.cli.serve_cluster import _check_devices
    from emi_live.config import load_config

    with nullcontext() if why is None else pytest.raises(ConfigurationError, match=why):
        _check_devices(load_config(None, [setting]), networks)


def test_a_new_service_has_a_token_where_others_can_connect() -> None:
    from emi_live.cli.serve_cluster import _with_token
    from emi_live.web.access import Access

    tokens = {_with_token(Access(), "10.0.0.5", None).token for _ in range(2)}
    assert len(tokens - {None}) == 2
    assert _with_token(Access(), "127.0.0.1", None).token is None


def plan(*settings: str, **options: float) -> Plan:
    """On a cluster of several machines."""
    from emi_live.config import load_config
    from emi_live.web.access import Access
    from emi_live.web.replicas import Plan

    config = load_config(None, settings, {"output": {"ui": False}})
    return Plan(config=config, access=Access(), cpus=1.0, **options)  # type: ignore[arg-type]


CUDA, NO_WORDS = "fusion.device=cuda", "speech.backend=none"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("machines", "settings", "options", "why"),
    [
        ([(2, 0), (1, 1)], [CUDA], {"networks": 1}, None),
        ([(2, 1)], [CUDA], {"networks": 1}, "--replicas 2 --networks 1 take 3 cores.* cluster has 2;"),
        ([(3, 0)], [CUDA], {"networks": 1}, "a GPU for each.* Ray has 0 GPUs"),
        ([(4, 0), (0, 1)], [CUDA], {"networks": 1}, "core of the same machine; Ray has 1 GPU"),
        ([(8, 0)], [], {"least": 8}, None),
        ([(7, 0)], [], {"least": 8, "most": 20}, "--replicas 8 take 8 cores"),
        ([(1.5, 0), (1.5, 0)], [], {"least": 3}, "cluster has 2;"),
        ([(2, 0)], [], {"recognizers": 1}, "--replicas 2 --recognizers 1 take 3 cores"),
        ([(2, 0)], [NO_WORDS], {"recognizers": 1}, None),
    ],
)
def test_what_a_cluster_can_never_run_is_said_before(
    machines: list[tuple[float, float]], settings: list[str], options: dict[str, float], why: str | None
) -> None:
    pytest.importorskip("ray")
    from emi_live.web.deploy import check_room

    with nullcontext() if why is None else pytest.raises(StageError, match=why):
        check_room(plan(*settings, **options), [{"CPU": cores, "GPU": gpus} for cores, gpus in machines])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_one_machine_shares_its_cores_between_any_number_of_replicas() -> None:
    pytest.importorskip("ray")
    from emi_live.web.deploy import check_room

    check_room(replace(plan(CUDA, least=9, networks=1), cpus=0.0), [{"CPU": 2.0, "GPU": 1.0}])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("free", "held", "waits"),
    [
        ((3, 1), (0, 0), ""),
        ((0, 0), (3, 1), ""),
        ((1, 1), (0, 0), "cores: needed 3, free 1"),
        ((0, 1), (2, 0), "cores: needed 3, free 0, given back by the version before 2"),
        ((2, 0), (0, 0), "cores: needed 3, free 2; GPUs: needed 1, free 0"),
    ],
)
def test_what_is_there_and_used_by_others_is_waited_for(
    free: tuple[float, float], held: tuple[float, float], waits: str
) -> None:
    pytest.importorskip("ray")
    from emi_live.web.deploy import _missing

    def named(both: tuple[float, float]) -> dict[str, float]:
        return {name: value for name, value in zip(("CPU", "GPU"), both, strict=True) if value}

    assert _missing(plan(CUDA, networks=1), named(free), named(held)) == waits


@dataclass
class _Part:
    status: str
    replica_states: dict[str, int]
    message: str = ""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_slow_start_says_what_it_waits_for() -> None:
    pytest.importorskip("ray")
    from emi_live.web.deploy import _waits_for

    ray_says = (
        "Deployment 'Fusion' has 1 replicas that have taken more than 30s to be scheduled. "
        'Resources required for each replica: {"CPU": 1.0, "GPU": 1}, total resources '
        'available: {"CPU": 2.0}. Use'
    )
    runs = _Part("HEALTHY", {"RUNNING": 2})
    assert _waits_for({"People": runs}) == ""
    waits = {"People": _Part("UPDATING", {"RUNNING": 1, "STARTING": 1, "STOPPING": 0}), "Words": runs}
    assert _waits_for(waits) == "People (1 running, 1 starting)"
    assert _waits_for({"Fusion": _Part("UPDATING", {"STARTING": 1}, ray_says)}) == (
        'Fusion (1 starting; no machine has room for one more: it takes {"CPU": 1.0, "GPU": 1}, '
        'and {"CPU": 2.0} are free)'
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_cluster_that_is_silent_for_a_moment_ends_nothing() -> None:
    pytest.importorskip("ray")
    from emi_live.web.deploy import Deployed
    from emi_live.web.replicas import Note

    class Scripted(Deployed):
        def __init__(self, *answers: str, here: bool = False) -> None:
            """What the cluster answers, one after the other; the last for ever."""
            super().__init__("we", here=here)
            self.answers = list(answers)

        def _look(self) -> tuple[Note | None, bool]:
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if answer == "silent":
                raise OSError("no answer")
            self.replaced = answer == "replaced"
            return Note("we", b"for tests"), answer != "ended"

    one = Scripted("runs", "silent", "replaced")
    one.wait()
    assert not one.close(), "it is not ours"
    one = Scripted("ended")
    with pytest.raises(StageError, match="ended by another"):
        one.wait()
    assert one.close(), "there is nothing to end, and no certificate is needed"
    for here in (False, True):
        one = Scripted("silent", "silent", "runs", here=here)
        with pytest.raises(StageError, match="no answer"):
            one.wait(0.0)
        assert one.close() == here, "elsewhere it may go on, with its certificate"


def test_a_fingerprint_is_shown_as_it_is() -> None:
    from rich.console import Console

    from emi_live.cli.serve_cluster import show_fingerprint

    show_fingerprint("32:CD:AB:00", Console(file=(file := StringIO())))
    assert "32:CD:AB:00" in file.getvalue()


def test_what_runs_is_said_for_each_machine_where_it_differs() -> None:
    from rich.console import Console

    from emi_live.cli.serve_cluster import _say_what_runs

    def said(found: dict[str, list[str]]) -> list[str]:
        console = Console(file=(file := StringIO()), width=200)
        _say_what_runs(found, console)
        return file.getvalue().splitlines()

    words, none = ["words: whisper"], ["text: unavailable: no model"]
    assert said({"one": words, "two": words}) == words
    assert said({"one": words, "two": none, "three": words}) == ["on one, three:", *words, "on two:", *none]


@pytest.mark.parametrize("option", ["--replicas 8", "--networks 1", "--recognizers 1", "--rolling"])
def test_what_only_a_cluster_has_is_refused_without_one(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from emi_live.cli.errors import run_app
    from emi_live.cli.serve import app

    with pytest.raises(SystemExit) as ended:
        run_app(app, option.split(), "emi serve")
    assert ended.value.code == 2
    assert f"{option.split()[0]} is for several processes" in capsys.readouterr().err


def test_a_number_of_replicas_that_is_none_is_refused() -> None:
    from emi_live.cli.serve import _replicas

    assert (_replicas("3"), _replicas("1:8")) == ((3, 3), (1, 8))
    for wrong in ("", "0", "8:1", "two", ":2", "-1"):
        with pytest.raises(ConfigurationError, match="replicas"):
            _replicas(wrong)
