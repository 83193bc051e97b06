#include "measures.h"

#include <algorithm>
#include <cmath>

namespace hypertape {
namespace {

// x divided by its largest absolute value, which makes squares neither overflow nor vanish.
std::pair<std::vector<double>, double> scaled(std::vector<double> x) {
  double largest = 0.0;
  for (const double element : x) largest = std::max(largest, std::abs(element));
  if (largest > 0.0)
    for (double& element : x) element /= largest;
  return {std::move(x), largest};
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double total = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) total += a[i] * b[i];
  return total;
}

double norm(const std::vector<double>& x) {
  const auto [unit, largest] = scaled(x);
  return largest * std::sqrt(dot(unit, unit));
}

}  // namespace

double relative_error(const std::vector<double>& value, const std::vector<double>& reference) {
  std::vector<double> difference(value.size());
  for (std::size_t i = 0; i < value.size(); ++i) difference[i] = value[i] - reference[i];
  const double distance = norm(difference);
  return distance == 0.0 ? 0.0 : distance / norm(reference);
}

double cosine(const std::vector<double>& value, const std::vector<double>& reference) {
  const std::vector<double> a = scaled(value).first, b = scaled(reference).first;
  const double product = std::sqrt(dot(a, a)) * std::sqrt(dot(b, b));
  return std::clamp(dot(a, b) / product, -1.0, 1.0);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

}  // namespace hypertape
