// What a derivative call records, and the leaves that it begins with.
#pragma once

#include "autodiff/tape/node.h"

namespace hypertape::detail {

/// What a derivative call recorded: enough to walk it.
struct Graph {
  ScopeRange scope;        ///< its id, up to the newest id when the function returned
  std::size_t inputs = 0;  ///< number of leaves
  TensorList outputs;      ///< with their nodes
};

/// A leaf of `scope`: the same values as `tensor`, still linked to what outer scopes know of it.
Tensor make_leaf(const Tensor& tensor, std::uint64_t scope, std::size_t index);

}  // namespace hypertape::detail
