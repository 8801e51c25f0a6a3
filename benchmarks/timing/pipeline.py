"""What is timed is what is served: the stages that a request goes through, one after another."""

import functools
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from export.answering import levels_of, tell
from export.chain import Chain, Resized
from export.runtime import Predictor
from family.data.images import decode_rgb, resize

Pipeline = dict[str, Callable]  # stage -> what makes the next stage's input of the one before; the first takes a query
NULL: Pipeline = {stage: lambda value: value for stage in ("decode", "resize", "model", "post")}  # what it costs is the harness's own


def pipeline_of(predictor: Predictor, n_top: int = 5) -> Pipeline:
    """Return a bundle's stages, from a query (encoded images of one request) to the objects that `family predict` prints."""
    levels = levels_of(predictor.bundle.card)

    def post(probabilities: np.ndarray) -> list[dict]:
        return [tell(predictor.bundle.card, levels, own, n_top) for own in probabilities]

    return {
        "decode": lambda query: [decode_rgb(data) for data in query],
        "resize": lambda images: np.stack([resize(image, predictor.how) for image in images]),
        "model": predictor.predict,
        "post": post,
    }


def pipeline_of_chain(chain: Chain, asked: Counter, n_top: int = 5) -> Pipeline:
    """Return a chain's stages: its members share an image's decoding, and which submodels answer depends on the image; what these resize is in their stage.

    Args:
        asked: counts the images that each submodel is asked about, and, by "", all of them.
    """
    levels = levels_of(chain.card)

    def resize_first(images: list) -> Resized:
        resized = Resized(images)
        resized[chain.general.how]
        return resized

    def hand_over(answered: tuple) -> np.ndarray:
        asked[""] += len(answered[0])
        return chain.hand_over(*answered, tell=lambda name, n: asked.update({name: n}))

    return {
        "decode": lambda query: [decode_rgb(data) for data in query],
        "resize": resize_first,
        "model": lambda images: (chain.predict_general(images), images),
        "submodels": hand_over,
        "post": lambda answers: [tell(chain.card, levels, own, n_top) for own in answers],
    }


def split_at_model(pipeline: Pipeline) -> tuple[Callable, Callable]:
    """Return what comes before a pipeline's models, from a query to pixels, and the models alone."""
    before = [pipeline[stage] for stage in ("decode", "resize")]
    models = [pipeline[stage] for stage in ("model", "submodels") if stage in pipeline]
    return _one_after_another(before), _one_after_another(models)


def answering(pipeline: Pipeline) -> Callable:
    """Return all of a pipeline as one, from a query to its answers."""
    return _one_after_another(list(pipeline.values()))


def _one_after_another(stages: Sequence[Callable]) -> Callable:
    return lambda value: functools.reduce(lambda made, stage: stage(made), stages, value)


def queries_of(images: Sequence[bytes], batch: int) -> list[list[bytes]]:
    """Return queries of `batch` images each that go round over the images; each image begins one."""
    return [[images[(start + k) % len(images)] for k in range(batch)] for start in range(len(images))]
