# Toolchain of the preset arm64: cross-compiles on another Debian, with the libraries that scripts/arm64_sysroot
# unpacks, and runs the tests in qemu's user mode.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

set(sysroot "${CMAKE_CURRENT_LIST_DIR}/../build/arm64-sysroot")
cmake_path(NORMAL_PATH sysroot)
if(NOT EXISTS "${sysroot}/complete")
  message(FATAL_ERROR "${sysroot} is not there or not complete; run scripts/arm64_sysroot")
endif()

# Not CMAKE_SYSROOT: the C library's headers are the compiler's own. Libraries and packages of this machine would be
# for the wrong processor.
set(CMAKE_FIND_ROOT_PATH "${sysroot}")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(PKG_CONFIG_EXECUTABLE "" CACHE FILEPATH "This machine's would answer for this machine")

# What OpenBLAS itself needs.
set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,-rpath-link,${sysroot}/usr/lib/aarch64-linux-gnu")

# -L: where the interpreter and the standard libraries of a program are.
set(CMAKE_CROSSCOMPILING_EMULATOR "qemu-aarch64;-L;${sysroot}")
