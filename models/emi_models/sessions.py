"""How ONNX Runtime runs each of our networks on the CPU: its threads, and that they do not spin.

Several networks run at the same time, each in the thread of its stage. docs/decisions/0028 says why a session
has one thread, and what spinning costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxruntime import SessionOptions

__all__ = ["cpu_options"]


def cpu_options(threads: int = 1) -> SessionOptions:
    """Options of a session that computes in `threads` threads, one of them the caller's: 1 starts none.

    Raises:
        ImportError: onnxruntime is not installed.
    """
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # errors reach the caller as exceptions
    # A thread without work sleeps: between two windows are 200 ms, in which others need the core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options
