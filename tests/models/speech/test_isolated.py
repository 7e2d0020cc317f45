from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from emi_models.errors import ModelUnavailableError
from emi_models.speech.isolated import IsolatedRecognizer, RecognizerLostError, isolated_command
from emi_models.speech.sphinx import SphinxRecognizer
from tests.models.encoders.media import read_sound

SPHINX = isolated_command("pocketsphinx")
PYTHON = (sys.executable, "-c")
BABBLER = (*PYTHON, "import sys; sys.stdout.write('this is not a frame' * 100); sys.stdout.flush()")
WITHOUT_MODEL = (
    *PYTHON,
    "import sys; from emi_models.speech.recognizer import *; "
    "write_frame(sys.stdout.buffer, ERROR, b'is absent')",
)


@pytest.fixture(autouse=True)
def _pocketsphinx() -> None:
    pytest.importorskip("pocketsphinx", reason="the extra `pocketsphinx` is not installed")


@pytest.mark.slow
@pytest.mark.assets
def test_it_hears_what_the_recogniser_hears_in_this_process(assets: Path) -> None:
    sound = read_sound(assets / "speech/LJ001-0004.wav")[:48_000]
    heard = []
    for recognizer in (SphinxRecognizer(), IsolatedRecognizer(SPHINX)):
        assert recognizer.name == "pocketsphinx en-us"
        recognizer.begin()
        for start in range(0, sound.size, 4096):
            recognizer.accept(sound[start : start + 4096])
        heard.append((recognizer.hypothesis(), recognizer.finish()))
        recognizer.close()
    assert heard[0] == heard[1]
    assert len(heard[0][1].words) > 5


@pytest.mark.slow
@pytest.mark.assets
def test_the_rest_of_the_program_goes_on_while_it_searches(assets: Path) -> None:
    """What it is for: the longest time in which this process could do nothing is a fraction of the search."""
    sound = read_sound(assets / "speech/LJ001-0004.wav")
    recognizer = IsolatedRecognizer(SPHINX)
    recognizer.begin()
    turns = [time.perf_counter()]
    over = threading.Event()

    def search() -> None:
        recognizer.accept(sound)
        recognizer.finish()
        over.set()

    searching = threading.Thread(target=search)
    searching.start()
    while not over.wait(0.001):
        turns.append(time.perf_counter())
    searching.join()
    recognizer.close()
    assert len(turns) > 20
    assert np.diff(turns).max() < (turns[-1] - turns[0]) / 3


def test_close_from_another_thread_ends_a_call_under_way() -> None:
    recognizer = IsolatedRecognizer(SPHINX)
    recognizer.begin()
    errors: list[Exception] = []

    def search() -> None:
        try:
            for _ in range(1000):
                recognizer.accept(np.zeros(160_000, np.float32))
        except RecognizerLostError as error:
            errors.append(error)

    searching = threading.Thread(target=search)
    searching.start()
    recognizer.close()
    recognizer.close()
    searching.join(10)
    assert not searching.is_alive()
    assert len(errors) == 1


def test_a_lost_process_is_said_once_and_replaced_with_the_next_utterance() -> None:
    recognizer = IsolatedRecognizer(SPHINX)
    recognizer.begin()
    process = recognizer._process
    assert process is not None
    process.kill()
    process.wait()
    with pytest.raises(RecognizerLostError):
        recognizer.hypothesis()
    with pytest.raises(RecognizerLostError, match="not running"):
        recognizer.hypothesis()
    recognizer.begin()
    assert recognizer.hypothesis().words == ()
    recognizer.close()


@pytest.mark.slow
@pytest.mark.assets
def test_it_forgets_on_demand_what_it_heard_before(assets: Path) -> None:
    sound = read_sound(assets / "speech/LJ001-0002.wav")
    recognizer = IsolatedRecognizer(SPHINX)
    heard = []
    for forgets in (True, False, False):
        recognizer.begin()
        recognizer.accept(sound)
        heard.append(recognizer.finish())
        if forgets:
            recognizer.forget()
    recognizer.close()
    assert heard[0] == heard[1] != heard[2]


@pytest.mark.parametrize("command", [BABBLER, (*PYTHON, "pass"), ("/no/such/program",)])
def test_a_process_that_does_not_speak_the_language_is_an_error(command: tuple[str, ...]) -> None:
    with pytest.raises(RecognizerLostError):
        IsolatedRecognizer(command)


def test_a_missing_model_is_the_child_s_own_words() -> None:
    with pytest.raises(ModelUnavailableError, match="is absent"):
        IsolatedRecognizer(WITHOUT_MODEL)
