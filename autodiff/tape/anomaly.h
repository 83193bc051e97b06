// What operations and walks tell an open AnomalyScope. Whether one is open is asked by is_watched, in node.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <hypertape/autodiff/anomaly.h>
#include "autodiff/tape/node.h"

namespace hypertape::detail {

/// Operands as they were before the operation, which may write over them.
struct SeenOperands {
  bool finite = true, finite_tangents = true;
  std::int64_t origin = -1;  ///< position of the anomaly that made them, -1 if unknown
  std::string shapes;
};
SeenOperands look_at(std::span<const Tensor* const> operands);
/// Compares results with what they were made of.
void watch_result(const char* name, const SeenOperands& before, std::span<Tensor* const> outputs);

/// rule->pull and rule->push with an eye on what they return.
void pull_watched(Node& node, Pull& pull);
void push_watched(const char* name, const OpRule& rule, Push& push);

/// "it comes from ..." for a non-finite tensor while a scope is open on this thread, else empty.
std::string origin_text(const Tensor& result);
std::string origin_text(const TensorList& results);

/// What happens meanwhile, and the way back through what is recorded meanwhile, belongs to this step.
class AnomalyStep {
 public:
  AnomalyStep(std::int64_t step, std::int64_t steps) : noted_(is_watched() && begin(step, steps)) {}
  ~AnomalyStep() {
    if (noted_) end();
  }
  AnomalyStep(const AnomalyStep&) = delete;
  AnomalyStep& operator=(const AnomalyStep&) = delete;

 private:
  static bool begin(std::int64_t step, std::int64_t steps);
  static void end() noexcept;
  bool noted_;
};

}  // namespace hypertape::detail
