"""`--web`: pages of this machine watch its own camera."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from emi_live import LiveEngine, load_config
from emi_live.bundle.base import Encoders
from emi_live.errors import ConfigurationError, SourceError
from emi_live.web.client import EmiClient
from emi_live.web.local import WebSink, parse_address
from emi_live.web.protocol import PICTURE, Bye, EstimateEvent, Hello, StateEvent, WarningEvent, unpack_media
from tests.live.web.conftest import PATIENCE_S, NoFace
from tests.live.web.test_server import first


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("8765", ("127.0.0.1", 8765)), ("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:80", ("::1", 80))],
)
def test_addresses_of_this_machine_are_taken(text: str, parsed: tuple[str, int]) -> None:
    assert parse_address(text) == parsed


@pytest.mark.parametrize(
    ("text", "word"), [("0.0.0.0:80", "serve"), ("x", "address"), ("127.0.0.1:99999", "address")]
)
def test_others_are_refused(text: str, word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        parse_address(text)


@pytest.fixture
def page(assets: Path) -> Iterator[WebSink]:
    """The page of a run that watches a clip at real pace."""
    clip = assets / "av/face_and_speech.mp4"
    config = load_config(settings=[f"source.input={clip}", "mode=live", "speech.backend=none"])
    sink = WebSink("127.0.0.1:0", version="1", notice="notice")
    engine = LiveEngine(config, sinks=[sink], encoders=Encoders(face=NoFace()))
    with engine:
        yield sink


@pytest.mark.assets
def test_any_number_of_pages_watch_and_control(page: WebSink) -> None:
    server = page.url.rstrip("/")
    with EmiClient(server, "local") as one, EmiClient(server, "local", viewer=True) as two:
        assert first(one, Hello).role == "controller"
        assert first(two, Hello).role == "viewer"
        for client in (one, two):
            first(client, EstimateEvent)
        one.command("pause")
        while first(two, StateEvent).state != "paused":
            continue
        one.command("end")
        assert "terminal" in first(two, WarningEvent).text
    with pytest.raises(SourceError, match="emi serve"):
        EmiClient.open(server)


@pytest.mark.assets
def test_pictures_go_to_pages_that_want_them(page: WebSink) -> None:
    url = page.url.replace("http", "ws") + "v1/sessions/local?role=viewer&pictures=1"
    with connect(url, proxy=None) as client:
        while not isinstance(message := client.recv(PATIENCE_S), bytes):
            continue
    picture = unpack_media(message)
    assert picture.kind == PICTURE
    assert 1000 < len(picture.payload) < 100_000


@pytest.mark.assets
def test_pages_are_told_when_it_is_over(page: WebSink) -> None:
    with EmiClient(page.url.rstrip("/"), "local") as client:
        first(client, EstimateEvent)
        page.close()
        assert "ended" in first(client, Bye).reason
