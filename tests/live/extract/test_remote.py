"""Clips in object stores and on web servers: what is listed and fetched, and each failure in one line."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest

from emi_live.errors import ConfigurationError, SourceError
from emi_live.extract import remote
from emi_live.extract.folder import list_videos
from emi_live.extract.places import Place, in_manifest, in_store, local_copy, sweep_copies
from emi_live.scoring.run import find_clips
from emi_models.files import WriteError

fsspec = pytest.importorskip("fsspec")
fsspec = pytest.importorskip("fsspec")
aiohttp = pytest.importorskip("aiohttp")
CLIP = b"x" * 5000


class Server(BaseHTTPRequestHandler):
    """Files whose folder says what goes wrong with them."""

    protocol_version = "HTTP/1.0"

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/private") and self.headers.get("Authorization") != "Bearer t":
            self.send_error(403)
        elif path.startswith("/gone"):
            self.send_error(404)
        elif path.endswith("/"):
            page = b'<a href="a.mp4">a</a> <a href="b%20%C3%BC.mp4">b</a> <a href="notes.txt">n</a>'
            self.reply(page, page if body else b"")
        elif path.endswith("list.csv"):
            table = "id,path\nb,b ü.mp4\n".encode()
            self.reply(table, table if body else b"")
        else:
            part = CLIP[:100] if path.startswith(("/short", "/stall")) else CLIP
            self.reply(CLIP, part if body else b"")
            if body and path.startswith("/stall"):
                assert isinstance(self.server, Hosts)
                self.server.ended.wait(20)

    def reply(self, whole: bytes, part: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(whole)))
        self.send_header("Last-Modified", "Tue, 01 Sep 2026 10:00:00 GMT")
        self.end_headers()
        self.wfile.write(part)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


class Hosts(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Server)
        self.ended = threading.Event()


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with Hosts() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.ended.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def http_settings() -> Iterator[dict[str, object]]:
    """What a user says of web servers in fsspec's configuration."""
    from fsspec.config import conf

    settings = conf.setdefault("https", {})
    yield settings
    del conf["https"]


@pytest.fixture
def memory() -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    for name in ("c.mp4", "a/b.mp4", "a/7.mov", "a/.hidden.mp4", "odd # ü?&%20.mp4", "notes.txt", "../x.mp4"):
        fs.pipe(f"/clips/{name}", CLIP)
    yield "memory://clips"
    fs.rm("/", recursive=True)


def test_a_store_is_listed_with_all_folders_in_order(memory: str) -> None:
    counts: list[int] = []
    listing = list_videos(memory, counts.append)
    assert [video.id for video in listing.videos] == ["a__00007", "a__b", "c", "odd # ü?&%20"]
    assert counts == [1, 2, 3, 4, 5]
    assert all(video.size == len(CLIP) and video.mtime_ns > 0 for video in listing.videos)
    for video in listing.videos:
        with local_copy(video.path, video.size) as path:
            assert path.read_bytes() == CLIP
            assert path.suffix == Path(video.name).suffix
        assert not path.parent.exists()


def test_a_full_disk_is_not_the_clip_s_fault(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def get_file(*_: object, **__: object) -> None:
        raise RuntimeError("cannot copy") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    base = fsspec.get_filesystem_class("memory")
    full = type("Full", (base,), {"protocol": "full", "get_file": get_file})
    fsspec.register_implementation("full", full, clobber=True)
    with pytest.raises(WriteError, match=r"No space left on device; .*TMPDIR"), local_copy("full://c.mp4"):
        pass
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(WriteError, match="TMPDIR"), local_copy(f"{memory}/c.mp4"):
        pass


def test_one_object_is_a_listing_of_one(memory: str) -> None:
    assert [place.name for place in in_store(f"{memory}/c.mp4")] == ["c.mp4"]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("memory://none", "nothing is there; check the address"),
        ("memory://", "names no bucket or folder"),
        ("nonsense://b", "Protocol not known.*give a folder, a CSV"),
    ],
)
def test_what_cannot_be_listed_is_bad_use(url: str, why: str, memory: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        list_videos(url)


class NoCredentialsError(Exception):
    """As botocore's."""


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """A driver of `s3://` without keys, unless a test says so; for each that is opened, what `anon` was."""
    from fsspec.registry import _registry

    base = fsspec.get_filesystem_class("memory")
    opened: list[bool] = []

    class Store(base):  # type: ignore[misc, valid-type]
        protocol = "s3"
        keys = False
        cachable = False

        def __init__(self, anon: bool = False) -> None:
            super().__init__()
            self.anon = anon
            opened.append(anon)

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return f"/{path.removeprefix('s3://').strip('/')}"

        def info(self, path: str, **_: object) -> object:
            self.ask(path)
            return super().info(path)

        def ls(self, path: str, detail: bool = True, **_: object) -> object:
            self.ask(path)
            return super().ls(path, detail)

        def ask(self, path: str) -> None:
            if not (self.anon or self.keys):
                raise NoCredentialsError("Unable to locate credentials")
            if "private" in path and self.anon:
                raise PermissionError("Forbidden")

        def get_file(self, path: str, local: str, **_: object) -> None:
            self.ask(path)
            Path(local).write_bytes(self.cat_file(path))

    fsspec.register_implementation("s3", Store, clobber=True)
    fs = Store(anon=True)
    for name in ("public/clips/a.mp4", "private/clips/a.mp4"):
        fs.pipe(name, CLIP)
    monkeypatch.setattr(remote, "_without_keys", set())
    monkeypatch.setattr(remote, "_with_keys", set())
    opened.clear()
    yield opened
    fs.store.clear()
    _registry.pop("s3")


def test_a_public_bucket_needs_no_keys_and_that_is_said_once(
    bucket: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    (video,) = list_videos("s3://public/clips").videos
    with local_copy(video.path, video.size) as path:
        assert path.read_bytes() == CLIP
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == "no keys for s3:// are found here: it is read without, as is public"
    with pytest.raises(ConfigurationError, match=r"access is denied \(Forbidden\): set AWS_ACCESS_KEY_ID"):
        list_videos("s3://private/clips")


def test_where_there_are_keys_they_are_used(
    bucket: list[bool], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fsspec.get_filesystem_class("s3"), "keys", True)
    assert len(list_videos("s3://private/clips").videos) == 1
    assert not any(bucket)
    assert caplog.records == []


@pytest.mark.skipif(find_spec("s3fs") is not None, reason="s3fs is installed")
def test_a_driver_that_is_not_installed_is_named_with_its_command() -> None:
    with pytest.raises(ConfigurationError, match="s3://b/clips needs s3fs: pip install s3fs"):
        list_videos("s3://b/clips")


def test_a_web_page_is_listed_by_its_links(web: str) -> None:
    listing = list_videos(f"{web}/clips/")
    assert [(video.id, video.name) for video in listing.videos] == [("a", "a.mp4"), ("b ü", "b ü.mp4")]
    assert listing.others == {".txt": 1}
    assert listing.videos[0].mtime_ns > 0  # of the date, as a server without tags gives it


def test_an_object_that_comes_in_part_is_refused(web: str) -> None:
    with (
        pytest.raises(SourceError, match="broke off; the same command tries again"),
        local_copy(f"{web}/short/a.mp4"),
    ):
        pass
    with pytest.raises(SourceError, match="5000 of 6000 bytes came"), local_copy(f"{web}/a.mp4", 6000):
        pass


def test_a_server_that_stalls_is_given_up(web: str, http_settings: dict[str, object]) -> None:
    http_settings["client_kwargs"] = {"timeout": aiohttp.ClientTimeout(sock_read=0.1)}
    with pytest.raises(SourceError, match="does not answer in time"), local_copy(f"{web}/stall/a.mp4"):
        pass
    assert not list(Path(tempfile.gettempdir()).glob("emi-clip-*/a.mp4"))


def test_a_private_address_says_how_to_log_in_and_takes_it(
    web: str, http_settings: dict[str, object]
) -> None:
    with (
        pytest.raises(SourceError, match=r"access is denied: .*FSSPEC_HTTPS"),
        local_copy(f"{web}/private/a.mp4"),
    ):
        pass
    http_settings["headers"] = {"Authorization": "Bearer t"}
    with local_copy(f"{web}/private/a.mp4") as path:
        assert path.read_bytes() == CLIP


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_manifest_mixes_files_and_urls_and_tells_what_is_wrong(
    web: str, memory: str, tmp_path: Path
) -> None:
    (tmp_path / "local,1.mp4").write_bytes(CLIP)
    (tmp_path / "folder.mp4").mkdir()
    manifest = write(
        tmp_path / "clips.csv",
        "ID, Path",
        '1,"local,1.mp4"',
        f"signed,{web}/a.mp4?Signature=SECRET",
        f"ü §,{web}/b%20%C3%BC.mp4",
        f"store,{memory}/c.mp4",
        "two,local.mp4",
        f"gone,{web}/gone/a.mp4?Signature=SECRET",
        "nobody,http://127.0.0.1:1/a.mp4",
        "no path,",
        "folder,folder.mp4",
        f"store,{web}/other.mp4",
        f"again,{memory}/c.mp4",
        f"../up,{web}/up.mp4",
    )  # fmt: skip
    listing = list_videos(manifest)
    assert {video.id: video.name for video in listing.videos} == {
        "00001": "local,1.mp4",  # as tables of ratings write it
        "signed": "a.mp4",
        "ü §": "b ü.mp4",
        "store": "c.mp4",
        "again": "c.mp4",
    }
    reasons = [reason for _, reason in listing.unusable]
    for part in (
        "No such file",
        "nothing is there; check the address",
        "nobody answers there",
        "has no path",
        "it is no file",
        "has the id store of c.mp4; give one of them another",
        "'../up' is not a valid clip id",
    ):
        assert sum(part in reason for reason in reasons) == 1, (part, reasons)
    assert listing.others == {}


def test_a_manifest_may_lie_in_a_store_beside_its_clips(memory: str) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/clips/lists/A.CSV", "id,path\nx,../c.mp4\ny,b # ü?&.mp4\nz,none.mp4\n".encode())
    fs.pipe("/clips/lists/b # ü?&.mp4", CLIP)
    for listing in (list_videos(f"{memory}/lists/A.CSV"), find_clips([f"{memory}/lists/A.CSV"])):
        assert {video.id: video.path.rpartition("/")[2] for video in listing.videos} == {
            "x": "c.mp4",
            "y": "b # ü?&.mp4",
        }
        ((name, reason),) = listing.unusable
        assert (name, "nothing is there" in reason) == ("none.mp4", True)
        for video in listing.videos:
            with local_copy(video.path, video.size) as path:
                assert path.read_bytes() == CLIP
    with pytest.raises(ConfigurationError, match="nothing is there"):
        list_videos(f"{memory}/lists/none.csv")


def test_a_manifest_of_a_web_server_may_be_signed(web: str) -> None:
    listing = list_videos(f"{web}/list.csv?Signature=SECRET")
    assert {video.id: video.path for video in listing.videos} == {"b": f"{web}/b%20%C3%BC.mp4"}


def test_the_same_file_twice_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(CLIP)
    listing = list_videos(write(tmp_path / "clips.csv", "path", "a.mp4", "a.mp4"))
    assert listing.unusable == [("a.mp4", "is listed twice, as a")]


def test_an_id_of_a_manifest_does_not_lead_out_of_the_folder_of_scores(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(CLIP)
    listing = find_clips([str(write(tmp_path / "clips.csv", "id,path", "../../up,a.mp4", "b,a.mp4"))])
    assert [video.id for video in listing.videos] == ["b"]
    assert "'../../up' is not a valid clip id" in listing.unusable[0][1]


def test_a_manifest_keeps_its_order_and_has_no_limit(tmp_path: Path) -> None:
    names = [f"{number}.mp4" for number in range(300, 0, -1)]
    for name in names:
        (tmp_path / name).touch()
    places = list(in_manifest(str(write(tmp_path / "clips.csv", "path", *names)), []))
    assert [place.name for place in places] == names
    assert isinstance(places[0], Place)


def test_copies_of_killed_processes_are_removed_and_others_stay(web: str) -> None:
    left = Path(tempfile.mkdtemp(prefix="emi-clip-"))
    (left / "a.mp4").touch()
    (left / ".in-use").touch()
    with local_copy(f"{web}/a.mp4") as path:
        for folder in (left, path.parent):
            os.utime(folder, (0, 0))
        sweep_copies()
        assert not left.exists()
        assert path.exists()
