// Bytes from a file, compressed or not, or from memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace hypertape {

class ByteReader {
 public:
  virtual ~ByteReader() = default;

  /// The file's name, for errors.
  const std::string& name() const noexcept { return name_; }

  /// Reads up to bytes.size() bytes; fewer only at the end.
  virtual std::size_t read(std::span<char> bytes) = 0;

  /// The bytes that follow, at most 4, without reading them; fewer only at the end.
  virtual std::string_view peek() = 0;

  /// Most bytes that can still follow: exact for plain files, a bound for compressed ones. It is what a size
  /// declared in the file must not exceed before memory is reserved for it.
  virtual std::uint64_t bytes_left_at_most() const = 0;

 protected:
  explicit ByteReader(std::string name) : name_(std::move(name)) {}

 private:
  std::string name_;
};

/// A file; gzip is recognised by its first bytes and decompressed on the way.
class FileReader final : public ByteReader {
 public:
  /// Throws Error where there is no readable regular file or it is empty.
  explicit FileReader(const std::string& path);
  ~FileReader() override;

  /// Throws Error where the compressed data is damaged or ends early.
  std::size_t read(std::span<char> bytes) override;
  std::string_view peek() override;
  std::uint64_t bytes_left_at_most() const override;

 private:
  struct Stream;
  std::unique_ptr<Stream> stream_;
};

/// Text that is in memory already; it must outlive the reader.
class MemoryReader final : public ByteReader {
 public:
  MemoryReader(std::string_view text, std::string name) : ByteReader(std::move(name)), text_(text) {}

  std::size_t read(std::span<char> bytes) override;
  std::string_view peek() override { return text_.substr(0, 4); }
  std::uint64_t bytes_left_at_most() const override { return text_.size(); }

 private:
  std::string_view text_;
};

}  // namespace hypertape
