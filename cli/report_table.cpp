#include <algorithm>
#include <array>
#include <cmath>
#include <sstream>

#include "readable.h"
#include "report.h"

namespace hypertape {
namespace {

enum Column { method, setting, group, error, cosine, seconds, runs, gradients, hvps, peak, status, columns };
using Line = std::array<std::string, columns>;

constexpr bool is_number(std::size_t column) { return column >= error && column <= peak; }

std::string or_dash(const char* pattern, const std::optional<double>& number) {
  return number ? formatted(pattern, *number) : "-";
}

std::string or_dash(const std::optional<std::int64_t>& count) { return count ? readable_count(*count) : "-"; }

std::string error_text(const std::optional<double>& number) {
  return number && *number == 0.0 ? "0" : or_dash("%.1e", number);
}

// Ten decimals, but "1" only for what is 1 to the last bit or so.
std::string cosine_text(const std::optional<double>& number) {
  return number && std::abs(*number - 1.0) < 1e-15 ? "1" : or_dash("%.10f", number);
}

bool same_method(const ComparisonRow& a, const ComparisonRow& b) {
  return a.method == b.method && a.setting == b.setting;
}

Line line_of(const ComparisonRow& row) {
  return {row.method,
          row.setting,
          row.group,
          error_text(row.relative_error),
          cosine_text(row.cosine),
          or_dash("%.3f", row.seconds),
          or_dash("%.2f", row.training_runs),
          or_dash(row.gradients),
          or_dash(row.hessian_vector_products),
          row.peak_bytes ? readable_bytes(*row.peak_bytes) : "-",
          row.status};
}

std::vector<Line> lines_of(const std::vector<ComparisonRow>& rows) {
  std::vector<Line> lines;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    Line line = line_of(rows[i]);
    // What holds for the whole method is said in its first line.
    if (i > 0 && same_method(rows[i], rows[i - 1]))
      for (const Column column : {method, setting, seconds, runs, gradients, hvps, peak})
        line[column].clear();
    lines.push_back(std::move(line));
  }
  return lines;
}

void print_table(std::ostream& out, const std::vector<ComparisonRow>& rows) {
  std::vector<Line> lines = {{"method", "setting", "group", "rel. error", "cosine", "seconds", "runs",
                              "gradients", "HVPs", "peak", "status"}};
  for (Line& line : lines_of(rows)) lines.push_back(std::move(line));
  std::array<std::size_t, columns> widths{};
  for (const Line& line : lines)
    for (std::size_t c = 0; c < columns; ++c) widths[c] = std::max(widths[c], line[c].size());
  for (const Line& line : lines) {
    std::string text;
    for (std::size_t c = 0; c < columns; ++c) {
      const std::string padding(widths[c] - line[c].size(), ' ');
      text += is_number(c) ? padding + line[c] : line[c] + padding;
      if (c + 1 < columns) text += "  ";
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out << text << '\n';
  }
}

void print_net(std::ostream& out, const Comparison& c) {
  out << "data      " << c.data_name << ", " << readable_count(c.training_samples) << " training and "
      << readable_count(c.validation_samples) << " validation samples of " << readable_count(c.features)
      << " values, " << readable_count(c.classes) << " classes\n";
  out << "net       ";
  for (std::size_t i = 0; i < c.sizes.size(); ++i) out << (i ? "-" : "") << c.sizes[i];
  out << ' ' << c.activation << ", " << readable_count(c.parameters) << " parameters in " << c.dtype << '\n';
}

std::string training_text(const Comparison& c) {
  if (!c.description.empty())
    return "gradient descent on the whole objective, rate " + formatted("%.4g", c.rate);
  return optimizer_title(c.optimizer) + ", batch " + readable_count(c.batch);
}

void print_header(std::ostream& out, const Comparison& c) {
  if (c.description.empty())
    print_net(out, c);
  else
    out << "problem   " << c.problem << ": " << c.description << '\n';
  std::int64_t total = 0;
  for (const auto& [name, count] : c.groups) total += count;
  out << "groups    " << readable_count(total) << " hyperparameters:";
  for (std::size_t i = 0; i < c.groups.size(); ++i)
    out << (i ? ", " : " ") << c.groups[i].first << ' ' << readable_count(c.groups[i].second);
  out << "\ntraining  " << readable_count(c.steps) << " steps of " << training_text(c) << ", " << c.threads
      << (c.threads == 1 ? " thread" : " threads");
  if (c.training_run_seconds) out << ", " << formatted("%.3f", *c.training_run_seconds) << " s";
  out << '\n';
  if (c.first_loss && c.last_loss)
    out << "losses    training " << formatted("%.4g", *c.first_loss) << " to "
        << formatted("%.4g", *c.last_loss);
  if (c.validation_loss) out << ", validation " << formatted("%.4g", *c.validation_loss);
  if (c.first_loss) out << '\n';
}

}  // namespace

std::string optimizer_title(const std::string& name) {
  if (name == "adam") return "Adam";
  return name == "nesterov" ? "SGD with Nesterov momentum" : "SGD with momentum";
}

std::string table_report(const Comparison& comparison) {
  std::ostringstream out;
  print_header(out, comparison);
  out << '\n';
  print_table(out, comparison.rows);
  out << "\nrel. error and cosine: against " << comparison.reference
      << ", 0 = the same bits (ridders: that against finite differences of real training);\nruns: seconds in "
         "plain training runs; gradients, HVPs: of the training loss; peak: most memory held above the "
         "start; "
         "all for the groups together\n";
  return out.str();
}

}  // namespace hypertape
