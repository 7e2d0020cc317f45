from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emi_live.bundle import bundle_of
from emi_live.cli.errors import run_app
from emi_live.cli.privacy import Fact, app, facts, models_wanted
from emi_live.config import LiveConfig, OutputConfig, RingConfig
from emi_live.errors import ConfigurationError
from emi_live.ports import make_pair
from emi_models.errors import ModelUnavailableError
from emi_models.libraries import SWITCHES
from emi_models.store import ModelStore


def told(picture: Path | None = None, demo: bool = False, **settings: Any) -> list[Fact]:
    return list(facts(LiveConfig.model_validate(settings), picture=picture, demo=demo))


def lines(found: list[Fact], kind: str) -> list[str]:
    return [f"{fact.what}: {fact.detail}" for fact in found if fact.kind == kind]


class AskedStore(ModelStore):
    """A store that has nothing, and remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__(offline=True)
        self.asked: list[str] = []

    def locate(self, name: str, progress: object = None) -> Path:
        self.asked.append(name)
        raise ModelUnavailableError(f"{name} is not here")


@pytest.mark.parametrize("bundle", ["compact", "taemi"])
def test_the_models_it_names_are_those_that_a_run_asks_for(bundle: str) -> None:
    speech = {"smaller_model": "tiny.en"}
    config = LiveConfig.model_validate({"bundle": bundle, "source": {"camera": 0}, "speech": speech})
    store = AskedStore()
    bundle_of(config).load(config, store, vision=True, audio=True, progress=None).close()
    # the smaller one is asked for once the larger one is there
    assert set(models_wanted(config, store)) - {"whisper-tiny.en"} == set(store.asked)


@pytest.mark.parametrize(
    ("settings", "left_out"),
    [
        ({"source": {"camera": 0, "mic": "none"}}, {"whisper-base", "all-minilm-l6-v2"}),
        ({"source": {"camera": 0}, "face": {"enabled": False}}, {"face-landmarker"}),
        ({"source": {"camera": 0}, "speech": {"backend": "none"}}, {"whisper-base", "all-minilm-l6-v2"}),
        ({"source": {"camera": 0}, "speech": {"backend": "pocketsphinx"}}, {"whisper-base"}),
    ],
)
def test_models_that_the_settings_leave_out_are_not_named(
    settings: dict[str, Any], left_out: set[str]
) -> None:
    everything = {"face-landmarker", "whisper-base", "all-minilm-l6-v2"}
    assert set(models_wanted(LiveConfig.model_validate(settings), AskedStore())) == everything - left_out


def test_every_source_and_output_appears(tmp_path: Path) -> None:
    found = told(
        source={"camera": 2, "mic": "Studio"},
        output={
            "json_path": str(tmp_path / "a.jsonl"),
            "publish": "tcp://127.0.0.1:5561",
            "web": "8765",
            "record": str(tmp_path / "c.mcap"),
        },
        bus={"transport": "tcp", "base_port": 6000},
        picture=tmp_path / "b.svg",
    )
    assert any("camera 2" in line for line in lines(found, "opens"))
    assert any("microphone Studio" in line for line in lines(found, "opens"))
    published, page, bus = lines(found, "sends")
    assert "pictures" in page
    assert "tcp://127.0.0.1:5561" in published
    assert "only this machine" in published
    assert "tcp://127.0.0.1:6000 to tcp://127.0.0.1:600" in bus
    for name in ("a.jsonl", "b.svg", "c.mcap", "this terminal", "verified.json"):
        assert any(name in line for line in lines(found, "writes")), name
    # a new output has to be told of here too; append and force say how a file is opened
    assert set(OutputConfig.model_fields) <= {
        *("json_path", "publish", "web", "ui", "append", "force", "to", "lan", "metrics", "marks"),
        *("record", "record_media"),
    }


@pytest.mark.parametrize("lan", [False, True])
def test_a_peer_appears_with_who_can_read_it(lan: bool) -> None:
    to = ["lsl:", "osc:127.0.0.1:9000"]
    lsl, osc, _ = lines(told(source={"camera": 0}, output={"to": to, "lan": lan}), "sends")
    for line, name in ((lsl, "lsl:"), (osc, "osc:127.0.0.1:9000")):
        assert name in line
        assert ("other machines can read it" in line) == lan
        assert ("only this machine" in line) == (not lan)
    assert ("open to others" in lsl) == (not lan)


@pytest.mark.parametrize("lan", [False, True])
def test_topics_of_ros_2_are_opened_and_nobody_is_contacted(lan: bool) -> None:
    found = told(source={"camera": "ros2:/image", "mic": "ros2:/audio"}, output={"lan": lan})
    opened = [line for line in lines(found, "opens") if "ros2:/" in line]
    assert [line.partition(" ")[0].rstrip(":") for line in opened] == ["ros2:/image", "ros2:/audio"]
    assert all(("the network" in line) == lan for line in opened)
    assert not [line for line in lines(found, "contacts") if "ros2" in line]


def test_recorded_media_are_named_and_no_longer_denied(tmp_path: Path) -> None:
    output = {"record": str(tmp_path / "c.mcap"), "record_media": True}
    found = told(source={"camera": 0}, output=output)
    (line,) = [line for line in lines(found, "writes") if "c.mcap" in line]
    assert "PICTURE AND SOUND" in line
    assert not [line for line in lines(found, "never") if "pictures and sound" in line]


def test_a_peer_that_writes_a_file_sends_nothing() -> None:
    found = told(source={"camera": 0}, output={"to": ["rerun:x.rrd"]})
    assert [line for line in lines(found, "writes") if "--to rerun:x.rrd" in line]
    assert not [line for line in lines(found, "sends") if "rerun" in line]


def test_nothing_is_asked_for_that_was_not() -> None:
    found = told(source={"input": "clip.mp4"}, output={"ui": False}, models={"offline": True})
    [opened, _] = lines(found, "opens")
    assert "clip.mp4" in opened
    written = "\n".join(lines(found, "writes"))
    assert not any(word in written for word in ("--json", "--picture", "terminal", "fetched"))


def test_a_model_that_is_not_here_is_fetched_from_its_host_unless_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMI_MODEL_MIRROR", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:s3cret@index.example/simple")
    models = {"directory": str(tmp_path)}
    fetched = lines(told(source={"camera": 0}, models=models), "contacts")
    assert any("https://index.example: once, to fetch face-landmarker: 3.3 MB" in line for line in fetched)
    assert "s3cret" not in str(fetched)
    second = "https://storage.googleapis.com: only if the package index fails"
    assert any(line.startswith(second) and "face-landmarker: 3.8 MB" in line for line in fetched)
    offline = lines(told(source={"camera": 0}, models={**models, "offline": True}), "contacts")
    assert all(line.startswith("nobody") for line in offline)
    monkeypatch.setenv("EMI_MODEL_MIRROR", "http://mirror.example:8080")
    mirrored = lines(told(source={"camera": 0}, models=models), "contacts")
    assert any("http://mirror.example" in line for line in mirrored)
    assert not any("index.example" in line for line in mirrored)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("rtsp://admin:s3cret@192.0.2.7/live", "looks up its name and connects to it"),
        ("http://127.0.0.1:8090/cam.mjpg", "on this machine"),
    ],
)
def test_a_network_camera_is_a_contact_and_its_password_is_not_shown(address: str, said: str) -> None:
    found = told(source={"camera": address, "mic": "none"})
    assert any(said in line for line in lines(found, "contacts"))
    assert "s3cret" not in str(found)


def test_keys_do_not_encrypt_a_bus_over_unix_sockets() -> None:
    keys = make_pair()
    pair = {"curve_public_key": keys.public.decode(), "curve_secret_key": keys.secret.decode()}
    [sends] = [line for line in lines(told(bus={"transport": "ipc", **pair}), "sends") if "Unix" in line]
    assert "CURVE" not in sends
    [sends] = [line for line in lines(told(bus={"transport": "tcp", **pair}), "sends") if "tcp" in line]
    assert "CURVE" in sends


def test_an_open_address_without_keys_is_refused_as_a_run_would() -> None:
    with pytest.raises(ConfigurationError, match="CURVE"):
        told(source={"camera": 0}, output={"publish": "tcp://0.0.0.0:5561"})


def test_what_is_kept_follows_the_settings() -> None:
    rings = RingConfig(audio_s=5, video_frames=3)
    kept = lines(told(source={"camera": 0}, rings=rings.model_dump()), "memory")
    assert any(line.startswith("sound: the last 5 s (0.3 MB)") for line in kept)
    assert any(line.startswith("pictures: the last 3,") for line in kept)
    demo = lines(told(demo=True), "memory")
    assert not any(line.startswith(("sound", "pictures")) for line in demo)


def test_the_switches_of_libraries_are_told_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    first, *_ = lines(told(demo=True), "telemetry")
    assert first.startswith("onnxruntime: ON")
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    shown = lines(told(demo=True), "telemetry")
    assert shown[0].startswith("onnxruntime: off")
    assert len(shown) == len(SWITCHES) + 4
    assert "litert" in shown[-4]
    assert shown[-3].startswith("pipecat-ai 1.")
    assert "import emi_live before it" in shown[-3]


def test_for_machines_it_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_app(app, ["--input", "clip.mp4", "--json", "-", "--as-json"], "emi privacy")
    assert end.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert {"kind": "opens", "what": "file clip.mp4"}.items() <= found[0].items()
    assert any(fact["what"] == "standard output (--json -)" for fact in found)


def test_a_server_opens_ports_on_its_own_address_and_asks_who_was_named() -> None:
    config = LiveConfig.model_validate({"face": {"enabled": False}, "speech": {"backend": "none"}})
    turn = "turn:me:secret@turn.example:3478"
    local = [(fact.kind, fact.what) for fact in facts(config, serve="127.0.0.1")]
    assert ("opens", "a UDP port on 127.0.0.1") in local
    assert ("contacts", "nobody") in local
    found = list(facts(config, serve="192.0.2.5", ice=["stun:stun.example:3478", turn]))
    assert ("opens", "a UDP port on each address of this machine") in [(f.kind, f.what) for f in found]
    asked = [fact.what for fact in found if fact.kind == "contacts"]
    assert asked[-2:] == ["stun.example:3478", "turn.example:3478"]
    assert "nobody" not in asked
    assert not any("secret" in fact.what + fact.detail for fact in found)


def test_a_server_on_ray_says_what_its_processes_send_each_other() -> None:
    config = LiveConfig()
    found = {(fact.kind, fact.what) for fact in facts(config, serve="127.0.0.1", cluster="auto")}
    assert ("opens", "Ray's ports on 127.0.0.1") in found
    assert ("telemetry", "ray") in found
    assert ("sends", "pictures, sound and messages") in found
    assert ("sends", "sound and windows") in found
    assert ("writes", "emi-tls-… in the temporary folder") in found
    assert ("contacts", "the head of Ray at 192.0.2.7:6379") in {
        (fact.kind, fact.what) for fact in facts(config, serve="192.0.2.5", cluster="192.0.2.7:6379")
    }


def test_clips_on_ray_may_come_from_elsewhere_and_are_copied() -> None:
    found = list(facts(LiveConfig(), cluster="auto"))
    (store,) = [line for line in lines(found, "contacts") if "clips at a URL" in line]
    assert "169.254.169.254" in store
    assert not [line for line in lines(found, "contacts") if line.startswith("nobody:")]
    assert [line for line in lines(found, "writes") if line.startswith("emi-clip-…")]
    assert not [line for line in lines(found, "writes") if "private key" in line]
