"""Import arrows point down: ops <- losses <- models <- tools."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What each layer may import of mmrkkd, itself always included.
ALLOWED = {
    'ops': set(),
    'registry': set(),
    'losses': {'ops', 'registry'},
    'models': {'losses', 'ops', 'registry'},
    'datasets': {'registry'},
    'engine': {'registry'},
    'hooks': {'models', 'registry'},
    'evaluation': {'models', 'ops', 'registry'},
    'visualization': {'datasets', 'registry'},
    'cli': set(),
    'version': set(),
    '_stack': set(),
    '__init__': {'_stack', 'losses', 'models', 'registry', 'version'},
}
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


@pytest.mark.parametrize(
    'path', FILES, ids=lambda path: str(path.relative_to(ROOT))
)
def test_imports_point_down(path):
    layer = layer_of(path)
    assert layer in ALLOWED, f'add the layer {layer} to this test'
    for name in imported(path):
        if name.startswith('mmrkkd.'):
            target = name.split('.')[1]
            assert target in ALLOWED[layer] | {layer}, f'{layer} -> {name}'


@pytest.mark.parametrize(
    'path',
    [path for path in FILES if layer_of(path) == 'ops'],
    ids=lambda path: path.name,
)
def test_ops_know_nothing_of_openmmlab(path):
    for name in imported(path):
        assert name.split('.')[0] not in {'mmengine', 'mmcv', 'mmdet'}


def test_only_the_public_names_of_a_package_are_promised():
    import mmrkkd.losses
    import mmrkkd.models
    import mmrkkd.ops

    for package in (mmrkkd.losses, mmrkkd.models, mmrkkd.ops):
        for name in package.__all__:
            assert getattr(package, name).__doc__, f'{name} has no docstring'
