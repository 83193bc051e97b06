# cmake -DNM=<nm> -DOBJECTS=<list of object files> -P CheckQuiet.cmake: the library's objects refer to nothing that writes
# to standard output or standard error, or that ends the process.
#
# Allowed all the same:
#   vsnprintf   writes into memory: what std::to_string of a double is made of.
#   std::ostream and std::ostringstream   stream into what the caller gives, or into the text of an Error.

cmake_minimum_required(VERSION 3.25)
set(forbidden
    # std::cout, cerr, clog, their wide kin, and the object that <iostream> initialises them with
    _ZSt4cout _ZSt4cerr _ZSt4clog _ZSt5wcout _ZSt5wcerr _ZSt5wclog _ZNSt8ios_base4InitC1Ev
    # stdio, also as _FORTIFY_SOURCE spells it
    stdout stderr printf fprintf vprintf vfprintf dprintf vdprintf __printf_chk __fprintf_chk __vprintf_chk
    __vfprintf_chk __dprintf_chk puts fputs putc fputc putchar putchar_unlocked fwrite perror psignal
    # the system
    write writev pwrite syslog __syslog_chk warn warnx err errx error
    # ends of the process; an assertion prints before it ends it
    exit _exit _Exit quick_exit abort __assert_fail system popen)

file(STRINGS "${OBJECTS}" objects)
list(LENGTH objects count)
set(found "")
set(symbols 0)
foreach(object IN LISTS objects)
  execute_process(COMMAND "${NM}" --undefined-only --format=posix "${object}" OUTPUT_VARIABLE text
                  COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]+" lines "${text}")
  foreach(line IN LISTS lines)
    string(REGEX REPLACE " .*" "" symbol "${line}")
    string(REGEX REPLACE "@.*" "" symbol "${symbol}")
    math(EXPR symbols "${symbols} + 1")
    if(symbol IN_LIST forbidden)
      string(APPEND found "\n  ${object}: ${symbol}")
    endif()
  endforeach()
endforeach()

if(symbols LESS 100)
  message(FATAL_ERROR "nm found ${symbols} symbols in ${count} objects: the check sees nothing")
endif()
if(found)
  message(FATAL_ERROR "the library must not print or exit; warnings go through warn_once, errors through fail:${found}")
endif()
message(STATUS "${symbols} references of ${count} objects, none that prints or exits")
