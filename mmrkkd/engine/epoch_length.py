"""How long an epoch is in a run that counts iterations alone."""

import math

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmrkkd.distillers.running import EPOCH_LENGTH


def state_epoch_length(runner: Runner) -> None:
    """Tells the model how many iterations a pass over the data takes.

    MMEngine counts such a run as one epoch, in which weights scheduled by
    epoch would stay where they begin. Where the data have no length nothing
    is told.

    Args:
        runner: The runner, whose training begins.
    """
    length = None
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        try:
            length = iterations_of_a_pass(runner.train_dataloader)
        except TypeError:
            return
        runner.logger.info(
            f'An epoch, one pass over the training data, is {length} '
            'iterations where weights are scheduled by epoch.'
        )
    # Known anew when the run is resumed.
    runner.message_hub.update_info(EPOCH_LENGTH, length, resumed=False)


def iterations_of_a_pass(loader: DataLoader) -> int:
    """How many batches of all processes together are a pass, >= 1.

    Args:
        loader: The training data of this process.

    Raises:
        TypeError: the data have no length.
    """
    batches = len(loader)
    sampler = getattr(loader.batch_sampler, 'sampler', loader.sampler)
    if isinstance(sampler, InfiniteSampler):
        # Its length is that of the data set, not of a process's share.
        batches = math.ceil(batches / get_world_size())
    return max(batches, 1)
