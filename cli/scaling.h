// What is done to the data's columns before training: numbers of very different sizes train badly.
//
// All constants come from training samples alone. With m and s a column's mean and standard deviation (of the
// samples, not an estimate of a population's), a and b its least and largest value, c the largest absolute
// value of all columns:
//
//   standard   (x - m) / s    each column by itself: the columns have units of their own
//   range      (x - a) / (b - a), 0 to 1
//   max        x / c          all columns alike: images, whose pixels have one unit, and some hardly vary
//   none       x
//
// A column that is constant over the training samples says nothing: `standard` and `range` set it to 0.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data.h"

namespace hypertape {

enum class Scale : std::uint8_t {
  automatic,  ///< max for images, else standard
  standard,
  range,
  max,
  none
};
inline constexpr const char* scale_names[] = {"auto", "standard", "range", "max", "none"};

/// `scale`, or what `automatic` means for the data.
Scale resolved(Scale scale, const Dataset& data);

class Scaling {
 public:
  /// Leaves values as they are.
  Scaling() : scale_(Scale::none), columns_(1) {}
  /// Fits `resolved(scale, data)` to the samples numbered `training`.
  Scaling(Scale scale, const Dataset& data, std::span<const std::int64_t> training);

  /// The value x of a column (0: the first) as training sees it; infinite or NaN where it is too far outside
  /// the training samples'.
  double operator()(double x, std::size_t column) const {
    const Column& each = columns_[columns_.size() == 1 ? 0 : column];
    return each.is_constant ? 0.0 : (x * each.factor - each.shift) / each.divisor;
  }

  /// One of scale_names, but for "auto".
  const char* name() const { return scale_names[static_cast<std::size_t>(scale_)]; }
  /// Columns set to 0.
  std::int64_t constant_columns() const noexcept { return constant_columns_; }
  /// "standard: each column less its mean, over its standard deviation in the training samples; 2 constant
  /// columns are 0"
  std::string text() const;

 private:
  struct Column {
    // The factor is a power of two that keeps squares and differences in range.
    double factor = 1.0, shift = 0.0, divisor = 1.0;
    bool is_constant = false;
  };
  void fit_columns(const Dataset& data, std::span<const std::int64_t> training);
  void standardise(const Dataset& data, std::span<const std::int64_t> training);

  Scale scale_;
  std::vector<Column> columns_;  // one for all where they are alike
  std::int64_t constant_columns_ = 0;
};

}  // namespace hypertape
