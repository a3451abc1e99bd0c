"""Random weights for a teacher without a checkpoint."""

from mmengine.model import PretrainedInit
from torch import nn

PRETRAINED = ('Pretrained', PretrainedInit)


def give_random_weights(model: nn.Module) -> None:
    """Initialises every weight as a training from scratch does.

    Some are made by ``init_weights`` alone, such as the ``level_embed`` of
    Deformable DETR: what they hold before is whatever the memory held.
    Nothing is loaded or downloaded: initialisation by a pretrained file is
    left out. Random numbers are drawn.

    Args:
        model: Just built; changed in place.
    """
    if not hasattr(model, 'init_weights'):
        return
    for module in model.modules():
        stated = getattr(module, 'init_cfg', None)
        if isinstance(stated, dict):
            stated = [stated]
        if isinstance(stated, (list, tuple)):
            kept = [each for each in stated if not _loads(each)]
            if len(kept) < len(stated):
                # Some modules ask for a dict or None.
                module.init_cfg = kept or None
        # Where DetectoRS's backbone keeps its file.
        if isinstance(getattr(module, 'pretrained', None), str):
            module.pretrained = None
    # MMEngine would tell how each weight was made, in hundreds of lines.
    model._dump_init_info = lambda: None
    try:
        model.init_weights()
    finally:
        del model._dump_init_info


def _loads(init: dict) -> bool:
    return init.get('type') in PRETRAINED or 'checkpoint' in init
