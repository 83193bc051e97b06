#include "plan_report.h"

#include <algorithm>
#include <array>
#include <ostream>
#include <string>
#include <vector>

#include "readable.h"

namespace hypertape {
namespace {

using Line = std::array<std::string, 8>;
constexpr std::size_t text_columns = 2;  // the first ones; numbers follow, then text again
constexpr std::size_t last_number = 6;

std::string percent_off(std::int64_t predicted, const std::optional<std::int64_t>& measured) {
  if (!measured || *measured == 0) return "-";
  return formatted("%+.1f %%",
                   100.0 * (static_cast<double>(predicted) / static_cast<double>(*measured) - 1.0));
}

}  // namespace

void print_plan(std::ostream& out, const Comparison& comparison) {
  if (!comparison.plan) return;
  const ComparedPlan& plan = *comparison.plan;
  out << "plan      " << plan.message << '\n';
  if (plan.rows.empty()) return;
  std::vector<Line> lines = {{"", "method", "grads", "HVPs", "predicted", "measured", "off", ""}};
  for (const PlanRow& row : plan.rows)
    lines.push_back({row.is_chosen ? ">" : "", row.method + (row.setting.empty() ? "" : ", " + row.setting),
                     readable_count(row.gradients), readable_count(row.hessian_vector_products),
                     readable_bytes(row.predicted_bytes),
                     row.measured_bytes ? readable_bytes(*row.measured_bytes) : "-",
                     percent_off(row.predicted_bytes, row.measured_bytes), row.reason});
  std::array<std::size_t, std::tuple_size_v<Line>> widths = {1};
  for (const Line& line : lines)
    for (std::size_t c = 0; c < line.size(); ++c) widths[c] = std::max(widths[c], line[c].size());
  for (const Line& line : lines) {
    std::string text;
    for (std::size_t c = 0; c < line.size(); ++c) {
      const std::string padding(widths[c] - line[c].size(), ' ');
      text += c >= text_columns && c <= last_number ? padding + line[c] : line[c] + padding;
      text += c == 0 ? " " : "  ";
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out << text << '\n';
  }
}

}  // namespace hypertape
