"""Camera to bar in the page: a light that goes on and off in the film of Chromium's camera, seen in a bar.

The server's encoder measures brightness, and the fusion engine computes every window and answers with the
newest one, so that the first bar shows the light. The page is asked when its camera captured each change, and
when the changed bar was painted. For figures, on a quiet machine:

    EMI_FLASH_S=120 pytest -s tests/live/web/test_flash.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from emi_bench.flash_beep import BRIGHT, DARK, EchoEngine, light_and_sound, make_code
from emi_engine.load import load_engine
from emi_live import LiveConfig, LiveEngine
from emi_live.bundle import bundle_of
from emi_live.web.rtc import use_addresses
from tests.live.web.conftest import serving
from tests.live.web.test_browser import chromium, open_page

pytestmark = [pytest.mark.slow]

SECONDS: Final = float(os.environ.get("EMI_FLASH_S", "4"))
# Without the variable it is only tested that this works.
TRANSPORTS: Final = ("websocket", "webrtc") if "EMI_FLASH_S" in os.environ else ("websocket",)
FRAMES_PER_S: Final = 30
SIZE: Final = (240, 320)
LATE_MS: Final = 400  # spans of light and dark are longer
FILM_S: Final = 20  # then it begins again

# What the page saw: [ms of performance.now(), light or not], of its camera and of its first bar.
WATCH: Final = """() => {
    const video = document.querySelector("#video"), fill = document.querySelector(".emotion .bar i");
    const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    window.seen = { camera: [], bar: [] };
    const note = (list, ms, on) => { if (list.at(-1)?.[1] !== on) list.push([ms, on]); };
    const look = (now, frame) => {
        context.drawImage(video, 0, 0, 1, 1);
        note(window.seen.camera, frame.captureTime ?? now, context.getImageData(0, 0, 1, 1).data[0] > 127);
        video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);
    new MutationObserver(() => {
        const on = parseFloat(fill.style.transform.slice(7)) > 0.5;
        requestAnimationFrame(() => requestAnimationFrame((now) => note(window.seen.bar, now, on)));
    }).observe(fill, { attributes: true });
}"""


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A light that goes on and off, and silence."""
    folder = tmp_path_factory.mktemp("flash")
    times_ns = np.arange(FILM_S * FRAMES_PER_S) * (10**9 // FRAMES_PER_S)
    on = make_code(0, FILM_S, hop_s=0.25).on_at(times_ns)
    planes = [np.full(SIZE[0] * SIZE[1] * 3 // 2, 128, np.uint8) for _ in range(2)]
    for plane, level in zip(planes, (DARK, BRIGHT), strict=True):
        plane[: SIZE[0] * SIZE[1]] = level
    with (folder / "film.y4m").open("wb") as file:
        file.write(f"YUV4MPEG2 W{SIZE[1]} H{SIZE[0]} F{FRAMES_PER_S}:1 Ip A1:1 C420jpeg\n".encode())
        for light in on:
            file.write(b"FRAME\n" + planes[int(light)].tobytes())
    silence = ["-f", "lavfi", "-i", "anullsrc=r=48000:cl=mono", "-t", str(FILM_S)]
    subprocess.run(["ffmpeg", "-loglevel", "error", *silence, str(folder / "film.wav")], check=True)
    return folder


def echoing(config: LiveConfig) -> LiveEngine:
    """An engine whose first value is the light of the newest picture."""
    engine = EchoEngine(load_engine(bundle_of(config).packaged_checkpoint(), "auto"))
    return LiveEngine(config, engine=engine, encoders=light_and_sound())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_flash_before_the_camera_is_seen_in_the_bar(
    film: Path, transport: str, capsys: pytest.CaptureFixture[str]
) -> None:
    use_addresses(loopback=True)
    settings = ("fusion.smooth_s=0",)
    with serving(make_engine=echoing, settings=settings) as served, chromium(film) as browser:
        page = open_page(browser, served, wishes=f"#transport={transport}")
        page.click("#start")
        page.wait_for_selector("#modalities .live")
        page.evaluate(WATCH)
        page.wait_for_timeout(1000 * SECONDS)
        assert page.inner_text("#warning") == ""
        seen = page.evaluate("window.seen")
        page.context.close()
    delays_ms = delays(seen["camera"], seen["bar"])
    flashes = len(seen["camera"]) - 3
    assert len(delays_ms) >= 0.7 * flashes > 0, "the bar shows nearly every change"
    p50, p95 = np.percentile(delays_ms, [50, 95])
    with capsys.disabled():
        sys.stdout.write(
            f"\ncamera to bar, {transport}: p50 {p50:.0f} ms, p95 {p95:.0f} ms, n {len(delays_ms)}\n"
        )
    assert 0 < p50 < 2000


def delays(camera: list[Any], bar: list[Any]) -> list[float]:
    """From each change before the camera to the first change of the bar to the same, if there is one soon."""
    found = []
    for (ms, on), (next_ms, _) in pairwise(camera[1:]):
        shown = [at for at, to in bar if to == on and ms < at < next_ms + LATE_MS]
        if shown:
            found.append(shown[0] - ms)
    return found
