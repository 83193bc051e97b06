// Lists of tensors with names, short and long.
#include "hypertape/core/named_tensors.h"

#include <doctest/doctest.h>

#include <cstddef>
#include <string>

#include "hypertape/core/error.h"

namespace ht = hypertape;
using ht::Tensor;

TEST_CASE("named tensors find each of many names, keep their order and do not share what one of them adds") {
  ht::NamedTensors many;
  constexpr int count = 5000;
  const auto name = [](int i) { return "weight_" + std::to_string(7 * i); };
  for (int i = 0; i < count; ++i) {
    many.add(name(i), Tensor::scalar(static_cast<double>(i)));
    if (i == 14 || i == 15 || i == 16 || i == 40)  // around the number from which on there is a table
      for (int j = 0; j <= i; ++j) CHECK(many.find(name(j)) == static_cast<std::size_t>(j));
  }
  bool right = true;
  for (int i = 0; i < count; ++i)
    right = right && many.find(name(i)) == static_cast<std::size_t>(i) && many[name(i)].item() == i &&
            many.names()[static_cast<std::size_t>(i)] == name(i);
  CHECK(right);
  CHECK(many.find("weight_1") == many.size());
  CHECK_THROWS_AS(many.add(name(4321), Tensor::scalar(0.0)), ht::Error);
  CHECK(many.size() == count);
  ht::NamedTensors more = many;
  more.add("more", Tensor::scalar(1.0));
  CHECK(more.find("more") == count);
  CHECK_FALSE(many.contains("more"));
  many.add("other", Tensor::scalar(2.0));
  CHECK_FALSE(more.contains("other"));
  CHECK(many["other"].item() == 2.0);
  CHECK(more["more"].item() == 1.0);
}
