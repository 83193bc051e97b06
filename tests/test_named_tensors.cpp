// Lists of tensors with names, short and long.
#include <hypertape/core/named_tensors.h>

#include <doctest/doctest.h>

#include <cstddef>
#include <string>

#include <hypertape/core/error.h>
#include "thrown.h"

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

TEST_CASE("a missing name is told from the nearest few of many, and from all of some") {
  ht::NamedTensors few, many;
  CHECK(thrown([&] { few["a"]; }) == "[named_tensors] there is no 'a'; there are no names");
  for (int i = 0; i < 10; ++i) few.add("w" + std::to_string(i), ht::Tensor::scalar(0.0));
  CHECK(thrown([&] { few["w"]; }) ==
        "[named_tensors] there is no 'w'; the names are: w0, w1, w2, w3, w4, w5, w6, w7, w8, w9");
  for (int i = 0; i < 5000; ++i) many.add("layer_" + std::to_string(i) + ".weight", ht::Tensor::scalar(0.0));
  many.add(std::string(100'000, 'x'), ht::Tensor::scalar(0.0));
  // One letter that is missing, one that is another, and one too many.
  CHECK(thrown([&] { many["layer_4321.wieght"]; })
            .starts_with("[named_tensors] there is no 'layer_4321.wieght' among 5001 names; the nearest are: "
                         "layer_4321.weight, "));
  // Equally near ones in their order.
  CHECK(contains(thrown([&] { many["layer_77weight"]; }),
                 "the nearest are: layer_7.weight, layer_77.weight, layer_0.weight"));
  CHECK(contains(thrown([&] { many["llayer_0.weight"]; }),
                 "the nearest are: layer_0.weight, layer_1.weight, "));
  CHECK(thrown([&] { many.with("x", ht::Tensor()); }).size() < 200);
}
