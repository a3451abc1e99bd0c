"""A copy of a distiller has a teacher of its own, and pays for it in use."""

import copy
import io

import pytest
import torch
from conftest import CLASSES, detector_config
from mmengine.model import ExponentialMovingAverage
from torch import nn

from mmrkkd.distillers import FrozenTeacher, KDDetector


class Distiller(nn.Module):
    """What a distiller does with its teacher, and nothing else."""

    def __init__(self):
        super().__init__()
        self.student = nn.Linear(2, 2)
        self.teacher = FrozenTeacher(
            nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), ('a', 'b'), 'x'
        )

    def _apply(self, function, *args, **kwargs):
        self.teacher.apply(function)
        return super()._apply(function, *args, **kwargs)


def tensors(model):
    return model.state_dict(keep_vars=True).values()


def floating(model):
    return [value for value in tensors(model) if value.is_floating_point()]


def addresses(model):
    return [value.data_ptr() for value in tensors(model)]


@pytest.fixture
def live():
    return Distiller()


def test_a_double_copy_leaves_the_live_teacher_as_it_is(live):
    before = addresses(live.teacher.model)
    double = copy.deepcopy(live).double()
    assert {value.dtype for value in floating(double.teacher.model)} == {
        torch.float64
    }
    assert {value.dtype for value in floating(live.teacher.model)} == {
        torch.float32
    }
    assert addresses(live.teacher.model) == before


def test_a_copy_on_another_device_leaves_the_live_teacher_where_it_is(live):
    moved = copy.deepcopy(live).to('meta')
    assert {v.device.type for v in tensors(moved.teacher.model)} == {'meta'}
    assert {v.device.type for v in tensors(live.teacher.model)} == {'cpu'}


def test_an_average_on_another_device_does_not_move_the_teacher(live):
    average = ExponentialMovingAverage(live, device='meta')
    live.teacher.model(torch.ones(1, 2))
    assert {v.device.type for v in tensors(live.teacher.model)} == {'cpu'}
    assert {v.device.type for v in tensors(average.module.teacher.model)} == {
        'meta'
    }


def test_an_unused_copy_takes_no_memory_and_makes_no_move(live):
    moved = []
    unused = copy.deepcopy(live)
    unused._apply(lambda tensor: moved.append(tensor) or tensor.double())
    # The student's two tensors alone.
    assert len(moved) == 2
    assert addresses(unused.teacher._model) == addresses(live.teacher.model)
    before = len(moved)
    unused.teacher.model.eval()
    assert len(moved) == before + len(list(tensors(live.teacher.model)))


def test_a_used_copy_has_memory_of_its_own(live):
    twin = copy.deepcopy(live)
    assert not set(addresses(twin.teacher.model)) & set(
        addresses(live.teacher.model)
    )
    before = live.teacher.model[0].weight.clone()
    twin.teacher.model[0].weight.data.zero_()
    assert torch.equal(live.teacher.model[0].weight, before)


def test_the_live_teacher_moves_and_a_copy_keeps_what_it_had(live):
    expected = live.teacher.model[0].weight.clone()
    model = live.teacher.model
    kept = copy.deepcopy(live)
    live.double()
    # Whoever holds the live teacher's model holds it still.
    assert live.teacher.model is model
    assert model[0].weight.dtype == torch.float64
    assert torch.equal(kept.teacher.model[0].weight, expected)
    assert kept.teacher.model[0].weight.dtype == torch.float32


def test_moves_add_up_and_copies_of_copies_inherit_them(live):
    first = copy.deepcopy(live).double()
    second = copy.deepcopy(first).half()
    assert first.teacher.model[0].weight.dtype == torch.float64
    assert second.teacher.model[0].weight.dtype == torch.float16
    # A used copy moves at once, as the live one does.
    second.float()
    assert second.teacher._model[0].weight.dtype == torch.float32
    assert live.teacher.model[0].weight.dtype == torch.float32


def test_a_copy_outlives_the_live_teacher(live):
    expected = live.teacher.model[0].weight.clone()
    twin = copy.deepcopy(live)
    del live.teacher
    assert torch.equal(twin.teacher.model[0].weight, expected)


def test_copies_are_frozen_for_good(live):
    for twin in (copy.deepcopy(live), copy.deepcopy(copy.deepcopy(live))):
        assert twin.train().training
        model = twin.teacher.model
        assert model.train() is model
        assert not any(module.training for module in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
        before = copy.deepcopy(model.state_dict())
        model(torch.randn(4, 2))
        for key, value in model.state_dict().items():
            assert torch.equal(value, before[key])
    assert not any(m.training for m in live.teacher.model.modules())


def test_a_copy_knows_what_the_teacher_is(live):
    twin = copy.deepcopy(live).teacher
    assert (twin.classes, twin.source, twin.sha256) == (('a', 'b'), 'x', None)
    twin.classes = ('b', 'a')
    assert live.teacher.classes == ('a', 'b')


def test_one_copy_for_each_holder(live):
    holders = [live.teacher, live.teacher]
    first, second = copy.deepcopy(holders)
    assert first is second is not live.teacher


def test_parts_of_the_model_are_copied_with_it(live):
    live.part = [live.teacher.model[0]]
    twin = copy.deepcopy(live)
    assert twin.part[0] is twin.teacher.model[0]


def test_a_file_holds_the_moved_teacher(live):
    file = io.BytesIO()
    torch.save(copy.deepcopy(live).double(), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    weight = loaded.teacher.model[0].weight
    assert torch.equal(weight, live.teacher.model[0].weight.double())
    assert not loaded.teacher.model.train().training
    assert live.teacher.model[0].weight.dtype == torch.float32


def test_one_name_without_a_comma():
    with pytest.raises(ValueError, match=r"teacher.classes .*\('person',\)"):
        FrozenTeacher(nn.Linear(2, 2), 'person')


def test_a_detectors_live_steps_do_not_feel_its_copies(batch, mmdet_scope):
    live = KDDetector(
        student=detector_config(),
        teacher=dict(config=detector_config(), allow_random_weights=True),
        losses=dict(type='mmrkkd.KDLoss'),
        class_names=CLASSES,
    )
    data = live.data_preprocessor(batch(), True)

    def step():
        torch.manual_seed(0)
        return live(**data, mode='loss')['loss_kd']

    before = step()
    average = ExponentialMovingAverage(live, device='meta')
    twin = copy.deepcopy(live).double()
    assert torch.equal(step(), before)
    assert average.module.teacher.model is not twin.teacher.model
    head = twin.teacher.model.roi_head.bbox_head.fc_cls
    assert head.weight.dtype == torch.float64
    assert torch.equal(step(), before)
