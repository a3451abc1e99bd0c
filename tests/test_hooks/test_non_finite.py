"""A loss that is not finite names itself and reaches no weight."""

import copy
import itertools
import math
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import free_port
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn

from mmrkkd.engine.batches import image_names, plain_values
from mmrkkd.engine.hooks import (
    NonFiniteHook,
    NonFiniteLossError,
    non_finite,
)
from mmrkkd.engine.loss_terms import bad_of, terms_of
from mmrkkd.ops.late import LateFlag

BAD = 3
NUMBERS = itertools.count()
NAN, INF = float('nan'), float('inf')


class Images(torch.utils.data.Dataset):
    """Images in order, one of which is full of ``value``."""

    def __init__(self, bad=(BAD,), value=NAN, number=6):
        self.bad, self.value, self.number = bad, value, number

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.randn(2, 3, generator=generator)
        if index in self.bad:
            image[0, 0] = self.value
        sample = BaseDataElement(metainfo=dict(img_path=f'{index}.png'))
        sample.gt_label = torch.tensor(index)
        return dict(inputs=image, data_samples=sample)


class Model(BaseModel):
    """Batch norm and two loss terms, one of them of two levels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(2)
        self.layer = nn.Linear(3, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        scores = self.layer(self.norm(torch.stack(inputs)))
        loss = scores.square().mean()
        return dict(
            loss_task=[loss, loss * 2],
            loss_rank=scores.mean().tanh() * 0 + scores.new_ones(()),
            acc=torch.tensor(NAN),
        )


def train(
    tmp_path,
    dataset=None,
    action='skip',
    accumulate=1,
    model=None,
    **options,
):
    """One epoch of three batches of two images; the second one is bad."""
    states = []

    class Recorder(Hook):
        def after_train_iter(self, runner, batch_idx, **kwargs):
            optimizer = runner.optim_wrapper.optimizer.state_dict()
            parts = runner.model.state_dict(), optimizer['state']
            states.append(copy.deepcopy(parts))

    runner = Runner(
        model=model or Model(),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=dataset or Images(),
            batch_size=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(
            optimizer=dict(type='Adam', lr=0.1, weight_decay=0.1),
            accumulative_counts=accumulate,
        ),
        default_hooks=dict(
            logger=None, checkpoint=dict(type='CheckpointHook')
        ),
        custom_hooks=[NonFiniteHook(action, **options), Recorder()],
        experiment_name=f'non_finite_{next(NUMBERS)}',
        cfg=Config(),
    )
    try:
        runner.train()
    finally:
        DefaultScope._instance_dict.clear()
    return runner, states


def test_stops_before_the_weights_change_and_says_where(tmp_path):
    before = Model()
    with pytest.raises(
        NonFiniteLossError,
        match=r'(?s)loss_task is nan, loss_rank is nan at iteration 2 \(epoch '
        r'1\), images: 2.png, 3.png\. .*stopped before the weights changed',
    ):
        train(tmp_path, action='stop')
    with pytest.raises(NonFiniteLossError) as caught:
        train(tmp_path / 'first', Images(bad=(0,)), action='stop')
    assert 'iteration 1' in str(caught.value)
    # Nothing was written after the fault, and nothing changed.
    assert not list(tmp_path.glob('*.pth'))
    assert before.norm.running_mean.isfinite().all()


@pytest.mark.parametrize('value', [NAN, INF, -INF])
@pytest.mark.parametrize('action', ['skip', 'save'])
def test_a_skipped_step_changes_nothing(tmp_path, action, value):
    runner, states = train(tmp_path, Images(value=value), action)
    assert runner.iter == 3
    (weights, optimizer), (other, other_optimizer) = states[0], states[1]
    for key in weights:
        assert torch.equal(weights[key], other[key]), key
    for index, entry in optimizer.items():
        for key in entry:
            assert torch.equal(entry[key], other_optimizer[index][key]), key
    # The next step goes on, and running means count two batches.
    assert not torch.equal(states[2][0]['layer.weight'], other['layer.weight'])
    assert states[2][0]['norm.num_batches_tracked'] == 2
    assert all(value.isfinite().all() for value in states[2][0].values())


def test_the_answer_is_read_between_the_backward_pass_and_the_step(
    tmp_path, monkeypatch
):
    events = []

    class Noted(LateFlag):
        def ask(self, flag):
            events.append('asked')
            super().ask(flag)

        def answer(self):
            answer = super().answer()
            events.append(answer)
            return answer

    class Model_(Model):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output['loss_rank'].register_hook(
                lambda gradient: events.append('backward')
            )
            return output

    monkeypatch.setattr(non_finite, 'LateFlag', Noted)
    train(tmp_path, model=Model_())
    step = ['asked', 'backward', True, None]
    assert events == [*step, *step[:2], False, None, *step]


def test_a_model_that_steps_past_the_wrapper_is_told_so(tmp_path):
    class Own(Model):
        def train_step(self, data, optim_wrapper):
            data = self.data_preprocessor(data, True)
            terms = self(**data, mode='loss')
            total, log = self.parse_losses(terms)
            total.backward()
            optim_wrapper.optimizer.step()
            return log

    with pytest.raises(NonFiniteLossError, match='the weights have changed'):
        train(tmp_path, model=Own())


def test_the_end_equals_a_run_without_the_bad_batch(tmp_path):
    _, skipped = train(tmp_path / 'a')
    good = torch.utils.data.Subset(Images(), [0, 1, 4, 5])
    _, clean = train(tmp_path / 'b', good, 'stop')
    for key, value in clean[-1][0].items():
        assert torch.equal(skipped[-1][0][key], value), key


def test_accumulated_gradients_of_good_batches_are_kept(tmp_path):
    _, states = train(tmp_path / 'a', accumulate=3)
    start = Model().state_dict()
    assert torch.equal(states[1][0]['layer.weight'], start['layer.weight'])
    assert not torch.equal(states[2][0]['layer.weight'], start['layer.weight'])


def test_the_log_tells_the_truth_about_a_skipped_step(tmp_path):
    runner, _ = train(tmp_path)
    history = runner.message_hub.get_scalar('train/loss_task')
    finite = [math.isfinite(value) for value in history.data[0]]
    assert finite == [True, False, True]


def test_good_steps_are_not_touched(tmp_path):
    good = Images(bad=())
    ends = [
        train(tmp_path / action, good, action)[1][-1][0]
        for action in ('stop', 'skip')
    ]
    for key, value in ends[0].items():
        assert torch.equal(ends[1][key], value), key


def test_saved_batches_are_bounded_and_hold_no_code(tmp_path):
    everything = Images(bad=range(1, 8), number=8)
    train(tmp_path, everything, 'save', max_saved=2, max_in_a_row=5)
    files = sorted((tmp_path / 'non_finite').iterdir())
    assert [path.name for path in files] == ['iter_1.pth', 'iter_2.pth']
    content = torch.load(files[1], weights_only=True)
    assert content['images'] == ['2.png', '3.png']
    assert content['iteration'] == 2
    assert list(content['terms']) == ['loss_task', 'loss_rank']
    assert all(math.isnan(value) for value in content['terms'].values())
    inputs, samples = (
        content['batch']['inputs'],
        content['batch']['data_samples'],
    )
    assert torch.equal(
        inputs[0].nan_to_num(), everything[2]['inputs'].nan_to_num()
    )
    assert samples[1] == dict(img_path='3.png', gt_label=torch.tensor(3))


def test_stops_when_no_step_is_good_any_more(tmp_path):
    everything = Images(bad=range(8), number=8)
    with pytest.raises(
        NonFiniteLossError, match='iteration 3 .* 3 steps in a row'
    ):
        train(tmp_path, everything, max_in_a_row=3)


def process(rank, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'tcp://127.0.0.1:{port}',
        rank=rank,
        world_size=2,
    )
    # Images 0, 2, 4 .. go to the first process, 1, 3, 5 .. to the other.
    results = {}
    for name, (action, accumulate, unused) in RUNS.items():
        model = MMDistributedDataParallel(
            Model(), find_unused_parameters=unused
        )
        states, error = [model.state_dict()], ''
        try:
            _, states = train(
                folder / name / str(rank),
                Images(bad=(5,), number=12),
                action,
                accumulate,
                model,
            )
            states = [weights for weights, _ in states]
        except NonFiniteLossError as stopped:
            error = str(stopped)
        results[name] = states, error
    torch.save(results, folder / f'{rank}.pth')
    dist.destroy_process_group()


# Action, accumulated batches, find_unused_parameters.
RUNS = dict(
    save=('save', 1, False),
    stop=('stop', 1, False),
    accumulate=('skip', 2, False),
    accumulate_unused=('skip', 2, True),
)


@pytest.fixture(scope='module')
def of_two_processes(tmp_path_factory):
    """The second has a bad image in its second batch of three."""
    folder = tmp_path_factory.mktemp('two')
    mp.spawn(process, (free_port(), folder), nprocs=2)
    return folder, [torch.load(folder / f'{rank}.pth') for rank in (0, 1)]


@pytest.mark.slow
def test_no_process_steps_along_a_bad_loss_of_another(of_two_processes):
    folder, results = of_two_processes
    (first, of_first), (second, of_second) = (each['stop'] for each in results)
    assert 'loss_task is nan' in of_second and '5.png' in of_second
    assert of_first.startswith('A loss of another process is not finite at')
    for (weights,) in (first, second):
        assert weights['module.layer.weight'].isfinite().all()
    assert not list((folder / 'stop').rglob('*.pth'))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['accumulate', 'accumulate_unused'])
def test_a_bad_batch_that_ends_a_step_takes_the_whole_step(
    name, of_two_processes
):
    start = Model().state_dict()
    (first, _), (second, _) = (each[name] for each in of_two_processes[1])
    for weights, others in zip(first, second, strict=True):
        for key in ('module.layer.weight', 'module.norm.weight'):
            assert torch.equal(weights[key], others[key]), key
    key = 'layer.weight'
    assert torch.equal(first[1][f'module.{key}'], start[key])
    assert not torch.equal(first[2][f'module.{key}'], start[key])


@pytest.mark.slow
def test_all_processes_leave_out_a_step_that_is_bad_in_one(of_two_processes):
    folder, results = of_two_processes
    (first, _), (second, _) = (each['save'] for each in results)
    for states in (first, second):
        for key in states[0]:
            assert torch.equal(states[0][key], states[1][key]), key
    key = 'module.layer.weight'
    assert not torch.equal(first[2][key], first[1][key])
    assert torch.equal(first[2][key], second[2][key])
    # Only the process that saw the fault has saved a batch.
    saved = [path.name for path in folder.glob('save/*/non_finite/*')]
    assert saved == ['iter_2_rank_1.pth']


def test_a_list_of_levels_is_one_term():
    losses = dict(
        loss_cls=[torch.tensor(1.0), torch.tensor([1.0, -INF])],
        loss_box=torch.tensor([1.0, 2.0]),
        tau=torch.tensor(NAN),
        loss_none=[],
    )
    assert bad_of(list(terms_of(losses))) == dict(loss_cls=-INF)
    assert bad_of(list(terms_of({}))) == {}


def test_images_of_a_batch_have_a_name():

    def sample(**metainfo):
        return BaseDataElement(metainfo=metainfo)

    batch = dict(
        data_samples=[
            [sample(img_path='a/b.png', img_id=3)],
            sample(sample_idx=7),
            sample(img_path='a/b.png'),
            sample(),
        ]
    )
    assert image_names(batch) == ['a/b.png', 'sample_idx 7']
    assert image_names([1]) == image_names({}) == []


def test_a_batch_becomes_plain_values():
    from mmdet.structures.bbox import HorizontalBoxes

    boxes = torch.ones(1, 4)
    batch = dict(a=HorizontalBoxes(boxes), b=(1, 'x', None), c=object)
    plain = plain_values(batch)
    assert torch.equal(plain['a'], boxes)
    assert plain['b'] == [1, 'x', None]
    assert plain['c'] == "<class 'object'>"


@pytest.mark.parametrize(
    'options, message',
    [
        (
            dict(action='no'),
            "action must be one of stop, skip, save, got 'no'",
        ),
        (dict(max_saved=0), 'max_saved must be >= 1, got 0'),
        (dict(max_in_a_row=-1), 'max_in_a_row must be >= 1, got -1'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        NonFiniteHook(**options)


def test_a_hook_that_stopped_a_run_watches_the_next_one_once():
    hook = NonFiniteHook('stop')
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = OptimWrapper(optimizer)
    runner = SimpleNamespace(model=model, optim_wrapper=wrapper)
    for _ in range(2):
        hook.before_train(runner)
        assert len(model._forward_hooks) == 1
        assert wrapper.step.args == (type(wrapper).step.__get__(wrapper),)
    hook.after_train(runner)
    assert not model._forward_hooks and 'step' not in vars(wrapper)
