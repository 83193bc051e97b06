#include "line_chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <hypertape/core/error.h>
#include "readable.h"

namespace hypertape {
namespace {

// In pixels; the legend is right of the axes.
constexpr double width = 760, height = 270, left = 78, right = 150, top = 34, bottom = 50;
constexpr double plot_width = width - left - right, plot_height = height - top - bottom;
// Okabe and Ito's colours, told apart by everyone.
constexpr const char* colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                   "#e69f00", "#56b4e9", "#000000"};
constexpr std::size_t most_points = 2000;

std::string pixels(double position) { return formatted("%.2f", position); }

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void include(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
};

class Axes {
 public:
  explicit Axes(const LineChart& chart) : logarithmic_(chart.logarithmic) {
    for (const ChartSeries& series : chart.series) {
      if (series.x.size() != series.y.size())
        fail("line chart", "series '", series.name, "' has ", series.x.size(), " x and ", series.y.size(),
             " y");
      for (std::size_t i = 0; i < series.x.size(); ++i) {
        if (!shows(series.x[i], series.y[i])) continue;
        x_.include(series.x[i]);
        y_.include(series.y[i]);
      }
    }
    if (x_.low > x_.high) x_ = y_ = {1.0, 2.0};  // nothing to show
    widen(x_, false);
    widen(y_, logarithmic_);
    constexpr double margin = 0.05;
    const double extra = margin * (scaled(y_.high) - scaled(y_.low));
    y_ = {unscaled(scaled(y_.low) - extra), unscaled(scaled(y_.high) + extra)};
  }

  bool shows(double x, double y) const {
    // Far from overflow, so that differences and margins are finite.
    constexpr double largest = 1e200, smallest = 1e-200;
    return std::abs(x) < largest && std::abs(y) < largest && (!logarithmic_ || y > smallest);
  }
  double across(double x) const { return left + plot_width * (x - x_.low) / (x_.high - x_.low); }
  double down(double y) const {
    const double part = (scaled(y) - scaled(y_.low)) / (scaled(y_.high) - scaled(y_.low));
    return top + plot_height * (1.0 - part);
  }
  std::vector<double> x_ticks() const { return linear_ticks(x_.low, x_.high); }
  std::vector<double> y_ticks() const {
    return logarithmic_ ? logarithmic_ticks(y_.low, y_.high) : linear_ticks(y_.low, y_.high);
  }

 private:
  double scaled(double y) const { return logarithmic_ ? std::log10(y) : y; }
  double unscaled(double y) const { return logarithmic_ ? std::pow(10.0, y) : y; }
  // A range of one value, or one so narrow that its ticks would coincide, gets room.
  static void widen(Range& range, bool by_factor) {
    constexpr double narrow = 1e-6;
    const double size = std::max(std::abs(range.low), std::abs(range.high));
    if (range.high - range.low > narrow * size) return;
    const double room = size > 0.0 ? 0.1 * size : 1.0;
    range = by_factor ? Range{range.low / 1.5, range.high * 1.5} : Range{range.low - room, range.high + room};
  }

  bool logarithmic_;
  Range x_, y_;
};

std::string text_at(double x, double y, const std::string& anchor, const std::string& text,
                    const std::string& more = "") {
  return "<text x=\"" + pixels(x) + "\" y=\"" + pixels(y) + "\" text-anchor=\"" + anchor + "\"" + more + ">" +
         xml_escaped(text) + "</text>\n";
}

std::string line_between(double x1, double y1, double x2, double y2, const std::string& look) {
  return "<line x1=\"" + pixels(x1) + "\" y1=\"" + pixels(y1) + "\" x2=\"" + pixels(x2) + "\" y2=\"" +
         pixels(y2) + "\" " + look + "/>\n";
}

std::string axes_of(const LineChart& chart, const Axes& axes) {
  const std::string grid = "stroke=\"#dddddd\"";
  std::string svg;
  for (const double x : axes.x_ticks()) {
    svg += line_between(axes.across(x), top, axes.across(x), top + plot_height, grid);
    svg += text_at(axes.across(x), top + plot_height + 16, "middle", formatted("%.6g", x));
  }
  for (const double y : axes.y_ticks()) {
    svg += line_between(left, axes.down(y), left + plot_width, axes.down(y), grid);
    svg += text_at(left - 6, axes.down(y) + 4, "end", formatted("%.6g", y));
  }
  svg += "<rect x=\"" + pixels(left) + "\" y=\"" + pixels(top) + "\" width=\"" + pixels(plot_width) +
         "\" height=\"" + pixels(plot_height) + "\" fill=\"none\" stroke=\"#444444\"/>\n";
  svg += text_at(left + plot_width / 2, top - 12, "middle", chart.title, " font-size=\"14\"");
  svg += text_at(left + plot_width / 2, top + plot_height + 38, "middle", chart.x_label);
  const double middle = top + plot_height / 2;
  svg += text_at(18, middle, "middle", chart.y_label, " transform=\"rotate(-90 18 " + pixels(middle) + ")\"");
  return svg;
}

std::string polyline(const std::string& points, const std::string& colour) {
  if (points.empty()) return "";
  return "<polyline fill=\"none\" stroke=\"" + colour +
         "\" stroke-width=\"1.5\" stroke-linecap=\"round\" points=\"" + points + "\"/>\n";
}

std::string line_of(const ChartSeries& series, const Axes& axes, const std::string& colour) {
  const std::size_t every = std::max<std::size_t>(1, series.x.size() / most_points);
  std::string svg, points;
  for (std::size_t i = 0; i < series.x.size(); ++i) {
    if (i % every != 0 && i + 1 != series.x.size()) continue;
    if (!axes.shows(series.x[i], series.y[i])) {
      svg += polyline(points, colour);
      points.clear();
      continue;
    }
    const std::string point = pixels(axes.across(series.x[i])) + ',' + pixels(axes.down(series.y[i]));
    // A point by itself is drawn as a line of no length with round ends.
    points += points.empty() ? point + ' ' + point : ' ' + point;
  }
  return svg + polyline(points, colour);
}

std::string chart_svg(const LineChart& chart) {
  const Axes axes(chart);
  std::string svg = axes_of(chart, axes);
  for (std::size_t i = 0; i < chart.series.size(); ++i) {
    const std::string colour = colours[i % std::size(colours)];
    svg += line_of(chart.series[i], axes, colour);
    const double y = top + 8 + 18 * static_cast<double>(i);
    svg += line_between(width - right + 12, y, width - right + 34, y,
                        "stroke=\"" + colour + "\" stroke-width=\"2\"");
    svg += text_at(width - right + 40, y + 4, "start", chart.series[i].name);
  }
  return svg;
}

}  // namespace

std::string svg_figure(const std::vector<LineChart>& charts) {
  const double total = height * static_cast<double>(charts.size());
  const std::string size = pixels(width) + "\" height=\"" + pixels(total);
  std::string svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + size + "\" viewBox=\"0 0 " +
                    pixels(width) + ' ' + pixels(total) +
                    "\" font-family=\"sans-serif\" font-size=\"12\">\n" + "<rect width=\"" + size +
                    "\" fill=\"white\"/>\n";
  for (std::size_t i = 0; i < charts.size(); ++i)
    svg += "<g transform=\"translate(0 " + pixels(height * static_cast<double>(i)) + ")\">\n" +
           chart_svg(charts[i]) + "</g>\n";
  return svg + "</svg>\n";
}

std::vector<double> linear_ticks(double low, double high) {
  constexpr double wanted = 5.0;
  const double rough = (high - low) / wanted;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  // The least step that is not below the rough one: two to five of them fit.
  const double step = power * (rough <= power         ? 1.0
                               : rough <= 2.0 * power ? 2.0
                               : rough <= 5.0 * power ? 5.0
                                                      : 10.0);
  std::vector<double> ticks;
  // Adding 0 turns a negative zero into a positive one; rounding may put the first tick below the range.
  for (double k = std::ceil(low / step) + 0.0; k * step <= high; k += 1.0)
    if (k * step >= low) ticks.push_back(k * step);
  return ticks;
}

std::vector<double> logarithmic_ticks(double low, double high) {
  constexpr double most_powers = 6.0;
  const double first = std::ceil(std::log10(low)), last = std::floor(std::log10(high));
  const bool few = std::log10(high / low) < 2.0;
  const double every = std::max(1.0, std::ceil((last - first + 1.0) / most_powers));
  std::vector<double> ticks;
  for (double exponent = few ? first - 1.0 : first; exponent <= last; exponent += every) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double tick = factor * std::pow(10.0, exponent);
      if ((few || factor == 1.0) && tick >= low && tick <= high) ticks.push_back(tick);
    }
  }
  return ticks.size() < 2 ? linear_ticks(low, high) : ticks;
}

std::string xml_escaped(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&apos;";
        break;
      default:
        // Bytes above 127 belong to UTF-8.
        escaped += static_cast<unsigned char>(c) < 0x20 && c != '\t' && c != '\n' ? '?' : c;
    }
  }
  return escaped;
}

}  // namespace hypertape
