"""Read estimates that another program publishes; this needs only pyzmq, not emi-live.

    emi-live --camera 0 --publish tcp://127.0.0.1:5561      # in one terminal
    python examples/read_stream.py tcp://127.0.0.1:5561     # in another

With CURVE keys, which every address except loopback needs:

    emi keys --output keys.toml
    emi-live --camera 0 --publish tcp://0.0.0.0:5561 --config keys.toml
    python examples/read_stream.py tcp://192.168.1.5:5561 --keys keys.toml
"""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path

import zmq


def main() -> None:
    """Print the time and the strongest emotion of each estimate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--keys", type=Path, help="the file of `emi keys`; server and clients share it")
    parser.add_argument("--count", type=int, default=None, help="stop after this number of estimates")
    options = parser.parse_args()

    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        if options.keys is not None:
            keys = tomllib.loads(options.keys.read_text())["bus"]
            socket.curve_publickey = socket.curve_serverkey = keys["curve_public_key"].encode()
            socket.curve_secretkey = keys["curve_secret_key"].encode()
        socket.connect(options.address)
        socket.subscribe("estimate")
        received = 0
        while received != options.count:
            _, line = socket.recv_multipart()
            estimate = json.loads(line)
            name, value = max(estimate["intensities"].items(), key=lambda item: item[1])
            print(f"{estimate['t']:.1f} s: {name} {value:.2f}", flush=True)
            received += 1


if __name__ == "__main__":
    main()
