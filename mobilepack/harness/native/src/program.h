// A loaded program's method as one call of the model.
#pragma once

#include <cstdint>
#include <executorch/extension/module/module.h>
#include <memory>
#include <string>
#include <vector>

#include "plan.h"

namespace mobilepack {

// Logits of the last token of a call; overwritten by the next call.
struct Logits {
  const float* data = nullptr;
  size_t size = 0;
};

class Program {
 public:
  // Maps the file and prepares the method. Throws std::runtime_error with the runtime's code.
  Program(const std::string& path, const Plan& plan);

  // Feeds `count` tokens from a position on. A program with a recurrent state is fed again from its
  // beginning when a call rewinds it, as mobilepack/harness/runner.py does.
  Logits step(const int64_t* tokens, size_t count, int64_t position);

  // Feeds any number of tokens in calls of at most the plan's chunk.
  Logits prefill(const int64_t* tokens, size_t count, int64_t position);

 private:
  Logits call(const int64_t* tokens, size_t count, int64_t position);

  executorch::extension::Module module_;
  std::string method_;
  size_t chunk_;
  bool recurrent_ = false;
  std::vector<int64_t> fed_;
  std::vector<int64_t> buffer_;
};

}  // namespace mobilepack
