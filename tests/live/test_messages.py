"""Estimates as plain values."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from emi_live.messages import Estimate, Range, Trace, VisionPacket, end_of_stream
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


def two_targets() -> Estimate:
    """An estimate of labels of one's own."""
    made = estimate()
    reports = {
        name: msgspec.structs.replace(report, contribution=(0.5, -20.0))
        for name, report in made.modalities.items()
    }
    return msgspec.structs.replace(
        made,
        names=("arousal", "valence"),
        ranges=(Range(-1.0, 1.0), Range(0.0, 100.0)),
        intensities=(-0.25, 75.0),
        modalities=reports,
    )


def test_labels_of_ones_own_have_their_names_and_ranges() -> None:
    made = two_targets()
    line = made.to_json()
    assert line["intensities"] == {"arousal": -0.25, "valence": 75.0}
    assert line["ranges"] == {"arousal": [-1.0, 1.0], "valence": [0.0, 100.0]}
    assert line["modalities"]["text"]["contribution"] == {"arousal": 0.5, "valence": -20.0}
    assert dict(made) == {"arousal": -0.25, "valence": 75.0}
    assert made.shares == (0.375, 0.75)
    with pytest.raises(KeyError, match="joy"):
        made["joy"]


def test_the_line_of_the_six_has_no_new_field() -> None:
    assert not {"ranges", "names", "task", "ambivalence"} & estimate().to_json().keys()


def test_ambivalence_is_a_field_of_its_own() -> None:
    made = msgspec.structs.replace(estimate(), names=("ambivalence",), intensities=(0.7312,), task="bah")
    line = made.to_json()
    assert (line["ambivalence"], line["intensities"]) == (0.7312, {})


@pytest.mark.parametrize(
    "change",
    [
        {"names": ("a", "b")},
        {"names": ("a",) * 6},
        {"ranges": (Range(0.0, 1.0),)},
        {"ranges": (Range(1.0, 0.0),) * 6},
        {"ranges": (Range(0.5, 1.0),) * 6},
        {"intensities": (0.0,) * 5 + (1.5,)},
    ],
)
def test_values_that_do_not_fit_their_names_and_ranges_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"range|values"):
        msgspec.structs.replace(estimate(), **change)
