"""Lab Streaming Layer: what an inlet of pylsl, in a process of its own, reads of the three streams."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emi_live.errors import ConfigurationError
from emi_live.sinks.peers import open_peer
from emi_live.sinks.peers.lsl import LOCAL
from emi_models import EMOTIONS
from tests.support.peers import WORD_S, show

pytestmark = pytest.mark.slow

NAME = "emi-test"
# A peer that resolves all three streams, reads them until nothing comes any more, and prints what it read.
READER = f"""
import json, sys, pylsl
pylsl.set_config_content({LOCAL!r})
names = ["{NAME}", "{NAME}-words", "{NAME}-markers"]
inlets = {{}}
for name in names:
    (info,) = pylsl.resolve_byprop("name", name, 1, 15)
    inlets[name] = pylsl.StreamInlet(info, recover=False)
    inlets[name].open_stream(10)
print("ready", flush=True)
sys.stdin.readline()
out = {{}}
for name, inlet in inlets.items():
    info = inlet.info()
    correction = inlet.time_correction(5)
    samples, stamps = inlet.pull_chunk(timeout=0.5, max_samples=1000)
    rows, channel = [], info.desc().child("channels").child("channel")
    while not channel.empty():
        rows.append([channel.child_value("label"), channel.child_value("unit")])
        channel = channel.next_sibling("channel")
    offsets = info.desc().child("clock_offsets")
    xml = info.as_xml()
    out[name] = dict(xml=xml, type=info.type(), source_id=info.source_id(), rows=rows, stamps=stamps,
                     samples=samples,
                     correction=correction, session=info.desc().child_value("session"),
                     offset=offsets.child_value("lsl_minus_monotonic_s"))
print(json.dumps(out), flush=True)
"""


@pytest.fixture(scope="module")
def heard() -> tuple[dict[str, Any], Any]:
    with show([f"lsl:{NAME}"]) as running:
        reader = subprocess.Popen(
            [sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
            count = len(running.estimates)
            running.engine.mark("beep", time.monotonic_ns() - 300_000_000)
            running.wait_for(count + 15)
            told, _ = reader.communicate("\n", timeout=20)
        finally:
            reader.kill()
    return json.loads(told), running


def xdf(path: Path, streams: dict[str, Any]) -> None:
    """Write what an inlet read as LabRecorder would: https://github.com/sccn/xdf/wiki/Specifications."""

    def sized(content: bytes) -> bytes:
        return b"\x04" + struct.pack("<I", len(content)) + content

    def chunk(tag: int, content: bytes) -> bytes:
        return sized(struct.pack("<H", tag) + content)

    parts = [b"XDF:", chunk(1, b"<?xml version='1.0'?><info><version>1.0</version></info>")]
    for number, stream in enumerate(streams.values(), 1):
        id_ = struct.pack("<I", number)
        parts.append(chunk(2, id_ + stream["xml"].encode()))
        for at_s in (stream["stamps"][0], stream["stamps"][-1]):
            parts.append(chunk(4, id_ + struct.pack("<dd", at_s, stream["correction"])))
        rows = []
        for stamp, values in zip(stream["stamps"], stream["samples"], strict=True):
            text = isinstance(values[0], str)
            data = (
                b"".join(sized(one.encode()) for one in values)
                if text
                else struct.pack(f"<{len(values)}f", *values)
            )
            rows.append(b"\x08" + struct.pack("<d", stamp) + data)
        parts.append(chunk(3, id_ + b"\x04" + struct.pack("<I", len(rows)) + b"".join(rows)))
        parts.append(chunk(6, id_ + b"<?xml version='1.0'?><info></info>"))
    path.write_bytes(b"".join(parts))


def test_pyxdf_reads_a_file_of_what_the_inlets_got(heard: tuple[dict[str, Any], Any], tmp_path: Path) -> None:
    import pyxdf

    path = tmp_path / "lab.xdf"
    xdf(path, heard[0])
    streams, _ = pyxdf.load_xdf(path, dejitter_timestamps=False)
    found = {stream["info"]["name"][0]: stream for stream in streams}
    assert set(found) == {NAME, f"{NAME}-words", f"{NAME}-markers"}
    values = found[NAME]
    channels = values["info"]["desc"][0]["channels"][0]["channel"]
    assert [one["label"][0] for one in channels][:7] == [*EMOTIONS, "valid"]
    assert {one["unit"][0] for one in channels[:6]} == {"intensity"}
    np.testing.assert_allclose(values["time_series"], heard[0][NAME]["samples"], atol=1e-6)
    np.testing.assert_allclose(values["time_stamps"], heard[0][NAME]["stamps"], atol=0.01)
    ((marker,),) = found[f"{NAME}-markers"]["time_series"]
    assert json.loads(marker)["label"] == "beep"
    assert found[f"{NAME}-words"]["time_series"][0][0].startswith("w")
    desc = values["info"]["desc"][0]
    assert float(desc["clock_offsets"][0]["wall_minus_monotonic_s"][0]) == pytest.approx(
        time.time() - time.monotonic(), abs=1
    )


def test_channels_have_names_and_units(heard: tuple[dict[str, Any], Any]) -> None:
    values = heard[0][NAME]
    assert values["type"] == "Emotion"
    states = ["valid", "vision_used", "audio_used", "text_used"]
    assert values["rows"] == [[name, "intensity"] for name in EMOTIONS] + [[s, "boolean"] for s in states]
    assert values["session"] == heard[1].estimates[0].session
    assert abs(float(values["offset"])) < 3600


def test_samples_are_the_estimates_stamped_by_their_capture_time(heard: tuple[dict[str, Any], Any]) -> None:
    values, running = heard[0][NAME], heard[1]
    by_time = {round(estimate.t_ns / 1e6): estimate for estimate in running.estimates}
    offset_s = float(values["offset"])
    assert len(values["samples"]) >= 10
    for sample, stamp in zip(values["samples"], values["stamps"], strict=True):
        estimate = by_time[round((stamp - offset_s) * 1e3)]
        assert sample[:6] == pytest.approx(estimate.intensities, abs=1e-6)
        assert sample[7:] == [float(report.used) for report in estimate.modalities.values()]
        assert sample[6] == max(sample[7:])
    assert abs(values["correction"]) < 0.01  # one machine, one clock


def test_words_come_each_once_at_their_start(heard: tuple[dict[str, Any], Any]) -> None:
    words = heard[0][f"{NAME}-words"]
    assert [row[0] for row in words["rows"]] == ["word", "duration"]
    numbers = [int(word.removeprefix("w")) for word, _ in words["samples"]]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(numbers) >= 5
    assert {length for _, length in words["samples"]} == {f"{WORD_S:.3f}"}
    steps = [after - one for one, after in zip(words["stamps"], words["stamps"][1:], strict=False)]
    assert steps == pytest.approx([WORD_S] * len(steps), abs=1e-4)


def test_a_marker_is_back_dated(heard: tuple[dict[str, Any], Any]) -> None:
    marks, values = heard[0][f"{NAME}-markers"], heard[0][NAME]
    ((text,),) = marks["samples"]
    assert json.loads(text) == {"number": 1, "label": "beep", "from": "python"}
    (marked,) = [estimate for estimate in heard[1].estimates if estimate.marks]
    sent_s = marked.marks[0].t_ns / 1e9 + float(values["offset"])
    assert marks["stamps"] == [pytest.approx(sent_s, abs=1e-4)]


def test_the_source_id_lasts_over_runs(heard: tuple[dict[str, Any], Any]) -> None:
    ids = [heard[0][name]["source_id"] for name in heard[0]]
    assert len(set(ids)) == 3
    assert all(one.startswith("emi-live-") for one in ids)
    assert heard[1].estimates[0].session not in "".join(ids)


@pytest.mark.parametrize("name", ["a/b", "x" * 61, "a\nb"])
def test_a_name_that_tools_cannot_show_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        open_peer(f"lsl:{name}")
