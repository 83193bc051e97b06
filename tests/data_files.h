// Data files of a test's own, in a folder that is gone at its end, and what reading them is refused with.
#pragma once

#include <doctest/doctest.h>
#include <zlib.h>

#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include <hypertape/core/error.h>
#include "temporary_folder.h"

class DataFolder : public TemporaryFolder {
 public:
  std::string path(std::string_view name) const { return (*this / std::string(name)).string(); }

  std::string write(std::string_view name, std::string_view bytes) const {
    std::ofstream file(path(name), std::ios::binary);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    REQUIRE(file.good());
    return path(name);
  }

  std::string write_gz(std::string_view name, std::string_view bytes) const {
    const gzFile file = gzopen(path(name).c_str(), "wb");
    REQUIRE(file != nullptr);
    if (!bytes.empty()) {
      REQUIRE(gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size())) ==
              static_cast<int>(bytes.size()));
    }
    REQUIRE(gzclose(file) == Z_OK);
    return path(name);
  }
};

/// What Error says, without the folder, which differs from run to run.
template <class Function>
std::string error_of(const DataFolder& folder, Function function) {
  try {
    function();
  } catch (const hypertape::Error& error) {
    CHECK(error.operation() == "load data");
    std::string text = error.what();
    const std::string prefix = folder.path("");
    for (std::size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix, at)) {
      text.erase(at, prefix.size());
    }
    return text;
  }
  return "no error";
}

/// Big-endian header of an IDX file of bytes, and the bytes.
inline std::string idx(std::vector<std::uint32_t> sizes, std::string_view values, char type = 8) {
  std::string bytes = {'\0', '\0', type, static_cast<char>(sizes.size())};
  for (const std::uint32_t size : sizes) {
    for (const int shift : {24, 16, 8, 0}) bytes += static_cast<char>(size >> shift & 0xFF);
  }
  return bytes.append(values);
}

/// Three images of 1x2 and their labels 1, 0, 2.
inline const std::string images_bytes = idx({3, 1, 2}, std::string_view("\0\x33\x66\x99\xCC\xFF", 6));
inline const std::string labels_bytes = idx({3}, std::string_view("\1\0\2", 3));
