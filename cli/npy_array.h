// An array in NumPy's .npy format, versions 1 to 3: a magic, a header that is a Python dictionary, raw
// elements.
//
// Read are arrays in C order of little-endian float64, float32, int64 or of bytes; everything else is refused
// by name. Input is not trusted: sizes are checked against the bytes there are before memory is taken.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace hypertape {

struct NpyArray {
  using Values = std::variant<std::vector<double>, std::vector<float>, std::vector<std::int64_t>,
                              std::vector<std::uint8_t>>;

  std::vector<std::int64_t> shape;  ///< extents, none negative; empty for a single number
  Values values;                    ///< row-major, as many as the shape says
};

/// The file's bytes, version 1.0, elements from a multiple of 64 bytes on. Error if shape and values do not
/// fit.
std::string npy_bytes(const NpyArray& array);

/// The array in a file's bytes. `name` stands for the file in messages. Error "[read npy] <name>: what is
/// wrong".
NpyArray read_npy(std::string_view bytes, const std::string& name);

}  // namespace hypertape
