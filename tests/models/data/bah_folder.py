"""A made-up folder in the layout of BAH's challenge: spaces in annotations, underscores in folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

HZ = 24
YES, NO = "maybe i should but i am not so sure", "yes i will go there every day now"


def name(number: int) -> str:
    return f"8{number:04}_Question_{number % 7 + 1}_2024-10-02_16-03-{number:02}_Video"


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_bah(
    folder: Path, videos: Mapping[str, int], seconds: float = 4.0, *, times: bool = True
) -> list[str]:
    """So many videos of each split. Ambivalence shows in the second half of every other one, and is said.

    Splits are those of the files: train, val, and test, which the challenge gives without labels.
    """
    numbers, names, annotations = iter(range(99)), [], {}
    frames = int(seconds * HZ)
    for split, count in videos.items():
        lines = []
        for _ in range(count):
            number = next(numbers)
            names.append(name(number))
            place = f"8{number:04}/Visite_1/{name(number)}.mp4"
            shows = number % 2 == 0
            put(folder / "videos" / place)
            put(folder / "cropped-aligned-faces" / place / "frame-0.jpg")
            halves = [NO, YES] if shows else [NO, NO]
            words = " ".join(halves).split()
            step = seconds / len(words)
            chunks = [
                {"text": f" {word}", "timestamp": [round(k * step, 3), round((k + 1) * step, 3)]}
                for k, word in enumerate(words)
            ]
            said = {"text": " " + " ".join(words)} | ({"chunks": chunks} if times else {})
            put(folder / "transcription" / place / f"{name(number)}.yml", yaml.safe_dump(said))
            lines.append(f"videos/{place},{int(shows)},{' '.join(words).capitalize()}, really.")
            if split != "test":
                spaced = place.replace("Visite_1", "Visite 1").replace("02_16", "02 16")
                labels = (np.arange(frames) >= frames // 2) & shows
                annotations[spaced] = {
                    "frame_annotation": [
                        [f"{spaced}/frame-{k}.jpg", int(label)] for k, label in enumerate(labels)
                    ]
                }
        put(folder / "default-split" / f"{split}.txt", "\n".join(lines) + "\n")
    put(folder / "annotation.yml", yaml.safe_dump(annotations))
    return names
