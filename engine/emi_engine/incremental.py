"""TAEMI over a stream, exactly: each hop computes only what its new frames change.

::

    StreamWindow ─ SlidingSequence (vision, audio) ─ queried by the anchor ─ head ─ intensities
                   │  Rows: each frame's projection, query, key and value, by frame number
                   └─ RunningSums: each frame's softmax over the keys in the window

Three facts make it exact (docs/decisions/0011). There are no positions, so a frame's rows depend only on that
frame. There is a single query, so key and value projections of the cross-attention are applied to the query.
Softmax is a quotient of sums, so self-attention changes only by the keys that enter and leave.

`SlidingSequence` is one modality over time: its frames' rows, the attention among them, and the result of a
query. With p_i a frame's projection and a_i its self-attention's mix of values, the sequence is y_i = p_i +
O a_i + o. Neither y nor a is ever stored: a query's scores are u . y_i = u . p_i + (O^T u) . a_i +
const, and the weighted sum of the y is that of the p plus O times that of the a.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch.nn.functional import gelu

from emi_engine.protocol import LEFT_OUT, CheckedEngine, EngineError
from emi_engine.sliding_attention import Rows, RunningSums, SequenceWeights, linear, scores_of, weighted_sum
from emi_models.inputs import InputError
from emi_models.networks.taemi import Taemi

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from emi_engine.protocol import FusionEngine
    from emi_engine.sliding_attention import Across
    from emi_models import Modality
    from emi_models.checkpoint import LoadedCheckpoint
    from emi_models.inputs import FrameRun, FusionInputs, StreamWindow

    Floats = NDArray[np.float32]

__all__ = [
    "IncrementalEngine",
    "IncrementalSession",
    "SlidingSequence",
    "SlidingTaemi",
    "TaemiWeights",
]

QUERIES: Final = 2  # the query of the words, and that of their missing token


class SlidingSequence:
    """Stored results for one modality's frames in the last window given to `slide`."""

    def __init__(
        self, name: Modality, weights: SequenceWeights, capacity: int, *, running_sums: bool = True
    ) -> None:
        """Start empty, for windows of at most `capacity` frames."""
        self._name = name
        self._weights = weights
        self._rows = Rows(capacity)
        d_model = weights.project.bias.shape[0]
        self._projected = self._rows.array(1, d_model)
        self._sums: RunningSums | None = None
        if weights.within is not None:
            width = d_model // weights.heads
            self._sums = RunningSums(self._rows, weights.heads, width, running=running_sums)
        self._folded: list[
            tuple[Floats, Floats, Floats | None]
        ] = []  # the last queries, each with its two keys
        self._absent: Floats | None = None

    def __len__(self) -> int:
        return self._rows.stop - self._rows.start

    @property
    def trained(self) -> bool:
        """Whether the network uses this modality."""
        return self._weights.trained

    @property
    def computed(self) -> int:
        """Number of attention rows computed completely so far: how much was not reused."""
        return 0 if self._sums is None else self._sums.whole

    def restart(self) -> None:
        """Forget all frames."""
        self._rows.restart(0)

    def slide(self, run: FrameRun) -> None:
        """Move the window to this run of frames; only frames that are new in it are read.

        If a run cannot follow the last one, all its frames are read. Call `restart` before another stream,
        because its frame numbers may seem to follow.

        Raises:
            InputError: a new frame is not finite.
        """
        rows = self._rows
        if not rows.start <= run.start <= rows.stop <= run.stop:
            rows.restart(run.start)
        fresh = rows.stop
        values = run.values[fresh - run.start :]
        if not np.isfinite(values).all():
            raise InputError(
                f"{self._name} holds {np.count_nonzero(~np.isfinite(values))} of {values.size} new values "
                "that are NaN or infinite; drop those frames or mark the modality as not present"
            )
        rows.grow(run.stop)
        if len(values):
            self._take_in(values, rows.at(fresh, run.stop))
        if self._sums is not None:
            self._sums.slide(run.start, fresh)
        rows.shrink(run.start)

    def queried(self, queries: Floats) -> Floats:
        """The results (R, D) of the anchor's queries (R, D) in a window with at least one frame."""
        across = self._weights.across
        assert across is not None  # noqa: S101  # a network asks only what its variant has
        on_p, on_a = self._fold(across, queries)
        used = self._rows.at(self._rows.start, self._rows.stop)
        projected = self._projected[0, used]  # (T, D)
        scores = scores_of(on_p, projected)  # (R H, T)
        if self._sums is not None and on_a is not None:
            shares = self._sums.mixed[:, used] @ on_a  # (heads, T, R H): each inner head's share of the score
            shares /= self._sums.total[:, used]
            scores += shares.sum(axis=0).T
        scores -= scores.max(axis=1, keepdims=True)
        weights = np.exp(scores, out=scores)
        weights /= weights.sum(axis=1, keepdims=True)
        found = self._weighted(weights, used).reshape(-1, across.heads, 1, projected.shape[1])
        heads = found @ across.value + across.value_bias  # (R, H, 1, width)
        return across.out(heads.reshape(len(queries), -1))

    def pooled(self) -> Floats:
        """The mean (1, D) of the sequence of a window with at least one frame."""
        used = self._rows.at(self._rows.start, self._rows.stop)
        return self._weighted(np.full((1, len(self)), 1 / len(self), np.float32), used)

    def absent(self) -> Floats:
        """The result (1, D) of any query, or the mean, if the window holds only the missing token."""
        if self._absent is None:
            y = self._weights.project(self._weights.stand_in)
            if (within := self._weights.within) is not None:  # a sequence of one attends only to itself
                value = within.qkv(within.normalised(y))[:, -y.shape[1] :]
                y = y + within.out(value)
            if (across := self._weights.across) is not None:
                heads = y @ across.value + across.value_bias  # (H, 1, width)
                y = across.out(heads.transpose(1, 0, 2).reshape(1, -1))
            self._absent = y
        return self._absent

    def _take_in(self, values: Floats, rows: slice) -> None:
        """Set the rows of new frames."""
        projected = self._weights.project(values)
        self._projected[0, rows] = projected
        within, sums = self._weights.within, self._sums
        if within is not None and sums is not None:
            made = within.qkv(within.normalised(projected))  # (n, 3 D)
            split = made.reshape(len(values), 3, self._weights.heads, -1).transpose(1, 2, 0, 3)
            sums.query[:, rows], sums.value[:, rows] = split[0], split[2]
            sums.key[:, :, rows] = split[1].transpose(0, 2, 1)

    def _fold(self, across: Across, queries: Floats) -> tuple[Floats, Floats | None]:
        """The vectors for a query's scores, on p (R H, D) and on a (heads, width, R H).

        The last ones are stored, because words change far less often than windows.
        """
        for kept, on_p, on_a in self._folded:
            if np.array_equal(kept, queries):
                return on_p, on_a
        q = across.query(queries).reshape(len(queries), across.heads, 1, -1)
        on_p = (q @ across.key).reshape(-1, across.key.shape[2])
        on_a = None
        if (within := self._weights.within) is not None:
            mixed = within.onto(on_p).reshape(len(on_p), self._weights.heads, -1)
            on_a = np.ascontiguousarray(mixed.transpose(1, 2, 0))
        self._folded = [(queries.copy(), on_p, on_a), *self._folded[: QUERIES - 1]]
        return on_p, on_a

    def _weighted(self, weights: Floats, used: slice) -> Floats:
        """Weighted sums (R, D) of the sequence, with weights (R, T) whose rows sum to one."""
        found = weighted_sum(weights, self._projected[0, used])
        within, sums = self._weights.within, self._sums
        if within is None or sums is None:
            return found
        scaled: Floats = weights / sums.total[:, used].transpose(0, 2, 1)  # (heads, R, T)
        mixed: Floats = scaled @ sums.mixed[:, used]  # (heads, R, width)
        found += within.out(mixed.transpose(1, 0, 2).reshape(len(weights), -1))
        return found


class TaemiWeights:
    """A network's weights, read only and shared by any number of streams. Variants: as in `TaemiConfig`."""

    def __init__(self, network: Taemi) -> None:
        config = self.config = network.config
        shapes = config.shapes
        self.frames: dict[Modality, SequenceWeights] = {
            "vision": SequenceWeights.of(network.vision, shapes.vision_dim, config.heads),
            "audio": SequenceWeights.of(network.audio, shapes.audio_dim, config.heads),
        }
        words = network.text
        self.text_trained = words.trained
        self.text_stand_in = np.zeros((1, shapes.text_dim), np.float32)
        if words.has_token:
            self.text_stand_in = words.token.detach().numpy()[None]
        if config.attention != "self":
            self.text_project = linear(words.project)
        if config.anchor != "text":
            self.text_across = linear(words.across[0]), linear(words.across[1])
        self.hidden, self.last = linear(network.head[0]), linear(network.head[3])


class SlidingTaemi:
    """One stream's window of a TAEMI."""

    def __init__(self, weights: TaemiWeights, *, running_sums: bool = True) -> None:
        """Start empty, as at the start of a stream."""
        self._weights = weights
        shapes = weights.config.shapes
        capacities: dict[Modality, int] = {"vision": shapes.vision_frames, "audio": shapes.audio_frames}
        self._sequences: dict[Modality, SlidingSequence] = {
            name: SlidingSequence(name, weights.frames[name], capacity, running_sums=running_sums)
            for name, capacity in capacities.items()
        }

    @property
    def computed(self) -> int:
        """Number of attention rows computed completely so far, of both sequences."""
        return sum(sequence.computed for sequence in self._sequences.values())

    def restart(self) -> None:
        """Forget the stream."""
        for sequence in self._sequences.values():
            sequence.restart()

    def forward(self, window: StreamWindow, left_out: tuple[Modality | None, ...] = (None,)) -> Floats:
        """Raw intensities (n, K) of the window: one row for each entry, a modality to leave out or None.

        Raises:
            InputError: a new frame, or the text, is not finite.
        """
        if not np.isfinite(window.text).all():
            raise InputError("text holds values that are NaN or infinite; mark it as not present")
        weights = self._weights
        present: set[Modality] = {"text"} if window.text_present and weights.text_trained else set()
        shown: dict[Modality, tuple[FrameRun, bool]] = {
            "vision": (window.vision, window.vision_present),
            "audio": (window.audio, window.audio_present),
        }
        for name, (run, is_present) in shown.items():
            sequence = self._sequences[name]
            if sequence.trained:  # frames move on even if they are not used
                sequence.slide(run)
                if is_present and len(sequence):
                    present.add(name)
        rows = [frozenset(present - {modality}) for modality in left_out]
        distinct = list(dict.fromkeys(rows))
        reader = _HeadInput(weights, self._sequences, window.text[None])
        hidden = weights.hidden(np.concatenate([reader.parts(row) for row in distinct]))
        answers: Floats = weights.last(gelu(torch.from_numpy(hidden)).numpy())
        return answers[[distinct.index(row) for row in rows]]


class _HeadInput:
    """The head's input of one window, for any set of present modalities; each part is computed once."""

    def __init__(
        self, weights: TaemiWeights, sequences: Mapping[Modality, SlidingSequence], text: Floats
    ) -> None:
        self._weights = weights
        self._sequences = sequences
        self._text = text
        self._found: dict[
            tuple[Modality, bool], Floats
        ] = {}  # by the sequence, and whether the anchor is present

    def parts(self, present: frozenset[Modality]) -> Floats:
        """The head's input (1, f): the words or the anchor, then its results in the two other modalities."""
        weights, config = self._weights, self._weights.config
        text = self._text if "text" in present else weights.text_stand_in
        if config.attention != "anchored":
            words = text if config.attention == "self" else weights.text_project(text)
            parts = [words, self._pooled("audio", present), self._pooled("vision", present)]
        elif config.anchor == "text":
            query = weights.text_project(text)
            parts = [text, self._queried("audio", query, present), self._queried("vision", query, present)]
        else:
            first, second = weights.text_across
            told = second(first(weights.text_project(text)))
            query = self._pooled(config.anchor, present)
            other: Modality = "vision" if config.anchor == "audio" else "audio"
            parts = [query, told, self._queried(other, query, present)]
        return np.concatenate(parts, axis=1)

    def _pooled(self, name: Modality, present: frozenset[Modality]) -> Floats:
        sequence = self._sequences[name]
        return sequence.pooled() if name in present else sequence.absent()

    def _queried(self, name: Modality, query: Floats, present: frozenset[Modality]) -> Floats:
        sequence = self._sequences[name]
        if name not in present:
            return sequence.absent()
        key = name, self._weights.config.anchor in present
        if key not in self._found:
            self._found[key] = sequence.queried(query)
        return self._found[key]


class IncrementalEngine(CheckedEngine):
    """Computes streams by exact reuse, in fp32 and numpy. Another engine computes single windows.

    Weights are shared and only read: each session may run in its own thread.
    """

    name = "incremental-cpu"
    detail = "fp32, each hop computes only its new frames"
    reuses = True

    def __init__(
        self,
        checkpoint: LoadedCheckpoint,
        full: Callable[[], FusionEngine],
        *,
        running_sums: bool = True,
    ) -> None:
        """Copy a checkpoint's weights.

        Args:
            checkpoint: a TAEMI.
            full: makes the engine for single windows that belong to no stream.
            running_sums: False: compute self-attention again at each hop; the rest is still reused.

        Raises:
            EngineError: results of this network cannot be reused across hops.
        """
        super().__init__(checkpoint.header)
        network = checkpoint.network
        if not isinstance(network, Taemi):
            raise EngineError(
                f"only taemi can be computed hop by hop, and this is a {self.header.system} checkpoint; "
                "choose the engine `onnxruntime` or `torch`"
            )
        if network.config.gated or network.config.divergence:
            raise EngineError(
                "the variants `gated` and `divergence` are not computed hop by hop; choose the engine "
                "`onnxruntime` or `torch`"
            )
        self._weights: TaemiWeights | None = TaemiWeights(network)
        self._running_sums = running_sums
        self._make_full: Callable[[], FusionEngine] | None = full
        self._full: FusionEngine | None = None

    def session(self) -> IncrementalSession:
        """A new stream, as `FusionEngine.session`."""
        if self._weights is None:
            raise EngineError(f"the {self.name} engine is closed; load it again")
        return IncrementalSession(self, SlidingTaemi(self._weights, running_sums=self._running_sums))

    def _run(self, window: FusionInputs) -> NDArray[np.float32]:
        if self._full is None:
            assert self._make_full is not None  # noqa: S101  # `infer` has refused a closed engine
            self._full = self._make_full()
        return self._full.infer(window)

    def _release(self) -> None:
        self._weights = self._make_full = None  # the function holds the checkpoint
        if self._full is not None:
            self._full.close()
            self._full = None


class IncrementalSession:
    """A `FusionSession` that remembers the frames of its last window."""

    def __init__(self, engine: IncrementalEngine, network: SlidingTaemi) -> None:
        self._engine = engine
        self._network = network

    @property
    def computed(self) -> int:
        """Number of attention rows computed completely so far; the rest was reused."""
        return self._network.computed

    def infer(self, window: StreamWindow, *, counterfactuals: bool = False) -> NDArray[np.float32]:
        """As `FusionSession.infer`; after any error the next window is computed completely."""
        self._engine.check_open()
        window.check(self._engine.shapes)
        try:
            with np.errstate(all="ignore"):  # an overflow is found in the result
                answers = self._network.forward(window, LEFT_OUT if counterfactuals else (None,))
            if not np.isfinite(answers).all():
                raise self._engine.not_finite(answers.shape)
        except BaseException:
            self._network.restart()  # partly stored frames would count as known
            raise
        return answers

    def restart(self) -> None:
        """Forget the stream; the next window is computed completely."""
        self._network.restart()
