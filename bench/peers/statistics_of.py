"""Medians of ratios between neighbours, with an interval."""

import numpy

RESAMPLES = 2000


def ratio_with_interval(ours, theirs):
    """The median over rounds of ours / theirs, and the 90 % interval of that median by the percentile
    bootstrap (Efron 1979); a fixed seed, so that a table can be made again from its times."""
    ratios = numpy.asarray(ours) / numpy.asarray(theirs)
    draws = numpy.random.default_rng(1).integers(0, ratios.size, (RESAMPLES, ratios.size))
    medians = numpy.median(ratios[draws], axis=1)
    low, high = numpy.quantile(medians, [0.05, 0.95])
    return float(numpy.median(ratios)), [float(low), float(high)]
