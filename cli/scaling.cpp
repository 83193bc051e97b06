#include "scaling.h"

#include <algorithm>
#include <cmath>

#include "readable.h"

namespace hypertape {
namespace {

const double* row_of(const Dataset& data, std::int64_t sample) {
  return data.inputs.data() + sample * data.features;
}

double largest_value(const Dataset& data, std::span<const std::int64_t> training) {
  double largest = 0.0;
  for (const std::int64_t sample : training)
    for (std::int64_t i = 0; i < data.features; ++i)
      largest = std::max(largest, std::abs(row_of(data, sample)[i]));
  return largest;
}

// A power of two that takes `largest` to about 1, so that neither squares nor differences overflow.
double factor_for(double largest) {
  constexpr int most = 1022;  // its reciprocal is normal
  int exponent = 0;
  std::frexp(largest, &exponent);
  return std::ldexp(1.0, std::clamp(-exponent, -most, most));
}

}  // namespace

Scale resolved(Scale scale, const Dataset& data) {
  if (scale != Scale::automatic) return scale;
  return data.images ? Scale::max : Scale::standard;
}

Scaling::Scaling(Scale scale, const Dataset& data, std::span<const std::int64_t> training)
    : scale_(resolved(scale, data)), columns_(1) {
  if (scale_ == Scale::none) return;
  if (scale_ == Scale::max) {
    const double largest = largest_value(data, training);
    if (largest > 0.0) columns_[0].divisor = largest;
    return;
  }
  fit_columns(data, training);
  if (scale_ == Scale::standard) standardise(data, training);
  constant_columns_ =
      std::count_if(columns_.begin(), columns_.end(), [](const Column& each) { return each.is_constant; });
}

// Each column's extremes: all that `range` needs.
void Scaling::fit_columns(const Dataset& data, std::span<const std::int64_t> training) {
  const auto features = static_cast<std::size_t>(data.features);
  const double* first = row_of(data, training.front());
  std::vector<double> least(first, first + features), most = least;
  for (const std::int64_t sample : training) {
    const double* row = row_of(data, sample);
    for (std::size_t i = 0; i < features; ++i) {
      least[i] = std::min(least[i], row[i]);
      most[i] = std::max(most[i], row[i]);
    }
  }
  columns_.resize(features);
  for (std::size_t i = 0; i < features; ++i) {
    Column& column = columns_[i];
    column.is_constant = least[i] == most[i];
    column.factor = factor_for(std::max(std::abs(least[i]), std::abs(most[i])));
    column.shift = least[i] * column.factor;
    column.divisor = most[i] * column.factor - column.shift;
  }
}

// In two passes: the mean, about the least value so that it keeps its digits, then the deviations from it.
void Scaling::standardise(const Dataset& data, std::span<const std::int64_t> training) {
  const auto features = static_cast<std::size_t>(data.features);
  const auto count = static_cast<double>(training.size());
  std::vector<double> sums(features);
  for (const std::int64_t sample : training)
    for (std::size_t i = 0; i < features; ++i)
      sums[i] += row_of(data, sample)[i] * columns_[i].factor - columns_[i].shift;
  for (std::size_t i = 0; i < features; ++i) columns_[i].shift += sums[i] / count;
  std::fill(sums.begin(), sums.end(), 0.0);
  for (const std::int64_t sample : training) {
    for (std::size_t i = 0; i < features; ++i) {
      const double deviation = row_of(data, sample)[i] * columns_[i].factor - columns_[i].shift;
      sums[i] += deviation * deviation;
    }
  }
  for (std::size_t i = 0; i < features; ++i) columns_[i].divisor = std::sqrt(sums[i] / count);
}

std::string Scaling::text() const {
  const std::string constants = constant_columns_ == 0
                                    ? ""
                                    : "; " + counted(constant_columns_, "constant column") +
                                          (constant_columns_ == 1 ? " is 0" : " are 0");
  switch (scale_) {
    case Scale::max:
      return "max: all values over the largest of the training samples, " +
             formatted("%.6g", columns_[0].divisor);
    case Scale::none:
      return "none: values as they are in the data";
    case Scale::range:
      return "range: each column from 0 to 1 in the training samples" + constants;
    default:
      return "standard: each column less its mean, over its standard deviation, in the training samples" +
             constants;
  }
}

}  // namespace hypertape
