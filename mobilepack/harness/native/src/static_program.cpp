#include "static_program.h"

#include <executorch/runtime/core/exec_aten/util/scalar_type_util.h>

#include <algorithm>
#include <set>
#include <stdexcept>
#include <utility>

#include "failure.h"

namespace mobilepack {
namespace {

using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::extension::Module;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::MethodMeta;
using executorch::runtime::Result;
using executorch::runtime::TensorInfo;

ScalarType scalar_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::float16: return ScalarType::Half;
    case Dtype::int32: return ScalarType::Int;
    case Dtype::int16: return ScalarType::Short;
    case Dtype::int8: return ScalarType::Char;
    case Dtype::uint16: return ScalarType::UInt16;
    case Dtype::uint8: return ScalarType::Byte;
    default: return ScalarType::Float;
  }
}

template <typename Sizes>
std::string said(ScalarType type, const Sizes& sizes) {
  std::string text = std::string(executorch::runtime::toString(type)) + " [";
  for (const auto size : sizes) text += (text.back() == '[' ? "" : ", ") + std::to_string(size);
  return text + "]";
}

std::string said(const Result<TensorInfo>& found) {
  if (!found.ok()) return "no tensor";
  const auto order = found->dim_order();
  const bool by_rows = std::is_sorted(order.begin(), order.end());
  return said(found->scalar_type(), found->sizes()) + (by_rows ? "" : ", not stored by rows,");
}

// Holds one tensor of the program against the manifest's, which is stored by rows.
void compare(const MethodSpec& method, const TensorSpec& spec, const Result<TensorInfo>& found) {
  const std::string ours = said(scalar_type(spec.dtype), spec.shape);
  const std::string theirs = said(found);
  if (ours == theirs) return;
  throw std::runtime_error(method.name + ": " + spec.name + " is " + ours +
                           " in manifest.json and " + theirs + " in the program");
}

void compare_count(const MethodSpec& method, const char* what, size_t ours, size_t theirs) {
  if (ours == theirs) return;
  throw std::runtime_error(method.name + " has " + std::to_string(ours) + " " + what +
                           " in manifest.json and " + std::to_string(theirs) + " in the program");
}

void check(Module& module, const MethodSpec& method) {
  const Result<MethodMeta> meta = module.method_meta(method.name);
  if (!meta.ok()) fail("the program does not describe its methods", meta.error());
  compare_count(method, "inputs", method.inputs.size(), meta->num_inputs());
  compare_count(method, "outputs", method.outputs.size(), meta->num_outputs());
  for (size_t n = 0; n < method.inputs.size(); ++n) {
    compare(method, method.inputs[n], meta->input_tensor_meta(n));
  }
  for (size_t n = 0; n < method.outputs.size(); ++n) {
    compare(method, method.outputs[n], meta->output_tensor_meta(n));
  }
}

void load(Module& module, const MethodSpec& method) {
  const auto names = module.method_names();
  if (!names.ok()) fail("the program cannot be loaded", names.error());
  if (names->count(method.name) == 0) {
    std::string has;
    for (const std::string& name : std::set<std::string>(names->begin(), names->end())) {
      has += (has.empty() ? "" : ", ") + name;
    }
    throw std::runtime_error("the program has no method " + method.name + ", it has " + has);
  }
  check(module, method);
  const Error loaded = module.load_method(method.name);
  if (loaded != Error::Ok) fail("a method of the program cannot be loaded", loaded);
}

// Loads what the form describes before memory is taken for it.
StaticForm loaded(Module& module, StaticForm form) {
  load(module, form.prefill);
  load(module, form.decode);
  return form;
}

}  // namespace

StaticProgram::Inputs::Inputs(const MethodSpec& method, const std::vector<void*>& data) {
  for (size_t n = 0; n < data.size(); ++n) {
    const TensorSpec& spec = method.inputs[n];
    std::vector<SizesType> sizes(spec.shape.begin(), spec.shape.end());
    tensors.push_back(
        executorch::extension::from_blob(data[n], std::move(sizes), scalar_type(spec.dtype)));
    values.emplace_back(*tensors.back());
  }
}

StaticProgram::StaticProgram(const std::string& path, StaticForm form)
    : module_(path, Module::LoadMode::Mmap),
      session_(loaded(module_, std::move(form))),
      prefill_(session_.form().prefill, session_.inputs(session_.form().prefill)),
      decode_(session_.form().decode, session_.inputs(session_.form().decode)) {}

Logits StaticProgram::step(const int64_t* tokens, size_t count, int64_t position) {
  const MethodSpec& method = session_.prepare(tokens, count, position);
  const auto results = module_.execute(method.name, (count == 1 ? decode_ : prefill_).values);
  if (!results.ok()) fail("a call failed", results.error());
  std::vector<const void*> outputs;
  for (const EValue& result : *results) outputs.push_back(result.toTensor().const_data_ptr());
  return session_.finish(outputs);
}

}  // namespace mobilepack
