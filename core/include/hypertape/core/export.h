// Included by every public header: the language they need, and the visibility of the library's symbols.
#pragma once

#if (!defined(_MSVC_LANG) && __cplusplus < 202002L) || (defined(_MSVC_LANG) && _MSVC_LANG < 202002L)
#error "Hypertape needs C++20: compile with -std=c++20 or a later standard"
#endif

#if defined(_WIN32)
#define HYPERTAPE_API
#else
/// Marks what the shared library exports; everything else is hidden.
#define HYPERTAPE_API __attribute__((visibility("default")))
#endif
