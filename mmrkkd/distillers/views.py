"""What goes before a student's data preprocessor: checks, several views."""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from .annotations import check_samples


class CheckedPreprocessor:
    """A student's data preprocessor, which looks at annotations first.

    There they are on the CPU still, and nothing waits for a GPU. Whatever
    else comes is handed to the preprocessor as it is, and so is what is read
    and written: a hook that sets ``batch_augments`` to None turns them off.

    Args:
        single: The preprocessor.
        classes: Number of the student's classes, without background; None
            to look at nothing.
        boxes: Whether the student learns boxes. Defaults to True.
    """

    many_views = False

    def __init__(
        self,
        single: nn.Module,
        classes: int | None = None,
        boxes: bool = True,
    ) -> None:
        vars(self).update(single=single, classes=classes, boxes=boxes)

    def __call__(self, data: dict, training: bool = False) -> dict:
        """Preprocesses a batch.

        Args:
            data: ``inputs`` and ``data_samples``.
            training: Whether this is a training step.

        Raises:
            ValueError: see :func:`.annotations.check_samples`; or there are
                several views, which only classifiers take.
        """
        if training and self.classes is not None and isinstance(data, dict):
            check_samples(data.get('data_samples'), self.classes, self.boxes)
        return self.processed(data, training)

    def processed(self, data: dict, training: bool) -> dict:
        """What the preprocessor makes of a batch."""
        inputs = data.get('inputs') if isinstance(data, dict) else None
        if is_multi_view(inputs) and not isinstance(inputs[0], Tensor):
            raise ValueError(
                f'inputs must be images, a list of tensors, got {len(inputs)} '
                'views (lists) of them: only a KDClassifier takes several; '
                'take MultiView out of the pipeline'
            )
        return self.single(data, training)

    def __getattr__(self, name: str) -> object:
        if name in ('single', 'classes', 'boxes'):
            # Not there yet: Python is copying or unpickling this object.
            raise AttributeError(name)
        return getattr(self.single, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.single, name, value)


class MultiViewPreprocessor(CheckedPreprocessor):
    """Applies a data preprocessor to every view of a batch.

    A pipeline with MMPretrain's ``MultiView`` gives ``inputs`` as a list of
    V views.
    """

    many_views = True

    def processed(self, data: dict, training: bool) -> dict:
        """Preprocesses a batch.

        Args:
            data: ``inputs``, a list of V views, each (N, 3, H, W) or a list
                of N images, and ``data_samples``, N of them.
            training: Whether this is a training step.

        Returns:
            The same, ``inputs`` a list of V tensors (N, 3, H, W).

        Raises:
            ValueError: images would be mixed, by another share in each view.
        """
        if not is_multi_view(data.get('inputs')):
            return self.single(data, training)
        if training and getattr(self.single, 'batch_augments', None):
            raise ValueError(
                'data_preprocessor.batch_augments (Mixup, CutMix) would mix '
                'each view of an image in its own way, but its views share '
                'one label: remove batch_augments or the MultiView pipeline'
            )
        views = [
            self.single(dict(data, inputs=view), training)
            for view in data['inputs']
        ]
        return dict(
            inputs=[view['inputs'] for view in views],
            data_samples=views[0]['data_samples'],
        )


def refuse_mixing(
    preprocessor: nn.Module, losses: Iterable[nn.Module]
) -> None:
    """Refuses to mix images where a loss needs the class of each.

    The loss itself sees it at the first batch that is mixed, which with a
    small probability is in the middle of a training.

    Args:
        preprocessor: The student's.
        losses: With the losses inside them.

    Raises:
        ValueError: it mixes, by MMPretrain's Mixup or what inherits from it
            (CutMix, ResizeMix), and one of the losses sets
            ``needs_labels``.
    """
    mixing = _mixing(preprocessor)
    for loss in losses if mixing else ():
        parts = [
            type(part).__name__
            for part in loss.modules()
            if getattr(part, 'needs_labels', False)
        ]
        if parts:
            # What wraps a loss needs what is inside of it.
            raise ValueError(
                f'{" around ".join(parts)} needs one class for each image, '
                'and data_preprocessor.batch_augments (or train_cfg.augments '
                f'of the student) mixes them: {", ".join(mixing)}. Remove '
                'the mixing, or take a loss that needs no labels, such as '
                'KDLoss'
            )


def _mixing(preprocessor: nn.Module) -> list[str]:
    """The names of the steps that mix images and their labels."""
    batch = getattr(preprocessor, 'batch_augments', None)
    # Those of MMDetection's are a list, and mix nothing.
    steps = getattr(batch, 'augments', ())
    shares = getattr(batch, 'probs', None) or [1] * len(steps)
    return [
        type(step).__name__
        for step, share in zip(steps, shares, strict=False)
        if share and 'Mixup' in [kind.__name__ for kind in type(step).__mro__]
    ]


def is_multi_view(inputs: object) -> bool:
    """Whether collated inputs are views, not images.

    Views are tensors of four dimensions or lists of images; a list of
    tensors of three dimensions is one view.
    """
    if not isinstance(inputs, Sequence) or not inputs:
        return False
    return all(
        view.dim() == 4
        if isinstance(view, Tensor)
        else isinstance(view, Sequence)
        for view in inputs
    )
