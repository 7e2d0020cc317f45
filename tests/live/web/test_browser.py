"""The page in a real Chromium: a film is its camera, a recording its microphone.

With EMI_SCREENSHOTS=FOLDER the pictures of docs/web.md are made there.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from emi_live import EMOTIONS, LiveConfig, LiveEngine
from emi_live.bundle.base import Encoders
from tests.live.web.conftest import Served, TwoFaces, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.assets]

CLIP: Final = "av/face_and_speech.mp4"
CLIP_S: Final = 11
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
    """Chromium, which grants the camera without a question."""
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


def open_page(browser: Browser, served: Served, **options: Any) -> Page:
    """The page, not started; errors of its scripts fail the test."""
    page = browser.new_context(accept_downloads=True, **options).new_page()
    page.set_default_timeout(PATIENCE_MS)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    page.problems = problems
    page.goto(served.url.replace("127.0.0.1", "localhost"))
    return page


def shoot(page: Page, name: str) -> None:
    if folder := os.environ.get("EMI_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def violations(page: Page) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['help']} {[node['html'] for node in one['nodes']]}" for one in found]


def test_from_consent_to_bars_words_and_files(
    browser: Browser, real: Served, assets: Path, film: Path, whisper_base: Path, tmp_path: Path
) -> None:
    page = open_page(browser, real, viewport={"width": 1280, "height": 800})
    assert not real.sessions.running, "the camera opens only after consent"
    assert "nobody else" in page.inner_text("#consent")
    assert not violations(page)
    shoot(page, "consent")
    page.click("#start")
    page.wait_for_selector("#live:not([hidden])")
    page.wait_for_selector("#modalities .live")
    page.keyboard.press("r")
    page.wait_for_selector("#words span:not(:empty)")
    page.keyboard.press("m")
    page.wait_for_timeout(1000 * CLIP_S)
    shoot(page, "wide")
    assert not violations(page)
    page.keyboard.press("r")
    with page.expect_download() as waited:
        page.click("#downloads a:first-of-type")
    waited.value.save_as(tmp_path / "page.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "page.jsonl").read_text().splitlines()]
    assert sum("marker" in line for line in lines) == 1
    assert "country" in page.inner_text("#words").lower()
    page.click("#stop")
    page.wait_for_selector("#consent:not([hidden])")
    assert page.problems == []
    page.context.close()

    whole = tmp_path / "film.mp4"
    media = ["-i", str(film / "film.y4m"), "-i", str(film / "film.wav")]
    subprocess.run(
        ["ffmpeg", "-loglevel", "error", *media, "-c:v", "mjpeg", "-q:v", "3", str(whole)], check=True
    )
    command = [
        str(Path(sys.executable).with_name("emi-live")),
        "--input",
        str(whole),
        "--no-ui",
        "--json",
        "-",
    ]
    command += ["--set", f"models.directory={whisper_base.parent}", "--set", "models.offline=true"]
    offline = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout
    expected = [json.loads(line)["intensities"] for line in offline.splitlines()]
    # The film is shown again and again, from an unknown place on: distributions are compared, not moments.
    for name in EMOTIONS:
        seen = statistics.median(line["intensities"][name] for line in lines)
        assert abs(seen - statistics.median(one[name] for one in expected)) <= 0.15, name


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
    shoot(page, "phone-dark")
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
        assert page.problems == []
        page.context.close()
