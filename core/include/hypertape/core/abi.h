// A program and the library must agree on the layout of the standard library's types, which some macros
// change: a program that was compiled otherwise would crash in its first std::vector. Each file that includes
// Hypertape's headers refers to symbols that the library has only if it was compiled alike, so that the
// linker refuses instead, with a name that says what to do (docs/embedding.md).
#pragma once

#include <cstddef>  // the standard library's own macros

#include <hypertape/core/export.h>

// Vectors, strings and lists with checks in them.
#if defined(_GLIBCXX_DEBUG)
#define HYPERTAPE_ABI_CONTAINERS hypertape_must_be_compiled_with_D_GLIBCXX_DEBUG_as_this_program_is
#else
#define HYPERTAPE_ABI_CONTAINERS hypertape_must_be_compiled_without_D_GLIBCXX_DEBUG_as_this_program_is
#endif

// Which standard library, and which of the two strings of libstdc++.
#if defined(_LIBCPP_VERSION)
#define HYPERTAPE_ABI_STRINGS hypertape_must_be_compiled_with_stdlib_libcxx_as_this_program_is
#elif defined(_GLIBCXX_USE_CXX11_ABI) && !_GLIBCXX_USE_CXX11_ABI
#define HYPERTAPE_ABI_STRINGS hypertape_must_be_compiled_with_D_GLIBCXX_USE_CXX11_ABI_0_as_this_program_is
#else
#define HYPERTAPE_ABI_STRINGS hypertape_must_be_compiled_with_D_GLIBCXX_USE_CXX11_ABI_1_as_this_program_is
#endif

// Vectors whose spare capacity the address sanitizer is told of: by all that grow them or by none.
#if defined(_GLIBCXX_SANITIZE_VECTOR)
#define HYPERTAPE_ABI_SANITIZER hypertape_must_be_compiled_with_D_GLIBCXX_SANITIZE_VECTOR_as_this_program_is
#else
#define HYPERTAPE_ABI_SANITIZER \
  hypertape_must_be_compiled_without_D_GLIBCXX_SANITIZE_VECTOR_as_this_program_is
#endif

extern "C" {
HYPERTAPE_API extern const char HYPERTAPE_ABI_CONTAINERS;
HYPERTAPE_API extern const char HYPERTAPE_ABI_STRINGS;
HYPERTAPE_API extern const char HYPERTAPE_ABI_SANITIZER;
}

// One reference for each choice, not one for all: the linker keeps one of several definitions of a name, and
// a program whose files differ among themselves would not be seen. What nobody uses must stay, also under
// --gc-sections.
#if defined(__has_attribute)
#if __has_attribute(retain)
#define HYPERTAPE_ABI_KEEP __attribute__((used, retain, visibility("hidden")))
#endif
#endif
#if !defined(HYPERTAPE_ABI_KEEP) && defined(__GNUC__)
#define HYPERTAPE_ABI_KEEP __attribute__((used, visibility("hidden")))
#elif !defined(HYPERTAPE_ABI_KEEP)
#define HYPERTAPE_ABI_KEEP
#endif
#define HYPERTAPE_ABI_REFER_TO(symbol) HYPERTAPE_ABI_REFERENCE(symbol)
#define HYPERTAPE_ABI_REFERENCE(symbol) \
  HYPERTAPE_ABI_KEEP inline const char* const refers_to_##symbol = &symbol;

namespace hypertape::detail {
HYPERTAPE_ABI_REFER_TO(HYPERTAPE_ABI_CONTAINERS)
HYPERTAPE_ABI_REFER_TO(HYPERTAPE_ABI_STRINGS)
HYPERTAPE_ABI_REFER_TO(HYPERTAPE_ABI_SANITIZER)
}  // namespace hypertape::detail
