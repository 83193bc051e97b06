#!/usr/bin/env python3
"""Writes data/digits.csv, the UCI optical digits as scikit-learn ships them.

Needed only to make that file again: python3 -m pip install scikit-learn, then scripts/make_digits.py.
One line per image: 64 grey values 0..16, row by row, then the digit. See data/README.md for the source.
"""

from pathlib import Path

from sklearn.datasets import load_digits

digits = load_digits()
lines = []
for image, label in zip(digits.data, digits.target, strict=True):
    values = [int(value) for value in image]
    assert values == image.tolist() and min(values) >= 0 and max(values) <= 16
    lines.append(",".join(str(value) for value in [*values, int(label)]))

output = Path(__file__).resolve().parent.parent / "data" / "digits.csv"
output.write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")
print(f"{output.name}: {len(lines)} images")
