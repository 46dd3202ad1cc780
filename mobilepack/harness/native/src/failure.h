// The runtime's errors as ours.
#pragma once

#include <executorch/runtime/core/error.h>

#include <cstdio>
#include <stdexcept>

namespace mobilepack {

[[noreturn]] inline void fail(const char* doing, executorch::runtime::Error error) {
  char text[160];
  std::snprintf(text, sizeof text, "%s: ExecuTorch error 0x%x (%s)", doing,
                static_cast<unsigned>(error), executorch::runtime::to_string(error));
  throw std::runtime_error(text);
}

}  // namespace mobilepack
