"""ROS 2: what another participant of DDS reads. No ROS 2 is installed here, and none is tried."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from emi_live.errors import ConfigurationError
from emi_live.ros2 import FIELDS, LOCAL, dds_name, fields, messages, type_hash
from emi_live.sinks.peers import open_peer
from emi_models import EMOTIONS
from tests.support.peers import show

pytestmark = pytest.mark.slow

DOMAIN = 77
PACKAGE = Path(__file__).parents[4] / "integrations/ros2/emi_msgs"
# https://github.com/ros4hri/hri_msgs, branch humble-devel, commit of 2024: fields of LiveSpeech.msg
LIVE_SPEECH = [
    ("std_msgs/Header", "header"),
    ("string", "incremental"),
    ("string", "final"),
    ("float64", "confidence"),
    ("string", "language"),
]
# A peer in a process of its own that knows the types by the names on the wire alone: it asks for what it
# finds announced, and takes the type from what was announced (XTypes), not from our code.
READER = f"""
import json, sys, time
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication
from cyclonedds.dynamic import get_types_for_typeid
from cyclonedds.qos import Policy, Qos
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration
domain = Domain({DOMAIN}, {LOCAL!r})
here = DomainParticipant({DOMAIN})
announced, readers, end = BuiltinDataReader(here, BuiltinTopicDcpsPublication), {{}}, time.monotonic() + 15
found = {{}}
while len(readers) < 2 and time.monotonic() < end:
    for one in announced.take(N=10):
        if one.topic_name.startswith("rt/") and one.topic_name not in readers:
            kind, _ = get_types_for_typeid(here, one.type_id, duration(seconds=5))
            profile = Qos(Policy.Reliability.BestEffort, Policy.History.KeepLast(100))
            readers[one.topic_name] = DataReader(here, Topic(here, one.topic_name, kind), profile)
            user = Policy.Userdata in one.qos and one.qos[Policy.Userdata].data.decode()
            found[one.topic_name] = dict(type=one.type_name, qos=str(one.qos), user=user, samples=[])
    time.sleep(0.02)
print("ready", flush=True)
sys.stdin.readline()
def plain(value):
    if hasattr(value, "__dataclass_fields__"):
        return {{name: plain(getattr(value, name)) for name in value.__dataclass_fields__}}
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value
for name, reader in readers.items():
    taken = [one for one in reader.take(N=1000) if hasattr(one, "__dataclass_fields__")]
    found[name]["samples"] = [plain(one) for one in taken]
print(json.dumps(found), flush=True)
"""


@pytest.fixture(scope="module")
def heard() -> tuple[dict[str, Any], Any]:
    import json

    with show([f"ros2:/robot/emotions?voice=v1&domain={DOMAIN}"]) as running:
        reader = subprocess.Popen(
            [sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
            running.wait_for(len(running.estimates) + 3)
            running.engine.mark("on")
            running.wait_for(len(running.estimates) + 10)
            told, _ = reader.communicate("\n", timeout=20)
        finally:
            reader.kill()
    return json.loads(told), running


def test_topics_and_types_have_the_names_of_ros_2(heard: tuple[dict[str, Any], Any]) -> None:
    found = heard[0]
    assert found["rt/robot/emotions"]["type"] == "emi_msgs::msg::dds_::EmotionIntensities_"
    assert found["rt/humans/voices/v1/speech"]["type"] == "hri_msgs::msg::dds_::LiveSpeech_"


def test_the_quality_of_service_is_that_of_sensor_data(heard: tuple[dict[str, Any], Any]) -> None:
    for topic in heard[0].values():
        assert "Policy.Reliability.BestEffort" in topic["qos"]
        assert "Policy.Durability.Volatile" in topic["qos"]


def test_the_hash_of_each_type_is_announced(heard: tuple[dict[str, Any], Any]) -> None:
    for topic, name in (
        ("rt/robot/emotions", "emi_msgs/EmotionIntensities"),
        ("rt/humans/voices/v1/speech", "hri_msgs/LiveSpeech"),
    ):
        assert heard[0][topic]["user"] == f"typehash={type_hash(name)};"


@pytest.mark.parametrize(
    ("name", "known"),
    [
        # Headers that ROS 2 Kilted generated, in hpmicro/hpm_sdk, middleware/microros/kilted/include
        ("builtin_interfaces/Time", "b106235e25a4c5ed35098aa0a61a3ee9c9b18d197f398b0e4206cea9acf9c197"),
        ("std_msgs/Header", "f49fb3ae2cf070f793645ff749683ac6b06203e41c891e17701b1cb597ce6a01"),
        # What `ros2 topic info -v` of Jazzy says of them
        ("sensor_msgs/Image", "d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47"),
        ("sensor_msgs/CompressedImage", "15640771531571185e2efc8a100baf923961a4d15d5569652e6cb6691e8e371a"),
        # A header generated from the package of ros-drivers
        ("audio_common_msgs/AudioData", "a9742fba1567e649bbdba6ae034a72c7ef129b97c7a4da50fd2f3e1bfd8ffa86"),
    ],
)
def test_hashes_are_those_that_ros_2_computed(name: str, known: str) -> None:
    assert type_hash(name) == f"RIHS01_{known}"


def test_a_reader_gets_the_estimates_stamped_by_their_capture_time(heard: tuple[dict[str, Any], Any]) -> None:
    samples, running = heard[0]["rt/robot/emotions"]["samples"], heard[1]
    sent = {estimate.seq: estimate for estimate in running.estimates}
    assert len(samples) >= 8
    offset_ns = time.time_ns() - time.monotonic_ns()
    for sample in samples:
        estimate = sent[sample["seq"]]
        stamp = sample["header"]["stamp"]
        assert stamp["sec"] * 10**9 + stamp["nanosec"] == pytest.approx(
            estimate.t_ns + offset_ns, abs=5_000_000, rel=0
        )
        assert sample["names"] == list(EMOTIONS)
        assert sample["intensities"] == pytest.approx(estimate.intensities, abs=1e-6)
        assert sample["vision_state"] == estimate.modalities["vision"].state
        assert sample["audio_used"] == estimate.modalities["audio"].used
        assert sample["session"] == estimate.session
        assert estimate.intervals is not None
        ends = [(math.nan, math.nan) if one is None else tuple(one) for one in estimate.intervals]
        assert sample["lows"] == pytest.approx([low for low, _ in ends], abs=1e-6, nan_ok=True)
        assert sample["highs"] == pytest.approx([high for _, high in ends], abs=1e-6, nan_ok=True)
    assert [label for sample in samples for label in sample["markers"]] == ["on"]
    facts = running.engine.health.snapshot().facts
    assert facts["clock.ros.offset_s"] == pytest.approx(offset_ns / 1e9, abs=0.01)


def test_words_are_live_speech(heard: tuple[dict[str, Any], Any]) -> None:
    samples = heard[0]["rt/humans/voices/v1/speech"]["samples"]
    final = [word for sample in samples for word in sample["final"].split()]
    assert [int(word.removeprefix("w")) for word in final] == list(
        range(int(final[0].removeprefix("w")), int(final[0].removeprefix("w")) + len(final))
    )
    assert len(final) >= 4
    assert {sample["language"] for sample in samples} == {"en"}
    assert all(sample["incremental"].startswith("w") for sample in samples)


def fields_of(path: Path) -> list[tuple[str, str]]:
    """Type and name of each field of a .msg file."""
    lines = (line.partition("#")[0].split() for line in path.read_text(encoding="utf-8").splitlines())
    return [(line[0], line[1]) for line in lines if line]


def test_the_types_equal_the_msg_files() -> None:
    assert fields("emi_msgs/EmotionIntensities") == fields_of(PACKAGE / "msg/EmotionIntensities.msg")
    assert fields("hri_msgs/LiveSpeech") == LIVE_SPEECH
    for name in FIELDS:
        assert list(messages()[name].__annotations__) == [field for _, field in fields(name)]


def test_the_package_names_its_message() -> None:
    assert '"msg/EmotionIntensities.msg"' in (PACKAGE / "CMakeLists.txt").read_text(encoding="utf-8")
    assert "<name>emi_msgs</name>" in (PACKAGE / "package.xml").read_text(encoding="utf-8")
    assert dds_name("/emi/estimate") == "rt/emi/estimate"


@pytest.mark.parametrize(
    "address", ["emi", "/emi/", "/1a", "//a", "/a__b", "/a-b", "/a?domain=233", "/a?domain=x", "/a?voice=a b"]
)
def test_an_invalid_name_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="ros2:"):
        open_peer(f"ros2:{address}")
