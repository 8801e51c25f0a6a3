"""What opening a file costs, in a process of its own: how long until it can answer, imports apart, and the most memory that answering takes.

python -m benchmarks.timing.loading BUNDLE SCHEME PROVIDER THREADS BATCH,...
"""

import io
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from family.errors import Failure

N_ANSWERED = 20


def measure_loading(bundle: Path, scheme: str | None, provider: str, threads: int, batches: Iterable[int] = ()) -> dict:
    """Return {"load_ms", "first_ms", "memory_mb", "placement"}; memory is the most of the whole process, with Python and ONNX Runtime, in units of 2^20
    bytes, after queries of one image, and of up to each of `batches`: {"1": ..., "8": ...}.

    Raises:
        Failure: the file can't be opened there.
    """
    command = [sys.executable, "-m", "benchmarks.timing.loading", str(bundle), scheme or "", provider, str(threads), ",".join(map(str, batches))]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    if ended.returncode:
        raise Failure(f"{bundle} can't be opened in a process of its own: {ended.stderr.strip()[-500:]}")
    return json.loads(ended.stdout)


def main(words: list[str]) -> None:
    from PIL import Image

    from export.chain import open_any
    from family.machine import peak_memory_mb

    began = time.perf_counter()
    path, scheme, provider, threads = Path(words[0]), words[1] or None, words[2], int(words[3])  # no scheme: a chain as it was picked
    model = open_any(path, scheme, provider, threads)
    opened = time.perf_counter()
    px = 2 * model.card["resolution_px"]
    buffer = io.BytesIO()
    Image.effect_noise((px, px), 64).convert("RGB").save(buffer, "JPEG")
    first = time.perf_counter()
    model.answer(buffer.getvalue())
    answered = time.perf_counter()
    for _ in range(N_ANSWERED):
        model.answer(buffer.getvalue())
    held_mb = {1: peak_memory_mb()}
    for batch in sorted(int(word) for word in words[4].split(",") if word not in ("", "1")):
        _answer_at_once(model, buffer.getvalue(), batch)
        held_mb[batch] = peak_memory_mb()
    placed = _placement(path, scheme, provider, threads)
    json.dump({"load_ms": 1000 * (opened - began), "first_ms": 1000 * (answered - first), "memory_mb": held_mb, "placement": placed}, sys.stdout)


def _answer_at_once(model, data: bytes, batch: int) -> None:
    """Answer a query of several images as it is timed."""
    import numpy as np

    from export.chain import Chain, Resized
    from family.data.images import decode_rgb, resize

    images = [decode_rgb(data) for _ in range(batch)]
    for _ in range(2):
        model.predict(Resized(images) if isinstance(model, Chain) else np.stack([resize(image, model.how) for image in images]))


def _placement(path: Path, scheme: str | None, provider: str, threads: int) -> dict[str, dict[str, int]]:
    """Return where the nodes of a bundle's graph run, of a chain those of its members."""
    from export.bundle import open_bundle
    from export.chain import folders_of
    from export.runtime import default_settings, placement

    bundles = map(open_bundle, folders_of(path))
    found = [placement(bundle, default_settings(bundle, scheme, provider, threads)) for bundle in bundles]
    return {kind: dict(sum((Counter(one[kind]) for one in found), Counter())) for kind in ("nodes", "convolutions")}


if __name__ == "__main__":
    main(sys.argv[1:])
