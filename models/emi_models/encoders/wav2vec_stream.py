"""Voice features of the `taemi` bundle from live sound, step by step, and the slow way to compare with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from emi_models.encoders.wav2vec import (
    HOP_SAMPLES,
    OVERLAP_SAMPLES,
    PIECE_FRAMES,
    PIECE_SAMPLES,
    RATE_HZ,
    check_sound,
    frames_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from emi_models.encoders.wav2vec import Wav2vecEncoder

__all__ = ["SlidingWav2vec", "Strategy", "StreamingWav2vec", "WindowFrames"]

Strategy = Literal["cached", "recompute"]


@dataclass(frozen=True, slots=True, eq=False)
class WindowFrames:
    """Features of the last frames: `values`, (n, dim), float32; `first` is the number of the first."""

    first: int
    values: NDArray[np.float32]


class StreamingWav2vec:
    """Turns live 16 kHz mono sound into the features of `Wav2vecEncoder`, each computed once.

    Frame k since the last `reset` is about samples [320k, 320k + 400); columns are the encoder's, whose
    weights are shared. Work is done in steps on a fixed grid: step j has the frames up to 25j (at 0.5 s), and
    needs 80 samples more than its hops. So any way to cut the stream into pushes gives the same features.

    A step gives out what became final: frames that at least `hold_back_s` of sound follow. So a feature is
    out `hop_s` + `hold_back_s` + 25 ms after its sound at the latest, plus the time that a step takes.

    Against a whole pass (`Wav2vecEncoder.encode`, the oracle):

    - convolutions: exact, where each layer normalises each frame (`feat_extract_norm` "layer", as all large
      models have it); with "group", and where sound is normalised, by the statistics of the last 12 s;
    - transformer, "recompute": `left_context_s` of frames, the open ones and no more are passed anew in each
      step. With all of the context (None) and nothing held back, a step's frames are those of a whole pass
      over the sound so far;
    - transformer, "cached": keys and values of the left context are kept in each layer as they were when
      their frames became final. The first step is a whole pass; later ones differ by that and by the cut.
      Tensors are allocated once, and every step has the same shapes.

    Runs where the encoder's model is, in float32; no thread or clock; one thread at a time.

    Source: keys and values of the past, Dai et al. 2019 (Transformer-XL, arXiv:1901.02860); positions from
    Baevski et al. 2020 (arXiv:2006.11477), section 2, and Chen et al. 2022 (WavLM, arXiv:2110.13900).
    """

    def __init__(
        self,
        encoder: Wav2vecEncoder,
        *,
        hop_s: float = 0.5,
        left_context_s: float | None = 3.0,
        hold_back_s: float = 0.24,
        strategy: Strategy = "cached",
    ) -> None:
        """Share the weights of `encoder`; times are in seconds, whole numbers of frames of 20 ms.

        Raises:
            InputError: a time is not, or "cached" was asked for without a bound of its context.
        """
        from emi_models.encoders.wav2vec_front import Wav2vecFront
        from emi_models.encoders.wav2vec_passes import CachedPass, Pass, RecomputedPass

        new = _frames("hop_s", hop_s, least=1)
        edge = _frames("hold_back_s", hold_back_s)
        unbounded = left_context_s is None or left_context_s == math.inf
        left = None if unbounded else _frames("left_context_s", left_context_s)
        import torch

        self._torch = torch
        self._encoder = encoder
        self._steps = _Steps(new * HOP_SAMPLES)
        self._front = Wav2vecFront(encoder, spans=_spans(new))
        self._pass: Pass
        if strategy == "recompute":
            self._pass = RecomputedPass(encoder.model, edge=edge, left=left)
        elif strategy != "cached":
            raise _refused(f"strategy is {strategy!r}; there are 'cached' and 'recompute'")
        elif left is None:
            raise _refused("keys and values cannot be kept without end: give left_context_s, or 'recompute'")
        else:
            self._pass = CachedPass(encoder.model, new=new, edge=edge, left=left)
        self.encoder_id = encoder.encoder_id
        self.dim = encoder.dim

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features of the frames that became final, in order, shape (n, dim), often (0, dim).

        Args:
            samples: shape (n,), any length, in [-1, 1]; the next ones of the stream.

        Raises:
            InputError: not one channel, or not all finite; nothing was taken in.
        """
        samples = check_sound(samples)
        found = [self._step(block, last=False) for block in self._steps.push(samples)]
        return self._joined(found)

    def flush(self) -> NDArray[np.float32]:
        """Features of the frames that are left, shape (n, dim), at the end of a stream or before a gap.

        The stream ends here: what is pushed next is another one, as after `reset`.
        """
        found = [self._step(self._steps.rest(), last=True)]
        self.reset()
        return self._joined(found)

    def reset(self) -> None:
        """Forget what was heard, level and all: the next sample pushed is sample 0."""
        self._steps.reset()
        self._front.reset()
        self._pass.reset()

    def _step(self, samples: NDArray[np.float32], *, last: bool) -> NDArray[np.float32]:
        with self._torch.inference_mode():
            frames = self._front.step(samples)
            hidden = self._pass.step(frames, last=last)
            found: NDArray[np.float32] = self._encoder.with_affect(hidden).cpu().numpy()
        return found

    def _joined(self, found: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate((np.empty((0, self.dim), np.float32), *found))


class SlidingWav2vec:
    """The oracle, live: at each hop, one whole pass over the last 12 s. Slow, and what the papers do.

    Each answer is `Wav2vecEncoder.encode` of just that sound, normalised by itself, and replaces the answers
    before it. Steps are on the grid of `StreamingWav2vec`.
    """

    def __init__(self, encoder: Wav2vecEncoder, *, hop_s: float = 0.5) -> None:
        """Share `encoder`; `hop_s` in seconds, a whole number of frames of 20 ms.

        Raises:
            InputError: it is not.
        """
        self._encoder = encoder
        self._steps = _Steps(_frames("hop_s", hop_s, least=1) * HOP_SAMPLES)
        self.encoder_id = encoder.encoder_id
        self.dim = encoder.dim
        self.reset()

    def push(self, samples: NDArray[np.float32]) -> WindowFrames | None:
        """The last 12 s, when a hop is complete; a push of several hops is answered for the last of them.

        Raises:
            InputError: not one channel, or not all finite; nothing was taken in.
        """
        samples = check_sound(samples)
        stepped = False
        for block in self._steps.push(samples):
            self._hear(block)
            stepped = True
        return self._window() if stepped else None

    def flush(self) -> WindowFrames | None:
        """The last 12 s with what came since the last hop, if anything did; the stream ends here."""
        rest = self._steps.rest()
        more = rest.size > (OVERLAP_SAMPLES if self._heard.size else 0)
        self._hear(rest)
        window = self._window() if more and frames_for(self._heard.size) else None
        self.reset()
        return window

    def reset(self) -> None:
        """Forget what was heard: the next sample pushed is sample 0."""
        self._steps.reset()
        self._heard = np.empty(0, np.float32)  # from the start of a frame on
        self._first = 0  # the number of that frame

    def _hear(self, block: NDArray[np.float32]) -> None:
        fresh = block[OVERLAP_SAMPLES:] if self._heard.size else block
        heard = np.concatenate((self._heard, fresh))
        gone = max(0, frames_for(heard.size) - PIECE_FRAMES)
        self._first += gone
        self._heard = heard[gone * HOP_SAMPLES :]

    def _window(self) -> WindowFrames:
        return WindowFrames(self._first, self._encoder.encode(self._heard))


class _Steps:
    """Cuts a stream into blocks of a hop and 80 samples, each sharing 80 with the one before it."""

    def __init__(self, hop_samples: int) -> None:
        self._hop = hop_samples
        self._pending = np.empty(hop_samples + OVERLAP_SAMPLES, np.float32)
        self._filled = 0

    def reset(self) -> None:
        self._filled = 0

    def push(self, samples: NDArray[Any]) -> Iterator[NDArray[np.float32]]:
        """The blocks that these samples complete; each is valid until the next is asked for."""
        while samples.size:
            room = self._pending.size - self._filled
            taken = samples[:room]
            self._pending[self._filled : self._filled + taken.size] = taken
            self._filled += taken.size
            samples = samples[room:]
            if self._filled == self._pending.size:
                yield self._pending
                self._pending[:OVERLAP_SAMPLES] = self._pending[self._hop :]
                self._filled = OVERLAP_SAMPLES

    def rest(self) -> NDArray[np.float32]:
        """What is not in a block, behind the 80 samples before it."""
        return self._pending[: self._filled]


def _spans(new: int) -> int:
    """How many steps make up the 12 s that the papers' clips last."""
    return max(1, round(PIECE_SAMPLES / (new * HOP_SAMPLES)))


def _frames(name: str, seconds: float | None, least: int = 0) -> int:
    exact = (math.nan if seconds is None else seconds) * RATE_HZ / HOP_SAMPLES
    frames = round(exact) if math.isfinite(exact) else -1
    if frames < least or abs(exact - frames) > 1e-6:
        raise _refused(
            f"{name} is {seconds} s; it must be a whole number of frames of 20 ms, "
            f"{least * HOP_SAMPLES / RATE_HZ:g} s or more"
        )
    return frames


def _refused(why: str) -> Exception:
    from emi_models.inputs import InputError

    return InputError(why)
