"""The device code of :mod:`.rank_term_triton`.

With z a row's standardised logits and c the middle of their range::

    A = exp(2 k (z - c))                          in [exp(-40), exp(40)]
    tanh(k (z_i - z_j)) = (A_i - A_j) / (A_i + A_j)

where the range of both sides allows it, and one division serves student and
teacher: 1 / (D_s D_t) times the other denominator. Elsewhere it is
(1 - e) / (1 + e) with e = exp(-2 k |z_i - z_j|). All arithmetic is float32;
sums are without atomic additions, the same from run to run, and no value is
read back by the host.

Importing this module needs Triton.
"""

import triton
import triton.language as tl

from .kendall_tau_triton import tanh_far

EPS = tl.constexpr(1.1920929e-07)
# Above it squares are divided by the largest first, as in ops/rows.py.
LARGE = tl.constexpr(1e-4 * 1.8446743e19)


@triton.jit
def _used(kept, c, classes, KEPT: tl.constexpr):
    """Which classes exist and are not left out of everything."""
    used = c < classes
    if KEPT:
        used = used & (tl.load(kept + c, mask=used, other=0) != 0)
    return used


@triton.jit
def _read(logits, c, used):
    """float32; 0 for what is not used or not finite."""
    values = tl.load(logits + c, mask=used, other=0).to(tl.float32)
    return tl.where(tl.abs(values) < float('inf'), values, 0.0)


@triton.jit
def _statistics(
    logits,
    kept,
    classes,
    eps,
    floor,
    KEPT: tl.constexpr,
    NORMALIZE: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """What a row is standardised by, as ops/standardize_eager.py has it.

    Returns a tuple of numbers::

        0 shrink                    1, or less where squares would overflow
        1 mean, 2 stretch           z = (x shrink - mean) stretch; stretch
                                    is 0 for a row without order
        3 tilt                      of the derivative's third term, 0 where
                                    the floor stands
        4 own                       the deviation, in logits
        5 low, 6 high               of z
        7 count                     of classes that are used
        8 bad                       NaN or infinity is among them
    """
    highs = tl.full([AT_ONCE], float('-inf'), tl.float32)
    lows = tl.full([AT_ONCE], float('inf'), tl.float32)
    counts = tl.zeros([AT_ONCE], tl.int32)
    bads = tl.zeros([AT_ONCE], tl.int32)
    for first in range(0, classes, AT_ONCE):
        c = first + tl.arange(0, AT_ONCE)
        used = _used(kept, c, classes, KEPT)
        values = tl.load(logits + c, mask=used, other=0).to(tl.float32)
        finite = tl.abs(values) < float('inf')
        highs = tl.maximum(
            highs, tl.where(used & finite, values, float('-inf'))
        )
        lows = tl.minimum(lows, tl.where(used & finite, values, float('inf')))
        counts += used.to(tl.int32)
        bads += (used & (finite == 0)).to(tl.int32)
    high, low = tl.max(highs, 0), tl.min(lows, 0)
    count = tl.sum(counts, 0).to(tl.float32)
    bad = tl.sum(bads, 0) > 0
    # Tensors, as those that take their places below.
    shrink = tl.where(bad, 1.0, 1.0)
    stretch = shrink
    mean = shrink - 1.0
    tilt, own = mean, mean
    if NORMALIZE:
        magnitude = tl.maximum(tl.abs(high), tl.abs(low))
        flat = high - low <= 4 * EPS * magnitude
        # The reciprocal of the largest float would be no normal number.
        shrink = tl.where(magnitude > LARGE, 16.0 / magnitude, 1.0)
        sums = tl.zeros([AT_ONCE], tl.float32)
        for first in range(0, classes, AT_ONCE):
            c = first + tl.arange(0, AT_ONCE)
            used = _used(kept, c, classes, KEPT)
            sums += _read(logits, c, used) * shrink
        mean = tl.sum(sums, 0) / count
        squares = tl.zeros([AT_ONCE], tl.float32)
        for first in range(0, classes, AT_ONCE):
            c = first + tl.arange(0, AT_ONCE)
            used = _used(kept, c, classes, KEPT)
            values = _read(logits, c, used)
            centered = tl.where(used, values * shrink - mean, 0.0)
            squares += centered * centered
        deviation = tl.sqrt(tl.sum(squares, 0) / (count - 1))
        flat = flat | (deviation == 0)
        own = tl.where(flat, 0.0, deviation / shrink)
        lowest = floor * shrink
        raised = (lowest > 0) & (deviation <= lowest)
        flat = flat & (raised == 0)
        deviation = tl.where(raised, lowest, deviation)
        deviation = tl.where(flat, 1.0, deviation)
        width = deviation + eps * shrink
        stretch = tl.where(flat, 0.0, 1 / width)
        tilt = tl.where(raised, 0.0, width / deviation)
        high = (high * shrink - mean) * stretch
        low = (low * shrink - mean) * stretch
    return shrink, mean, stretch, tilt, own, low, high, count, bad


@triton.jit
def _places(logits, c, used, row, twice_k, NEAR: tl.constexpr):
    """z of some classes, by what :func:`_statistics` says of their row.

    Where near A, which is 1 in the middle of the row's range.
    """
    z = (_read(logits, c, used) * row[0] - row[1]) * row[2]
    if NEAR:
        # Halves first: the sum of two huge numbers is infinite.
        z = tl.exp((z - (0.5 * row[5] + 0.5 * row[6])) * twice_k)
    return z


@triton.jit
def _block(
    student,
    teacher,
    kept,
    chosen,
    c,
    classes,
    twice_k,
    s_row,
    t_row,
    NEAR: tl.constexpr,
    FORM: tl.constexpr,
    KEPT: tl.constexpr,
    CHOSEN: tl.constexpr,
):
    """What :func:`_pairs` takes of some classes, and which are ranked."""
    used = _used(kept, c, classes, KEPT)
    s = _places(student, c, used, s_row, twice_k, NEAR)
    t = _places(teacher, c, used, t_row, twice_k, NEAR and FORM == 1)
    if CHOSEN:
        used = used & (tl.load(chosen + c, mask=used, other=0) != 0)
    return s, t, used


@triton.jit
def _pair_sums(
    student,
    teacher,
    kept,
    chosen,
    i,
    classes,
    twice_k,
    s_row,
    t_row,
    NEAR: tl.constexpr,
    FORM: tl.constexpr,
    KEPT: tl.constexpr,
    CHOSEN: tl.constexpr,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
):
    """Sums over j of the agreements and slopes of the classes i."""
    s_i, t_i, used_i = _block(
        student,
        teacher,
        kept,
        chosen,
        i,
        classes,
        twice_k,
        s_row,
        t_row,
        NEAR,
        FORM,
        KEPT,
        CHOSEN,
    )
    s_i, t_i = s_i[:, None], t_i[:, None]
    # Added up at the end: a sum over j needs other threads' numbers.
    agreements = tl.zeros([TILE, STEP], tl.float32)
    slopes = tl.zeros([TILE, STEP], tl.float32)
    # Whole steps need no mask.
    whole = classes // STEP * STEP
    if KEPT or CHOSEN:
        whole = classes * 0
    for first in range(0, whole, STEP):
        j = first + tl.arange(0, STEP)
        s_j, t_j, used_j = _block(
            student,
            teacher,
            kept,
            chosen,
            j,
            classes,
            twice_k,
            s_row,
            t_row,
            NEAR,
            FORM,
            KEPT,
            CHOSEN,
        )
        agreement, slope = _pairs(
            s_i, s_j[None, :], t_i, t_j[None, :], twice_k, NEAR, FORM
        )
        agreements += agreement
        slopes += slope
    for first in range(whole, classes, STEP):
        j = first + tl.arange(0, STEP)
        s_j, t_j, used_j = _block(
            student,
            teacher,
            kept,
            chosen,
            j,
            classes,
            twice_k,
            s_row,
            t_row,
            NEAR,
            FORM,
            KEPT,
            CHOSEN,
        )
        agreement, slope = _pairs(
            s_i, s_j[None, :], t_i, t_j[None, :], twice_k, NEAR, FORM
        )
        agreements += tl.where(used_j[None, :], agreement, 0.0)
        slopes += tl.where(used_j[None, :], slope, 0.0)
    return (
        tl.where(used_i, tl.sum(agreements, axis=1), 0.0),
        tl.where(used_i, tl.sum(slopes, axis=1), 0.0),
    )


@triton.jit
def _reciprocal(x):
    """1 / x to two units, of a normal x > 0: two instructions, not seven."""
    root = tl.rsqrt(x)
    return root * root


@triton.jit
def _pairs(
    s_i, s_j, t_i, t_j, twice_k, NEAR: tl.constexpr, FORM: tl.constexpr
):
    """Agreements of pairs, and their slopes over k (but for form 2).

    Of z, and where near of A.
    """
    ds, dt = s_i - s_j, t_i - t_j
    if FORM == 2:
        # ds and dt may be infinite, where a tie times them would be NaN.
        product = tl.where((ds == 0) | (dt == 0), 0, ds * dt)
        agreement, flatness = tanh_far(product, twice_k)
        slope = tl.where(flatness == 0, 0, flatness * (dt * twice_k))
    else:
        if FORM == 3:
            q = (dt > 0).to(tl.float32) - (dt < 0).to(tl.float32)
        if NEAR:
            s_sum = s_i + s_j
            if FORM == 1:
                t_sum = t_i + t_j
                r = _reciprocal(s_sum * t_sum)
                p = ds * (t_sum * r)
                q = dt * (s_sum * r)
            else:
                p = ds * _reciprocal(s_sum)
            flatness = 1 - p * p
        else:
            p, flatness = tanh_far(ds, twice_k)
            if FORM == 1:
                q = tanh_far(dt, twice_k)[0]
        agreement = p * q
        slope = flatness * q
    return agreement, slope


@triton.jit
def _both_rows(
    student,
    teacher,
    kept,
    classes,
    eps,
    floor,
    KEPT: tl.constexpr,
    NORMALIZE: tl.constexpr,
    RELATIVE: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """What :func:`_statistics` says of the student's row and the teacher's."""
    t_row = _statistics(
        teacher, kept, classes, eps, 0.0, KEPT, NORMALIZE, AT_ONCE
    )
    if RELATIVE:
        floor = floor * t_row[4]
    s_row = _statistics(
        student, kept, classes, eps, floor, KEPT, NORMALIZE, AT_ONCE
    )
    return s_row, t_row


@triton.jit
def pairs_kernel(
    student,
    teacher,
    kept,
    chosen,
    weight,
    agreement_sums,
    slope_sums,
    classes,
    student_stride,
    teacher_stride,
    twice_k,
    eps,
    floor,
    FORM: tl.constexpr,
    NORMALIZE: tl.constexpr,
    RELATIVE: tl.constexpr,
    KEPT: tl.constexpr,
    CHOSEN: tl.constexpr,
    WEIGHTED: tl.constexpr,
    NEAR_BOUND: tl.constexpr,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """Sums of TILE classes of a row over all of its pairs."""
    row = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    wanted = row >= 0
    if WEIGHTED:
        # NaN is not 0: it must show.
        wanted = tl.load(weight + row) != 0
    if wanted:
        student += row * student_stride
        teacher += row * teacher_stride
        chosen += row * classes
        s_row, t_row = _both_rows(
            student,
            teacher,
            kept,
            classes,
            eps,
            floor,
            KEPT,
            NORMALIZE,
            RELATIVE,
            AT_ONCE,
        )
        i = block * TILE + tl.arange(0, TILE)
        widest = s_row[6] - s_row[5]
        if FORM == 1:
            widest = tl.maximum(widest, t_row[6] - t_row[5])
        if FORM == 2:
            widest = widest + float('inf')
        if widest * twice_k <= NEAR_BOUND:
            agreements, slopes = _pair_sums(
                student,
                teacher,
                kept,
                chosen,
                i,
                classes,
                twice_k,
                s_row,
                t_row,
                True,
                FORM,
                KEPT,
                CHOSEN,
                TILE,
                STEP,
            )
        else:
            agreements, slopes = _pair_sums(
                student,
                teacher,
                kept,
                chosen,
                i,
                classes,
                twice_k,
                s_row,
                t_row,
                False,
                FORM,
                KEPT,
                CHOSEN,
                TILE,
                STEP,
            )
        tl.store(slope_sums + row * classes + i, slopes, mask=i < classes)
        place = row * tl.num_programs(1) + block
        tl.store(agreement_sums + place, tl.sum(agreements, 0))


@triton.jit
def rows_kernel(
    student,
    teacher,
    kept,
    chosen,
    weight,
    divisor,
    agreement_sums,
    slope_sums,
    terms,
    gradient,
    classes,
    blocks,
    student_stride,
    teacher_stride,
    scale,
    factor,
    eps,
    floor,
    NORMALIZE: tl.constexpr,
    RELATIVE: tl.constexpr,
    KEPT: tl.constexpr,
    CHOSEN: tl.constexpr,
    WEIGHTED: tl.constexpr,
    DIVIDED: tl.constexpr,
    BLOCKS: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """Sums of a row -> its term and its gradient at the raw logits."""
    row = tl.program_id(0).to(tl.int64)
    share = scale
    if DIVIDED:
        total = tl.load(divisor).to(tl.float32)
        share = scale / tl.where(total == 0, 1.0, total)
    wanted = row >= 0
    if WEIGHTED:
        own_weight = tl.load(weight + row).to(tl.float32)
        share = share * own_weight
        wanted = own_weight != 0
    student += row * student_stride
    teacher += row * teacher_stride
    chosen += row * classes
    slope_sums += row * classes
    gradient += row * classes
    if wanted:
        s_row, t_row = _both_rows(
            student,
            teacher,
            kept,
            classes,
            eps,
            floor,
            KEPT,
            NORMALIZE,
            RELATIVE,
            AT_ONCE,
        )
        bad = s_row[8] | t_row[8]
        count = s_row[7]
        # Sums of g, of g z, and of the classes that are ranked.
        sums = tl.zeros([AT_ONCE], tl.float32)
        products = tl.zeros([AT_ONCE], tl.float32)
        ranked = tl.zeros([AT_ONCE], tl.int32)
        for first in range(0, classes, AT_ONCE):
            c = first + tl.arange(0, AT_ONCE)
            used = _used(kept, c, classes, KEPT)
            z = _places(student, c, used, s_row, 0.0, False)
            g = tl.load(slope_sums + c, mask=used, other=0)
            sums += g
            products += tl.where(used, g * z, 0.0)
            if CHOSEN:
                used = used & (tl.load(chosen + c, mask=used, other=0) != 0)
            ranked += used.to(tl.int32)
        m = tl.sum(ranked, 0).to(tl.float32)
        pairs = tl.maximum(m * (m - 1), 1.0)
        b = tl.arange(0, BLOCKS)
        partial = tl.load(
            agreement_sums + row * blocks + b, mask=b < blocks, other=0
        )
        term = share * (tl.sum(partial, 0) / pairs)
        tl.store(terms + row, tl.where(bad, float('nan'), term))
        share = share * (factor / pairs)
        center = tl.sum(sums, 0) / count
        slope = s_row[3] * tl.sum(products, 0) / (count - 1)
        for first in range(0, classes, AT_ONCE):
            c = first + tl.arange(0, AT_ONCE)
            used = _used(kept, c, classes, KEPT)
            g = tl.load(slope_sums + c, mask=used, other=0)
            if NORMALIZE:
                z = _places(student, c, used, s_row, 0.0, False)
                across = (g - center) - z * slope
                g = across * s_row[2] * s_row[0]
            g = tl.where(bad, float('nan'), share * g)
            tl.store(gradient + c, tl.where(used, g, 0.0), mask=c < classes)
    else:
        tl.store(terms + row, 0.0)
        for first in range(0, classes, AT_ONCE):
            c = first + tl.arange(0, AT_ONCE)
            zeros = tl.zeros([AT_ONCE], tl.float32)
            tl.store(gradient + c, zeros, mask=c < classes)
