// einsum against loops over all indices in long double, for many random equations; the ladder; errors.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <string>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/memory.h>
#include "ladder.h"
#include "thrown.h"

namespace ht = hypertape;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ladder::elements;
using ladder::expect_consistent;
using ladder::expect_derivatives;
using ladder::sample;

namespace {

Tensor uniform(const Shape& shape, std::uint64_t seed = 1) { return sample(shape, -2, 2, seed); }

// An equation as the names of all axes. Axes behind "..." are called '0' for the last, '1' for the one
// before.
struct Equation {
  std::string text;
  std::vector<std::string> operands;
  std::string output;
};

std::string written(const std::string& axes) {
  std::string text;
  for (const char axis : axes) {
    if (!std::isdigit(static_cast<unsigned char>(axis)))
      text += axis;
    else if (text.find('.') == std::string::npos)
      text += "...";
  }
  return text;
}

// Loops over every value of every index; nothing of einsum's own is used.
void expect_loops(const Equation& equation, const TensorList& operands) {
  INFO(equation.text);
  std::map<char, std::int64_t> extents;
  for (std::size_t i = 0; i < operands.size(); ++i)
    for (std::size_t axis = 0; axis < equation.operands[i].size(); ++axis) {
      auto& extent = extents[equation.operands[i][axis]];
      extent = std::max(extent, operands[i].extent(static_cast<std::int64_t>(axis)));
      if (operands[i].size() == 0 && operands[i].extent(static_cast<std::int64_t>(axis)) == 0) extent = 0;
    }
  std::vector<std::vector<double>> values;
  for (const Tensor& operand : operands) values.push_back(elements(operand));
  std::vector<std::int64_t> shape;
  std::int64_t size = 1, all = 1;
  for (const char axis : equation.output) {
    shape.push_back(extents[axis]);
    size *= extents[axis];
  }
  for (const auto& [axis, extent] : extents) all *= extent;
  std::vector<long double> sums(static_cast<std::size_t>(size)), terms(sums.size());
  for (std::int64_t n = 0; n < all; ++n) {
    std::map<char, std::int64_t> index;
    std::int64_t rest = n;
    for (const auto& [axis, extent] : extents) {
      index[axis] = rest % extent;
      rest /= extent;
    }
    long double term = 1;
    for (std::size_t i = 0; i < operands.size(); ++i) {
      std::int64_t place = 0;
      for (std::size_t axis = 0; axis < equation.operands[i].size(); ++axis) {
        const std::int64_t extent = operands[i].extent(static_cast<std::int64_t>(axis));
        place = place * extent + (extent == 1 ? 0 : index[equation.operands[i][axis]]);
      }
      term *= values[i][static_cast<std::size_t>(place)];
    }
    std::int64_t target = 0;
    for (const char axis : equation.output) target = target * extents[axis] + index[axis];
    sums[static_cast<std::size_t>(target)] += term;
    terms[static_cast<std::size_t>(target)] += std::abs(term);
  }
  const Tensor got = ht::einsum(equation.text, operands);
  REQUIRE(got.shape() == Shape(std::span<const std::int64_t>(shape)));
  const std::vector<double> results = elements(got);
  for (std::size_t i = 0; i < results.size(); ++i) CHECK(std::abs(results[i] - sums[i]) <= 1e-14L * terms[i]);
}

// One to four operands over a few letters, with repeats, dots and any output.
struct Random {
  std::mt19937_64 engine;

  std::int64_t below(std::int64_t limit) {
    return static_cast<std::int64_t>(engine() % static_cast<std::uint64_t>(limit));
  }

  std::pair<Equation, TensorList> next() {
    Equation equation;
    TensorList operands;
    std::map<char, std::int64_t> extents;
    for (const char letter : std::string("abcDE01")) extents[letter] = 1 + below(3);
    const std::string letters = "abcDE";
    const std::int64_t count = 1 + below(4);
    const bool dots = below(3) == 0;
    std::map<char, int> occurrences;
    int dots_rank = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      std::string axes;
      for (std::int64_t k = below(4); k > 0; --k) axes += letters[static_cast<std::size_t>(below(5))];
      for (const char axis : axes) ++occurrences[axis];
      if (dots && below(2) == 0) {
        const int rank = static_cast<int>(below(3));
        dots_rank = std::max(dots_rank, rank);
        const std::string behind = rank == 2 ? "10" : rank == 1 ? "0" : "";
        axes.insert(static_cast<std::size_t>(below(static_cast<std::int64_t>(axes.size()) + 1)), behind);
      }
      std::vector<std::int64_t> shape;
      for (const char axis : axes)
        shape.push_back(std::isdigit(static_cast<unsigned char>(axis)) && below(2) == 0 ? 1 : extents[axis]);
      equation.operands.push_back(axes);
      operands.push_back(uniform(Shape(std::span<const std::int64_t>(shape)), engine()));
      equation.text += (i ? "," : "") + written(axes);
    }
    const std::string behind = dots_rank == 2 ? "10" : dots_rank == 1 ? "0" : "";
    if (below(3) == 0) {
      equation.output = behind;
      for (const auto& [letter, times] : occurrences)
        if (times == 1) equation.output += letter;
    } else {
      for (const auto& [letter, times] : occurrences)
        if (below(2) == 0) equation.output += letter;
      std::shuffle(equation.output.begin(), equation.output.end(), engine);
      equation.output.insert(
          static_cast<std::size_t>(below(static_cast<std::int64_t>(equation.output.size()) + 1)), behind);
      equation.text += "->" + written(equation.output);
    }
    return {equation, operands};
  }
};

ladder::Function einsum_of(const std::string& text) {
  return [text](const TensorList& x) { return TensorList{ht::einsum(text, x)}; };
}

}  // namespace

TEST_CASE("einsum of 1500 random equations agrees with loops") {
  Random random{std::mt19937_64(99)};
  int summed = 0, repeated = 0, dotted = 0;
  for (int i = 0; i < 1500; ++i) {
    const auto [equation, operands] = random.next();
    expect_loops(equation, operands);
    std::set<char> names;
    for (const std::string& axes : equation.operands) {
      names.insert(axes.begin(), axes.end());
      repeated += std::set<char>(axes.begin(), axes.end()).size() < axes.size();
    }
    summed += names.size() > equation.output.size();
    dotted += equation.text.find('.') != std::string::npos;
  }
  // The generator covers what it should.
  CHECK((summed > 300 && repeated > 100 && dotted > 200));
}

TEST_CASE("derivatives of random equations, at every order") {
  Random random{std::mt19937_64(7)};
  for (int i = 0; i < 60; ++i) {
    const auto [equation, operands] = random.next();
    expect_derivatives("einsum " + equation.text, einsum_of(equation.text), operands,
                       {.max_order = i % 3 == 0 ? 3 : 2, .float32 = i % 2 == 0});
  }
}

TEST_CASE("einsum: the usual equations") {
  const Equation equations[] = {
      {"ij,jk->ik", {"ij", "jk"}, "ik"},
      {"ij,kj", {"ij", "kj"}, "ik"},
      {"ji,jk", {"ji", "jk"}, "ik"},
      {"i,i", {"i", "i"}, ""},
      {"i,j->ij", {"i", "j"}, "ij"},
      {"i,j->ji", {"i", "j"}, "ji"},
      {"ij,ij->ij", {"ij", "ij"}, "ij"},
      {"ij,i->ij", {"ij", "i"}, "ij"},
      {"ij,ij->i", {"ij", "ij"}, "i"},
      {"ij->ji", {"ij"}, "ji"},
      {"ij->", {"ij"}, ""},
      {"ij->j", {"ij"}, "j"},
      {"ii", {"ii"}, ""},
      {"ii->i", {"ii"}, "i"},
      {"iii->i", {"iii"}, "i"},
      {"iijj->ji", {"iijj"}, "ji"},
      {"bij,bjk->bik", {"bij", "bjk"}, "bik"},
      {"bij,kj->bki", {"bij", "kj"}, "bki"},
      {"bhqd,bhkd->bhqk", {"bhqd", "bhkd"}, "bhqk"},
      {"bqhd,bkhd->bhqk", {"bqhd", "bkhd"}, "bhqk"},
      {"abij,ibja->", {"abij", "ibja"}, ""},
      {"i,ij,j->", {"i", "ij", "j"}, ""},
      {"ij,jk,kl,lm->im", {"ij", "jk", "kl", "lm"}, "im"},
      {"i,i,i->i", {"i", "i", "i"}, "i"},
      {"i,i,i", {"i", "i", "i"}, ""},
      {" i j , j ->  i ", {"ij", "j"}, "i"},
      {"...ij,...jk->...ik", {"10ij", "0jk"}, "10ik"},
      {"...i->i...", {"10i"}, "i10"},
      {"...", {"10"}, "10"},
      {",i", {"", "i"}, "i"},
      {"->", {""}, ""},
      {"zA,Ab", {"zA", "Ab"}, "bz"},
  };
  const std::map<char, std::int64_t> extents{{'i', 2}, {'j', 3}, {'k', 4}, {'b', 2}, {'h', 3},
                                             {'q', 2}, {'d', 4}, {'a', 3}, {'l', 2}, {'m', 3},
                                             {'z', 2}, {'A', 3}, {'0', 2}, {'1', 3}};
  for (const Equation& equation : equations) {
    TensorList operands;
    for (const std::string& axes : equation.operands) {
      std::vector<std::int64_t> shape;
      for (const char axis : axes) shape.push_back(extents.at(axis));
      operands.push_back(uniform(Shape(std::span<const std::int64_t>(shape)), 10 + operands.size()));
    }
    // The evaluator orders implicit outputs as given here: letters sorted, capitals first.
    expect_loops(equation, operands);
    expect_derivatives("einsum " + equation.text, einsum_of(equation.text), operands);
  }
}

TEST_CASE("einsum: one tensor several times, views, nothing, and agreement with its kin") {
  const Tensor a = uniform({3, 3}), b = uniform({2, 3, 3}, 2), v = uniform({3}, 3);
  for (const char* text : {"ij,jk->ik", "ij,ij->", "ij,kj->ik", "ij,ji->ij", "ii,jj->"})
    expect_derivatives(std::string("twice ") + text,
                       [&](const TensorList& x) {
                         return TensorList{ht::einsum(text, {x[0], x[0]})};
                       },
                       {a});
  expect_derivatives("three times",
                     [](const TensorList& x) {
                       return TensorList{ht::einsum("ij,jk,ki->", {x[0], x[0], x[0]})};
                     },
                     {a});
  expect_derivatives(
      "of transposed, reversed and broadcast views",
      [](const TensorList& x) {
        return TensorList{ht::einsum(
            "bij,bkj->kbi", {ht::permute(x[0], {0, 2, 1}), ht::expand(ht::flip(x[1], {1}), {2, 3, 3})})};
      },
      {b, a});
  CHECK(ladder::same_bits(ht::einsum("ij,jk", {a, a}), ht::matmul(a, a)));
  CHECK(ladder::same_bits(ht::einsum("bij,bjk->bik", {b, b}), ht::matmul(b, b)));
  CHECK(ladder::same_bits(ht::einsum("ij,j", {a, v}), ht::matmul(a, v)));
  CHECK(ht::einsum("ij,jk", {Tensor::zeros({2, 0}), Tensor::zeros({0, 3})}).shape() == Shape{2, 3});
  CHECK(elements(ht::einsum("i,i", {Tensor::zeros({0}), Tensor::zeros({0})})) == std::vector<double>{0});
  expect_derivatives("with an empty index", einsum_of("ij,jk->ik"),
                     {Tensor::zeros({2, 0}), Tensor::zeros({0, 3})});
  expect_consistent("larger", einsum_of("bqhd,bkhd->bhqk"),
                    {uniform({3, 20, 4, 16}), uniform({3, 24, 4, 16}, 2)}, {.max_order = 1});
}

TEST_CASE("einsum copies no operand whose axes can be read where they are") {
  const Tensor q = uniform({4, 30, 3, 16}), k = uniform({4, 30, 3, 16}, 2), m = uniform({90, 64}, 3);
  const std::pair<const char*, TensorList> cases[] = {
      {"bqhd,bkhd->bhqk", {q, k}}, {"bqhd,bkhd->bkhq", {q, k}}, {"bqhd,bqhe->bhde", {q, k}},
      {"bqhd,bqhe->de", {q, k}},   {"ji,jk->ik", {m, m}},       {"ij,kj->ki", {m, m}}};
  for (const auto& each : cases) {
    const auto& [text, operands] = each;
    INFO(each.first);
    const std::int64_t bytes = ht::einsum(text, operands).size() * 8;
    const ht::PeakScope scope;
    const Tensor result = ht::einsum(text, operands);
    // Size classes, headers, and the thread's share of what is not told at once.
    CHECK(scope.peak_bytes() < bytes * 9 / 8 + 8192);
  }
}

TEST_CASE("einsum says what is wrong with an equation or its operands") {
  const Tensor a = uniform({2, 3}), b = uniform({4, 5}), c = uniform({3, 4});
  const auto expect = [](const char* text, const TensorList& operands, const char* part) {
    const std::string message = thrown([&] { ht::einsum(text, operands); });
    expect_text(message, "[einsum]");
    expect_text(message, part);
  };
  expect("ik,kj", {a, b}, "index 'k' has extent 3 in operand 0 but 4 in operand 1");
  expect("ii", {a}, "index 'i' has extent 2 in operand 0 but 3 in operand 0");
  expect("...i,...j", {a, b}, "index '...' has extent 2 in operand 0 but 4 in operand 1");
  expect("ij,jk", {a}, "has 2 operands, but 1 were given");
  expect("ij", {}, "has 1 operands, but 0 were given");
  expect("ijk", {a}, "\"ijk\" names 3 axes, but operand 0 of shape (2, 3) has 2");
  expect("i", {a}, "names 1 axes, but operand 0 of shape (2, 3) has 2");
  expect("...ijk", {a}, "besides \"...\"");
  expect("ij->k", {a}, "names 'k', which no operand has");
  expect("ij->ii", {a}, "'i' twice");
  expect("i1", {a}, "\"1\"");
  expect("i..j", {a}, "\".\"");
  expect("...i...", {a}, "stands twice");
  expect("ij-k", {a}, "\"-\"");
  expect("ij->i->j", {a}, "\"-\"");
  expect("...i->i", {a}, "write \"...\" there too");
  expect("ij,jk", {a, Tensor()}, "absent");
  expect("ij,jk", {a, ht::astype(c, ht::Dtype::float32)}, "dtypes differ");
  expect("ij", {Tensor::from<std::int64_t>({1, 2}, {1, 2})}, "int64");
  const Tensor wide = Tensor::ones({1, 1, 1, 1, 1});
  expect("abcde,fghij,aj", {wide, wide, Tensor::ones({1, 1})}, "above the highest rank, 8");
}
