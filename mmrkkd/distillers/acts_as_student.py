"""To runners, hooks and optimizers a distiller is its student."""

from collections.abc import Callable, Iterator

from mmengine.model import BaseModel
from torch import Tensor, nn

from .student_state import (
    LEARNED,
    STUDENT,
    as_distiller,
    as_plain_student,
    forgive_learned,
    learned_state,
    load_learned_state,
)


class ActsAsStudent(BaseModel):
    """A model around a student that passes reads and writes on to it.

    ``model.backbone``, ``model.bbox_head.use_l1 = True``,
    ``model.set_epoch(3)``, ``model.data_preprocessor.batch_augments = None``:
    whatever this class has not itself is the student's. Parameters bear the
    student's names, and the state dict is the student's
    (:mod:`mmrkkd.distillers.student_state`).

    A subclass sets ``student``, and ``distiller`` for what a method learns
    itself. What is set before ``student`` is its own for good; afterwards a
    name that the student has, and this class has not, means the student's.
    """

    def __init__(self) -> None:
        super().__init__()
        # BaseModel registers a preprocessor; ours is the student's.
        del self.data_preprocessor
        self._register_state_dict_hook(as_plain_student)
        self.register_load_state_dict_post_hook(forgive_learned)

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            student = self._student_or_none()
            # Python asks instances for methods such as __deepcopy__.
            if student is None or name.startswith('__'):
                raise
        value = getattr(student, name)
        if name == 'get_layer_depth':
            # MMPretrain's layer-wise learning rates walk the module tree,
            # where the student's names have a prefix.
            return _of_student(value)
        return value

    def __setattr__(self, name: str, value: object) -> None:
        is_property = isinstance(getattr(type(self), name, None), property)
        if is_property and self._student_or_none() is not None:
            # nn.Module would make a module of ours of it.
            object.__setattr__(self, name, value)
        elif self._is_students(name):
            setattr(self.student, name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if self._is_students(name):
            delattr(self.student, name)
        else:
            super().__delattr__(name)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Adds a module, or puts one in the place of a part.

        Args:
            name: Of a part of the student's, or a new one.
            module: The module.
        """
        if self._is_students(name):
            self.student.add_module(name, module)
        else:
            super().add_module(name, module)

    def __dir__(self) -> list[str]:
        student = self._student_or_none()
        return sorted({*super().__dir__(), *dir(student or ())})

    def _student_or_none(self) -> nn.Module | None:
        return self.__dict__.get('_modules', {}).get('student')

    def _is_students(self, name: str) -> bool:
        student = self._student_or_none()
        return (
            student is not None
            and not self._owns(name)
            and hasattr(student, name)
        )

    def _owns(self, name: str) -> bool:
        return (
            name in (LEARNED, *self.__dict__)
            or any(
                name in self.__dict__[kind]
                for kind in ('_modules', '_parameters', '_buffers')
            )
            or hasattr(type(self), name)
        )

    @property
    def data_preprocessor(self) -> nn.Module:
        """The student's."""
        return self.student.data_preprocessor

    @data_preprocessor.setter
    def data_preprocessor(self, value: nn.Module) -> None:
        self.student.data_preprocessor = value

    def named_parameters(
        self, *args: object, **kwargs: object
    ) -> Iterator[tuple[str, Tensor]]:
        """As of any module, the student's by their names in the student."""
        return _as_in_student(super().named_parameters, *args, **kwargs)

    def named_buffers(
        self, *args: object, **kwargs: object
    ) -> Iterator[tuple[str, Tensor]]:
        """As of any module, the student's by their names in the student."""
        return _as_in_student(super().named_buffers, *args, **kwargs)

    def init_weights(self) -> None:
        """Initialises the student; the teacher has its weights."""
        self.student.init_weights()

    def learned_state(self) -> dict[str, Tensor]:
        """What the methods learn themselves; see :func:`learned_state`."""
        return learned_state(self.distiller)

    def load_learned_state(self, state: dict[str, Tensor]) -> None:
        """Puts it back; see :func:`load_learned_state`."""
        load_learned_state(self.distiller, state)

    def _load_from_state_dict(
        self,
        state_dict: dict,
        prefix: str,
        local_metadata: dict,
        *args,
        **kwargs,
    ) -> None:
        as_distiller(state_dict, prefix, local_metadata)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, *args, **kwargs
        )


def _as_in_student(
    named: Callable, *args: object, **kwargs: object
) -> Iterator[tuple[str, Tensor]]:
    prefix = kwargs.get('prefix', args[0] if args else '')
    start = f'{prefix}.' if prefix else ''
    for name, value in named(*args, **kwargs):
        yield start + name.removeprefix(start).removeprefix(STUDENT), value


def _of_student(get_layer_depth: Callable) -> Callable:
    def depth(param_name: str, *args: object) -> tuple[int, int]:
        return get_layer_depth(param_name.removeprefix(STUDENT), *args)

    return depth
