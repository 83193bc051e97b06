# cmake -DSOURCE=<root> -P CheckOffline.cmake: no file of the build asks for anything from a network. That a configure
# works without one is tested by tests/consumer/run.
cmake_minimum_required(VERSION 3.25)
file(GLOB_RECURSE files "${SOURCE}/CMakeLists.txt" "${SOURCE}/cmake/*" "${SOURCE}/CMakePresets.json")
list(FILTER files EXCLUDE REGEX "^${SOURCE}/build")
# The consumer fetches this very project from a folder; this file names what it looks for.
list(FILTER files EXCLUDE REGEX "/tests/consumer/|/CheckOffline\\.cmake$")
list(LENGTH files count)
if(count LESS 10)
  message(FATAL_ERROR "only ${count} files found: the check sees nothing")
endif()
foreach(file IN LISTS files)
  file(READ "${file}" text)
  if(text MATCHES "FetchContent|ExternalProject|CPM(Add|Find)|DOWNLOAD|https?://|git +clone|pip +install")
    message(FATAL_ERROR "${file} contains '${CMAKE_MATCH_0}'; nothing is downloaded at configure time")
  endif()
endforeach()
message(STATUS "${count} files, none that downloads")
