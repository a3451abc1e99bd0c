"""Import arrows point down.

ops <- losses <- distillers <- evaluation <- report <- engine <- commands and
tools, and checkpoint below the distillers.
"""

import ast
import importlib
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What each layer may import of mmrkkd, itself always included.
ALLOWED = {
    'ops': set(),
    'version': set(),
    '_stack': set(),
    'registry': {'_stack'},
    'losses': {'ops'},
    'checkpoint': set(),
    'backbones': {'registry'},
    'datasets': {'registry'},
    'distillers': {'checkpoint', 'losses', 'ops', 'registry'},
    'engine': {
        'checkpoint',
        'datasets',
        'distillers',
        'evaluation',
        'ops',
        'registry',
        'report',
    },
    'evaluation': {
        'checkpoint',
        'datasets',
        'distillers',
        'ops',
        'registry',
    },
    'report': {'checkpoint', 'datasets', 'evaluation', 'ops', 'registry'},
    'shipped': set(),
    'cli': {'datasets', 'distillers', 'engine', 'shipped'},
    'commands': {
        'checkpoint',
        'cli',
        'datasets',
        'distillers',
        'engine',
        'evaluation',
        'losses',
        'ops',
        'registry',
        'report',
        'shipped',
        'version',
    },
    '__init__': {'commands', 'registry', 'version'},
    '__main__': {'commands'},
    # Old names, for one version.
    'models': {'backbones', 'distillers'},
    'hooks': {'checkpoint', 'engine'},
}
OPENMMLAB = {'mmengine', 'mmcv', 'mmdet', 'mmpretrain'}
# Modules of one name in two packages, which mean the same in both.
SHARED_NAMES = ('__init__', 'base', 'classifier')
FILES = sorted((ROOT / 'mmrkkd').rglob('*.py'))


def layer_of(path):
    return path.relative_to(ROOT / 'mmrkkd').parts[0].removesuffix('.py')


def imported(path):
    """Dotted names of everything that a file imports, wherever in it."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            module = node.module.split('.') if node.module else []
            parts = [*base, *module] if node.level else module
            if parts == ['mmrkkd']:
                yield from (f'mmrkkd.{alias.name}' for alias in node.names)
            else:
                yield '.'.join(parts)


def test_every_layer_is_listed():
    unknown = {layer_of(path) for path in FILES} - set(ALLOWED)
    assert not unknown, f'add {unknown} to this test'


def test_imports_point_down():
    upwards = []
    for path in FILES:
        layer = layer_of(path)
        below = {layer, *ALLOWED.get(layer, ())}
        upwards += [
            f'{path.relative_to(ROOT)} imports {name}'
            for name in imported(path)
            if name.startswith('mmrkkd.') and name.split('.')[1] not in below
        ]
    assert not upwards, '\n'.join(upwards)


def test_ops_and_losses_know_nothing_of_openmmlab():
    found = [
        f'{path.relative_to(ROOT)} imports {name}'
        for path in FILES
        if layer_of(path) in ('ops', 'losses')
        for name in imported(path)
        if name.split('.')[0] in OPENMMLAB
    ]
    assert not found, '\n'.join(found)


def test_hooks_are_the_only_content_of_their_folder():
    from mmengine.hooks import Hook

    import mmrkkd.engine.hooks as hooks

    for path in FILES:
        if path.parent.name == 'hooks' and path.stem != '__init__':
            module = importlib.import_module(f'{hooks.__name__}.{path.stem}')
            assert any(
                isinstance(value, type)
                and issubclass(value, Hook)
                and value.__module__ == module.__name__
                for value in vars(module).values()
            ), path


def test_no_two_modules_of_one_name():
    names = [path.stem for path in FILES if path.stem not in SHARED_NAMES]
    assert len(names) == len(set(names)), sorted(
        name for name in set(names) if names.count(name) > 1
    )


def test_only_the_public_names_of_a_package_are_promised():
    import mmrkkd.distillers
    import mmrkkd.losses
    import mmrkkd.ops

    for package in (mmrkkd.losses, mmrkkd.distillers, mmrkkd.ops):
        for name in package.__all__:
            assert getattr(package, name).__doc__, f'{name} has no docstring'
