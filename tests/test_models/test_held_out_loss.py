"""The loss of detectors on held-out images, in eval mode."""

import copy
import math

import pytest
import torch
from small_dense_heads import batch, dense_config
from small_query_heads import query_batch, query_config, query_distilled
from small_roi_heads import roi_batch, roi_detector

from mmrkkd.evaluation.held_out_loss import HeldOutLoss
from mmrkkd.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')


def measured(model, data):
    """What a measure finds twice, once its model is seen to be unchanged."""
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(5)
    measure = HeldOutLoss(model, [data, data], [2, 2], seed=0)
    once, again = measure(), measure()
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    # The seed of the process is where it was, and the measure has its own.
    assert torch.initial_seed() == 5
    assert once == again
    assert all(math.isfinite(value) for value in once.values())
    return once


@pytest.mark.parametrize('family', ['retinanet', 'fcos', 'yolox'])
def test_dense_detectors_have_a_loss(family):
    model = MODELS.build(dense_config(family))
    assert measured(model, batch(family))['task'] > 0


@pytest.mark.parametrize('family', ['double_head', 'cascade_mask'])
def test_boxes_that_are_sampled_are_the_same_at_each_call(family):
    model = roi_detector(family)
    assert measured(model, roi_batch())['task'] > 0


@pytest.mark.parametrize('family', ['detr', 'dino'])
def test_query_detectors_have_a_loss(family):
    model = MODELS.build(query_config(family))
    model.init_weights()
    assert measured(model, query_batch(family))['task'] > 0


def test_dino_s_loss_needs_a_detector_that_trains():
    model = MODELS.build(query_config('dino')).eval()
    model.init_weights()
    data = model.data_preprocessor(query_batch('dino'), False)
    with pytest.raises(TypeError, match='dn_meta'), torch.no_grad():
        model(**data, mode='loss')


def test_a_distiller_s_losses_are_told_one_by_one():
    config = query_distilled('detr', dict(type='mmrkkd.RankKDLoss'))
    model = MODELS.build(config)
    model.student.init_weights()
    found = measured(model, query_batch('detr'))
    total = found.pop('total')
    assert {'loss_cls', 'd0.loss_bbox', 'loss_rank', 'd0.loss_kd'} <= set(
        found
    )
    assert total == pytest.approx(sum(found.values()))
