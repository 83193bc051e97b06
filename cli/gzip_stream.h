// Gzip data (RFC 1952) from a file descriptor, decompressed piece by piece.
//
// A gzip file is one member or several, one after another. Each member's checksum and length are verified
// before the end is reported, and nothing may follow the last one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace hypertape {

/// Reads until `bytes` is full or the file ends. Throws Error naming `path`.
std::size_t read_descriptor(int descriptor, std::span<char> bytes, const std::string& path);

class GzipStream {
 public:
  /// The descriptor, which stays the caller's, is at the file's start; `path` is for errors.
  GzipStream(int descriptor, std::string path);
  ~GzipStream();

  /// Fewer bytes than asked for only at the end. Throws Error where data is damaged, ends early, or is
  /// followed by something else, with the place: the byte of the file and the member.
  std::size_t read(std::span<char> bytes);

 private:
  struct Inflate;
  bool refill();
  bool begin_next_member();
  std::uint64_t position() const;
  std::string place() const;

  int descriptor_;
  std::string path_;
  std::unique_ptr<Inflate> inflate_;
  std::vector<char> input_ = std::vector<char>(1 << 16);
  std::uint64_t taken_ = 0;  // bytes read from the file
  std::uint64_t member_start_ = 0;
  std::int64_t member_ = 1;
  bool inside_member_ = true;
  bool ended_ = false;
};

}  // namespace hypertape
