// The toy model of mobilepack/testing.py in place of a program: any language computes it exactly.
#include "program.h"

#include <map>

namespace mobilepack {
namespace {

constexpr int64_t kVocabulary = 61;
std::map<int64_t, int64_t> states = {{-1, 1}};
std::vector<float> logits(kVocabulary);

}  // namespace

Program::Program(const std::string& path, const Plan& plan)
    : module_(path), method_(plan.method), chunk_(static_cast<size_t>(plan.prefill_chunk)) {}

Logits Program::call(const int64_t* tokens, size_t count, int64_t position) {
  int64_t state = states.at(position - 1);
  for (size_t i = 0; i < count; ++i) {
    state = (state * 31 + tokens[i] + 7) % 1009;
    states[position + static_cast<int64_t>(i)] = state;
  }
  for (int64_t id = 0; id < kVocabulary; ++id) {
    logits[static_cast<size_t>(id)] =
        static_cast<float>((state * (id + 3) + id * id) % 257) / 16.0F;
  }
  return {logits.data(), logits.size()};
}

Logits Program::step(const int64_t* tokens, size_t count, int64_t position) {
  return call(tokens, count, position);
}

Logits Program::prefill(const int64_t* tokens, size_t count, int64_t position) {
  Logits last;
  for (size_t at = 0; at < count; at += chunk_) {
    last = step(tokens + at, std::min(chunk_, count - at), position + static_cast<int64_t>(at));
  }
  return last;
}

}  // namespace mobilepack
