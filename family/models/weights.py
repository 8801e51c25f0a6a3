"""Pretrained weights, loaded by layer name: from a file, from another run; what was loaded and what was not is reported."""

import re
from pathlib import Path

import h5py
import numpy as np
import tf_keras

from family.errors import UserError
from family.models.builders import library_trunk
from family.models.carrying import HeadPlan
from family.models.sources import DOWNLOADS, download_file, weights_path
from family.models.variants import variant

HEAD = "logits"
_UNNAMED = ("conv2d", "batch_normalization")  # of Inception-ResNet-V2


def load_trunk(model: tf_keras.Model, source: str) -> dict:
    """Load trunk weights by layer name into a model of `build_variant`.

    Args:
        source: `imagenet` or `noisy-student` (the libraries' own downloads), an HDF5 file of Keras 2, or a run folder.
            The head (`logits`) is never touched.

    Returns:
        {"source", "loaded": the number of arrays, "missing": layers of the model that the source lacks, "mismatched": layers of
        another shape there, "skipped": layers of the source that the trunk has no place for}.

    Raises:
        UserError: no such file, not HDF5, or nothing in it fits.
    """
    stored = _renumbered(_download(model, source) if source in DOWNLOADS else read_layers(_weights_file(source)))
    report = {"source": source, "loaded": 0, "missing": [], "mismatched": [], "skipped": []}
    wanted = {layer.name: layer for layer in model.layers if layer.weights and layer.name != HEAD}
    report["skipped"] = [name for name in stored if name not in wanted]
    for layer in wanted.values():
        arrays = stored.get(layer.name)
        if arrays is None:
            report["missing"].append(layer.name)
        elif [a.shape for a in arrays] != [tuple(w.shape) for w in layer.weights]:
            report["mismatched"].append(layer.name)
        else:
            layer.set_weights(arrays)
            report["loaded"] += len(arrays)
    if report["loaded"] == 0:
        found = ", ".join(list(stored)[:5])
        raise UserError(f"{source}: no layer fits this variant. It has {found} ...; wanted {', '.join(report['missing'][:5])} ...")
    return report


def refuse_parts(loaded: dict, variant: str) -> None:
    """Hold that a trunk was loaded as a whole, for a phase in which it, or its BatchNorm's statistics, stay as they are.

    Args:
        loaded: of `load_trunk`.

    Raises:
        UserError: some layers are still random, or some of the source's do nothing here.
    """
    random = [*loaded["missing"], *loaded["mismatched"]]
    unused = [name for name in loaded["skipped"] if "_se_" in name]  # without squeeze-and-excite all that follows sees other numbers
    if not random and not unused:
        return
    what = f"{len(random)} layers would stay random" if random else f"{len(unused)} squeeze-and-excite layers of it have no place"
    raise UserError(
        f"{loaded['source']} fits {variant} only in part: {what}, such as {', '.join((random or unused)[:3])}. This recipe keeps the trunk, or its "
        f"BatchNorm statistics, as they are loaded: give the weights of {variant}, or train all of it (--set head_epochs=0 --set batchnorm=train)"
    )


def load_head(model: tf_keras.Model, run: str, plan: HeadPlan) -> None:
    """Set the head (`logits`) of a model of `build_variant` to the rows of a run's head, as planned; new categories keep theirs.

    Raises:
        UserError: the run's head is not of the shape that its card says.
    """
    head = model.get_layer(HEAD)
    stored = read_layers(_weights_file(run)).get(HEAD, [])
    wanted = [(head.kernel.shape[0], len(plan.ways)), (len(plan.ways),)]
    if [array.shape for array in stored] != wanted:
        raise UserError(f"{run}: the head's arrays have the shapes {[array.shape for array in stored]}; wanted {wanted}, as its card says")
    head.set_weights(plan.rows(*stored, *head.get_weights()))


def read_layers(path: Path) -> dict[str, list[np.ndarray]]:
    """Read a Keras 2 HDF5 weights file: layer name to its arrays, in their order.

    Raises:
        UserError: it is no such file, or damaged.
    """
    try:
        with h5py.File(path, "r") as file:
            group = file.get("model_weights", file)
            return {
                name: [np.asarray(group[name][w]) for w in _names(group[name], "weight_names")] for name in _names(group, "layer_names")
            }
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is no Keras 2 weights file (HDF5), or it is damaged: {error}") from error


def _renumbered(stored: dict) -> dict:
    """Count layers that a library left unnamed from the first on, as `build_variant` does: Keras counts on through a process."""
    names = {}
    for kind in _UNNAMED:
        numbers = {int(found[1] or 0): name for name in stored if (found := re.fullmatch(rf"{kind}(?:_(\d+))?", name))}
        names |= {numbers[k]: f"{kind}_{place}" if place else kind for place, k in enumerate(sorted(numbers))}
    return {names.get(name, name): arrays for name, arrays in stored.items()}


def _names(group: h5py.Group, attribute: str) -> list[str]:
    names = [name.decode() if isinstance(name, bytes) else name for name in group.attrs[attribute]]
    return [name for name in names if attribute == "weight_names" or len(group[name].attrs["weight_names"])]


def _weights_file(source: str) -> Path:
    path = weights_path(source)
    if not path.is_file():
        raise UserError(f"no weights at {path}; wanted none, {', '.join(DOWNLOADS)}, a Keras 2 HDF5 file, or a run folder")
    return path


def _download(model: tf_keras.Model, source: str) -> dict[str, list[np.ndarray]]:
    """Let the variant's library fetch its published trunk."""
    row = variant(model.name)
    file = download_file(row, source)
    try:
        trunk = library_trunk(row, model.input.shape[1], weights=source)
    except Exception as error:  # each library fails in its own way where there is no network
        reason = str(error).splitlines()[0][:160]
        raise UserError(
            f"the {source} weights of {row.name} could not be fetched ({reason}). Where there is no network, get the library's "
            f"file without its head, {file}, and give --weights FILE"
        ) from error
    return {layer.name: layer.get_weights() for layer in trunk.layers if layer.weights}
