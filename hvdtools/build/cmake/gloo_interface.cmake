# Horovod 0.28.1 applies HOROVOD_GLOO_IFACE only to its first contexts. The context for the tensors
# (GlooContext::InitializeForProcessSet) reads a member variable that is never set, and uses the
# interface of the host name instead. If that is 127.0.1.1, as on Debian, ranks on other hosts
# cannot connect; if it is another network, gradients travel over that network. This function adds
# the missing qualifier to the copy of the source that is built.
function(hvdtools_fix_gloo_interface file)
  if(NOT EXISTS "${file}")
    return()
  endif()
  file(READ "${file}" text)
  set(before "device_attr.iface = gloo_iface_;\n  device_attr.ai_family = AF_UNSPEC;\n")
  set(wrong "${before}  auto dev = CreateDevice(device_attr);\n\n  global_ctx = ")
  string(REPLACE "iface = gloo_iface_" "iface = global_context.gloo_iface_" right "${wrong}")
  string(FIND "${text}" "${wrong}" place)
  if(place EQUAL -1)
    string(FIND "${text}" "${right}" place)
    if(place EQUAL -1)
      message(FATAL_ERROR "${file} is not from Horovod 0.28.1: HOROVOD_GLOO_IFACE cannot be fixed.")
    endif()
    return()
  endif()
  string(REPLACE "${wrong}" "${right}" text "${text}")
  file(WRITE "${file}" "${text}")
endfunction()
