# Install rules: the library, its public headers, the program, and the CMake and pkg-config packages.

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_directory "${CMAKE_INSTALL_LIBDIR}/cmake/Hypertape")

install(TARGETS hypertape EXPORT HypertapeTargets FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT HypertapeTargets NAMESPACE hypertape:: DESTINATION "${package_directory}")
if(TARGET hypertape_program)
  install(TARGETS hypertape_program)
  if(BUILD_SHARED_LIBS)
    file(RELATIVE_PATH library_from_program "/${CMAKE_INSTALL_BINDIR}" "/${CMAKE_INSTALL_LIBDIR}")
    set_target_properties(hypertape_program PROPERTIES INSTALL_RPATH "$ORIGIN/${library_from_program}")
  endif()
endif()

configure_package_config_file(
  "${CMAKE_CURRENT_LIST_DIR}/HypertapeConfig.cmake.in" "${PROJECT_BINARY_DIR}/HypertapeConfig.cmake"
  INSTALL_DESTINATION "${package_directory}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/HypertapeConfigVersion.cmake"
                                 COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/HypertapeConfig.cmake"
              "${PROJECT_BINARY_DIR}/HypertapeConfigVersion.cmake"
              "${CMAKE_CURRENT_LIST_DIR}/FindOpenBLAS.cmake" DESTINATION "${package_directory}")

# pkg-config knows no static libraries: what a static Hypertape needs must be required of everyone.
if(BUILD_SHARED_LIBS)
  set(pc_requires "Requires.private: openblas")
  set(pc_libs "-lhypertape")
else()
  set(pc_requires "Requires: openblas")
  set(pc_libs "-lhypertape -lstdc++ -lm -lpthread -ldl")
endif()
file(RELATIVE_PATH prefix_from_pc "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
configure_file("${CMAKE_CURRENT_LIST_DIR}/hypertape.pc.in" "${PROJECT_BINARY_DIR}/hypertape.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/hypertape.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}")
