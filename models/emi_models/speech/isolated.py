"""PocketSphinx in a process of its own, behind the protocol `Recognizer`.

Its binding holds Python's global lock while it searches, up to half a second at the end of an utterance. In
our own process no face would be analysed and no window cut in that time. `python -m
emi_models.speech.isolated` is the child process; it serves requests on its pipes.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from emi_models.errors import EmiError, ModelUnavailableError
from emi_models.speech.recognizer import (
    ACCEPT,
    BEGIN,
    ERROR,
    FINISH,
    HYPOTHESIS,
    WORDS,
    Hypothesis,
    RecognizedWord,
    Segment,
    read_frame,
    write_frame,
)
from emi_models.speech.sphinx import AGREEMENT, SphinxRecognizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from emi_models.speech.recognizer import Recognizer

__all__ = ["IsolatedRecognizer", "RecognizerLostError", "serve"]

COMMAND: Final = (sys.executable, "-m", "emi_models.speech.isolated")
END_TIMEOUT_S: Final = 1.0


class RecognizerLostError(EmiError, RuntimeError):
    """The recogniser's process has ended, or says what no recogniser says."""


class IsolatedRecognizer:
    """A `SphinxRecognizer` in a child process. `close` may come from any thread; it ends a call under way."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        """Start the process and wait until its model is loaded.

        Args:
            command: what to run; it must speak as `emi_models.speech.isolated` does.

        Raises:
            ModelUnavailableError: PocketSphinx is not installed.
            RecognizerLostError: the process cannot be started.
        """
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self.agreement = AGREEMENT
        self.name = self._start()

    def begin(self, prompt: str = "") -> None:
        """Start again; if the process was lost, in a new one that does not know the microphone yet."""
        if self._process is None and not self._closed:
            self._start()
        self._ask(BEGIN, prompt.encode())

    def accept(self, samples: NDArray[np.float32]) -> None:
        """Take the next samples, shape (n,), 16 kHz mono, in [-1, 1]."""
        self._ask(ACCEPT, np.ascontiguousarray(samples, np.float32).tobytes())

    def hypothesis(self) -> Hypothesis:
        """The words so far."""
        return self._ask(HYPOTHESIS)

    def finish(self) -> Hypothesis:
        """The words of all that was accepted."""
        return self._ask(FINISH)

    def forget(self) -> None:
        """End the process: the next utterance starts a new one."""
        self._drop()

    def close(self) -> None:
        """End the process; a second call does nothing."""
        self._closed = True
        self._drop()

    def _start(self) -> str:
        try:
            self._process = subprocess.Popen(  # noqa: S603 # our own module, or what a test names
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except OSError as error:
            raise RecognizerLostError(f"the speech recogniser cannot be started: {error}") from error
        return str(self._receive())

    def _ask(self, letter: bytes, payload: bytes = b"") -> Hypothesis:
        process = self._process
        if process is None or process.stdin is None:
            raise RecognizerLostError(
                "the speech recogniser is not running; it is started with the next utterance"
            )
        try:
            write_frame(process.stdin, letter, payload)
        except (OSError, ValueError) as error:
            self._drop()
            raise RecognizerLostError(f"the speech recogniser has ended: {error}") from error
        answer = self._receive()
        if not isinstance(answer, list):
            self._drop()
            raise RecognizerLostError(f"the speech recogniser answered {answer!r}")
        return Hypothesis(
            tuple(
                Segment(**part | {"words": tuple(RecognizedWord(**w) for w in part["words"])})
                for part in answer
            )
        )

    def _receive(self) -> object:
        process = self._process
        frame = None
        if process is not None and process.stdout is not None:
            try:
                frame = read_frame(process.stdout)
            except (OSError, ValueError):  # closed by another thread, or not a frame
                frame = None
        if frame is None:
            self._drop()
            raise RecognizerLostError(
                "the speech recogniser's process has ended; a new one starts with the next words"
            )
        letter, payload = frame
        if letter == ERROR:
            self._drop()
            raise ModelUnavailableError(payload.decode("utf-8", "replace"))
        return json.loads(payload)

    def _drop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait(END_TIMEOUT_S)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what it still held for the dead process
                    continue


def serve(recognizer: Recognizer, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until their stream ends."""
    while (frame := read_frame(requests)) is not None:
        letter, payload = frame
        heard = Hypothesis()
        if letter == BEGIN:
            recognizer.begin(payload.decode())
        elif letter == ACCEPT:
            recognizer.accept(np.frombuffer(payload, np.float32))
        elif letter == HYPOTHESIS:
            heard = recognizer.hypothesis()
        elif letter == FINISH:
            heard = recognizer.finish()
        write_frame(answers, WORDS, json.dumps(asdict(heard)["segments"]).encode())


def main() -> None:
    """Serve until standard input ends; only the parent process ends it so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = sys.stdout.buffer
    try:
        recognizer = SphinxRecognizer()
    except EmiError as error:
        write_frame(answers, ERROR, str(error).encode())
        return
    write_frame(answers, WORDS, json.dumps(recognizer.name).encode())
    serve(recognizer, sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
