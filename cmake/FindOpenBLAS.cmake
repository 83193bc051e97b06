# Finds OpenBLAS with its C interface and defines OpenBLAS::OpenBLAS.
#
# A module of our own because distributions differ: some ship no CMake package, some one without a target.
# Installed next to HypertapeConfig.cmake, which needs it for consumers of the static library.
# Set OpenBLAS_ROOT to choose a copy.

find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
  pkg_check_modules(PC_OpenBLAS QUIET openblas)
endif()

find_path(
  OpenBLAS_INCLUDE_DIR
  NAMES cblas.h
  HINTS ${PC_OpenBLAS_INCLUDE_DIRS} ${PC_OpenBLAS_INCLUDEDIR}
  PATH_SUFFIXES openblas openblas-pthread)
find_library(
  OpenBLAS_LIBRARY
  NAMES openblas
  HINTS ${PC_OpenBLAS_LIBRARY_DIRS} ${PC_OpenBLAS_LIBDIR}
  PATH_SUFFIXES openblas-pthread)
mark_as_advanced(OpenBLAS_INCLUDE_DIR OpenBLAS_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  OpenBLAS
  REQUIRED_VARS OpenBLAS_LIBRARY OpenBLAS_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "Install it (Debian: libopenblas-dev) or set OpenBLAS_ROOT to its folder.")

if(OpenBLAS_FOUND AND NOT TARGET OpenBLAS::OpenBLAS)
  add_library(OpenBLAS::OpenBLAS UNKNOWN IMPORTED)
  set_target_properties(
    OpenBLAS::OpenBLAS PROPERTIES IMPORTED_LOCATION "${OpenBLAS_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES
                                                                          "${OpenBLAS_INCLUDE_DIR}")
endif()
