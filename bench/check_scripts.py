"""What the scripts of this folder compute from their measurements: fits, verdicts, intervals, figures. Run by ctest;
nothing is timed."""

import contextlib
import importlib.machinery
import importlib.util
import io
import json
import math
import os
import random
import sys
import tempfile
import unittest
import xml.etree.ElementTree

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(here, "growth"), os.path.join(here, "peers")]

import figure  # noqa: E402
import fit  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402
import statistics_of  # noqa: E402


def script(name, path):
    """A script without the ending .py, as a module."""
    loader = importlib.machinery.SourceFileLoader(name, os.path.join(here, path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


compare_builds = script("compare_builds", "compare_builds")
growth = script("growth_run", "growth/run")
instructions = script("instructions_run", "instructions/run")

SIZES = [10.0**i for i in range(1, 7)]


class Summaries(unittest.TestCase):
    def test_means_are_geometric_and_slower_is_beyond_the_interval(self):
        row = lambda work, ratio, low: {  # noqa: E731
            "work": work, "dtype": "float32", "threads": 1, "ratio_to_best_peer": ratio,
            "ratio_interval": [low, 9.0],
        }  # fmt: skip
        finished = [row("op/a/1", 0.5, 0.4), row("op/b/1", 2.0, 1.5), row("op/c/1", 1.0, 0.99)]
        finished += [row("step/x", 0.25, 0.2), {"work": "op/d", "dtype": "float32", "refused": "far apart"}]
        self.assertEqual(
            report.summary(finished),
            "op float32: 3 rows, geometric mean of the ratios 1.00, slower in 1: op/b/1 on 1 (2.00)\n"
            "step float32: 1 rows, geometric mean of the ratios 0.25, slower in 0\n",
        )


class Fits(unittest.TestCase):
    def test_powers_are_found_exactly(self):
        for power in (-1.0, 0.0, 0.5, 1.0, 2.0):
            found = fit.exponent(SIZES, [3.0 * size**power for size in SIZES])
            self.assertAlmostEqual(found["exponent"], power, places=12)
            self.assertAlmostEqual(found["error"], 0.0, places=12)

    def test_error_is_the_slopes_standard_error(self):
        # By hand: x = 0, 1, 2 (decades), y = 0, 1.3, 2: slope 1, residuals -0.1, 0.2, -0.1.
        found = fit.exponent([1, 10, 100], [1, 10**1.3, 100])
        self.assertAlmostEqual(found["exponent"], 1.0, places=12)
        self.assertAlmostEqual(found["error"], math.sqrt(0.06 / 1 / 2), places=12)

    def test_fixed_costs_are_left_out(self):
        found = fit.fitted(SIZES, [100.0 + size for size in SIZES], 1.0)
        self.assertEqual(found["from"], 1e4)
        self.assertLess(abs(found["exponent"] - 1.0), 0.01)
        self.assertEqual(found["verdict"], "as predicted")
        self.assertLess(found["local"][0], 0.5)
        # Little beside the fixed part even at the end: what exceeds the first point is linear still.
        values = [1e7 + size for size in SIZES]
        self.assertEqual(fit.fitted(SIZES, values, 1.0)["verdict"], "below")
        self.assertAlmostEqual(fit.fitted(SIZES, values, 1.0, beyond_first=True)["exponent"], 1.0, places=9)

    def test_growth_that_theory_does_not_have_is_seen(self):
        quadratic = fit.fitted(SIZES, [1.0 + 1e-3 * size**2 for size in SIZES], 1.0)
        self.assertEqual(quadratic["verdict"], "above")
        self.assertGreater(quadratic["last_to_first"], 90.0)
        self.assertEqual(fit.fitted(SIZES, [5.0] * 6, 1.0)["verdict"], "below")
        self.assertEqual(fit.fitted(SIZES, [5.0] * 6, 0.0)["verdict"], "as predicted")

    def test_noise_and_few_points_give_no_verdict(self):
        self.assertEqual(fit.fitted(SIZES[-3:], [1, 40, 60], 1.0)["verdict"], "unclear")
        self.assertEqual(fit.fitted([1, 2], [1, 2], 1.0)["verdict"], "too few points")
        self.assertIsNone(fit.fitted([1], [1], 1.0))
        self.assertIsNone(fit.fitted([1, 2, 3], [0, 0, 0], 0.0))


class Growth(unittest.TestCase):
    def test_points_that_do_not_fit_are_named(self):
        options = type("", (), {"memory": 1e9, "longest": 10.0})
        last = {"size": 100.0, "resident_bytes": 2e8, "call_seconds": 1.0}
        linear, flat = {"time": 1.0, "memory": 1.0}, {"time": 0.0, "memory": 0.0}
        self.assertIsNone(growth.why_not(linear, 300, [], options))
        self.assertIsNone(growth.why_not(linear, 300, [last], options))
        self.assertIn("would need", growth.why_not(linear, 1000, [last], options))
        self.assertIsNone(growth.why_not(flat, 10**6, [last], options))
        self.assertIn("would take", growth.why_not(flat | {"time": 1.0}, 2000, [last], options))

    def test_speed_up_of_callers_counts_all_of_them(self):
        points = [{"size": 1.0, "seconds": 1.0}, {"size": 2.0, "seconds": 1.1}]
        self.assertAlmostEqual(growth.speed_up({"curve": "callers/x", "points": points}), 2 / 1.1)
        self.assertAlmostEqual(growth.speed_up({"curve": "threads/x", "points": points}), 1 / 1.1)

    def test_figure_is_xml_with_every_point(self):
        text = figure.figure([[("a < b", "x", "y", [("one & two", SIZES, SIZES), ("none", [1.0], [0.0])])]])
        root = xml.etree.ElementTree.fromstring(text)
        self.assertEqual(len(root.findall(".//{*}circle")), len(SIZES))
        self.assertIn("one & two", [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")])


class Intervals(unittest.TestCase):
    def test_interval_holds_the_truth_about_as_often_as_it_says(self):
        generator, held = random.Random(7), 0
        statistics_of.RESAMPLES, before = 200, statistics_of.RESAMPLES
        for _ in range(200):
            ratios = [generator.lognormvariate(0.0, 0.05) for _ in range(30)]
            _, (low, high) = statistics_of.ratio_with_interval(ratios, [1.0] * 30)
            held += low <= 1.0 <= high
        statistics_of.RESAMPLES = before
        self.assertTrue(165 <= held <= 195, held)

    def test_what_processes_differ_by_widens_the_interval(self):
        generator = random.Random(3)
        groups = [[shift * generator.lognormvariate(0, 0.001) for _ in range(8)] for shift in (0.96, 0.98, 1.0, 1.02, 1.05)]
        apart = compare_builds.judge(groups, 0.02)["interval"]
        together = compare_builds.judge([[each for group in groups for each in group]], 0.02)["interval"]
        self.assertGreater(apart[1] - apart[0], 1.3 * (together[1] - together[0]))


class Verdicts(unittest.TestCase):
    @staticmethod
    def groups(factor, spread, seed=1):
        generator = random.Random(seed)
        return [[factor * generator.lognormvariate(0.0, spread) for _ in range(8)] for _ in range(5)]

    def test_changes_are_found_and_noise_is_not(self):
        self.assertEqual(compare_builds.judge(self.groups(1.10, 0.02), 0.02)["verdict"], "slower")
        self.assertEqual(compare_builds.judge(self.groups(0.90, 0.02), 0.02)["verdict"], "faster")
        self.assertEqual(compare_builds.judge(self.groups(1.00, 0.02), 0.02)["verdict"], "unchanged")
        # Real, but below what is of note.
        self.assertEqual(compare_builds.judge(self.groups(1.01, 0.001), 0.02)["verdict"], "unchanged")
        self.assertIn("unclear", compare_builds.judge(self.groups(1.0, 0.4), 0.02)["verdict"])

    def test_expected_false_alarms_grow_with_the_noise_and_stay_below_the_intervals_share(self):
        quiet = compare_builds.judge(self.groups(1.0, 0.002), 0.02)["false_alarm"]
        loud = compare_builds.judge(self.groups(1.0, 0.3), 0.02)["false_alarm"]
        self.assertEqual(quiet, 0.0)
        self.assertEqual(loud, compare_builds.OUTSIDE)
        alarms = sum(compare_builds.judge(self.groups(1.0, 0.1, seed), 0.02)["verdict"] in ("slower", "faster") for seed in range(30))
        self.assertLessEqual(alarms, 9)

    def test_rows_can_be_named_without_numpy(self):
        self.assertTrue([row for row in rows.catalogue() if row.work.startswith("step/")])


class Instructions(unittest.TestCase):
    about = {"compiler": "gcc 1", "libc": "2", "blas": "B", "kernels": "avx2", "valgrind": "3", "date": "d"}

    def compared(self, count, about=None):
        kept = self.about | {"rows": [{"work": "w", "dtype": "float32", "instructions": 1000}]}
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            result = instructions.compare({("w", "float32"): count}, kept, about or self.about, 0.03, "RECORD")
        return result, said.getvalue()

    def test_slower_fails_and_faster_asks_to_be_kept(self):
        self.assertEqual(self.compared(1029)[0], (1, 0))
        result, said = self.compared(1031)
        self.assertEqual(result, (0, 1))
        self.assertIn("SLOWER", said)
        result, said = self.compared(960)
        self.assertEqual(result, (1, 0))
        self.assertIn("RECORD", said)

    def test_another_compiler_only_warns(self):
        result, said = self.compared(2000, self.about | {"compiler": "gcc 2"})
        self.assertEqual(result, (1, 0))
        self.assertIn("gcc 2, recorded with gcc 1", said)

    def test_functions_find_their_group(self):
        import re

        of = lambda name: next(group for group, pattern in instructions.GROUPS if re.search(pattern, name))  # noqa: E731
        self.assertEqual(of("void hypertape::detail::(anonymous namespace)::tile<Float32, 4, 3, false>(...)"), "products")
        self.assertEqual(of("hypertape::detail::make_node(...)"), "tape and tensors")
        self.assertEqual(of("hypertape::allocate_bytes(unsigned long)"), "memory")
        self.assertEqual(of("__strlen_avx2"), "other")
        self.assertEqual(
            instructions.short_name("void hypertape::detail::(anonymous namespace)::tile<hypertape::A, 2>(int) [clone .isra.0]"),
            "tile<A, 2>",
        )

    def test_what_is_recorded_is_what_is_compared(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "expected.json")
            instructions.record(path, self.about, {("w", "float32"): 5})
            with open(path) as file:
                kept = json.load(file)
        self.assertEqual(kept["rows"], [{"work": "w", "dtype": "float32", "instructions": 5}])
        with open(instructions.EXPECTED) as file:
            recorded = [(row["work"], row["dtype"]) for row in json.load(file)["rows"]]
        self.assertEqual(recorded, instructions.ROWS)


if __name__ == "__main__":
    unittest.main()
