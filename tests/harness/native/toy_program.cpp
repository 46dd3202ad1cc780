// The toy model of mobilepack/testing.py in place of a program: any language computes it exactly.
#include "program.h"

#include <map>
#include <vector>

namespace mobilepack {
namespace {

constexpr int64_t kVocabulary = 61;

class ToyProgram : public Program {
 public:
  Logits step(const int64_t* tokens, size_t count, int64_t position) override {
    int64_t state = states_.at(position - 1);
    for (size_t i = 0; i < count; ++i) {
      state = (state * 31 + tokens[i] + 7) % 1009;
      states_[position + static_cast<int64_t>(i)] = state;
    }
    for (int64_t id = 0; id < kVocabulary; ++id) {
      logits_[static_cast<size_t>(id)] =
          static_cast<float>((state * (id + 3) + id * id) % 257) / 16.0F;
    }
    return {logits_.data(), logits_.size()};
  }

 private:
  std::map<int64_t, int64_t> states_ = {{-1, 1}};
  std::vector<float> logits_ = std::vector<float>(kVocabulary);
};

}  // namespace

std::unique_ptr<Program> open_program(const std::string&, const std::string&, const Plan&) {
  return std::make_unique<ToyProgram>();
}

}  // namespace mobilepack
