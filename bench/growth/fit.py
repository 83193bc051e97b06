"""Exponents of growth: straight lines through logarithms. Standard library only."""

import math


def local_slopes(sizes, values):
    """Between neighbours; None where a value is 0."""
    slopes = []
    for (x, y), (next_x, next_y) in zip(zip(sizes, values), list(zip(sizes, values))[1:]):
        slopes.append(math.log(next_y / y) / math.log(next_x / x) if y > 0 and next_y > 0 else None)
    return slopes


def upper_part(sizes):
    """Where fixed costs no longer matter: from which index on the logarithms are in their upper half, with at
    least three points."""
    middle = 0.5 * (math.log(sizes[0]) + math.log(sizes[-1]))
    first = next(i for i, size in enumerate(sizes) if math.log(size) >= middle - 1e-9)
    return max(0, min(first, len(sizes) - 3))


def exponent(sizes, values):
    """Least squares of log(value) on log(size): {"exponent", "error", "points"}. The error is the slope's
    standard error, None with fewer than three points. None if no line can be drawn."""
    points = [(math.log(x), math.log(y)) for x, y in zip(sizes, values) if y > 0]
    if len({x for x, _ in points}) < 2:
        return None
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    error = None
    if n > 2:
        residual = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
        error = math.sqrt(residual / (n - 2) / spread)
    return {"exponent": slope, "error": error, "points": n}


def fitted(sizes, values, theory, beyond_first=False):
    """All that is said about one curve. `beyond_first`: of what exceeds the first point, in both directions."""
    if beyond_first:
        sizes, values = [[each - numbers[0] for each in numbers[1:]] for numbers in (sizes, values)]
    if len(sizes) < 2:
        return None
    first = upper_part(sizes)
    fit = exponent(sizes[first:], values[first:])
    if fit is None:
        return None
    fit |= {"theory": theory, "local": local_slopes(sizes, values), "from": sizes[first]}
    if theory is not None and values[first] > 0:
        per_unit = [y / x**theory for x, y in zip(sizes, values)]
        fit["last_to_first"] = per_unit[-1] / per_unit[first]
    fit["verdict"] = verdict(fit)
    return fit


# Caches alone bend a line by as much; with a standard error above the second figure nothing is said.
TOLERANCE, TOO_NOISY = 0.05, 0.1


def verdict(fit):
    if fit["theory"] is None:
        return ""
    if fit["points"] < 3:
        return "too few points"
    if fit["error"] > TOO_NOISY:
        return "unclear"
    apart = fit["exponent"] - fit["theory"]
    if abs(apart) <= max(TOLERANCE, 2.0 * fit["error"]):
        return "as predicted"
    return "above" if apart > 0 else "below"
