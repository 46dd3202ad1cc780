// A loaded program of the static form: `prefill` and `decode`, and a cache that lies with us.
#pragma once

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <string>
#include <vector>

#include "program.h"
#include "static_session.h"

namespace mobilepack {

// Rewinding is free, for positions say what of the cache counts.
class StaticProgram : public Program {
 public:
  // Maps the file and prepares both methods. Throws std::runtime_error with the runtime's code, or
  // with the first tensor that the program and the manifest describe differently.
  StaticProgram(const std::string& path, StaticForm form);

  Logits step(const int64_t* tokens, size_t count, int64_t position) override;

 private:
  // A method's inputs as the runtime wants them, over the session's memory.
  struct Inputs {
    Inputs(const MethodSpec& method, const std::vector<void*>& data);

    std::vector<executorch::extension::TensorPtr> tensors;
    std::vector<executorch::runtime::EValue> values;
  };

  executorch::extension::Module module_;
  StaticSession session_;
  Inputs prefill_;
  Inputs decode_;
};

}  // namespace mobilepack
