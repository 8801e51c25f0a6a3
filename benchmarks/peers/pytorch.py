"""A variant in PyTorch, as `efficientnet_pytorch` builds it, with random weights: what the architecture costs there. A side of `family bench --peers`."""

import numpy as np
import torch
from efficientnet_pytorch import EfficientNet
from torch import nn


class PyTorch:
    """The network, traced and frozen, with its channels last, which is the faster layout on a processor."""

    dtype = np.float32

    def __init__(self, card: dict, n_threads: int):
        torch.set_num_threads(n_threads)
        px = card["resolution_px"]
        network = EfficientNet.from_name(f"efficientnet-{card['variant']}", num_classes=len(card["classes"]), image_size=px)
        network.set_swish(memory_efficient=False)  # the other one can't be traced
        model = nn.Sequential(network, nn.Softmax(dim=1)).eval().to(memory_format=torch.channels_last)
        example = torch.zeros(1, 3, px, px).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            self._model = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model, example)))

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return float32 [n, n_classes] probabilities of [n, px, px, 3] RGB images."""
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(images, self.dtype)).permute(0, 3, 1, 2)  # channels last, without a copy
            return self._model((pixels - 127.5) / 127.5).numpy()
