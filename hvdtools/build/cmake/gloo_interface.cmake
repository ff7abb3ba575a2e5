# Horovod 0.28.1 reads HOROVOD_GLOO_IFACE for its first contexts only: the context that moves the
# tensors (GlooContext::InitializeForProcessSet) asks a member of its own that nobody has set, and
# takes the interface of the host's name instead. Where that is 127.0.1.1, as Debian has it, ranks
# on other hosts cannot connect; where it is another network, gradients go over that. The copy of
# the source that is being built gets the one word that is missing.
function(hvdtools_mend_gloo_interface file)
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
      message(FATAL_ERROR "${file} is not Horovod 0.28.1's: HOROVOD_GLOO_IFACE cannot be fixed.")
    endif()
    return()
  endif()
  string(REPLACE "${wrong}" "${right}" text "${text}")
  file(WRITE "${file}" "${text}")
endfunction()
