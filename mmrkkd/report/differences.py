"""What a difference between runs says, in sentences."""

from mmrkkd.evaluation.metric_units import scale_of, unit_of


def difference_sentence(row: dict, baseline: str, metric: str) -> str:
    """What can be said of a method against the baseline.

    Args:
        row: Of :func:`mmrkkd.evaluation.summary.summarize`.
        baseline: Label of the baseline.
        metric: Log key.

    Returns:
        One sentence, with the interval and what it means.
    """
    found, scale = row['difference'], scale_of(metric)
    name = f'{row["label"]} minus {baseline}'
    if found is None:
        return (
            f'{name}: no seed is common to both, so no difference is paired.'
        )
    seeds = len(found['by_seed'])
    text = f'{name}: {scale * found["mean"]:+.2f} {unit_of(metric)}'
    shown = []
    if found['half_width'] is not None:
        low = scale * (found['mean'] - found['half_width'])
        high = scale * (found['mean'] + found['half_width'])
        text += f', {low:+.2f} to {high:+.2f} over {seeds} seeds'
        shown.append(low > 0 or high < 0)
    images = row['over_images']
    if images:
        low, high = images['low'][0], images['high'][0]
        text += (
            f', {low:+.2f} to {high:+.2f} over samples of the '
            f'{images["images"]} images'
        )
        shown.append(low > 0 or high < 0)
    if shown:
        text += ' (95 %)'
    return f'{text}: {_meaning(shown, seeds, found["half_width"] is None)}.'


def _meaning(shown: list[bool], seeds: int, seeds_unknown: bool) -> str:
    if not shown:
        return 'one run each, so nothing can be said about chance'
    if not all(shown):
        return 'an interval holds 0, so no difference is shown'
    if seeds_unknown:
        return (
            'the choice of images does not explain it; whether another seed '
            'would repeat it, one seed cannot say'
        )
    return f'shown by these {seeds} seeds'
