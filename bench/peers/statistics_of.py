"""Medians of ratios between neighbours, with an interval. Standard library only."""

import random
import statistics

RESAMPLES = 2000


def bootstrapped_medians(groups):
    """Sorted medians of resampled ratios (Efron 1979). Ratios of one group have more in common than those of
    different ones (a process that got its memory at unlucky places): groups are drawn first, then ratios
    within them. A fixed seed, so that a table can be made again from its times."""
    generator = random.Random(1)
    medians = []
    for _ in range(RESAMPLES):
        drawn = generator.choices(groups, k=len(groups)) if len(groups) > 1 else groups
        medians.append(statistics.median([ratio for group in drawn for ratio in generator.choices(group, k=len(group))]))
    return sorted(medians)


def at_quantile(ordered, quantile):
    """Linear between neighbours."""
    place = quantile * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def ratio_with_interval(ours, theirs):
    """The median over rounds of ours / theirs, and the 90 % interval of that median by the percentile
    bootstrap."""
    ratios = [a / b for a, b in zip(ours, theirs)]
    medians = bootstrapped_medians([ratios])
    return statistics.median(ratios), [at_quantile(medians, 0.05), at_quantile(medians, 0.95)]
