"""The feature loss that docs/en/features.md writes works as it stands."""

import importlib
import re
import sys
from pathlib import Path

import torch

import mmrkkd.losses.feature as package
from mmrkkd.losses import build_loss
from mmrkkd.losses.build import find_losses
from mmrkkd.losses.feature import FeaturePair

PAGE = Path(__file__).parents[3] / 'docs' / 'en' / 'features.md'


def test_example_is_found_and_right(tmp_path, monkeypatch):
    (code,) = re.findall(
        r'```python\n(# mmrkkd/losses/feature/.*?)```', PAGE.read_text(), re.S
    )
    name = code.split('\n')[0].rpartition('/')[2].removesuffix('.py')
    (tmp_path / f'{name}.py').write_text(code)
    path = [*package.__path__, str(tmp_path)]
    monkeypatch.setattr(package, '__path__', path)
    full = f'{package.__name__}.{name}'
    try:
        found = find_losses(package.__name__, path)
        assert {'FitNetLoss', 'ChannelMeanLoss'} <= set(found)
        loss = build_loss(
            dict(type=found['ChannelMeanLoss'], student_layers='neck[0]')
        )
        student = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
        teacher = torch.tensor([4.0, 6.0]).view(1, 2, 1, 1)
        # (2 - 5)^2
        assert loss(FeaturePair([student], [teacher])) == {
            'loss_channel_mean': 9.0
        }
    finally:
        sys.modules.pop(full, None)
        importlib.invalidate_caches()
