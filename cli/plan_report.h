// Predicted and measured bytes, and the planner's choice, under the table of a comparison.
#pragma once

#include <iosfwd>

#include "compare.h"

namespace hypertape {

/// Nothing if the comparison has no plan.
void print_plan(std::ostream& out, const Comparison& comparison);

}  // namespace hypertape
