from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from emi_models.errors import ModelIntegrityError, ModelUnavailableError
from emi_models.store import ModelFile
from emi_models.store.downloads import CHUNK, Download, address

if TYPE_CHECKING:
    from pathlib import Path

    from tests.models.store.conftest import Answer, Hub

CONTENT = bytes(range(256)) * 5000  # 1.28 MB: several chunks
WHOLE_CHUNKS = 700_000 // CHUNK * CHUNK  # what is kept when 700,000 bytes arrive


class Bench:
    """One download to a folder, with what it reported and how long it paused."""

    def __init__(self, hub: Hub, folder: Path, content: bytes = CONTENT, timeout_s: float = 10.0) -> None:
        self.hub = hub
        self.target = folder / "weights.bin"
        self.part = folder / "weights.bin.part"
        self.reports: list[tuple[int, str]] = []
        self.pauses: list[float] = []
        pin = hub.file("repo/weights.bin", content)
        self.download = Download(pin.url, pin, self.target, self.report, self.pauses.append, timeout_s)

    def report(self, done: int, note: str) -> None:
        self.reports.append((done, note))

    @property
    def notes(self) -> str:
        return " | ".join(note for _, note in self.reports if note)

    @property
    def ranges(self) -> list[str | None]:
        return [span for _, span in self.hub.requests]


@pytest.fixture
def bench(hub: Hub, tmp_path: Path) -> Bench:
    return Bench(hub, tmp_path)


def test_a_file_arrives_whole_and_leaves_nothing_else(bench: Bench) -> None:
    bench.download.run()
    assert bench.target.read_bytes() == CONTENT
    assert os.listdir(bench.target.parent) == ["weights.bin"]
    done = [count for count, _ in bench.reports]
    assert done == sorted(done)
    assert done[-1] == len(CONTENT)


def test_a_cut_connection_is_resumed_where_it_stopped(bench: Bench, answer: type[Answer]) -> None:
    bench.hub.faults.append(answer(only=700_000))
    bench.download.run()
    assert bench.target.read_bytes() == CONTENT
    assert bench.ranges == [None, f"bytes={WHOLE_CHUNKS}-"]
    assert bench.pauses == [1.0]
    assert f"ended after {WHOLE_CHUNKS} of 1280000 bytes; trying again" in bench.notes


def test_the_part_of_an_earlier_run_is_used(bench: Bench) -> None:
    bench.part.write_bytes(CONTENT[:1000])
    bench.download.run()
    assert bench.target.read_bytes() == CONTENT
    assert bench.ranges == ["bytes=1000-"]
    assert bench.reports[0] == (1000, "")


def test_a_part_that_is_already_whole_needs_no_server(bench: Bench) -> None:
    bench.part.write_bytes(CONTENT)
    bench.download.run()
    assert bench.target.read_bytes() == CONTENT
    assert bench.ranges == []


@pytest.mark.parametrize("stale", [b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)])
def test_a_part_of_something_else_is_thrown_away(bench: Bench, stale: bytes) -> None:
    bench.part.write_bytes(stale)
    bench.download.run()
    assert bench.target.read_bytes() == CONTENT
    assert bench.ranges[-1] is None


def test_a_server_that_cannot_resume_starts_over(bench: Bench, answer: type[Answer]) -> None:
    bench.part.write_bytes(CONTENT[:1000])
    bench.hub.faults.append(answer(ranges=False))
    bench.download.run()
    assert bench.target.read_bytes() == CONTENT
    assert bench.ranges == ["bytes=1000-"]


def test_a_server_that_resumes_elsewhere_is_not_believed(bench: Bench, answer: type[Answer]) -> None:
    bench.part.write_bytes(CONTENT[:1000])
    bench.hub.faults.append(answer(shift=5))
    bench.download.run()
    assert bench.target.read_bytes() == CONTENT
    assert "resumed at another place" in bench.notes


def test_a_busy_server_is_asked_three_times_with_growing_pauses(bench: Bench, answer: type[Answer]) -> None:
    bench.hub.faults.extend(answer(status=503) for _ in range(3))
    with pytest.raises(ModelUnavailableError, match=r"503 .*\(3 attempts\)") as caught:
        bench.download.run()
    assert bench.pauses == [1.0, 4.0]
    assert len(bench.ranges) == 3
    assert str(bench.target) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_attempts_that_bring_a_megabyte_do_not_count_against_it(
    hub: Hub, tmp_path: Path, answer: type[Answer]
) -> None:
    content = CONTENT * 6
    bench = Bench(hub, tmp_path, content)
    hub.faults.extend(answer(only=1 << 20) for _ in range(6))
    bench.download.run()
    assert bench.target.read_bytes() == content
    assert bench.pauses == [1.0] * 6


@pytest.mark.parametrize("elsewhere", ["file:///etc/hostname", "ftp://127.0.0.1:9/f"])
def test_a_redirect_to_another_scheme_is_refused(bench: Bench, answer: type[Answer], elsewhere: str) -> None:
    bench.hub.faults.append(answer(location=elsewhere))
    with pytest.raises(ModelUnavailableError, match="weights"):
        bench.download.run()
    assert bench.pauses == []
    assert os.listdir(bench.target.parent) == []


def test_a_redirect_within_the_web_is_followed_with_the_range(bench: Bench, answer: type[Answer]) -> None:
    bench.part.write_bytes(CONTENT[:1000])
    bench.hub.faults.append(answer(location=bench.download.url))
    bench.download.run()
    assert bench.target.read_bytes() == CONTENT
    assert bench.ranges == ["bytes=1000-"] * 2


def test_no_password_is_sent(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    bench.download.run()
    assert bench.hub.authorizations == [None]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final(bench: Bench, answer: type[Answer], status: int) -> None:
    bench.hub.faults.append(answer(status=status))
    with pytest.raises(ModelUnavailableError, match=f"the server answered {status}"):
        bench.download.run()
    assert len(bench.ranges) == 1


def test_other_bytes_of_the_right_size_are_refused_and_not_kept(bench: Bench, answer: type[Answer]) -> None:
    bench.hub.faults.append(answer(body=CONTENT[::-1]))
    with pytest.raises(ModelIntegrityError, match="nothing was kept"):
        bench.download.run()
    assert os.listdir(bench.target.parent) == []


def test_a_log_in_page_is_refused_before_it_is_read(bench: Bench, answer: type[Answer]) -> None:
    bench.hub.faults.append(answer(body=b"<html>log in</html>"))
    with pytest.raises(ModelIntegrityError, match="19 bytes"):
        bench.download.run()
    assert not bench.target.exists()


def test_an_endless_answer_is_cut_off(bench: Bench, answer: type[Answer]) -> None:
    bench.hub.faults.append(answer(body=CONTENT * 2, length=False))
    with pytest.raises(ModelIntegrityError, match="more than 1280000"):
        bench.download.run()
    assert not bench.part.exists()


def test_a_silent_server_is_given_up_and_asked_again(hub: Hub, tmp_path: Path, answer: type[Answer]) -> None:
    bench = Bench(hub, tmp_path, timeout_s=0.2)
    hub.faults.append(answer(only=700_000, silent=True))
    bench.download.run()
    assert bench.target.read_bytes() == CONTENT
    assert bench.ranges[1] == f"bytes={WHOLE_CHUNKS}-"
    assert "the server fell silent; trying again" in bench.notes


def test_nobody_listens(bench: Bench) -> None:
    pin = bench.download.pin
    nobody = Download("http://127.0.0.1:9/f", pin, bench.target, bench.report, bench.pauses.append)
    with pytest.raises(ModelUnavailableError, match=r"Connection refused"):
        nobody.run()


def test_a_name_that_is_not_known_is_not_asked_again(bench: Bench) -> None:
    url = "http://host.invalid/f"
    with pytest.raises(ModelUnavailableError, match="no network"):
        Download(url, bench.download.pin, bench.target, bench.report, bench.pauses.append).run()
    assert bench.pauses == []
    assert os.listdir(bench.target.parent) == []


def test_an_interrupt_keeps_what_has_come(hub: Hub, tmp_path: Path) -> None:
    bench = Bench(hub, tmp_path)

    def interrupt(done: int, note: str) -> None:
        if done:
            raise KeyboardInterrupt

    pin = bench.download.pin
    with pytest.raises(KeyboardInterrupt):
        Download(pin.url, pin, bench.target, interrupt, bench.pauses.append).run()
    kept = bench.part.stat().st_size
    assert kept > 0
    bench.download.run()
    assert bench.target.read_bytes() == CONTENT
    assert bench.ranges[-1] == f"bytes={kept}-"


def test_a_full_disk_is_one_line(hub: Hub, tmp_path: Path) -> None:
    pin = hub.file("repo/weights.bin", CONTENT)
    script = f"""
import resource, signal
from pathlib import Path
from emi_models.errors import ModelUnavailableError
from emi_models.store import ModelFile
from emi_models.store.downloads import Download
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))  # stands for a disk that takes no more
pin = ModelFile({pin.path!r}, {pin.size}, {pin.sha256!r}, {pin.url!r})
try:
    target = Path({str(tmp_path / "weights.bin")!r})
    Download(pin.url, pin, target, lambda done, note: None, lambda s: None).run()
except ModelUnavailableError as error:
    print(error)
"""
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert re.fullmatch(
        r"cannot write .*weights\.bin\.part: File too large; make room .* EMI_MODEL_DIR\n", out
    )


HUB_FILE = ModelFile("f", 1, "0" * 64, "https://huggingface.co/org/name/resolve/abc/f")
OTHER_FILE = ModelFile("f", 1, "0" * 64, "https://storage.googleapis.com/bucket/f")


@pytest.mark.parametrize(
    ("environ", "hub_url", "other_url"),
    [
        ({}, HUB_FILE.url, OTHER_FILE.url),
        ({"HF_ENDPOINT": "https://hf.example/"}, "https://hf.example/org/name/resolve/abc/f", OTHER_FILE.url),
        (
            {"EMI_MODEL_MIRROR": "http://mirror:8000/m/", "HF_ENDPOINT": "https://hf.example"},
            "http://mirror:8000/m/org/name/resolve/abc/f",
            "http://mirror:8000/m/bucket/f",
        ),
    ],
)
def test_mirrors_take_the_place_of_hosts(environ: dict[str, str], hub_url: str, other_url: str) -> None:
    assert address(HUB_FILE, environ) == hub_url
    assert address(OTHER_FILE, environ) == other_url


@pytest.mark.parametrize("mirror", ["file:///etc", "ftp://host", "mirror.example", "http://"])
def test_a_mirror_that_is_no_web_address_is_refused(mirror: str) -> None:
    with pytest.raises(ModelUnavailableError, match="http://"):
        address(HUB_FILE, {"EMI_MODEL_MIRROR": mirror})
