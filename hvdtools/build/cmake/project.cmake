# Runs at the end of each project() call; only that of Horovod counts, not that of gloo.
if(PROJECT_NAME STREQUAL "horovod" AND "$ENV{HVDTOOLS_XLA_OPS}" STREQUAL "0")
  # Deferred to the end of the configuration, when the target exists.
  cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL
    set_source_files_properties "${CMAKE_SOURCE_DIR}/horovod/tensorflow/xla_mpi_ops.cc"
    TARGET_DIRECTORY tensorflow PROPERTIES HEADER_FILE_ONLY ON)
endif()

if(PROJECT_NAME STREQUAL "horovod")
  include("${CMAKE_CURRENT_LIST_DIR}/gloo_interface.cmake")
  hvdtools_fix_gloo_interface("${CMAKE_SOURCE_DIR}/horovod/common/gloo/gloo_context.cc")
endif()
