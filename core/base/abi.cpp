// How this library was compiled: the symbols that programs compiled alike refer to.
#include <hypertape/core/abi.h>

extern "C" {
constinit const char HYPERTAPE_ABI_CONTAINERS = 0;
constinit const char HYPERTAPE_ABI_STRINGS = 0;
constinit const char HYPERTAPE_ABI_SANITIZER = 0;
}
