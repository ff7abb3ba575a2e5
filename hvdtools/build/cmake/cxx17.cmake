# Whatever standard a target asks for, C++17 is what it gets.
foreach(language CXX CUDA)
  foreach(standard 11 14)
    set(CMAKE_${language}${standard}_STANDARD_COMPILE_OPTION "-std=c++17")
    set(CMAKE_${language}${standard}_EXTENSION_COMPILE_OPTION "-std=c++17")
  endforeach()
endforeach()
