# cmake -DSOURCE=<root> -P CheckLayers.cmake: includes of rooms go down the house,
# never up and never in a circle.
#
# One line a room, the lowest first: the room, and the rooms of its includes. A room may be named only by those below it
# in this list, so that a circle cannot be written down. <module>/include holds the public headers of a module.
cmake_minimum_required(VERSION 3.25)

set(tensor "core/include core/base core/tensor core/backend")
set(kernel "core/include core/base core/memory core/elementwise core/backend core/cpu core/cpu/isa")
set(rule "autodiff/include autodiff/tape autodiff/ops core/include")
set(run "bilevel/include optim/include autodiff/include autodiff/tape ${tensor}")
set(rooms
    "core/include:"
    "core/base: core/include"
    "core/elementwise: core/include"
    "core/threads: core/include core/base"
    "core/memory: core/include core/base core/threads"
    "core/backend: core/include core/base core/elementwise"
    "core/tensor: core/include core/base core/memory core/backend"
    "core/random: ${tensor}"
    "core/cpu/isa: core/include core/base core/elementwise core/backend"
    "core/cpu: core/include core/base core/memory core/threads core/elementwise core/backend core/cpu/isa"
    "core/cpu/elementwise: ${kernel}"
    "core/cpu/reduce: ${kernel}"
    "core/cpu/products: ${kernel}"
    "core/cpu/softmax: ${kernel}"
    "core/cpu/indexing: ${kernel}"
    "core/cpu/steps: ${kernel}"
    "core/cpu/reversible: ${kernel}"
    "core/cpu/random: ${kernel} core/random"
    "core/cpu/backend: ${kernel} core/threads core/tensor core/random core/cpu/elementwise core/cpu/reduce core/cpu/products core/cpu/softmax core/cpu/indexing core/cpu/steps core/cpu/reversible core/cpu/random"
    "autodiff/include: core/include"
    "autodiff/tape: autodiff/include core/threads ${tensor}"
    "autodiff/ops: autodiff/include autodiff/tape ${tensor}"
    "autodiff/ops/elementwise: ${rule} core/elementwise"
    "autodiff/ops/products: ${rule} autodiff/ops/elementwise"
    "autodiff/ops/shape: ${rule} core/backend"
    "autodiff/ops/indexing: ${rule}"
    "autodiff/ops/softmax: ${rule} core/backend"
    "autodiff/ops/reduce: ${rule} autodiff/ops/indexing autodiff/ops/softmax"
    "autodiff/ops/losses: ${rule}"
    "autodiff/ops/steps: ${rule}"
    "autodiff/transforms: ${rule} core/base autodiff/ops/elementwise"
    "nn/include: autodiff/include core/include"
    "nn: nn/include autodiff/include core/include core/base"
    "optim/include: nn/include autodiff/include core/include"
    "optim: optim/include autodiff/include autodiff/tape autodiff/ops ${tensor}"
    "bilevel/include: optim/include nn/include autodiff/include core/include"
    "bilevel/run: ${run}"
    "bilevel/minimum: ${run} bilevel/run"
    "bilevel/result: ${run} bilevel/run bilevel/minimum"
    "bilevel/plan: ${run} bilevel/run bilevel/result"
    "bilevel/outer: bilevel/include bilevel/run optim/include autodiff/include core/include core/base"
    "cli: bilevel/include optim/include nn/include autodiff/include core/include")

# Includes that point up, to be mended. The list only shrinks: one that is mended must leave it.
set(known "core/backend/backend.h: core/tensor/header.h"
          "cli/available_memory.cpp: core/threads/control_groups.h")

set(faults)
set(names)
foreach(line IN LISTS rooms)
  string(REGEX MATCH "^([^:]+): ?(.*)$" found "${line}")
  set(room "${CMAKE_MATCH_1}")
  string(REPLACE " " ";" may_use "${CMAKE_MATCH_2}")
  foreach(used IN LISTS may_use)
    if(NOT used IN_LIST names)
      list(APPEND faults "CheckLayers.cmake lets ${room} use ${used}, which is not below it")
    endif()
  endforeach()
  list(APPEND names "${room}")
  set(uses_${room} "${room}" ${may_use})
endforeach()

# The room of a path from the root, or of <hypertape/module/x.h>.
function(room_of path result)
  string(REGEX REPLACE "/[^/]*$" "" room "${path}")
  string(REGEX REPLACE "^([a-z]+)/include/hypertape/.*$" "\\1/include" room "${room}")
  string(REGEX REPLACE "^hypertape/([a-z]+)$" "\\1/include" room "${room}")
  set(${result} "${room}" PARENT_SCOPE)
endfunction()

set(seen)
foreach(module core autodiff nn optim bilevel cuda cli)
  file(GLOB_RECURSE files RELATIVE "${SOURCE}" "${SOURCE}/${module}/*.h" "${SOURCE}/${module}/*.cpp"
       "${SOURCE}/${module}/*.inc" "${SOURCE}/${module}/*.def" "${SOURCE}/${module}/*.cu" "${SOURCE}/${module}/*.cuh")
  foreach(file IN LISTS files)
    if(file MATCHES "^[a-z]+/include/hypertape/[a-z]+\\.h$")  # the umbrella
      continue()
    endif()
    room_of("${file}" room)
    if(NOT room IN_LIST names)
      list(APPEND faults "${file}: CheckLayers.cmake has no room ${room}")
      continue()
    endif()
    file(STRINGS "${SOURCE}/${file}" lines REGEX "#[ \t]*include[ \t]*[\"<A-Za-z_]")
    foreach(line IN LISTS lines)
      if(NOT line MATCHES "(\"|<(hypertape|core|autodiff|nn|optim|bilevel|cuda|cli)/)")  # somebody else's
        continue()
      endif()
      string(REGEX REPLACE "^[^\"<]*[\"<]([^\">]+).*$" "\\1" included "${line}")
      if(NOT included MATCHES "/" AND EXISTS "${SOURCE}/cli/${included}" AND module STREQUAL "cli")
        continue()
      elseif(line MATCHES "\"hypertape/")
        list(APPEND faults "${file}: public headers are included as <${included}>")
      elseif(NOT included MATCHES "^hypertape/" AND NOT EXISTS "${SOURCE}/${included}")
        list(APPEND faults "${file}: \"${included}\" is not a path from the root")
      endif()
      room_of("${included}" used)
      if(NOT used IN_LIST "uses_${room}")
        if("${file}: ${included}" IN_LIST known)
          list(APPEND seen "${file}: ${included}")
        else()
          list(APPEND faults "${file}: ${room} may not use ${used} (${included})")
        endif()
      endif()
    endforeach()
  endforeach()
endforeach()

foreach(entry IN LISTS known)
  if(NOT entry IN_LIST seen)
    list(APPEND faults "mended, and still in CheckLayers.cmake's list: ${entry}")
  endif()
endforeach()
if(faults)
  list(JOIN faults "\n  " text)
  message(FATAL_ERROR "Includes that leave the house's order:\n  ${text}")
endif()
