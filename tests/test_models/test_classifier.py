"""KDClassifier: to everybody but itself it is the student."""

import collections
import copy

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from torch.nn.functional import cross_entropy, interpolate

from mmrkkd.distillers import KDClassifier
from mmrkkd.distillers.student_state import learned_inside
from mmrkkd.losses import KDLoss

CLASSES = ('cat', 'dog', 'bird', 'fish', 'frog')
MEAN, STD = [120.0, 110.0, 100.0], [60.0, 50.0, 40.0]
KD = dict(type='mmrkkd.KDLoss', temperature=4.0, loss_weight=0.9)


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    """Names in configs mean MMPretrain's, as inside its runner."""
    init_default_scope('mmpretrain')
    yield
    DefaultScope._instance_dict.clear()


def classifier(num_classes=5, depth=8, head=None, **preprocessing):
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(
            dict(mean=MEAN, std=STD, to_rgb=True, num_classes=num_classes),
            **preprocessing,
        ),
        backbone=dict(type='mmrkkd.CIFARResNet', depth=depth),
        neck=dict(type='GlobalAveragePooling'),
        head=head
        or dict(
            type='LinearClsHead',
            num_classes=num_classes,
            in_channels=64,
            loss=dict(type='CrossEntropyLoss'),
        ),
    )


def make(losses=KD, student=None, teacher=None, **changes):
    torch.manual_seed(0)
    return KDClassifier(
        student=student or classifier(),
        teacher=dict(
            config=teacher or classifier(),
            allow_random_weights=True,
            classes=CLASSES,
        ),
        losses=losses,
        **dict(dict(class_names=CLASSES), **changes),
    )


def batch(views=None, images=6, seed=0):
    """What a data loader gives; with ``views`` a list of them."""
    from mmpretrain.structures import DataSample

    generator = torch.Generator().manual_seed(seed)

    def images_of_a_view():
        return torch.randint(
            256, (images, 3, 32, 32), dtype=torch.uint8, generator=generator
        )

    return dict(
        inputs=images_of_a_view()
        if views is None
        else [images_of_a_view() for _ in range(views)],
        data_samples=[
            DataSample().set_gt_label(index % 5) for index in range(images)
        ],
    )


def losses_of(model, data=None):
    data = model.data_preprocessor(data or batch(), True)
    return model(**data, mode='loss')


# -- one view --------------------------------------------------------------


def test_terms_follow_from_the_logits():
    model = make(task_weight=0.1)
    model.eval()  # The same batch statistics below.
    data = model.data_preprocessor(batch(), True)
    terms = model(**data, mode='loss')
    student = model.student(data['inputs'], mode='tensor')
    teacher = model.teacher.model(data['inputs'], mode='tensor')
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    expected = 0.9 * KDLoss(temperature=4.0)(student, teacher)['loss_kd']
    torch.testing.assert_close(terms['loss_kd'], expected)
    torch.testing.assert_close(
        terms['loss_task'], 0.1 * cross_entropy(student, labels)
    )
    assert 'loss' not in terms  # MMEngine's total has this key.
    assert {'kd/tau', 'kd/top1_agreement', 'kd/kl'} <= set(terms)


def test_a_step_trains_the_student_only():
    model = make()
    before = copy.deepcopy(model.teacher.model.state_dict())
    model.train()
    total, logged = model.parse_losses(losses_of(model))
    total.backward()
    assert all(p.grad is not None for p in model.student.parameters())
    assert not any(p.requires_grad for p in model.teacher.model.parameters())
    after = model.teacher.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    torch.testing.assert_close(
        logged['loss'], logged['loss_task'] + logged['loss_kd']
    )


def test_state_dict_is_the_plain_students():
    model = make()
    plain = MODELS.build(classifier())
    assert list(model.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(model.state_dict(), strict=True)


def ctkd_at(theta=None):
    model = make(losses=dict(type='mmrkkd.CTKDLoss'))
    if theta is not None:
        torch.nn.init.constant_(model.distiller[0].theta, theta)
    return model


def test_what_a_loss_learned_is_a_copy():
    model = ctkd_at(0.25)
    state = model.learned_state()
    torch.nn.init.constant_(model.distiller[0].theta, 0.5)
    model.load_learned_state(state)
    assert model.distiller[0].theta.item() == 0.25


def test_in_another_module_the_student_keeps_its_prefix():
    outer = torch.nn.ModuleDict({'model': ctkd_at(0.25)})
    plain = torch.nn.ModuleDict({'model': MODELS.build(classifier())})
    plain.load_state_dict(outer.state_dict(), strict=True)
    outer.load_state_dict(plain.state_dict(), strict=True)
    assert outer['model'].distiller[0].theta.item() == 0.25


def test_without_metadata_too_the_state_is_the_students():
    plain = MODELS.build(classifier())
    assert list(ctkd_at().state_dict(destination={})) == list(
        plain.state_dict()
    )


def with_key(state):
    """As the first versions kept what a loss learns."""
    state['distiller.0.theta'] = torch.tensor(0.25)
    return state


def with_metadata(state):
    """As versions after them did."""
    state._metadata['']['distiller'] = {'0.theta': torch.tensor(0.25)}
    return state


@pytest.mark.parametrize('losses', ['CTKDLoss', 'KDLoss'])
@pytest.mark.parametrize('kept', [dict, with_key, with_metadata])
def test_from_a_students_weights_the_losses_begin_anew(kept, losses):
    state = kept(ctkd_at().state_dict())
    model = make(losses=dict(type=f'mmrkkd.{losses}'))
    before = model.learned_state()
    model.load_state_dict(state, strict=True)
    assert model.learned_state() == before
    plain = ctkd_at().student.state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert list(model.state_dict()) == list(plain)


@pytest.mark.parametrize('kept', [with_key, with_metadata])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_what_earlier_versions_kept_inside_is_found(kept, prefix):
    state = kept(ctkd_at().state_dict())
    if prefix:
        metadata = {'module': state._metadata['']}
        state = collections.OrderedDict(
            (prefix + key, value) for key, value in state.items()
        )
        state._metadata = metadata
    found = learned_inside(state, prefix)
    assert found == {'0.theta': torch.tensor(0.25)}
    assert learned_inside(ctkd_at().state_dict()) == {}


@pytest.mark.parametrize(
    'losses',
    [
        dict(type='mmrkkd.KDLoss'),
        dict(type='mmrkkd.RankKDLoss', kd=dict(type='CTKDLoss')),
    ],
    ids=['learns nothing', 'learns it elsewhere'],
)
def test_what_other_losses_learned_is_refused(losses):
    state = ctkd_at(0.25).learned_state()
    with pytest.raises(ValueError, match='other losses than .* 0.theta'):
        make(losses=losses).load_learned_state(state)


def test_a_student_without_a_layer_is_refused_whatever_the_loss_learns():
    plain = MODELS.build(classifier()).state_dict()
    key = list(plain)[-1]
    del plain[key]
    with pytest.raises(RuntimeError, match=f'"student.{key}"'):
        ctkd_at().load_state_dict(plain, strict=True)


def test_predictions_are_the_students():
    model = make().eval()
    mine = model(**model.data_preprocessor(batch(), False), mode='predict')
    theirs = model.student(
        **model.data_preprocessor(batch(), False), mode='predict'
    )
    for one, other in zip(mine, theirs, strict=True):
        assert torch.equal(one.pred_score, other.pred_score)


def test_weight_0_gives_the_plain_students_gradient():
    model = make(losses=dict(KD, loss_weight=0.0))
    plain = MODELS.build(classifier())
    plain.load_state_dict(model.state_dict())
    data = plain.data_preprocessor(batch(), True)
    plain(**data, mode='loss')['loss'].backward()
    total, _ = model.parse_losses(losses_of(model))
    total.backward()
    for mine, theirs in zip(
        model.student.parameters(), plain.parameters(), strict=True
    ):
        assert torch.equal(mine.grad, theirs.grad)


# -- what the teacher sees -------------------------------------------------


def test_teacher_sees_its_own_normalisation():
    other = dict(mean=[1.0, 2.0, 3.0], std=[10.0, 20.0, 30.0], to_rgb=False)
    model = make(teacher=classifier(**other))
    raw = batch()
    theirs = model.teacher.model.data_preprocessor(copy.deepcopy(raw), False)
    ours = model.data_preprocessor(raw, False)
    torch.testing.assert_close(
        model.teacher_inputs(ours['inputs'], ours['data_samples']),
        theirs['inputs'],
    )


def test_sizes_from_before_a_crop_do_not_blank_the_teachers_image():
    model = make(teacher=classifier(mean=[0.0] * 3, std=[1.0] * 3))
    data = batch()
    for sample in data['data_samples']:
        sample.set_metainfo(dict(img_shape=(8, 8)))
    data = model.data_preprocessor(data, True)
    seen = model.teacher_inputs(data['inputs'], data['data_samples'])
    assert (seen[:, :, 8:, 8:] > 0).any()


def test_teacher_may_run_at_another_resolution():
    model = make(teacher_size=16)
    data = model.data_preprocessor(batch(), True)
    seen = model.teacher_inputs(data['inputs'], data['data_samples'])
    expected = interpolate(data['inputs'], size=(16, 16), mode='bilinear')
    torch.testing.assert_close(seen, expected)
    assert losses_of(model)['loss_kd'].isfinite()
    assert 'resized to 16 pixels' in model.settings()


@pytest.mark.parametrize('size', [0, -3, 2.5, '32', True])
def test_teacher_size_must_be_pixels(size):
    with pytest.raises(ValueError, match='teacher_size must be a number of'):
        make(teacher_size=size)


def test_a_preprocessor_beside_the_model_is_the_students_and_the_teachers():
    """As MMPretrain's configs have it and MMEngine's runner hands it on."""
    student = classifier()
    preprocessing = student.pop('data_preprocessor')
    model = KDClassifier(
        student=student,
        teacher=dict(
            config=dict(
                model=copy.deepcopy(student),
                data_preprocessor=dict(preprocessing, mean=[0.0] * 3),
            ),
            allow_random_weights=True,
        ),
        losses=KD,
        data_preprocessor=preprocessing,
    )
    assert model.data_preprocessor.mean.flatten().tolist() == MEAN
    teacher = model.teacher.model.data_preprocessor
    assert teacher.mean.flatten().tolist() == [0.0] * 3


# -- views -----------------------------------------------------------------


def test_plain_losses_average_over_views_and_task_losses_add_up():
    model = make().eval()
    data = batch(views=2)
    both = losses_of(model, data)
    single = [
        losses_of(model, dict(data, inputs=view)) for view in data['inputs']
    ]
    torch.testing.assert_close(
        both['loss_task'], single[0]['loss_task'] + single[1]['loss_task']
    )
    torch.testing.assert_close(
        both['loss_kd'], (single[0]['loss_kd'] + single[1]['loss_kd']) / 2
    )


@pytest.mark.parametrize('kind', ['MLKDLoss', 'CRLDLoss'])
def test_two_view_losses_train(kind):
    model = make(losses=dict(type=f'mmrkkd.{kind}'))
    terms = losses_of(model, batch(views=2))
    total, _ = model.parse_losses(terms)
    total.backward()
    assert total.isfinite()
    assert model.student.head.fc.weight.grad.abs().sum() > 0


def test_two_view_losses_refuse_one_view():
    model = make(losses=dict(type='mmrkkd.MLKDLoss'))
    with pytest.raises(ValueError, match=r'MLKDLoss compares 2 views .* got'):
        losses_of(model)


def test_lists_of_images_are_one_view():
    model = make().eval()
    data = batch()
    listed = dict(data, inputs=list(data['inputs']))
    assert torch.equal(
        losses_of(model, listed)['loss_kd'], losses_of(model, data)['loss_kd']
    )


def test_mixing_several_views_is_refused():
    mixing = dict(augments=dict(type='Mixup', alpha=0.8))
    model = make(student=classifier(batch_augments=mixing))
    with pytest.raises(ValueError, match='batch_augments .* each view'):
        losses_of(model, batch(views=2))


# -- labels ----------------------------------------------------------------


MIXUP = dict(augments=dict(type='Mixup', alpha=0.8))


def test_mixed_images_have_no_label():
    model = make(student=classifier(batch_augments=MIXUP))
    assert losses_of(model)['loss_kd'].isfinite()


@pytest.mark.parametrize(
    ('loss', 'named'),
    [
        (dict(type='DKDLoss'), 'DKDLoss'),
        (
            dict(type='RankKDLoss', kd=dict(type='NKDLoss')),
            'RankKDLoss around NKD',
        ),
        (
            dict(type='LSKDLoss', kd=dict(type='DKDLoss')),
            'LSKDLoss around DKD',
        ),
        (dict(type='ListMLELoss', label_first=True), 'ListMLELoss'),
        (dict(type='CRDLoss', num_data=6), 'CRDLoss'),
    ],
)
def test_mixing_is_refused_where_a_loss_needs_one_class(loss, named):
    """Before anything trains: the first mixed batch may come late."""
    some = dict(
        augments=[dict(type='CutMix', alpha=1.0)],
        probs=[0.01],
    )
    message = f'{named}.* needs one class .*augments of the student.*: CutMix'
    with pytest.raises(ValueError, match=message):
        make(loss, classifier(batch_augments=some))


def test_the_students_own_way_to_mix_is_seen_too():
    student = classifier()
    student['train_cfg'] = copy.deepcopy(MIXUP)
    with pytest.raises(ValueError, match='DKDLoss needs one class .*: Mixup'):
        make(dict(type='DKDLoss'), student)


def test_mixing_of_probability_0_is_none():
    never = dict(MIXUP, probs=[0.0])
    make(dict(type='DKDLoss'), classifier(batch_augments=never))


def test_mixed_images_count_as_far_as_the_teacher_knows_their_classes():
    mixing = dict(augments=dict(type='Mixup', alpha=0.8))
    model = make(student=classifier(batch_augments=mixing), classes='shared')
    model.eval()
    model.teacher.classes = ('unseen', *CLASSES[1:])
    model.class_map = model.match_student_classes(CLASSES)
    data = model.data_preprocessor(batch(), True)
    shares = torch.stack([item.gt_score for item in data['data_samples']])
    weight = 1 - shares[:, 0]
    assert 0 < weight.min() < 1
    student, teacher = (
        part(data['inputs'], mode='tensor')[:, 1:]
        for part in (model.student, model.teacher.model)
    )
    expected = KDLoss(temperature=4.0, loss_weight=0.9)(
        student, teacher, weight=weight
    )
    actual = model(**data, mode='loss')
    torch.testing.assert_close(actual['loss_kd'], expected['loss_kd'])


def test_one_hot_labels_are_labels():
    dkd = dict(type='mmrkkd.DKDLoss')
    plain = losses_of(make(losses=dkd).eval())
    soft = classifier(to_onehot=True)
    soft['head']['loss']['use_soft'] = True
    one_hot = losses_of(make(losses=dkd, student=soft).eval())
    for name in ('loss_dkd_target', 'loss_dkd_non_target'):
        torch.testing.assert_close(one_hot[name], plain[name])


def test_classes_in_another_order_are_permuted_by_name():
    model = make().eval()
    reordered = make().eval()
    order = [2, 0, 4, 1, 3]
    fc = reordered.teacher.model.head.fc
    with torch.no_grad():
        fc.weight.copy_(fc.weight[order])
        fc.bias.copy_(fc.bias[order])
    reordered.teacher.classes = tuple(CLASSES[index] for index in order)
    reordered.class_map = reordered.match_student_classes(CLASSES)
    torch.testing.assert_close(
        losses_of(reordered)['loss_kd'], losses_of(model)['loss_kd']
    )


# -- schedules and telemetry -----------------------------------------------


@pytest.fixture
def progress():
    """Sets what the running loop states."""
    hub = MessageHub.get_current_instance()

    def set_to(epoch, iteration):
        hub.update_info('loop_stage', 'train')
        hub.update_info('epoch', epoch)
        hub.update_info('iter', iteration)

    yield set_to
    for name in ('loop_stage', 'epoch', 'iter'):
        hub.runtime_info.pop(name, None)


def test_weights_follow_the_run(progress):
    ramp = dict(type='linear', end=10)
    model = make(losses=dict(KD, loss_weight=ramp), task_weight=ramp).eval()
    full = make(losses=dict(KD, loss_weight=1.0)).eval()
    expected = losses_of(full)
    # The loop counts finished epochs: 0, 1, ...
    for finished, share in ((0, 0.1), (4, 0.5), (9, 1.0), (30, 1.0)):
        progress(finished, 0)
        terms = losses_of(model)
        for name in ('loss_kd', 'loss_task'):
            torch.testing.assert_close(terms[name], share * expected[name])


def test_gradient_shares_are_measured_at_the_logits(progress):
    model = make(
        losses=dict(type='mmrkkd.RankKDLoss'), gradient_interval=3
    ).eval()
    data = model.data_preprocessor(batch(), True)
    progress(0, 3)  # The fourth iteration: 1, 4, 7 ... are measured.
    terms = model(**data, mode='loss')
    logits = model.student(data['inputs'], mode='tensor').detach()
    logits.requires_grad_()
    teacher = model.teacher.model(data['inputs'], mode='tensor')
    alone = model.distiller[0](logits, teacher)
    alone['loss_task'] = cross_entropy(
        logits, torch.tensor([0, 1, 2, 3, 4, 0])
    )
    norms = {
        name.removeprefix('loss_'): torch.autograd.grad(
            value, logits, retain_graph=True
        )[0].norm()
        for name, value in alone.items()
    }
    for name in ('kd', 'rank', 'task'):
        torch.testing.assert_close(
            terms[f'kd/grad_norm_{name}'], norms[name], rtol=1e-4, atol=1e-7
        )
        torch.testing.assert_close(
            terms[f'kd/grad_share_{name}'],
            norms[name] / sum(norms.values()),
            rtol=1e-4,
            atol=1e-7,
        )
    assert not any('loss' in key for key in terms if key.startswith('kd/'))
    progress(0, 4)
    assert not any('grad' in key for key in losses_of(model))


def test_gradient_telemetry_changes_no_gradient():
    losses = dict(type='mmrkkd.RankKDLoss')
    gradients = []
    for interval in (0, 1):
        model = make(losses=losses, gradient_interval=interval)
        model.parse_losses(losses_of(model))[0].backward()
        gradients.append([p.grad for p in model.student.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_gradient_interval_must_be_a_count():
    with pytest.raises(ValueError, match='gradient_interval must be a number'):
        make(gradient_interval=-1)


# -- models that do not fit ------------------------------------------------


@pytest.mark.parametrize('side', ['student', 'teacher'])
def test_multi_label_heads_are_refused(side):
    head = dict(type='MultiLabelLinearClsHead', num_classes=5, in_channels=64)
    model = classifier(head=head)
    with pytest.raises(TypeError, match=rf'the {side}.* sigmoid \(multi-l'):
        make(**{side: model})


def test_sigmoid_losses_are_refused():
    model = classifier()
    model['head']['loss'] = dict(type='CrossEntropyLoss', use_sigmoid=True)
    with pytest.raises(TypeError, match='by a sigmoid'):
        make(student=model)


def test_a_model_without_a_head_is_refused():
    model = classifier()
    del model['head']
    with pytest.raises(
        TypeError, match='student ImageClassifier .* no loss_module'
    ):
        make(student=model)


def test_other_numbers_of_classes_are_refused():
    with pytest.raises(ValueError, match=r'has 7 channels.* 5 class names'):
        make(teacher=classifier(num_classes=7))
