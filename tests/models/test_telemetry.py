from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType

import pytest

from emi_models.libraries import SWITCHES, switch_off, telemetry_warnings

ORT = SWITCHES[0]
PACKAGES = ("emi_models", "emi_engine", "emi_live", "emi_bench")


def without_switches() -> dict[str, str]:
    names = {switch.variable for switch in SWITCHES}
    return {name: value for name, value in os.environ.items() if name not in names}


def run_python(code: str, **environ: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=60,
        env={**without_switches(), **environ},
    )
    return done.stdout.splitlines()


def test_every_switch_is_thrown_unless_the_user_has_set_it() -> None:
    environ = {"ORT_DISABLE_TELEMETRY": "", "DO_NOT_TRACK": "0"}
    assert switch_off(environ, {}) == ()
    assert environ == {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "0"}
    assert [line.partition("=")[0] for line in telemetry_warnings((), environ)] == ["privacy: DO_NOT_TRACK"]


@pytest.mark.parametrize("value", ["1", "true", "YES", " on "])
def test_what_the_libraries_take_for_off_is_off(value: str) -> None:
    assert ORT.is_thrown({ORT.variable: value})


@pytest.mark.parametrize("value", ["0", "false", "", "no"])
def test_what_the_libraries_take_for_on_is_reported(value: str) -> None:
    environ = {switch.variable: "1" for switch in SWITCHES} | {ORT.variable: value}
    [line] = telemetry_warnings((), environ)
    assert f"ORT_DISABLE_TELEMETRY={value!r}" in line
    assert "set it to 1" in line


def test_a_library_imported_before_us_is_silenced_by_its_call_and_told_of() -> None:
    calls: list[str] = []
    early = ModuleType("onnxruntime")
    early.disable_telemetry_events = lambda: calls.append("off")  # type: ignore[attr-defined]
    environ: dict[str, str] = {}
    late = switch_off(environ, {"onnxruntime": early})
    assert late == (ORT,)
    assert calls == ["off"]
    [line] = telemetry_warnings(late, environ)
    assert "onnxruntime was imported before emi_live" in line
    assert "import emi_live first" in line


def test_a_library_that_was_already_told_is_not_late() -> None:
    assert switch_off({"ORT_DISABLE_TELEMETRY": "1"}, {"onnxruntime": ModuleType("onnxruntime")}) == ()


def test_a_user_who_wants_onnx_runtime_to_send_is_obeyed_and_told() -> None:
    calls: list[str] = []
    early = ModuleType("onnxruntime")
    early.disable_telemetry_events = lambda: calls.append("off")  # type: ignore[attr-defined]
    environ = {"ORT_DISABLE_TELEMETRY": "0"}
    late = switch_off(environ, {"onnxruntime": early})
    assert calls == []
    assert environ["ORT_DISABLE_TELEMETRY"] == "0"
    assert "lets onnxruntime send" in telemetry_warnings(late, environ)[0]


def test_each_package_throws_the_switches_and_loads_no_library() -> None:
    code = (
        "import os, sys\n"
        f"names = {[switch.variable for switch in SWITCHES]}\n"
        f"for package in {PACKAGES}:\n"
        "    __import__(package)\n"
        "    print(*(os.environ.get(name) for name in names), 'onnxruntime' in sys.modules)\n"
        "    [sys.modules.pop(name) for name in list(sys.modules) if name.startswith('emi_')]\n"
        "    [os.environ.pop(name, None) for name in names]\n"
    )
    assert run_python(code) == ["1 1 1 False"] * len(PACKAGES)


@pytest.mark.slow
def test_an_engine_announces_that_it_came_too_late() -> None:
    code = (
        "import onnxruntime\n"
        "from emi_live import LiveConfig, LiveEngine\n"
        "off = {'face': {'enabled': False}, 'speech': {'backend': 'none'}, 'models': {'offline': True}}\n"
        "live = LiveEngine(LiveConfig.model_validate(off))\n"
        "live.load()\n"
        "live.close()\n"
        "print(*(line for line in live.announcements if line.startswith('privacy')), sep='\\n')\n"
    )
    # With CI set, ONNX Runtime sends nothing: this import, which comes too early on purpose, must not.
    [line] = run_python(code, CI="1")
    assert "onnxruntime was imported before emi_live" in line


def test_the_face_model_loads_neither_sound_nor_pictures_and_the_rest_of_mediapipe_still_works() -> None:
    code = (
        "import sys\n"
        "from emi_models.encoders.face_mediapipe import import_mediapipe\n"
        "mediapipe = import_mediapipe()\n"
        "from mediapipe.tasks.python import vision\n"
        "print(vision.FaceLandmarker.__name__, *({'matplotlib', 'sounddevice'} & set(sys.modules)))\n"
        "print(mediapipe.tasks.audio.AudioClassifier.__name__, vision.drawing_utils.DrawingSpec.__name__)\n"
        "print(len(vision.drawing_styles.get_default_hand_landmarks_style()))\n"
        "from mediapipe.tasks.python.vision import drawing_styles\n"
        "from mediapipe.tasks.python.audio.core import audio_record as record\n"
        "print(type(drawing_styles).__name__, record.AudioRecord.__name__)\n"
    )
    assert run_python(code) == ["FaceLandmarker", "AudioClassifier DrawingSpec", "21", "module AudioRecord"]
