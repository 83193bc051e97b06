# The library, hypertape::hypertape.
#
# Its objects are compiled once, as hypertape_objects: the library is made of them, and the tests and
# benchmarks link them directly because they reach symbols that a shared library hides.

set(folders core autodiff nn optim bilevel)

set(sources)
set(public_headers)
set(public_directories)
foreach(folder IN LISTS folders)
  file(GLOB_RECURSE folder_sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.cpp")
  file(GLOB folder_headers CONFIGURE_DEPENDS
       "${CMAKE_CURRENT_SOURCE_DIR}/${folder}/include/hypertape/${folder}/*.h"
       "${CMAKE_CURRENT_SOURCE_DIR}/${folder}/include/hypertape/${folder}/*.def")
  list(APPEND sources ${folder_sources})
  list(APPEND public_headers ${folder_headers})
  list(APPEND public_directories "${CMAKE_CURRENT_SOURCE_DIR}/${folder}/include")
endforeach()
# The umbrella header, once there is one.
file(GLOB umbrella_headers CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*/include/hypertape/*.h")
list(APPEND public_headers ${umbrella_headers})

hypertape_select_isa(sources)

# Kernels take clang minutes to instrument: those of the baseline stand for the others, which are made of the same
# source. Elementwise ones have masked loads and stores of their own, which the address sanitizer sees.
if(HYPERTAPE_BUILD_FUZZ)
  set(products ${sources})
  list(FILTER products INCLUDE REGEX "/products/kernels_avx[0-9]+\\.cpp$")
  set_property(SOURCE ${products} APPEND PROPERTY COMPILE_OPTIONS "-fno-sanitize=all;-fno-sanitize-coverage=edge")
  set(elementwise ${sources})
  list(FILTER elementwise INCLUDE REGEX "/backend/kernels_avx[0-9]+\\.cpp$")
  set_property(SOURCE ${elementwise} APPEND PROPERTY COMPILE_OPTIONS "-fno-sanitize=undefined")
endif()

# gcc clears a struct of some 130 bytes by `rep stos`, which takes 10 ns to begin: a tenth of an operation's cost.
if(HYPERTAPE_X86_64 AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  file(GLOB_RECURSE tape "${CMAKE_CURRENT_SOURCE_DIR}/autodiff/*.cpp")
  set_property(SOURCE ${tape} APPEND PROPERTY COMPILE_OPTIONS
                                              "-mmemset-strategy=unrolled_loop:256:noalign,libcall:-1:noalign")
endif()

include(HypertapeOptimisation)
hypertape_optimise_kernels()

add_library(hypertape_objects OBJECT ${sources})
hypertape_optimise(hypertape_objects)
# Callers may have threads of 64 KiB: no function's frame takes a third of that. Sanitizers widen frames, and
# so does a build without optimisation.
if(HYPERTAPE_WERROR AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND NOT CMAKE_CXX_FLAGS MATCHES "-fsanitize=")
  target_compile_options(hypertape_objects PRIVATE $<$<NOT:$<CONFIG:Debug>>:-Wstack-usage=19456>)
endif()
# Private headers are included by their path from the root: "core/cpu/reduce/reduction.h".
target_include_directories(hypertape_objects PUBLIC ${public_directories} "${CMAKE_CURRENT_SOURCE_DIR}")
target_link_libraries(hypertape_objects PUBLIC hypertape_flags OpenBLAS::OpenBLAS Threads::Threads
                                               ${CMAKE_DL_LIBS})

add_library(hypertape $<TARGET_OBJECTS:hypertape_objects>)
add_library(hypertape::hypertape ALIAS hypertape)
target_sources(hypertape PUBLIC FILE_SET HEADERS BASE_DIRS ${public_directories} FILES ${public_headers})
target_compile_features(hypertape PUBLIC cxx_std_20)
# The soname carries the minor version: before 1.0 each minor version may break the binary interface.
set_target_properties(
  hypertape
  PROPERTIES LINKER_LANGUAGE CXX
             VERSION ${PROJECT_VERSION}
             SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
target_link_libraries(hypertape PRIVATE OpenBLAS::OpenBLAS Threads::Threads ${CMAKE_DL_LIBS})
if(BUILD_SHARED_LIBS AND UNIX AND NOT APPLE)
  set(exports "${CMAKE_CURRENT_SOURCE_DIR}/cmake/hypertape.map")
  target_link_options(hypertape PRIVATE "LINKER:--version-script=${exports}")
  set_property(TARGET hypertape APPEND PROPERTY LINK_DEPENDS "${exports}")
endif()
