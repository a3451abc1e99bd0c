"""A student's losses on held-out images, by its weights of the moment."""

import copy
import math
from collections.abc import Sequence

import torch
from mmengine.config import Config
from torch import nn

from mmrkkd.checkpoint.random_state import random_state_kept, seed_all
from mmrkkd.distillers import LogitDistiller
from mmrkkd.distillers.terms import level_means

from .agreement import held_out_loader
from .evenly import evenly

TASK, TOTAL = 'task', 'total'


def held_out_batches(
    config: Config, count: int
) -> tuple[object, list[dict], list[int]]:
    """Validation images with their annotations, evenly spaced.

    Args:
        config: A whole config with ``val_dataloader``.
        count: How many images, fewer where there are not as many.

    Returns:
        The data set, batches as the data loader makes them, and how many
        images each has.
    """
    config = copy.deepcopy(config)
    config.test_dataloader = config.val_dataloader
    loader = held_out_loader(config, masks=True)
    dataset = loader.dataset
    chosen = evenly(len(dataset), count)
    parts = [
        chosen[start : start + loader.batch_size]
        for start in range(0, len(chosen), loader.batch_size)
    ]
    batches = [
        loader.collate_fn([dataset[index] for index in part]) for part in parts
    ]
    return dataset, batches, [len(part) for part in parts]


class HeldOutLoss:
    """The losses of a student, or of a distillation, as means over images.

    The student is in eval mode: running statistics are used and not
    changed, nothing is dropped. The detector alone is told that it trains,
    since the loss of DINO and its relatives needs the denoising queries
    that they make in training only. What is drawn at random, the boxes that
    a two-stage detector samples, is drawn anew by the same seed at each
    call. The number of boxes by which a detector divides is its own, so
    that its loss on a batch is the mean over the batch of the log.

    Args:
        model: A student, or a distiller around it; its modes are changed.
        batches: As a data loader gives them.
        sizes: How many images each has.
        seed: Of what is drawn at random.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[dict],
        sizes: Sequence[int],
        seed: int,
    ) -> None:
        self.model, self.seed = model.eval(), seed
        getattr(model, 'student', model).training = True
        self.batches, self.sizes = batches, sizes

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """The losses with the weights as they are.

        Returns:
            ``task``, the sum of the student's own losses; of a distiller
            ``total``, all that its training adds up, and each loss by its
            log key, weighted as there.
        """
        sums: dict[str, float] = {}
        with random_state_kept():
            seed_all(self.seed)
            for batch, size in zip(self.batches, self.sizes, strict=True):
                for name, value in self._losses(batch).items():
                    sums[name] = sums.get(name, 0.0) + size * value
        return {name: value / sum(self.sizes) for name, value in sums.items()}

    def _losses(self, batch: dict) -> dict[str, float]:
        data = self.model.data_preprocessor(copy.deepcopy(batch), False)
        terms = {}
        for name, value in self.model(**data, mode='loss').items():
            if 'loss' in name:
                terms[name] = math.fsum(map(float, level_means(value)))
        total = math.fsum(terms.values())
        if isinstance(self.model, LogitDistiller):
            return {TOTAL: total, **terms}
        return {TASK: total}
