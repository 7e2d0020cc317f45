"""`--to mqtt:` a broker of MQTT, for homes and stages, with the discovery of Home Assistant.

Topics, below the prefix `emi-live` or another one of yours: `status` (`online` or `offline`, retained; the
broker sets `offline` if we vanish), `estimate` (the JSON line), `joy` and so on (one number each),
`state/vision` and so on, `words` and `marker` (JSON). Home Assistant finds one sensor an intensity by
https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from typing import TYPE_CHECKING, Any, ClassVar, Final

from emi_live.clock import NS_PER_S
from emi_live.errors import ConfigurationError
from emi_live.messages import Estimate
from emi_live.sinks.jsonl import to_line
from emi_live.sinks.peers import Peer, PeerLostError, Run, Spoken, host_and_port, is_local, options_of
from emi_models import MODALITIES
from emi_models.libraries import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["MqttPeer"]

PORT: Final = 1883
CONNECT_S: Final = 3.0  # for the broker's answer
KEEP_ALIVE_S: Final = 10
MOST_UNSENT: Final = 200  # messages in the client's own queue; more means that the broker is too slow


class MqttPeer(Peer):
    """Connects to a broker: `mqtt:`, `mqtt:HOST:PORT`, with `?prefix=NAME` and `&discovery=PREFIX|none`.

    User and password are read from the variables EMI_MQTT_USER and EMI_MQTT_PASSWORD, so that no command line
    shows them. Quality of service 0: a message that is lost is not sent again, because the next one is newer.
    """

    kind: ClassVar[str] = "mqtt"

    def __init__(self, address: str, *, lan: bool = False) -> None:
        super().__init__(address, lan=lan)
        text = f"mqtt:{address}"
        plain, options = options_of(text, address, prefix="emi-live", discovery="homeassistant")
        self.host, self.port = host_and_port(f"--to {text}", plain, default_port=PORT, lan=lan)
        for name, value in options.items():
            if not re.fullmatch(r"[\w-]+(/[\w-]+)*", value):
                raise ConfigurationError(
                    f"--to {text}: {name}={value} is no topic; use letters, digits, - and _, with / between"
                )
        self.prefix, self.discovery = options["prefix"], options["discovery"]
        require("paho", extra="mqtt", what="--to mqtt:")
        self._client: Any = None
        self._lost = threading.Event()
        self._why = ""

    @property
    def where(self) -> str:
        """The broker and the topics."""
        return f"topics {self.prefix}/… at the broker {self.host} port {self.port}"

    def open(self, run: Run) -> None:
        """Connect, and tell Home Assistant what there is.

        Raises:
            PeerLostError: the broker does not answer, or refuses.
        """
        import os

        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        answered = threading.Event()
        self._lost.clear()
        client = Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        client.suppress_exceptions = True
        client.max_queued_messages_set(MOST_UNSENT)
        client.will_set(f"{self.prefix}/status", "offline", retain=True)
        if user := os.environ.get("EMI_MQTT_USER"):
            client.username_pw_set(user, os.environ.get("EMI_MQTT_PASSWORD"))

        def connected(_client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
            self._why = str(code) if code.is_failure else ""
            answered.set()

        def disconnected(_client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
            self._why = self._why or str(code)
            self._lost.set()
            answered.set()

        client.on_connect, client.on_disconnect = connected, disconnected
        client.connect_timeout = CONNECT_S
        self._client = client
        # On this machine the connection starts from loopback too; paho would bind to every interface.
        ours = self.host if is_local(self.host) and self.host != "localhost" else ""
        client.connect(self.host, self.port, KEEP_ALIVE_S, bind_address=ours)  # OSError: nobody is there
        client.loop_start()
        if not answered.wait(CONNECT_S) or self._why:
            raise PeerLostError(f"the broker {self.host}:{self.port}: {self._why or 'no answer'}")
        self._publish("status", "online", retain=True)
        if self.discovery != "none":
            for topic, payload in self._sensors(run):
                client.publish(topic, json.dumps(payload), retain=True)

    def send(self, event: Estimate | Spoken) -> None:
        """Publish one event.

        Raises:
            PeerLostError: the connection is gone, or the broker is too slow.
        """
        if self._lost.is_set():
            raise PeerLostError(f"the broker {self.host}:{self.port}: {self._why}")
        if isinstance(event, Spoken):
            words = [
                {"word": word.text, "duration_s": round((word.end_ns - word.start_ns) / NS_PER_S, 3)}
                for word in event.words
            ]
            self._publish("words", json.dumps({"words": words, "partial": event.partial}, ensure_ascii=False))
            return
        self._publish("estimate", to_line(event))
        for name, value in event.as_dict().items():
            self._publish(name, f"{value:.4f}")
        for modality in MODALITIES:
            self._publish(f"state/{modality}", event.modalities[modality].state)
        for mark in event.to_json().get("markers", ()):
            self._publish("marker", json.dumps(mark, ensure_ascii=False))

    def idle(self) -> None:
        """Notice a broker that went away while nothing was sent.

        Raises:
            PeerLostError: it did.
        """
        if self._lost.is_set():
            raise PeerLostError(f"the broker {self.host}:{self.port}: {self._why}")

    def close(self) -> None:
        """Say that we are offline, and disconnect."""
        client, self._client = self._client, None
        if client is not None:
            if not self._lost.is_set() and client.is_connected():
                client.publish(f"{self.prefix}/status", "offline", retain=True).wait_for_publish(0.1)
            client.disconnect()
            client.loop_stop()

    def _publish(self, topic: str, payload: str | bytes, *, retain: bool = False) -> None:
        from paho.mqtt.enums import MQTTErrorCode

        done = self._client.publish(f"{self.prefix}/{topic}", payload, retain=retain)
        if done.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            raise PeerLostError(f"the broker {self.host}:{self.port} is too slow")
        if done.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise PeerLostError(f"the broker {self.host}:{self.port}: {self._why or 'connection lost'}")

    def _sensors(self, run: Run) -> Iterator[tuple[str, Mapping[str, object]]]:
        """Topic and payload of each sensor's discovery; ids last over runs."""
        node = (
            "emi_live_"
            + hashlib.sha256(f"{self.prefix} {run.source}".encode("utf-8", "replace")).hexdigest()[:8]
        )
        device = {"identifiers": [node], "name": f"emi-live: {run.source or 'pushed media'}"[:100]}
        for name, (low, high) in zip(run.names, run.limits, strict=True):
            key = re.sub(r"\W", "_", name)
            yield (
                f"{self.discovery}/sensor/{node}/{key}/config",
                {
                    "name": name.replace("_", " "),
                    "unique_id": f"{node}_{key}",
                    "state_topic": f"{self.prefix}/{name}",
                    "availability_topic": f"{self.prefix}/status",
                    "state_class": "measurement",
                    "suggested_display_precision": 2 if high - low <= 1 else 1,
                    "device": device,
                },
            )
