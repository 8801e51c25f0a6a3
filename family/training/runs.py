"""Run folders: what a training leaves, and how to open it again."""

from pathlib import Path

from distributed.loading import load_tensorflow

load_tensorflow()

import tf_keras  # noqa: E402

from family.card import read_card, write_card  # noqa: E402
from family.errors import UserError  # noqa: E402
from family.models.builders import build_variant  # noqa: E402
from family.models.weights import read_layers  # noqa: E402
from family.outputs import whole_file  # noqa: E402

WEIGHTS = "weights.h5"


def save_run(run: Path, model: tf_keras.Model, card: dict) -> None:
    """Write the weights, then the card, whose presence says that the run is finished."""
    with whole_file(run / WEIGHTS) as partial:
        hdf5 = partial.with_suffix(".h5")  # Keras chooses the format by the ending
        model.save_weights(hdf5)
        hdf5.rename(partial)
    write_card(run, card)


def load_run(run: Path) -> tuple[tf_keras.Model, dict]:
    """Rebuild a finished run's model with its weights.

    Raises:
        UserError: not a finished run, or weights that don't fit the card.
    """
    card = read_card(run)
    if not (Path(run) / WEIGHTS).is_file():
        raise UserError(f"{run} has a card and no {WEIGHTS}; is it a bundle?")
    model = build_variant(card["variant"], len(card["classes"]), card["resolution_px"], activation=card.get("activation", ""))
    stored = read_layers(Path(run) / WEIGHTS)
    for layer in model.layers:
        if layer.weights:
            if [a.shape for a in stored.get(layer.name, [])] != [tuple(w.shape) for w in layer.weights]:
                raise UserError(f"{run}/{WEIGHTS}: layer {layer.name} is missing or of another shape than the card says")
            layer.set_weights(stored[layer.name])
    return model, card


def load_calibrated(run: Path) -> tuple[tf_keras.Model, dict]:
    """Rebuild a finished run's model as it answers: its logits divided by the temperature of its card, whose own is 1 then.

    The best category of an image stays, at the leaves; sums over several may change their order.
    """
    model, card = load_run(run)
    if not card.get("temperature"):
        return model, card
    temperature, head = card["temperature"], model.get_layer("logits")
    head.set_weights([array / temperature for array in head.get_weights()])
    card = {**card, "temperature": 1.0, "temperature_inside": temperature}
    ranges = card.get("compression", {}).get("ranges", {})
    if "logits" in ranges:  # what was learned of the logits as they were
        ranges = {**ranges, "logits": [end / temperature for end in ranges["logits"]]}
        card["compression"] = {**card["compression"], "ranges": ranges}
    return model, card
