#include "gzip_stream.h"

#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include <hypertape/core/error.h>
#include "data_limits.h"

namespace hypertape {

std::size_t read_descriptor(int descriptor, std::span<char> bytes, const std::string& path) {
  constexpr std::size_t most_at_once = std::size_t{1} << 30;
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count =
        ::read(descriptor, bytes.data() + done, std::min(bytes.size() - done, most_at_once));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0)
      fail(load_data, path, ": cannot be read (", std::strerror(errno), "); copy it from its source again");
    if (count == 0) break;
    done += static_cast<std::size_t>(count);
  }
  return done;
}

struct GzipStream::Inflate {
  z_stream stream{};

  Inflate() {
    constexpr int gzip_only = 16, window_bits = 15;
    if (inflateInit2(&stream, window_bits + gzip_only) != Z_OK) throw std::bad_alloc();
  }
  ~Inflate() { inflateEnd(&stream); }
};

GzipStream::GzipStream(int descriptor, std::string path)
    : descriptor_(descriptor), path_(std::move(path)), inflate_(std::make_unique<Inflate>()) {}

GzipStream::~GzipStream() = default;

std::uint64_t GzipStream::position() const { return taken_ - inflate_->stream.avail_in; }

std::string GzipStream::place() const {
  return "byte " + std::to_string(position()) + " (gzip member " + std::to_string(member_) +
         ", which starts at byte " + std::to_string(member_start_) + ")";
}

// False at the end of the file.
bool GzipStream::refill() {
  z_stream& stream = inflate_->stream;
  const std::size_t count = read_descriptor(descriptor_, input_, path_);
  taken_ += count;
  stream.next_in = reinterpret_cast<Bytef*>(input_.data());
  stream.avail_in = static_cast<uInt>(count);
  return count > 0;
}

// Whether there is one. What is no member is seen by its first byte; the second is zlib's to refuse. Zeros,
// the padding of tapes, are refused too: a download that broke off may have left them.
bool GzipStream::begin_next_member() {
  constexpr Bytef first_of_gzip = 0x1f;
  z_stream& stream = inflate_->stream;
  if (stream.avail_in == 0 && !refill()) return false;
  if (*stream.next_in != first_of_gzip) {
    fail(load_data, path_, ": what follows the gzip data, from byte ", position(),
         " on, is not gzip data; the file is damaged or something was appended to it, so fetch it again");
  }
  inflateReset(&stream);
  ++member_;
  member_start_ = position();
  inside_member_ = true;
  return true;
}

std::size_t GzipStream::read(std::span<char> bytes) {
  constexpr std::size_t most_at_once = std::size_t{1} << 30;  // zlib counts in 32 bits
  z_stream& stream = inflate_->stream;
  std::size_t done = 0;
  while (done < bytes.size() && !ended_) {
    if (!inside_member_ && !begin_next_member()) {
      ended_ = true;
      break;
    }
    // Also without input: there may be output left.
    const bool at_end = stream.avail_in == 0 && !refill();
    const std::size_t piece = std::min(bytes.size() - done, most_at_once);
    stream.next_out = reinterpret_cast<Bytef*>(bytes.data() + done);
    stream.avail_out = static_cast<uInt>(piece);
    const int code = inflate(&stream, Z_NO_FLUSH);
    done += piece - stream.avail_out;
    if (code == Z_MEM_ERROR) throw std::bad_alloc();
    if (code == Z_STREAM_END) {
      inside_member_ = false;
    } else if (code == Z_BUF_ERROR && at_end) {
      fail(load_data, path_, ": the compressed data ends early, at ", place(),
           "; the file is truncated, so fetch it again");
    } else if (code != Z_OK && code != Z_BUF_ERROR) {
      fail(load_data, path_, ": the compressed data is damaged near ", place(), "; fetch the file again");
    }
  }
  return done;
}

}  // namespace hypertape
