"""RKKD: a distillation loss together with the ranking loss."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches

from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmrkkd.registry import MODELS

from .base import LogitLoss
from .kd import KDLoss
from .kendall import KendallLoss
from .schedule import build_schedule


@MODELS.register_module()
class RankKDLoss(LogitLoss):
    """Ranking-enhanced distillation: any logit loss plus Kendall's tau.

    ::

        loss = alpha L_KD - gamma tau_k,     alpha = kd_weight,
                                             gamma = rank_weight

    The third term of the paper's eq. 9, beta times the task loss, is the
    distiller's ``task_weight``.

    Args:
        temperature: T of the KL term; only without ``kd``.
            Defaults to 4.0.
        kd_weight: alpha >= 0, or a schedule (:func:`build_schedule`).
            Defaults to 0.9.
        rank_weight: gamma >= 0, or a schedule. Defaults to 0.9 (the paper
            sets gamma = alpha).
        steepness: k of the ranking term. Defaults to 1.0.
        form: 1, 2 or 3. Defaults to 1.
        normalize: See :class:`KendallLoss`. Defaults to True.
        channel_share: See :class:`KendallLoss`. Defaults to 1.0.
        channel_order: See :class:`KendallLoss`. Defaults to 'top'.
        ignore_channels: See :class:`KendallLoss`; the KD loss still sees
            every class. Defaults to none.
        kd: The loss to enhance, a registered type's config or a module.
            Defaults to :class:`KDLoss`.
        impl: Backend of the ranking operator. Defaults to 'auto'.

    With a KD loss of several views (MLKD) the ranking term of each view is
    added once.

    Log keys: those of the KD loss (``loss_kd``) and ``loss_rank``.

    Source: Guan et al., arXiv:2409.17823, eq. 9.
    """

    def __init__(
        self,
        temperature: float | None = None,
        kd_weight: float | dict = 0.9,
        rank_weight: float | dict = 0.9,
        steepness: float = 1.0,
        form: int = 1,
        normalize: bool = True,
        channel_share: float = 1.0,
        channel_order: str = 'top',
        ignore_channels: Sequence[int] = (),
        kd: dict | nn.Module | None = None,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        self.kd_weight = build_schedule('kd_weight', kd_weight)
        rank_weight = build_schedule('rank_weight', rank_weight)
        if kd is None:
            kd = KDLoss(
                temperature=4.0 if temperature is None else temperature
            )
        elif temperature is not None:
            raise ValueError(
                'temperature belongs to the default KL term; with kd=... set '
                f'it there, got temperature={temperature!r}'
            )
        self.kd = build_loss(kd)
        if any(isinstance(part, RankKDLoss) for part in self.kd.modules()):
            raise ValueError(
                'kd ranks already, and its loss_rank would be overwritten: '
                'give the loss inside it instead, got '
                f'kd={type(self.kd).__name__}'
            )
        self.views = self.kd.views
        self.needs_labels = self.kd.needs_labels
        self.rank = KendallLoss(
            loss_weight=rank_weight,
            steepness=steepness,
            form=form,
            normalize=normalize,
            channel_share=channel_share,
            channel_order=channel_order,
            ignore_channels=ignore_channels,
            impl=impl,
        )

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`."""
        weight = self.now(self.kd_weight)
        terms = {
            name: weight * value if 'loss' in name else value
            for name, value in self.kd.per_sample(
                student_logits, teacher_logits, labels
            ).items()
        }
        terms['loss_rank'] = self._ranking(student_logits, teacher_logits)
        return terms

    def _ranking(
        self, student_logits: Tensor, teacher_logits: Tensor
    ) -> Tensor:
        """The ranking term (N,): of each view once, added up."""
        classes = student_logits.shape[-1]
        terms = self.rank.per_sample(
            student_logits.reshape(-1, classes),
            teacher_logits.reshape(-1, classes),
            None,
        )
        # A view count of -1 would be ambiguous for an empty batch.
        views = terms['loss_kendall'].view(len(student_logits), self.views)
        return views.sum(1)

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return f'kd_weight={self.kd_weight}'


def build_loss(loss: dict | nn.Module) -> LogitLoss:
    """Builds a logit loss from its config.

    Args:
        loss: A dict with ``type`` (with or without the scope ``mmrkkd.``),
            or a :class:`LogitLoss` already made.

    Returns:
        The loss.

    Raises:
        KeyError: there is no ``type``, or no loss of that name; the message
            suggests the nearest one.
        TypeError: it is not a :class:`LogitLoss`, or has no such option;
            the message lists those that it has.
    """
    if isinstance(loss, dict):
        with DefaultScope.overwrite_default_scope('mmrkkd'):
            _check_config(loss)
            loss = MODELS.build(loss)
    if not isinstance(loss, LogitLoss):
        raise TypeError(
            'a distillation loss must be a LogitLoss or the config of one, '
            f'got {type(loss).__name__}'
        )
    return loss


def check_options(
    owner: str, called: Callable, options: Iterable[str]
) -> None:
    """Refuses options that a class or a function does not take.

    Args:
        owner: What the options belong to, for the message.
        called: The class or the function.
        options: Their names.

    Raises:
        TypeError: it has no option of that name; the message suggests the
            nearest one and lists all.
    """
    parameters = inspect.signature(called).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for name in options:
        if name not in parameters:
            raise TypeError(
                f'{owner} has no option {name!r}'
                f'{_nearest(name, parameters)} Its options: '
                f'{", ".join(parameters)}'
            )


def _check_config(config: dict) -> None:
    """Refuses names that lead nowhere, with the nearest right one."""
    known = sorted(
        name
        for name, module in MODELS.module_dict.items()
        if inspect.isclass(module) and issubclass(module, LogitLoss)
    )
    kind = config.get('type')
    if kind is None:
        raise KeyError(
            'the config of a distillation loss needs type, got the keys '
            f'{sorted(config)}. The losses: {", ".join(known)}'
        )
    called = MODELS.get(kind) if isinstance(kind, str) else kind
    if called is None:
        name = kind.rpartition('.')[2]
        raise KeyError(
            f'{kind} is not in the registry of losses{_nearest(name, known)} '
            f'The losses: {", ".join(known)}'
        )
    if callable(called):
        options = [key for key in config if key not in ('type', '_scope_')]
        check_options(called.__name__, called, options)


def _nearest(name: str, names: Iterable[str]) -> str:
    """': did you mean ...?' where a name is near, else '.'."""
    by_lower_case = {known.lower(): known for known in names}
    name = str(name).lower()
    near = [known for known in by_lower_case if known.startswith(name)]
    near = near or get_close_matches(name, by_lower_case, n=1)
    return f': did you mean {by_lower_case[near[0]]!r}?' if near else '.'
