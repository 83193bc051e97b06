# cmake -DUMBRELLA=<hypertape.h> -DHEADERS=<names of the installed headers> -P CheckUmbrella.cmake: hypertape.h includes
# each of them itself.
cmake_minimum_required(VERSION 3.25)
file(READ "${UMBRELLA}" text)
list(LENGTH HEADERS count)
if(count LESS 10)
  message(FATAL_ERROR "${count} headers: the check sees nothing")
endif()
foreach(header IN LISTS HEADERS)
  string(FIND "${text}" "#include <${header}>\n" found)
  if(found EQUAL -1)
    message(FATAL_ERROR "hypertape.h does not include ${header}")
  endif()
endforeach()
