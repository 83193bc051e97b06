// What each piece of work is made of, the same as in problem.py: numbers from an integer hash of (seed,
// index), so that all systems get the same bits without files. Standard library only.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace peers {

inline constexpr double momentum = 58982.0 / 65536.0;
inline constexpr double rate = 0.01;  // of the single training step
inline constexpr std::int64_t batches = 5;
inline constexpr std::int64_t checkpoints = 25;
inline constexpr std::int64_t neumann_terms = 20;
inline constexpr double neumann_rate = 0.1;
inline constexpr double l2 = 1e-4;
inline constexpr double run_rate = 0.01;  // at 0.1, 1,000 steps are chaotic: no two systems agree
inline constexpr const char* run_net = "784-50-50-50-10/tanh/200";

using Extents = std::vector<std::int64_t>;

inline std::int64_t size_of(const Extents& shape) {
  std::int64_t size = 1;
  for (const std::int64_t extent : shape) size *= extent;
  return size;
}

// splitmix64 (Steele, Lea and Flood 2014), in [0, 1).
inline double uniform_at(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t z = ((seed << 32) + index) * 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1p-53;
}

inline std::vector<double> uniform(std::uint64_t seed, std::int64_t count, double low = 0.0,
                                   double high = 1.0) {
  std::vector<double> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = low + (high - low) * uniform_at(seed, i);
  return values;
}

inline std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts{""};
  for (const char c : text)
    if (c == separator)
      parts.emplace_back();
    else
      parts.back() += c;
  return parts;
}

inline Extents numbers(const std::string& text, char separator) {
  Extents result;
  for (const std::string& part : split(text, separator)) result.push_back(std::stoll(part));
  return result;
}

struct Array {
  std::vector<double> values;
  Extents shape;
};

// "784-50-10/tanh/200"
struct Net {
  Extents sizes;
  bool relu = false;
  std::int64_t batch = 0;

  explicit Net(const std::string& text) {
    const std::vector<std::string> parts = split(text, '/');
    if (parts.size() < 3) throw std::invalid_argument("not a net: " + text);
    sizes = numbers(parts[0], '-');
    relu = parts[1] == "relu";
    batch = std::stoll(parts[2]);
  }
  // Of weight_1, bias_1, weight_2, ...
  std::vector<Extents> shapes() const {
    std::vector<Extents> result;
    for (std::size_t l = 0; l + 1 < sizes.size(); ++l) {
      result.push_back({sizes[l], sizes[l + 1]});
      result.push_back({sizes[l + 1]});
    }
    return result;
  }
  std::vector<Array> weights() const {
    std::vector<Array> result;
    for (const Extents& shape : shapes()) {
      const std::uint64_t seed = 10 + result.size();
      const double bound = shape.size() == 2 ? std::sqrt(3.0 / static_cast<double>(shape[0])) : 0.0;
      result.push_back({uniform(seed, size_of(shape), -bound, bound), shape});
    }
    return result;
  }
  // Something shaped like the weights.
  std::vector<Array> direction() const {
    std::vector<Array> result;
    for (const Extents& shape : shapes()) {
      const std::uint64_t seed = 40 + result.size();
      result.push_back({uniform(seed, size_of(shape), -1.0, 1.0), shape});
    }
    return result;
  }
  Array rows(std::int64_t count_of_batches = 1) const {
    const std::int64_t count = count_of_batches * batch;
    return {uniform(1, count * sizes[0], 0.0, 0.1), {count, sizes[0]}};
  }
  std::vector<std::int64_t> labels(std::int64_t count_of_batches = 1) const {
    std::vector<std::int64_t> result(static_cast<std::size_t>(count_of_batches * batch));
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = static_cast<std::int64_t>(i * 7 % 10);
    return result;
  }
  std::int64_t parameter_count() const {
    std::int64_t count = 0;
    for (const Extents& shape : shapes()) count += size_of(shape);
    return count;
  }
};

// "matmul/200x784x50/nt", or "matmul/64x64x64/nn/16" for a batch of 16.
struct Product {
  std::int64_t m, k, n, batch = 0;
  bool transpose_a, transpose_b;

  explicit Product(const std::string& work) {
    const std::vector<std::string> parts = split(work, '/');
    const Extents extents = numbers(parts.at(1), 'x');
    m = extents.at(0), k = extents.at(1), n = extents.at(2);
    transpose_a = parts.at(2).at(0) == 't';
    transpose_b = parts.at(2).at(1) == 't';
    if (parts.size() > 3) batch = std::stoll(parts[3]);
  }
  Array a() const { return factor(1, transpose_a ? Extents{k, m} : Extents{m, k}); }
  Array b() const { return factor(2, transpose_b ? Extents{n, k} : Extents{k, n}); }

 private:
  Array factor(std::uint64_t seed, Extents shape) const {
    if (batch > 0) shape.insert(shape.begin(), batch);
    return {uniform(seed, size_of(shape), -1.0, 1.0), shape};
  }
};

// "op/tanh/10000": two matrices and a row.
struct Operands {
  std::string name;
  Array a, b, row;

  explicit Operands(const std::string& work) {
    const std::vector<std::string> parts = split(work, '/');
    name = parts.at(1);
    const std::int64_t size = std::stoll(parts.at(2)), columns = size < 1000 ? size / 10 : 100;
    a = {uniform(1, size, -1.0, 1.0), {size / columns, columns}};
    b = {uniform(2, size, -1.0, 1.0), {size / columns, columns}};
    row = {uniform(3, columns, -1.0, 1.0), {columns}};
  }

  /// Of each row, the one of `count` that it is gathered from or added to.
  std::vector<std::int64_t> shuffled(std::int64_t count) const {
    std::vector<std::int64_t> rows(static_cast<std::size_t>(a.shape[0]));
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int64_t>(i) * 7919 % count;
    return rows;
  }
};

}  // namespace peers
