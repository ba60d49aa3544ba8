# House rules for targets: one function a kind, so that flags and links are said once.

add_library(cfsr_flags INTERFACE)
target_compile_definitions(cfsr_flags INTERFACE _GNU_SOURCE CFSR_VERSION="${PROJECT_VERSION}")
target_compile_options(
  cfsr_flags
  INTERFACE -Wall
            -Wextra
            -Wshadow
            -Wconversion
            -Wmissing-prototypes
            -Wstrict-prototypes
            -Wvla
            -Wundef
            -Wwrite-strings
            -Wpointer-arith
            -fno-strict-aliasing
            -fno-omit-frame-pointer
            -fstack-protector-strong
            $<$<BOOL:${CFSR_WERROR}>:-Werror>
            $<$<CONFIG:RelWithDebInfo,Release>:-O2>)
target_include_directories(cfsr_flags INTERFACE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src
                                                ${PROJECT_SOURCE_DIR})
if(CFSR_SANITIZE)
  target_compile_options(cfsr_flags INTERFACE -fsanitize=${CFSR_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(cfsr_flags INTERFACE -fsanitize=${CFSR_SANITIZE})
endif()
if(CFSR_FUZZ)
  # Every library is watched; only the targets of tests/fuzz link libFuzzer's main().
  target_compile_options(cfsr_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined
                                              -fno-sanitize-recover=all)
  target_link_options(cfsr_flags INTERFACE -fsanitize=address,undefined)
endif()
if(CFSR_COVERAGE)
  # Threads of one program count in the same words.
  target_compile_options(cfsr_flags INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(cfsr_flags INTERFACE --coverage)
endif()

# cfsr_library(NAME SOURCES a.c b.c LINK lib...): a static library of one folder.
function(cfsr_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK;PRIVATE_LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC cfsr_flags ${ARG_LINK} PRIVATE ${ARG_PRIVATE_LINK})
endfunction()

# cfsr_program(NAME SOURCES a.c LINK lib...): an executable in build/bin, installed.
function(cfsr_program name)
  cmake_parse_arguments(ARG "NO_INSTALL" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE cfsr_flags ${ARG_LINK})
  if(NOT ARG_NO_INSTALL)
    install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endfunction()

# cfsr_test(NAME SOURCES t.c LINK lib... [LABELS l]): one Criterion program, one ctest entry.
function(cfsr_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LINK;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE cfsr_flags ${ARG_LINK} PkgConfig::CRITERION)
  # Criterion's macros define and shadow at file scope by design.
  target_compile_options(${name} PRIVATE -Wno-missing-prototypes -Wno-shadow)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name} --short-filename)
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} SKIP_RETURN_CODE 77 LABELS
                                                                           "unit;${ARG_LABELS}")
endfunction()
