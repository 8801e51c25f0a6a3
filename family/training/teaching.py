"""Teachers: trained runs whose answers another model learns from, on the very pixels that it sees."""

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from family.data.ontology import Ontology
from family.errors import UserError
from family.models.builders import logits_of
from family.training.runs import load_run


def make_teacher(runs: list[Path], ontology: Ontology, temperature: float) -> Callable:
    """Return a function: float32 images [n, px, px, 3] of 0..255 -> float32 probabilities [n, n_leaves] at a temperature.

    Several teachers answer with the mean of their probabilities. A teacher that knows more categories than are asked for (the general
    model, for a vertical) answers for these alone. One of another resolution sees the same pixels, resized: with their augmentation,
    as Beyer et al. 2021 (2106.05237) found to matter most.

    Raises:
        UserError: no finished run, or one that lacks a category.
    """
    teachers = [_load(run, ontology) for run in runs]

    def teach(images: tf.Tensor) -> tf.Tensor:
        answers = []
        for model, columns in teachers:
            px = model.input.shape[1]
            seen = images if images.shape[1] == px else tf.image.resize(images, (px, px), antialias=True)
            logits = tf.cast(model(seen, training=False), tf.float32)
            answers.append(tf.nn.softmax(tf.gather(logits, columns, axis=1) / temperature))
        return tf.add_n(answers) / len(answers)

    return teach


def _load(run: Path, ontology: Ontology) -> tuple[Callable, list[int]]:
    """Return a run's model up to its logits and the column of each leaf."""
    model, card = load_run(run)
    place = {leaf: k for k, leaf in enumerate(card["classes"])}
    missing = [leaf for leaf in ontology.leaves if leaf not in place]
    if missing:
        raise UserError(
            f"the teacher {run} does not know {len(missing)} of {len(ontology.leaves)} categories: {', '.join(missing[:3])} ..."
        )
    model.trainable = False
    return logits_of(model), [place[leaf] for leaf in ontology.leaves]
