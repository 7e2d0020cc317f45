"""Print the packets of a running engine: `python examples/read_bus.py FOLDER [TOPIC [COUNT]]`.

Start the engine with `--set bus.transport=ipc --set bus.directory=FOLDER`. The folder has one socket per
topic: vision, audio, transcript, text and estimate. The fields are those of `emi_live.messages`.

A client that reads slowly loses packets in live mode, and delays the engine in exact mode.
"""

import sys

import msgspec
import numpy as np
import zmq

folder, topic, count = sys.argv[1], (sys.argv[2:] or ["estimate"])[0], int((sys.argv[3:] or ["0"])[0])
with zmq.Context() as context, context.socket(zmq.SUB) as socket:
    socket.connect(f"ipc://{folder}/{topic}")
    socket.subscribe(topic)
    received = 0
    while not count or received < count:
        _, header, payload = socket.recv_multipart()
        packet = msgspec.msgpack.decode(header)  # a dict
        for name, value in packet.items():
            if isinstance(value, dict) and "dtype" in value:
                packet[name] = np.frombuffer(payload, value["dtype"]).reshape(value["shape"])
        print(packet)
        received += 1
