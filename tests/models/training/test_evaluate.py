"""Scores depend on a network and its clips alone, and say what was shown."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from emi_models import EMOTIONS
from emi_models.checkpoint import CheckpointHeader, load_checkpoint, save_checkpoint
from emi_models.data.batches import ClipWindows, collate
from emi_models.data.clip import Clip, FeatureTrack
from emi_models.errors import TrainingError
from emi_models.inputs import FusionInputs
from emi_models.networks import describe_config
from emi_models.networks.base import FusionNetwork
from emi_models.targets import Target
from emi_models.training.evaluate import Evaluation, evaluate, evaluate_checkpoint, predict
from emi_models.training.fit import fit, network_for
from emi_models.training.papers import recipe_of
from emi_models.training.published import HEADING, PUBLISHED
from emi_models.training.results import draw_prefixes, show_evaluation
from tests.models.training.sets import ENCODERS, SHAPES, MemorySet, Named, memory_set, random_clips, unrated
from tests.models.training.small import NETWORKS, small

CLIPS = memory_set(10, 16, missing=0.25)
SYSTEMS = ("taemi", "two_stage", "dual_stage", "semantic_matters")


def network(system: str = "taemi", clips: MemorySet = CLIPS) -> FusionNetwork:
    torch.manual_seed(0)
    return network_for(system, recipe_of(system), clips, NETWORKS[system]).eval()


class Spy(torch.nn.Module):
    """A network that predicts six sums of what it is shown, and keeps the windows."""

    def __init__(self, clips: MemorySet) -> None:
        super().__init__()
        self.config = network(clips=clips).config
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[FusionInputs] = []

    def forward(self, window: FusionInputs) -> torch.Tensor:
        self.seen.append(window)
        present = torch.stack(
            [window.vision_present, window.audio_present, window.text_present], dim=1
        ).float()
        frames = torch.stack([window.vision_mask.sum(1), window.audio_mask.sum(1), present[:, 2]], dim=1)
        return torch.cat([present, frames], dim=1) + self.anchor


@pytest.mark.parametrize("system", SYSTEMS)
@settings(max_examples=15, deadline=None)
@given(mates=st.lists(st.integers(0, 15), max_size=6), which=st.integers(0, 15), place=st.integers(0, 6))
def test_a_prediction_does_not_depend_on_batch_mates(
    system: str, mates: list[int], which: int, place: int
) -> None:
    net, windows = network(system), ClipWindows(CLIPS, "valid")
    alone = predict(net, collate([windows[which]])[0])
    place = min(place, len(mates))
    rows = [windows[i] for i in (*mates[:place], which, *mates[place:])]
    together = predict(net, collate(rows)[0])[place]
    assert (together - alone[0]).abs().max() <= 1e-5


@pytest.mark.parametrize("system", SYSTEMS)
def test_scores_do_not_depend_on_the_batch_size(system: str) -> None:
    a, b = (evaluate(network(system), CLIPS, batch_size=size) for size in (1, 7))
    for one, other in (
        (a.whole, b.whole),
        *((p.scores, q.scores) for p, q in zip(a.prefixes, b.prefixes, strict=True)),
        *((a.without[m], b.without[m]) for m in a.without),
        *((a.alone[m], b.alone[m]) for m in a.alone),
    ):
        assert one.n == other.n == 16
        assert one.pearson == pytest.approx(other.pearson, abs=1e-4)
        assert one.ccc == pytest.approx(other.ccc, abs=1e-4)
        assert one.mse == pytest.approx(other.mse, abs=1e-5)


def test_a_prefix_shows_no_more_than_its_seconds_and_a_shorter_clip_whole() -> None:
    spy = Spy(CLIPS)
    found = evaluate(spy, CLIPS, prefixes=(1, 4, 12), batch_size=16)  # type: ignore[arg-type]
    clips = CLIPS.splits["valid"]
    windows = dict(zip((1, 4, 12), spy.seen[-3:], strict=True))
    for prefix in found.prefixes:
        end_ns = prefix.seconds * 1e9
        assert prefix.scores.n == 16
        assert prefix.cut == sum(clip.duration_ns > end_ns for clip in clips)
        expected = [int((clip.audio.t_ns <= end_ns).sum()) for clip in clips]
        assert windows[int(prefix.seconds)].audio_mask.sum(dim=1).tolist() == expected
    assert 0 < found.prefixes[1].cut < 16
    assert found.prefixes[2].scores == found.whole


def test_a_modality_is_taken_away_or_left_alone() -> None:
    spy = Spy(CLIPS)
    found = evaluate(spy, CLIPS, prefixes=(), batch_size=16)  # type: ignore[arg-type]
    whole, *rest = spy.seen
    assert list(found.without) == list(found.alone) == ["vision", "audio", "text"]
    present = [(w.vision_present, w.audio_present, w.text_present) for w in rest]
    there = (whole.vision_present, whole.audio_present, whole.text_present)
    assert all(bool(t.any()) and not bool(t.all()) for t in there), "some clips lack one"
    for i in range(3):
        without, alone = present[2 * i : 2 * i + 2]
        for j in range(3):
            assert torch.equal(without[j], there[j] & torch.tensor(i != j))
            assert torch.equal(alone[j], there[j] & torch.tensor(i == j))


def test_a_network_of_one_modality_has_no_such_views() -> None:
    deaf = replace(CLIPS, encoders={"text": ENCODERS["text"]})
    found = evaluate(network(clips=deaf), deaf)
    assert found.without == found.alone == {}


def test_unrated_clips_take_no_part() -> None:
    clips = list(CLIPS.splits["valid"])
    some = replace(CLIPS, splits={"valid": [*clips[:5], unrated(clips[5]), *clips[6:]]})
    fewer = replace(CLIPS, splits={"valid": [*clips[:5], *clips[6:]]})
    a, b = evaluate(network(), some, batch_size=15), evaluate(network(), fewer, batch_size=15)
    assert a.n == 15
    assert a.whole == b.whole


def test_the_network_is_left_on_the_cpu_in_evaluation_mode() -> None:
    net = network().train()
    evaluate(net, CLIPS, prefixes=())
    assert not net.training
    assert next(net.parameters()).device.type == "cpu"


def test_progress_is_told_clip_by_clip() -> None:
    told: list[int] = []
    evaluate(network(), CLIPS, prefixes=(), batch_size=5, advance=told.append)
    assert told == [5, 5, 5, 1]


def saved(
    tmp_path: Path,
    clips: MemorySet = CLIPS,
    change: Callable[[CheckpointHeader], CheckpointHeader] | None = None,
) -> Path:
    net = network(clips=clips)
    header = CheckpointHeader(
        system="taemi",
        config=describe_config(net.config),
        modalities=net.config.modalities,
        encoders={str(m): name for m, name in clips.encoders.items()},
        data=clips.description,
        licence="none",
        scores={},
        created_by="a test",
    )
    save_checkpoint(tmp_path / "c.safetensors", net, change(header) if change else header)
    return tmp_path / "c.safetensors"


def test_a_checkpoint_is_evaluated_as_its_network(tmp_path: Path) -> None:
    path = saved(tmp_path)
    found = evaluate_checkpoint(path, CLIPS)
    assert found.system == "taemi"
    assert found.whole == evaluate(load_checkpoint(path).network, CLIPS).whole


def test_spans_of_the_header_are_used(tmp_path: Path) -> None:
    path = saved(tmp_path, change=lambda header: replace(header, spans_s={"audio": 0.5}))
    found = evaluate_checkpoint(path, CLIPS)
    net = load_checkpoint(path).network
    assert found.whole == evaluate(net, CLIPS, spans_s={"audio": 0.5}).whole
    assert found.whole != evaluate(net, CLIPS).whole


def test_clips_of_other_encoders_or_widths_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    other = replace(CLIPS, encoders={**ENCODERS, "audio": "another/voice@2"})
    with pytest.raises(TrainingError, match="another/v"):
        evaluate_checkpoint(path, other)
    shapes = replace(SHAPES, vision_dim=9)
    wide = MemorySet(splits={"valid": random_clips(6, shapes=shapes)}, shapes=shapes)
    with pytest.raises(TrainingError, match="of 5 values"):
        evaluate_checkpoint(path, wide)
    with pytest.raises(TrainingError, match="arousal"):
        evaluate_checkpoint(path, Named(splits=CLIPS.splits, rated=(Target("arousal"),)))


def test_clips_may_lack_a_modality_of_the_checkpoint(tmp_path: Path) -> None:
    """A set without any face has tracks of width 1, which no network could read."""

    def faceless(clip: Clip) -> Clip:
        return replace(clip, vision=FeatureTrack.empty(1))

    clips = MemorySet(
        splits={"valid": [faceless(clip) for clip in CLIPS.splits["valid"]]},
        shapes=replace(SHAPES, vision_dim=1),
        encoders={m: name for m, name in ENCODERS.items() if m != "vision"},
    )
    found = evaluate_checkpoint(saved(tmp_path), clips)
    expected = evaluate(load_checkpoint(tmp_path / "c.safetensors").network, CLIPS).without["vision"]
    assert found.whole == expected


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (
            "test",
            "0 rated clips in test",
        ),
        ("vaild", "vaild"),
    ],
)
def test_a_split_without_clips_says_what_there_is(split: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        evaluate(network(), CLIPS, split)


def test_a_held_out_split_is_found_again(tmp_path: Path) -> None:
    clips = MemorySet(splits={"train": random_clips(20)})
    config = small("taemi", max_epochs=1)
    config = config.model_copy(
        update={"data": config.data.model_copy(update={"held_out": 0.4, "held_out_seed": 3})}
    )
    result = fit("taemi", clips, tmp_path, config)
    found = evaluate_checkpoint(result.checkpoint, clips)
    assert found.n == 8
    assert found.whole.mean_pearson == pytest.approx(result.score, abs=1e-6)
    assert found.split == "valid: 8 of 20 train clips, drawn with seed 3; people may be in both"


def evaluation(description: str = "clips of a test") -> Evaluation:
    return evaluate(network(), replace(CLIPS, description=description), system="taemi")


def printed(found: Evaluation) -> str:
    out = io.StringIO()
    show_evaluation(found, Console(file=out, width=100))
    return out.getvalue()


def test_all_numbers_are_json() -> None:
    found = evaluation()
    metadata = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert metadata["n"] == 16
    assert metadata["whole"]["pearson"]["mean"] == found.whole.mean_pearson
    assert list(metadata["whole"]["ccc"]) == ["mean", *EMOTIONS]
    assert [row["seconds"] for row in metadata["prefixes"]] == [1, 2, 4, 8, 12]
    assert metadata["prefixes"][0]["cut"] == found.prefixes[0].cut
    assert metadata["without"].keys() == metadata["alone"].keys() == {"vision", "audio", "text"}
    assert metadata["published"] == {"heading": HEADING, "rows": []}


def test_tables_say_n_and_what_is_cut() -> None:
    found = evaluation()
    text = printed(found)
    assert text.startswith("taemi on clips of a test; valid; n = 16 clips\n")
    assert f"{found.whole.mean_pearson:.4f}" in text
    for emotion in EMOTIONS:
        assert text.count(emotion) == 3
    cut = " ".join(str(prefix.cut) for prefix in found.prefixes)
    assert cut in " ".join(text.split())
    assert "no face" in text
    assert "words alone" in " ".join(text.split())


def test_the_papers_tables_stand_beside_scores_on_their_data_only() -> None:
    elsewhere, there = (
        printed(evaluation()),
        printed(evaluation("Hume-Vidmimic2: 8072 train, 4588 valid clips")),
    )
    assert "these clips are not Hume-Vidmimic2, scores cannot be compared" in elsewhere
    assert HEADING not in elsewhere
    assert HEADING in there
    assert "this taemi" in there
    assert "0.55" in there
    assert not evaluation("synthetic corpus in the layout of Hume-Vidmimic2").published


def test_frozen_encoders_are_compared_with_frozen_ones() -> None:
    found = evaluation("Hume-Vidmimic2: 8072 train, 4588 valid clips")
    text = " ".join(printed(found).split())
    assert "0.41" in text
    assert "0.44" in text
    assert "--train-encoders" in text
    frozen = [row for row in PUBLISHED if row.frozen and row.valid is not None]
    assert text.index(frozen[-1].name) < text.index("taemi V+A+T 0.55"), "rows of its own kind come first"
    tuned = " ".join(printed(replace(found, tuned=("audio", "text"))).split())
    assert "--train-encoders" not in tuned
    assert tuned.index("taemi V+A+T 0.55") < tuned.index("two_stage, F5")


def test_no_row_of_the_papers_comes_twice() -> None:
    rows = [(row.name, row.modalities) for row in PUBLISHED]
    assert len(rows) == len(set(rows))
    assert max(row.valid for row in PUBLISHED if row.frozen and row.valid) < 0.5


def test_the_prefix_curve_is_a_picture(tmp_path: Path) -> None:
    draw_prefixes(tmp_path / "heard.png", evaluation())
    assert (tmp_path / "heard.png").read_bytes().startswith(b"\x89PNG")
