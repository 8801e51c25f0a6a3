"""Proof that an int8 file is int8: what ONNX Runtime makes of it when it opens it. No TensorFlow."""

import collections
import tempfile
from pathlib import Path

import onnx

from export.runtime import open_on_cpu, session_options

MOST_IN_FLOAT = 1 / 3  # of the convolutions, on purpose: everything in float gives fp32's answers, and is not int8
_FLOAT_CONVOLUTIONS = ("Conv", "FusedConv", "NhwcFusedConv")
_INT8_CONVOLUTIONS = ("QLinearConv", "ConvInteger")


def count_operators(path: Path) -> dict[str, int]:
    """Return operator type -> how many of it a file holds."""
    return _count(onnx.load(path, load_external_data=False))


def opset_of(model: onnx.ModelProto) -> int | None:
    """Return the version of ONNX's own operators that a model is written in, None where it names none."""
    return next((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), None)


def _count(model: onnx.ModelProto) -> dict[str, int]:
    return dict(sorted(collections.Counter(node.op_type for node in model.graph.node).items()))


def prove(path: Path) -> dict:
    """Return what the runtime's optimized graph of a file holds, on a CPU.

    Quantizing marks places in the graph; whether a convolution between two marks runs in int8 is decided when the file is opened, and one that
    does not is slower than fp32, since it is taken out of int8 and put back.

    Returns:
        {"operators": type -> how many, "int8_convolutions", "float_convolutions", "batchnorms", "transposes", "float_weights_mb"}.
    """
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        options = session_options(1)
        options.optimized_model_filepath = str(optimized)
        open_on_cpu(str(path), options)
        model = onnx.load(optimized)
    counts = _count(model)
    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    return {
        "operators": counts,
        "int8_convolutions": sum(counts.get(name, 0) for name in _INT8_CONVOLUTIONS),
        "float_convolutions": sum(counts.get(name, 0) for name in _FLOAT_CONVOLUTIONS),
        "batchnorms": counts.get("BatchNormalization", 0),
        "transposes": counts.get("Transpose", 0),
        "float_weights_mb": round(sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in floats) / 1e6, 3),
    }


def why_not_int8(proof: dict, kept_in_float: int) -> str:
    """Return why a file must not be called int8, or "".

    Args:
        kept_in_float: the convolutions that were left in float on purpose.
    """
    stray, n = proof["float_convolutions"] - kept_in_float, proof["float_convolutions"] + proof["int8_convolutions"]
    if stray > 0 or not proof["int8_convolutions"]:
        return f"{proof['float_convolutions']} of its {n} convolutions run in float, {kept_in_float} of them on purpose"
    if kept_in_float > MOST_IN_FLOAT * n:
        return f"{kept_in_float} of its {n} convolutions are in float on purpose, and {MOST_IN_FLOAT:.0%} may be"
    return f"{proof['batchnorms']} BatchNormalizations are not folded into convolutions" if proof["batchnorms"] else ""
