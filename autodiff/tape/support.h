// Where a cotangent that waits in a walk, or a tangent, can differ from 0.
//
// where, relu, gather and their kind make zeros by selection: the result does not depend on what was not
// taken, whatever its slope is. Such a zero must not meet an infinite slope on its way down (where(x > 0,
// sqrt(x), x) at x < 0). A zero that is merely the value of a product must: square(sqrt(x)) at 0 has the
// slope 1, which nobody can see in 0 times infinity, so the NaN stays. So it is not the number that decides,
// but where it came from: a selection hands a *support* on beside the cotangent, and an elementwise operation
// whose slope may be infinite selects by it. Supports depend on the graph and on what decides the selections,
// never on the cotangents; so every mode, and every order of derivative, has the same bits.
//
// Forward mode is the mirror image: where, relu, pad and their kind give the tangent zeros where they placed
// what does not vary (sqrt(where(x > 0, x, 0)) at x < 0), and a support goes with the tangent, up.
//
// Supports are lazy: nothing is computed unless such an operation asks. A null pointer is the support of a
// cotangent or tangent of which nothing is known.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include <hypertape/autodiff/derivatives.h>
#include "autodiff/tape/node.h"

namespace hypertape::detail {

class Support {
 public:
  /// `depth`: that of the deepest support that `make` asks for.
  Support(int depth, std::function<Tensor()> make);
  /// False where the cotangent is 0 by selection; boolean, and broadcasts to the cotangent's shape. Several
  /// threads may ask: tangents are seen by all that read the tensor.
  const Tensor& mask() const;
  int depth() const noexcept { return depth_.load(std::memory_order_relaxed); }

 private:
  mutable std::atomic<int> depth_;
  mutable std::once_flag once_;
  mutable std::function<Tensor()> make_;
  mutable Tensor mask_;
};

/// A tensor that a support reads if it is asked for: without links, and with the version of its elements,
/// since the user's code may run in between.
class ReadLater {
 public:
  ReadLater() = default;
  explicit ReadLater(const Tensor& tensor);
  bool defined() const noexcept { return tensor_.defined(); }
  /// Error if the elements have been written over.
  const Tensor& get() const;

 private:
  Tensor tensor_;
  std::uint32_t version_ = 0;
};

/// Of a sum of cotangents or tangents, perhaps of none.
SupportPointer joined_support(std::vector<SupportPointer> parts);
/// Of a cotangent of shape `from` summed to `to`.
SupportPointer summed_support(SupportPointer support, const Shape& from, const Shape& to);
/// For a rule that works line by line along `axis` of the cotangent, given in `lines` (that axis has extent
/// 1) or less its axes of extent 1: where a whole line of the cotangent is 0 by selection, so is input's
/// gradient.
/// A negative axis: each element of the cotangent stands for a line.
void select_lines(Pull& pull, int input, std::int64_t axis, const Shape& lines);
/// 1 where a cotangent of this shape can differ from 0, else 0.
Tensor indicator(const SupportPointer& support, const Shape& shape, Dtype dtype);
/// The support of what a linear rule with coefficients of one sign made of an indicator.
Tensor mask_of_indicator(const Tensor& pulled);

/// The supports that a rule's pull gives its inputs' gradients, found, once one of them is asked for, by the
/// same pull of indicators. Made before the rule runs, which may use cotangents up.
class PulledSupport {
 public:
  PulledSupport(Node& node, const Pull& pull);
  ~PulledSupport();
  PulledSupport(const PulledSupport&) = delete;
  PulledSupport& operator=(const PulledSupport&) = delete;
  static SupportPointer of_input(const std::shared_ptr<PulledSupport>& all, int input);

 private:
  struct Arrived {
    Shape shape;
    Dtype dtype = Dtype::float64;
    bool defined = false;
    SupportPointer support;
  };
  void compute();

  Node* node_;  // owned: its attributes outlive what the walk consumes
  std::array<Tensor, Primal::max_saved> inputs_;
  std::array<Tensor, 2> outputs_;
  std::vector<Arrived> arrived_;
  TensorList masks_;
};

/// The supports of what a rule's push gives. A rule that moves or selects is asked for them, once somebody
/// asks, by the same push of indicators; a rule that handles supports fills them in.
class PushedSupports {
 public:
  /// Before the rule runs, which may use tangents up. `known`: empty, or one for each tangent.
  void prepare(const OpRule& rule, Push& push, const std::vector<SupportPointer>& known, const Kept& kept);
  SupportPointer take(std::size_t output) {
    if (!prepared_) return nullptr;
    return std::move(many_.empty() ? first_ : many_[output]);
  }

 private:
  bool prepared_ = false;
  Push::SupportLists lists_;
  SupportPointer first_;  // where there is one result
  std::vector<SupportPointer> many_;
};

/// Adds up the terms of a push that works line by line along an axis: where a whole line of a term's tangent
/// is 0 by selection, so is that of the term.
class PushedLines {
 public:
  /// Without `lines_known`, nothing is known of any.
  explicit PushedLines(Push& push, bool lines_known = true) : push_(push), lines_known_(lines_known) {}
  /// The term of input i's tangent, whose lines lie along `axis` of it, or are its elements for a negative
  /// one; `lines` is their shape, to be broadcast against the result.
  void add(int input, Tensor term, std::int64_t axis, const Shape& lines);
  /// Into the push's result.
  void finish();

 private:
  Push& push_;
  bool lines_known_;
  Tensor total_;
  std::vector<SupportPointer> parts_;
  bool whole_ = false;
};

/// What a reverse walk is told about the cotangents that it starts from, and tells about the gradients.
struct WalkSupports {
  std::vector<SupportPointer> cotangents;  ///< empty: nothing is known of any
  std::vector<SupportPointer> gradients;   ///< of what the walk itself added, one for each leaf
};

struct GraphState;
/// pull_recorded of derivatives.h, consuming, with supports.
TensorList pull_with_supports(GraphState& state, const TensorList& cotangents, TensorList accumulated,
                              WalkSupports& supports);

/// push_function of derivatives.h with the supports of the tangents, none if empty, which become those of the
/// results.
std::pair<TensorList, TensorList> push_with_supports(ListFunction f, const TensorList& x,
                                                     const TensorList& tangents,
                                                     std::vector<SupportPointer>& supports);

}  // namespace hypertape::detail
