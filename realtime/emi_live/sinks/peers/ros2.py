"""`--to ros2:/emi/estimate` for robots with ROS 2, by the wire that ROS 2 uses: DDS. It needs no ROS here.

The mapping of names is that of https://design.ros2.org/articles/topic_and_service_names.html: the topic
`/emi/estimate` is `rt/emi/estimate`, and the type `emi_msgs/msg/EmotionIntensities` is
`emi_msgs::msg::dds_::EmotionIntensities_`. The types below equal the `.msg` files of
`integrations/ros2/emi_msgs` and of hri_msgs, branch `humble-devel`; a test compares them. Words are
`hri_msgs/LiveSpeech` under `/humans/voices/<id>/speech`, as REP 155 says.

This module has no `from __future__ import annotations`: cyclonedds reads the annotations of its types.
"""

import math
import os
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Final

from emi_live.clock import NS_PER_S
from emi_live.errors import ConfigurationError
from emi_live.messages import Estimate
from emi_live.sinks.peers import Peer, PeerLostError, Run, Spoken, options_of
from emi_models.libraries import require

__all__ = ["Ros2Peer", "dds_name", "messages", "participant"]

TOPIC: Final = "/emi/estimate"
NAME: Final = re.compile(r"(/[A-Za-z][A-Za-z0-9_]*)+")  # an absolute name; no repeated and no last slash
# rmw_qos_profile_sensor_data: https://docs.ros.org/en/rolling/Concepts/Intermediate/About-Quality-of-Service-Settings.html
DEPTH: Final = 5
# Discovery on loopback, where multicast may not work: each participant asks the first 33 of this machine.
LOCAL: Final = """<CycloneDDS><Domain Id="any">
<General><Interfaces><NetworkInterface address="127.0.0.1"/></Interfaces>
<AllowMulticast>false</AllowMulticast></General>
<Discovery><ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>32</MaxAutoParticipantIndex>
<Peers><Peer address="127.0.0.1"/></Peers></Discovery>
</Domain></CycloneDDS>"""
_domains: dict[int, tuple[bool, Any]] = {}  # by id: whether it reaches other machines, and the domain


def dds_name(topic: str) -> str:
    """The topic of DDS for a topic of ROS 2."""
    return f"rt{topic}"


def participant(domain: int, lan: bool) -> Any:
    """A participant in a domain, on loopback only unless `lan`; then CYCLONEDDS_URI has its say.

    Raises:
        PeerLostError: this process already uses the domain with another reach, or there is no participant
            free.
    """
    from cyclonedds.core import DDSException
    from cyclonedds.domain import Domain, DomainParticipant

    known = _domains.get(domain)
    if known is not None and known[0] != lan:
        raise PeerLostError(f"this process already uses domain {domain} with another reach; start a new one")
    try:
        if known is None:
            _domains[domain] = (lan, None if lan else Domain(domain, LOCAL))
        return DomainParticipant(domain)
    except DDSException as error:
        raise PeerLostError(f"DDS domain {domain}: {error}") from error


@cache
def messages() -> dict[str, Any]:
    """The types by their names in ROS 2, made when cyclonedds is needed."""
    from cyclonedds.idl import IdlStruct
    from cyclonedds.idl.types import float32, float64, int32, sequence, uint32, uint64

    @dataclass
    class Time(IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):  # type: ignore[call-arg]
        sec: int32 = 0
        nanosec: uint32 = 0

    @dataclass
    class Header(IdlStruct, typename="std_msgs::msg::dds_::Header_"):  # type: ignore[call-arg]
        stamp: Time
        frame_id: str = ""

    @dataclass
    class EmotionIntensities(IdlStruct, typename="emi_msgs::msg::dds_::EmotionIntensities_"):  # type: ignore[call-arg]
        header: Header
        names: sequence[str]
        intensities: sequence[float32]
        lows: sequence[float32]
        highs: sequence[float32]
        vision_used: bool
        audio_used: bool
        text_used: bool
        vision_state: str
        audio_state: str
        text_state: str
        vision_age: float32
        audio_age: float32
        text_age: float32
        seq: uint64
        session: str
        markers: sequence[str]

    @dataclass
    class LiveSpeech(IdlStruct, typename="hri_msgs::msg::dds_::LiveSpeech_"):  # type: ignore[call-arg]
        header: Header
        incremental: str
        final: str
        confidence: float64
        language: str

    return {
        "builtin_interfaces/Time": Time,
        "std_msgs/Header": Header,
        "emi_msgs/EmotionIntensities": EmotionIntensities,
        "hri_msgs/LiveSpeech": LiveSpeech,
    }


class Ros2Peer(Peer):
    """Two writers: estimates on the topic of the address, words on `/humans/voices/<id>/speech`.

    `ros2:`, `ros2:/robot/emotions`, with `?voice=ID` and `&domain=N`; the domain is otherwise ROS_DOMAIN_ID,
    or 0. Best effort, keep last 5, volatile: the sensor-data profile. A reader that asks for reliable
    delivery gets nothing from such a writer.
    """

    kind: ClassVar[str] = "ros2"

    def __init__(self, address: str, *, lan: bool = False) -> None:
        super().__init__(address, lan=lan)
        text = f"ros2:{address}"
        plain, options = options_of(text, address, voice="emi", domain=os.environ.get("ROS_DOMAIN_ID") or "0")
        self.topic = plain or TOPIC
        self.speech = f"/humans/voices/{options['voice']}/speech"
        for name in (self.topic, self.speech):
            if not NAME.fullmatch(name) or "__" in name or name.endswith("_"):
                raise ConfigurationError(f"--to {text}: {name} is no name of a topic, such as {TOPIC}")
        if not options["domain"].isdecimal() or int(options["domain"]) > 232:
            raise ConfigurationError(f"--to {text}: a domain is a number from 0 to 232")
        self.domain = int(options["domain"])
        require("cyclonedds", extra="ros2", what="--to ros2:")
        self._writers: tuple[Any, Any] | None = None
        self._run: Run | None = None

    @property
    def where(self) -> str:
        """Topics and domain, and who can find them."""
        # Cyclone DDS sends from loopback alone, but binds its ports to every interface (docs/decisions/0039).
        note = "" if self.lan else "; announced on this machine only, but its UDP ports are open to others"
        return f"{self.topic} and {self.speech} by DDS in domain {self.domain}{note}"

    def open(self, run: Run) -> None:
        """Announce the two writers.

        Raises:
            PeerLostError: DDS does not start.
        """
        from cyclonedds.core import DDSException
        from cyclonedds.pub import DataWriter
        from cyclonedds.qos import Policy, Qos
        from cyclonedds.topic import Topic

        profile = Qos(
            Policy.Reliability.BestEffort,
            Policy.Durability.Volatile,
            Policy.History.KeepLast(DEPTH),
            Policy.DataRepresentation(use_cdrv0_representation=True),  # the only one that ROS 2 reads
        )
        types, here = messages(), participant(self.domain, self.lan)
        try:
            self._writers = (
                DataWriter(
                    here, Topic(here, dds_name(self.topic), types["emi_msgs/EmotionIntensities"]), profile
                ),
                DataWriter(here, Topic(here, dds_name(self.speech), types["hri_msgs/LiveSpeech"]), profile),
            )
        except DDSException as error:
            raise PeerLostError(f"DDS: {error}") from error
        self._run = run

    def send(self, event: Estimate | Spoken) -> None:
        """Write one message; never waits.

        Raises:
            PeerLostError: DDS refuses it.
        """
        from cyclonedds.core import DDSException

        if self._writers is None:
            return
        estimates, words = self._writers
        try:
            if isinstance(event, Spoken):
                words.write(self._speech(event))
            else:
                estimates.write(self._intensities(event))
        except DDSException as error:
            raise PeerLostError(f"DDS: {error}") from error

    def close(self) -> None:
        """Withdraw the writers."""
        self._writers = None

    def _header(self, t_ns: int) -> Any:
        assert self._run is not None  # noqa: S101  # `open` was called
        types = messages()
        sec, nanosec = divmod(self._run.clocks.unix_ns(t_ns), NS_PER_S)
        return types["std_msgs/Header"](types["builtin_interfaces/Time"](sec, nanosec), self._run.source)

    def _intensities(self, estimate: Estimate) -> Any:
        intervals = estimate.intervals or (None,) * len(estimate.names)
        reports = [estimate.modalities[name] for name in ("vision", "audio", "text")]
        return messages()["emi_msgs/EmotionIntensities"](
            self._header(estimate.t_ns),
            list(estimate.names),
            list(estimate.intensities),
            [math.nan if each is None else each[0] for each in intervals],
            [math.nan if each is None else each[1] for each in intervals],
            *(report.used for report in reports),
            *(report.state for report in reports),
            *(math.nan if report.age_ms is None else report.age_ms / 1e3 for report in reports),
            estimate.seq,
            estimate.session,
            [mark.label or str(mark.number) for mark in estimate.marks],
        )

    def _speech(self, event: Spoken) -> Any:
        final = " ".join(word.text for word in event.words)
        t_ns = event.words[-1].end_ns if event.words else event.t_ns
        # The recogniser gives no confidence that is comparable: 1 for words that will not change, else 0.
        confidence = 1.0 if final else 0.0
        language = event.language or ""
        return messages()["hri_msgs/LiveSpeech"](
            self._header(t_ns), event.partial, final, confidence, language
        )
