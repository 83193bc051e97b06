// Conversion between dtypes.
#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/checks.h"
#include "autodiff/tape/node.h"

namespace hypertape {
namespace detail {
namespace {

struct CastAttributes {
  Dtype from, to;
};
constexpr OpRule astype_rule = moving(
    {"astype",
     [](Pull& pull) { pull.gradients[0] = astype(pull.cotangent(), pull.attributes<CastAttributes>().from); },
     [](Push& push) { push.results[0] = astype(push.tangents[0], push.attributes<CastAttributes>().to); }});

}  // namespace
}  // namespace detail

Tensor astype(const Tensor& x, Dtype dtype) {
  const detail::Header& header = detail::header_of("astype", x);
  if (header.dtype == dtype) return x;
  Tensor result = detail::make_tensor(x.shape(), dtype);
  detail::backend_of(x)->copy(detail::view_of(x), detail::view_of(result));
  if (!is_floating(header.dtype) || !is_floating(dtype)) return result;
  return detail::finish_one(detail::astype_rule, {}, detail::CastAttributes{header.dtype, dtype},
                            std::move(result), x);
}

}  // namespace hypertape
