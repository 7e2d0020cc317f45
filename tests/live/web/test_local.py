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
from emi_live.web.protocol import (
    PICTURE,
    Bye,
    EstimateEvent,
    FacesEvent,
    Hello,
    StateEvent,
    WarningEvent,
    unpack_media,
)
from tests.live.web.conftest import PATIENCE_S, NoFace, TwoFaces
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
def page(request: pytest.FixtureRequest, assets: Path) -> Iterator[WebSink]:
    """The page of a run that watches a clip at real pace; a parameter is the face encoder's class."""
    face = getattr(request, "param", NoFace)()
    clip = assets / "av/face_and_speech.mp4"
    config = load_config(settings=[f"source.input={clip}", "mode=live", "speech.backend=none"])
    sink = WebSink("127.0.0.1:0", version="1", notice="notice")
    engine = LiveEngine(config, sinks=[sink], encoders=Encoders(face=face))
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


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.parametrize("page", [TwoFaces], indirect=True)
def test_pages_see_where_faces_are_and_choose_one(page: WebSink) -> None:
    server = page.url.rstrip("/")
    with EmiClient(server, "local", faces=True) as one, EmiClient(server, "local") as other:
        seen = first(one, FacesEvent)
        assert seen.boxes == [(0.1, 0.2, 0.2, 0.3), (0.6, 0.2, 0.3, 0.4)]
        assert (seen.followed, seen.landmarks) == (0, None)
        one.command("follow", (0.75, 0.4))
        while first(one, FacesEvent).followed != 1:
            continue
        one.command("show_landmarks")
        while (points := first(one, FacesEvent).landmarks) is None:
            continue
        assert len(points) == 2 * 478
        assert points[:2] == [750, 400]
        one.command("hide_landmarks")
        while first(one, FacesEvent).landmarks is not None:
            continue
        assert not isinstance(other.receive(PATIENCE_S), FacesEvent)
        other.command("follow")
        while first(one, FacesEvent).followed != 0:
            continue
        for _ in range(5):
            assert not isinstance(other.receive(PATIENCE_S), FacesEvent), "it has not asked for them"


@pytest.mark.assets
def test_pages_are_told_when_it_is_over(page: WebSink) -> None:
    with EmiClient(page.url.rstrip("/"), "local") as client:
        first(client, EstimateEvent)
        page.close()
        assert "ended" in first(client, Bye).reason
