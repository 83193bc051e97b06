// The built-in digits, fewer of them.
#pragma once

#include <cstdint>

#include "data.h"

inline hypertape::Dataset first_digits(std::int64_t samples) {
  hypertape::Dataset data = hypertape::builtin_digits();
  data.samples = samples;
  data.inputs.resize(static_cast<std::size_t>(samples * data.features));
  data.labels.resize(static_cast<std::size_t>(samples));
  return data;
}
