#include "byte_reader.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "data_limits.h"
#include "hypertape/core/error.h"

namespace hypertape {
namespace {

// Deflate never expands by more: 258 bytes from two bits.
constexpr std::uint64_t max_expansion = 1032;

std::uint64_t checked_file_size(const std::string& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    fail(load_data, path, ": no such file; check the path");
  }
  if (error)
    fail(load_data, path, ": cannot be examined (", error.message(), "); check the path and its permissions");
  if (std::filesystem::is_directory(status)) {
    fail(load_data, path, ": is a directory; name the CSV or IDX file in it");
  }
  if (!std::filesystem::is_regular_file(status)) {
    fail(load_data, path, ": is not a regular file; save the data to a file first");
  }
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error) fail(load_data, path, ": cannot be examined (", error.message(), ")");
  if (size == 0) fail(load_data, path, ": is empty; expected CSV or IDX data");
  return size;
}

}  // namespace

struct FileReader::Stream {
  gzFile file = nullptr;
  std::uint64_t size = 0;
  std::uint64_t consumed = 0;  // decompressed bytes handed out
  bool compressed = false;
  std::array<char, 4> ahead{};
  std::size_t ahead_size = 0;

  ~Stream() {
    if (file != nullptr) gzclose_r(file);
  }

  std::size_t read(std::span<char> bytes, const std::string& path) {
    std::size_t done = 0;
    while (done < bytes.size()) {
      // gzread takes an unsigned count and returns an int.
      const std::size_t piece = std::min<std::size_t>(bytes.size() - done, std::size_t{1} << 30);
      const int count = gzread(file, bytes.data() + done, static_cast<unsigned>(piece));
      int code = Z_OK;
      const char* text = gzerror(file, &code);
      if (code == Z_BUF_ERROR) {
        fail(load_data, path, ": the compressed data ends early; the file is truncated, so fetch it again");
      }
      if (count < 0 || (code != Z_OK && code != Z_STREAM_END)) {
        fail(load_data, path, ": cannot be ", compressed ? "decompressed" : "read", " (",
             code == Z_ERRNO ? std::strerror(errno) : text, "); the file is damaged, so fetch it again");
      }
      if (count == 0) break;
      done += static_cast<std::size_t>(count);
    }
    return done;
  }
};

FileReader::FileReader(const std::string& path) : ByteReader(path), stream_(std::make_unique<Stream>()) {
  stream_->size = checked_file_size(path);
  errno = 0;
  stream_->file = gzopen(path.c_str(), "rb");
  if (stream_->file == nullptr) {
    fail(load_data, path, ": cannot be opened (", errno != 0 ? std::strerror(errno) : "out of memory",
         "); check its permissions");
  }
  gzbuffer(stream_->file, 1U << 17);
  // Asking whether the file is compressed makes zlib look at its first bytes.
  stream_->compressed = gzdirect(stream_->file) == 0;
  if (!stream_->compressed && path.ends_with(".gz")) {
    fail(load_data, path,
         ": is named .gz but holds no gzip data; fetch it again, or rename it if it is not compressed");
  }
}

FileReader::~FileReader() = default;

std::size_t FileReader::read(std::span<char> bytes) {
  const std::size_t from_ahead = std::min(bytes.size(), stream_->ahead_size);
  std::copy_n(stream_->ahead.begin(), from_ahead, bytes.begin());
  std::copy(stream_->ahead.begin() + from_ahead, stream_->ahead.begin() + stream_->ahead_size,
            stream_->ahead.begin());
  stream_->ahead_size -= from_ahead;
  const std::size_t count = from_ahead + stream_->read(bytes.subspan(from_ahead), name());
  stream_->consumed += count;
  return count;
}

std::string_view FileReader::peek() {
  Stream& stream = *stream_;
  stream.ahead_size += stream.read(std::span(stream.ahead).subspan(stream.ahead_size), name());
  return {stream.ahead.data(), stream.ahead_size};
}

std::uint64_t FileReader::bytes_left_at_most() const {
  // A file size times the expansion fits: no file system holds 2^53 bytes.
  const std::uint64_t all = stream_->compressed ? stream_->size * max_expansion : stream_->size;
  return all > stream_->consumed ? all - stream_->consumed : 0;
}

std::size_t MemoryReader::read(std::span<char> bytes) {
  const std::size_t count = std::min(bytes.size(), text_.size());
  std::copy_n(text_.begin(), count, bytes.begin());
  text_.remove_prefix(count);
  return count;
}

}  // namespace hypertape
