"""A server of `emi serve` in this process, with engines that need no model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_live import LiveConfig, LiveEngine
from emi_live.bundle.base import Encoders
from emi_live.config import load_config
from emi_live.web.access import Access
from emi_live.web.server import Server, build_app, listen, server_config
from emi_live.web.sessions import Sessions
from emi_models.encoders.face import FACE_DIM, Box, FaceResult

PATIENCE_S = 30.0


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    sessions: Sessions
    loop: asyncio.AbstractEventLoop
    server: Server

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def cut(self) -> None:
        """Cut every connection, as a network does."""

        def cut() -> None:
            for connection in list(self.server.server_state.connections):
                connection.transport.abort()

        self.ask(cut)

    def ask(self, question: Callable[[], object]) -> object:
        """The answer of a function that runs in the event loop, where sessions live."""

        async def ask() -> object:
            return question()

        return asyncio.run_coroutine_threadsafe(ask(), self.loop).result(PATIENCE_S)


class NoFace:
    """A face encoder that finds nobody, so that an engine needs no model."""

    def analyse(self, rgb: NDArray[np.uint8], t_ns: int) -> FaceResult:
        return FaceResult(0, None, None)

    def follow(self, wish: object) -> None: ...

    def reset(self) -> None: ...

    def close(self) -> None: ...


class TwoFaces(NoFace):
    """Sees two faces in every frame, and follows the first, or the one that it was told to."""

    BOXES = (Box(0.1, 0.2, 0.3, 0.5), Box(0.6, 0.2, 0.9, 0.6))

    def __init__(self) -> None:
        self.followed = 0

    def analyse(self, rgb: NDArray[np.uint8], t_ns: int) -> FaceResult:
        points = np.full((478, 2), self.BOXES[self.followed].centre, np.float32)
        features = np.zeros(FACE_DIM, np.float32)
        return FaceResult(
            2, features, self.BOXES[self.followed], points, boxes=self.BOXES, followed=self.followed
        )

    def follow(self, wish: object) -> None:
        self.followed = int(wish != "largest" and wish[0] > 0.5)  # type: ignore[index] # a point


def without_models(config: LiveConfig) -> LiveEngine:
    """An engine that loads no model: estimates come, every modality is missing."""
    return LiveEngine(config, encoders=Encoders(face=NoFace()))


@contextmanager
def serving(
    access: Access | None = None,
    make_engine: Callable[[LiveConfig], LiveEngine] = without_models,
    settings: tuple[str, ...] = (),
    **options: float,
) -> Iterator[Served]:
    """Serve on a free port of this machine until the end of the block."""
    sessions = Sessions(load_config(settings=settings), make_engine=make_engine, **options)  # type: ignore[arg-type]
    with listen("127.0.0.1", 0) as listener:
        server = Server(server_config(build_app(sessions, access or Access())))
        loops: list[asyncio.AbstractEventLoop] = []

        async def run() -> None:
            loops.append(asyncio.get_running_loop())
            await server.serve(sockets=[listener])

        thread = threading.Thread(target=partial(asyncio.run, run()), daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        while not server.started:
            thread.join(0.02)
            assert thread.is_alive(), "the server did not start"
        try:
            yield Served(f"http://127.0.0.1:{port}", sessions, loops[0], server)
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "the server did not stop"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """One server for the tests of a module; it takes up to eight sessions."""
    with serving(most=8, idle_s=60.0, comeback_s=1.0) as running:
        yield running
