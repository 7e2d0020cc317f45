"""A recogniser in a separate process, behind the protocol `Recognizer`.

PocketSphinx's binding holds Python's global lock while it searches, up to half a second at the end of an
utterance. In our own process, no face could be analysed and no window cut in that time. Whisper keeps a core
busy for a third of a second, so its process has a lower priority and camera frames do not wait for it.
`python -m emi_models.speech.isolated` is the child process; it answers requests on its pipes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import msgspec
import numpy as np

from emi_models.errors import EmiError, ModelUnavailableError
from emi_models.speech.recognizer import (
    ACCEPT,
    BEGIN,
    ERROR,
    FINISH,
    FORGET,
    HYPOTHESIS,
    TOGETHER,
    WORDS,
    Batching,
    BatchRecognizer,
    Hypothesis,
    Utterance,
    read_frame,
    write_frame,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from emi_models.speech.recognizer import Recognizer

__all__ = ["IsolatedRecognizer", "RecognizerLostError", "isolated_command", "serve"]

END_TIMEOUT_S: Final = 1.0
NICENESS: Final = 5  # of the process: if all cores are busy, it gets a third of the time of another thread


def isolated_command(kind: str, **options: Any) -> tuple[str, ...]:
    """The command of a process that serves a recogniser.

    Args:
        kind: `pocketsphinx` or `whisper`.
        options: arguments of its class that JSON can hold.
    """
    return (sys.executable, "-m", "emi_models.speech.isolated", kind, msgspec.json.encode(options).decode())


class Greeting(msgspec.Struct, forbid_unknown_fields=True):
    """What the process sends when its model is loaded."""

    name: str
    agreement: int
    batching: Batching | None = None


Answer = TypeVar("Answer")


class RecognizerLostError(EmiError, RuntimeError):
    """The recogniser's process has ended, or its answer is invalid."""


class IsolatedRecognizer:
    """A recogniser in a child process. `close` may be called by any thread; it interrupts a running call."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start the process and wait until its model is loaded.

        Args:
            command: from `isolated_command`, or another one with the same protocol.

        Raises:
            ModelUnavailableError: the recogniser cannot be loaded; the message is that of its class.
            RecognizerLostError: the process cannot be started.
        """
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        greeting = self._start()
        self.name = greeting.name
        self.agreement = greeting.agreement
        self.batching = greeting.batching

    def begin(self, prompt: str = "") -> None:
        """Start again. If the process was lost, a new one is started, which has not learnt the microphone."""
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

    def recognize(self, utterances: Sequence[Utterance]) -> list[Hypothesis]:
        """As `BatchRecognizer.recognize`. If the process was lost, a new one is started."""
        if self._process is None and not self._closed:
            self._start()
        rows = [
            (one.prompt, one.last, np.ascontiguousarray(one.samples, np.float32).data) for one in utterances
        ]
        self._send(TOGETHER, msgspec.msgpack.encode(rows))
        return self._receive(list[Hypothesis])

    def forget(self) -> None:
        """Drop what was accepted and learnt: the state after loading."""
        if self._process is not None:
            self._ask(FORGET)

    def close(self) -> None:
        """End the process; a second call does nothing."""
        self._closed = True
        self._drop()

    def _start(self) -> Greeting:
        try:
            self._process = subprocess.Popen(  # noqa: S603 # our own module, or what a test names
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except OSError as error:
            raise RecognizerLostError(f"the speech recogniser cannot be started: {error}") from error
        return self._receive(Greeting)

    def _ask(self, letter: bytes, payload: bytes = b"") -> Hypothesis:
        self._send(letter, payload)
        return self._receive(Hypothesis)

    def _send(self, letter: bytes, payload: bytes) -> None:
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

    def _receive(self, kind: type[Answer]) -> Answer:
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
        try:
            return msgspec.json.decode(payload, type=kind)
        except msgspec.DecodeError as error:
            self._drop()
            raise RecognizerLostError(f"the speech recogniser's answer is invalid: {error}") from error

    def _drop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        with suppress(subprocess.TimeoutExpired):  # a very busy machine; Python reaps the process later
            process.wait(END_TIMEOUT_S)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # unsent bytes for the dead process
                    continue


def serve(recognizer: Recognizer, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until their stream ends."""
    while (frame := read_frame(requests)) is not None:
        letter, payload = frame
        found: Hypothesis | list[Hypothesis] = Hypothesis()
        if letter == BEGIN:
            recognizer.begin(payload.decode())
        elif letter == ACCEPT:
            recognizer.accept(np.frombuffer(payload, np.float32))
        elif letter == HYPOTHESIS:
            found = recognizer.hypothesis()
        elif letter == FINISH:
            found = recognizer.finish()
        elif letter == FORGET:
            recognizer.forget()
        elif letter == TOGETHER and isinstance(recognizer, BatchRecognizer):
            rows = msgspec.msgpack.decode(payload, type=list[tuple[str, bool, bytes]])
            found = recognizer.recognize(
                [Utterance(np.frombuffer(sound, np.float32), prompt, last) for prompt, last, sound in rows]
            )
        write_frame(answers, WORDS, msgspec.json.encode(found))


def load(kind: str, options: dict[str, Any]) -> Recognizer:
    """The recogniser that `isolated_command` names."""
    if kind == "whisper":
        from emi_models.speech.whisper import WhisperRecognizer

        return WhisperRecognizer(**options)
    from emi_models.speech.sphinx import SphinxRecognizer

    return SphinxRecognizer(**options)


def main() -> None:
    """Serve until standard input ends: the parent process closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    answers = sys.stdout.buffer
    kind, options = sys.argv[1:]
    try:
        recognizer = load(kind, msgspec.json.decode(options))
    except EmiError as error:
        write_frame(answers, ERROR, str(error).encode())
        return
    batching = recognizer.batching if isinstance(recognizer, BatchRecognizer) else None
    greeting = Greeting(recognizer.name, recognizer.agreement, batching)
    write_frame(answers, WORDS, msgspec.json.encode(greeting))
    serve(recognizer, sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
