"""Where the heads of dense detectors are crossed if no config says it."""

from collections.abc import Sequence

from torch import nn

from .loss_tap import by_class

AUTO = 'auto'
# Published: the last convolution of a tower and the scores are the teacher's.
TEACHERS = 1
# In FCOS the last two are.
TEACHERS_OF = {'FCOSHead': 2}
# Whose levels share their towers, but not the scores: by the tower's name.
SCORES_OF = {
    'RTMDetInsSepBNHead': dict(cls_convs='rtm_cls.*', reg_convs='rtm_reg.*')
}


def usual_layer(head: nn.Module, towers: Sequence[str]) -> str | None:
    """The path of the layer at which a head is usually crossed.

    That is the activation of the convolution before those that are the
    teacher's; of a tower as short as that, of the first.

    Args:
        head: A dense head.
        towers: What its list of convolutions may be called; where each level
            has a list of its own the path has a '*' for the levels.

    Returns:
        None where it has no tower of convolutions with activations.

    Source: Wang et al. (CrossKD), arXiv:2306.11369, sections 3.2 and 4.1.
    """
    for name in towers:
        if shared := by_class(SCORES_OF, head):
            return shared[name]
        convs, path = getattr(head, name, None), name
        if not isinstance(convs, (nn.ModuleList, nn.Sequential)):
            continue
        if len(convs) and isinstance(convs[0], (nn.ModuleList, nn.Sequential)):
            convs, path = convs[0], f'{path}.*'
        if not len(convs):
            continue
        own = len(convs) - (by_class(TEACHERS_OF, head) or TEACHERS)
        place = max(own - 1, 0)
        conv, path = convs[place], f'{path}.{place}'
        if hasattr(conv, 'pointwise_conv'):
            conv, path = conv.pointwise_conv, f'{path}.pointwise_conv'
        if isinstance(getattr(conv, 'activate', None), nn.Module):
            return f'{path}.activate'
    return None
