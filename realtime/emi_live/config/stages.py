"""Settings of the stages: face, audio, speech, text."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, model_validator

from emi_live.config.section import Positive, Section

__all__ = ["AudioConfig", "FaceConfig", "SpeechConfig", "TextConfig"]

FRAME_S: Final = 0.02  # of wav2vec 2.0: its times are whole numbers of it


class FaceConfig(Section):
    """The face stage: MediaPipe Face Landmarker; with `taemi` a vision transformer's view of the face too."""

    enabled: bool = True
    max_fps: Positive = 33.0  # frames closer together than this are skipped (and counted)
    max_faces: int = Field(2, ge=1, le=8)  # faces looked for; the largest is followed
    min_confidence: float = Field(0.5, ge=0, le=1)
    # Of `taemi` alone:
    model: Path | None = None  # folder of a ViT in transformers' format; None = the model store's
    crop_fps: float = Field(6.0, gt=0, le=33)  # faces encoded a second; 33 fill the 400 of a window
    batch: int = Field(4, ge=1, le=16)  # most faces that go through the ViT at once


class AudioConfig(Section):
    """The audio stage: features at 50 Hz, and the voice gate that says whether somebody speaks."""

    enabled: bool = True
    voice_threshold: float = Field(0.5, gt=0, lt=1)  # Silero speech probability
    # Of `taemi` alone:
    model: Path | None = None  # folder of a wav2vec 2.0, HuBERT or WavLM; None = the model store's
    # What a frame is computed from: "cached" and "recompute", a bounded past, once; "full", the last 12 s,
    # anew at each hop.
    context: Literal["cached", "recompute", "full"] = "cached"
    # Of sound, between two passes of the network.
    hop_s: float = Field(0.5, ge=FRAME_S, le=6, multiple_of=FRAME_S)
    # Of the past, that frames look back on; 2 to 4 are recommended.
    left_context_s: float = Field(3.0, ge=0, le=12, multiple_of=FRAME_S)
    # Of sound to come, that a frame waits for.
    hold_back_s: float = Field(0.24, ge=0, le=2, multiple_of=FRAME_S)
    # So often, encode the last window's sound all at once, and say what that changes; None: never.
    drift_every_s: Positive | None = None

    @model_validator(mode="after")
    def _full_has_no_edges(self) -> AudioConfig:
        if self.context == "full" and (edges := {"left_context_s", "hold_back_s"} & self.model_fields_set):
            raise ValueError(
                f"audio.{min(edges)} means nothing with audio.context=full, which hears the last 12 s: "
                "leave one of them out"
            )
        return self


class TextConfig(Section):
    """The text stage. Both of `taemi` alone."""

    model: Path | None = None  # folder of a BERT-like model; None = the model store's
    allow_remote_code: bool = False  # run code that gte-en-mlm-base came with, at its pinned revision


class SpeechConfig(Section):
    """The speech stage: voice gate, then incremental recognition of growing utterances."""

    backend: Literal["auto", "faster-whisper", "pocketsphinx", "none"] = "auto"
    model: str = "base.en"  # of the catalogue (`emi models list`), or a folder in CTranslate2 format
    smaller_model: str | None = None  # of the same kind: answers when `model` cannot keep up
    language: str = "en"
    compute_type: str = "int8"  # CTranslate2's name of a quantisation
    threads: int = Field(1, ge=1, le=64)
    voice_threshold: float = Field(0.5, gt=0, lt=1)
    partial_every_s: float = Field(0.4, ge=0.1)  # audio between two hypotheses of an utterance
    # A word is committed when hypotheses in a row agree on it, or by the time that it is aligned to.
    commit: Literal["agreement", "alignment"] = "agreement"
    # Hypotheses in a row that must agree before a word is committed; None: 2 of Whisper, 6 of PocketSphinx.
    agreement: int | None = Field(None, ge=1, le=9)
    edge_s: float = Field(0.5, ge=0, le=5)  # alignment: words that end so close to the newest sound stay open
    min_silence_s: Positive = 0.5  # silence that ends an utterance
    preroll_s: float = Field(0.3, ge=0, le=2)  # audio kept from before the voice was detected
    trim_s: float = Field(
        15.0, ge=2, le=25
    )  # audio of an utterance, from which on it is cut behind its words
    limit_s: float = Field(20.0, ge=3, le=28)  # never more than this; Whisper sees 30 s at most
    no_data_s: Positive = 1.0  # without sound: the device is mute or gone, and the utterance is over
    lag_budget_s: Positive = 3.0  # of sound that waits while a hypothesis is made; more, and something gives
    # Guards against invented words, on what Whisper says of its own segments.
    most_no_speech: float = Field(0.6, ge=0, le=1)  # probability that nothing was said
    least_log_probability: float = -1.0  # mean over tokens
    most_compression: float = Field(2.4, gt=0)  # of the text, by zlib

    @model_validator(mode="after")
    def _trims_before_it_must(self) -> SpeechConfig:
        if self.limit_s < self.trim_s + 1:
            raise ValueError(
                f"speech.limit_s={self.limit_s} leaves no time to cut between words after "
                f"speech.trim_s={self.trim_s}: make it at least 1 s larger"
            )
        return self

    @model_validator(mode="after")
    def _has_no_setting_without_effect(self) -> SpeechConfig:
        other = "edge_s" if self.commit == "agreement" else "agreement"
        if other in self.model_fields_set:
            raise ValueError(
                f"speech.{other} has no effect with speech.commit={self.commit}: leave it out, or "
                f"set speech.commit={'alignment' if other == 'edge_s' else 'agreement'}"
            )
        if self.backend == "pocketsphinx" and self.smaller_model is not None:
            raise ValueError("speech.smaller_model is a Whisper model, and speech.backend=pocketsphinx runs")
        return self
