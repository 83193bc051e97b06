# The library's own files are optimised in every configuration but Debug, also where a project that takes it in by
# add_subdirectory has chosen none; in Debug the kernels are. No other target of that project sees any of this.
#
#   HYPERTAPE_DEBUG_KERNELS   optimisation of the kernels in Debug; -O0 to step through them

set(HYPERTAPE_DEBUG_KERNELS "-O2" CACHE STRING "Optimisation of the library's kernels in Debug, such as -O0")

# hypertape_optimise(<target>): -O3 in each configuration whose flags say nothing, but for Debug.
function(hypertape_optimise target)
  get_property(multi GLOBAL PROPERTY GENERATOR_IS_MULTI_CONFIG)
  set(configurations "${CMAKE_CONFIGURATION_TYPES}")
  if(NOT multi)
    set(configurations "${CMAKE_BUILD_TYPE}")
  endif()
  if(configurations STREQUAL "")
    set(configurations "none")
  endif()
  foreach(configuration IN LISTS configurations)
    string(TOUPPER "${configuration}" upper)
    set(flags "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${upper}}")
    if(upper STREQUAL "DEBUG")
      message(STATUS "Hypertape: kernels are compiled with ${HYPERTAPE_DEBUG_KERNELS} in Debug (HYPERTAPE_DEBUG_KERNELS)")
    elseif(NOT " ${flags} " MATCHES " [-/]O")
      message(STATUS "Hypertape: build type ${configuration} optimises nothing; the library's own files get -O3")
      if(multi)
        target_compile_options(${target} PRIVATE $<$<CONFIG:${configuration}>:-O3>)
      else()
        target_compile_options(${target} PRIVATE -O3)
      endif()
    endif()
  endforeach()
endfunction()

# hypertape_optimise_kernels(): the sources with loops over elements.
function(hypertape_optimise_kernels)
  set(core "${CMAKE_CURRENT_SOURCE_DIR}/core")
  file(GLOB_RECURSE kernels "${core}/cpu/*.cpp" "${core}/random/*.cpp" "${core}/backend/*.cpp")
  set_property(SOURCE ${kernels} APPEND PROPERTY COMPILE_OPTIONS "$<$<CONFIG:Debug>:${HYPERTAPE_DEBUG_KERNELS}>")
endfunction()
