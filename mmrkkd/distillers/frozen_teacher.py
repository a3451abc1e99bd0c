"""The holder that keeps a teacher frozen and out of its distiller."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain

from torch import Tensor, nn

from .class_names import names_in_order
from .inference import TeacherEngine
from .inference.ahead import Ahead, given


class FrozenTeacher:
    """Holds a teacher outside the module tree of its distiller.

    It is no ``nn.Module``, so what walks the tree never meets the teacher:
    state dict, optimizer, parameter count, DDP buckets, SyncBN conversion.

    A deep copy (the EMA of a model is one) is a teacher of its own, and
    costs nothing until its ``model`` is asked for: it lies on the memory of
    the first one and notes where it is to move; only then it moves and
    takes memory of its own.

    Args:
        model: Put into eval mode for good, all gradients off.
        classes: The class names in the order of its channels, if known.
        source: What it was built from, for the log.
        sha256: SHA-256 of the file that its weights were read from.
        engine: How it computes; a copy decides for itself. Defaults to
            None: as it is, in float32.

    Raises:
        ValueError: ``classes`` is no list of names.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str] | None = None,
        source: str = '',
        sha256: str | None = None,
        engine: TeacherEngine | None = None,
    ) -> None:
        self.engine = engine or TeacherEngine()
        self._model = model.eval().requires_grad_(False)
        # Moves that an unused copy has yet to make; None: it is no copy, or
        # one that was used.
        self._moves: list[Callable[[Tensor], Tensor]] | None = None
        self.classes = names_in_order('teacher.classes', classes)
        self.source = source
        self.sha256 = sha256
        # Whoever calls train() on the teacher itself changes nothing. The
        # function holds the model, not this holder: it is copied with it.
        model.train = partial(_stay_in_eval, model)

    @property
    def model(self) -> nn.Module:
        """The teacher, in eval mode, where it was last moved to."""
        if self._moves is not None:
            self._model._apply(partial(_moved, moves=self._moves))
            self._moves = None
        return self._model

    def apply(self, function: Callable[[Tensor], Tensor]) -> None:
        """Follows the distiller to another device or dtype."""
        if self._moves is None:
            self._model._apply(function)
        else:
            self._moves.append(function)

    def begin(self, views: Sequence[Tensor]) -> Ahead | None:
        """Begins to compute features, beside what is launched next.

        Args:
            views: V tensors (N, C, H, W) of one shape, its inputs.

        Returns:
            What :meth:`given` takes. None before the first batch, which
            shows how it computes, and where it has no backbone.
        """
        if not self.engine.settled or 'backbone' not in self.model._modules:
            return None
        return Ahead(self.model, views, self.engine.stream)

    @contextmanager
    def given(
        self,
        inputs: Tensor,
        ahead: Ahead | None,
        noted: Callable[[], Iterable[Tensor]],
    ) -> Iterator[None]:
        """Inside the block its features of a view are on their way.

        Args:
            inputs: The view.
            ahead: What :meth:`begin` gave; None begins here.
            noted: Gives the tensors that hooks have noted meanwhile.
        """
        ahead = ahead or self.begin([inputs])
        if ahead is None:
            yield
            return
        with given(self.model, ahead, inputs, noted):
            yield

    def __deepcopy__(self, memo: dict) -> 'FrozenTeacher':
        twin = object.__new__(type(self))
        vars(twin).update(vars(self), engine=copy.copy(self.engine))
        memo[id(self)] = twin
        for tensor in chain(self._model.parameters(), self._model.buffers()):
            # Another tensor on the same memory: to move either of the two
            # leaves the other where it is.
            memo[id(tensor)] = (
                nn.Parameter(tensor.data, requires_grad=False)
                if isinstance(tensor, nn.Parameter)
                else tensor.data
            )
        twin._model = copy.deepcopy(self._model, memo)
        twin._moves = list(self._moves or ())
        return twin

    def __getstate__(self) -> dict:
        # Moves are closures, which no pickle holds: make them first.
        return dict(vars(self), _model=self.model, _moves=None)


def _moved(tensor: Tensor, moves: Sequence[Callable]) -> Tensor:
    """A copy's tensor after its moves, on memory of its own."""
    moved = tensor
    for move in moves:
        moved = move(moved)
    return moved.clone() if moved is tensor else moved


def _stay_in_eval(model: nn.Module, mode: bool = True) -> nn.Module:
    """Takes the place of a frozen model's ``train``."""
    return model
