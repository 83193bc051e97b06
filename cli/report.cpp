#include "report.h"

#include <charconv>
#include <nlohmann/json.hpp>

namespace hypertape {
namespace {

template <class T>
nlohmann::ordered_json or_null(const std::optional<T>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
}

// The shortest text that reads back as the same number, whatever the locale.
template <class T>
std::string or_empty(const std::optional<T>& value) {
  if (!value) return "";
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, *value).ptr;
  return {text, end};
}

nlohmann::ordered_json plan_of(const Comparison& comparison) {
  if (!comparison.plan) return nullptr;
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const PlanRow& row : comparison.plan->rows)
    rows.push_back({{"method", row.method},
                    {"setting", row.setting},
                    {"gradients", row.gradients},
                    {"hessian_vector_products", row.hessian_vector_products},
                    {"predicted_bytes", row.predicted_bytes},
                    {"measured_bytes", or_null(row.measured_bytes)},
                    {"chosen", row.is_chosen},
                    {"reason", row.reason}});
  return {{"budget_bytes", or_null(comparison.plan->budget_bytes)},
          {"message", comparison.plan->message},
          {"rows", std::move(rows)}};
}

nlohmann::ordered_json data_of(const Comparison& comparison) {
  if (comparison.scale.empty()) return nullptr;  // drawn, not read
  return {{"name", comparison.data_name},
          {"training_samples", comparison.training_samples},
          {"validation_samples", comparison.validation_samples},
          {"features", comparison.features},
          {"classes", comparison.classes},
          {"scale", comparison.scale},
          {"notes", comparison.data_notes}};
}

}  // namespace

std::string csv_field(const std::string& field) {
  if (field.find_first_of(",\"\r\n") == field.npos) return field;
  std::string text = "\"";
  for (const char c : field) {
    if (c == '"') text += '"';
    text += c;
  }
  return text + '"';
}

std::string json_report(const Comparison& comparison) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const ComparisonRow& row : comparison.rows) {
    rows.push_back({{"method", row.method},
                    {"setting", row.setting},
                    {"group", row.group},
                    {"relative_error", or_null(row.relative_error)},
                    {"cosine", or_null(row.cosine)},
                    {"seconds", or_null(row.seconds)},
                    {"training_runs", or_null(row.training_runs)},
                    {"gradients", or_null(row.gradients)},
                    {"hessian_vector_products", or_null(row.hessian_vector_products)},
                    {"peak_bytes", or_null(row.peak_bytes)},
                    {"status", row.status}});
  }
  const nlohmann::ordered_json document = {
      {"problem", comparison.problem},
      {"optimizer", comparison.optimizer},
      {"data", data_of(comparison)},
      {"training_run_seconds", or_null(comparison.training_run_seconds)},
      {"steps", comparison.steps},
      {"dtype", comparison.dtype},
      {"threads", comparison.threads},
      {"rows", std::move(rows)},
      {"plan", plan_of(comparison)},
      {"reference", comparison.reference},
      {"failure", comparison.failure.empty() ? nlohmann::ordered_json(nullptr)
                                             : nlohmann::ordered_json(comparison.failure)}};
  return document.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + '\n';
}

std::string csv_report(const Comparison& comparison) {
  std::string text =
      "method,setting,group,relative_error,cosine,seconds,training_runs,gradients,"
      "hessian_vector_products,"
      "peak_bytes,status,problem,optimizer,dtype,scale\n";
  for (const ComparisonRow& row : comparison.rows) {
    for (const std::string& field :
         {csv_field(row.method), csv_field(row.setting), csv_field(row.group), or_empty(row.relative_error),
          or_empty(row.cosine), or_empty(row.seconds), or_empty(row.training_runs), or_empty(row.gradients),
          or_empty(row.hessian_vector_products), or_empty(row.peak_bytes)})
      text += field + ',';
    text += csv_field(row.status) + ',' + comparison.problem + ',' + comparison.optimizer + ',' +
            comparison.dtype + ',' + comparison.scale + '\n';
  }
  return text;
}

std::string report(const Comparison& comparison, Format format) {
  switch (format) {
    case Format::csv:
      return csv_report(comparison);
    case Format::json:
      return json_report(comparison);
    case Format::table:
      break;
  }
  return table_report(comparison);
}

}  // namespace hypertape
