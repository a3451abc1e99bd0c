"""A distiller's state dict is the plain student's.

The keys are the student's and nothing else. What a loss learns travels where
PyTorch keeps the versions of modules: in the state dict's ``_metadata``, which
loading a student ignores, strictly too.
"""

from torch import nn

STUDENT = 'student.'
DISTILLER = 'distiller.'
# Under this key, in the metadata of the module itself.
LEARNED = 'distiller'


def as_plain_student(
    module: nn.Module, state_dict: dict, prefix: str, local_metadata: dict
) -> None:
    """State dict hook of a module with ``student`` and ``distiller``.

    Args:
        module: The module.
        state_dict: Its state, changed in place: the student's keys lose
            their prefix, the distiller's leave. They stay in one that has
            no metadata, which PyTorch and MMEngine never make.
        prefix: Of the module's own keys.
        local_metadata: The module's metadata; unused.
    """
    metadata = getattr(state_dict, '_metadata', None)
    learned = {}
    for key in list(state_dict):
        if key.startswith(prefix + STUDENT):
            name = key[len(prefix + STUDENT) :]
            state_dict[prefix + name] = state_dict.pop(key)
        elif key.startswith(prefix + DISTILLER) and metadata is not None:
            value = state_dict.pop(key).detach()
            learned[key[len(prefix + DISTILLER) :]] = value.to(
                'cpu', copy=True
            )
    # Names of modules have no dot at their end.
    for key in list(metadata or {}):
        dotted = key + '.'
        if dotted.startswith(prefix + STUDENT):
            name = prefix + dotted[len(prefix + STUDENT) :]
            metadata[name[:-1]] = metadata.pop(key)
        elif dotted.startswith(prefix + DISTILLER):
            del metadata[key]
    if learned:
        metadata[prefix[:-1]][LEARNED] = learned


def as_distiller(state_dict: dict, prefix: str, local_metadata: dict) -> None:
    """Undoes :func:`as_plain_student`, before a state dict is loaded.

    Args:
        state_dict: Changed in place. Keys that have their prefixes already
            are left as they are.
        prefix: Of the module's own keys.
        local_metadata: The module's metadata.
    """
    for key in list(state_dict):
        name = key[len(prefix) :]
        if key.startswith(prefix) and not name.startswith(
            (STUDENT, DISTILLER)
        ):
            state_dict[prefix + STUDENT + name] = state_dict.pop(key)
    for name, value in local_metadata.get(LEARNED, {}).items():
        state_dict.setdefault(prefix + DISTILLER + name, value)
