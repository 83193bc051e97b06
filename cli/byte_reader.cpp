#include "byte_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include <hypertape/core/error.h>
#include "data_limits.h"
#include "gzip_stream.h"

namespace hypertape {
namespace {

// Deflate never expands by more: 258 bytes from two bits.
constexpr std::uint64_t max_expansion = 1032;

// A file that is open while this lives.
class Descriptor {
 public:
  explicit Descriptor(const std::string& path) {
    // Without O_NONBLOCK, opening a pipe would wait for its writer.
    number_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (number_ >= 0) return;
    if (errno == ENOENT || errno == ENOTDIR) fail(load_data, path, ": no such file; check the path");
    fail(load_data, path, ": cannot be opened (", std::strerror(errno), "); check its permissions");
  }
  ~Descriptor() { ::close(number_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator int() const noexcept { return number_; }

 private:
  int number_ = -1;
};

std::uint64_t checked_size(int descriptor, const std::string& path) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0)
    fail(load_data, path, ": cannot be examined (", std::strerror(errno), "); check the path");
  if (S_ISDIR(status.st_mode)) fail(load_data, path, ": is a directory; name the CSV or IDX file in it");
  if (!S_ISREG(status.st_mode))
    fail(load_data, path, ": is not a regular file; save the data to a file first");
  if (status.st_size == 0) fail(load_data, path, ": is empty; expected CSV or IDX data");
  return static_cast<std::uint64_t>(status.st_size);
}

bool begins_with_gzip_magic(int descriptor) {
  char magic[2];
  return ::pread(descriptor, magic, sizeof magic, 0) == sizeof magic && magic[0] == '\x1f' &&
         magic[1] == '\x8b';
}

}  // namespace

struct FileReader::Stream {
  explicit Stream(const std::string& path) : file(path), size(checked_size(file, path)) {
    if (begins_with_gzip_magic(file)) gzip.emplace(file, path);
  }

  std::size_t read(std::span<char> bytes, const std::string& path) {
    return gzip ? gzip->read(bytes) : read_descriptor(file, bytes, path);
  }

  Descriptor file;
  std::uint64_t size;
  std::uint64_t consumed = 0;  // decompressed bytes handed out
  std::optional<GzipStream> gzip;
  std::array<char, 4> ahead{};
  std::size_t ahead_size = 0;
};

FileReader::FileReader(const std::string& path) : ByteReader(path), stream_(std::make_unique<Stream>(path)) {
  if (!stream_->gzip && path.ends_with(".gz")) {
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
  const std::uint64_t all = stream_->gzip ? stream_->size * max_expansion : stream_->size;
  return all > stream_->consumed ? all - stream_->consumed : 0;
}

std::size_t MemoryReader::read(std::span<char> bytes) {
  const std::size_t count = std::min(bytes.size(), text_.size());
  std::copy_n(text_.begin(), count, bytes.begin());
  text_.remove_prefix(count);
  return count;
}

}  // namespace hypertape
