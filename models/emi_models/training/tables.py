"""Every table of the four papers as data: its rows, what the paper prints, and the run that makes each row.

`emi_models.training.rows` says what a row is. Rows with the same run, in whichever table of a paper, share
one training. `emi_models.training.reproduce` carries them out.

Figures are as printed, on Hume-Vidmimic2 or BAH; None: not printed, or lost in the copy of the paper that was
read. `emi_models.training.published` has those that `emi eval` shows; a test compares the two.

`features` are folders in Hume-Vidmimic2's layout; of several, the first is the paper's own, and the others
stand in for it, which is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from emi_models import EMOTIONS
from emi_models.errors import TrainingError
from emi_models.training.rows import Paper, Row, Run, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from emi_models import Modality

__all__ = ["PAPERS", "find_table", "titles"]


def find_table(name: str, number: int) -> tuple[Paper, Table]:
    """A paper by its system's name, and one of its tables.

    Raises:
        TrainingError: there is no such paper or table; the message lists those that there are.
    """
    paper = PAPERS.get(name)
    if paper is None:
        raise TrainingError(f"no paper is called {name!r}; there are: {', '.join(PAPERS)}")
    for table in paper.tables:
        if table.number == number:
            return paper, table
    numbers = ", ".join(str(table.number) for table in paper.tables)
    raise TrainingError(f"{name} has no table {number}; there are: {numbers}")


def titles() -> Sequence[tuple[str, int, str]]:
    """System, number and title of all tables."""
    return [(paper.system, table.number, table.title) for paper in PAPERS.values() for table in paper.tables]


def _nested(**settings: Any) -> dict[str, Any]:
    """`network__anchor="audio"` as {"network": {"anchor": "audio"}}."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        *path, last = name.split("__")
        place = found
        for step in path:
            place = place.setdefault(step, {})
        place[last] = value
    return found


VALID: Final = ("valid",)
VALID_TEST: Final = ("valid", "test")
SPLITS: Final = ("hours", "samples")
BASELINE: Final = "the challenge's baseline, which is not part of emi-live"
OTHERS: Final = "another team's system, which is not part of emi-live"
_PARTITIONS: Final = (
    Row(name="train", published=(15 * 3600 + 7 * 60 + 3, 8072)),
    Row(name="valid", published=(9 * 3600 + 12 * 60 + 2, 4588)),
    Row(name="test", published=(9 * 3600 + 4 * 60 + 5, 4586)),
    Row(name="sum", published=(33 * 3600 + 23 * 60 + 10, 17246)),
)
_PARTITIONS_NOTE: Final = "Hours follow from the number of frames: those of voice, or of faces."

# TAEMI: ViT-B/16 faces; audeering's wav2vec 2.0 (1027 values); GTE.
_T: Final = {
    "vision": ("vit-base", "googlevit", "vit"),
    "audio": ("audeering", "wav2vec2"),
    "text": ("gte", "text_embeddings"),
}


def _taemi(name: str, **network: Any) -> Run:
    return Run(name=name, features=_T, settings={"network": network} if network else {})


_TAEMI: Final = Paper(
    system="taemi",
    title="Anchoring Emotions in Text (arXiv:2603.14976v1)",
    encoders="the paper trains its audio and text encoders together with the network",
    tables=(
        Table(
            number=1,
            title="partitions of Hume-Vidmimic2",
            columns=SPLITS,
            rows=_PARTITIONS,
            notes=(_PARTITIONS_NOTE,),
            statistics="partitions",
        ),
        Table(
            number=2,
            title="comparison on the validation set",
            columns=VALID,
            rows=(
                Row(name="ViT (baseline), V", published=(0.09,), why=BASELINE),
                Row(name="Wav2Vec2 (baseline), A", published=(0.24,), why=BASELINE),
                Row(name="ViT + Wav2Vec2 (baseline), V+A", published=(0.25,), why=BASELINE),
                Row(name="Yu et al. [34], V+A", published=(0.32,), why=OTHERS),
                Row(name="Hallmen et al. [3], A", published=(0.38,), why=OTHERS),
                Row(name="Savchenko et al. [28], V+A+T", published=(0.44,), why=OTHERS),
                Row(name="Zhang et al. [38], V+A+T", published=(0.46,), why=OTHERS),
                Row(name="Yu et al. [33], V+A+T", published=(0.51,), why=OTHERS),
                Row(name="TAEMI, V+A+T", published=(0.55,), run=_taemi("taemi")),
            ),
        ),
        Table(
            number=3,
            title="ablation of components",
            columns=VALID,
            rows=(
                Row(
                    name="simple feature concat",
                    published=(0.45,),
                    run=_taemi("concat", attention="none"),
                    note="frames are averaged; the paper flattens them",
                ),
                Row(name="without TA-CA", published=(0.48,), run=_taemi("self", attention="self")),
                Row(name="without LMT", published=(0.52,), run=_taemi("zeros", missing="zero")),
                Row(name="without MD", published=(0.51,), run=_taemi("no-dropout", modality_dropout=0.0)),
                Row(name="TAEMI", published=(0.55,), run=_taemi("taemi")),
            ),
        ),
        Table(
            number=4,
            title="anchor modality",
            columns=VALID,
            rows=(
                Row(name="vision-anchored", published=(0.39,), run=_taemi("vision", anchor="vision")),
                Row(name="audio-anchored", published=(0.51,), run=_taemi("audio", anchor="audio")),
                Row(name="text-anchored", published=(0.55,), run=_taemi("taemi")),
            ),
            notes=("The paper's text says 0.49 for the vision-anchored network, its table 0.39.",),
        ),
    ),
)

# Two-Stage: DINOv2 faces, a "custom wav2vec2" (it cites audeering's), GTE, OpenFace's units and pose.
_TWO: Final = {
    "vision": ("dinov2", "vit"),
    "audio": ("audeering", "wav2vec2"),
    "text": ("gte", "text_embeddings"),
}
_TWO_MOTION: Final = {**_TWO, "motion": ("openface",)}
_FROZEN: Final = {"training": {"stages": {"fusion": {"encoder_rate": 0.0}}}}


def _alone(modality: Modality, folder: str, pooling: str) -> Run:
    """One branch by itself; its fusion has nothing to fuse and is trained for one epoch only."""
    return Run(
        name=f"{modality}-{folder}-{pooling}",
        features={modality: (folder,)},
        settings=_nested(
            **{f"network__{modality}_pooling": pooling, "training__stages__fusion__max_epochs": 1}
        ),
    )


def _branch(name: str, figure: float, modality: Modality, folder: str, pooling: str) -> Row:
    run = _alone(modality, folder, pooling)
    return Row(name=name, published=(figure,), run=run, stage=modality)


_MEANS: Final = ("samples", "frames_mean", "frames_std", "frames_min", "frames_max", *EMOTIONS)
_TWO_STAGE: Final = Paper(
    system="two_stage",
    title="Two-Stage Multimodal Framework for Emotion Mimicry Intensity Prediction",
    encoders="the paper's are frozen",
    tables=(
        Table(
            number=1,
            title="statistics of the splits",
            columns=_MEANS,
            rows=(
                Row(
                    name="train",
                    published=(
                        *(8072, None, None, 1, 2255),
                        *(0.1785, 0.1253, 0.0967, 0.0214, 0.1420, 0.1157),
                    ),
                ),
                Row(
                    name="valid",
                    published=(
                        *(4588, None, None, 1, 12500),
                        *(0.1594, 0.1303, 0.0668, 0.0134, 0.1294, 0.0994),
                    ),
                ),
            ),
            notes=("Frames are those of the faces.",),
            statistics="labels",
        ),
        Table(
            number=2,
            title="labels of train and valid compared",
            columns=("zero_train", "zero_valid", "ks", "p"),
            rows=(
                Row(name="admiration", published=(55.3, 60.0, 0.047, None)),
                Row(name="amusement", published=(63.6, 63.6, 0.016, 0.457)),
                Row(name="determination", published=(67.5, 74.9, 0.075, None)),
                Row(name="empathic_pain", published=(89.9, 92.2, 0.022, 0.108)),
                Row(name="excitement", published=(61.8, 64.8, 0.029, 0.013)),
                Row(name="joy", published=(67.5, 72.3, 0.048, None)),
            ),
            notes=("zero: % of labels that are 0; ks and p: the two-sample Kolmogorov-Smirnov test.",),
            statistics="shift",
        ),
        Table(
            number=3,
            title="one modality alone",
            columns=VALID,
            rows=(
                _branch("visual: ViT face, GRU", 0.1084, "vision", "vit-base", "gru"),
                _branch("visual: DINOv2 full frame, GRU", 0.1343, "vision", "dinov2-frames", "gru"),
                _branch("visual: DINOv2 full frame, LSTM", 0.1260, "vision", "dinov2-frames", "lstm"),
                _branch("visual: ViT face, LSTM", 0.1134, "vision", "vit-base", "lstm"),
                _branch("visual: DINOv2 face, GRU", 0.1512, "vision", "dinov2", "gru"),
                _branch("visual: DINOv2 face, attention", 0.1535, "vision", "dinov2", "attention"),
                _branch("audio: wav2vec2, linear", 0.1428, "audio", "wav2vec2", "linear"),
                _branch("audio: wav2vec2, LSTM", 0.3088, "audio", "wav2vec2", "lstm"),
                _branch("audio: custom, mean + MLP", 0.3500, "audio", "audeering", "mean"),
                _branch("audio: custom, mean+std + MLP", 0.3600, "audio", "audeering", "mean_std"),
                _branch("audio: custom, attention", 0.3600, "audio", "audeering", "attention"),
                _branch("audio: custom, 3-layer BiLSTM", 0.3650, "audio", "audeering", "bilstm"),
                _branch("text: GTE, LSTM", 0.4070, "text", "gte", "lstm"),
                _branch("text: GTE, MLP", 0.4076, "text", "gte", "mlp"),
                _branch("text: BERT-Large [CLS], MLP", 0.3400, "text", "bert-large", "mlp"),
            ),
            notes=(
                "The paper names no size of its recurrent rows: here they are as wide as the other branches.",
                "`linear` is the mean over frames and one linear layer; words are one vector, and so one "
                "step of an LSTM.",
            ),
        ),
        Table(
            number=4,
            title="branches before the fusion",
            columns=("valid", *EMOTIONS),
            rows=tuple(
                Row(
                    name=stage,
                    published=figures,
                    run=Run(name="f2", features=_TWO_MOTION),
                    stage=stage,
                )
                for stage, figures in (
                    ("text", (0.395, 0.484, 0.390, 0.376, 0.426, 0.363, 0.333)),
                    ("audio", (0.350, 0.405, 0.347, 0.320, 0.351, 0.350, 0.328)),
                    ("vision", (0.153, 0.049, 0.214, 0.136, 0.082, 0.203, 0.237)),
                    ("motion", (0.131, -0.007, 0.210, 0.099, 0.046, 0.195, 0.240)),
                )
            ),
        ),
        Table(
            number=5,
            title="submitted systems",
            columns=VALID_TEST,
            rows=(
                Row(name="F1: T+A+V, 2:1", published=(0.4373, 0.506), run=Run(name="f1", features=_TWO)),
                Row(
                    name="F2: T+A+V+M, 2:1",
                    published=(0.4386, 0.506),
                    run=Run(name="f2", features=_TWO_MOTION),
                ),
                Row(
                    name="F3: T+A+V, 4:1",
                    published=(0.4717, 0.570),
                    run=Run(name="f3", features=_TWO, use="4:1"),
                ),
                Row(
                    name="F4: T+A+V+M, 4:1",
                    published=(0.4722, 0.562),
                    run=Run(name="f4", features=_TWO_MOTION, use="4:1"),
                ),
                Row(
                    name="F5: T+A+V, frozen, 2:1",
                    published=(0.4400, 0.491),
                    run=Run(name="f5", features=_TWO, settings=_FROZEN),
                    note="the paper changes other settings of F5 too, and does not say which",
                ),
            ),
            notes=("4:1 rows are validated on other clips than 2:1 rows.",),
        ),
    ),
)

# Dual-Stage: CLIP ViT-B/16 faces at 5 a second, wav2vec 2.0 (1024), BERT.
_D: Final = {
    "vision": ("clip", "vit"),
    "audio": ("wav2vec2-large", "wav2vec2"),
    "text": ("bert-base", "gte"),
}
_ALIGNING: Final = (
    "Stage I of a row is shown the row's modalities and words; rows without words have them in stage I alone."
)


def _dual(*modalities: Modality) -> Run:
    """A row on these modalities; words take part in its stage I in any case."""
    name = "-".join(modalities)
    if "text" in modalities:
        return Run(name=name, features={m: _D[m] for m in modalities})
    features: dict[str, tuple[str, ...]] = {m: _D[m] for m in (*modalities, "text")}
    return Run(name=name, features=features, settings={"network": {"align_text": True}}, aligning=("text",))


_DUAL_STAGE: Final = Paper(
    system="dual_stage",
    title="Dual-Stage Cross-Modal Network (arXiv:2503.10603v1)",
    encoders="the paper trains its encoders in stage I; on stored features stage I trains projections alone",
    tables=(
        Table(
            number=1,
            title="partitions of Hume-Vidmimic2",
            columns=SPLITS,
            rows=_PARTITIONS,
            notes=(_PARTITIONS_NOTE,),
            statistics="partitions",
        ),
        Table(
            number=2,
            title="one modality alone",
            columns=VALID,
            rows=(
                Row(name="ViT (baseline), V", published=(0.09,), why=BASELINE),
                Row(name="ViT (ours), V", published=(0.16,), run=_dual("vision")),
                Row(name="Wav2Vec2.0 (baseline), A", published=(0.24,), why=BASELINE),
                Row(name="Wav2Vec2.0 (ours), A", published=(0.2734,), run=_dual("audio")),
            ),
            notes=(_ALIGNING,),
        ),
        Table(
            number=3,
            title="several modalities",
            columns=VALID,
            rows=(
                Row(name="V+A", published=(0.2846,), run=_dual("vision", "audio")),
                Row(name="V+T", published=(0.2934,), run=_dual("vision", "text")),
                Row(name="A+T", published=(0.3518,), run=_dual("audio", "text")),
                Row(name="V+A+T", published=(0.3626,), run=_dual("vision", "audio", "text")),
            ),
            notes=(_ALIGNING,),
        ),
    ),
)

# Semantic Matters: ViT-H/14 faces, audeering's wav2vec 2.0 (1027 values), GTE.
_S: Final = {
    "vision": ("vit-huge", "googlevit", "vit"),
    "audio": ("audeering", "wav2vec2"),
    "text": ("gte", "text_embeddings"),
}


def _semantic(name: str, *modalities: Modality, use: str = "train", **network: Any) -> Run:
    settings = {"network": network} if network else {}
    return Run(name=name, features={m: _S[m] for m in modalities}, settings=settings, use=use)


def _encoder(name: str, figure: float, modality: Modality, folder: str) -> Row:
    return Row(name=name, published=(figure,), run=Run(name=folder, features={modality: (folder,)}))


_WEIGHTS: Final = ("valid", "w_audio", "w_vision", "w_text")
BAH: Final = "needs BAH's folder as --data"
_SEMANTIC_MATTERS: Final = Paper(
    system="semantic_matters",
    title="Semantic Matters: Multimodal Features for Affective Analysis",
    encoders="the paper trains its audio and text encoders together with the network",
    tables=(
        Table(
            number=1,
            title="comparison on Hume-Vidmimic2",
            columns=VALID_TEST,
            rows=(
                Row(name="baseline, vision", published=(None, 0.090), why=BASELINE),
                Row(name="baseline, audio", published=(None, 0.240), why=BASELINE),
                Row(name="Savchenko [40]", published=(0.446, 0.510), why=OTHERS),
                Row(name="Yu et al. [45]", published=(0.512, 0.680), why=OTHERS),
                Row(name="text", published=(0.523, 0.559), run=_semantic("t", "text")),
                Row(name="text+audio", published=(0.520, 0.558), run=_semantic("ta", "text", "audio")),
                Row(name="audio+vision", published=(0.380, None), run=_semantic("av", "audio", "vision")),
                Row(name="text+vision", published=(0.529, 0.563), run=_semantic("tv", "text", "vision")),
                Row(
                    name="text+audio+vision",
                    published=(0.522, 0.556),
                    run=_semantic("tav", "text", "audio", "vision"),
                ),
                Row(
                    name="† text+vision",
                    published=(None, 0.706),
                    run=_semantic("tv-all", "text", "vision", use="train+valid"),
                    note="trained on train and valid for all 30 epochs",
                ),
            ),
        ),
        Table(
            number=2,
            title="encoders",
            columns=VALID,
            rows=(
                _encoder("text: BERT-Base", 0.511, "text", "bert-base"),
                _encoder("text: BERT-Large", 0.444, "text", "bert-large"),
                _encoder("text: RoBERTa-Base", 0.497, "text", "roberta-base"),
                _encoder("text: GTE-Base", 0.523, "text", "gte"),
                _encoder("text: GTE-Large", 0.390, "text", "gte-large"),
                _encoder("vision: ViT-Small", 0.086, "vision", "vit-small"),
                _encoder("vision: ViT-Base", 0.132, "vision", "vit-base"),
                _encoder("vision: ViT-Huge", 0.138, "vision", "vit-huge"),
                _encoder("audio: W2V2-BERT", 0.218, "audio", "w2v2-bert"),
                _encoder("audio: WavLM", 0.238, "audio", "wavlm"),
                _encoder("audio: W2V2 Audeering", 0.376, "audio", "audeering"),
            ),
        ),
        Table(
            number=3,
            title="a task for each modality",
            columns=_WEIGHTS,
            rows=(
                Row(
                    name="audio+vision",
                    published=(0.385, 0.501, 0.499, None),
                    run=_semantic("av-tasks", "audio", "vision", fusion="multitask"),
                ),
                Row(
                    name="audio+text",
                    published=(0.495, 0.498, None, 0.502),
                    run=_semantic("ta-tasks", "audio", "text", fusion="multitask"),
                ),
                Row(
                    name="text+vision",
                    published=(0.501, None, 0.495, 0.505),
                    run=_semantic("tv-tasks", "text", "vision", fusion="multitask"),
                ),
                Row(
                    name="audio+vision+text",
                    published=(0.493, 0.333, 0.331, 0.336),
                    run=_semantic("tav-tasks", "audio", "vision", "text", fusion="multitask"),
                ),
            ),
            notes=("w: what a modality's prediction counts where all are present.",),
        ),
        Table(
            number=4,
            title="BAH, comparison",
            columns=VALID_TEST,
            rows=tuple(
                Row(name=name, published=figures, why=why)
                for name, figures, why in (
                    ("baseline", (None, 0.700), BASELINE),
                    ("Savchenko [40]", (0.737, 0.710), OTHERS),
                    ("vision", (0.674, None), BAH),
                    ("audio", (0.662, None), BAH),
                    ("text", (0.718, None), BAH),
                    ("audio+vision", (0.662, None), BAH),
                    ("text+audio", (0.696, None), BAH),
                    ("text+vision", (0.725, 0.694), BAH),
                    ("text+audio+vision", (0.720, 0.702), BAH),
                    ("† text+vision", (None, 0.693), BAH),
                )
            ),
        ),
        Table(
            number=5,
            title="BAH, text encoders",
            columns=VALID,
            rows=tuple(
                Row(name=name, published=(figure,), why=BAH)
                for name, figure in (
                    *(("BERT-Base", 0.701), ("BERT-Large", 0.706), ("RoBERTa-Base", 0.692)),
                    *(("GTE-Base", 0.705), ("GTE-Large", 0.718)),
                )
            ),
        ),
        Table(
            number=6,
            title="BAH, seconds of text",
            columns=VALID,
            rows=tuple(
                Row(name=f"{seconds} s", published=(figure,), why=BAH)
                for seconds, figure in ((5, 0.703), (15, 0.712), (20, 0.718), (25, 0.717), (35, 0.716))
            ),
        ),
    ),
)

PAPERS: Final[Mapping[str, Paper]] = {
    paper.system: paper for paper in (_TAEMI, _TWO_STAGE, _DUAL_STAGE, _SEMANTIC_MATTERS)
}
