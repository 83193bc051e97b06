#include <algorithm>
#include <array>
#include <cmath>
#include <sstream>

#include <hypertape/core/error.h>
#include "plan_report.h"
#include "readable.h"
#include "report.h"

namespace hypertape {
namespace {

enum Column { method, setting, group, error, cosine, time, runs, gradients, hvps, peak, status, columns };
using Line = std::array<std::string, columns>;

constexpr bool is_number(std::size_t column) { return column >= error && column <= peak; }

std::string or_dash(const char* pattern, const std::optional<double>& number) {
  return number ? formatted(pattern, *number) : "-";
}

std::string or_dash(const std::optional<std::int64_t>& count) { return count ? readable_count(*count) : "-"; }

std::string error_text(const std::optional<double>& number) {
  return number && *number == 0.0 ? "0" : or_dash("%.1e", number);
}

// "1" only for what is 1 to the last bit or so.
std::string cosine_text(const std::optional<double>& number) {
  return number && std::abs(*number - 1.0) < 1e-15 ? "1" : or_dash("%.6f", number);
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
          row.seconds ? readable_seconds(*row.seconds) : "-",
          or_dash("%.2f", row.training_runs),
          or_dash(row.gradients),
          or_dash(row.hessian_vector_products),
          row.peak_bytes ? readable_bytes(*row.peak_bytes) : "-",
          row.status};
}

// Statuses that would make the table too wide, under it: "not converged [1]".
class Notes {
 public:
  std::string shortened(const std::string& text) {
    constexpr std::size_t widest = 24;
    const std::size_t open = text.find(" (");
    if (text.size() <= widest || open == text.npos || !text.ends_with(')')) return text;
    const std::string note = text.substr(open + 2, text.size() - open - 3);
    auto found = std::find(notes_.begin(), notes_.end(), note);
    if (found == notes_.end()) found = notes_.insert(notes_.end(), note);
    return text.substr(0, open) + " [" + std::to_string(found - notes_.begin() + 1) + ']';
  }
  void print(std::ostream& out) const {
    for (std::size_t i = 0; i < notes_.size(); ++i) out << '[' << i + 1 << "] " << notes_[i] << '\n';
  }

 private:
  std::vector<std::string> notes_;
};

std::vector<Line> lines_of(const std::vector<ComparisonRow>& rows, Notes& notes) {
  std::vector<Line> lines;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    Line line = line_of(rows[i]);
    line[status] = notes.shortened(line[status]);
    // What holds for the whole method is said in its first line.
    if (i > 0 && same_method(rows[i], rows[i - 1]))
      for (const Column column : {method, setting, time, runs, gradients, hvps, peak}) line[column].clear();
    lines.push_back(std::move(line));
  }
  return lines;
}

// Without the column of the groups where there is only one.
void print_table(std::ostream& out, const Comparison& comparison, Notes& notes) {
  std::vector<Line> lines = {
      {"method", "setting", "group", "error", "cosine", "time", "runs", "grads", "HVPs", "peak", "status"}};
  for (Line& line : lines_of(comparison.rows, notes)) lines.push_back(std::move(line));
  std::array<std::size_t, columns> widths{};
  for (const Line& line : lines)
    for (std::size_t c = 0; c < columns; ++c) widths[c] = std::max(widths[c], line[c].size());
  for (const Line& line : lines) {
    std::string text;
    for (std::size_t c = 0; c < columns; ++c) {
      if (c == group && comparison.groups.size() == 1) continue;
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
  for (const std::string& note : c.data_notes) out << "          " << note << '\n';
  out << "scale     " << c.scale_text << "\nnet       ";
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
  out << "groups    " << counted(total, "hyperparameter") << ':';
  for (std::size_t i = 0; i < c.groups.size(); ++i)
    out << (i ? ", " : " ") << c.groups[i].first << ' ' << readable_count(c.groups[i].second);
  out << "\ntraining  " << counted(c.steps, "step") << " of " << training_text(c) << ", "
      << counted(c.threads, "thread");
  if (c.training_run_seconds) out << ", " << readable_seconds(*c.training_run_seconds);
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
  std::ostringstream out = detail::text_stream();
  print_header(out, comparison);
  out << '\n';
  Notes notes;
  print_table(out, comparison, notes);
  out << '\n';
  notes.print(out);
  if (comparison.plan) {
    print_plan(out, comparison);
    out << '\n';
  }
  out << "error: |g - reference| / |reference|, 0 = the same bits; the reference: " << comparison.reference
      << "\nforward: error along random directions; ridders: that of the reference against finite "
         "differences "
         "of real training\n"
         "time, and in plain training runs; gradients and Hessian-vector products of the training loss; most "
         "memory held\nabove the start: of all groups together\n";
  return out.str();
}

}  // namespace hypertape
