# cmake reads this file because CMAKE_TOOLCHAIN_FILE names it, so that the build files of Horovod
# stay unchanged. The HVDTOOLS_* variables have what differs between builds.

# PyTorch 2.1 and TensorFlow 2.10 need C++17; Horovod requests C++14, and gloo C++11.
set(CMAKE_USER_MAKE_RULES_OVERRIDE_CXX "${CMAKE_CURRENT_LIST_DIR}/cxx17.cmake")
set(CMAKE_USER_MAKE_RULES_OVERRIDE_CUDA "${CMAKE_CURRENT_LIST_DIR}/cxx17.cmake")
set(CMAKE_PROJECT_INCLUDE "${CMAKE_CURRENT_LIST_DIR}/project.cmake")

# A kept wheel can be installed in another environment: its libraries find MPI and the frameworks
# relative to where they are installed.
set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)
set(CMAKE_INSTALL_RPATH "$ENV{HVDTOOLS_RPATH}")

if(NOT "$ENV{HVDTOOLS_MPICXX}" STREQUAL "")
  set(MPI_CXX_COMPILER "$ENV{HVDTOOLS_MPICXX}" CACHE FILEPATH "The MPI that was found")
  # gloo looks for MPI in C: without it, gloo silently omits code that Horovod calls.
  set(MPI_C_COMPILER "$ENV{HVDTOOLS_MPICC}" CACHE FILEPATH "The MPI that was found")
endif()

if("$ENV{HVDTOOLS_CUDA}" STREQUAL "1")
  if(NOT "$ENV{HVDTOOLS_CUDA_ARCHITECTURES}" STREQUAL "")
    set(CMAKE_CUDA_ARCHITECTURES "$ENV{HVDTOOLS_CUDA_ARCHITECTURES}")
  endif()
else()
  # For frameworks without CUDA, ignore an nvcc on PATH.
  set(CMAKE_CUDA_COMPILER NOTFOUND)
  set(CMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit ON)
endif()
