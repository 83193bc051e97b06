// Reads classification data from CSV: one sample per line, one column of labels, all others finite numbers.
//
// The first line is a header if the label's column is asked for by name, if none of its values (the label
// aside) is a number, or if all of them are but the label is text while the next line's label is a number.
//
// Labels are either all integers 0..K-1, used as they are, or all text, numbered in sorted (byte) order.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "byte_reader.h"
#include "data_limits.h"

namespace hypertape {

/// Reads the first `max_samples` rows (0: all). `label_column` names the column of labels in the header;
/// without it, it is the last. Throws Error with the line.
LabelledRows read_csv(ByteReader& file, const std::optional<std::string>& label_column,
                      std::int64_t max_samples);

}  // namespace hypertape
