// The figure's charts: ticks, positions, gaps, text.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "line_chart.h"
#include "thrown.h"

namespace {

using hypertape::ChartSeries;
using hypertape::linear_ticks;
using hypertape::LineChart;
using hypertape::logarithmic_ticks;
using hypertape::svg_figure;

constexpr double no_number = std::numeric_limits<double>::quiet_NaN();

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++found;
  return found;
}

// Whether every element is closed in order and every attribute quoted.
bool is_well_formed(const std::string& xml) {
  const std::regex tag("<(/?)([a-z]+)((?: [a-zA-Z0-9-]+=\"[^\"<&]*\")*)(/?)>|<|[^<]+");
  std::vector<std::string> open;
  for (std::sregex_iterator it(xml.begin(), xml.end(), tag), end; it != end; ++it) {
    const std::string whole = (*it)[0].str(), name = (*it)[2].str();
    if (whole == "<") return false;
    if (whole[0] != '<') continue;
    if ((*it)[1].length() > 0) {
      if (open.empty() || open.back() != name) return false;
      open.pop_back();
    } else if ((*it)[4].length() == 0) {
      open.push_back(name);
    }
  }
  return open.empty();
}

// The points of all lines, one after another.
std::vector<std::pair<double, double>> points_of(const std::string& svg) {
  const std::string start = "points=\"";
  std::vector<std::pair<double, double>> points;
  for (std::size_t at = svg.find(start); at != svg.npos; at = svg.find(start, at + 1)) {
    const std::size_t first = at + start.size();
    std::istringstream list(svg.substr(first, svg.find('"', first) - first));
    double x = 0.0, y = 0.0;
    for (char comma = 0; list >> x >> comma >> y;) points.emplace_back(x, y);
  }
  return points;
}

LineChart chart_of(const std::vector<double>& y, bool logarithmic = false) {
  ChartSeries series{"s", {}, y};
  for (std::size_t i = 0; i < y.size(); ++i) series.x.push_back(static_cast<double>(i));
  return {"title", "x", "y", logarithmic, {series}};
}

}  // namespace

TEST_CASE("linear ticks are round numbers inside the range") {
  CHECK(linear_ticks(0.0, 10.0) == std::vector<double>{0, 2, 4, 6, 8, 10});
  CHECK(linear_ticks(1.0, 100.0) == std::vector<double>{20, 40, 60, 80, 100});
  CHECK(linear_ticks(-1.0, 1.0) == std::vector<double>{-1.0, -0.5, 0.0, 0.5, 1.0});
  CHECK(linear_ticks(1e-9, 3.9e-9).size() == 3);
  for (const double low : {-7.3, 0.0, 0.013, 12345.0})
    for (const double size : {1e-4, 0.3, 1.0, 2.1, 4.9, 77.0, 1e9}) {
      const std::vector<double> ticks = linear_ticks(low, low + size);
      CHECK(ticks.size() >= 2);
      CHECK(ticks.size() <= 6);
      CHECK(ticks.front() >= low);
      CHECK(ticks.back() <= low + size);
    }
  // No "-0" on an axis.
  CHECK_FALSE(std::signbit(linear_ticks(-0.3, 5.0).front()));
}

TEST_CASE("logarithmic ticks are powers of ten, with 2 and 5 over short ranges") {
  CHECK(logarithmic_ticks(0.009, 110.0) == std::vector<double>{0.01, 0.1, 1.0, 10.0, 100.0});
  const std::vector<double> few = logarithmic_ticks(0.02, 0.3);
  REQUIRE(few.size() == 4);
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(few[i] == doctest::Approx(std::vector<double>{0.02, 0.05, 0.1, 0.2}[i]).epsilon(1e-14));
  CHECK(logarithmic_ticks(1e-100, 1e100).size() <= 7);
  CHECK(logarithmic_ticks(1.1, 1.2).size() >= 2);
}

TEST_CASE("points lie where the axes say") {
  // 1, 10, 100 on a logarithmic axis are equally far apart, as are 0, 1, 2 on the other one.
  for (const bool logarithmic : {false, true}) {
    const auto points = points_of(svg_figure({chart_of(
        logarithmic ? std::vector<double>{1, 10, 100} : std::vector<double>{5, 6, 7}, logarithmic)}));
    REQUIRE(points.size() == 4);  // the first is drawn twice
    CHECK(points[0] == points[1]);
    CHECK(points[2].first - points[1].first ==
          doctest::Approx(points[3].first - points[2].first).epsilon(1e-4));
    CHECK(points[1].second - points[2].second ==
          doctest::Approx(points[2].second - points[3].second).epsilon(1e-4));
    CHECK(points[1].second > points[3].second);  // upwards
  }
}

TEST_CASE("what cannot be shown is a gap") {
  CHECK(count(svg_figure({chart_of({1, 2, no_number, 3, 4})}), "<polyline") == 2);
  CHECK(count(svg_figure({chart_of({1, 2, HUGE_VAL, 3})}), "<polyline") == 2);
  CHECK(count(svg_figure({chart_of({1, 2, 0.0, -3, 4}, true)}), "<polyline") == 2);
  CHECK(count(svg_figure({chart_of({1, 2, 0.0, -3, 4}, false)}), "<polyline") == 1);
  CHECK(count(svg_figure({chart_of({no_number, no_number})}), "<polyline") == 0);
}

TEST_CASE("every figure is well-formed, whatever the numbers and the text") {
  const std::vector<std::vector<double>> all = {{},
                                                {1.0},
                                                {0.0, 0.0},
                                                {-5.0, -5.0},
                                                {no_number},
                                                {1.0, 1.0 + 1e-15},
                                                {-1e299, 1e299},
                                                {1e-299, 1e299},
                                                {HUGE_VAL, -HUGE_VAL, 1e308},
                                                {5e-324, 1.0}};
  for (const std::vector<double>& y : all)
    for (const bool logarithmic : {false, true}) {
      LineChart chart = chart_of(y, logarithmic);
      chart.title = "a < b & \"c\" > 'd'";
      chart.series[0].name = "</svg>";
      const std::string svg = svg_figure({chart, chart});
      CHECK(is_well_formed(svg));
      CHECK_FALSE(contains(svg, "nan"));
      CHECK_FALSE(contains(svg, "inf"));
      CHECK(contains(svg, "a &lt; b &amp; &quot;c&quot; &gt; &apos;d&apos;"));
    }
  CHECK_FALSE(is_well_formed("<a><b></a></b>"));
  CHECK_FALSE(is_well_formed("<svg></svg></svg>"));
  CHECK(hypertape::xml_escaped(std::string("\x01\x02z\0", 4)) == "??z?");
}

TEST_CASE("there is a legend entry and a colour for each series") {
  LineChart chart = chart_of({1, 2, 3});
  for (int i = 0; i < 9; ++i) chart.series.push_back(chart.series.front());
  chart.series[3].name = "fourth";
  const std::string svg = svg_figure({chart});
  CHECK(count(svg, "<polyline") == 10);
  CHECK(count(svg, ">s</text>") == 9);
  CHECK(count(svg, ">fourth</text>") == 1);
}

TEST_CASE("of a long series about two thousand points are drawn, and the last") {
  std::vector<double> y(100'000);
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = static_cast<double>(i);
  const auto points = points_of(svg_figure({chart_of(y)}));
  CHECK(points.size() > 1900);
  CHECK(points.size() < 2100);
  CHECK(points.back().first == doctest::Approx(760.0 - 150.0).epsilon(1e-9));
}

TEST_CASE("a series with other numbers of x and y is refused") {
  LineChart chart = chart_of({1, 2, 3});
  chart.series[0].y.pop_back();
  expect_text(thrown([&] { (void)svg_figure({chart}); }), "[line chart] series 's' has 3 x and 2 y");
}
