// Texts are the same whatever the locale of the program around the library.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <locale>
#include <sstream>
#include <string>

#include <hypertape/bilevel/plan.h>
#include <hypertape/core/error.h>
#include "bilevel/run/replay_log.h"
#include "bilevel_problems.h"
#include "option_values.h"
#include "thrown.h"

namespace {

using bilevel_problems::Case;
using hypertape::Dtype;
using hypertape::Shape;
using hypertape::Tensor;

// 1.024,5, as in much of Europe; none such need be installed.
class Grouped : public std::numpunct<char> {
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\3"; }
};

// The global locale, which streams take when they are made.
class ForeignLocale {
 public:
  ForeignLocale() : before_(std::locale::global(std::locale(std::locale::classic(), new Grouped))) {}
  ~ForeignLocale() { std::locale::global(before_); }
  ForeignLocale(const ForeignLocale&) = delete;
  ForeignLocale& operator=(const ForeignLocale&) = delete;

 private:
  std::locale before_;
};

template <class Value>
std::string printed(const Value& value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

Tensor zeros(std::int64_t rows, std::int64_t columns) { return Tensor::full({rows, columns}, 0.0); }

}  // namespace

TEST_CASE("a program's own numbers are written as its locale says: the test sees the difference") {
  const ForeignLocale foreign;
  CHECK(printed(12345.5) == "12.345,5");
}

TEST_CASE("shapes, tensors and errors are printed as in the classic locale") {
  const ForeignLocale foreign;
  CHECK(printed(Shape{1000, 2048}) == "(1000, 2048)");
  CHECK(printed(Tensor::full({2}, 12345.5, Dtype::float64)) == "Tensor(float64, (2), [12345.5, 12345.5])");
  CHECK(printed(Tensor::full({1}, 1234567, Dtype::int64)) == "Tensor(int64, (1), [1234567])");
  CHECK(thrown([] { hypertape::fail("here", 12345, " of ", 1234.5, " in ", Shape{4096}); }) ==
        "[here] 12345 of 1234.5 in (4096)");
  CHECK(
      contains(thrown([] { zeros(1000, 2048).assign(zeros(2048, 1000)); }), "(1000, 2048) and (2048, 1000)"));
}

TEST_CASE("the stream keeps its locale, precision and width") {
  const ForeignLocale foreign;
  std::ostringstream out;
  out.precision(3);
  out << 1234 << ' ' << Tensor::full({1}, 1.23456, Dtype::float64) << ' ';
  out.width(8);
  out << Shape{4096} << ' ' << 1234;
  CHECK(out.str() == "1.234 Tensor(float64, (1), [1.23])   (4096) 1.234");
}

TEST_CASE("results, plans and refused options read the same under both locales") {
  const Case problem = bilevel_problems::Quadratic(1200, bilevel_problems::Rule::momentum).problem();
  hypertape::bilevel::Planner planner(problem.problem, problem.outer, problem.h);
  const auto texts = [&] {
    auto result = problem.by(hypertape::bilevel::Checkpointed{});
    result.cost.seconds = 1.5;  // which differ from run to run
    result.cost.peak_bytes = 1234567;
    return printed(planner.plan({.budget_bytes = 1000})) + printed(planner.plan({})) + printed(result) +
           thrown([] { hypertape::parse_integer("x", 1, 123456); });
  };
  const std::string classic = texts();
  CHECK(contains(classic, "1.5 s, peak 1234567 bytes"));
  CHECK(contains(classic, "to 123456"));
  const ForeignLocale foreign;
  CHECK(texts() == classic);
}

TEST_CASE("the two values of a run that did not replay") {
  const ForeignLocale foreign;
  hypertape::bilevel::detail::ReplayLog log;
  CHECK(log.agrees(0, 1, Tensor::scalar(12345.5, Dtype::float64)));
  CHECK(log.difference(0, Tensor::scalar(0.25, Dtype::float64)) == "12345.5 at first, 0.25 now");
}

TEST_CASE("a NaN has no sign in any text, and infinities keep theirs") {
  const double nan = std::copysign(std::nan(""), -1.0), inf = std::numeric_limits<double>::infinity();
  CHECK(thrown([&] {
          hypertape::fail("f", nan, ' ', static_cast<float>(nan), ' ', static_cast<long double>(nan), ' ',
                          -inf);
        }) == "[f] nan nan nan -inf");
  std::ostringstream text;
  text << Tensor::from({nan, -inf, 1.5});
  CHECK(contains(text.str(), "nan, -inf, 1.5"));
  CHECK_FALSE(contains(text.str(), "-nan"));
  CHECK(thrown([&] { hypertape::optim::sgd({.rate = nan}); }) == "[sgd] rate nan is not finite");
}
