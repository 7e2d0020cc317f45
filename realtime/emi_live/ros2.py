"""Messages of ROS 2 on its own wire, DDS, without ROS: types, names, type hashes, and the participant.

Names: https://design.ros2.org/articles/topic_and_service_names.html. The topic `/emi/estimate` is
`rt/emi/estimate`, and `emi_msgs/msg/EmotionIntensities` is `emi_msgs::msg::dds_::EmotionIntensities_`.
Hashes: REP 2011, https://github.com/ros-infrastructure/rep/pull/358; ROS 2 announces them as user data of
writers and readers, from Iron on.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import types
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from emi_live.errors import ConfigurationError, LiveError

__all__ = [
    "FIELDS",
    "LOCAL",
    "Raw",
    "Ros2Error",
    "check_topic",
    "dds_name",
    "dds_type",
    "domain_of",
    "fields",
    "messages",
    "participant",
    "raw_message",
    "type_hash",
    "user_data",
]

NAME: Final = re.compile(r"(/[A-Za-z][A-Za-z0-9_]*)+")  # an absolute name; no repeated and no last slash
# Type and name of each field, as the .msg files have them. emi_msgs: integrations/ros2. hri_msgs: branch
# humble-devel. audio_common_msgs: that of ros-drivers. The others: ros2/common_interfaces.
FIELDS: Final[dict[str, str]] = {
    "builtin_interfaces/Time": "int32 sec, uint32 nanosec",
    "std_msgs/Header": "builtin_interfaces/Time stamp, string frame_id",
    "emi_msgs/EmotionIntensities": (
        "std_msgs/Header header, string[] names, float32[] intensities, float32[] lows, float32[] highs, "
        "bool vision_used, bool audio_used, bool text_used, "
        "string vision_state, string audio_state, string text_state, "
        "float32 vision_age, float32 audio_age, float32 text_age, "
        "uint64 seq, string session, string[] markers"
    ),
    "hri_msgs/LiveSpeech": (
        "std_msgs/Header header, string incremental, string final, float64 confidence, string language"
    ),
    "sensor_msgs/Image": (
        "std_msgs/Header header, uint32 height, uint32 width, string encoding, uint8 is_bigendian, "
        "uint32 step, uint8[] data"
    ),
    "sensor_msgs/CompressedImage": "std_msgs/Header header, string format, uint8[] data",
    "audio_common_msgs/AudioData": "uint8[] data",
    "audio_common_msgs/AudioDataStamped": "std_msgs/Header header, audio_common_msgs/AudioData audio",
}
# type_description_interfaces/msg/FieldType.msg
NESTED: Final = 1
TYPE_IDS: Final = {
    **{"uint8": 3, "int32": 6, "uint32": 7, "uint64": 9, "float32": 10, "float64": 11},
    **{"bool": 15, "string": 17},
}
SEQUENCE: Final = 144  # added to the id for a sequence without a bound
# A picture of 1280x720 has 2.8 MB and comes in pieces: the usual buffer, 1 MB at most, loses some of most.
BUFFER: Final = '<Internal><SocketReceiveBufferSize max="8MB"/></Internal>'
LAN: Final = f'<CycloneDDS><Domain Id="any">{BUFFER}</Domain></CycloneDDS>'
# Discovery on loopback, where multicast may not work: each participant asks the first 33 of this machine.
LOCAL: Final = f"""<CycloneDDS><Domain Id="any">
<General><Interfaces><NetworkInterface address="127.0.0.1"/></Interfaces>
<AllowMulticast>false</AllowMulticast></General>
<Discovery><ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>32</MaxAutoParticipantIndex>
<Peers><Peer address="127.0.0.1"/></Peers></Discovery>
{BUFFER}
</Domain></CycloneDDS>"""
_domains: dict[int, tuple[bool, Any]] = {}  # by id: whether it reaches other machines, and the domain


class Ros2Error(LiveError):
    """DDS does not do what is needed; the message says why."""


def dds_name(topic: str) -> str:
    """The topic of DDS for a topic of ROS 2."""
    return f"rt{topic}"


def dds_type(name: str) -> str:
    """The type's name on the wire: `std_msgs::msg::dds_::Header_` of `std_msgs/Header`."""
    package, _, plain = name.partition("/")
    return f"{package}::msg::dds_::{plain}_"


def check_topic(option: str, topic: str, example: str) -> None:
    """Check a topic's name.

    Raises:
        ConfigurationError: ROS 2 would refuse it.
    """
    if not NAME.fullmatch(topic) or "__" in topic or topic.endswith("_"):
        raise ConfigurationError(f"{option}: {topic} is no name of a topic, such as {example}")


def domain_of(option: str, text: str | None) -> int:
    """The number of a domain; None: that of ROS_DOMAIN_ID, or 0.

    Raises:
        ConfigurationError: it is none.
    """
    given = text or os.environ.get("ROS_DOMAIN_ID") or "0"
    if not given.isdecimal() or int(given) > 232:
        raise ConfigurationError(f"{option}: a domain is a number from 0 to 232")
    return int(given)


def fields(name: str) -> list[tuple[str, str]]:
    """Type and name of each field of a message."""
    found = []
    for field in FIELDS[name].split(", "):
        kind, _, plain = field.partition(" ")
        found.append((kind, plain))
    return found


@cache
def type_hash(name: str) -> str:
    """By what ROS 2 tells versions of a message apart: `RIHS01_` and 64 hexadecimal digits."""
    needed = sorted(_nested(name))
    described = {
        "type_description": _described(name),
        "referenced_type_descriptions": [_described(one) for one in needed],
    }
    # Separators are part of the definition: they are those of libyaml, with which ROS 2 computes it in C.
    text = json.dumps(described, separators=(", ", ": "))
    return f"RIHS01_{hashlib.sha256(text.encode()).hexdigest()}"


def user_data(name: str) -> bytes:
    """What ROS 2 puts into the user data of a writer or reader of this message."""
    return f"typehash={type_hash(name)};".encode()


def _nested(name: str) -> set[str]:
    inner = {kind.removesuffix("[]") for kind, _ in fields(name)} & FIELDS.keys()
    return inner.union(*(_nested(one) for one in inner))


def _described(name: str) -> dict[str, Any]:
    listed = []
    for kind, plain in fields(name):
        base = kind.removesuffix("[]")
        nested = base in FIELDS
        listed.append(
            {
                "name": plain,
                "type": {
                    "type_id": (NESTED if nested else TYPE_IDS[base]) + SEQUENCE * kind.endswith("[]"),
                    "capacity": 0,
                    "string_capacity": 0,
                    "nested_type_name": base.replace("/", "/msg/") if nested else "",
                },
            }
        )
    return {"type_name": name.replace("/", "/msg/"), "fields": listed}


@cache
def messages() -> dict[str, Any]:
    """The types by their names in ROS 2, made when cyclonedds is needed."""
    made: dict[str, Any] = {}
    for name in FIELDS:  # a message comes after those that it holds
        made[name] = _struct(name, made)
    return made


@dataclass
class Raw:
    """A message as the bytes of the wire."""

    wire: bytes
    sample_info: Any = None  # set by cyclonedds


@cache
def raw_message(name: str) -> Any:
    """A type for readers, whose samples are `Raw`: cyclonedds would make a list of every byte."""
    made = _struct(name, messages())
    made.deserialize = classmethod(lambda cls, data, *_, **__: Raw(bytes(data)))
    return made


def _struct(name: str, known: dict[str, Any]) -> Any:
    from cyclonedds.idl import IdlStruct
    from cyclonedds.idl import types as idl

    basic = {"string": str, "bool": bool}
    annotations = {}
    for kind, plain in fields(name):
        base = kind.removesuffix("[]")
        single = known.get(base) or basic.get(base) or getattr(idl, base)
        annotations[plain] = idl.sequence[single] if kind.endswith("[]") else single
    body = {"__annotations__": annotations, "__module__": __name__}
    kwargs = {"typename": dds_type(name)}
    return dataclass(
        types.new_class(name.partition("/")[2], (IdlStruct,), kwargs, lambda ns: ns.update(body))
    )


def participant(domain: int, lan: bool) -> Any:
    """A participant in a domain, on loopback only unless `lan`; then CYCLONEDDS_URI has its say.

    Raises:
        Ros2Error: this process already uses the domain with another reach, or there is no participant free.
    """
    from cyclonedds.core import DDSException
    from cyclonedds.domain import Domain, DomainParticipant

    known = _domains.get(domain)
    if known is not None and known[0] != lan:
        raise Ros2Error(f"this process already uses domain {domain} with another reach; start a new one")
    try:
        if known is None:
            wider = ",".join(filter(None, (LAN, os.environ.get("CYCLONEDDS_URI"))))  # the last one counts
            _domains[domain] = (lan, Domain(domain, wider if lan else LOCAL))
        return DomainParticipant(domain)
    except DDSException as error:
        raise Ros2Error(f"DDS domain {domain}: {error}") from error
