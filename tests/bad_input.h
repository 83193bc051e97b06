// The public operations and what each does with bad input: one row for each declaration in ops.h.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <hypertape/core/tensor.h>

namespace bad_input {

using hypertape::Tensor;
using hypertape::TensorList;
using Call = std::function<TensorList(TensorList&)>;

/// A call that must be refused, with parts of the message behind the operation's name.
struct Refusal {
  Call call;
  std::vector<std::string> parts;
};

struct Case {
  std::string name;
  /// What each operand may be, one letter each:
  ///   f  float32 or float64; all of a call agree      a  any dtype
  ///   i  int64                                        m  any dtype; all of a call agree
  ///   b  boolean                                      z  f, or absent
  std::string roles;
  TensorList operands;  ///< good ones
  Call call;
  Call given{};  ///< the same with the operands given away, where the operation can use them up
  std::vector<Refusal> refusals{};
  TensorList empty{};      ///< operands without elements
  std::string of_empty{};  ///< shape of the first result, or "!" and part of the message
  std::string ignores{};   ///< places of operands whose NaN does not make the result NaN
};

/// All operations of ops.h.
std::vector<Case> cases();

/// Rows of the products, shapes, lists, indexing and losses, whose table is in a file of its own.
void add_structural_cases(std::vector<Case>& all);

}  // namespace bad_input
