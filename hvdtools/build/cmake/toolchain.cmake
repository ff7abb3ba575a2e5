# Read by cmake through the environment variable CMAKE_TOOLCHAIN_FILE, so that
# Horovod's own setup.py and CMakeLists.txt stay as they are. What differs from
# one build to the next comes in the HVDTOOLS_* variables.

# PyTorch 2.1 and TensorFlow 2.10 want C++17; Horovod asks for C++14, and gloo for C++11.
set(CMAKE_USER_MAKE_RULES_OVERRIDE_CXX "${CMAKE_CURRENT_LIST_DIR}/cxx17.cmake")
set(CMAKE_USER_MAKE_RULES_OVERRIDE_CUDA "${CMAKE_CURRENT_LIST_DIR}/cxx17.cmake")
set(CMAKE_PROJECT_INCLUDE "${CMAKE_CURRENT_LIST_DIR}/project.cmake")

# A wheel that is kept serves another environment too: its libraries find MPI and the
# frameworks from where they lie, not from where they were built.
set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)
set(CMAKE_INSTALL_RPATH "$ENV{HVDTOOLS_RPATH}")

if(NOT "$ENV{HVDTOOLS_MPICXX}" STREQUAL "")
  set(MPI_CXX_COMPILER "$ENV{HVDTOOLS_MPICXX}" CACHE FILEPATH "The MPI that was found")
  # gloo looks for MPI in C: without it, it drops what Horovod's library calls, and says nothing.
  set(MPI_C_COMPILER "$ENV{HVDTOOLS_MPICC}" CACHE FILEPATH "The MPI that was found")
endif()

if("$ENV{HVDTOOLS_CUDA}" STREQUAL "1")
  if(NOT "$ENV{HVDTOOLS_CUDA_ARCHITECTURES}" STREQUAL "")
    set(CMAKE_CUDA_ARCHITECTURES "$ENV{HVDTOOLS_CUDA_ARCHITECTURES}")
  endif()
else()
  # Frameworks without CUDA: an nvcc on PATH must not draw CUDA in.
  set(CMAKE_CUDA_COMPILER NOTFOUND)
  set(CMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit ON)
endif()
