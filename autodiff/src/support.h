// Where a cotangent that waits in a walk can differ from 0.
//
// where, relu, gather and their kind make zeros by selection: the result does not depend on what was not
// taken, whatever its slope is. Such a zero must not meet an infinite slope on its way down (where(x > 0,
// sqrt(x), x) at x < 0). A zero that is merely the value of a product must: square(sqrt(x)) at 0 has the
// slope 1, which nobody can see in 0 times infinity, so the NaN stays. So it is not the number that decides,
// but where it came from: a selection hands a *support* on beside the cotangent, and an elementwise operation
// whose slope may be infinite selects by it. Supports depend on the graph and on what decides the selections,
// never on the cotangents; so every mode, and every order of derivative, has the same bits.
//
// Supports are lazy: nothing is computed unless such an operation asks. A null pointer is the support of a
// cotangent of which nothing is known.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <vector>

#include "node.h"

namespace hypertape::detail {

class Support {
 public:
  /// `depth`: that of the deepest support that `make` asks for.
  Support(int depth, std::function<Tensor()> make);
  /// False where the cotangent is 0 by selection; boolean, and broadcasts to the cotangent's shape.
  const Tensor& mask() const;
  int depth() const noexcept { return make_ ? depth_ : 0; }

 private:
  int depth_;
  mutable std::function<Tensor()> make_;
  mutable Tensor mask_;
};

/// Of a sum of cotangents, perhaps of none.
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

/// What a reverse walk is told about the cotangents that it starts from, and tells about the gradients.
struct WalkSupports {
  std::vector<SupportPointer> cotangents;  ///< empty: nothing is known of any
  std::vector<SupportPointer> gradients;   ///< of what the walk itself added, one for each leaf
};

struct GraphState;
/// pull_recorded of derivatives.h, consuming, with supports.
TensorList pull_with_supports(GraphState& state, const TensorList& cotangents, TensorList accumulated,
                              WalkSupports& supports);

}  // namespace hypertape::detail
