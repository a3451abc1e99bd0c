"""Every feature loss in a classifier, and those of detectors in one."""

import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import small_classifiers
import small_detectors
import torch
from conftest import detector_config
from mmdet.models.task_modules import AnchorGenerator
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, DefaultScope, init_default_scope

from mmrkkd.distillers.readers.anchors import AnchorReader
from mmrkkd.losses import LOSSES, build_schedule
from mmrkkd.losses.feature import FeatureLoss

sys.path.insert(0, str(Path(__file__).parents[1] / 'test_models'))

import small_dense_heads

KINDS = {
    name for name, kind in LOSSES.items() if issubclass(kind, FeatureLoss)
}
IMAGES = 16
# Runs models stage by stage: test_mixed_paths.py.
STAGED = {'FCFDLoss'}
# Of boxes, and so of detectors only.
BOXES = {'FGDLoss', 'FGFILoss'}
STAGES = [f'backbone.layer{number}' for number in range(1, 5)]
CLASSIFIER = {
    name: dict(type=f'mmrkkd.{name}', student_layers=layers)
    for name, layers in dict(
        FitNetLoss='backbone.layer2',
        ATLoss=STAGES,
        CATKDLoss='backbone[0]',
        SPLoss='backbone[0]',
        RKDLoss='neck',
        CRDLoss='neck',
        ICKDLoss='backbone[0]',
        PKDLoss='backbone[0]',
        CWDLoss='backbone.layer3',
        MGDLoss='backbone[0]',
        VIDLoss=STAGES,
        NORMLoss='backbone[0]',
        OFDLoss=[f'before {stage}.1.relu[1]' for stage in STAGES],
        ReviewKDLoss=[*STAGES, 'neck'],
    ).items()
}
CLASSIFIER['CRDLoss']['num_data'] = IMAGES
DETECTOR = {
    name: dict(type=f'mmrkkd.{name}', student_layers='neck[*]', **options)
    for name, options in dict(
        FitNetLoss=dict(connector='conv'),
        FGFILoss=dict(connector='conv'),
        ReviewKDLoss=dict(),
        PKDLoss=dict(),
        CWDLoss=dict(),
        MGDLoss=dict(),
        FGDLoss=dict(),
    ).items()
}


@pytest.fixture(autouse=True)
def no_scope_is_left():
    yield
    DefaultScope._instance_dict.clear()


def classifier(losses):
    init_default_scope('mmpretrain')
    wide = small_classifiers.classifier(base_channels=16)
    wide['head']['in_channels'] = 128
    config = small_classifiers.distilled(losses)
    config['teacher']['config'] = wide
    torch.manual_seed(0)
    batch = small_classifiers.batch(0, 6)
    # As ContrastiveDataset has them.
    for number, sample in enumerate(batch['data_samples']):
        sample.set_metainfo(dict(data_index=number, data_count=IMAGES))
        sample.set_field(torch.tensor([7, 9, 11]), 'negatives')
    return MODELS.build(config).train(), batch


def detector(losses, teacher_channels=24):
    """The teacher's pyramid has other channels than the student's."""
    init_default_scope('mmdet')
    config = small_detectors.distilled(losses=losses)
    teacher = detector_config()
    width = teacher_channels
    teacher.neck.out_channels = teacher.rpn_head.in_channels = width
    teacher.roi_head.bbox_roi_extractor.out_channels = width
    teacher.roi_head.bbox_head.in_channels = width
    config['teacher']['config'] = teacher
    items = [small_detectors.sample(number) for number in (1, 2)]
    batch = {key: [item[key] for item in items] for key in items[0]}
    torch.manual_seed(0)
    return MODELS.build(config).train(), batch


def taken(model, batch):
    """The terms of a step; what a loss draws is the same in each."""
    torch.manual_seed(0)
    data = model.data_preprocessor(
        {key: list(value) for key, value in batch.items()}, True
    )
    return model(**data, mode='loss')


def learned_terms(model, batch):
    keys = tuple(
        f'loss_{type(loss).__name__[:-4].lower()}' for loss in model.distiller
    )
    return {
        key: value
        for key, value in taken(model, batch).items()
        if key.startswith(keys)
    }


def test_every_loss_is_tried_here():
    assert set(CLASSIFIER) == KINDS - BOXES - STAGED
    assert set(DETECTOR) >= BOXES


@pytest.fixture
def between_logs():
    """Steps inside the block are some that no line of the log tells of."""

    @contextmanager
    def running():
        hub = MessageHub.get_instance('between_logs')
        hub.update_info('cfg', 'default_hooks = dict(logger=dict(interval=9))')
        hub.update_info('loop_stage', 'train')
        hub.update_info('iter', 3)
        try:
            yield
        finally:
            del MessageHub._instance_dict['between_logs']

    return running


def dense(losses):
    """GFL, whose teacher's head is most of its work."""
    init_default_scope('mmdet')
    model = MODELS.build(small_dense_heads.distilled('gfl', losses))
    return model.train(), small_dense_heads.batch('gfl')


def fitnet(build):
    layer = 'backbone[0]' if build is classifier else 'neck[0]'
    return dict(type='mmrkkd.FitNetLoss', student_layers=layer)


def runs_of(part):
    calls = []
    part.register_forward_hook(lambda *_: calls.append(1))
    return calls


def head_of(model):
    teacher = model.teacher.model
    if hasattr(teacher, 'roi_head'):
        return teacher.roi_head.bbox_head
    return getattr(teacher, 'bbox_head', None) or teacher.head.fc


@pytest.mark.parametrize('build', [classifier, detector, dense])
def test_the_teachers_head_rests_where_nobody_asks_for_scores(
    build, between_logs
):
    """Its features, and the terms made of them, are the same to the bit."""
    model, batch = build(fitnet(build))
    calls = runs_of(head_of(model))
    logged = taken(model, batch)
    assert calls and {'kd/tau', 'loss_fitnet'} <= set(logged)
    calls.clear()
    with between_logs():
        quiet = taken(model, batch)
        assert not calls
        assert set(quiet) == {k for k in logged if not k.startswith('kd/')}
        for key, value in quiet.items():
            assert torch.equal(
                torch.as_tensor(value), torch.as_tensor(logged[key])
            ), key
        model.gradient_interval = 1
        assert 'kd/grad_norm_task' in taken(model, batch) and calls


@pytest.mark.parametrize('build', [classifier, detector])
def test_the_teachers_head_runs_for_logit_losses(build, between_logs):
    model, batch = build([dict(type='mmrkkd.KDLoss'), fitnet(build)])
    taken(model, batch)
    calls = runs_of(head_of(model))
    with between_logs():
        assert 'loss_kd' in taken(model, batch) and calls


def test_the_teachers_head_runs_for_layers_in_it(between_logs):
    model, batch = classifier(
        dict(type='mmrkkd.RKDLoss', student_layers='head.fc')
    )
    assert model.seam.teacher.needs_head
    taken(model, batch)
    with between_logs():
        terms = learned_terms(model, batch)
    assert terms and all(value > 0 for value in terms.values())


@pytest.mark.parametrize('name', CLASSIFIER)
def test_step_of_a_classifier(name):
    model, batch = classifier(CLASSIFIER[name])
    terms = learned_terms(model, batch)
    assert terms
    sum(terms.values()).backward()
    assert model.student.backbone.conv1.weight.grad.abs().sum() > 0
    # Class activation maps are made with it.
    is_learned = model.student.head.fc.weight.grad is not None
    assert is_learned == (name == 'CATKDLoss')
    assert all(p.grad is None for p in model.teacher.model.parameters())
    for key, parameter in model.distiller.named_parameters():
        # NORM's way back to the head learns of the task.
        of_task = key.startswith('0.residual.contract.')
        assert (parameter.grad is None) == of_task, key


@pytest.mark.parametrize('name', DETECTOR)
def test_step_of_a_detector(name):
    model, batch = detector(DETECTOR[name])
    terms = learned_terms(model, batch)
    assert terms
    sum(terms.values()).backward()
    assert model.student.backbone.conv1.weight.grad.abs().sum() > 0
    assert model.student.neck.fpn_convs[0].conv.weight.grad is not None
    assert all(
        p.grad is None
        for part in (model.student.roi_head, model.teacher.model)
        for p in part.parameters()
    )
    for key, parameter in model.distiller.named_parameters():
        assert parameter.grad is not None, key


def falls(model, batch, steps):
    """Trains on one batch, every loss at the weight that makes it count."""
    first = learned_terms(model, batch)
    for loss in model.distiller:
        own = f'loss_{type(loss).__name__[:-4].lower()}'
        size = sum(v for k, v in first.items() if k.startswith(own))
        weight = loss.now(loss.loss_weight) / size.item()
        loss.loss_weight = build_schedule('loss_weight', weight)
    first = learned_terms(model, batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(learned_terms(model, batch).values()).backward()
        optimizer.step()
    last = learned_terms(model, batch)
    for key, value in first.items():
        assert last[key] < value, key


@pytest.mark.slow
def test_all_losses_of_a_classifier_fall_together():
    falls(*classifier(list(CLASSIFIER.values())), steps=10)


@pytest.mark.slow
def test_all_losses_of_a_detector_fall_together():
    falls(*detector(list(DETECTOR.values())), steps=10)


class Labelled(small_classifiers.Images):
    def get_gt_labels(self):
        return [number % 5 for number in range(len(self))]


def contrastive_run(work_dir, steps, **changes):
    runner = small_classifiers.make_runner(
        small_classifiers.distilled(
            [small_classifiers.RKKD, CLASSIFIER['CRDLoss']]
        ),
        work_dir,
        steps,
        custom_hooks=[dict(type='mmrkkd.RunStateHook')],
        train_dataloader=dict(
            dataset=dict(
                type='mmrkkd.ContrastiveDataset',
                dataset=Labelled(),
                negatives=5,
            ),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=8,
            collate_fn=dict(type='default_collate'),
        ),
        **changes,
    )
    runner.train()
    return runner


@pytest.mark.slow
def test_memory_banks_survive_a_resume_bit_for_bit(tmp_path):
    init_default_scope('mmpretrain')
    whole = contrastive_run(tmp_path / 'whole', 4)
    assert whole.recorder.steps[0]['loss_crd'] > 0
    first = contrastive_run(tmp_path / 'parts', 2)
    path = f'{first.work_dir}/iter_2.pth'
    second = contrastive_run(
        tmp_path / 'parts', 4, resume=True, load_from=path
    )
    assert second.recorder.steps == whole.recorder.steps[2:]
    state = whole.model.distiller.state_dict()
    assert {'1.contrasts.0.student_bank', '1.contrasts.0.partition'} <= set(
        state
    )
    for key, value in second.model.distiller.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_boxes_are_wanted_of_a_detector():
    loss = dict(type='mmrkkd.FGDLoss', student_layers='backbone[0]')
    model, batch = classifier(loss)
    with pytest.raises(ValueError, match='it is a loss for detectors'):
        taken(model, batch)


def test_anchors_are_wanted_of_a_detector():
    loss = dict(type='mmrkkd.FGFILoss', student_layers='backbone[0]')
    with pytest.raises(ValueError, match='ImageClassifier has no anchors'):
        classifier(loss)


def test_classes_of_activation_maps_are_matched_by_name():
    """Teacher = student, but for the order of the classes."""
    init_default_scope('mmpretrain')
    loss = dict(CLASSIFIER['CATKDLoss'])
    config = small_classifiers.distilled(loss)
    order = [3, 1, 0, 4, 2]
    names = small_classifiers.CLASSES
    config['teacher']['classes'] = [names[number] for number in order]
    model = MODELS.build(config).eval()
    state = {k: v.clone() for k, v in model.student.state_dict().items()}
    for key in ('head.fc.weight', 'head.fc.bias'):
        state[key] = state[key][order]
    model.teacher.model.load_state_dict(state)
    terms = taken(model, small_classifiers.batch(0, 6))
    assert terms['loss_catkd'].item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(
    ('layer', 'message'),
    [
        (
            'backbone.layer2',
            r"student's linear layer 'head.fc' takes 64 chann",
        ),
        ('neck', r'cells are compared of maps'),
    ],
)
def test_activation_maps_of_other_layers(layer, message):
    init_default_scope('mmpretrain')
    loss = dict(CLASSIFIER['CATKDLoss'], student_layers=layer)
    with pytest.raises(ValueError, match=message):
        MODELS.build(small_classifiers.distilled(loss))


def test_activation_maps_want_one_linear_layer():
    with pytest.raises(ValueError, match='of the student FasterRCNN has 0'):
        detector(dict(type='mmrkkd.CATKDLoss', student_layers='backbone[0]'))


def test_anchors_are_those_of_the_layers_stride():
    model, _ = detector(
        dict(DETECTOR['FGFILoss'], student_layers=['neck[3]', 'neck[0]'])
    )
    (reader,) = model.seam.anchors
    found = reader.read([torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 5, 4)])
    wanted = model.student.rpn_head.prior_generator.grid_priors(
        [(5, 4), (1, 1), (1, 1), (2, 3), (1, 1)], device='cpu'
    )
    assert torch.equal(found[0].reshape(-1, 4), wanted[3])
    assert torch.equal(found[1].reshape(-1, 4), wanted[0])
    # Row 1, column 2 of stride 32.
    middle = (found[0][1, 2, :, :2] + found[0][1, 2, :, 2:]) / 2
    assert middle.tolist() == [[64, 32]] * 3


def test_layers_without_anchors():
    loss = dict(DETECTOR['FGFILoss'], student_layers='backbone.conv1')
    with pytest.raises(
        ValueError, match='none of them .* has 64 x 64 cells of an image of'
    ):
        detector(loss)


def test_anchors_of_a_side_that_is_no_multiple_of_the_strides():
    strides = [8, 16, 32, 64, 100, 300]
    generator = AnchorGenerator(strides=strides, ratios=[1.0], scales=[1])
    model = SimpleNamespace(bbox_head=SimpleNamespace())
    model.bbox_head.prior_generator = generator
    cells = [38, 19, 10, 5, 3, 1]
    shapes = [(1, 4, side, side) for side in cells]
    reader = AnchorReader(model, 'student', shapes[::-1], 300)
    assert reader.levels == [5, 4, 3, 2, 1, 0]
    with pytest.raises(ValueError, match='several of them .* larger side'):
        AnchorReader(model, 'student', [(1, 4, 1, 1)], 40)
