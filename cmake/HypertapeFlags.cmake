# How everything in this tree is compiled. Nothing here reaches a consumer.

add_library(hypertape_flags INTERFACE)
target_compile_features(hypertape_flags INTERFACE cxx_std_20)

# Equal bits in every mode need the same rounding in every kernel, hence no contraction: fused multiply-adds
# are written out. Without errno and traps the compiler vectorises exp and tanh; neither flag changes a value.
target_compile_options(
  hypertape_flags INTERFACE -ffp-contract=off -fno-math-errno -fno-trapping-math -Wall -Wextra -Wconversion
                            -Wno-sign-conversion -Wshadow $<$<BOOL:${HYPERTAPE_WERROR}>:-Werror>)

# gcc 12 sees overlapping copies in ordinary string concatenation (gcc bug 105651).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(hypertape_flags INTERFACE -Wno-restrict)
endif()

# Pragmas that are only for gcc's vectoriser; and conditions that are joined by | and & so that loops stay without
# branches.
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  target_compile_options(hypertape_flags INTERFACE -Wno-unknown-pragmas -Wno-bitwise-instead-of-logical)
endif()

# Every target of the tree links hypertape_flags and has these properties.
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
# The static library may end up inside somebody's shared one.
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(HYPERTAPE_X86_64 ON)
else()
  set(HYPERTAPE_X86_64 OFF)
endif()

# hypertape_select_isa(<list variable>)
#
# Sources named *_avx2.cpp and *_avx512.cpp are compiled for those instruction sets, to be called only after a
# check of the CPU; on other architectures they leave the list. (Where a CPU does not know prefetchw, it does
# nothing.)
function(hypertape_select_isa sources_variable)
  set(sources ${${sources_variable}})
  set(avx2 ${sources})
  set(avx512 ${sources})
  list(FILTER avx2 INCLUDE REGEX "_avx2\\.cpp$")
  list(FILTER avx512 INCLUDE REGEX "_avx512\\.cpp$")
  if(HYPERTAPE_X86_64)
    set_source_files_properties(${avx2} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mprfchw")
    set_source_files_properties(
      ${avx512}
      PROPERTIES
        COMPILE_OPTIONS
        "-mavx2;-mfma;-mprfchw;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mprefer-vector-width=512")
  else()
    list(FILTER sources EXCLUDE REGEX "_avx(2|512)\\.cpp$")
    set(${sources_variable} ${sources} PARENT_SCOPE)
  endif()
endfunction()
