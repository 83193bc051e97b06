// The table of bad input: products, shapes, lists, indexing and losses.
#include <cmath>
#include <cstdint>

#include <hypertape/autodiff/ops.h>
#include "bad_input.h"

namespace bad_input {
namespace {

namespace ht = hypertape;
using ht::Dtype;
using ht::Shape;

#define CALL(...) []([[maybe_unused]] TensorList& x) { return TensorList{__VA_ARGS__}; }
#define LIST(...) []([[maybe_unused]] TensorList& x) { return __VA_ARGS__; }

constexpr std::int64_t huge = std::int64_t{1} << 62;

Tensor matrix() { return Tensor::from({0.3, 0.4, 0.5, 0.6, 0.7, 0.8}, Shape{2, 3}); }
Tensor none() { return Tensor::zeros({0, 3}); }
Tensor integers(std::initializer_list<std::int64_t> values) { return Tensor::from(values); }
Tensor no_labels() { return Tensor::zeros({0}, Dtype::int64); }
Tensor of_rank_8() { return Tensor::ones({1, 1, 1, 1, 1, 1, 1, 1}); }

void add_products(std::vector<Case>& all) {
  const Tensor m = matrix(), w = ht::transpose(m), v = Tensor::from({0.5, 0.25, 2.0});
  all.push_back({"matmul", "ff", {m, w}, CALL(ht::matmul(x[0], x[1]))});
  all.back().refusals = {
      {CALL(ht::matmul(x[0], x[0])), {"inner extents", "3", "2", "(2, 3)"}},
      {CALL(ht::matmul(x[0], x[1], true)), {"inner extents", "(2, 3)", "(3, 2)", "transposed"}},
      {CALL(ht::matmul(x[0], Tensor::ones({2}))), {"3", "2", "(2, 3)"}},
      {CALL(ht::matmul(x[0], Tensor::scalar(1.0))), {"(2, 3)", "()"}},
      {CALL(ht::matmul(x[0], Tensor::ones({3}), false, true)), {"vector", "(2, 3)", "(3)"}},
      {CALL(ht::matmul(Tensor::ones({2, 2, 3}), Tensor::ones({5, 3, 2}))), {"(2, 2, 3)", "(5, 3, 2)"}}};
  all.back().empty = {none(), Tensor::ones({3, 2})};
  all.back().of_empty = "(0, 2)";
  all.push_back({"matmul_add",
                 "fff",
                 {Tensor::ones({2, 2}), m, w},
                 CALL(ht::matmul_add(x[0], x[1], x[2])),
                 CALL(ht::matmul_add(std::move(x[0]), x[1], x[2]))});
  all.back().refusals = {
      {CALL(ht::matmul_add(std::move(x[0]), x[1], x[1])), {"inner extents", "(2, 3)"}},
      {CALL(ht::matmul_add(std::move(x[0]), x[1], Tensor::ones({3}))), {"rank 2", "(2, 3)", "(3)"}},
      {CALL(ht::matmul_add(std::move(x[0]), x[1], x[2], true)), {"(2, 3)", "(3, 2)"}},
      {CALL(ht::matmul_add(Tensor::ones({3}), x[1], x[2])), {"(3)", "(2, 2)"}},
      {CALL(ht::matmul_add(Tensor::ones({4, 2, 2}), x[1], x[2])), {"(4, 2, 2)", "(2, 2)"}}};
  all.back().empty = {Tensor::ones({2, 2}), Tensor::ones({2, 0}), Tensor::ones({0, 2})};
  all.back().of_empty = "(2, 2)";
  all.push_back(
      {"linear", "fff", {m, w, Tensor::ones({2})}, CALL(ht::linear(x[0], x[1], x[2], ht::Activation::tanh))});
  all.back().refusals = {{CALL(ht::linear(x[0], x[0], x[2])), {"(2, 3)", "(2)", "(in, out)"}},
                         {CALL(ht::linear(x[0], x[1], Tensor::ones({3}))), {"(3, 2)", "(3)"}},
                         {CALL(ht::linear(x[2], x[1], x[2])), {"input (2)", "(3, 2)"}},
                         {CALL(ht::linear(x[0], x[1], Tensor::ones({1, 2}))), {"(1, 2)"}}};
  all.back().empty = {none(), w, Tensor::ones({2})};
  all.back().of_empty = "(0, 2)";
  all.push_back({"outer", "ff", {v, v}, CALL(ht::outer(x[0], x[1]))});
  all.back().refusals = {{CALL(ht::outer(x[0], matrix())), {"(3)", "(2, 3)"}}};
  all.back().empty = {Tensor::ones({0}), v};
  all.back().of_empty = "(0, 3)";
  all.push_back({"einsum", "ff", {m, w}, CALL(ht::einsum("ij,jk->ik", x))});
  all.back().refusals = {{CALL(ht::einsum("ij,jk->il", x)), {"'l'", "no operand"}},
                         {CALL(ht::einsum("ij,jk->ii", x)), {"'i'", "twice"}},
                         {CALL(ht::einsum("ij,ij", x)), {"'i'", "2", "3"}},
                         {CALL(ht::einsum("ij->i", x)), {"1 operands", "2 were given"}},
                         {CALL(ht::einsum("ijk,jk", x)), {"3 axes", "(2, 3)"}},
                         {CALL(ht::einsum("ij,j1->i", x)), {"\"1\""}},
                         {CALL(ht::einsum("ij,...j...", x)), {"twice"}},
                         {CALL(ht::einsum("i...,jk->jk", x)), {"..."}},
                         {CALL(ht::einsum("", {})), {"0 were given"}},
                         {CALL(ht::einsum("abcde,fghij->abcdefghij",
                                          {Tensor::ones({1, 1, 1, 1, 1}), Tensor::ones({1, 1, 1, 1, 1})})),
                          {"10 axes", "8"}}};
  all.back().empty = {none(), Tensor::ones({3, 2})};
  all.back().of_empty = "(0, 2)";
}

// x of shape (2, 3) alone, any dtype, with an empty x of shape (0, 3).
void add_view(std::vector<Case>& all, const std::string& name, Call call, const std::string& of_empty,
              std::vector<Refusal> refusals) {
  all.push_back({name, "a", {matrix()}, std::move(call), {}, std::move(refusals), {none()}, of_empty});
}

void add_shapes(std::vector<Case>& all) {
  const std::string from = "(2, 3)", empty = "(0, 3)";
  const std::vector<std::string> axis = {"axis 2", from}, low = {"axis -3", from}, twice = {"twice", from};
  add_view(all, "reshape", CALL(ht::reshape(x[0], {-1, 3})), empty,
           {{CALL(ht::reshape(x[0], {4})), {from, "(4)"}},
            {CALL(ht::reshape(x[0], {-1, 4})), {from, "4"}},
            {CALL(ht::reshape(x[0], {-1, -1})), {"-1"}},
            {CALL(ht::reshape(x[0], {-1, 0})), {from}},
            {CALL(ht::reshape(x[0], {-2, 3})), {"-2"}},
            {CALL(ht::reshape(x[0], {huge, huge})), {"64 bits"}},
            {CALL(ht::reshape(x[0], {1, 1, 1, 1, 1, 1, 1, 2, 3})), {"rank 9"}}});
  add_view(all, "reshape", CALL(ht::reshape(x[0], Shape{x[0].defined() ? x[0].size() : 0})), "(0)",
           {{CALL(ht::reshape(x[0], Shape{7})), {from, "(7)"}}});
  add_view(all, "squeeze", CALL(ht::squeeze(x[0])), empty, {});
  add_view(all, "squeeze", CALL(ht::squeeze(x[0], std::vector<std::int64_t>{})), empty,
           {{CALL(ht::squeeze(x[0], {2})), axis},
            {CALL(ht::squeeze(x[0], {0})), {"axis 0", from, "2"}},
            {CALL(ht::squeeze(Tensor::ones({1, 3}), {0, -2})), {"twice", "(1, 3)"}}});
  add_view(all, "unsqueeze", CALL(ht::unsqueeze(x[0], -1)), "(0, 3, 1)",
           {{CALL(ht::unsqueeze(x[0], 3)), {"3", from}},
            {CALL(ht::unsqueeze(x[0], INT64_MIN)), {from}},
            {CALL(ht::unsqueeze(of_rank_8(), 0)), {"rank 9"}}});
  add_view(all, "contiguous", CALL(ht::contiguous(ht::transpose(x[0]))), "(3, 0)", {});
  all.back().call = CALL(ht::contiguous(x[0]));
  all.back().of_empty = empty;
  for (const bool is_permute : {true, false}) {
    const auto op = [is_permute](const Tensor& x, const std::vector<std::int64_t>& axes) {
      return TensorList{is_permute ? ht::permute(x, axes) : ht::transpose(x, axes)};
    };
    add_view(all, is_permute ? "permute" : "transpose",
             [op](TensorList& x) {
               return op(x[0], {1, 0});
             },
             "(3, 0)",
             {{[op](TensorList& x) {
                 return op(x[0], {0, 2});
               },
               axis},
              {[op](TensorList& x) {
                 return op(x[0], {0, -3});
               },
               low},
              {[op](TensorList& x) {
                 return op(x[0], {1, 1});
               },
               twice},
              {[op](TensorList& x) { return op(x[0], {0}); }, {"1 axes", from}}});
  }
  add_view(all, "transpose", CALL(ht::transpose(x[0])), "(3, 0)", {});
  all.push_back({"expand", "a", {matrix()}, CALL(ht::expand(x[0], {4, 2, 3}))});
  all.back().refusals = {{CALL(ht::expand(x[0], {2, 4})), {from, "(2, 4)"}},
                         {CALL(ht::expand(x[0], {3})), {from, "(3)"}},
                         {CALL(ht::expand(x[0], {0, 3})), {from, "(0, 3)"}}};
  all.back().empty = {Tensor::ones({1, 3})};  // extents of 1 stretch to nothing, too
  all.back().call = [](TensorList& x) {
    return TensorList{ht::expand(x[0], x[0].defined() && x[0].extent(0) == 1 ? Shape{0, 3} : Shape{4, 2, 3})};
  };
  all.back().of_empty = empty;
  add_view(all, "slice", CALL(ht::slice(x[0], 1, 0, 2)), "(0, 2)",
           {{CALL(ht::slice(x[0], 2, 0, 1)), axis},
            {CALL(ht::slice(x[0], 1, 2, 4)), {"[2, 4)", from}},
            {CALL(ht::slice(x[0], 1, 2, 1)), {"[2, 1)", from}},
            {CALL(ht::slice(x[0], 1, -1, 1)), {"[-1, 1)", from}},
            {CALL(ht::slice(x[0], 1, INT64_MIN, INT64_MAX)), {from}},
            {CALL(ht::slice(x[0], 1, 0, 2, 0)), {"step", from}},
            {CALL(ht::slice(x[0], 1, 3, -1, -1)), {"3", from}},
            {CALL(ht::slice(x[0], 1, 0, -2, INT64_MIN)), {"-2", from}}});
  add_view(all, "pad", CALL(ht::pad(x[0], 1, 1, 5)), "(0, 5)",
           {{CALL(ht::pad(x[0], 2, 0, 9)), axis},
            {CALL(ht::pad(x[0], 1, 1, 3)), {"axis 1", from}},
            {CALL(ht::pad(x[0], 1, -1, 3)), {from}},
            {CALL(ht::pad(x[0], 1, 0, 9, 0)), {"step", from}},
            {CALL(ht::pad(x[0], 1, 0, 9, INT64_MAX)), {from}},
            {CALL(ht::pad(x[0], 1, 0, INT64_MAX, huge)), {from}},
            {CALL(ht::pad(x[0], 1, 0, INT64_MAX)), {"64 bits"}}});
  add_view(all, "pad", CALL(ht::pad(x[0], {{0, 1}, {2, 0}})), "(1, 5)",
           {{CALL(ht::pad(x[0], {{0, 1}})), {"1 pairs", from}},
            {CALL(ht::pad(x[0], {{0, 1}, {-1, 0}})), {"-1", from}},
            {CALL(ht::pad(x[0], {{0, 0}, {INT64_MAX, 1}})), {"overflow", from}},
            {CALL(ht::pad(x[0], {{huge, 0}, {huge, 0}})), {"64 bits"}}});
  add_view(all, "flip", CALL(ht::flip(x[0], {0, 1})), empty,
           {{CALL(ht::flip(x[0], {2})), axis}, {CALL(ht::flip(x[0], {1, -1})), twice}});
  add_view(all, "roll", CALL(ht::roll(x[0], INT64_MIN, 1)), empty, {{CALL(ht::roll(x[0], 1, 2)), axis}});
  add_view(all, "repeat", CALL(ht::repeat(x[0], 2, 1)), "(0, 6)",
           {{CALL(ht::repeat(x[0], 2, 2)), axis},
            {CALL(ht::repeat(x[0], -1, 1)), {"-1"}},
            {CALL(ht::repeat(x[0], huge, 1)), {"overflow"}},
            {CALL(ht::repeat(Tensor::ones({1, 2}), huge, 0)), {"64 bits"}}});
  add_view(all, "tile", CALL(ht::tile(x[0], {1, 2})), "(0, 6)",
           {{CALL(ht::tile(x[0], {2})), {"1 counts", from}},
            {CALL(ht::tile(x[0], {2, -1})), {"-1"}},
            {CALL(ht::tile(x[0], {1, huge})), {"overflow"}},
            {CALL(ht::tile(Tensor::ones({1, 1}), {huge, huge})), {"64 bits"}}});
  add_view(all, "diagonal", CALL(ht::diagonal(x[0], 0)), "(0)",
           {{CALL(ht::diagonal(Tensor::ones({3}))), {"(3)"}}});
  add_view(all, "diag", CALL(ht::diag(x[0], 0)), "(0, 3, 3)",
           {{CALL(ht::diag(Tensor::scalar(1.0))), {"scalar"}},
            {CALL(ht::diag(x[0], INT64_MIN)), {"offset"}},
            {CALL(ht::diag(x[0], INT64_MAX)), {"offset"}},
            {CALL(ht::diag(x[0], huge)), {"64 bits"}},
            {CALL(ht::diag(of_rank_8())), {"rank 9"}}});
  add_view(all, "tril", CALL(ht::tril(x[0], INT64_MAX)), empty,
           {{CALL(ht::tril(Tensor::ones({3}))), {"(3)"}}});
  add_view(all, "triu", CALL(ht::triu(x[0], INT64_MIN)), empty,
           {{CALL(ht::triu(Tensor::ones({3}))), {"(3)"}}});
  add_view(all, "astype", CALL(ht::astype(x[0], Dtype::float32)), empty,
           {{CALL(ht::astype(Tensor::from({1.0, double(NAN)}), Dtype::int64)), {"nan", "int64"}},
            {CALL(ht::astype(Tensor::from({0x1p63}), Dtype::int64)), {"9.22", "int64"}},
            {CALL(ht::astype(Tensor::from({-INFINITY}), Dtype::int64)), {"-inf", "int64"}}});
  all.push_back({"stop_gradient", "a", {matrix()}, CALL(ht::stop_gradient(x[0]))});
  all.back().empty = {none()};
  all.back().of_empty = empty;
  all.push_back(
      {"has_non_finite", "f", {matrix()}, CALL(Tensor::scalar(ht::has_non_finite(x[0]) ? NAN : 0.0))});
  all.back().empty = {none()};
  all.back().of_empty = "()";
}

void add_lists(std::vector<Case>& all) {
  const Tensor m = matrix(), v = Tensor::from({0.5, 0.25, 2.0});
  all.push_back({"unflatten",
                 "a",
                 {v},
                 LIST(ht::unflatten(x[0], {Shape{x[0].defined() ? x[0].size() : 0}, Shape{0}}))});
  all.back().refusals = {{LIST(ht::unflatten(x[0], {{2}})), {"2", "3"}},
                         {LIST(ht::unflatten(x[0], {{huge}, {huge}})), {"overflow"}},
                         {LIST(ht::unflatten(matrix(), {{6}})), {"(2, 3)"}}};
  all.back().empty = {Tensor::ones({0})};
  all.back().of_empty = "(0)";
  all.push_back({"flatten", "zz", {m, v}, CALL(ht::flatten(x, {{2, 3}, {3}}))});
  all.back().refusals = {{CALL(ht::flatten(x, {{2, 3}})), {"2 tensors", "1 shapes"}},
                         {CALL(ht::flatten(x, {{3, 2}, {3}})), {"tensor 0", "(2, 3)", "(3, 2)"}}};
  all.back().empty = {Tensor(), Tensor()};
  all.back().of_empty = "(9)";
  all.push_back({"flatten", "mm", {m, v}, CALL(ht::flatten(x))});
  all.back().empty = {none(), none()};
  all.back().of_empty = "(0)";
  const Tensor number = Tensor::scalar(0.5);
  const auto both = [](const ht::SgdStep& next) { return TensorList{next.weights, next.velocity}; };
  all.push_back({"sgd_step",
                 "fffff",
                 {m, m + 1.0, m - 1.0, number, number},
                 [=](TensorList& x) { return both(ht::sgd_step(x[0], x[1], x[2], x[3], x[4])); },
                 [=](TensorList& x) {
                   return both(ht::sgd_step(std::move(x[0]), std::move(x[1]), std::move(x[2]), x[3], x[4]));
                 }});
  all.back().refusals = {
      {[=](TensorList& x) { return both(ht::sgd_step(std::move(x[0]), std::move(x[3]), x[2], x[3], x[4])); },
       {"velocity", "()", "(2, 3)"}},
      {[=](TensorList& x) {
         return both(ht::sgd_step(std::move(x[0]), x[1], ht::transpose(x[2]), x[3], x[4]));
       },
       {"push", "(3, 2)", "(2, 3)"}},
      {[=](TensorList& x) { return both(ht::sgd_step(std::move(x[0]), x[1], x[2], x[0], x[4])); },
       {"rate", "scalar", "(2, 3)"}},
      {[=](TensorList& x) {
         return both(ht::sgd_step(std::move(x[0]), x[1], x[2], x[3], Tensor::ones({1})));
       },
       {"momentum", "scalar", "(1)"}}};
  all.back().empty = {none(), none(), none(), number, number};
  all.back().of_empty = "(0, 3)";
  all.push_back({"unstack", "a", {m}, LIST(ht::unstack(x[0], 1))});
  all.back().refusals = {{LIST(ht::unstack(x[0], 2)), {"axis 2", "(2, 3)"}},
                         {LIST(ht::unstack(Tensor::scalar(1.0))), {"scalar"}}};
  all.back().empty = {none()};
  all.back().of_empty = "(0)";
  all.push_back({"stack", "mm", {m, m}, CALL(ht::stack(x, 1))});
  all.back().refusals = {{CALL(ht::stack(x, 3)), {"3", "(2, 3)"}},
                         {CALL(ht::stack({x[0], ht::transpose(x[1])})), {"(2, 3)", "(3, 2)"}},
                         {CALL(ht::stack(TensorList{})), {"at least one"}},
                         {CALL(ht::stack({of_rank_8()})), {"rank 9"}}};
  all.back().empty = {none(), none()};
  all.back().of_empty = "(0, 2, 3)";
  all.push_back({"stack", "zz", {m, m}, CALL(ht::stack(x, {2, 3}, Dtype::float64))});
  all.back().refusals = {{CALL(ht::stack(x, {3, 2}, Dtype::float64)), {"row 0", "(2, 3)", "(3, 2)"}},
                         {CALL(ht::stack(x, {2, 3}, Dtype::float32)), {"float64", "float32"}},
                         {CALL(ht::stack(x, {2, 3}, Dtype::float64, -4)), {"-4", "(2, 3)"}}};
  all.back().empty = {};
  all.back().of_empty = "(0, 2, 3)";
  all.push_back({"concatenate", "mm", {m, m}, CALL(ht::concatenate(x, 1))});
  all.back().refusals = {{CALL(ht::concatenate(x, 2)), {"axis 2", "(2, 3)"}},
                         {CALL(ht::concatenate({x[0], Tensor::ones({3, 2})}, 1)), {"(2, 3)", "(3, 2)"}},
                         {CALL(ht::concatenate({x[0], Tensor::ones({3})}, 1)), {"(2, 3)", "(3)"}},
                         {CALL(ht::concatenate({Tensor::scalar(1.0)})), {"scalar"}},
                         {CALL(ht::concatenate({})), {"at least one"}}};
  all.back().empty = {none(), none()};
  all.back().of_empty = "(0, 6)";
  all.push_back({"split", "a", {m}, LIST(ht::split(x[0], {1, 2}, 1))});
  all.back().refusals = {{LIST(ht::split(x[0], {1, 1}, 1)), {"2 elements", "3", "(2, 3)"}},
                         {LIST(ht::split(x[0], {4, -1}, 1)), {"-1"}},
                         {LIST(ht::split(x[0], {huge, huge}, 1)), {"overflow"}},
                         {LIST(ht::split(x[0], {2}, 2)), {"axis 2", "(2, 3)"}}};
  all.back().empty = {none()};
  all.back().of_empty = "(0, 1)";
  all.push_back({"split_evenly", "a", {m}, LIST(ht::split_evenly(x[0], 3, 1))});
  all.back().refusals = {{LIST(ht::split_evenly(x[0], 2, 1)), {"3 elements", "(2, 3)", "2"}},
                         {LIST(ht::split_evenly(x[0], 0, 1)), {"(2, 3)", "0"}},
                         {LIST(ht::split_evenly(x[0], -3, 1)), {"(2, 3)", "-3"}},
                         {LIST(ht::split_evenly(x[0], 1, 2)), {"axis 2", "(2, 3)"}}};
  all.back().empty = {none()};
  all.back().of_empty = "(0, 1)";
}

void add_indexing(std::vector<Case>& all) {
  const Tensor m = matrix(), labels = integers({2, 0}), v = Tensor::from({0.5, 0.25, 2.0});
  all.push_back({"gather_labels", "fi", {m, labels}, CALL(ht::gather_labels(x[0], x[1]))});
  all.back().refusals = {{CALL(ht::gather_labels(x[0], integers({0, 3}))), {"label 3", "row 1", "3 classes"}},
                         {CALL(ht::gather_labels(x[0], integers({INT64_MIN, 0}))), {"row 0", "3 classes"}},
                         {CALL(ht::gather_labels(x[0], integers({0}))), {"(1)", "(2)"}},
                         {CALL(ht::gather_labels(Tensor::ones({2}), x[1])), {"(2)"}}};
  all.back().empty = {none(), no_labels()};
  all.back().of_empty = "(0)";
  all.push_back(
      {"scatter_labels", "fi", {Tensor::ones({2}), labels}, CALL(ht::scatter_labels(x[0], x[1], 3))});
  all.back().refusals = {{CALL(ht::scatter_labels(x[0], x[1], 2)), {"label 2", "row 0", "2 classes"}},
                         {CALL(ht::scatter_labels(x[0], x[1], -1)), {"-1"}},
                         {CALL(ht::scatter_labels(x[0], x[1], huge)), {"64 bits"}},
                         {CALL(ht::scatter_labels(x[0], integers({0}), 3)), {"(1)", "(2)"}},
                         {CALL(ht::scatter_labels(matrix(), x[1], 3)), {"(2, 3)"}}};
  all.back().empty = {Tensor::ones({0}), no_labels()};
  all.back().of_empty = "(0, 3)";
  all.push_back({"one_hot", "i", {labels}, CALL(ht::one_hot(x[0], 3))});
  all.back().refusals = {
      {CALL(ht::one_hot(x[0], 2)), {"index 2", "(0)", "2 classes"}},
      {CALL(ht::one_hot(x[0], -1)), {"-1"}},
      {CALL(ht::one_hot(x[0], huge)), {"64 bits"}},
      {CALL(ht::one_hot(x[0], 3, Dtype::int64)), {"int64"}},
      {CALL(ht::one_hot(Tensor::zeros({1, 1, 1, 1, 1, 1, 1, 1}, Dtype::int64), 3)), {"rank 9"}}};
  all.back().empty = {no_labels()};
  all.back().of_empty = "(0, 3)";
  const Tensor at = ht::reshape(integers({1, 0, 1}), {1, 3}),
               outside = ht::reshape(integers({0, 2, -1}), {1, 3});
  all.push_back({"gather", "ai", {m, at}, CALL(ht::gather(x[0], 0, x[1]))});
  all.back().refusals = {
      {CALL(ht::gather(x[0], 2, x[1])), {"axis 2", "(2, 3)"}},
      {[outside](TensorList& x) { return TensorList{ht::gather(x[0], 0, outside)}; },
       {"index 2", "(0, 1)", "(2, 3)"}},
      {CALL(ht::gather(x[0], 0, integers({0}))), {"(1)", "(2, 3)"}},
      {CALL(ht::gather(x[0], 0, Tensor::zeros({1, 4}, Dtype::int64))), {"(1, 4)", "(2, 3)"}},
      {CALL(ht::gather(Tensor::scalar(1.0), 0, x[1])), {"()"}}};
  all.back().empty = {none(), Tensor::zeros({0, 3}, Dtype::int64)};
  all.back().of_empty = "(0, 3)";
  const Tensor values = Tensor::ones({1, 3});
  all.push_back({"scatter_add", "if", {at, values}, CALL(ht::scatter_add({2, 3}, 0, x[0], x[1]))});
  all.back().refusals = {{CALL(ht::scatter_add({2, 3}, 2, x[0], x[1])), {"axis 2", "(2, 3)"}},
                         {CALL(ht::scatter_add({1, 3}, 0, x[0], x[1])), {"index 1", "(0, 0)", "(1, 3)"}},
                         {CALL(ht::scatter_add({2, 2}, 0, x[0], x[1])), {"(1, 3)", "(2, 2)"}},
                         {CALL(ht::scatter_add({2, 3}, 0, x[0], Tensor::ones({3}))), {"(3)", "(1, 3)"}}};
  all.back().empty = {Tensor::zeros({0, 3}, Dtype::int64), none()};
  all.back().of_empty = "(2, 3)";
  all.push_back({"scatter_add",
                 "fif",
                 {m, at, values},
                 CALL(ht::scatter_add(x[0], 0, x[1], x[2])),
                 CALL(ht::scatter_add(std::move(x[0]), 0, x[1], x[2]))});
  all.back().refusals = {
      {CALL(ht::scatter_add(std::move(x[0]), -3, x[1], x[2])), {"axis -3", "(2, 3)"}},
      {[outside](TensorList& x) { return TensorList{ht::scatter_add(std::move(x[0]), 0, outside, x[2])}; },
       {"index 2", "(0, 1)"}},
      {CALL(ht::scatter_add(std::move(x[0]), 0, x[1], Tensor::ones({2, 3}))), {"(2, 3)", "(1, 3)"}}};
  all.back().empty = {none(), Tensor::zeros({0, 3}, Dtype::int64), none()};
  all.back().of_empty = "(0, 3)";
  all.push_back({"index_select", "ai", {m, labels}, CALL(ht::index_select(x[0], 1, x[1]))});
  all.back().refusals = {{CALL(ht::index_select(x[0], 2, x[1])), {"axis 2", "(2, 3)"}},
                         {CALL(ht::index_select(x[0], 0, x[1])), {"index 2", "(0)", "(2, 3)"}},
                         {CALL(ht::index_select(x[0], 0, integers({0, INT64_MIN}))), {"(1)", "(2, 3)"}},
                         {CALL(ht::index_select(x[0], 0, Tensor::zeros({1, 1}, Dtype::int64))), {"(1, 1)"}}};
  all.back().empty = {none(), no_labels()};
  all.back().of_empty = "(0, 0)";
  all.push_back({"take", "ai", {m, labels}, CALL(ht::take(x[0], x[1]))});
  all.back().refusals = {{CALL(ht::take(x[0], integers({0, 6}))), {"index 6", "(1)", "(2, 3)"}},
                         {CALL(ht::take(x[0], integers({INT64_MAX}))), {"(0)", "(2, 3)"}},
                         {CALL(ht::take(none(), x[1])), {"index 2", "(0, 3)"}}};
  all.back().empty = {none(), no_labels()};
  all.back().of_empty = "(0)";
}

void add_losses(std::vector<Case>& all) {
  const Tensor m = matrix(), labels = integers({2, 0}), two = Tensor::from({0.5, 2.0}), q = m / 2.0;
  const auto add = [&](const std::string& name, const std::string& roles, TensorList operands, Call call,
                       TensorList empty, const std::string& of_empty, std::vector<Refusal> refusals) {
    all.push_back({name,
                   roles,
                   std::move(operands),
                   std::move(call),
                   {},
                   std::move(refusals),
                   std::move(empty),
                   of_empty});
  };
  const std::vector<std::string> shapes = {"(2, 3)", "(3, 2)"};
  add("softmax", "f", {m}, CALL(ht::softmax(x[0])), {none()}, "(0, 3)",
      {{CALL(ht::softmax(x[0], 2)), {"axis 2", "(2, 3)"}},
       {CALL(ht::softmax(none(), 0)), {"axis 0", "(0, 3)"}},
       {CALL(ht::softmax(Tensor::scalar(1.0))), {"()"}}});
  add("log_softmax", "f", {m}, CALL(ht::log_softmax(x[0])), {none()}, "(0, 3)",
      {{CALL(ht::log_softmax(x[0], -3)), {"axis -3", "(2, 3)"}},
       {CALL(ht::log_softmax(none(), 0)), {"axis 0", "(0, 3)"}}});
  add("weigh", "ff", {m, m}, CALL(ht::weigh(x[0], x[1])), {none(), none()}, "(0, 3)",
      {{CALL(ht::weigh(x[0], ht::transpose(x[1]))), shapes}});
  add("weighted_mean", "ff", {m, m}, CALL(ht::weighted_mean(x[0], x[1])), {none(), none()}, "!empty",
      {{CALL(ht::weighted_mean(x[0], ht::transpose(x[1]))), shapes}});
  const std::vector<Refusal> entropy = {
      {CALL(ht::softmax_cross_entropy(x[0], integers({0, 3}))), {"label 3", "row 1", "3 classes"}},
      {CALL(ht::softmax_cross_entropy(x[0], integers({-1, 0}))), {"label -1", "row 0"}},
      {CALL(ht::softmax_cross_entropy(x[0], integers({0}))), {"(1)", "(2)"}},
      {CALL(ht::softmax_cross_entropy(Tensor::ones({2}), x[1])), {"(2)"}}};
  add("softmax_cross_entropy", "fi", {m, labels}, CALL(ht::softmax_cross_entropy(x[0], x[1])),
      {none(), no_labels()}, "!(0, 3)", entropy);
  add("softmax_cross_entropy", "ff", {m, q}, CALL(ht::softmax_cross_entropy(x[0], x[1])), {none(), none()},
      "!(0, 3)", {{CALL(ht::softmax_cross_entropy(x[0], ht::transpose(x[1]))), shapes}});
  add("softmax_cross_entropy", "fizz", {m, labels, two, Tensor::ones({3})},
      CALL(ht::softmax_cross_entropy(x[0], x[1], {x[2], x[3]})),
      {none(), no_labels(), Tensor::ones({0}), Tensor::ones({3})}, "!(0, 3)",
      {{CALL(ht::softmax_cross_entropy(x[0], x[1], {x[3], x[3]})), {"sample weights", "(3)", "(2)"}},
       {CALL(ht::softmax_cross_entropy(x[0], x[1], {x[2], x[2]})), {"class weights", "(2)", "(3)"}},
       {CALL(ht::softmax_cross_entropy(x[0], integers({0, 3}), {x[2], x[3]})), {"label 3"}},
       {CALL(ht::softmax_cross_entropy(x[0], Tensor::ones({3, 2}), {x[2], {}})), shapes}});
  add("softmax_cross_entropy_losses", "fi", {m, labels}, CALL(ht::softmax_cross_entropy_losses(x[0], x[1])),
      {none(), no_labels()}, "!(0, 3)",
      {{CALL(ht::softmax_cross_entropy_losses(x[0], integers({0, 3}))), {"label 3", "row 1"}},
       {CALL(ht::softmax_cross_entropy_losses(x[0], Tensor::ones({3, 2}))), shapes},
       {CALL(ht::softmax_cross_entropy_losses(Tensor::ones({2}), Tensor::ones({2}))), {"(N, C)", "(2)"}}});
  add("softmax_cross_entropy_gradient", "ffi", {Tensor::scalar(1.0), m, labels},
      CALL(ht::softmax_cross_entropy_gradient(x[0], x[1], x[2])), {Tensor::scalar(1.0), none(), no_labels()},
      "!(0, 3)",
      {{CALL(ht::softmax_cross_entropy_gradient(Tensor::ones({2}), x[1], x[2])), {"one element", "(2)"}},
       {CALL(ht::softmax_cross_entropy_gradient(x[0], x[1], integers({3, 0}))), {"label 3"}}});
  add("mean_squared_error", "ff", {m, q}, CALL(ht::mean_squared_error(x[0], x[1])), {none(), none()},
      "!(0, 3)", {{CALL(ht::mean_squared_error(x[0], ht::transpose(x[1]))), shapes}});
  add("mean_squared_error", "fff", {m, q, two}, CALL(ht::mean_squared_error(x[0], x[1], x[2])),
      {none(), none(), Tensor::ones({0})}, "!(0, 3)",
      {{CALL(ht::mean_squared_error(x[0], x[1], Tensor::ones({3}))), {"weights", "(3)", "(2)"}},
       {CALL(ht::mean_squared_error(Tensor::scalar(1.0), Tensor::scalar(1.0), x[2])), {"scalars"}}});
  add("binary_cross_entropy_with_logits", "ff", {m, q},
      CALL(ht::binary_cross_entropy_with_logits(x[0], x[1])), {none(), none()}, "!(0, 3)",
      {{CALL(ht::binary_cross_entropy_with_logits(x[0], ht::transpose(x[1]))), shapes}});
  add("binary_cross_entropy_with_logits", "fff", {m, q, two},
      CALL(ht::binary_cross_entropy_with_logits(x[0], x[1], x[2])), {none(), none(), Tensor::ones({0})},
      "!(0, 3)",
      {{CALL(ht::binary_cross_entropy_with_logits(x[0], x[1], Tensor::ones({3}))),
        {"weights", "(3)", "(2)"}}});
}

}  // namespace

void add_structural_cases(std::vector<Case>& all) {
  add_products(all);
  add_shapes(all);
  add_lists(all);
  add_indexing(all);
  add_losses(all);
}

}  // namespace bad_input
