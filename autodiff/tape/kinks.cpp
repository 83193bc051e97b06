#include "autodiff/tape/kinks.h"

#include <algorithm>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include "autodiff/tape/node.h"

namespace hypertape {
namespace {
constinit thread_local KinkWatch* innermost = nullptr;
}

namespace detail {

bool kinks_are_watched() noexcept { return innermost != nullptr; }

void note_kinks(const char* op, const Tensor& x, const Tensor& at) {
  if (!innermost || !links_of(x).any()) return;
  if (any(equal(stop_gradient(at), 0.0)).item() != 0.0) KinkWatch::note(op);
}

}  // namespace detail

KinkWatch::KinkWatch() : outer_(innermost) { innermost = this; }
KinkWatch::~KinkWatch() { innermost = outer_; }

void KinkWatch::note(const char* operation) {
  for (KinkWatch* watch = innermost; watch; watch = watch->outer_)
    if (std::find(watch->operations_.begin(), watch->operations_.end(), operation) ==
        watch->operations_.end())
      watch->operations_.emplace_back(operation);
}

}  // namespace hypertape
