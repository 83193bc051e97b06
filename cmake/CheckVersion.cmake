# cmake -DSOURCE=<root> -DBINARY=<build> -DVERSION=<the project's> [-DPROGRAM=<hypertape>] -P CheckVersion.cmake:
# header, packages, program and change log say one version.
cmake_minimum_required(VERSION 3.25)
function(expect where text pattern)
  if(NOT text MATCHES "${pattern}")
    message(FATAL_ERROR "${where} does not say version ${VERSION} (expected ${pattern}): ${text}")
  endif()
endfunction()

string(REPLACE "." ";" parts "${VERSION}")
list(GET parts 0 major)
list(GET parts 1 minor)
list(GET parts 2 patch)
string(REPLACE "." "\\." escaped "${VERSION}")

file(READ "${SOURCE}/core/include/hypertape/core/version.h" header)
expect("version.h" "${header}" "HYPERTAPE_VERSION \"${escaped}\"")
expect("version.h" "${header}" "HYPERTAPE_VERSION_MAJOR ${major}\n")
expect("version.h" "${header}" "HYPERTAPE_VERSION_MINOR ${minor}\n")
expect("version.h" "${header}" "HYPERTAPE_VERSION_PATCH ${patch}\n")

if(EXISTS "${BINARY}/hypertape.pc")
  file(READ "${BINARY}/hypertape.pc" pc)
  expect("hypertape.pc" "${pc}" "\nVersion: ${escaped}\n")
  file(READ "${BINARY}/HypertapeConfigVersion.cmake" package)
  expect("HypertapeConfigVersion.cmake" "${package}" "PACKAGE_VERSION \"${escaped}\"")
endif()

if(PROGRAM)
  execute_process(COMMAND "${PROGRAM}" --version OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
  expect("hypertape --version" "${said}" "^hypertape ${escaped}\n$")
endif()

# The newest entry with a number is this version, or, between releases, an older one below "Unreleased".
file(STRINGS "${SOURCE}/CHANGELOG.md" headings REGEX "^## \\[")
list(GET headings 0 newest)
expect("the newest heading of CHANGELOG.md" "${newest}" "^## \\[(${escaped}|Unreleased)\\]")
