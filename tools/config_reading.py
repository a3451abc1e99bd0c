"""Reads very many configs that share their bases, each file once.

MMEngine reads a config's bases anew for each config: a minute and a half for
all of MMDetection's.
"""

import ast
import copy
import functools
import re
from pathlib import Path

BASE_VALUE = re.compile(r'\{\{\s*(_base_[\w.]*)\s*\}\}')


class Values(dict):
    """A dict whose entries are attributes too, as in MMEngine's configs."""

    def __getattr__(self, name: str) -> object:
        if name in self:
            return self[name]
        raise AttributeError(name)

    __setattr__ = dict.__setitem__
    __delattr__ = dict.__delitem__


def merged(base: object, changes: dict) -> dict:
    """A config's dict over its base's, as MMEngine puts them together."""
    changes = dict(changes)
    if not isinstance(base, dict) or changes.pop('_delete_', False):
        return _plain(changes)
    result = Values(base)
    for name, value in changes.items():
        if isinstance(value, dict):
            value = merged(base.get(name), value)
        result[name] = _plain(value)
    return result


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return Values(
            (name, _plain(each))
            for name, each in value.items()
            if name != '_delete_'
        )
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


@functools.cache
def read_config(path: Path) -> Values:
    """The variables of a config file, which runs as MMEngine runs it.

    Fewer things are possible than there: no variables of the environment or
    of the file's name, no lists changed by an index, no bases of other
    packages.

    Args:
        path: An absolute path; configs come from where one trusts them.

    Raises:
        FileNotFoundError: it or a base is not there.
    """
    text = BASE_VALUE.sub(r'\1', path.read_text(encoding='utf-8'))
    tree, bases = ast.parse(text), []
    for node in list(tree.body):
        names = getattr(node, 'targets', [None])
        if isinstance(names[0], ast.Name) and names[0].id == '_base_':
            bases = ast.literal_eval(node.value)
            tree.body.remove(node)
    bases = [bases] if isinstance(bases, str) else bases
    base = Values()
    for name in bases:
        base = merged(base, read_config((path.parent / name).resolve()))
    # A config may change its base.
    base = copy.deepcopy(base)
    found = {'_base_': base}
    exec(compile(tree, str(path), 'exec'), found)
    own = {
        name: value
        for name, value in found.items()
        if not name.startswith('_') and not callable(value)
    }
    return merged(base, own)
