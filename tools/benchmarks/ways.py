"""Ways to take a training step: alone, ours, and as others take it.

The others' ways are written here with this project's models, so that the
ways differ in what is run and in nothing else. They are as short as can be:
no configuration, telemetry or check of theirs is in them. Their teacher is
in float32.

Ours is in the precision that ``teacher.precision='auto'`` takes on the
device for a teacher whose logits bear it; asked for by name, as logits of
random weights prove nothing.
"""

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pairs
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import Tensor, nn

from mmrkkd.commands.methods import Method
from mmrkkd.distillers.inference.hardware import fast_dtype
from mmrkkd.engine import DOT, DOTAmpOptimWrapper, DOTOptimWrapper
from mmrkkd.engine.hooks import ChannelsLastHook
from mmrkkd.losses import build_loss
from mmrkkd.losses.base import LogitLoss

ALONE, OURS = 'student alone', 'RKKD'
RATE = 1e-8


class Step:
    """Takes a training step on a batch.

    Args:
        run: Does so.
        distiller: Whose step it is, if one's.
        model: What a checkpoint is made of, if it is not the distiller.
            Defaults to None.
    """

    def __init__(
        self,
        run: Callable[[dict], object],
        distiller: object = None,
        model: nn.Module | None = None,
    ) -> None:
        self.run, self.distiller = run, distiller
        self.model = distiller if model is None else model

    def __call__(self, batch: dict) -> None:
        self.run(batch)

    @property
    def teacher(self) -> str | None:
        """The precision that a distiller's teacher runs in by now."""
        if self.distiller is None:
            return None
        return self.distiller.teacher.engine.running


class Bench:
    """A pair's student, its optimizer and what is built around it.

    Args:
        pair: The pair.
        device: 'cpu' or 'cuda'.
        optim_wrapper: From the optimizer to what takes the steps, such as
            MMEngine's for mixed precision. Defaults to OptimWrapper.
    """

    def __init__(
        self,
        pair: pairs.Pair,
        device: str,
        optim_wrapper: Callable[..., OptimWrapper] = OptimWrapper,
    ) -> None:
        self.pair, self.device = pair, device
        self.precision = precision_on(torch.device(device))
        self.ours = pairs.build(pair, precision=self.precision).to(device)
        self.student = self.ours.student
        self.optim_wrapper = optim_wrapper
        self.wrapper = self.wrapper_of(self.student)
        scaled = isinstance(self.wrapper, AmpOptimWrapper)
        self.dot = DOTAmpOptimWrapper if scaled else DOTOptimWrapper

    def wrapper_of(self, model: nn.Module) -> OptimWrapper:
        """An optimizer of a model's parameters."""
        # So small that the random models stay what they are.
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
        return self.optim_wrapper(optimizer=optimizer)

    def distiller(
        self, losses: dict | list | None = None, **options: object
    ) -> nn.Module:
        """Another distiller of the same student, see ``pairs.build``."""
        model = pairs.build(self.pair, self.student, losses, **options)
        return model.to(self.device)

    def plain_teacher(self) -> nn.Module:
        """The teacher as it is, in float32."""
        model = self.distiller(self.pair.kd, precision='float32')
        return model.teacher.model

    def step_of(self, distiller: nn.Module) -> Step:
        """A distiller's step."""
        return Step(
            lambda batch: distiller.train_step(batch, self.wrapper), distiller
        )

    def step_by(self, loss: Callable[[Tensor, list], dict]) -> Step:
        """The same with the losses that a function of the batch gives."""

        def run(batch: dict) -> None:
            with self.wrapper.optim_context(self.student):
                data = self.student.data_preprocessor(batch, True)
                terms = loss(data['inputs'], data['data_samples'])
            total, _ = self.student.parse_losses(terms)
            self.wrapper.update_params(total)

        return Step(run)


def precision_on(device: torch.device) -> str:
    """What 'auto' takes on a device."""
    dtype = fast_dtype(device) or torch.float32
    return str(dtype).removeprefix('torch.')


def alone(bench: Bench) -> Step:
    """No distillation."""
    student = bench.student
    return Step(
        lambda batch: student.train_step(batch, bench.wrapper), model=student
    )


def with_teacher(bench: Bench) -> Step:
    """The teacher, and the cheapest loss that there is."""
    losses = bench.pair.kd
    return bench.step_of(bench.distiller(losses, precision=bench.precision))


def ours(bench: Bench) -> Step:
    """The config as it is."""
    return bench.step_of(bench.ours)


def by_method(method: Method, bench: Bench) -> Step:
    """The losses and the reader of a method."""
    model = bench.distiller(
        method.losses, matching=method.matching, precision=bench.precision
    )
    return bench.step_of(model)


def with_dot(bench: Bench) -> Step:
    """The config, with a backward pass and a momentum for each gradient."""
    optimizer = DOT(bench.student.parameters(), lr=RATE, momentum=0.9)
    wrapper = bench.dot(optimizer=optimizer)
    ours = bench.distiller(precision=bench.precision)
    return Step(lambda batch: ours.train_step(batch, wrapper), ours)


def channels_last(bench: Bench) -> Step:
    """The config with a student of its own, in the layout of the hook."""
    model = pairs.build(bench.pair, precision=bench.precision)
    ChannelsLastHook().before_train(SimpleNamespace(model=model))
    model.to(bench.device)
    wrapper = bench.wrapper_of(model)
    return Step(lambda batch: model.train_step(batch, wrapper), model)


def in_float32(bench: Bench) -> Step:
    """The config with a teacher in float32."""
    return bench.step_of(bench.distiller(precision='float32'))


def in_one_stream(bench: Bench) -> Step:
    """The config with the teacher after the student, not beside it."""
    return bench.step_of(
        bench.distiller(precision=bench.precision, stream=False)
    )


def plain_ranking(bench: Bench) -> Step:
    """The ranking as in its equation, differentiated by autograd."""
    losses = pairs.model_config(
        pairs.CONFIGS / bench.pair.config, bench.pair.scope
    ).losses
    losses = dict(losses, impl='eager')
    return bench.step_of(bench.distiller(losses, precision='float32'))


def whole_teacher(bench: Bench) -> Step:
    """The teacher runs its whole training forward, all losses included.

    So does mmrazor 1.0.0 (``SingleTeacherDistill.loss`` calls the teacher
    in mode 'loss'). In a two-stage detector the teacher's scores then
    belong to its own boxes: as many are compared as both have.
    """
    student, teacher = bench.student, bench.plain_teacher()
    loss = build_loss(bench.pair.kd, LogitLoss)

    def terms(inputs: Tensor, samples: list) -> dict:
        with outputs_of(student, bench.pair.scores) as ours:
            result = student(inputs, samples, mode='loss')
        with torch.no_grad(), outputs_of(teacher, bench.pair.scores) as theirs:
            teacher(inputs, samples, mode='loss')
        ours, theirs = map(rows_of, (ours, theirs))
        rows = min(len(ours), len(theirs))
        return {**result, **loss(ours[:rows], theirs[:rows])}

    return bench.step_by(terms)


def head_twice(bench: Bench) -> Step:
    """The student's RoI head runs again for the scores of its boxes.

    So does mdistiller (``RCNNKD.forward`` calls ``forward_pure_roi_head`` of
    student and teacher after the student's own training forward).
    """
    student, teacher = bench.student, bench.plain_teacher()
    loss = build_loss(bench.pair.kd, LogitLoss)

    def terms(inputs: Tensor, samples: list) -> dict:
        seen = []
        handle = student.roi_head.bbox_roi_extractor.register_forward_hook(
            lambda module, args, output: seen.append(args)
        )
        try:
            result = student(inputs, samples, mode='loss')
        finally:
            handle.remove()
        features, rois = seen[0]
        ours = student.roi_head._bbox_forward(features, rois)['cls_score']
        with torch.no_grad():
            features = teacher.extract_feat(inputs)
            theirs = teacher.roi_head._bbox_forward(features, rois)
        return {**result, **loss(ours, theirs['cls_score'])}

    return bench.step_by(terms)


@contextlib.contextmanager
def outputs_of(model: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """What a layer puts out inside the block, call by call."""
    outputs = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda module, args, output: outputs.append(output)
    )
    try:
        yield outputs
    finally:
        handle.remove()


def rows_of(scores: list[Tensor]) -> Tensor:
    """(N, C) or maps (B, C, H, W) -> (all samples, C)."""
    return torch.cat(
        [each.flatten(2).mT.flatten(0, 1) if each.dim() == 4 else each
         for each in scores]
    )  # fmt: skip


def is_others(name: str) -> bool:
    """Whether a way, or what it imitates, is another project's."""
    return name.endswith("'s way)") or name.startswith('MMRazor')


def ways_of(
    pair: pairs.Pair, device: str
) -> dict[str, Callable[[Bench], Step]]:
    """Name to what makes a step; the student alone comes first."""
    ways = {
        ALONE: alone,
        'with teacher, KL only': with_teacher,
        OURS: ours,
        'RKKD trained by DOT': with_dot,
        'RKKD, teacher at full precision': in_float32,
    }
    if pair.scope == 'mmpretrain':
        ways['RKKD, channels last'] = channels_last
    if device == 'cuda':
        ways['RKKD, teacher after the student'] = in_one_stream
    ways['plain autograd ranking'] = plain_ranking
    ways["teacher's whole training forward (mmrazor's way)"] = whole_teacher
    if 'roi_head' in pair.scores:
        ways["student's RoI head twice (mdistiller's way)"] = head_twice
    return ways
