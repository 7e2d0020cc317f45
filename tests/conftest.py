"""What every test may use: the test media, and the rule that on CI nothing is skipped for lack of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

import emi_models  # noqa: F401 # before a test imports a library: it tells them to send nothing home
from tests.support.alone import Machine

# Before a test imports numpy or PyTorch; programs that tests start inherit it. Workers share the cores, and
# threads of PyTorch that wait for one spin: tests of wav2vec 2.0 took three times the CPU on two threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# An example may take longer than 0.2 s on a busy machine; that is not an error.
settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")

MACHINE = pytest.StashKey[Machine]()  # of a worker of pytest-xdist
ROOT = Path(__file__).parent.parent
DEFAULT_ASSETS = ROOT.parent / "shared" / "assets"


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of test media: EMI_TEST_ASSETS, or ../shared/assets next to the checkout."""
    folder = Path(os.environ.get("EMI_TEST_ASSETS", DEFAULT_ASSETS))
    if not folder.is_dir():
        message = f"no test media at {folder}: set EMI_TEST_ASSETS to the folder that holds them"
        if os.environ.get("EMI_REQUIRE_ASSETS"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def whisper_base() -> Path:
    """The folder of the real Whisper base."""
    return _model("whisper-base")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the real sentence encoder."""
    return _model("all-minilm-l6-v2")


def _model(name: str) -> Path:
    """A model in EMI_TEST_MODELS, or in the user's store; never fetched here."""
    from emi_models.errors import EmiError
    from emi_models.store import ModelStore

    named = os.environ.get("EMI_TEST_MODELS")
    try:
        return ModelStore(Path(named) if named else None, offline=True).locate(name)
    except EmiError as error:
        message = f"{error}; EMI_TEST_MODELS names the folder in which tests look for models"
        if os.environ.get("EMI_REQUIRE_MODELS"):
            pytest.fail(message)
        pytest.skip(message)


def pytest_configure(config: pytest.Config) -> None:
    """Prepare signals and the order of modules."""
    # A shell starts background jobs with SIGINT ignored; programs under test would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # pytest-xdist would begin with the modules of many tests: see `pytest_collection_modifyitems`.
    config.option.loadscopereorder = False
    if worker := getattr(config, "workerinput", None):
        config.stash[MACHINE] = Machine(worker["testrunuid"])


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around the fixtures of modules too, and the test's time limit
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Let tests marked `alone` run while the other workers wait."""
    machine = item.config.stash.get(MACHINE, None)
    if machine is None:
        return (yield)
    with machine.turn(alone=_is_alone(item), next_alone=nextitem is not None and _is_alone(nextitem)):
        return (yield)


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run modules with tests that are alone first, then those with slow ones.

    So that with `--dist loadscope` all workers end at the same time: a worker is given up to three modules
    ahead. If these took minutes, others would wait for it at the end. A test that is alone waits for those
    that run; beside others of its kind these are short.
    """
    alone = {item.path for item in items if _is_alone(item)}
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    place = {path: number for number, path in enumerate(dict.fromkeys(item.path for item in items))}
    items.sort(
        key=lambda item: (
            item.path not in alone,
            item.path not in slow,
            place[item.path],
            not _is_alone(item),
        )
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """On CI, where everything that tests need is installed, a skipped test is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("EMI_REQUIRE_ASSETS") or reporter is None:
        return
    skipped = reporter.stats.get("skipped", ())
    if any("on_request" not in getattr(report, "keywords", ()) for report in skipped):
        reporter.write_line("tests were skipped, and EMI_REQUIRE_ASSETS forbids it", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
