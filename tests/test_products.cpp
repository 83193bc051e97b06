// ctest labels: kernels levels
//
// Matrix products against a loop in a wider type, and the promises about their bits.
#include "core/cpu/products/product.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <hypertape/core/parallel.h>
#include "core/cpu/isa/features.h"
#include "core/cpu/products/blas.h"

using namespace hypertape;
using std::int64_t;

namespace {

template <class T>
struct Problem {
  bool transpose_a = false, transpose_b = false;
  int64_t m = 1, n = 1, k = 1;
  int64_t pad_a = 0, pad_b = 0, pad_c = 0;  // leading dimension beyond the row
  bool accumulate = false;
  std::vector<T> a{}, b{}, c{};

  int64_t lda() const { return (transpose_a ? m : k) + pad_a; }
  int64_t ldb() const { return (transpose_b ? k : n) + pad_b; }
  int64_t ldc() const { return n + pad_c; }
  T a_at(int64_t i, int64_t p) const { return a[index(transpose_a ? p * lda() + i : i * lda() + p)]; }
  T b_at(int64_t p, int64_t j) const { return b[index(transpose_b ? j * ldb() + p : p * ldb() + j)]; }
  static std::size_t index(int64_t i) { return static_cast<std::size_t>(i); }

  // No element beyond the last row's end, so that the address sanitizer sees reads past it.
  void fill(std::mt19937_64& random) {
    std::uniform_real_distribution<T> uniform(T{-1}, T{1});
    const auto make = [&](std::vector<T>& x, int64_t rows, int64_t columns, int64_t stride) {
      x.resize(rows > 0 && columns > 0 ? index((rows - 1) * stride + columns) : 0);
      for (T& value : x) value = uniform(random);
    };
    make(a, transpose_a ? k : m, transpose_a ? m : k, lda());
    make(b, transpose_b ? n : k, transpose_b ? k : n, ldb());
    make(c, m, n, ldc());
  }

  std::vector<T> result(int threads) const {
    const int before = thread_count();
    set_thread_count(threads);
    std::vector<T> out = c;
    detail::product<T>(transpose_a, transpose_b, m, n, k, a.data(), lda(), b.data(), ldb(), out.data(), ldc(),
                       accumulate);
    set_thread_count(before);
    return out;
  }
};

template <class T>
bool same_bits(const std::vector<T>& x, const std::vector<T>& y) {
  return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(T)) == 0);
}

// Errors in units of sum |terms| times sqrt(k) eps; memory between the rows must be untouched.
template <class T>
void check(const Problem<T>& problem) {
  CAPTURE(problem.transpose_a);
  CAPTURE(problem.transpose_b);
  CAPTURE(problem.m);
  CAPTURE(problem.n);
  CAPTURE(problem.k);
  CAPTURE(problem.accumulate);
  const std::vector<T> got = problem.result(1);
  REQUIRE(same_bits(got, problem.result(available_cpus())));
  // Wide enough, and no more: an emulator takes long for long double.
  using Wide = std::conditional_t<sizeof(T) == 4, double, long double>;
  const Wide unit = Wide{0.5} * std::numeric_limits<T>::epsilon() * (4 + 2 * std::sqrt(Wide(problem.k)));
  for (int64_t at = 0; at < static_cast<int64_t>(got.size()); ++at) {
    const int64_t i = at / problem.ldc();
    const int64_t j = at % problem.ldc();
    const T value = got[problem.index(at)];
    const T before = problem.c[problem.index(at)];
    if (j >= problem.n) {
      REQUIRE(value == before);
      continue;
    }
    Wide sum = problem.accumulate ? before : T{0};
    Wide magnitude = std::fabs(sum);
    for (int64_t p = 0; p < problem.k; ++p) {
      const Wide term = static_cast<Wide>(problem.a_at(i, p)) * problem.b_at(p, j);
      sum += term;
      magnitude += std::fabs(term);
    }
    if (!(std::fabs(value - sum) <= unit * magnitude)) {
      FAIL("element (", i, ", ", j, "): ", value, " instead of ", static_cast<T>(sum));
    }
  }
}

template <class T>
Problem<T> random_problem(std::mt19937_64& random, int64_t most, int64_t most_k) {
  const auto up_to = [&](int64_t limit) {
    return static_cast<int64_t>(random() % static_cast<std::uint64_t>(limit + 1));
  };
  Problem<T> problem;
  problem.transpose_a = up_to(1) != 0;
  problem.transpose_b = up_to(1) != 0;
  problem.m = 1 + up_to(most - 1);
  problem.n = 1 + up_to(most - 1);
  problem.k = up_to(most_k);
  problem.pad_a = up_to(3);
  problem.pad_b = up_to(3);
  problem.pad_c = up_to(3);
  problem.accumulate = up_to(1) != 0;
  problem.fill(random);
  return problem;
}

bool own_kernels() { return detail::product_kernels_reason().starts_with("own"); }

}  // namespace

TEST_CASE_TEMPLATE("products of small random shapes agree with wider sums", T, float, double) {
  std::mt19937_64 random(20240501);
  for (int i = 0; i < 1500; ++i) check(random_problem<T>(random, 40, 40));
}

TEST_CASE_TEMPLATE("products of larger random shapes, several blocks of k, agree with wider sums", T, float,
                   double) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 12; ++i) check(random_problem<T>(random, 250, 1300));
}

TEST_CASE_TEMPLATE("long, flat and power-of-two strided shapes agree with wider sums", T, float, double) {
  struct Shape {
    int64_t m, n, k;
  };
  std::mt19937_64 random(3);
  for (const Shape shape : {Shape{1, 700, 300}, Shape{700, 1, 300}, Shape{1, 1, 5000}, Shape{3, 5, 2500},
                            Shape{600, 600, 2}, Shape{1, 5000, 20}, Shape{5000, 3, 20}, Shape{200, 50, 784},
                            Shape{30, 512, 512}, Shape{512, 30, 512}}) {
    for (int flags = 0; flags < 8; ++flags) {
      Problem<T> problem;
      problem.transpose_a = (flags & 1) != 0;
      problem.transpose_b = (flags & 2) != 0;
      problem.accumulate = (flags & 4) != 0;
      problem.m = shape.m;
      problem.n = shape.n;
      problem.k = shape.k;
      problem.fill(random);
      check(problem);
    }
  }
}

TEST_CASE_TEMPLATE("products with few rows or columns agree with wider sums", T, float, double) {
  std::mt19937_64 random(17);
  for (const int64_t few : {1, 2, 3, 4, 5, 8, 9}) {
    for (const int64_t many : {1, 7, 8, 16, 17, 33, 100}) {
      for (const int64_t k : {1, 3, 8, 15, 16, 17, 31, 100, 513, 1030}) {
        for (int flags = 0; flags < 16; ++flags) {
          Problem<T> problem;
          problem.transpose_a = (flags & 1) != 0;
          problem.transpose_b = (flags & 2) != 0;
          problem.accumulate = (flags & 4) != 0;
          problem.m = (flags & 8) != 0 ? few : many;
          problem.n = (flags & 8) != 0 ? many : few;
          problem.k = k;
          problem.pad_a = k % 3;
          problem.pad_b = few % 3;
          problem.pad_c = many % 2;
          problem.fill(random);
          check(problem);
        }
      }
    }
  }
}

TEST_CASE_TEMPLATE("a few columns more than whole vectors agree with wider sums", T, float, double) {
  std::mt19937_64 random(19);
  for (const int64_t n : {9, 17, 18, 19, 20, 33, 50, 51, 65}) {
    for (const int64_t k : {4, 15, 16, 50, 77, 784}) {
      for (int flags = 0; flags < 8; ++flags) {
        Problem<T> problem;
        problem.transpose_a = (flags & 1) != 0;
        problem.transpose_b = (flags & 2) != 0;
        problem.accumulate = (flags & 4) != 0;
        problem.m = 60 + n;
        problem.n = n;
        problem.k = k;
        problem.pad_a = problem.pad_c = k % 2;
        problem.fill(random);
        check(problem);
      }
    }
  }
}

// One strip of copied rows against blocks of columns, and slabs of k behind one another.
TEST_CASE_TEMPLATE("copied rows of one strip, and k of several slabs, agree with wider sums", T, float,
                   double) {
  std::mt19937_64 random(29);
  const auto page = static_cast<int64_t>(4096 / sizeof(T));
  struct Shape {
    int64_t m, n, k;
  };
  for (const Shape shape : {Shape{60, 400, page}, Shape{3, 5, 2500}, Shape{100, 20, 2100}}) {
    for (const bool accumulate : {false, true}) {
      Problem<T> problem;
      problem.accumulate = accumulate;
      problem.m = shape.m;
      problem.n = shape.n;
      problem.k = shape.k;
      problem.fill(random);
      check(problem);
    }
  }
}

// Strides of whole pages are where operands are copied; others are read where they are, and one strip of rows
// packs panel by panel.
TEST_CASE_TEMPLATE("strides of whole pages and rows of one strip or several agree with wider sums", T, float,
                   double) {
  std::mt19937_64 random(23);
  const auto page = static_cast<int64_t>(4096 / sizeof(T));
  for (const int64_t rows : {15, 60, 140, 141, 300}) {
    for (const int64_t stride : {page / 4, page, 2 * page}) {
      for (int flags = 0; flags < 8; ++flags) {
        Problem<T> problem;
        problem.transpose_a = (flags & 1) != 0;
        problem.transpose_b = (flags & 2) != 0;
        problem.accumulate = (flags & 4) != 0;
        problem.m = rows;
        problem.n = 130;
        problem.k = 90;
        problem.pad_a = std::max<int64_t>(0, stride - problem.lda());
        problem.pad_b = std::max<int64_t>(0, stride - problem.ldb());
        problem.fill(random);
        check(problem);
      }
    }
  }
}

TEST_CASE("k = 0 gives zeros, or leaves c as it is when accumulating; empty results touch nothing") {
  std::vector<double> c{1, 2, 3, 4};
  detail::product<double>(false, false, 2, 1, 0, nullptr, 1, nullptr, 1, c.data(), 2, true);
  CHECK(c == std::vector<double>{1, 2, 3, 4});
  detail::product<double>(false, false, 2, 1, 0, nullptr, 1, nullptr, 1, c.data(), 2, false);
  CHECK(c == std::vector<double>{0, 2, 0, 4});
  detail::product<double>(false, false, 0, 1, 3, nullptr, 3, nullptr, 1, c.data(), 1, false);
  CHECK(c == std::vector<double>{0, 2, 0, 4});
}

TEST_CASE("NaN and infinity reach the elements they belong to and no others") {
  Problem<double> problem;
  problem.m = 33;
  problem.n = 21;
  problem.k = 17;
  std::mt19937_64 random(5);
  problem.fill(random);
  problem.a[4 * 17 + 3] = std::numeric_limits<double>::quiet_NaN();
  problem.b[2 * 21 + 20] = std::numeric_limits<double>::infinity();
  const std::vector<double> got = problem.result(1);
  for (int64_t i = 0; i < 33; ++i) {
    for (int64_t j = 0; j < 21; ++j) {
      REQUIRE(std::isnan(got[problem.index(i * 21 + j)]) == (i == 4));
      if (i != 4) REQUIRE(std::isinf(got[problem.index(i * 21 + j)]) == (j == 20));
    }
  }
}

TEST_CASE_TEMPLATE("NaN and infinity do not spread within a matrix times a vector", T, float, double) {
  for (const int64_t n : {1, 3}) {
    Problem<T> problem;
    problem.m = 45;
    problem.n = n;
    problem.k = 27;
    std::mt19937_64 random(6);
    problem.fill(random);
    // Of the last row copies may be read in place of rows that do not exist, of the last indices twice.
    problem.a[44 * 27 + 20] = std::numeric_limits<T>::quiet_NaN();
    problem.a[3 * 27 + 26] = std::numeric_limits<T>::infinity();
    const std::vector<T> got = problem.result(1);
    for (int64_t i = 0; i < problem.m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        REQUIRE(std::isnan(got[problem.index(i * n + j)]) == (i == 44));
        REQUIRE(std::isinf(got[problem.index(i * n + j)]) == (i == 3));
      }
    }
  }
}

TEST_CASE_TEMPLATE("bits do not depend on alignment or leading dimensions", T, float, double) {
  std::mt19937_64 random(11);
  Problem<T> plain;
  plain.m = 61;
  plain.n = 75;
  plain.k = 130;
  plain.fill(random);
  const std::vector<T> expected = plain.result(1);
  for (int64_t shift = 1; shift < 9; ++shift) {
    Problem<T> moved = plain;
    moved.pad_a = shift;
    moved.pad_b = 2 * shift;
    moved.fill(random);
    for (int64_t i = 0; i < moved.m; ++i) {
      for (int64_t p = 0; p < moved.k; ++p) moved.a[moved.index(i * moved.lda() + p)] = plain.a_at(i, p);
    }
    for (int64_t p = 0; p < moved.k; ++p) {
      for (int64_t j = 0; j < moved.n; ++j) moved.b[moved.index(p * moved.ldb() + j)] = plain.b_at(p, j);
    }
    moved.a.insert(moved.a.begin(), static_cast<std::size_t>(shift), T{0});
    std::vector<T> got(expected.size());
    detail::product<T>(false, false, moved.m, moved.n, moved.k, moved.a.data() + shift, moved.lda(),
                       moved.b.data(), moved.ldb(), got.data(), moved.n, false);
    REQUIRE(same_bits(got, expected));
  }
}

TEST_CASE_TEMPLATE("with own kernels an element depends on its row, its column and k alone", T, float,
                   double) {
  if (!own_kernels()) return;
  std::mt19937_64 random(13);
  for (const int64_t k : {5, 50, 784}) {
    Problem<T> whole;
    whole.m = 200;
    whole.n = 50;
    whole.k = k;
    whole.fill(random);
    const std::vector<T> expected = whole.result(available_cpus());

    Problem<T> transposed;  // c' = b' a', from the same memory
    transposed.transpose_a = transposed.transpose_b = true;
    transposed.m = 50;
    transposed.n = 200;
    transposed.k = k;
    transposed.a = whole.b;
    transposed.b = whole.a;
    transposed.c.resize(expected.size());
    const std::vector<T> other = transposed.result(1);
    int64_t differing = 0;
    for (int64_t i = 0; i < 200; ++i) {
      for (int64_t j = 0; j < 50; ++j) {
        differing += other[whole.index(j * 200 + i)] != expected[whole.index(i * 50 + j)];
      }
    }
    CHECK(differing == 0);

    for (const int64_t row : {0, 7, 199}) {
      std::vector<T> one(50);
      detail::product<T>(false, false, 1, 50, k, whole.a.data() + row * k, k, whole.b.data(), 50, one.data(),
                         50, false);
      CHECK(std::memcmp(one.data(), expected.data() + row * 50, 50 * sizeof(T)) == 0);
    }
  }
}

// Columns and rows alone are matrices times vectors, which have kernels of their own, as have the columns
// behind the last whole vector.
TEST_CASE_TEMPLATE("with own kernels a column or a row alone has the bits it has among others", T, float,
                   double) {
  if (!own_kernels()) return;
  std::mt19937_64 random(29);
  for (const int64_t k : {16, 50, 784, 1030}) {
    for (const int64_t n : {7, 34, 50}) {
      Problem<T> whole;
      whole.m = 80;
      whole.n = n;
      whole.k = k;
      whole.fill(random);
      const std::vector<T> expected = whole.result(available_cpus());
      int64_t differing = 0;
      for (int64_t j = 0; j < n; ++j) {
        std::vector<T> column(80);
        detail::product<T>(false, false, 80, 1, k, whole.a.data(), k, whole.b.data() + j, n, column.data(), 1,
                           false);
        for (int64_t i = 0; i < 80; ++i)
          differing += column[whole.index(i)] != expected[whole.index(i * n + j)];
      }
      CHECK(differing == 0);
      std::vector<T> turned(whole.b.size());  // b', so that rows meet a matrix read along k
      for (int64_t p = 0; p < k; ++p) {
        for (int64_t j = 0; j < n; ++j) turned[whole.index(j * k + p)] = whole.b_at(p, j);
      }
      for (int64_t i = 0; i < 80; ++i) {
        std::vector<T> row(static_cast<std::size_t>(n));
        detail::product<T>(false, true, 1, n, k, whole.a.data() + i * k, k, turned.data(), k, row.data(), n,
                           false);
        for (int64_t j = 0; j < n; ++j) differing += row[whole.index(j)] != expected[whole.index(i * n + j)];
      }
      CHECK(differing == 0);
    }
  }
}

TEST_CASE_TEMPLATE("with own kernels accumulating adds the product's sum to what was there", T, float,
                   double) {
  if (!own_kernels()) return;
  std::mt19937_64 random(31);
  struct Shape {
    int64_t m, n, k;
  };
  for (const Shape shape : {Shape{40, 1, 33}, Shape{1, 40, 33}, Shape{100, 50, 60}, Shape{50, 100, 60},
                            Shape{150, 34, 512}, Shape{300, 8, 20}, Shape{9, 9, 9}}) {
    for (int flags = 0; flags < 4; ++flags) {
      Problem<T> problem;
      problem.transpose_a = (flags & 1) != 0;
      problem.transpose_b = (flags & 2) != 0;
      problem.m = shape.m;
      problem.n = shape.n;
      problem.k = shape.k;
      problem.fill(random);
      std::vector<T> expected = problem.result(1);
      for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = problem.c[i] + expected[i];
      problem.accumulate = true;
      CHECK(same_bits(problem.result(available_cpus()), expected));
    }
  }
}

TEST_CASE_TEMPLATE("a batch has the bits of its products one by one, whatever kernels they take", T, float,
                   double) {
  struct Shape {
    int64_t m, n, k;
  };
  std::mt19937_64 random(37);
  std::uniform_real_distribution<T> uniform(T{-1}, T{1});
  const auto size = [](int64_t n) { return static_cast<std::size_t>(n); };
  for (const Shape shape : {Shape{40, 1, 33}, Shape{1, 40, 33}, Shape{2, 70, 700}, Shape{80, 50, 40},
                            Shape{64, 64, 64}, Shape{160, 20, 30}, Shape{6, 5, 7}}) {
    for (int flags = 0; flags < 16; ++flags) {
      const bool ta = (flags & 1) != 0, tb = (flags & 2) != 0, accumulate = (flags & 8) != 0;
      const int64_t count = 5;
      const int64_t step_a = shape.m * shape.k + 3;
      const int64_t step_b = (flags & 4) != 0 ? 0 : shape.k * shape.n + 1;
      std::vector<T> a(size(count * step_a)), b(size(count * (shape.k * shape.n + 1)));
      std::vector<T> c(size(count * shape.m * shape.n));
      for (std::vector<T>* x : {&a, &b, &c}) {
        for (T& value : *x) value = uniform(random);
      }
      const int64_t lda = ta ? shape.m : shape.k, ldb = tb ? shape.k : shape.n;
      std::vector<T> expected = c;
      for (int64_t slice = 0; slice < count; ++slice) {
        detail::product<T>(ta, tb, shape.m, shape.n, shape.k, a.data() + slice * step_a, lda,
                           b.data() + slice * step_b, ldb, expected.data() + slice * shape.m * shape.n,
                           shape.n, accumulate);
      }
      detail::ProductBatch batch;
      batch.add_axis(count, step_a, step_b);
      const int before = thread_count();
      for (const int threads : {1, available_cpus()}) {
        set_thread_count(threads);
        std::vector<T> got = c;
        detail::product_batch<T>(batch, ta, tb, shape.m, shape.n, shape.k, a.data(), lda, b.data(), ldb,
                                 got.data(), accumulate);
        CHECK(same_bits(got, expected));
      }
      set_thread_count(before);
    }
  }
}
