// A loaded program as one call of the model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "plan.h"

namespace mobilepack {

// Logits of the last token of a call; overwritten by the next call.
struct Logits {
  const float* data = nullptr;
  size_t size = 0;
};

class Program {
 public:
  virtual ~Program() = default;

  // Feeds `count` tokens from a position on. Throws std::runtime_error with the runtime's code, or
  // if the program does not take so many there.
  virtual Logits step(const int64_t* tokens, size_t count, int64_t position) = 0;
};

// Maps the file and prepares its methods: those of the static form if the package's manifest (its
// text, empty without one) describes them, else the plan's, which keeps the cache in place. Throws
// std::runtime_error with the runtime's code, or with what of the manifest cannot be.
std::unique_ptr<Program> open_program(const std::string& path, const std::string& manifest,
                                      const Plan& plan);

}  // namespace mobilepack
