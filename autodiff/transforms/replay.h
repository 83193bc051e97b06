// Forward mode over a recorded graph: the transpose of a walk, for as many tangents as one likes.
#pragma once

#include <vector>

#include "autodiff/transforms/graph.h"

namespace hypertape::detail {

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
