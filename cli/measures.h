// How far a hypergradient is from the reference.
#pragma once

#include <vector>

namespace hypertape {

/// |value - reference| / |reference|, Euclidean. 0 iff all elements are equal; infinite or NaN where the
/// reference is 0 and the value is not.
double relative_error(const std::vector<double>& value, const std::vector<double>& reference);

/// <value, reference> / (|value| |reference|); NaN if one of them is 0.
double cosine(const std::vector<double>& value, const std::vector<double>& reference);

/// The middle value, or the mean of the two; `values` is not empty.
double median(std::vector<double> values);

}  // namespace hypertape
