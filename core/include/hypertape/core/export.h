// The two macros a public header may define: visibility of the library's symbols.
#pragma once

#if defined(_WIN32)
#define HYPERTAPE_API
#else
/// Marks what the shared library exports; everything else is hidden.
#define HYPERTAPE_API __attribute__((visibility("default")))
#endif
