"""The card: one JSON record that travels from run to bundle to results; each stage adds its own fields."""

import math
from pathlib import Path

from family.errors import UserError
from family.outputs import read_json, write_json

SCHEMA = 1
FILE = "card.json"
SCHEMES = {
    "fp32": "as trained; probabilities within 1e-5 of the run's",
    "fp16": "half the bytes, for GPUs (a CPU computes it in fp32); gated on accuracy",
    "int8": "static, U8 activations, S8 weights per channel, ranges searched, gated on accuracy",
}
_WANTED = {
    "schema": int,
    "name": str,
    "variant": str,
    "resolution_px": int,
    "scope": str,
    "classes": list,
    "paths": list,
    "preprocessing": dict,
}
_PX = range(1, 2049)  # that images are resized to
_SETTINGS = {"scheme": str, "provider": str, "threads": int}  # of `serve`
_OPTIONAL = {  # fields that not every card has, and what they may hold
    "node_ids": lambda value: _is_text_to_text(value),
    "files": lambda value: _is_text_to_text(value),
    "schemes": lambda value: isinstance(value, dict) and all(isinstance(entry, dict) for entry in value.values()),
    "serve": lambda value: isinstance(value, dict) and all(type(value[key]) is kind for key, kind in _SETTINGS.items() if key in value),
    **dict.fromkeys(("dataset", "export", "training"), lambda value: isinstance(value, dict)),
    "refused": lambda value: isinstance(value, dict) and all(isinstance(entry, dict) for entry in value.values()),
    "temperature": lambda value: value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf),
    "activation": lambda value: isinstance(value, str),
    "compression": lambda value: isinstance(value, dict) and _are_ranges(value.get("ranges", {})),
}
_PREPROCESSING = ("resolution_px", "aspect", "filter")


def member_name(card: dict, scheme: str | None = None) -> str:
    """Return `variant-resolution-scope[-label][-scheme]`."""
    parts = [card["variant"], str(card["resolution_px"]), card["scope"], card.get("label"), scheme]
    return "-".join(part for part in parts if part)


def write_card(folder: Path, card: dict) -> None:
    """Write a folder's card."""
    write_json(folder / FILE, card)


def read_card(folder: Path) -> dict:
    """Read and check the card of a run or a bundle.

    Raises:
        UserError: there is none, it is of a newer schema, or a field is missing.
    """
    folder = Path(folder)
    if not (folder / FILE).is_file():
        raise UserError(f"{folder} is neither a finished run nor a bundle (no {FILE})")
    card = read_json(folder / FILE)
    if not isinstance(card, dict) or not isinstance(card.get("schema"), int):
        raise UserError(f"{folder / FILE} is no card")
    if card["schema"] > SCHEMA:
        raise UserError(f"{folder / FILE}: card schema {card['schema']}; this version reads up to {SCHEMA}")
    wrong = [key for key, kind in _WANTED.items() if not isinstance(card.get(key), kind)]
    wrong += [f"preprocessing.{key}" for key in _PREPROCESSING if not wrong and key not in card["preprocessing"]]
    if not wrong:
        wrong += [key for key in ("classes", "paths") if not all(isinstance(value, str) for value in card[key])]
        px = card["preprocessing"]["resolution_px"]
        wrong += ["preprocessing.resolution_px"] if type(px) is not int or px not in _PX else []
    wrong += [key for key, is_right in _OPTIONAL.items() if key in card and not is_right(card[key])]
    if wrong or len(card["classes"]) != len(card["paths"]):
        raise UserError(f"{folder / FILE}: the card lacks {', '.join(wrong) or 'a path for each class'}, or holds something else there")
    return card


def _is_text_to_text(value) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values())


def _are_ranges(value) -> bool:
    """Say whether a value is layer -> [low, high], with 0 inside."""
    return isinstance(value, dict) and all(
        isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, int | float) for end in ends) and -math.inf < ends[0] <= 0 <= ends[1] < math.inf
        for ends in value.values()
    )
