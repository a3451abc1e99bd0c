"""Every logit loss as its paper prints it, by plain operations of PyTorch.

Written from the equations, without a check and without a thought for rows
that hold nothing, for tools/benchmarks/losses.py to compare with. Each takes
(student, teacher, labels), the logits (N, C) or (2, N, C), and gives a
scalar: the sum of the terms of the loss with its defaults.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrkkd.ops.kendall_tau_eager import kendall_tau_eager


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(N, C) twice -> (N,)."""
    log_student = F.log_softmax(student / temperature, 1)
    soft_teacher = F.softmax(teacher / temperature, 1)
    terms = F.kl_div(log_student, soft_teacher, reduction='none').sum(1)
    return terms * temperature**2


def kd(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    return kl(student, teacher, 4.0).mean()


def standardized(logits: Tensor) -> Tensor:
    """Of each row."""
    mean = logits.mean(-1, keepdim=True)
    return (logits - mean) / (1e-7 + logits.std(-1, keepdim=True))


def lskd(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    pair = standardized(student), standardized(teacher)
    return 9 * kl(*pair, 2.0).mean()


def kendall(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    pair = standardized(student), standardized(teacher)
    return -kendall_tau_eager(*pair, 1.0, 1, None).mean()


def rkkd(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    together = kd(student, teacher, labels) + kendall(student, teacher, labels)
    return 0.9 * together


def target_mask(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.zeros_like(logits).scatter_(1, labels[:, None], 1).bool()


def dkd(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    temperature, mask = 4.0, target_mask(student, labels)

    def binary(logits: Tensor) -> Tensor:
        p = F.softmax(logits / temperature, 1)
        return torch.stack([(p * mask).sum(1), (p * ~mask).sum(1)], 1)

    def others(logits: Tensor) -> Tensor:
        return logits / temperature - 1000.0 * mask

    target = F.kl_div(binary(student).log(), binary(teacher), reduction='none')
    rest = F.kl_div(
        F.log_softmax(others(student), 1),
        F.softmax(others(teacher), 1),
        reduction='none',
    )
    return temperature**2 * (target.sum(1) + 8 * rest.sum(1)).mean()


def nkd(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    mask = target_mask(student, labels)
    classes = student.shape[1]
    p_s = F.softmax(student, 1)[mask]
    p_t = F.softmax(teacher, 1)[mask]
    others = [each[~mask].view(-1, classes - 1) for each in (student, teacher)]
    q_s, q_t = F.log_softmax(others[0], 1), F.softmax(others[1], 1)
    rest = (q_t * q_s).sum(1)
    return -(p_t * p_s.log()).mean() - 1.5 * rest.mean()


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Of each row."""
    return F.cosine_similarity(
        first - first.mean(1, keepdim=True),
        second - second.mean(1, keepdim=True),
        dim=1,
        eps=1e-8,
    )


def dist(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    p_s, p_t = F.softmax(student / 4, 1), F.softmax(teacher / 4, 1)
    inter = 1 - correlation(p_s, p_t).mean()
    intra = 1 - correlation(p_s.t(), p_t.t()).mean()
    return 16 * (2 * inter + 2 * intra)


def ttm(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    powers = F.softmax(teacher, 1) ** 0.1
    q = powers / powers.sum(1, keepdim=True)
    terms = F.kl_div(F.log_softmax(student, 1), q, reduction='none')
    return 45 * terms.sum(1).mean()


def wttm(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    powers = F.softmax(teacher, 1) ** 0.2
    total = powers.sum(1, keepdim=True)
    terms = F.kl_div(
        F.log_softmax(student, 1), powers / total, reduction='none'
    )
    return 4 * (total[:, 0] * terms.sum(1)).mean()


def list_mle(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    order = teacher.argsort(1, descending=True)
    scores = student.gather(1, order)
    left = scores.flip(1).exp().cumsum(1).flip(1)
    return (left.log() - scores).sum(1).mean()


def pld(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    p = F.softmax(teacher, 1)
    # The label first, the others as the teacher has them.
    first = teacher.scatter(1, labels[:, None], torch.inf)
    order = first.argsort(1, descending=True)
    scores = student.gather(1, order)
    left = scores.flip(1).exp().cumsum(1).flip(1)
    return (p.gather(1, order) * (left.log() - scores)).sum(1).mean()


def soft_ranks(logits: Tensor) -> Tensor:
    """Of each row with e = 1, by the min-max formula over all stretches."""
    n = logits.shape[1]
    z, order = (-logits).sort(1, descending=True)
    y = z - torch.arange(n, 0, -1, device=z.device)
    sums = F.pad(y.cumsum(1), (1, 0))
    a, b = torch.arange(n)[:, None], torch.arange(n)[None]
    means = (sums[:, None, 1:] - sums[:, :-1, None]) / (b - a + 1).clamp(1)
    means = means.masked_fill(a > b, -torch.inf)
    # The highest mean from a to any b >= p, then the lowest over a <= p.
    highest = means.flip(2).cummax(2).values.flip(2)
    lowest = highest.masked_fill(a > b, torch.inf).amin(1)
    return torch.zeros_like(z).scatter(1, order, z - lowest)


def lra(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    difference = soft_ranks(student) - soft_ranks(teacher)
    return 5 * difference.square().mean(1).mean()


def binary_kd(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    target = teacher.sigmoid()
    weight = (student.sigmoid() - target).abs()
    entropy = F.binary_cross_entropy_with_logits(
        student, target, reduction='none'
    )
    return (weight * entropy).sum(1).mean()


def crld(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    (s_w, s_s), (t_w, t_s) = student, teacher
    sure_w = F.softmax(t_w, 1).max(1).values.ge(0.9).float()
    sure_s = F.softmax(t_s, 1).max(1).values.ge(0.2).float()
    within = kl(s_w, t_w, 4.0) * sure_w + kl(s_s, t_s, 4.0) * sure_w
    cross = kl(s_s, t_w, 4.0) * sure_s + kl(s_w, t_s, 4.0) * sure_s
    return (2 * within + 0.5 * cross).mean()


FORMULAS = dict(
    BinaryKDLoss=binary_kd,
    CRLDLoss=crld,
    DISTLoss=dist,
    DKDLoss=dkd,
    KDLoss=kd,
    KendallLoss=kendall,
    LRALoss=lra,
    LSKDLoss=lskd,
    ListMLELoss=list_mle,
    NKDLoss=nkd,
    PLDLoss=pld,
    RankKDLoss=rkkd,
    TTMLoss=ttm,
    WTTMLoss=wttm,
)
