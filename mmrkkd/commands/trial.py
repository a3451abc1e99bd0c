"""The dry run: the models are built and take one batch."""

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmrkkd.engine import prepare_model
from mmrkkd.evaluation.trial_steps import (
    as_in_training,
    mean_terms,
    training_batches,
)


def try_first_batch(config: Config, trust: bool = False) -> None:
    """Builds both models, takes a batch through them and prints the terms.

    Args:
        config: Of a distillation; its data sets are changed in place.
        trust: See :func:`mmrkkd.engine.prepare_run`. Defaults to False.
    """
    # Initialisation is told parameter by parameter.
    MMLogger.get_instance('dry_run', log_level='WARNING')
    with prepare_model(config, 'train_dataloader', trust) as model:
        model.to('cuda' if torch.cuda.is_available() else 'cpu')
        print(f'\n{model.settings()}', flush=True)
        dataset, batches = training_batches(config, 1)
        with as_in_training(dataset):
            terms = mean_terms(model, batches)
    lines = [f'  {key}: {value:.4g}' for key, value in terms.items()]
    print('\n'.join(['\nOne batch, weights of the student random', *lines]))
    print('\nDry run: nothing was written.')
