#include "npy_array.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <limits>
#include <optional>

#include <hypertape/core/error.h>

namespace hypertape {
namespace {

constexpr char operation[] = "read npy";
constexpr std::string_view magic("\x93NUMPY", 6);
constexpr std::size_t most_axes = 32;  // as NumPy

struct ElementType {
  std::string_view descr;
  std::size_t bytes;
  NpyArray::Values (*empty)(std::size_t count);
};

template <class T>
NpyArray::Values zeros(std::size_t count) {
  return std::vector<T>(count);
}

// In the order of NpyArray::Values.
constexpr ElementType element_types[] = {{"<f8", 8, zeros<double>},
                                         {"<f4", 4, zeros<float>},
                                         {"<i8", 8, zeros<std::int64_t>},
                                         {"|u1", 1, zeros<std::uint8_t>}};

// Between the host's order of bytes and the file's.
template <class T>
void swap_if_big_endian(std::vector<T>& values) {
  if constexpr (std::endian::native == std::endian::big) {
    for (T& value : values) {
      auto* first = reinterpret_cast<unsigned char*>(&value);
      std::reverse(first, first + sizeof(T));
    }
  }
}

// Absent if the number does not fit.
std::optional<std::size_t> element_count(const std::vector<std::int64_t>& shape) {
  std::size_t count = 1;
  for (const std::int64_t extent : shape) {
    if (extent < 0) return std::nullopt;
    if (__builtin_mul_overflow(count, static_cast<std::size_t>(extent), &count)) return std::nullopt;
  }
  return count;
}

std::string header_text(std::string_view descr, const std::vector<std::int64_t>& shape) {
  std::string text = "{'descr': '" + std::string(descr) + "', 'fortran_order': False, 'shape': (";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",), }" : "), }");
}

// The Python dictionary that a header is: three keys, each once, in any order.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  struct Header {
    std::optional<std::string> descr;
    std::optional<bool> fortran_order;
    std::optional<std::vector<std::int64_t>> shape;
  };

  Header parse() {
    Header header;
    expect('{');
    while (!accept('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr" && !header.descr)
        header.descr = quoted();
      else if (key == "fortran_order" && !header.fortran_order)
        header.fortran_order = boolean();
      else if (key == "shape" && !header.shape)
        header.shape = tuple();
      else
        refuse("an unknown or repeated key");
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_spaces();
    if (at_ != text_.size()) refuse("text after the dictionary");
    if (!header.descr || !header.fortran_order || !header.shape) refuse("no descr, fortran_order or shape");
    return header;
  }

 private:
  [[noreturn]] void refuse(const char* what) const {
    fail(operation, name_, ": the header is not that of an array: ", what, " at its character ", at_);
  }
  void skip_spaces() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool accept(char c) {
    skip_spaces();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) refuse("a dictionary ends early or is malformed");
  }
  std::string quoted() {
    skip_spaces();
    const char quote = at_ < text_.size() ? text_[at_] : '\0';
    if (quote != '\'' && quote != '"') refuse("no quoted text");
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == text_.npos) refuse("a quoted text without end");
    std::string found(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return found;
  }
  bool boolean() {
    skip_spaces();
    for (const std::string_view word : {"True", "False"}) {
      if (text_.substr(at_, word.size()) != word) continue;
      at_ += word.size();
      return word == "True";
    }
    refuse("neither True nor False");
  }
  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> extents;
    expect('(');
    while (!accept(')')) {
      skip_spaces();
      std::int64_t extent = 0;
      const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), extent);
      if (error != std::errc() || extent < 0 || extents.size() == most_axes) refuse("no extent");
      at_ = static_cast<std::size_t>(end - text_.data());
      extents.push_back(extent);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return extents;
  }

  std::string_view text_;
  const std::string& name_;
  std::size_t at_ = 0;
};

std::uint32_t little_endian(std::string_view bytes) {
  std::uint32_t number = 0;
  for (std::size_t i = bytes.size(); i-- > 0;)
    number = number << 8 | static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[i]));
  return number;
}

// Text for a message, whatever the bytes are.
std::string printable(std::string_view text) {
  std::string shown(text.substr(0, 40));
  std::replace_if(
      shown.begin(), shown.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return shown;
}

}  // namespace

std::string npy_bytes(const NpyArray& array) {
  const ElementType& type = element_types[array.values.index()];
  const std::optional<std::size_t> count = element_count(array.shape);
  const std::size_t held = std::visit([](const auto& values) { return values.size(); }, array.values);
  if (count != held) fail("write npy", "the shape asks for other than the ", held, " values there are");
  std::string header = header_text(type.descr, array.shape);
  constexpr std::size_t alignment = 64, before_header = 10;
  header.append(alignment - 1 - (before_header + header.size()) % alignment, ' ');
  header += '\n';
  if (header.size() > std::numeric_limits<std::uint16_t>::max())
    fail("write npy", "a shape of ", array.shape.size(), " axes does not fit the header");
  std::string bytes(magic);
  bytes += {'\1', '\0', static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  bytes += header;
  std::visit(
      [&](auto values) {
        swap_if_big_endian(values);
        bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * type.bytes);
      },
      array.values);
  return bytes;
}

NpyArray read_npy(std::string_view bytes, const std::string& name) {
  if (!bytes.starts_with(magic) || bytes.size() < magic.size() + 2)
    fail(operation, name, ": not a .npy file: it does not begin with NumPy's magic");
  const int major = static_cast<unsigned char>(bytes[magic.size()]);
  if (major < 1 || major > 3)
    fail(operation, name, ": version ", major, " of the format is unknown; 1, 2 and 3 can be read");
  const std::size_t length_bytes = major == 1 ? 2 : 4;
  const std::size_t header_start = magic.size() + 2 + length_bytes;
  if (bytes.size() < header_start) fail(operation, name, ": the file ends inside the header");
  const std::size_t length = little_endian(bytes.substr(magic.size() + 2, length_bytes));
  if (bytes.size() - header_start < length) fail(operation, name, ": the file ends inside the header");
  const auto header = HeaderParser(bytes.substr(header_start, length), name).parse();

  const auto* const type = std::find_if(std::begin(element_types), std::end(element_types),
                                        [&](const ElementType& each) { return each.descr == *header.descr; });
  if (type == std::end(element_types))
    fail(operation, name, ": elements are '", printable(*header.descr),
         "'; '<f8', '<f4', '<i8' and '|u1' can be read");
  const std::optional<std::size_t> count = element_count(*header.shape);
  const std::string_view data = bytes.substr(header_start + length);
  if (!count || data.size() % type->bytes != 0 || *count != data.size() / type->bytes)
    fail(operation, name, ": the shape asks for other than the ", data.size(),
         " bytes of elements there are");
  // One axis or fewer elements than two: both orders are the same.
  if (*header.fortran_order && header.shape->size() > 1 && *count > 1)
    fail(operation, name, ": elements are in Fortran's order; save the array in C order");
  NpyArray array{*header.shape, type->empty(*count)};
  std::visit(
      [&](auto& values) {
        if (!values.empty()) std::memcpy(values.data(), data.data(), data.size());
        swap_if_big_endian(values);
      },
      array.values);
  return array;
}

}  // namespace hypertape
