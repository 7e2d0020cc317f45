"""TensorRT and TensorRT-RTX: build, store and run plans. Importing this loads neither library.

A network goes through `onnx_export`, `build`, `plans` (a file and its manifest) and `engine`, which runs it.
`load_engine` and `emi compile` do this.
"""
