# Tests of the tree itself: what the library could print, what a configure could download, which room includes which,
# where the version is said, and pages that are generated. Label `tree`: the sanitizers have nothing to look for here.

set(checks "${PROJECT_SOURCE_DIR}/cmake")

set(objects_list "${PROJECT_BINARY_DIR}/library_objects.txt")
file(GENERATE OUTPUT "${objects_list}" CONTENT "$<JOIN:$<TARGET_OBJECTS:hypertape_objects>,\n>\n")
add_test(NAME library_is_quiet COMMAND "${CMAKE_COMMAND}" "-DNM=${CMAKE_NM}" "-DOBJECTS=${objects_list}" -P
                                       "${checks}/CheckQuiet.cmake")

add_test(NAME nothing_is_downloaded COMMAND "${CMAKE_COMMAND}" "-DSOURCE=${PROJECT_SOURCE_DIR}" -P
                                            "${checks}/CheckOffline.cmake")

add_test(NAME includes_go_down COMMAND "${CMAKE_COMMAND}" "-DSOURCE=${PROJECT_SOURCE_DIR}" -P
                                        "${checks}/CheckLayers.cmake")

set(version_arguments "-DSOURCE=${PROJECT_SOURCE_DIR}" "-DBINARY=${PROJECT_BINARY_DIR}" "-DVERSION=${PROJECT_VERSION}")
if(TARGET hypertape_program)
  list(APPEND version_arguments "-DPROGRAM=$<TARGET_FILE:hypertape_program>")
endif()
add_test(NAME version_is_one COMMAND "${CMAKE_COMMAND}" ${version_arguments} -P "${checks}/CheckVersion.cmake")

# docs/operations.md is generated from the operations' sources; target `operations_page` writes it anew.
add_executable(hypertape_operations_page "${PROJECT_SOURCE_DIR}/docs/operations_page.cpp")
target_link_libraries(hypertape_operations_page PRIVATE hypertape_flags)
add_custom_target(
  operations_page
  COMMAND hypertape_operations_page "${PROJECT_SOURCE_DIR}" --write
  VERBATIM)
add_test(NAME operations_page_is_up_to_date COMMAND hypertape_operations_page "${PROJECT_SOURCE_DIR}" --check)

set_tests_properties(library_is_quiet nothing_is_downloaded includes_go_down version_is_one
                     operations_page_is_up_to_date PROPERTIES LABELS tree)

# The chapter's numbers are looked up in the chapter.
set_source_files_properties(test_on_hypergradients.cpp PROPERTIES COMPILE_DEFINITIONS
                                                                  "HYPERTAPE_SOURCE_DIR=\"${PROJECT_SOURCE_DIR}\"")
