#include "tune_report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <sstream>

#include <hypertape/core/error.h>
#include "convert.h"
#include "line_chart.h"
#include "readable.h"
#include "report.h"

namespace hypertape {
namespace {

std::string or_empty(const std::optional<double>& number) { return number ? exact_text(*number) : ""; }

// --- The table

using Line = std::array<std::string, 7>;

Line line_of(const std::string& label, const Evaluation& e) {
  Line line = {label};
  std::size_t column = 1;
  for (const Quality& quality : {e.training, e.validation, e.test}) {
    line[column++] = formatted(quality.loss < 1e4 ? "%.4f" : "%.4g", quality.loss);
    line[column++] = formatted("%.2f %%", 100.0 * quality.accuracy);
  }
  return line;
}

std::string grid_label(const GridRecord& point, std::size_t runs) {
  return "grid, best of " + readable_count(static_cast<std::int64_t>(runs)) + ": rate " +
         formatted("%.3g", point.rate) + ", momentum " + formatted("%.3g", point.momentum) + ", L2 " +
         formatted("%.2g", point.l2);
}

std::vector<Line> lines_of(const TuneResult& r) {
  std::vector<Line> lines = {
      {"", "training loss", "accuracy", "validation loss", "accuracy", "test loss", "accuracy"}};
  if (r.before) lines.push_back(line_of("before", *r.before));
  if (r.after) lines.push_back(line_of("learned, outer step " + std::to_string(r.best_step + 1), *r.after));
  if (r.grid_evaluation)
    lines.push_back(line_of(grid_label(r.grid[*r.grid_best], r.grid.size()), *r.grid_evaluation));
  return lines;
}

void print_lines(std::ostream& out, const std::vector<Line>& lines) {
  std::array<std::size_t, std::tuple_size_v<Line>> widths{};
  for (const Line& line : lines)
    for (std::size_t c = 0; c < line.size(); ++c) widths[c] = std::max(widths[c], line[c].size());
  for (const Line& line : lines) {
    out << line[0] << std::string(widths[0] - line[0].size(), ' ');
    for (std::size_t c = 1; c < line.size(); ++c)
      out << "  " << std::string(widths[c] - line[c].size(), ' ') << line[c];
    out << '\n';
  }
}

std::int64_t with_status(const TuneResult& r, const std::string& status) {
  return std::count_if(r.history.begin(), r.history.end(),
                       [&](const OuterRecord& each) { return each.status.starts_with(status); });
}

void print_header(std::ostream& out, const TuneResult& r) {
  out << "data      " << r.data_name << ", " << readable_count(r.training_samples) << " training, "
      << readable_count(r.validation_samples) << " validation and " << readable_count(r.test_samples)
      << " test samples of " << readable_count(r.features) << " values, " << readable_count(r.classes)
      << " classes\n";
  for (const std::string& note : r.data_notes) out << "          " << note << '\n';
  out << "scale     " << r.scale_text << "\nnet       ";
  for (std::size_t i = 0; i < r.sizes.size(); ++i) out << (i ? "-" : "") << r.sizes[i];
  out << ' ' << r.activation << ", " << readable_count(r.parameters) << " parameters in " << r.dtype
      << "\nlearned   ";
  std::int64_t total = 0;
  for (const Tensor& group : r.hyperparameters.tensors()) total += group.size();
  out << counted(total, "hyperparameter") << (r.hyperparameters.empty() ? "" : ":");
  for (std::size_t i = 0; i < r.hyperparameters.size(); ++i)
    out << (i ? ", " : " ") << r.hyperparameters.names()[i] << ' '
        << readable_count(r.hyperparameters.tensors()[i].size());
  out << "\ntraining  " << counted(r.steps, "step") << " of " << optimizer_title(r.optimizer) << ", batch "
      << readable_count(r.batch) << ", " << counted(r.threads, "thread");
  double seconds = 0.0;
  for (const OuterRecord& each : r.history) seconds += each.seconds;
  out << "\nouter     " << counted(static_cast<std::int64_t>(r.history.size()), "step") << " of Adam by "
      << r.method << " hypergradients: the work of " << readable_count(std::llround(r.gradients_of_work))
      << " gradients, " << formatted("%.1f", seconds) << " s";
  if (const std::int64_t count = with_status(r, "chaotic")) out << "; " << count << " chaotic";
  if (const std::int64_t count = with_status(r, "rejected")) out << "; " << count << " rejected";
  out << '\n';
}

// --- The figure

std::vector<double> numbered(std::size_t size) {
  std::vector<double> x(size);
  for (std::size_t i = 0; i < size; ++i) x[i] = static_cast<double>(i + 1);
  return x;
}

LineChart rate_chart(const Tensor& log_rates) {
  LineChart chart{"learned rates", "training step", "learning rate", true, {}};
  const std::vector<double> values = doubles_of(log_rates);
  const auto steps = static_cast<std::size_t>(log_rates.extent(0));
  const auto layers = static_cast<std::size_t>(log_rates.extent(1));
  for (std::size_t layer = 0; layer < layers; ++layer) {
    ChartSeries series{"layer " + std::to_string(layer + 1), numbered(steps), {}};
    for (std::size_t t = 0; t < steps; ++t) series.y.push_back(std::exp(values[t * layers + layer]));
    chart.series.push_back(std::move(series));
  }
  return chart;
}

LineChart momentum_chart(const Tensor& momenta) {
  ChartSeries series{"momentum", numbered(static_cast<std::size_t>(momenta.size())), {}};
  for (const double logit : doubles_of(momenta)) series.y.push_back(1.0 / (1.0 + std::exp(-logit)));
  return {"learned momentum", "training step", "momentum", false, {std::move(series)}};
}

LineChart loss_chart(const std::vector<OuterRecord>& history) {
  ChartSeries validation{"validation", numbered(history.size()), {}};
  ChartSeries training{"training", numbered(history.size()), {}};
  for (const OuterRecord& each : history) {
    constexpr double nothing = std::numeric_limits<double>::quiet_NaN();
    validation.y.push_back(each.validation_loss.value_or(nothing));
    training.y.push_back(each.training_loss.value_or(nothing));
  }
  return {"losses after training", "outer step", "loss", true, {std::move(validation), std::move(training)}};
}

}  // namespace

std::string tune_table(const TuneResult& result) {
  std::ostringstream out = detail::text_stream();
  print_header(out, result);
  const std::vector<Line> lines = lines_of(result);
  if (lines.size() > 1) {
    out << '\n';
    print_lines(out, lines);
    out << "\nlosses: cross entropy without penalty after all steps; the validation loss was minimised, and "
           "chose\nthe row; the test samples were used for this table alone";
    if (result.grid_evaluation) out << "; the grid had the work of the hypergradients";
    out << '\n';
  }
  return out.str();
}

std::string history_csv(const TuneResult& result) {
  std::string text = "outer_step,validation_loss,training_loss,gradient_norm,seconds,status\n";
  for (std::size_t k = 0; k < result.history.size(); ++k) {
    const OuterRecord& each = result.history[k];
    text += std::to_string(k) + ',' + or_empty(each.validation_loss) + ',' + or_empty(each.training_loss) +
            ',' + or_empty(each.gradient_norm) + ',' + formatted("%.6f", each.seconds) + ',' +
            csv_field(each.status) + '\n';
  }
  return text;
}

std::string results_csv(const TuneResult& result) {
  std::string text =
      "row,training_loss,training_accuracy,validation_loss,validation_accuracy,test_loss,test_accuracy,"
      "gradients\n";
  const auto add = [&](const char* row, const std::optional<Evaluation>& e, double gradients) {
    if (!e) return;
    text += row;
    for (const Quality& quality : {e->training, e->validation, e->test})
      text += ',' + exact_text(quality.loss) + ',' + exact_text(quality.accuracy);
    text += ',' + exact_text(gradients) + '\n';
  };
  add("before", result.before, 0.0);
  add("learned", result.after, result.gradients_of_work);
  add("grid", result.grid_evaluation,
      static_cast<double>(result.grid.size()) * static_cast<double>(result.steps));
  return text;
}

std::string baseline_csv(const TuneResult& result) {
  std::string text = "rate,momentum,l2,validation_loss\n";
  for (const GridRecord& each : result.grid)
    text += exact_text(each.rate) + ',' + exact_text(each.momentum) + ',' + exact_text(each.l2) + ',' +
            or_empty(each.validation_loss) + '\n';
  return text;
}

std::string tune_figure(const TuneResult& result) {
  std::vector<LineChart> charts;
  const NamedTensors& h = result.hyperparameters;
  if (h.contains("log_rates")) charts.push_back(rate_chart(h["log_rates"]));
  if (h.contains("momenta")) charts.push_back(momentum_chart(h["momenta"]));
  charts.push_back(loss_chart(result.history));
  return svg_figure(charts);
}

}  // namespace hypertape
