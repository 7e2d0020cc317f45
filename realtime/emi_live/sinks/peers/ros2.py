"""`--to ros2:/emi/estimate` for robots with ROS 2, by the wire that ROS 2 uses: DDS. It needs no ROS here.

The types equal the `.msg` files of `integrations/ros2/emi_msgs` and of hri_msgs; a test compares them. Words
are `hri_msgs/LiveSpeech` under `/humans/voices/<id>/speech`, as REP 155 says.
"""

from __future__ import annotations

import math
import time
from typing import Any, ClassVar, Final

from emi_live.clock import NS_PER_S
from emi_live.messages import Estimate
from emi_live.ros2 import (
    Ros2Error,
    check_topic,
    dds_name,
    domain_of,
    messages,
    participant,
    user_data,
)
from emi_live.sinks.peers import Peer, PeerLostError, Run, Spoken, options_of
from emi_models.libraries import require

__all__ = ["Ros2Peer"]

TOPIC: Final = "/emi/estimate"
ESTIMATES: Final = "emi_msgs/EmotionIntensities"
SPEECH: Final = "hri_msgs/LiveSpeech"
# rmw_qos_profile_sensor_data: https://docs.ros.org/en/rolling/Concepts/Intermediate/About-Quality-of-Service-Settings.html
DEPTH: Final = 5


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
        plain, options = options_of(text, address, voice="emi", domain="")
        self.topic = plain or TOPIC
        self.speech = f"/humans/voices/{options['voice']}/speech"
        for name in (self.topic, self.speech):
            check_topic(f"--to {text}", name, TOPIC)
        self.domain = domain_of(f"--to {text}", options["domain"])
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

        policies = (
            Policy.Reliability.BestEffort,
            Policy.Durability.Volatile,
            Policy.History.KeepLast(DEPTH),
            Policy.DataRepresentation(use_cdrv0_representation=True),  # the only one that ROS 2 reads
        )
        types = messages()
        try:
            here = participant(self.domain, self.lan)
            estimates, words = (
                DataWriter(
                    here,
                    Topic(here, dds_name(topic), types[name]),
                    Qos(*policies, Policy.Userdata(user_data(name))),
                )
                for topic, name in ((self.topic, ESTIMATES), (self.speech, SPEECH))
            )
        except (DDSException, Ros2Error) as error:
            raise PeerLostError(f"DDS: {error}") from error
        self._writers = (estimates, words)
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
        sec, nanosec = divmod(self._run.clocks.by("ros", time.time_ns, t_ns), NS_PER_S)
        return types["std_msgs/Header"](types["builtin_interfaces/Time"](sec, nanosec), self._run.source)

    def _intensities(self, estimate: Estimate) -> Any:
        intervals = estimate.intervals or (None,) * len(estimate.names)
        reports = [estimate.modalities[name] for name in ("vision", "audio", "text")]
        return messages()[ESTIMATES](
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
        return messages()[SPEECH](self._header(t_ns), event.partial, final, confidence, language)
