#include "program.h"

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <algorithm>
#include <stdexcept>
#include <utility>
#include <vector>

#include "failure.h"
#include "static_program.h"

namespace mobilepack {
namespace {

using executorch::aten::ScalarType;
using executorch::extension::Module;
using executorch::runtime::Error;
using executorch::runtime::EValue;

// Method whose presence says that a program has a recurrent state (contract/manifest.py RECURRENT).
constexpr const char* kRecurrent = "use_recurrent_state";

// One method that takes any number of tokens and keeps the cache in place.
class DynamicProgram : public Program {
 public:
  DynamicProgram(const std::string& path, const Plan& plan);

  // A program with a recurrent state is fed again from its beginning when a call rewinds it, as
  // mobilepack/harness/runner.py does.
  Logits step(const int64_t* tokens, size_t count, int64_t position) override;

 private:
  Logits call(const int64_t* tokens, size_t count, int64_t position);

  Module module_;
  std::string method_;
  size_t chunk_;
  bool recurrent_ = false;
  std::vector<int64_t> fed_;
  std::vector<int64_t> buffer_;
};

DynamicProgram::DynamicProgram(const std::string& path, const Plan& plan)
    : module_(path, Module::LoadMode::Mmap),
      method_(plan.method),
      chunk_(static_cast<size_t>(plan.prefill_chunk)) {
  const Error loaded = module_.load_method(method_);
  if (loaded != Error::Ok) fail("the program or its method cannot be loaded", loaded);
  const auto names = module_.method_names();
  recurrent_ = names.ok() && names->count(kRecurrent) > 0;
}

Logits DynamicProgram::call(const int64_t* tokens, size_t count, int64_t position) {
  using executorch::extension::from_blob;
  buffer_.assign(tokens, tokens + count);
  const auto length = static_cast<executorch::aten::SizesType>(count);
  auto ids = from_blob(buffer_.data(), {1, length}, ScalarType::Long);
  auto where = from_blob(&position, {1}, ScalarType::Long);
  const auto results = module_.execute(method_, {EValue(*ids), EValue(*where)});
  if (!results.ok()) fail("a call failed", results.error());
  if (results->empty() || !results->at(0).isTensor()) {
    throw std::runtime_error("the method returns no tensor");
  }
  const auto& logits = results->at(0).toTensor();
  if (logits.scalar_type() != ScalarType::Float || logits.dim() == 0 || logits.numel() == 0) {
    throw std::runtime_error("the method's logits are no float32 tensor");
  }
  const auto size = static_cast<size_t>(logits.size(logits.dim() - 1));
  return {logits.const_data_ptr<float>() + (logits.numel() - size), size};
}

Logits DynamicProgram::step(const int64_t* tokens, size_t count, int64_t position) {
  if (!recurrent_) return call(tokens, count, position);
  const auto begin = static_cast<size_t>(position);
  if (begin < fed_.size()) {
    fed_.resize(begin);
    for (size_t at = 0; at < begin; at += chunk_) {
      call(fed_.data() + at, std::min(chunk_, begin - at), static_cast<int64_t>(at));
    }
  }
  fed_.insert(fed_.end(), tokens, tokens + count);
  return call(tokens, count, position);
}

}  // namespace

std::unique_ptr<Program> open_program(const std::string& path, const std::string& manifest,
                                      const Plan& plan) {
  auto form = manifest.empty() ? std::nullopt : parse_static_form(manifest);
  if (form) return std::make_unique<StaticProgram>(path, std::move(*form));
  return std::make_unique<DynamicProgram>(path, plan);
}

}  // namespace mobilepack
