"""Callers of one model, in several threads: one call at a time, and those that wait meanwhile share the next.

`Turns` decides who runs a call and when; a subclass says which of those that wait share it, and computes it.
Nobody waits for company: a lone caller runs at once. Each call runs in the thread of a caller.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["Asked", "Turns"]


@dataclass(slots=True, eq=False, kw_only=True)
class Asked:
    """What one caller wants; `answer` or `error` is set once it is `done`."""

    done: bool = False
    answer: Any = None
    error: Exception | None = None


A = TypeVar("A", bound=Asked)


class Turns(ABC, Generic[A]):
    """The callers of one model.

    Attributes:
        changed: guards all attributes, and is notified whenever one of them changes.
        waiting: who has asked and is in no call yet, in the order in which they came.
        running: whether a call runs.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.waiting: list[A] = []
        self.running = False

    @abstractmethod
    def next_call(self) -> list[A]:
        """Those of the waiting that share the next call; it may also answer some. `changed` is held."""

    @abstractmethod
    def compute(self, call: list[A]) -> None:
        """Set the answer of each, or raise an error; `changed` is not held."""

    def ask(self, asked: A) -> Any:
        """The answer to what the caller wants, in any thread.

        Raises:
            Exception: what the model raises; the error of one caller does not affect the others of its call.
        """
        with self.changed:
            self.waiting.append(asked)
            try:
                while not asked.done:
                    if self.running:
                        self.wait(asked)
                    else:
                        self._run_call()  # perhaps one of others, who came earlier
            finally:
                if asked in self.waiting:  # the caller was interrupted
                    self.waiting.remove(asked)
                self.changed.notify_all()
        if asked.error is not None:
            raise asked.error
        return asked.answer

    def wait(self, asked: A) -> None:
        """Wait for a change; `changed` is held. May raise, or answer the caller."""
        self.changed.wait()

    def ended(self, call: list[A]) -> None:
        """A call has ended; `changed` is held."""

    def _run_call(self) -> None:
        """Run the next call; others may queue meanwhile."""
        call = self.next_call()
        if not call:
            return
        self.waiting = [asked for asked in self.waiting if asked not in call]
        self.running = True
        self.changed.release()
        try:
            self._answer(call)
        finally:
            self.changed.acquire()
            self.running = False
            for asked in call:
                asked.done = asked.answer is not None or asked.error is not None
            # If the caller that ran the call was interrupted, the others ask again.
            self.waiting = [asked for asked in call if not asked.done] + self.waiting
            self.ended(call)
            self.changed.notify_all()

    def _answer(self, call: list[A]) -> None:
        try:
            self.compute(call)
        except Exception as error:  # noqa: BLE001  # the model's own, e.g. out of memory: the callers raise it
            if len(call) == 1:
                call[0].error = error
                return
            for asked in call:  # one by one, to find the one that fails
                asked.answer = None
                self._answer([asked])
