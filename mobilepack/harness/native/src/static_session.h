// Feeding the static form: masks, positions, padding, and the cache that the caller keeps.
//
// What mobilepack/models/static_session.py does, to the last bit; whoever runs the methods stands
// between `prepare` and `finish`.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "program.h"
#include "static_form.h"

namespace mobilepack {

class StaticSession {
 public:
  // Makes empty caches.
  explicit StaticSession(StaticForm form);
  StaticSession(const StaticSession&) = delete;  // inputs are found by where they lie
  StaticSession& operator=(const StaticSession&) = delete;

  const StaticForm& form() const { return form_; }

  // Writes the inputs for tokens from a position on, and returns the method to run. Throws
  // std::runtime_error if there are more than one call takes, or positions that the cache lacks.
  const MethodSpec& prepare(const int64_t* tokens, size_t count, int64_t position);

  // Where a method's inputs lie, in order; they stay there.
  const std::vector<void*>& inputs(const MethodSpec& method) const;

  // Takes what the method of the last `prepare` returned: the new keys and values go to the cache,
  // the logits to the caller. They are valid as long as the outputs are, and until the next call.
  Logits finish(const std::vector<const void*>& outputs);

 private:
  using Bytes = std::vector<uint8_t>;

  struct Call {
    const MethodSpec* method = nullptr;
    const int64_t* tokens = nullptr;
    int64_t count = 0;
    int64_t position = 0;
    int64_t padding = 0;
  };

  void bind(const MethodSpec& method);
  void write(const TensorSpec& spec, void* to) const;
  void write_mask(const TensorSpec& spec, void* to) const;
  void store(const TensorSpec& cache, const void* made);

  StaticForm form_;
  std::map<std::string, Bytes> caches_;
  std::vector<Bytes> own_[2];       // of prefill and of decode, inputs that are no caches
  std::vector<void*> inputs_[2];    // likewise, all inputs in order
  Call call_;
  std::vector<float> logits_;
};

}  // namespace mobilepack
