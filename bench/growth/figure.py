"""Small multiples of curves on logarithmic axes, as one SVG file. Standard library only."""

import html
import math

WIDTH, HEIGHT = 700, 300  # of one panel, the legend included
LEFT, RIGHT, TOP, BOTTOM = 64, 250, 30, 44
# Okabe and Ito's colours, told apart by everyone.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999", "#7f3c8d", "#117733")


def span(values):
    """Whole powers of ten around the values."""
    low, high = math.floor(math.log10(min(values)) + 1e-9), math.ceil(math.log10(max(values)) - 1e-9)
    return low, max(high, low + 1)


def power(exponent):
    small = {0: "1", 1: "10"}
    if exponent in small:
        return small[exponent]
    return f'10<tspan dy="-5" font-size="9">{exponent}</tspan>'


def panel(title, x_label, y_label, lines):
    """`lines`: (name, sizes, values). A dashed line rises in proportion to the size."""
    lines = [(name, [(x, y) for x, y in zip(sizes, values) if x > 0 and y > 0]) for name, sizes, values in lines]
    lines = [(name, points) for name, points in lines if points]
    if not lines:
        return ""
    x_low, x_high = span([x for _, points in lines for x, _ in points])
    y_low, y_high = span([y for _, points in lines for _, y in points])
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    across = lambda x: LEFT + width * (x - x_low) / (x_high - x_low)  # noqa: E731
    down = lambda y: TOP + height * (1 - (y - y_low) / (y_high - y_low))  # noqa: E731
    svg = f'<text x="{LEFT + width / 2:.1f}" y="18" text-anchor="middle" font-size="14">{html.escape(title)}</text>\n'

    def every(low, high):
        return range(low, high + 1, max(1, math.ceil((high - low) / 7)))

    for x in every(x_low, x_high):
        svg += f'<line x1="{across(x):.1f}" y1="{TOP}" x2="{across(x):.1f}" y2="{TOP + height}" stroke="#dddddd"/>\n'
        svg += f'<text x="{across(x):.1f}" y="{TOP + height + 16}" text-anchor="middle">{power(x)}</text>\n'
    for y in every(y_low, y_high):
        svg += f'<line x1="{LEFT}" y1="{down(y):.1f}" x2="{LEFT + width}" y2="{down(y):.1f}" stroke="#dddddd"/>\n'
        svg += f'<text x="{LEFT - 6}" y="{down(y) + 4:.1f}" text-anchor="end">{power(y)}</text>\n'
    # In proportion, as far as it fits, through the lower left corner and through the upper right one.
    reach = min(x_high - x_low, y_high - y_low)
    for x, y in {(x_low, y_low), (x_high - reach, y_high - reach)}:
        svg += (
            f'<line x1="{across(x):.1f}" y1="{down(y):.1f}" x2="{across(x + reach):.1f}" y2="{down(y + reach):.1f}" '
            'stroke="#aaaaaa" stroke-dasharray="4 3"/>\n'
        )
    svg += f'<rect x="{LEFT}" y="{TOP}" width="{width}" height="{height}" fill="none" stroke="#444444"/>\n'
    for i, (name, points) in enumerate(lines):
        colour = COLOURS[i % len(COLOURS)]
        places = [(across(math.log10(x)), down(math.log10(y))) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        svg += f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/>\n'
        svg += "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{colour}"/>\n' for x, y in places)
        legend = TOP + 8 + 16 * i
        start = WIDTH - RIGHT + 10
        svg += f'<line x1="{start}" y1="{legend}" x2="{start + 16}" y2="{legend}" stroke="{colour}" stroke-width="2"/>\n'
        svg += f'<text x="{start + 21}" y="{legend + 4}">{html.escape(name)}</text>\n'
    svg += f'<text x="{LEFT + width / 2:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(x_label)}</text>\n'
    middle = TOP + height / 2
    svg += f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">{html.escape(y_label)}</text>\n'
    return svg


def figure(rows):
    """`rows`: lists of panels' arguments, one list for each row of the figure."""
    columns = max(len(row) for row in rows)
    size = f'width="{WIDTH * columns}" height="{HEIGHT * len(rows)}"'
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {WIDTH * columns} {HEIGHT * len(rows)}" '
        f'font-family="sans-serif" font-size="12">\n<rect {size} fill="white"/>\n'
    )
    for i, row in enumerate(rows):
        for j, arguments in enumerate(row):
            svg += f'<g transform="translate({WIDTH * j} {HEIGHT * i})">\n{panel(*arguments)}</g>\n'
    return svg + "</svg>\n"
