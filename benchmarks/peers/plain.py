"""A run as the converter writes it, without our changes of the graph: what somebody gets who calls tf2onnx on the Keras model.

python -m benchmarks.peers.plain RUN FILE.onnx

Then `family bench BUNDLE --peers --plain FILE.onnx` compares it with the bundle of that run. Pixels come in as float32; their scaling stands before the
first convolution, and the reshapes around squeeze-and-excite stay.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.studies.parts import exit_code_of
from family.outputs import whole_file


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.plain", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("out", type=Path, metavar="FILE.onnx")
    args = parser.parse_args()
    return exit_code_of(lambda: _export(args.run, args.out))


def _export(run: Path, out: Path) -> None:
    from family.training.runs import load_calibrated

    model, _ = load_calibrated(run)
    with whole_file(out) as partial:
        convert_plainly(model, partial)


def convert_plainly(model, path: Path) -> None:
    """Write a Keras model with tf2onnx: float32 [N, px, px, 3] -> `probabilities` float32 [N, n_classes]."""
    import tf2onnx

    from export.onnx import OPSET

    tf2onnx.convert.from_keras(model, opset=OPSET, output_path=str(path))


if __name__ == "__main__":
    sys.exit(main())
