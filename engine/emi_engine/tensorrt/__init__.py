"""TensorRT and TensorRT-RTX: plans are built, kept and run here. Importing this loads neither library.

The way of a network: `onnx_export` → `build` → `plans` (a file and its manifest) → `runtime`; `load` and
`emi compile` walk it.
"""
