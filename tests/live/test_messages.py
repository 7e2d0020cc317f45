"""Estimates as plain values."""

from __future__ import annotations

import json

import msgspec
import pytest

from emi_live.messages import Estimate, Trace, VisionPacket, end_of_stream
from emi_models import EMOTIONS
from tests.live.bus.packets import estimate


def test_an_estimate_gives_its_json_object_and_all_of_its_fields() -> None:
    made = msgspec.structs.replace(estimate(joy=0.123456), traces={"vision": Trace(1, 2, 0, 3)}, marker=4)
    line = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert line == made.to_json()
    assert line["intensities"]["joy"] == 0.1235
    assert made.as_dict()["joy"] == dict(made)["joy"] == 0.123456
    everything = json.loads(json.dumps(msgspec.to_builtins(made)))
    assert everything.keys() == {"packet", *Estimate.__struct_fields__}
    assert everything["intensities"][EMOTIONS.index("joy")] == 0.123456
    assert everything["traces"]["vision"]["published_ns"] == 3


def test_only_stages_have_an_end_of_stream() -> None:
    assert isinstance(end_of_stream("vision"), VisionPacket)
    with pytest.raises(ValueError, match="estimate"):
        end_of_stream("estimate")
