"""The PyTorch side of `family bench train --peers`: the `efficientnet_pytorch` package's model, trained as its users do. No TensorFlow."""

import os
import time
from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from efficientnet_pytorch import EfficientNet
from torch.nn import functional
from torch.utils.data import DataLoader

from benchmarks.training.drawn import TAIL_STEPS, full_slices
from distributed.world import World
from family.data.crops import read_cropped, row_draws
from family.data.dataset import Rows
from family.data.images import Preprocessing
from family.models.variants import variant
from family.recipe import Recipe

_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
_SWISHES = {"memory-efficient (its default)": True, "torch.nn.SiLU": False}
_TRIAL_STEPS = 4


class PyTorch:
    """A model in training, in the memory format and with the swish that were the fastest in a trial; `conditions` tell which."""

    def __init__(self, name: str, rows: Rows, recipe: Recipe):
        self._name, self._rows, self._recipe = name, rows, recipe
        n_cores = len(os.sched_getaffinity(0))
        torch.set_num_threads(n_cores)
        torch.manual_seed(recipe.seed)
        tried = {}
        for setting in product(_FORMATS, _SWISHES):
            self._build(*setting)
            self.time_steps(1)  # the allocator and oneDNN see the sizes
            tried[setting] = _TRIAL_STEPS * recipe.batch_size / self.time_steps(_TRIAL_STEPS)
        best = max(tried, key=tried.get)
        self._build(*best)
        self.conditions = {
            "threads": n_cores,
            "loader_workers": n_cores,
            "memory_format": best[0],
            "swish": best[1],
            "tried_images_per_s": {", ".join(setting): rate for setting, rate in tried.items()},
            "mode": "eager",
            "optimizer": "torch.optim.AdamW, fused",
        }

    def _build(self, memory_format: str, swish: str) -> None:
        self._model, self._format = build_model(self._name, len(self._rows.ontology.leaves), self._recipe), _FORMATS[memory_format]
        self._model.to(memory_format=self._format).train()
        self._model.set_swish(_SWISHES[swish])
        self._optimizer = make_optimizer(self._model, self._recipe)

    def time_steps(self, n_steps: int) -> float:
        """Take a step untimed and return the seconds of the next `n_steps`, whose input is read while they run."""
        batches, ends_s = self.batches(1 + n_steps + TAIL_STEPS), []
        for _ in range(1 + n_steps):
            self.step(*next(batches))
            ends_s.append(time.monotonic())
        return ends_s[-1] - ends_s[0]

    def batches(self, n_steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Return (images uint8 [n, px, px, 3], labels int64 [n]) of our rows and crops; its worker processes end with it."""
        recipe = self._recipe
        slices = [own for own, *_ in full_slices(len(self._rows), recipe, n_steps, World())]
        return iter(DataLoader(_Crops(self._rows, recipe), batch_sampler=slices, num_workers=len(os.sched_getaffinity(0))))

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[float, int]:
        """Take one update and return its loss and its right answers, which our step and `fit` read each time, too."""
        row = variant(self._name)
        scale, offset = (torch.tensor(values).view(-1, 1, 1) for values in (row.scale, row.offset))
        inputs = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=self._format) * scale + offset
        self._optimizer.zero_grad(set_to_none=True)
        logits = self._model(inputs)
        loss = functional.cross_entropy(logits, labels, label_smoothing=self._recipe.label_smoothing)
        loss.backward()
        self._optimizer.step()
        return loss.item(), int((logits.argmax(1) == labels).sum())


class _Crops(torch.utils.data.Dataset):
    def __init__(self, rows: Rows, recipe: Recipe):
        self._rows, self._recipe, self._how = rows, recipe, Preprocessing(recipe.resolution_px, recipe.aspect)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: np.int64) -> tuple[np.ndarray, int]:
        pixels = read_cropped(self._rows, int(row), self._how, self._recipe, row_draws(self._recipe.seed, 0, int(row)))
        return np.ascontiguousarray(pixels), int(self._rows.labels[row])


def build_model(name: str, n_classes: int, recipe: Recipe) -> EfficientNet:
    """Return the package's model of a variant; told its size, it pads statically, which is faster."""
    return EfficientNet.from_name(f"efficientnet-{name}", num_classes=n_classes, image_size=recipe.resolution_px,
                                  dropout_rate=recipe.dropout, drop_connect_rate=recipe.drop_connect)  # fmt: skip


def make_optimizer(model: EfficientNet, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW at our recipe's rate, which pulls weights and not the offsets and scales of normalization, as ours."""
    parameters = list(model.parameters())
    groups = [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
              {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0}]  # fmt: skip
    return torch.optim.AdamW(groups, recipe.finetune_rate * recipe.batch_size / 256, fused=True)
