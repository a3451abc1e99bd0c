"""CRD: an image's own representation told from those of other classes."""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmrkkd.ops.checks import check_non_negative, check_positive

from .base import FeatureLoss, FeaturePair, Shape, is_distributed
from .map_loss import check_connected
from .unit import unit

EPS = 1e-7


class CRDLoss(FeatureLoss):
    """Noise contrastive estimation with memory banks.

    Learned linear layers embed each side's features in D numbers, of norm
    1: e_s and e_t. Two banks keep an embedding of every image of the data
    set, M_s and M_t, n rows each. With i an image of the batch, and K
    negatives j, images of other classes::

        h_j       = exp(<e_s, M_t[j]> / T) / Z_s
        nce_s     = - log (h_i / (h_i + K / n + 1e-7))
                    - sum_j log ((K / n) / (h_j + K / n + 1e-7))
        loss_crd  = w mean_i (nce_s + nce_t)

    and nce_t, Z_t with the sides exchanged. Z is n times the mean of the
    exponentials of the first batch, and stays. Afterwards the rows of the
    batch's images move: M[i] = m M[i] + (1 - m) e, normalised. The banks
    start uniform in +-sqrt(3 / D).

    The banks and both Z are saved and resumed with what else the loss
    learns. They take 8 n D bytes, 51 MB for the 50,000 images of CIFAR-100
    and 1.3 GB for those of ImageNet, once more while a step is computed,
    and so do checkpoints. In a distributed run every process keeps the rows
    of all processes' images; their batches may differ in size at the end of
    an epoch.

    An image must be of one class: what Mixup or CutMix make of two is no
    row of a bank, and its negatives hold images of its second class.

    Args:
        num_data: n >= 2, the number of images of the training set, which
            must be wrapped in ``mmrkkd.ContrastiveDataset``: it says which
            image a sample is, and draws its negatives.
        student_layers: The pooled vector, as published, or any features:
            maps are flattened. Defaults to 'neck'.
        teacher_layers: See :class:`FeatureLoss`.
        loss_weight: w >= 0, or a schedule. Defaults to 0.8.
        temperature: T > 0. Defaults to 0.07.
        dim: D >= 1. Defaults to 128.
        momentum: m in [0, 1). Defaults to 0.5.

    Log keys: ``loss_crd``.

    Source: Tian et al., arXiv:1910.10699, eq. 17 to 19, and the released
        code, whose scores these are; K is 16384 there.
    """

    needs_labels = True

    def __init__(
        self,
        num_data: int,
        student_layers: str | Sequence[str] = 'neck',
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 0.8,
        temperature: float = 0.07,
        dim: int = 128,
        momentum: float = 0.5,
    ) -> None:
        super().__init__(student_layers, teacher_layers, loss_weight)
        for name, value, least in (('num_data', num_data, 2), ('dim', dim, 1)):
            if type(value) is not int or value < least:
                raise ValueError(
                    f'{name} must be an integer >= {least}, got {value!r}'
                )
        self.num_data, self.dim = num_data, dim
        self.temperature = check_positive('temperature', temperature)
        self.momentum = check_non_negative('momentum', momentum)
        if momentum >= 1:
            raise ValueError(f'momentum must be below 1, got {momentum!r}')
        self.contrasts = nn.ModuleList()

    def connect(
        self, student_shapes: Sequence[Shape], teacher_shapes: Sequence[Shape]
    ) -> None:
        """See :meth:`FeatureLoss.connect`."""
        self.contrasts = nn.ModuleList(
            Contrast(
                math.prod(student[1:]),
                math.prod(teacher[1:]),
                self.num_data,
                self.dim,
                self.temperature,
                self.momentum,
            )
            for student, teacher in zip(
                student_shapes, teacher_shapes, strict=True
            )
        )

    def per_batch(self, pair: FeaturePair) -> dict[str, Tensor]:
        """See :meth:`FeatureLoss.per_batch`."""
        check_connected(self, self.contrasts, pair)
        own, negatives = self._indices(pair)
        terms = [
            contrast(student.flatten(1), teacher.flatten(1), own, negatives)
            for contrast, student, teacher in zip(
                self.contrasts, pair.student, pair.teacher, strict=True
            )
        ]
        return dict(loss_crd=self.now(self.loss_weight) * sum(terms))

    def _indices(self, pair: FeaturePair) -> tuple[Tensor, Tensor]:
        """Which images these are, (B,), and the negatives of each, (B, K)."""
        known = [getattr(sample, 'metainfo', {}) for sample in pair.samples]
        if len(known) != len(pair.student[0]) or any(
            'data_index' not in each for each in known
        ):
            raise ValueError(
                'CRDLoss needs to know which image of the training set each '
                'sample is, and negatives of it: wrap the training set, '
                "train_dataloader.dataset=dict(type='mmrkkd.Contrastive"
                "Dataset', dataset=dict(...)), and keep data_index among the "
                'meta keys'
            )
        _refuse_mixed(pair.samples)
        count = known[0]['data_count']
        if count != self.num_data:
            raise ValueError(
                'the memory banks of CRDLoss have one row for each image of '
                f'the training set, which has {count}; got '
                f'num_data={self.num_data}'
            )
        device = pair.student[0].device
        own = torch.tensor([each['data_index'] for each in known])
        negatives = torch.stack([each.negatives for each in pair.samples])
        return tuple(
            each.to(device, non_blocking=True) for each in (own, negatives)
        )

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'{super().extra_repr()}, num_data={self.num_data}, '
            f'temperature={self.temperature:g}, dim={self.dim}, '
            f'momentum={self.momentum:g}'
        )


class Contrast(nn.Module):
    """The embeddings and the memory of one pair of layers.

    Args:
        student_dim: Numbers of the student's features.
        teacher_dim: Numbers of the teacher's features.
        num_data: n.
        dim: D.
        temperature: T.
        momentum: m.
    """

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        num_data: int,
        dim: int,
        temperature: float,
        momentum: float,
    ) -> None:
        super().__init__()
        self.temperature, self.momentum = temperature, momentum
        self.embed_student = nn.Linear(student_dim, dim)
        self.embed_teacher = nn.Linear(teacher_dim, dim)
        bound = math.sqrt(3 / dim)
        for name in ('student_bank', 'teacher_bank'):
            bank = torch.empty(num_data, dim).uniform_(-bound, bound)
            self.register_buffer(name, bank)
        # Z of the student's and of the teacher's scores; 0 is not set yet.
        self.register_buffer('partition', torch.zeros(2))
        # The most images of a process so far.
        self.most: int | None = None

    def forward(
        self, student: Tensor, teacher: Tensor, own: Tensor, negatives: Tensor
    ) -> Tensor:
        """The loss; the banks move on.

        Args:
            student: (B, student_dim).
            teacher: (B, teacher_dim).
            own: (B,), which image of the data set each is.
            negatives: (B, K), images of other classes.
        """
        student = unit(self.embed_student(student))
        teacher = unit(self.embed_teacher(teacher))
        chosen = torch.cat([own[:, None], negatives], 1)
        # The backward pass needs the rows as they are now.
        loss = self._nce(0, student, self.teacher_bank.clone(), chosen)
        loss = loss + self._nce(1, teacher, self.student_bank.clone(), chosen)
        with torch.no_grad():
            own = self._of_all_processes(own)
            for bank, embedding in (
                (self.student_bank, student),
                (self.teacher_bank, teacher),
            ):
                rows = self._of_all_processes(embedding.detach())
                moved = torch.lerp(
                    rows.to(bank.dtype), bank[own], self.momentum
                )
                bank[own] = unit(moved)
        return loss

    def _of_all_processes(self, values: Tensor) -> Tensor:
        """(B, ...) of each process -> (processes M, ...), M the most.

        Rows that a process lacks are its first one again, which changes no
        bank. M is agreed upon in the first step, and again where batches
        grow, which those of all processes do together: after a resume at
        the end of an epoch. Other steps wait for no GPU.
        """
        if not is_distributed():
            return values
        if self.most is None or len(values) > self.most:
            self.most = _most_of_processes(len(values), values.device)
        lacking = self.most - len(values)
        first = values[:1].expand(lacking, *values.shape[1:])
        values = torch.cat([values, first])
        parts = [
            torch.empty_like(values) for _ in range(dist.get_world_size())
        ]
        dist.all_gather(parts, values)
        return torch.cat(parts)

    def _nce(
        self, side: int, embedding: Tensor, bank: Tensor, chosen: Tensor
    ) -> Tensor:
        """Mean over the images; the first of the chosen is its own."""
        # All rows at once: less memory than a copy of each one's negatives.
        scores = (embedding @ bank.T).gather(1, chosen)
        scores = (scores / self.temperature).exp()
        count = len(bank)
        with torch.no_grad():
            first = _mean_of_processes(scores) * count
            self.partition[side] = torch.where(
                self.partition[side] > 0, self.partition[side], first
            )
        scores = scores / self.partition[side].clone()
        noise = (chosen.shape[1] - 1) / count
        share = scores + noise + EPS
        own = (scores[:, 0] / share[:, 0]).log()
        others = (noise / share[:, 1:]).log().sum(1)
        return -(own + others).mean()


def _refuse_mixed(samples: Sequence) -> None:
    """Shares of classes without a 1, as a head's loss would see them.

    Samples have shares where labels are one-hot alone; then a GPU is waited
    for, as the reader of the class scores does.
    """
    found = [getattr(sample, 'gt_score', None) for sample in samples]
    shares = [each for each in found if each is not None]
    if not shares:
        return
    mixed = int((torch.stack(shares).amax(1) != 1).sum())
    if mixed:
        raise ValueError(
            'CRDLoss needs one class for each image: a row of its memory '
            'banks is one image, and its negatives are of other classes; got '
            f'mixed labels (Mixup, CutMix) in {mixed} of {len(shares)} '
            'samples. Remove the mixing (batch_augments of the '
            'data_preprocessor, augments of train_cfg) or take another loss'
        )


def _most_of_processes(number: int, device: torch.device) -> int:
    most = torch.tensor(number, device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


def _mean_of_processes(values: Tensor) -> Tensor:
    """Over the images of all processes, (B, ...) here."""
    mean = values.mean()
    if not is_distributed():
        return mean
    images = mean.new_full((), len(values))
    total = torch.stack([mean * images, images])
    dist.all_reduce(total)
    return total[0] / total[1]
