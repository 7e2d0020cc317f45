from __future__ import annotations

import pytest

from emi_bench.bus import TRANSPORTS, make_packets, measure_flood, measure_hops
from emi_live.messages import AudioPacket, VisionPacket
from emi_live.wire import decode, encode
from emi_models.inputs import COMPACT_SHAPES, TAEMI_SHAPES


def test_packets_have_the_sizes_of_the_bundles() -> None:
    packets = list(make_packets().values())
    assert [type(decode(encode(packet))) for packet in packets] == [type(packet) for packet in packets]
    faces = [p.features.size for p in packets if isinstance(p, VisionPacket) and p.features is not None]
    assert faces == [COMPACT_SHAPES.vision_dim, TAEMI_SHAPES.vision_dim] == [58, 768]
    voices = [p.frames.shape for p in packets if isinstance(p, AudioPacket)]
    assert voices == [(10, 73), (10, 1027)]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_hop_is_timed_over_every_transport(transport: str) -> None:
    name, packet = next(iter(make_packets().items()))
    hops = measure_hops(transport, name, packet, 150)
    assert (hops.transport, hops.n) == (transport, 150)
    assert hops.bytes == sum(map(len, encode(packet)))
    figures = [hops.min_us, hops.p50_us, hops.p90_us, hops.p99_us, hops.p999_us, hops.max_us]
    assert figures == sorted(figures)
    assert hops.min_us > 0


def test_a_flood_accounts_for_every_packet() -> None:
    name, packet = next(iter(make_packets().items()))
    flood = measure_flood("ipc", name, packet, 0.2, high_water_mark=1)
    assert flood.received + flood.dropped == flood.published
    assert flood.received > 0


def test_a_flood_that_fits_the_queue_loses_nothing() -> None:
    name, packet = next(iter(make_packets().items()))
    flood = measure_flood("inproc", name, packet, 0.05, high_water_mark=100_000)
    assert (flood.dropped, flood.received) == (0, flood.published)
