"""How the teacher computes: its precision, decided on the first batch."""

import logging
from collections.abc import Callable, Collection

import torch
from mmengine.logging import print_log
from torch import nn

from mmrkkd.ops.checks import check_choice, check_flag

from .check import Agreement, compare, everywhere, least_of_all
from .hardware import fast_dtype
from .parts import find_parts
from .plans import (
    FAILURES,
    PLANS,
    Plan,
    Read,
    exact_matches,
    layers_unread,
)
from .reduced import Undo

DTYPES = dict(
    float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16
)
PRECISIONS = ('auto', *DTYPES)


class TeacherEngine:
    """Decides on the first batch how a teacher computes, and says so.

    Args:
        precision: 'float32', as it was trained; 'bfloat16' or 'float16', for
            backbone, neck and, but for their last layers, heads; 'auto',
            bfloat16 where the hardware is fast at it (:func:`fast_dtype`)
            and the logits of the first batch stay what they are
            (:mod:`mmrkkd.distillers.inference.check`), else float32.
            Defaults to 'float32'.
        compile: Run backbone and neck through torch.compile, for all sizes
            of images. Defaults to False.
        stream: On CUDA, compute the teacher's features on a stream of their
            own, beside the student's forward. Defaults to True.

    Raises:
        ValueError: precision is unknown, or a flag is none.
    """

    def __init__(
        self,
        precision: str = 'float32',
        compile: bool = False,
        stream: bool = True,
    ) -> None:
        check_choice('teacher.precision', precision, PRECISIONS)
        self.precision = precision
        self.compile = check_flag('teacher.compile', compile)
        self.stream = check_flag('teacher.stream', stream)
        self.running = 'float32'
        self.settled = precision == 'float32' and not compile
        # How 'auto' was decided here, and in the run that is gone on with.
        self._plan: Plan | None = None
        self._followed: dict | None = None

    def __str__(self) -> str:
        text = self.precision
        if self.settled and self.running != self.precision:
            text += f' ({self.running})'
        return text + (', compiled' if self.compile else '')

    def stay_exact(self, owner: str) -> None:
        """Keeps float32 and every layer, for a loss that trains through it.

        Args:
            owner: The loss, for the message.

        Raises:
            ValueError: the options want something else.
        """
        if self.precision not in ('auto', 'float32') or self.compile:
            raise ValueError(
                f"{owner} trains through the teacher's layers, which wants "
                "teacher.precision='float32' and no compile, got precision="
                f'{self.precision!r}, compile={self.compile}'
            )
        self.precision, self.settled = 'float32', True

    @property
    def decision(self) -> dict | None:
        """What 'auto' has chosen: plain values; None if nothing yet."""
        if self.precision != 'auto' or not self.settled:
            return None
        plan = self._plan._asdict() if self._plan else {}
        return dict(precision=self.running, **plan)

    def follow(self, decision: dict | None) -> None:
        """Lets 'auto' choose as before, without a look at a first batch.

        Args:
            decision: As :attr:`decision` gave it in the run that is resumed,
                or None. Hardware that is not fast at the precision stays at
                float32 all the same.
        """
        self._followed = decision if self.precision == 'auto' else None

    def settle(
        self,
        model: nn.Module,
        read: Read,
        activation: str,
        kept: Collection[str] = (),
        exact_heads: bool = False,
        whole_heads: bool = False,
        passed: Callable[[], Collection[nn.Module] | None] = lambda: None,
    ) -> None:
        """Changes the teacher to what the options want.

        Its modules stay what they are; their weights are replaced. Nothing
        is decided on a batch without a row.

        Args:
            model: The teacher.
            read: Reads the matches of a batch with it.
            activation: Of its logits, 'softmax' or 'sigmoid'.
            kept: Paths of modules whose output or input is read.
            exact_heads: Whether its heads keep float32, as where something
                trains through them.
            whole_heads: Whether they keep every layer too, as where more of
                them is read than scores.
            passed: Gives, after a read, the layers of its heads that must
                keep float32 then; None, all of them.
        """
        weight = next(model.parameters())
        dtype = self._wanted(weight.device)
        if weight.dtype != torch.float32:
            self._say(f'stays {weight.dtype}, as it was moved to')
        elif dtype is None:
            self._say(f'stays float32: {weight.device.type} is not fast at it')
        elif self._follows(torch.float32):
            self._say('stays float32, as in the run that is resumed')
        elif not find_parts(model).body:
            self._say('stays float32: it has no backbone to make faster')
        elif dtype != torch.float32 and not self._reduce(
            model,
            dtype,
            read,
            activation,
            kept,
            exact_heads,
            whole_heads,
            passed,
        ):
            return
        self.settled = True
        if self.compile and kept:
            # Hooks are new ones in every step, and compiled anew each time.
            self._say(
                f'is not compiled: losses read its layers {sorted(kept)}',
                logging.WARNING,
            )
        elif self.compile:
            self._compile(model, read)

    def _wanted(self, device: torch.device) -> torch.dtype | None:
        if self.precision != 'auto':
            return DTYPES[self.precision]
        dtype = fast_dtype(device)
        return dtype if least_of_all(dtype is not None) == [1] else None

    def _reduce(
        self,
        model: nn.Module,
        dtype: torch.dtype,
        read: Read,
        activation: str,
        kept: Collection[str],
        exact_heads: bool,
        whole_heads: bool,
        passed: Callable[[], Collection[nn.Module] | None],
    ) -> bool:
        """Takes the first plan that works; False where nothing was read."""
        trace, exact = exact_matches(model, read, whole_heads, exact_heads)
        rows = sum(len(match.teacher_logits) for match in exact)
        if least_of_all(rows) == [0]:
            return False
        layers = {model.get_submodule(path) for path in kept}
        unused = layers_unread(model, trace, layers)
        # Heads that stay as they are take part in an autocast, and are fast.
        if not exact_heads:
            last = trace.score_layers
        elif torch.is_autocast_enabled(next(model.parameters()).device.type):
            last = None
        elif last := passed():
            # Scores are also of what is not crossed, such as an objectness.
            last = {*last, *trace.score_layers}
        refused = ''
        plans = PLANS
        if self._follows(dtype):
            # The run that is resumed may have had heads that were free.
            heads = self._followed['heads'] and bool(last)
            plans = [Plan(heads, self._followed['autocast'])]
        for plan in plans:
            if plan.heads and not last:
                continue
            undo, found, refused = Undo(model), None, ''
            try:
                plan.apply(model, dtype, trace, layers, unused, last or ())
                found = compare(exact, read(), activation)
            except FAILURES as error:
                refused = f'{type(error).__name__}: {_first_line(error)}'
            # Asked for in any case: the other processes wait for it.
            agreement = everywhere(found)
            crossed = plan.heads and exact_heads
            if agreement and self._takes(agreement, plan, dtype, crossed):
                return True
            undo()
            refused = refused or str(agreement or 'it failed elsewhere')
        self._say(
            f'stays float32, not {_name(dtype)}: {refused}', logging.WARNING
        )
        return True

    def _takes(
        self,
        agreement: Agreement,
        plan: Plan,
        dtype: torch.dtype,
        crossed: bool,
    ) -> bool:
        if (
            not agreement.good
            and self.precision == 'auto'
            and not self._follows(dtype)
        ):
            return False
        self.running, self._plan = _name(dtype), plan
        where = f'{plan}{", up to the crossing layer" * crossed}'
        self._say(
            f'runs in {self.running} ({where}); against float32 on the first '
            f'batch: {agreement}',
            logging.INFO if agreement.good else logging.WARNING,
        )
        return True

    def _follows(self, dtype: torch.dtype) -> bool:
        followed = self._followed or {}
        return followed.get('precision') == _name(dtype)

    def _compile(self, model: nn.Module, read: Read) -> None:
        parts = find_parts(model, with_heads=False).body
        for part in parts:
            part.compile(dynamic=True)
        try:
            read()
        except FAILURES as error:
            for part in parts:
                part._compiled_call_impl = None
            self._say(
                f'is not compiled: {type(error).__name__}: '
                f'{_first_line(error)}',
                logging.WARNING,
            )

    def _say(self, text: str, level: int = logging.INFO) -> None:
        print_log(
            f'Teacher (precision={self.precision!r}) {text}',
            logger='current',
            level=level,
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix('torch.')


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [''])[0]
