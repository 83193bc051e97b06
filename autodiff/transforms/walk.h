// Reverse mode over a recorded graph, and its transpose: replaying tangents forward.
#pragma once

#include <vector>

#include "autodiff/tape/support.h"

namespace hypertape::detail {

/// What a derivative call recorded: enough to walk it.
struct Graph {
  ScopeRange scope;        ///< its id, up to the newest id when the function returned
  std::size_t inputs = 0;  ///< number of leaves
  TensorList outputs;      ///< with their nodes
};

/// A leaf of `scope`: the same values as `tensor`, still linked to what outer scopes know of it.
Tensor make_leaf(const Tensor& tensor, std::uint64_t scope, std::size_t index);

/// What a walk wants of the leaves' gradients beside, or instead of, themselves: their tangents of a scope.
struct WantedTangents {
  std::uint64_t scope = 0;  ///< 0: gradients as they are
  std::vector<bool> alone;  ///< leaf i: nothing but the tangent, which is returned in the gradient's place
};

/// Gradients of sum_k <cotangents[k], outputs[k]> with respect to the leaves; absent where there is no path.
/// `accumulated[i]`, if given, is what leaf i's gradient starts from. With `consume` the graph is used up.
TensorList pull_graph(Graph& graph, const TensorList& cotangents, bool consume, TensorList accumulated = {},
                      WantedTangents wanted = {}, WalkSupports* supports = nullptr);

/// The nodes between leaves and outputs, in topological order: prepared once for many replays.
class Replay {
 public:
  explicit Replay(const Graph& graph);
  /// Tangents of the outputs (absent is zero) for tangents of the leaves; with `block`, that many of each,
  /// stacked along a first axis. A tangent lives until its last use.
  TensorList operator()(const Graph& graph, const TensorList& tangents, std::int64_t block = 0) const;

 private:
  template <bool selects>
  TensorList run(const Graph& graph, const TensorList& tangents, std::int64_t block) const;

  static constexpr std::uint32_t nowhere = ~std::uint32_t{0};
  struct Source {
    std::uint32_t place = nowhere;  ///< among the tangents of all steps
    bool last = false;              ///< nobody reads it afterwards
  };
  struct Step {
    Node* node;
    std::uint32_t first_source, first_place;
    std::int64_t leaf;  ///< index of the leaf, or -1
    /// Place of the tangent that the next step adds to this one's result, if neither is read otherwise.
    std::uint32_t sum = nowhere;
  };
  std::vector<Step> steps_;
  std::vector<Source> sources_;
  std::vector<Source> outputs_;
  std::uint32_t places_ = 0, most_inputs_ = 0;
  bool selects_ = false;  ///< there may be supports
};

}  // namespace hypertape::detail
