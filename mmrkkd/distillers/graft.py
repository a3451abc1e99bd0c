"""What a loss adds inside the student while it trains."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from torch.utils.hooks import RemovableHandle

from mmrkkd.losses.feature import FeatureLoss
from mmrkkd.losses.feature.base import Shape

from .readers.feature_taps import FeatureTaps
from .readers.features import FeatureReader
from .readers.layer_names import BEFORE
from .readers.linear_classifier import ClassifierReader
from .student_state import STUDENT

# Far above the rounding of float32, far below what a ReLU would change.
TOLERANCE = 1e-3


class Graft:
    """A residual behind a layer of the student, by hooks.

    The hooks stay: whoever runs the student runs it as it trains. In
    evaluation a residual that was not trained is left out.

    Args:
        loss: A feature loss that sets ``grows_student``.
        student: The student.
        teacher: The teacher.
        student_reader: Has looked at the loss's layer.
        part: Which of its layers that is.
        teacher_shapes: One, of the teacher's layer, (1, C, H, W).

    Raises:
        ValueError: the layer is what goes into a module, or is run more than
            once; or the student's scores are no linear layer with a bias on
            averages of the cells of this layer.
    """

    def __init__(
        self,
        loss: FeatureLoss,
        student: nn.Module,
        teacher: nn.Module,
        student_reader: FeatureReader,
        part: slice,
        teacher_shapes: Sequence[Shape],
    ) -> None:
        self.loss = loss
        self.path, self.number = student_reader.layers[part.start]
        if self.path.startswith(BEFORE):
            raise ValueError(
                f'{type(loss).__name__} puts a residual behind a layer of the '
                'student, so that student_layers must be what a module puts '
                f'out, without before, got {self.path!r}'
            )
        shape = student_reader.shapes[part.start]
        self.linear = ClassifierReader(student, 'student', [shape]).path
        self.taps: FeatureTaps | None = None
        self.handles: list[RemovableHandle] = []
        self._check(student, shape, student_reader.size)
        self.attach(student)
        if loss.logit_scale is not None:
            path = ClassifierReader(teacher, 'teacher', teacher_shapes).path
            # The teacher never trains: it does as the student does.
            teacher.get_submodule(path).register_forward_hook(self.rescale)

    def attach(self, student: nn.Module) -> None:
        """Grows a student; the one before it grows no more.

        Args:
            student: Of the architecture that this was made for, or the same
                one again, such as with its BatchNorms converted.
        """
        for handle in self.handles:
            handle.remove()
        self.classifier = student.get_submodule(self.linear)
        layer = student.get_submodule(self.path)
        self.handles = [layer.register_forward_hook(self.grow)]
        if self.loss.logit_scale is not None:
            self.handles.append(
                self.classifier.register_forward_hook(self.rescale)
            )

    def grow(self, layer: nn.Module, args: tuple, output: object) -> object:
        """Hook behind the layer: the residual."""
        residual = self.loss.residual
        if not layer.training and not residual.counts:
            return output
        residual.train(layer.training)
        features = output
        if not isinstance(output, Tensor):
            features = output[self.number]
        grown, expanded = residual(features)
        if self.taps is not None:
            self.taps.grown[self.loss] = features, expanded
        return _replaced(output, self.number, grown)

    def rescale(
        self, linear: nn.Module, args: tuple, output: Tensor
    ) -> Tensor:
        """Hook behind a linear layer: normalised logits in training."""
        if not self.classifier.training:
            return output
        normal = layer_norm(output, output.shape[-1:], eps=1e-7)
        return self.loss.logit_scale * normal

    def merge_into(self, state: dict[str, Tensor], prefix: str) -> None:
        """Makes a plain student's state of a grown one's, in place.

        Args:
            state: Has the student's linear layer.
            prefix: Of the student's keys.
        """
        if self.loss.residual.counts:
            keys = [prefix + key for key in self.keys]
            values = self.loss.residual.merged_into(*map(state.get, keys))
            state.update(zip(keys, values, strict=True))

    def unmerged(self, student: nn.Module) -> dict[str, Tensor]:
        """The linear layer as it trains, for a checkpoint.

        Returns:
            Key, with ``student.``, to a copy on the CPU; {} where nothing
            is merged.
        """
        if not self.loss.residual.counts:
            return {}
        state = student.state_dict()
        return {
            STUDENT + key: state[key].detach().to('cpu', copy=True)
            for key in self.keys
        }

    def split_off(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Takes what :meth:`unmerged` gave out of a state, in place.

        Returns:
            The student's own key to tensor.
        """
        return {
            key: state.pop(STUDENT + key)
            for key in self.keys
            if STUDENT + key in state
        }

    def loaded(self, state: dict[str, Tensor], prefix: str) -> None:
        """Forgets the residual where a plain student's weights came in.

        Args:
            state: What is being loaded.
            prefix: Of the distiller's keys.
        """
        if prefix + STUDENT + self.keys[0] in state:
            self.loss.residual.forget()

    @property
    def keys(self) -> tuple[str, str]:
        """The weight and the bias of the linear layer, in the student."""
        return f'{self.linear}.weight', f'{self.linear}.bias'

    def _check(self, student: nn.Module, shape: Shape, size: int) -> None:
        """Runs the student on a map of noise, as it is and grown."""
        ends = [f'{BEFORE}{self.linear}', f'{BEFORE}{self.path}[*]']
        before = FeatureReader(student, 'student', ends, size)
        if len(before.layers) > len(ends):
            raise ValueError(
                f'{type(self.loss).__name__} puts a residual behind a layer '
                f"that is run once, and the student's {self.path!r} is run "
                'several times: name the block that ends with it'
            )
        trial = copy.deepcopy(self.loss.residual).eval()
        for norm in (trial.expand[1], trial.contract[1]):
            nn.init.normal_(norm.bias)
        some = next(student.parameters())
        features = torch.randn(shape, device=some.device, dtype=some.dtype)
        with torch.no_grad():
            grown, _ = trial.to(some)(features)
        plain, found = (
            self._pooled(student, before, each) for each in (features, grown)
        )
        matrix, vector = trial.affine()
        expected = plain.double() @ matrix.T + vector
        error = (found - expected).abs().max()
        bias = student.get_submodule(self.linear).bias
        if bias is None or not error <= TOLERANCE * expected.abs().max():
            raise ValueError(
                f'{type(self.loss).__name__} is merged into the linear layer '
                f"that follows the student's {self.path!r}: between the two "
                'there may be averages over the cells and nothing else, and '
                f'{self.linear!r} must have a bias; use a student with a '
                'GlobalAveragePooling and a LinearClsHead, and name its last '
                'map'
            )

    def _pooled(
        self, student: nn.Module, before: FeatureReader, features: Tensor
    ) -> Tensor:
        """What reaches the linear layer if the layer puts out this map."""

        def replace(layer: nn.Module, args: tuple, output: object) -> object:
            return _replaced(output, self.number, features)

        layer = student.get_submodule(self.path)
        with layer.register_forward_hook(replace):
            pooled, _ = before.read(before.look(student))
        return pooled


def _replaced(output: object, number: int, value: Tensor) -> object:
    """A layer's output with another tensor in one place."""
    if isinstance(output, Tensor):
        return value
    return type(output)(
        value if place == number else each for place, each in enumerate(output)
    )


def as_merged(
    module: nn.Module, state_dict: dict, prefix: str, local_metadata: dict
) -> None:
    """State dict hook of a distiller, when the student's keys are plain.

    Args:
        module: The distiller.
        state_dict: Its state, changed in place. One without metadata, which
            keeps what the losses learn, is left as it is.
        prefix: Of the distiller's own keys.
        local_metadata: The distiller's metadata; unused.
    """
    if getattr(state_dict, '_metadata', None) is None or not module.seam:
        return
    for graft in module.seam.grafts:
        graft.merge_into(state_dict, prefix)
