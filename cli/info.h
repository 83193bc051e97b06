// What the library found on this machine, for `hypertape info`.
#pragma once

#include <string>

namespace hypertape {

/// Several lines. Error: HYPERTAPE_ISA or HYPERTAPE_PRODUCTS has a value that is not possible here.
std::string info_report();

}  // namespace hypertape
