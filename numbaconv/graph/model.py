"""Reading a model file, and what it says about its inputs and outputs.

Damage is found here, before anything is planned: every way in which a file can be unreadable becomes a `ModelError`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import external_data_helper, numpy_helper
from onnx.helper import tensor_dtype_to_np_dtype

from numbaconv.errors import DTypeError, ModelError, ShapeError


@dataclass(frozen=True)
class Value:
    """An input or an output: `shape` holds numbers, names of free dimensions, or None where nothing is known."""

    name: str
    type: str
    shape: list[int | str | None]
    dtype: np.dtype | None = None
    ranked: bool = True

    def check(self, array: np.ndarray) -> None:
        """Raise what an array that is fed for this input breaks: its element type, its rank, or a fixed dimension."""
        if self.dtype is not None and array.dtype != self.dtype:
            raise DTypeError(f"input {self.name!r}: expected {self.dtype} ({self.type}), got {array.dtype}")
        got = array.shape
        if self.ranked and len(got) != len(self.shape):
            raise ShapeError(
                f"input {self.name!r}: expected {len(self.shape)} dimensions {self.shape}, got {len(got)}: {list(got)}"
            )
        if any(isinstance(fixed, int) and fixed != size for fixed, size in zip(self.shape, got)):
            raise ShapeError(f"input {self.name!r}: expected shape {self.shape}, got {list(got)}")


@dataclass(frozen=True)
class ModelMetadata:
    """What a model file says about itself; the field names are ONNX Runtime's."""

    producer_name: str
    graph_name: str
    domain: str
    description: str
    graph_description: str
    version: int
    custom_metadata_map: Mapping[str, str]


def read_model(source: str | os.PathLike | bytes) -> onnx.ModelProto:
    """Read a model from a path or from the bytes of a file, external data included.

    Raises
    ------
    FileNotFoundError
        The model itself is not there.
    ModelError
        The file is damaged or is no ONNX model, or data that it keeps in other files is missing or too short.
    TypeError
        `source` is neither a path nor bytes.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, label, folder = bytes(source), "the model", None
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.is_dir():
            raise ModelError(f"{path} is a folder, not a model file")
        data, label, folder = path.read_bytes(), str(path), path.parent
    else:
        raise TypeError(f"a model is given as a path or as bytes, not as {type(source).__name__}")
    model = _parse(data, label)
    _load_external_data(model, label, folder)
    return model


def _parse(data: bytes, label: str) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        raise ModelError(f"{label} is damaged or is no ONNX model ({len(data)} bytes: {error})") from error
    # Protobuf reads nothing at all, and some other files, as a message without fields.
    if not model.ir_version or not model.HasField("graph") or not model.graph.output:
        raise ModelError(f"{label} is damaged or is no ONNX model ({len(data)} bytes without a graph that has outputs)")
    return model


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that a graph stores: initialisers and attributes, those of subgraphs as well."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for subgraph in (attribute.g, *attribute.graphs):
                yield from tensors(subgraph)


def _load_external_data(model: onnx.ModelProto, label: str, folder: Path | None) -> None:
    for tensor in tensors(model.graph):
        if not external_data_helper.uses_external_data(tensor):
            continue
        location = external_data_helper.ExternalDataInfo(tensor).location
        where = f"{label}: tensor {tensor.name!r} keeps its data in the file {location!r}"
        if folder is None:
            raise ModelError(f"{where}, which a model given as bytes cannot find; give the path of the model instead")
        if not (folder / location).is_file():
            raise ModelError(f"{where}, which is not in {folder.resolve()}")
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            # Older releases of onnx go on calling the tensor external, and notice missing bytes only when it is used.
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
            numpy_helper.to_array(tensor)
        except Exception as error:
            raise ModelError(f"{where}, which cannot be read: {error}") from error


def constant(tensor: onnx.TensorProto) -> np.ndarray:
    """The value of a stored tensor."""
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:
        raise ModelError(f"tensor {tensor.name!r} is damaged: {error}") from error


def describe(info: onnx.ValueInfoProto) -> Value:
    """What the model says about one of its inputs or outputs."""
    kind = info.type.WhichOneof("value")
    if kind != "tensor_type":
        return Value(info.name, _type_name(info.type), [], ranked=False)
    tensor = info.type.tensor_type
    ranked = tensor.HasField("shape")
    shape = [_dimension(d) for d in tensor.shape.dim] if ranked else []
    known = tensor.elem_type not in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING)
    dtype = np.dtype(tensor_dtype_to_np_dtype(tensor.elem_type)) if known else None
    return Value(info.name, _type_name(info.type), shape, dtype, ranked)


def _dimension(dimension: onnx.TensorShapeProto.Dimension) -> int | str | None:
    # Exporters write a free dimension as a name, as nothing, or as -1.
    if dimension.HasField("dim_value"):
        return dimension.dim_value if dimension.dim_value >= 0 else None
    return dimension.dim_param or None


def _type_name(proto: onnx.TypeProto) -> str:
    kind = proto.WhichOneof("value")
    if kind == "tensor_type":
        return f"tensor({onnx.TensorProto.DataType.Name(proto.tensor_type.elem_type).lower()})"
    if kind == "sequence_type":
        return f"seq({_type_name(proto.sequence_type.elem_type)})"
    if kind == "optional_type":
        return f"optional({_type_name(proto.optional_type.elem_type)})"
    return kind or "unknown"


def metadata(model: onnx.ModelProto) -> ModelMetadata:
    """The model's description of itself."""
    return ModelMetadata(
        producer_name=model.producer_name,
        graph_name=model.graph.name,
        domain=model.domain,
        description=model.doc_string,
        graph_description=model.graph.doc_string,
        version=model.model_version,
        custom_metadata_map={entry.key: entry.value for entry in model.metadata_props},
    )
