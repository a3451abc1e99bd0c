"""Weights under the names that a model has, whatever wrapped it."""

from collections import Counter
from collections.abc import Collection

from torch import Tensor

# torch.compile puts it before the names of each module that it wraps.
COMPILED = '_orig_mod.'


def without_prefix(
    weights: dict[str, Tensor], own: Collection[str]
) -> tuple[dict[str, Tensor], str]:
    """Takes off what other tools put before the names of a model's weights.

    MMRazor's ``architecture.``, Lightning's ``model.``, a distiller's
    ``student.`` and the like go where every key begins with the same and
    names of the model are left; ``_orig_mod.`` goes wherever it stands.

    Args:
        weights: Key to tensor.
        own: The model's keys.

    Returns:
        The weights under the new names, and what was taken off, '' for
        nothing.
    """
    removed = ''
    if any(COMPILED in key for key in weights):
        renamed = {
            key.replace(COMPILED, ''): value for key, value in weights.items()
        }
        if len(set(renamed) & set(own)) > len(set(weights) & set(own)):
            weights, removed = renamed, COMPILED
    prefix, _ = max(
        _prefixes(weights, own).items(),
        key=lambda item: item[1],
        default=('', 0),
    )
    if prefix and all(key.startswith(prefix) for key in weights):
        weights = {
            key.removeprefix(prefix): value for key, value in weights.items()
        }
        removed = prefix + removed
    return weights, removed


def _prefixes(
    weights: Collection[str], own: Collection[str]
) -> dict[str, int]:
    """What stands before names of the model, and before how many."""
    own = set(own)
    found = Counter()
    for key in weights:
        parts = key.split('.')
        for index in range(len(parts)):
            if '.'.join(parts[index:]) in own:
                found[''.join(f'{part}.' for part in parts[:index])] += 1
    return found


def prefix_advice(weights: Collection[str], own: Collection[str]) -> str:
    """What to do with a checkpoint some of whose keys fit behind a prefix.

    Args:
        weights: Its keys.
        own: The model's keys.

    Returns:
        Text for the end of an error, '' where there is no such prefix.
    """
    prefixes = _prefixes(weights, own)
    # More names of the model behind a prefix than as they are.
    behind = {
        prefix: count
        for prefix, count in prefixes.items()
        if prefix and count > prefixes.get('', 0) and 2 * count > len(own)
    }
    if not behind:
        return ''
    shown = ', '.join(
        f'{prefix!r} ({count} of {len(own)})'
        for prefix, count in sorted(behind.items())
    )
    prefix = max(behind, key=behind.get)
    return (
        f'\nNames of the model stand behind {shown}, and the checkpoint has '
        'keys without it. Write those you mean to a file of their own:\n'
        "  weights = torch.load(PATH, map_location='cpu')['state_dict']\n"
        f'  torch.save({{key[{len(prefix)}:]: value for key, value in '
        f"weights.items() if key.startswith({prefix!r})}}, 'teacher.pth')"
    )
