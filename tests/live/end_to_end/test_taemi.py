"""The paper's bundle live, with tiny random models of every kind in folders, and a checkpoint for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from emi_live import LiveEngine, load_config
from emi_live.cli.errors import run_app
from emi_live.cli.live import app
from emi_models import MODALITIES
from emi_models.checkpoint import CheckpointHeader, packaged_checkpoint, save_checkpoint
from emi_models.encoders.text import identify_text
from emi_models.encoders.vit import identify_face
from emi_models.encoders.wav2vec import identify_speech
from emi_models.inputs import FusionShapes
from emi_models.networks import describe_config
from emi_models.networks.taemi import Taemi, TaemiConfig
from tests.live.end_to_end.support import HOP_S, Run, emi_live
from tests.live.end_to_end.test_embedding import media
from tests.models.encoders.tiny_models import WIDTH, edit_json, tiny_bert, tiny_speech, tiny_vit
from tests.models.speech.tiny_whisper import make_tiny_whisper

pytestmark = [pytest.mark.assets, pytest.mark.slow]

CLIP = "av/face_lost_4s_to_8s_speech_throughout.mp4"
SHORT_S = 4.0
EMBEDDED_S = 6.0  # the face is lost by then


@dataclass(frozen=True)
class Models:
    """Folders of encoders, and a checkpoint for them."""

    folder: Path
    checkpoint: Path

    @property
    def options(self) -> list[str]:
        """For `--set`."""
        return [
            f"face.model={self.folder / 'face'}",
            f"audio.model={self.folder / 'voice'}",
            f"text.model={self.folder / 'text'}",
            f"speech.model={self.folder / 'words/tiny-whisper'}",
            "speech.backend=whisper",
            f"fusion.checkpoint={self.checkpoint}",
        ]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    face, voice, text = (folder / name for name in ("face", "voice", "text"))
    tiny_vit(face)
    tiny_speech(voice)
    tiny_bert(text)
    make_tiny_whisper(folder / "words", "i am so proud of you", 1.0)
    shapes = FusionShapes(400, WIDTH, 599, WIDTH + 3, WIDTH)
    torch.manual_seed(0)
    network = Taemi(TaemiConfig(shapes=shapes, d_model=16, heads=2, mlp_hidden=32))
    ids = (identify_face(face), identify_speech(voice), identify_text(text))
    header = CheckpointHeader(
        system="taemi",
        config=describe_config(network.config),
        modalities=MODALITIES,
        encoders={modality: spec.encoder_id for modality, spec in zip(MODALITIES, ids, strict=True)},
        data="none: random weights",
        licence="none",
        scores={},
        created_by="tests",
    )
    save_checkpoint(folder / "tiny.safetensors", network, header)
    return Models(folder, folder / "tiny.safetensors")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """As the program has it: how many share a sum shows in its last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def settings(assets: Path, models: Models, *more: str) -> list[str]:
    return [*models.options, "models.offline=true", f"models.directory={assets / 'mediapipe'}", *more]


def run(assets: Path, models: Models, *more: str) -> list[dict[str, Any]]:
    """The clip in this process, as a program that embeds the engine has it."""
    config = load_config("taemi", settings(assets, models, f"source.input={assets / CLIP}", *more))
    with LiveEngine(config) as live:
        return [estimate.to_json() for estimate in live.estimates()]


def comparable(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return Run(0, lines, "").comparable()


@pytest.fixture(scope="module")
def program(assets: Path, models: Models) -> Run:
    options = [part for option in models.options for part in ("--set", option)]
    return emi_live(assets, "--config", "taemi", "--input", assets / CLIP, *options, backend="whisper")


@pytest.fixture(scope="module")
def embedded(assets: Path, models: Models) -> list[dict[str, Any]]:
    return run(assets, models, f"duration_s={EMBEDDED_S}")


def test_every_hop_is_answered_and_all_three_modalities_become_live(program: Run) -> None:
    assert program.exit_code == 0, program.stderr
    assert [line["t"] for line in program.lines] == [
        round(HOP_S * k, 3) for k in range(1, len(program.lines) + 1)
    ]
    assert 55 <= len(program.lines) <= 57
    modalities = program.at(3.4)["modalities"]
    assert {name: report["state"] for name, report in modalities.items()} == dict.fromkeys(MODALITIES, "live")
    assert all(report["used"] for report in modalities.values())
    assert modalities["vision"]["frames"] == 21  # six a second
    assert 165 <= modalities["audio"]["frames"] <= 170  # fifty
    assert "i am so proud of you" in modalities["text"]["committed"]
    assert {line["bundle"] for line in program.lines} == {"taemi"}


def test_it_says_which_encoders_run(program: Run) -> None:
    said = program.stderr
    for start in ("vision: vit-32x2@", "audio: wav2vec2-32x2@", "text: bert-32x2@"):
        assert start in said
    assert "taemi checkpoint tiny.safetensors" in said


def test_a_face_that_is_lost_turns_missing_and_comes_back(program: Run) -> None:
    states = program.states("vision")
    missing = [t for t, state in states if state == "missing"]
    last_face_s, return_s = 3.97, 7.9
    assert last_face_s + 1.0 - 1 / 6 <= missing[0] <= last_face_s + 1.0 + HOP_S
    assert missing[-1] <= return_s + 0.2 <= missing[-1] + 2 * HOP_S
    assert all(missing[0] <= t <= missing[-1] for t, state in states if state != "live")
    assert program.at(6.0)["modalities"]["vision"]["reason"] == "no face"
    assert program.at(6.0)["modalities"]["audio"]["state"] == "live"


def test_a_second_run_gives_the_same_numbers(program: Run, embedded: list[dict[str, Any]]) -> None:
    known = round((EMBEDDED_S - 1.0) / HOP_S)  # where the run ends, the last words are committed earlier
    assert len(embedded) > known
    assert embedded[known - 1]["modalities"]["vision"]["state"] == "missing"
    assert comparable(embedded)[:known] == program.comparable()[:known]


@pytest.mark.parametrize("context", ["recompute", "full"])
def test_every_context_answers_and_each_in_its_own_way(
    assets: Path, models: Models, embedded: list[dict[str, Any]], context: str
) -> None:
    lines = run(assets, models, f"audio.context={context}", f"duration_s={SHORT_S}")
    assert len(lines) == round(SHORT_S / HOP_S)
    later = lines[10:]
    assert {line["modalities"]["audio"]["state"] for line in later} == {"live"}
    assert all(line["modalities"]["audio"]["used"] for line in later)
    others = embedded[: len(lines)]
    assert any(
        mine["intensities"] != theirs["intensities"] for mine, theirs in zip(lines, others, strict=True)
    )


def test_pushed_media_give_the_numbers_of_the_file(
    assets: Path, models: Models, embedded: list[dict[str, Any]]
) -> None:
    with LiveEngine(load_config("taemi", settings(assets, models, "mode=exact"))) as live:
        for t_ns, kind, data, rate_hz in media(assets / CLIP):
            if t_ns >= SHORT_S * 1e9:
                break
            if kind == "frame":
                live.push_frame(data, t_ns)
            else:
                live.push_audio(data, t_ns, rate_hz)
        live.end()
        pushed = [estimate.to_json() for estimate in live.estimates()]
    settled = round((SHORT_S - 1.0) / HOP_S)  # at the end nothing more is waited for
    for mine, theirs in zip(pushed[:settled], embedded[:settled], strict=True):
        assert mine["modalities"] == theirs["modalities"]
        assert mine["intensities"] == pytest.approx(theirs["intensities"], abs=1e-3)


def refused(assets: Path, models: Models, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """The one line that the program says, run in this process; it ends with 2."""
    options = [part for option in settings(assets, models, *more) for part in ("--set", option)]
    with pytest.raises(SystemExit) as ended:
        run_app(app, ["--config", "taemi", "--input", str(assets / CLIP), "--no-ui", *options], "emi-live")
    assert ended.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("loading")]
    assert line.startswith("error: ")
    return line


def test_what_does_not_fit_is_refused_in_one_line(
    assets: Path, models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*more: str) -> str:
        return refused(assets, models, capsys, "speech.backend=none", *more)

    assert f"no folder {tmp_path / 'absent'}" in said(f"face.model={tmp_path / 'absent'}")
    assert "type vit" in said(f"audio.model={models.folder / 'face'}")
    assert "lacks config.json" in said(f"face.model={tmp_path}")
    packaged = packaged_checkpoint("compact")
    assert "mediapipe/face_landmarker" in said(f"fusion.checkpoint={packaged}")
    other, _ = tiny_vit(tmp_path / "other")
    edit_json(other / "config.json", num_hidden_layers=1)
    assert "vit-32x1@" in said(f"face.model={other}")
    assert "audio.hop_s" in said("audio.hop_s=0.51")


def test_without_a_checkpoint_it_says_where_one_comes_from(assets: Path) -> None:
    done = emi_live(assets, "--config", "taemi", "--input", assets / CLIP)
    assert done.exit_code == 2
    (line,) = done.stderr.strip().splitlines()
    assert "no checkpoint in the package" in line
    assert "--checkpoint FILE" in line
