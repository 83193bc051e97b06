// Line charts as SVG: axes with ticks, a legend, several charts under one another.
#pragma once

#include <string>
#include <vector>

namespace hypertape {

/// A line through the points (x[i], y[i]). Points that cannot be shown (not finite, or not positive on a
/// logarithmic axis) leave a gap. Of a long series about 2,000 points are drawn, evenly chosen.
struct ChartSeries {
  std::string name;  ///< in the legend; any text
  std::vector<double> x, y;
};

struct LineChart {
  std::string title, x_label, y_label;
  bool logarithmic = false;  ///< the y axis
  std::vector<ChartSeries> series;
};

/// A whole SVG document. Error if a series has more x than y, or the reverse.
std::string svg_figure(const std::vector<LineChart>& charts);

/// Multiples of 1, 2 or 5 times a power of ten, from 2 to 6 of them within [low, high]; low < high,
/// finite.
std::vector<double> linear_ticks(double low, double high);

/// Powers of ten within [low, high], with their multiples of 2 and 5 over less than two decades; linear_ticks
/// where there are fewer than two of those. 0 < low < high, finite.
std::vector<double> logarithmic_ticks(double low, double high);

/// `text` with the characters that mean something in XML written as entities, and those that XML forbids as
/// "?".
std::string xml_escaped(const std::string& text);

}  // namespace hypertape
