// Reads classification data from CSV: one sample per line, one column of labels, all others finite numbers.
//
// Unless the options say so, the first line is a header if the label's column is asked for by name, and
// otherwise if it looks like one (csv_header.h), alone or beside the labels below it. A header's first column
// without a name is an index, as pandas and R write it, and left out. What is decided so, the notes say.
//
// Labels are either all integers 0..K-1, used as they are, or all text, numbered in sorted (byte) order.
#pragma once

#include "byte_reader.h"
#include "data_limits.h"
#include "read_options.h"

namespace hypertape {

/// Throws Error with the line.
LabelledRows read_csv(ByteReader& file, const ReadOptions& options);

}  // namespace hypertape
