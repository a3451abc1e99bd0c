"""A student is compared by the class names that it was trained on."""

import contextlib
import json
import sys

import pytest
import torch
from conftest import load_tool
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from scipy.stats import kendalltau
from small_classifiers import CLASSES, Images, distilled
from torch.utils.data import DataLoader

from mmrkkd.evaluation import (
    student_classes,
    student_names,
    teacher_agreement,
)

REVERSED = CLASSES[::-1]
# The data that are evaluated, alone and concatenated of two.
DATA = [dict(classes=REVERSED), [dict(classes=REVERSED)] * 2]


class Evaluated(Images):
    """The images, under names of their own."""

    def __init__(self, metainfo):
        super().__init__()
        self.metainfo = metainfo


class Trained(BaseDataset):
    """A training set, whose data are not there."""

    METAINFO = dict(classes=CLASSES)


class Folders(BaseDataset):
    """One that would state its names only when it is loaded."""


@pytest.fixture(scope='module')
def model():
    """A student and a teacher of other weights, of the same classes."""
    config = distilled()
    config.pop('class_names')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(config).eval()


@pytest.fixture(scope='module')
def expected(model):
    """Mean tau-b of the two heads' scores, channel by channel."""
    items = pseudo_collate([Images()[index] for index in range(16)])
    images = model.data_preprocessor(items)['inputs']
    with torch.no_grad():
        student, teacher = (
            each.head(each.extract_feat(images))
            for each in (model.student, model.teacher.model)
        )
    taus = [
        kendalltau(one, other).statistic
        for one, other in zip(student, teacher, strict=True)
    ]
    return sum(taus) / len(taus)


def loader(metainfo):
    return DataLoader(
        Evaluated(metainfo), batch_size=8, collate_fn=pseudo_collate
    )


def whole(*datasets):
    """A config that trains on some data sets."""
    dataset = dict(type='ConcatDataset', datasets=list(datasets))
    return Config(
        dict(train_dataloader=dict(dataset=dataset) if datasets else None)
    )


@pytest.mark.parametrize('metainfo', DATA)
def test_names_of_the_evaluated_data_change_nothing(model, expected, metainfo):
    data = loader(metainfo)
    names = student_classes(model, data.dataset, whole(dict(type=Trained)))
    found = teacher_agreement(model, data, False, names)
    assert found['tau'] == pytest.approx(expected, abs=1e-6)
    # They are all there is without any other.
    other = teacher_agreement(model, data, False)
    assert other['tau'] != pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize('metainfo', [{}, None, [{}, {}]])
def test_without_any_names_channels_are_matched_by_position(
    model, expected, metainfo
):
    found = teacher_agreement(model, loader(metainfo), False)
    assert found['tau'] == pytest.approx(expected, abs=1e-6)


OWN, IN_CONFIG, SAVED = (('xyz'[index], 'b') for index in range(3))
STATED = dict(type=Trained, metainfo=dict(classes=IN_CONFIG))


@pytest.mark.parametrize(
    'own, datasets, meta, names, place',
    [
        (OWN, [STATED], dict(CLASSES=SAVED), OWN, "the model's class_names"),
        (
            None,
            [STATED],
            dict(CLASSES=SAVED),
            IN_CONFIG,
            "the config's training",
        ),
        (None, [STATED, STATED], {}, IN_CONFIG, "the config's training set"),
        (None, [dict(type=Trained)], {}, CLASSES, "the config's training set"),
        (
            None,
            [dict(type=Folders, classes=IN_CONFIG)],
            {},
            IN_CONFIG,
            "the config's training set",
        ),
        (
            None,
            [dict(type=Folders)],
            dict(dataset_meta=[dict(classes=SAVED)] * 2),
            SAVED,
            "the student's checkpoint",
        ),
        (None, [], dict(CLASSES=SAVED), SAVED, "the student's checkpoint"),
        (None, [], {}, REVERSED, 'the evaluated data set'),
        (None, [dict(type='Unknown')], {}, REVERSED, 'the evaluated data set'),
    ],
)
def test_the_surest_names_come_first_and_the_log_says_which(
    model, monkeypatch, own, datasets, meta, names, place
):
    lines = []
    monkeypatch.setattr(
        student_names, 'print_log', lambda text, **_: lines.append(text)
    )
    monkeypatch.setattr(model, 'class_names', own)
    found = student_classes(
        model, Evaluated(DATA[0]), whole(*datasets), dict(meta=meta)
    )
    assert found == names
    assert len(lines) == 1
    assert f'class names are those of {place}' in lines[0]


def test_the_tool_asks_the_checkpoint(
    model, expected, monkeypatch, capsys, tmp_path
):
    @contextlib.contextmanager
    def prepared(*args):
        yield model

    path = tmp_path / 'config.py'
    path.write_text('train_dataloader = None')
    content = dict(meta=dict(dataset_meta=dict(classes=CLASSES)))
    tool = load_tool('analysis_tools/teacher_agreement')
    monkeypatch.setattr(tool, 'prepare_model', prepared)
    monkeypatch.setattr(tool, 'load_weights', lambda *_, **__: content)
    monkeypatch.setattr(tool, 'held_out_loader', lambda _: loader(DATA[1]))
    monkeypatch.setattr(sys, 'argv', ['tool', str(path), 'student.pth'])
    tool.main()
    output = capsys.readouterr().out
    assert json.loads(output.splitlines()[-1])['tau'] == pytest.approx(
        expected, abs=1e-6
    )
