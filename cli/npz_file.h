// NumPy's .npz: several named arrays in one zip archive, not compressed.
//
// numpy.load reads what is written here. Input is not trusted: entries must be stored, not compressed, so an
// archive holds no more than its own bytes; checksums are verified; names may not repeat.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "npy_array.h"

namespace hypertape {

/// Arrays with their names (without ".npy"), in the archive's order.
using NamedArrays = std::vector<std::pair<std::string, NpyArray>>;

/// The archive's bytes: the same for the same arrays, without times. Error for a repeated name.
std::string npz_bytes(const NamedArrays& arrays);

/// The arrays in an archive's bytes. `name` stands for the file in messages. Error "[read npz] <name>: what
/// is wrong", or "[read npy] <name>/<entry>: ...".
NamedArrays read_npz(std::string_view bytes, const std::string& name);

}  // namespace hypertape
