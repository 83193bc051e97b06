// Reads IDX, the format of MNIST: big-endian counts, then the values.
//
//     bytes 0..1   zero
//     byte  2      element type; only 0x08, unsigned byte, is read
//     byte  3      number of dimensions: 1 for labels; 2 or more for samples, the first counting them
//     4 bytes for each dimension, then the values, last dimension fastest
#pragma once

#include "byte_reader.h"
#include "data_limits.h"
#include "read_options.h"

namespace hypertape {

/// Whether the file is IDX by its first bytes (no text starts with two zero bytes), or claims to be by a name
/// that contains "idx" and ends in "ubyte" or "ubyte.gz".
bool is_idx(ByteReader& file);

/// Reads `images` with their labels, from the file that the options name or from the one beside it. Throws
/// Error.
LabelledRows read_idx(ByteReader& images, const ReadOptions& options);

}  // namespace hypertape
