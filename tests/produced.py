"""A small made-up dataset and a table of two tiny members, for the tests of `family produce`."""

from pathlib import Path

from family import cli

TINY = """
[[matrix]]
variants = ["lite0"]
scopes = ["general", "animals"]
recipe = "scratch"
weights = "none"
schemes = "fp32"
set = { resolution_px = 32, finetune_epochs = 6, batch_size = 2, deterministic = true, residual_gamma = 1.0, checkpoint_interval_s = 0.1, label = "" }
"""


def made_place(folder: Path) -> Path:
    """Fill a folder with the dataset and the table."""
    assert cli.main(["data", "synth", str(folder / "dataset"), "--listings", "40", "--categories", "12"]) == 0
    (folder / "tiny.toml").write_text(TINY)
    return folder


def produce(place: Path, *words) -> int:
    """Run the command in this process."""
    return cli.main(["produce", str(place / "dataset"), *map(str, words)])


def tiny(place: Path, out: Path, *more) -> list:
    """Return the words of the command that makes both members."""
    return ["produce", place / "dataset", "--out", out, "--members", place / "tiny.toml", *more]
