"""The page in a real Chromium: a film is its camera, a recording its microphone.

With EMI_SCREENSHOTS=docs the pictures of docs/web.md are made anew.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from emi_live import EMOTIONS, LiveConfig, LiveEngine
from emi_live.bundle.base import Encoders
from emi_live.web.access import Access
from emi_live.web.rtc import use_addresses
from emi_live.web.sessions import Session, Tickets
from tests.live.web.conftest import Served, TwoFaces, serving
from tests.support.rtc_peer import mute
from tests.support.web import Door

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from emi_live.messages import Estimate

pytestmark = [pytest.mark.slow, pytest.mark.assets]

CLIP: Final = "av/face_and_speech.mp4"
CLIP_S: Final = 11
COMPARED_S: Final = 4
VECTORS: Final = json.loads((Path(__file__).parent / "vectors.json").read_text())
PATIENCE_MS: Final = 60_000


@pytest.fixture(scope="module")
def film(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip as Chromium's fake camera and microphone want it."""
    folder = tmp_path_factory.mktemp("film")
    ffmpeg = ["ffmpeg", "-loglevel", "error", "-i", str(assets / CLIP)]
    size = "scale=480:360:force_original_aspect_ratio=decrease,pad=480:360:-1:-1,fps=15"
    subprocess.run([*ffmpeg, "-vf", size, "-pix_fmt", "yuv420p", str(folder / "film.y4m")], check=True)
    subprocess.run([*ffmpeg, "-ac", "1", "-ar", "48000", str(folder / "film.wav")], check=True)
    return folder


@pytest.fixture(scope="module")
def browser(film: Path) -> Iterator[Browser]:
    """Chromium, whose camera and microphone play the film."""
    with chromium(film) as running:
        yield running


@contextmanager
def chromium(film: Path) -> Iterator[Browser]:
    """Chromium, which grants the camera without a question: film.y4m and film.wav of a folder."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        message = "the page is tested in Debian's Chromium: sudo apt install chromium"
        if os.environ.get("EMI_REQUIRE_DEVICES"):
            pytest.fail(message)
        pytest.skip(message)
    arguments = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={film / 'film.y4m'}",
        f"--use-file-for-fake-audio-capture={film / 'film.wav'}",
        "--no-sandbox",  # CI runs as root
    ]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=arguments)
        yield running
        running.close()


@pytest.fixture(scope="module")
def real(whisper_base: Path) -> Iterator[Served]:
    """A server with the real models."""
    settings = (f"models.directory={whisper_base.parent}", "models.offline=true", "fusion.contributions=true")
    with serving(make_engine=LiveEngine, settings=settings, most=3, comeback_s=4.0) as served:
        served.sessions.prepare()
        yield served


def two_faces(config: LiveConfig) -> LiveEngine:
    """An engine that sees two faces in every picture."""
    return LiveEngine(config, encoders=Encoders(face=TwoFaces()))


def open_page(browser: Browser, served: Served, wishes: str = "", **options: Any) -> Page:
    """The page, not started; errors of its scripts fail the test. `wishes` come after its address."""
    page = browser.new_context(accept_downloads=True, **options).new_page()
    page.set_default_timeout(PATIENCE_MS)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    page.problems = problems
    page.goto(served.url.replace("127.0.0.1", "localhost") + "/" + wishes)
    return page


def shoot(page: Page, name: str) -> None:
    """Make a picture for the docs, in which the points of a face stand for the person of the film."""
    if folder := os.environ.get("EMI_SCREENSHOTS"):
        page.keyboard.press("l")
        page.wait_for_selector("#landmarks:not([hidden])")
        page.evaluate("""() => {
            document.querySelector("#video").style.visibility = "hidden";
            document.activeElement.blur();
        }""")
        page.wait_for_timeout(400)
        page.screenshot(path=Path(folder) / f"web-{name}.png")
        page.keyboard.press("l")


def violations(page: Page) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['help']} {[node['html'] for node in one['nodes']]}" for one in found]


def test_from_consent_to_bars_words_and_files(browser: Browser, real: Served, tmp_path: Path) -> None:
    page = open_page(browser, real, viewport={"width": 1280, "height": 800})
    assert not real.sessions.running, "the camera opens only after consent"
    assert "nobody else" in page.inner_text("#consent")
    assert not violations(page)
    page.click("#start")
    page.wait_for_selector("#live:not([hidden])")
    page.wait_for_selector("#modalities .live")
    page.keyboard.press("r")
    page.wait_for_selector("#words span:not(:empty)")
    page.keyboard.press("m")
    page.wait_for_timeout(1000 * CLIP_S)
    shoot(page, "wide")
    page.emulate_media(color_scheme="dark")
    shoot(page, "dark")
    assert not violations(page)
    page.keyboard.press("r")
    with page.expect_download() as waited:
        page.click("#downloads a:first-of-type")
    waited.value.save_as(tmp_path / "page.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "page.jsonl").read_text().splitlines()]
    assert list(lines[0]["intensities"]) == list(EMOTIONS)
    assert sum("marker" in line for line in lines) == 1
    assert "country" in page.inner_text("#words").lower()
    page.click("#stop")
    page.wait_for_selector("#consent:not([hidden])")
    assert page.problems == []
    page.context.close()


def test_on_a_phone_in_the_dark(browser: Browser, real: Served) -> None:
    page = open_page(
        browser,
        real,
        viewport={"width": 390, "height": 844},
        color_scheme="dark",
        device_scale_factor=2,
        reduced_motion="reduce",
    )
    page.click("#start")
    page.wait_for_selector("#modalities .live")
    page.wait_for_timeout(6000)
    shoot(page, "phone")
    assert not violations(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.click("#stop")
    page.wait_for_selector("#consent:not([hidden])")
    page.context.close()


def test_a_cut_network_comes_back_and_a_closed_tab_ends_its_session(browser: Browser, real: Served) -> None:
    page, other = open_page(browser, real), open_page(browser, real)
    for tab in (page, other):
        tab.click("#start")
        tab.wait_for_selector("#modalities .live")
    assert real.ask(lambda: len(real.sessions.running)) == 2
    for tab in (page, other):  # the page may be back before a test looks
        tab.evaluate(
            """() => {
                const status = document.querySelector("#status");
                const lost = () => status.textContent.includes("lost");
                const look = () => { if (lost()) document.body.id = "was-lost"; };
                new MutationObserver(look).observe(status, { childList: true });
            }"""
        )
    real.cut()
    for tab in (page, other):
        tab.locator("body#was-lost").wait_for()
        tab.locator("#status.running").wait_for()
        tab.wait_for_selector("#modalities .live")
    page.close()
    other.wait_for_timeout(1500)
    assert "live" in other.inner_text("#status")
    other.context.close()
    while real.ask(lambda: len(real.sessions.running)):
        pass


@pytest.mark.parametrize("transport", ["websocket", "webrtc"])
def test_the_page_says_that_nothing_comes_while_all_is_connected(browser: Browser, transport: str) -> None:
    use_addresses(loopback=True)
    with serving(most=1, make_engine=two_faces) as served:
        page = open_page(browser, served, wishes=f"#transport={transport}")
        page.click("#start")
        page.wait_for_selector("#modalities .live")
        go_on = threading.Event()
        served.loop.call_soon_threadsafe(go_on.wait, 20)  # nothing is sent, and nothing hangs up
        page.locator("#status.trouble").wait_for()
        assert "nothing comes" in page.inner_text("#status")
        go_on.set()
        page.locator("#status.running").wait_for()
        page.click("#stop")
        page.wait_for_selector("#consent:not([hidden])")


def test_without_permission_the_page_says_what_to_do(browser: Browser, served: Served) -> None:
    page = browser.new_page()
    page.add_init_script(
        "navigator.mediaDevices.getUserMedia = async () => "
        "{ throw new DOMException('no', 'NotAllowedError'); };"
    )
    page.goto(served.url.replace("127.0.0.1", "localhost"))
    page.click("#start")
    page.wait_for_selector("#problem:not([hidden])")
    assert "Allow" in page.inner_text("#problem")
    assert page.is_enabled("#start")
    page.close()


def test_where_the_browser_does_not_run_its_sound_the_page_says_so(browser: Browser, served: Served) -> None:
    """As Firefox does on a machine that has no sound output."""
    page = browser.new_page()
    page.add_init_script(
        """AudioContext.prototype.resume = () => new Promise(() => {});
        Object.defineProperty(BaseAudioContext.prototype, "state", { get: () => "suspended" });"""
    )
    page.goto(served.url.replace("127.0.0.1", "localhost"))
    page.click("#start")
    page.wait_for_selector("#problem:not([hidden])")
    assert "sound output" in page.inner_text("#problem")
    assert page.inner_text("#status") == "not started"
    page.check("#without-microphone")
    page.click("#start")
    page.locator("#status.running").wait_for()
    page.close()


def test_a_webrtc_connection_that_is_cut_comes_back(browser: Browser) -> None:
    use_addresses(loopback=True)
    with serving(most=1, make_engine=two_faces, comeback_s=10.0) as served:
        page = open_page(browser, served, wishes="#transport=webrtc")
        page.click("#start")
        page.wait_for_selector("#modalities .live")
        (session,) = served.sessions.running.values()
        (cut,) = session.at_end
        asyncio.run_coroutine_threadsafe(cut(), served.loop).result(30)
        page.locator("#status.trouble").wait_for()
        page.locator("#status.running").wait_for()
        assert list(served.sessions.running.values()) == [session], "the session goes on"
        before = session.counters["pictures"]
        while session.counters["pictures"] < before + 5:
            page.wait_for_timeout(50)
        assert page.inner_text("#warning") == ""
        page.click("#stop")
        page.wait_for_selector("#consent:not([hidden])")
        assert page.problems == []
        page.context.close()


def test_a_webrtc_connection_whose_server_is_gone_without_a_word_goes_to_another(browser: Browser) -> None:
    use_addresses(loopback=True)
    tickets = Tickets("one", b"for tests")
    with serving(most=1, make_engine=two_faces, tickets=tickets) as served:  # type: ignore[arg-type]
        page = open_page(browser, served, wishes="#transport=webrtc")
        asked: list[str] = []
        gone: list[Session] = []
        page.on("request", lambda request: asked.append(request.url))
        page.click("#start")
        page.wait_for_selector("#modalities .live")

        def become_another() -> None:
            """As after a kill: the peer gets nothing, not even a farewell, and the id is that of another."""
            ((name, session),) = served.sessions.running.items()
            (end,) = session.at_end
            mute(end.__self__._connection.sctp.transport.transport._connection)  # type: ignore[attr-defined]
            del served.sessions.running[name]
            gone.append(session)
            tickets.server = "two"

        served.ask(become_another)
        page.locator("#warning", has_text="moved to another server").wait_for()
        page.locator("#status.running").wait_for()
        ((name, session),) = served.sessions.running.items()
        assert name.startswith("two.")
        assert session.taken_over
        assert any("/latest" in url for url in asked), "the browser's own notice comes half a minute later"
        asyncio.run_coroutine_threadsafe(gone[0].close(), served.loop).result(20)  # no server has it any more
        page.click("#stop")
        page.wait_for_selector("#consent:not([hidden])")
        page.context.close()


def test_a_page_whose_server_is_lost_without_a_word_goes_to_another_within_five_seconds(
    browser: Browser,
) -> None:
    with (
        serving(most=1, make_engine=two_faces, tickets=Tickets("one", b"for tests")) as one,  # type: ignore[arg-type]
        serving(most=1, make_engine=two_faces, tickets=Tickets("two", b"for tests")) as two,  # type: ignore[arg-type]
        Door(one.port) as door,
    ):
        page = open_page(browser, replace(one, url=door.url))
        page.click("#start")
        page.wait_for_selector("#modalities .live")
        page.click("#mute")
        page.locator("#mute[aria-pressed=true]").wait_for()
        door.lose(two.port)
        moved = page.locator("#warning", has_text="moved to another server")
        moved.wait_for()
        assert float(moved.inner_text().rpartition(": ")[2].split()[0]) <= 5.0
        page.locator("#status.running").wait_for()
        ((name, session),) = two.sessions.running.items()
        assert name.startswith("two.")
        assert session.taken_over
        page.locator("#mute[aria-pressed=true]").wait_for()
        assert session._engine.muted
        page.click("#stop")
        page.wait_for_selector("#consent:not([hidden])")
        page.context.close()


def test_emi_js_goes_to_the_next_address_where_one_does_not_answer(browser: Browser) -> None:
    """Its server still holds the old connection, and takes it as the source again."""
    with Door() as door, serving(Access(origins=frozenset({door.url})), two_faces, most=1) as served:
        door.port = served.port
        page = browser.new_context(bypass_csp=True).new_page()  # our own pages know one address
        page.goto(door.url + "/example.html")
        assert page.evaluate(SEVERAL_ADDRESSES, [door.url, served.url]) == "source"
        (session,) = served.sessions.running.values()
        old = session.source
        door.lose(None)
        assert page.evaluate("() => window.again") == "source"
        assert session.source not in (None, old)
        page.evaluate("() => window.session.close()")
        page.context.close()


SEVERAL_ADDRESSES = """async (server) => {
    const { EmiSession } = await import("/emi.js");
    const session = window.session = await EmiSession.open({ server });
    const connected = () => new Promise((done) => {
        session.addEventListener("hello", ({ detail }) => {
            session.addEventListener("estimate", () => done(detail.role), { once: true });
        }, { once: true });
    });
    const role = await connected();
    window.again = connected();
    return role;
}"""


@pytest.mark.parametrize("fault", ["not installed", "does not connect"])
def test_where_webrtc_does_not_work_the_page_says_so_and_uses_the_websocket(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    if fault == "not installed":
        monkeypatch.setattr("emi_live.web.server.find_spec", lambda name: None)
    else:
        monkeypatch.setattr("emi_live.web.sessions.OFFERS", 0)
    with serving(most=1, make_engine=two_faces) as served:
        page = browser.new_page()
        page.goto(served.url.replace("127.0.0.1", "localhost") + "/#transport=webrtc")
        page.click("#start")
        page.wait_for_selector("#modalities .live")
        assert "The WebSocket is used" in page.inner_text("#warning")
        assert served.ask(lambda: len(served.sessions.running)) == 1
        page.close()


def test_emi_js_packs_media_as_the_python_client_does(browser: Browser, served: Served) -> None:
    page = browser.new_page()
    page.goto(served.url.replace("127.0.0.1", "localhost"))
    packed = page.evaluate(
        """async (vectors) => {
            const { packMedia } = await import("/emi.js");
            const bytes = (hex) => Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
            const hex = (data) => [...data].map((byte) => byte.toString(16).padStart(2, "0")).join("");
            return vectors.map((one) => hex(packMedia(one.kind, one.t_ms, bytes(one.payload), one.rate_hz)));
        }""",
        VECTORS["media"],
    )
    assert packed == [one["message"] for one in VECTORS["media"]]
    page.close()


def test_sound_keeps_its_time_when_it_stalls_or_comes_in_a_burst(browser: Browser, served: Served) -> None:
    """The browser's sound does not count the time for which it stood still, as when a laptop slept."""
    page = browser.new_page()
    page.goto(served.url.replace("127.0.0.1", "localhost"))
    length, late = 40.0, 20.0
    # One message each 40 ms; sound stands still from 10 to 14 s; the page is busy from 30 to 34 s.
    now = [1000 + length * (i + 1) + late + (4000 if i >= 250 else 0) for i in range(1000)]
    now = [34_000 + 1000 + late if 30_000 <= at - 1000 - late < 34_000 else at for at in now]
    stamps = page.evaluate(
        """async (now) => {
            const { soundClock } = await import("/emi.js");
            const clock = soundClock();
            return now.map((at, i) => clock(40 * i, 40, at));
        }""",
        now,
    )
    true = [1000 + length * i + late + (4000 if i >= 250 else 0) for i in range(1000)]
    errors = np.abs(np.array(stamps) - true)
    assert errors[:250].max() < 10
    assert errors[250 + 125 :].max() < 25, "5 s after it stood still"
    page.close()


def test_the_example_of_fifteen_lines_shows_joy(browser: Browser, served: Served) -> None:
    page = browser.new_page()
    page.goto(served.url.replace("127.0.0.1", "localhost") + "/example.html")
    page.click("#start")
    page.locator("#joy", has_text="joy 0.").wait_for()
    page.close()


def test_a_click_or_a_key_on_a_face_has_it_followed(browser: Browser) -> None:
    with serving(make_engine=two_faces) as served:
        page = open_page(browser, served)
        page.click("#start")
        page.locator("#faces button").nth(1).wait_for()
        followed = page.locator("#faces button[aria-pressed=true]")
        layer, box = page.locator("#faces").bounding_box(), followed.bounding_box()
        middle = (box["x"] + box["width"] / 2 - layer["x"]) / layer["width"]
        assert middle == pytest.approx(1 - TwoFaces.BOXES[0].centre[0], abs=0.02), "as in a mirror"
        page.locator("#faces button[aria-pressed=false]").click()
        page.locator("#faces button:nth-of-type(2)[aria-pressed=true]").wait_for()
        page.locator("#faces button[aria-pressed=false]").focus()
        page.keyboard.press("Enter")
        page.locator("#faces button:nth-of-type(1)[aria-pressed=true]").wait_for()
        page.keyboard.press("l")
        page.locator("#landmarks:not([hidden])").wait_for()
        page.keyboard.press("l")
        page.locator("#landmarks").wait_for(state="hidden")
        assert not violations(page)
        page.click("#stop")
        page.wait_for_selector("#consent:not([hidden])")
        assert page.problems == []
        page.context.close()


@pytest.mark.parametrize("transport", ["websocket", "webrtc"])
@pytest.mark.alone
def test_the_page_shows_what_the_same_media_in_a_file_give(
    browser: Browser, whisper_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    # Words come at other moments than in a file, and files are not smoothed: both are left out here.
    settings = (f"models.directory={whisper_base.parent}", "models.offline=true", "speech.backend=none")
    sent = Sent(monkeypatch)
    use_addresses(loopback=True)
    with serving(make_engine=LiveEngine, settings=(*settings, "fusion.smooth_s=0"), comeback_s=1.0) as served:
        served.sessions.prepare()
        page = open_page(browser, served, wishes=f"#transport={transport}")
        page.click("#start")
        page.wait_for_selector("#modalities .live")
        page.keyboard.press("r")
        page.wait_for_timeout(1000 * COMPARED_S)
        page.keyboard.press("r")
        assert page.inner_text("#warning") == ""
        with page.expect_download() as waited:
            page.click("#downloads a:first-of-type")
        waited.value.save_as(tmp_path / "page.jsonl")
        assert page.problems == []
        page.context.close()
    lines = [json.loads(line) for line in (tmp_path / "page.jsonl").read_text().splitlines()]
    command = [str(Path(sys.executable).with_name("emi-live")), "--input", str(sent.write(tmp_path))]
    command += ["--no-ui", "--json", "-", *(part for one in settings for part in ("--set", one))]
    offline = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout
    expected = [json.loads(line) for line in offline.splitlines()]
    times_s = [line["t"] for line in expected]
    ends_s = [sent.ends_s[line["seq"]] for line in lines]
    assert len(ends_s) > 3 * COMPARED_S
    for name in EMOTIONS:
        shown = np.array([line["intensities"][name] for line in lines])
        given = np.interp(ends_s, times_s, [line["intensities"][name] for line in expected])
        assert np.median(np.abs(shown - given)) <= 0.05, name


class Sent:
    """Keeps what a session gets, and writes it into a file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pictures: list[tuple[int, NDArray[np.uint8]]] = []
        self._sound: list[tuple[int, int, NDArray[np.int16]]] = []
        self._ends_ns: dict[int, int] = {}
        picture, sound, tell = Session.push_picture, Session.push_sound, Session.tell_estimate

        def push_picture(session: Session, decode: Callable[[], Any], t_ns: int) -> None:
            self._pictures.append((t_ns, decode()))
            picture(session, decode, t_ns)

        def push_sound(session: Session, samples: Any, t_ns: int, rate_hz: int, length_ns: int) -> None:
            block = samples if isinstance(samples, np.ndarray) else samples.to_ndarray().reshape(-1, 2)[:, 0]
            self._sound.append((t_ns, rate_hz, block.copy()))
            sound(session, samples, t_ns, rate_hz, length_ns)

        def tell_estimate(session: Session, estimate: Estimate, end_ms: float | None) -> None:
            self._ends_ns[estimate.seq] = estimate.t_ns
            tell(session, estimate, end_ms)

        for name, stand_in in (
            ("push_picture", push_picture),
            ("push_sound", push_sound),
            ("tell_estimate", tell_estimate),
        ):
            monkeypatch.setattr(Session, name, stand_in)

    @property
    def ends_s(self) -> dict[int, float]:
        """The end of each estimate's window, in seconds of the file."""
        return {seq: (t_ns - self._first_ns) / 1e9 for seq, t_ns in self._ends_ns.items()}

    @property
    def _first_ns(self) -> int:
        return min(self._pictures[0][0], self._sound[0][0])

    def write(self, folder: Path) -> Path:
        """A file of all of it: pictures as JPEG of high quality, sound as it came."""
        path, rate_hz = folder / "sent.mkv", self._sound[0][1]
        height, width = self._pictures[0][1].shape[:2]
        with av.open(str(path), "w") as file:
            video = file.add_stream("mjpeg", rate=15, options={"q": "2"})
            video.width, video.height, video.pix_fmt = width, height, "yuvj420p"
            audio = file.add_stream("pcm_s16le", rate=rate_hz)
            audio.codec_context.layout = "mono"
            media: list[tuple[int, Any, NDArray[Any]]] = [
                (t, video, picture) for t, picture in self._pictures
            ]
            media += [(t_ns, audio, samples) for t_ns, _, samples in self._sound]
            for t_ns, stream, data in sorted(media, key=lambda one: one[0]):
                if stream is video:
                    done, jpeg = cv2.imencode(".jpg", data, [cv2.IMWRITE_JPEG_QUALITY, 95])
                    assert done
                    packet = av.Packet(jpeg.tobytes())
                else:
                    packet = av.Packet(data.tobytes())
                packet.stream, packet.time_base = stream, Fraction(1, 1000)
                packet.pts = packet.dts = round((t_ns - self._first_ns) / 1e6)
                file.mux(packet)
        return path
