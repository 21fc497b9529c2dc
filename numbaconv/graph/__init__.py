"""ONNX models: read, planned once, and run with the call signatures of ONNX Runtime."""

from numbaconv.graph.session import InferenceSession, SessionOptions

__all__ = ["InferenceSession", "SessionOptions"]
