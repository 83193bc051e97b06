// Reverse mode over a recorded graph.
#pragma once

#include <vector>

#include "autodiff/tape/support.h"
#include "autodiff/transforms/graph.h"

namespace hypertape::detail {

/// What a walk wants of the leaves' gradients beside, or instead of, themselves: their tangents of a scope.
struct WantedTangents {
  std::uint64_t scope = 0;  ///< 0: gradients as they are
  std::vector<bool> alone;  ///< leaf i: nothing but the tangent, which is returned in the gradient's place
};

/// Gradients of sum_k <cotangents[k], outputs[k]> with respect to the leaves; absent where there is no path.
/// `accumulated[i]`, if given, is what leaf i's gradient starts from. With `consume` the graph is used up.
TensorList pull_graph(Graph& graph, const TensorList& cotangents, bool consume, TensorList accumulated = {},
                      WantedTangents wanted = {}, WalkSupports* supports = nullptr);

}  // namespace hypertape::detail
