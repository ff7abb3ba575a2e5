# Targets get C++17, also if they request an older standard.
foreach(language CXX CUDA)
  foreach(standard 11 14)
    set(CMAKE_${language}${standard}_STANDARD_COMPILE_OPTION "-std=c++17")
    set(CMAKE_${language}${standard}_EXTENSION_COMPILE_OPTION "-std=c++17")
  endforeach()
endforeach()
