// ctest labels: threads kernels levels
//
// The vector kernels by themselves, on the level in use: errors in ulp, loop tails and their neighbours in
// memory, the order of sums against an order written down here, AVX2 against AVX-512.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/parallel.h>
#include "core/cpu/isa/features.h"
#include "core/cpu/isa/loops.h"
#include "core/elementwise/codes.h"
#include "ladder.h"
#include "naive.h"
#include "ulp.h"

#if defined(__x86_64__)
namespace hypertape::detail {
namespace avx2 {
const OpKernels* elementwise_table() noexcept;
const Loops<float>& loops_float32() noexcept;
const Loops<double>& loops_float64() noexcept;
const SoftmaxLoops<float>& softmax_loops_float32() noexcept;
const SoftmaxLoops<double>& softmax_loops_float64() noexcept;
}  // namespace avx2
namespace avx512 {
const OpKernels* elementwise_table() noexcept;
const Loops<float>& loops_float32() noexcept;
const Loops<double>& loops_float64() noexcept;
const SoftmaxLoops<float>& softmax_loops_float32() noexcept;
const SoftmaxLoops<double>& softmax_loops_float64() noexcept;
}  // namespace avx512
}  // namespace hypertape::detail
#endif

namespace ht = hypertape;
using ht::Shape;
using ht::Tensor;
using hypertape::detail::ElementwiseCode;
using hypertape::detail::ElementwiseKernels;
using ladder::elements;
using namespace ulp;

namespace {

template <class T>
void run(const ElementwiseKernels& kernel, std::int64_t n, std::vector<const T*> inputs,
         std::vector<T*> outputs) {
  std::vector<const void*> in(inputs.begin(), inputs.end());
  std::vector<void*> out(outputs.begin(), outputs.end());
  (sizeof(T) == 4 ? kernel.float32 : kernel.float64)(n, in.data(), out.data(), 0.7);
}

// NaNs count as equal: their payload depends on which operand an addition reads first.
template <class T>
bool alike(T a, T b) {
  return same_bits(a, b) || (std::isnan(a) && std::isnan(b));
}

const ElementwiseKernels& value_of(ElementwiseCode code) {
  return ht::detail::elementwise_kernels(code).value;
}

template <class T>
double worst_of(ElementwiseCode code, const std::vector<T>& x, long double (*reference)(long double)) {
  std::vector<T> y(x.size());
  run<T>(value_of(code), static_cast<std::int64_t>(x.size()), {x.data()}, {y.data()});
  double worst = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i)
    worst = std::max(worst, ulp_error(y[i], reference(static_cast<long double>(x[i]))));
  return worst;
}

long double logarithm(long double x) { return x < 0.0L ? std::nanl("") : std::log(x); }
long double logistic(long double x) { return 1.0L / (1.0L + std::exp(-x)); }

template <class T>
std::vector<T> sample(std::size_t count, double low = -2, double high = 2, unsigned seed = 1) {
  std::mt19937_64 generator(seed);
  std::uniform_real_distribution<double> uniform(low, high);
  std::vector<T> values(count);
  for (T& value : values) value = static_cast<T>(uniform(generator));
  return values;
}

// The order of additions as loops.h promises it, one by one.
template <class T>
T sum_in_order(const std::vector<T>& terms) {
  const std::size_t sets = 16 / sizeof(T), block = 16 * sets;
  std::vector<T> lane(block, T(0));
  std::size_t i = 0;
  for (; i + block <= terms.size(); i += block)
    for (std::size_t l = 0; l < block; ++l) lane[l] += terms[i + l];
  for (std::size_t width = block / 2; width >= 16; width /= 2)
    for (std::size_t l = 0; l < width; ++l) lane[l] += lane[l + width];
  for (std::size_t l = 0; i < terms.size(); ++i, l = (l + 1) % 16) lane[l] += terms[i];
  for (std::size_t width = 8; width > 0; width /= 2)
    for (std::size_t l = 0; l < width; ++l) lane[l] += lane[l + width];
  return lane[0];
}

}  // namespace

TEST_CASE_TEMPLATE("this level's exp, log, tanh and sigmoid: errors in ulp, NaN and infinities", T, float,
                   double) {
  const double end = sizeof(T) == 8 ? 750.0 : 106.0;
  for (const double width : {end, 20.0, 1.0}) {
    CAPTURE(width);
    const std::vector<T> x = test_points<T>(-width, width);
    CHECK(worst_of<T>(ElementwiseCode::exp, x, [](long double v) { return std::exp(v); }) <= 0.92);
    CHECK(worst_of<T>(ElementwiseCode::tanh, x, [](long double v) { return std::tanh(v); }) <= 1.45);
    CHECK(worst_of<T>(ElementwiseCode::sigmoid, x, logistic) <= 2.4);
    CHECK(worst_of<T>(ElementwiseCode::log, test_points<T>(0.0, width), logarithm) <= 0.9);
  }
}

TEST_CASE_TEMPLATE(
    "a kernel's tail, alignment and dual have the bits of its body, and nothing beyond is written", T, float,
    double) {
  for (const ElementwiseCode code :
       {ElementwiseCode::exp, ElementwiseCode::log, ElementwiseCode::tanh, ElementwiseCode::sigmoid}) {
    const ht::detail::OpKernels& kernels = ht::detail::elementwise_kernels(code);
    std::vector<T> x = sample<T>(80, -8, 8);
    x[3] = std::numeric_limits<T>::quiet_NaN();
    x[20] = -infinity<T>;
    x[21] = infinity<T>;
    x[37] = T(-1000);
    std::vector<T> whole(x.size()), dual(x.size()), tangent(x.size());
    const std::vector<T> ones(x.size(), T(1));
    run<T>(kernels.value, 80, {x.data()}, {whole.data()});
    run<T>(kernels.dual[1], 80, {x.data(), ones.data()}, {dual.data(), tangent.data()});
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(alike(whole[i], dual[i]));
    for (std::size_t first = 0; first < 5; ++first)
      for (std::size_t n = 0; n <= 40; ++n) {
        std::vector<T> y = x;  // in place
        run<T>(kernels.value, static_cast<std::int64_t>(n), {y.data() + first}, {y.data() + first});
        for (std::size_t i = 0; i < y.size(); ++i)
          REQUIRE(alike(y[i], i >= first && i < first + n ? whole[i] : x[i]));
      }
  }
}

TEST_CASE_TEMPLATE("sums and dot products add in the order that is written down", T, float, double) {
  const ht::detail::Loops<T>& loops = ht::detail::loops<T>();
  for (std::size_t n = 0; n < 300; n += n < 150 ? 1 : 13) {
    const std::vector<T> a = sample<T>(n), b = sample<T>(n, -2, 2, 2);
    std::vector<T> products(n);
    for (std::size_t i = 0; i < n; ++i) products[i] = a[i] * b[i];
    const auto count = static_cast<std::int64_t>(n);
    REQUIRE(same_bits(loops.sum(count, a.data()), sum_in_order(a)));
    REQUIRE(same_bits(loops.dot(count, a.data(), b.data()), sum_in_order(products)));
  }
  // Widths around one vector, and around as many as a level keeps in registers: 14 of 2 to 16 elements.
  const std::size_t step = 240;
  const std::vector<T> rows = sample<T>(37 * step);
  for (const std::int64_t n :
       {1, 2, 3, 4, 7, 8, 15, 16, 17, 28, 29, 33, 50, 56, 57, 100, 112, 113, 223, 224, 225, 240}) {
    std::vector<T> sums(74, T(7)), totals(step, T(0.5));
    loops.sum_rows(37, 240, n, rows.data(), sums.data(), 2);
    for (std::size_t i = 0; i < 37; ++i) {
      REQUIRE(same_bits(sums[2 * i], loops.sum(n, rows.data() + step * i)));
      REQUIRE(sums[2 * i + 1] == T(7));
    }
    loops.accumulate_rows(37, 240, n, rows.data(), totals.data());
    for (std::size_t j = 0; j < step; ++j) {
      T expected = T(0.5);
      for (std::size_t i = 0; i < 37 && j < static_cast<std::size_t>(n); ++i) expected += rows[step * i + j];
      REQUIRE(same_bits(totals[j], expected));
    }
  }
}

TEST_CASE_TEMPLATE("turned blocks, in the caches and past them: every size around squares and lines", T,
                   float, double) {
  const ht::detail::Loops<T>& loops = ht::detail::loops<T>();
  constexpr std::int64_t source_step = 70, target_step = 160, height = 37;
  const std::vector<T> source = sample<T>(source_step * target_step);
  struct alignas(64) Line {
    T elements[64 / sizeof(T)];
  };
  for (const std::int64_t rows : {1, 3, 4, 7, 8, 9, 15, 16, 17, 33, 36})
    for (const std::int64_t columns : {1, 4, 7, 8, 15, 16, 17, 24, 31, 32, 33, 64, 65, 127, 128, 129, 150})
      for (const auto turn : {loops.transpose, loops.transpose_past_caches}) {
        std::vector<Line> lines(height * target_step * sizeof(T) / 64);
        T* const target = lines.data()->elements;
        std::fill_n(target, height * target_step, T(7));
        turn(rows, columns, source.data(), source_step, target, target_step);
        bool equal = true;
        for (std::int64_t i = 0; i < height; ++i)
          for (std::int64_t j = 0; j < target_step; ++j)
            equal &= target[i * target_step + j] ==
                     (i < rows && j < columns ? source[static_cast<std::size_t>(i + j * source_step)] : T(7));
        CAPTURE(rows);
        CAPTURE(columns);
        REQUIRE(equal);
      }
}

TEST_CASE_TEMPLATE("extremes: the first of equals, a NaN before every number, wherever they stand", T, float,
                   double) {
  const ht::detail::Loops<T>& loops = ht::detail::loops<T>();
  const auto first_of = [](bool largest, std::int64_t n, std::int64_t step, const T* x) {
    std::int64_t at = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const T element = x[i * step], best = x[at * step];
      if (std::isnan(best)) break;
      if (std::isnan(element) || (largest ? element > best : element < best)) at = i;
    }
    return at;
  };
  const auto expect_first = [&](const std::vector<T>& x) {
    const auto n = static_cast<std::int64_t>(x.size());
    for (const bool largest : {true, false}) {
      const std::int64_t first = first_of(largest, n, 1, x.data());
      REQUIRE(loops.extreme(largest, n, x.data()) == first);
      T found[3] = {T(9), T(9), T(9)};
      loops.extremes(largest, 2, 0, n, x.data(), found, 2);  // one row twice
      REQUIRE(alike(found[0], x[static_cast<std::size_t>(first)]));
      REQUIRE(alike(found[2], x[static_cast<std::size_t>(first)]));
      REQUIRE(found[1] == T(9));
    }
  };
  const T infinity = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  for (std::size_t n = 1; n <= 70; ++n) {
    // Few numbers, so that each occurs several times; then something special at each place.
    std::vector<T> x = sample<T>(n, -3, 3, static_cast<unsigned>(n));
    for (T& element : x) element = std::round(element);
    expect_first(x);
    for (const T special : {infinity, -infinity, nan, T(-0.0)})
      for (std::size_t i = 0; i < n; ++i) {
        std::vector<T> y = x;
        y[i] = special;
        expect_first(y);
        y[n - 1 - i / 2] = nan;
        expect_first(y);
      }
    expect_first(std::vector<T>(n, -infinity));
    expect_first(std::vector<T>(n, infinity));
    expect_first(std::vector<T>(n, nan));
  }
  constexpr std::int64_t step = 130, length = 21;
  std::vector<T> x = sample<T>(step * length, -3, 3);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = i % 97 == 5 ? nan : std::round(x[i]);
  for (const std::int64_t lines : {1, 2, 7, 16, 31, 100, 127, 128})
    for (const std::int64_t n : {1, 2, 5, 21})
      for (const bool largest : {true, false}) {
        std::vector<T> best(130, T(9));
        std::vector<std::int64_t> places(130, -1);
        loops.extremes_across(largest, lines, n, step, x.data(), best.data(), places.data());
        for (std::int64_t j = 0; j < 130; ++j) {
          const auto k = static_cast<std::size_t>(j);
          const std::int64_t place = first_of(largest, n, step, x.data() + j);
          REQUIRE(places[k] == (j < lines ? place : -1));
          REQUIRE(alike(best[k], j < lines ? x[static_cast<std::size_t>(place * step + j)] : T(9)));
        }
      }
}

TEST_CASE("max and min have the same bits whether their places are kept or not") {
  for (const ht::Dtype dtype : {ht::Dtype::float32, ht::Dtype::float64}) {
    auto numbers = elements(ht::round(ladder::sample({90, 37}, -1.4, 1.4, 3)));
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      if (numbers[i] == 0.0 && i % 3 == 0) numbers[i] = -0.0;
      if (i % 37 < 12) numbers[i] = std::abs(numbers[i]) * (i % 2 == 0 ? -0.0 : 0.0);  // ties of zeros
      if (i % 701 == 5) numbers[i] = std::nan("");
    }
    const Tensor x = ht::astype(Tensor::from(numbers, {90, 37}), dtype);
    for (const std::vector<std::int64_t>& axes : {std::vector<std::int64_t>{0}, {1}, {0, 1}})
      for (const Tensor& operand : {x, ht::transpose(x), ht::slice(x, 1, 3, 11)})
        for (const bool largest : {true, false}) {
          const auto f = [&](const Tensor& z) { return largest ? ht::max(z, axes) : ht::min(z, axes); };
          const auto plain = elements(f(operand)), kept = elements(ht::jvp(f, operand, operand).first);
          REQUIRE(plain.size() == kept.size());
          for (std::size_t i = 0; i < plain.size(); ++i) REQUIRE(alike(plain[i], kept[i]));
        }
  }
}

#if defined(__x86_64__)
TEST_CASE_TEMPLATE("AVX2 and AVX-512 give the same bits", T, float, double) {
  namespace detail = ht::detail;
  if (detail::hardware_isa() != detail::Isa::avx512) return;
  std::vector<T> x = test_points<T>(-10.0, 10.0);
  const std::vector<T> other = sample<T>(x.size(), -3, 3), third = sample<T>(x.size(), -3, 3, 3);
  std::vector<T> a(x.size()), b(x.size());
  for (std::size_t code = 0; code < static_cast<std::size_t>(ElementwiseCode::count); ++code) {
    CAPTURE(code);
    const auto n = static_cast<std::int64_t>(x.size());
    run<T>(detail::avx2::elementwise_table()[code].value, n, {x.data(), other.data(), third.data()},
           {a.data()});
    run<T>(detail::avx512::elementwise_table()[code].value, n, {x.data(), other.data(), third.data()},
           {b.data()});
    for (std::size_t i = 0; i < x.size(); ++i) REQUIRE(alike(a[i], b[i]));
  }
  const auto tables = [](auto& single, auto& twice) -> auto& {
    if constexpr (sizeof(T) == 4)
      return single;
    else
      return twice;
  };
  const detail::Loops<T>& narrow = tables(detail::avx2::loops_float32(), detail::avx2::loops_float64());
  const detail::Loops<T>& broad = tables(detail::avx512::loops_float32(), detail::avx512::loops_float64());
  const detail::SoftmaxLoops<T>& narrow_rows =
      tables(detail::avx2::softmax_loops_float32(), detail::avx2::softmax_loops_float64());
  const detail::SoftmaxLoops<T>& broad_rows =
      tables(detail::avx512::softmax_loops_float32(), detail::avx512::softmax_loops_float64());
  for (const std::int64_t n : {1, 10, 16, 17, 100, 300}) {
    REQUIRE(same_bits(narrow.sum(n, other.data()), broad.sum(n, other.data())));
    REQUIRE(same_bits(narrow.dot(n, other.data(), third.data()), broad.dot(n, other.data(), third.data())));
    std::vector<T> u(static_cast<std::size_t>(3 * n)), v(u);
    narrow_rows.softmax(3, n, other.data(), u.data());
    broad_rows.softmax(3, n, other.data(), v.data());
    REQUIRE(std::equal(u.begin(), u.end(), v.begin(), same_bits<T>));
    narrow_rows.log_softmax(3, n, other.data(), u.data());
    broad_rows.log_softmax(3, n, other.data(), v.data());
    REQUIRE(std::equal(u.begin(), u.end(), v.begin(), same_bits<T>));
  }
}
#endif

TEST_CASE("softmax along a leading axis has the bits of the same lines as rows") {
  const auto expect_same = [](const Tensor& a, const Tensor& b) {
    const auto x = elements(a), y = elements(b);
    REQUIRE(x.size() == y.size());
    for (std::size_t i = 0; i < x.size(); ++i)
      REQUIRE((same_bits(x[i], y[i]) || (std::isnan(x[i]) && std::isnan(y[i]))));
  };
  for (const ht::Dtype dtype : {ht::Dtype::float32, ht::Dtype::float64})
    for (const std::int64_t n : {1, 3, 15, 16, 17, 31, 33, 64, 70, 131})
      for (const std::int64_t lines : {8, 16, 19, 37, 150}) {
        CAPTURE(n);
        CAPTURE(lines);
        auto numbers =
            elements(ladder::sample({2, n, lines}, -30, 30, static_cast<std::uint64_t>(n + lines)));
        numbers[1] = std::nan("");
        numbers[4] = std::numeric_limits<double>::infinity();
        for (std::int64_t i = 0; i < n; ++i)
          numbers[static_cast<std::size_t>(i * lines + 6)] = -std::numeric_limits<double>::infinity();
        const Tensor x = ht::astype(Tensor::from(numbers, {2, n, lines}), dtype);
        const Tensor t = ht::astype(ladder::sample({2, n, lines}, -2, 2, 7), dtype);
        // As rows: the axis brought last in memory too, so that no line lies across.
        const auto turned = [](const Tensor& z) { return ht::contiguous(ht::permute(z, {0, 2, 1})); };
        for (const bool logarithm : {false, true}) {
          const auto along = [logarithm](int axis) {
            return
                [=](const Tensor& z) { return logarithm ? ht::log_softmax(z, axis) : ht::softmax(z, axis); };
          };
          expect_same(turned(along(1)(x)), along(2)(turned(x)));
          const auto [value, pushed] = ht::jvp(along(1), x, t);
          const auto [row_value, row_pushed] = ht::jvp(along(2), turned(x), turned(t));
          expect_same(turned(pushed), row_pushed);
          const auto pulled = [&](int axis, const Tensor& z, const Tensor& s) {
            return ht::grad([&](const Tensor& w) { return ht::dot(along(axis)(w), s); }, z);
          };
          expect_same(turned(pulled(1, x, t)), pulled(2, turned(x), turned(t)));
        }
      }
}

TEST_CASE(
    "softmax of rows of every length: values, NaN and infinite rows, the same bits along any number of "
    "rows") {
  for (const bool logarithm : {false, true})
    for (std::int64_t n = 1; n <= 70; ++n) {
      CAPTURE(n);
      const Tensor x = ladder::sample({5, n}, -30, 30, static_cast<std::uint64_t>(n));
      const auto apply = [&](const Tensor& z) { return logarithm ? ht::log_softmax(z) : ht::softmax(z); };
      const auto z = elements(x), y = elements(apply(x));
      for (std::size_t i = 0; i < 5; ++i) {
        const auto row = static_cast<std::size_t>(n);
        long double total = 0;
        for (std::size_t j = 0; j < row; ++j) total += std::exp(static_cast<long double>(z[i * row + j]));
        for (std::size_t j = 0; j < row; ++j) {
          const long double l = z[i * row + j] - std::log(total);
          if (logarithm)
            REQUIRE(std::abs(y[i * row + j] - l) <= 1e-14L * std::max(30.0L, std::abs(l)));
          else
            REQUIRE(std::abs(y[i * row + j] - std::exp(l)) <= 1e-14L * std::exp(l));
        }
        const auto alone =
            elements(apply(ht::slice(x, 0, static_cast<std::int64_t>(i), static_cast<std::int64_t>(i) + 1)));
        for (std::size_t j = 0; j < row; ++j) REQUIRE(same_bits(alone[j], y[i * row + j]));
      }
      for (std::int64_t at = 0; at < n; ++at)
        for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
          auto spoilt = z;
          spoilt[static_cast<std::size_t>(n + at)] = bad;
          const auto got = elements(apply(Tensor::from(spoilt, {5, n})));
          REQUIRE(std::isnan(got[static_cast<std::size_t>(n + at)]));
          for (std::size_t k = 0; k < got.size(); ++k)
            if (k / static_cast<std::size_t>(n) != 1) REQUIRE(same_bits(got[k], y[k]));
          if (std::isnan(bad))
            for (std::size_t k = 0; k < static_cast<std::size_t>(n); ++k)
              REQUIRE(std::isnan(got[static_cast<std::size_t>(n) + k]));
        }
    }
}

TEST_CASE("the cross entropy's gradient and Hessian product for every number of classes") {
  for (std::int64_t n = 1; n <= 40; ++n) {
    CAPTURE(n);
    const std::int64_t rows = 3;
    const auto count = static_cast<std::size_t>(n);
    const Tensor x = ladder::sample({rows, n}, -3, 3, 5), s = ladder::sample({rows, n}, -1, 1, 6);
    const Tensor labels = Tensor::from(std::vector<std::int64_t>{n - 1, 0, n / 2}, {rows});
    const auto loss = [&](const Tensor& z) { return ht::softmax_cross_entropy(z, labels); };
    const auto gradient = elements(ht::grad(loss, x)), product = elements(ht::hvp(loss, x, s));
    const auto z = elements(x), t = elements(s);
    const std::size_t marked[] = {count - 1, 0, count / 2};
    for (std::size_t i = 0; i < 3; ++i) {
      long double total = 0, mean = 0;
      for (std::size_t j = 0; j < count; ++j) total += std::exp(static_cast<long double>(z[i * count + j]));
      const auto p = [&](std::size_t j) {
        return std::exp(static_cast<long double>(z[i * count + j])) / total;
      };
      for (std::size_t j = 0; j < count; ++j) mean += p(j) * t[i * count + j];
      for (std::size_t j = 0; j < count; ++j) {
        REQUIRE(std::abs(gradient[i * count + j] - (p(j) - (j == marked[i] ? 1.0L : 0.0L)) / 3.0L) <= 1e-15L);
        REQUIRE(std::abs(product[i * count + j] - p(j) * (t[i * count + j] - mean) / 3.0L) <= 1e-15L);
      }
    }
  }
}
