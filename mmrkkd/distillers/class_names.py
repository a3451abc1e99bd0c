"""Class names in one form, from wherever they are stated."""

from collections.abc import Mapping, Sequence

# MMEngine's key, and that of the generation before it.
KEYS = ('classes', 'CLASSES')


class StatedNames(tuple):
    """Class names that a data set states, and which of them are things.

    A panoptic data set lists stuff as well, which a box head does not know:
    MMDetection's CocoPanopticDataset has 133 ``classes``, the first 80 of
    which are its ``thing_classes``.
    """

    things: tuple[str, ...] = ()


def names_of_head(
    names: tuple[str, ...] | None,
    classes: int,
    others: tuple[str, ...] | None = None,
) -> tuple[str, ...] | None:
    """The names that a head with so many classes has.

    Args:
        names: Those that are stated.
        classes: Of the head, without background.
        others: The other model's names: checkpoints of MMDetection 2 do not
            say which of theirs are things. Defaults to None.

    Returns:
        Of :class:`StatedNames` that are too many the first ones, if they
        are the things, whose labels come first, or the ``others``; else all.
    """
    too_many = isinstance(names, StatedNames) and len(names) > classes
    if too_many and names[:classes] in (names.things, others):
        return names[:classes]
    return names


def names_in_order(owner: str, names: object) -> tuple[str, ...] | None:
    """Brings the ways to write down class names into one.

    Args:
        owner: Whose they are, for the message.
        names: A list, tuple or array of names in the order of the channels,
            a dict from channel to name or from name to channel, or None.

    Returns:
        The names; None for None.

    Raises:
        ValueError: it is one string, or has no order.
    """
    if names is None or isinstance(names, StatedNames):
        return names
    if isinstance(names, str):
        raise ValueError(
            f'{owner} must be a list of class names, got the string '
            f'{names!r}. A single name in parentheses needs a comma to be a '
            f'tuple: ({names!r},)'
        )
    if isinstance(names, Mapping):
        return _by_channel(owner, names)
    # An array is no Sequence, but has an order too.
    if isinstance(names, Sequence) or hasattr(names, 'tolist'):
        return tuple(getattr(names, 'tolist', lambda: names)())
    raise ValueError(
        f'{owner} must be a list of class names in the order of the '
        f'channels, got {names!r:.200}'
    )


def _by_channel(owner: str, names: Mapping) -> tuple[str, ...]:
    channels = [str(channel) for channel in range(len(names))]
    for pairs in (
        names.items(),
        ((channel, name) for name, channel in names.items()),
    ):
        # Keys that went through JSON are strings.
        by_channel = {str(channel): name for channel, name in pairs}
        if set(by_channel) == set(channels):
            return tuple(by_channel[channel] for channel in channels)
    raise ValueError(
        f'{owner} is a dict that does not number its {len(names)} class '
        f'names from 0 to {len(names) - 1}: {dict(names)!r:.200}; give a list '
        'of names in the order of the channels'
    )


def metainfo_classes(owner: str, meta: object) -> tuple[str, ...] | None:
    """The class names that a data set's ``metainfo`` states.

    Args:
        owner: Whose metainfo it is, for the message.
        meta: A dict with ``classes`` or ``CLASSES``; a list of such dicts
            where data sets were concatenated; a list of names; or None.

    Returns:
        The names, :class:`StatedNames` where they stand in a dict, or None
        if it states none. Of concatenated data sets the longest list, if it
        goes on where the others end.

    Raises:
        ValueError: names are in no known form, or those of concatenated
            data sets contradict each other.
    """
    if isinstance(meta, Mapping):
        stated = (meta[key] for key in KEYS if meta.get(key) is not None)
        names = names_in_order(owner, next(stated, None))
        if names is not None:
            names = StatedNames(names)
            names.things = tuple(meta.get('thing_classes') or ())
        return names
    if not isinstance(meta, (list, tuple)) or not all(
        isinstance(part, Mapping) for part in meta
    ):
        return names_in_order(owner, meta)
    lists = [metainfo_classes(owner, part) for part in meta]
    lists = [names for names in lists if names is not None]
    longest = max(lists, key=len, default=None)
    for names in lists:
        if names != longest[: len(names)]:
            raise ValueError(
                f'{owner} differ between the {len(meta)} data sets that are '
                'concatenated, so a label means one class here and another '
                f'there: {names!r:.300} and {longest!r:.300}. Give all of '
                'them the same metainfo=dict(classes=...)'
            )
    return longest


def checkpoint_classes(checkpoint: dict) -> tuple[str, ...] | None:
    """The class names that a checkpoint was trained on, if it says so.

    Args:
        checkpoint: What :func:`mmrkkd.checkpoint.fetch.read_checkpoint`
            gives. MMEngine keeps the names in
            ``meta['dataset_meta']['classes']``, the generation before it in
            ``meta['CLASSES']``.

    Raises:
        ValueError: see :func:`metainfo_classes`.
    """
    meta = checkpoint['meta']
    owner = (
        "the class names in the teacher's checkpoint (teacher.classes=[...] "
        'takes their place)'
    )
    for stated in (meta.get('dataset_meta'), meta):
        names = metainfo_classes(owner, stated)
        if names is not None:
            return names
    return None
