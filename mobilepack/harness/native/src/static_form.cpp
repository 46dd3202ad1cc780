#include "static_form.h"

#include <cmath>
#include <stdexcept>
#include <utility>

#include "fields.h"

namespace mobilepack {
namespace {

[[noreturn]] void refuse(const std::string& why) { throw std::runtime_error(why); }

void demand(bool fine, const std::string& otherwise) {
  if (!fine) refuse(otherwise);
}

// Says where something is wrong: every error of `read` gets the place put before it.
template <typename F>
auto within(const std::string& place, F&& read) {
  try {
    return read();
  } catch (const std::exception& error) {
    refuse(place + ": " + error.what());
  }
}

bool is_number(const std::string& text) {
  return !text.empty() && text.size() < 10 &&
         text.find_first_not_of("0123456789") == std::string::npos;
}

double number(const Json& object, const char* key) {
  demand(object.contains(key), std::string(key) + " is missing");
  demand(object.at(key).is_number(), std::string(key) + " must be a number");
  return object.at(key).get<double>();
}

bool flag(const Json& object, const char* key) {
  if (!object.contains(key)) return false;
  demand(object.at(key).is_boolean(), std::string(key) + " must be true or false");
  return object.at(key).get<bool>();
}

const Json& list(const Json& object, const char* key) {
  demand(object.contains(key), std::string(key) + " is missing");
  demand(object.at(key).is_array(), std::string(key) + " must be a list");
  return object.at(key);
}

// Keeps every later product of sizes within 64 bits.
void check_size(const Shape& shape) {
  int64_t count = 1;
  for (int64_t size : shape) {
    count *= size;
    demand(count < kIdLimit, "its shape holds too many numbers");
  }
}

void check_encoding(const TensorSpec& spec) {
  demand(is_integer(spec.dtype), "an encoding is for integers");
  demand(std::isnormal(static_cast<float>(spec.encoding->scale)) && spec.encoding->scale > 0.0,
         "scale must be above 0");
  const double zero = static_cast<double>(spec.encoding->zero_point);
  with_type(spec.dtype, [&](auto kind) {
    using Limits = std::numeric_limits<decltype(kind)>;
    demand(zero >= static_cast<double>(Limits::lowest()) &&
               zero <= static_cast<double>(Limits::max()),
           "zero_point is no number of its dtype");
  });
}

TensorSpec parse_tensor(const Json& raw) {
  TensorSpec spec;
  spec.name = text(raw, "name", "");
  demand(!spec.name.empty(), "a tensor has no name");
  return within(spec.name, [&] {
    spec.dtype = dtype_of(text(raw, "dtype", ""));
    spec.shape = wholes(raw, "shape", 1, true);
    check_size(spec.shape);
    if (raw.contains("encoding") && !raw.at("encoding").is_null()) {
      const Json& encoding = raw.at("encoding");
      spec.encoding = Encoding{number(encoding, "scale"),
                               whole(encoding, "zero_point", -kIdLimit, -kIdLimit - 1)};
      check_encoding(spec);
    }
    return spec;
  });
}

std::vector<TensorSpec> parse_tensors(const Json& raw, const char* key) {
  const Json& tensors = list(raw, key);
  return within(key, [&] {
    std::vector<TensorSpec> specs;
    for (const Json& one : tensors) specs.push_back(parse_tensor(one));
    return specs;
  });
}

MethodSpec parse_method(const Json& methods, const std::string& name) {
  for (const Json& raw : methods) {
    if (text(raw, "name", "") != name) continue;
    return within(name, [&] {
      return MethodSpec{name, parse_tensors(raw, "inputs"), parse_tensors(raw, "outputs")};
    });
  }
  refuse("there is no method " + name);
}

// Says whether a tensor is [1, ..., 1, columns] or [1, 1, rows, columns] with enough columns.
void demand_shape(const TensorSpec& spec, Shape shape) {
  const bool fits = spec.shape.size() == shape.size() && spec.shape.back() >= shape.back();
  shape.back() = spec.shape.back();
  demand(fits && spec.shape == shape, "its shape is not of the form");
}

void check_mask(const StaticForm& form, const TensorSpec& spec, int64_t width) {
  const int64_t window = window_of(spec.name);
  demand(std::count(form.windows.begin(), form.windows.end(), window) > 0,
         "there is no such window in static.windows");
  demand(!is_integer(spec.dtype) || spec.encoding, "a mask of integers needs an encoding");
  demand_shape(spec, {1, 1, width, form.past + (form.states ? 0 : width)});
}

// A cache is read and written where `positions` is, the rest is the same in and out.
void check_cache(const StaticForm& form, const MethodSpec& method, const TensorSpec& spec,
                 int64_t width) {
  demand(!form.states, "the program keeps its cache in states, and takes it too");
  const TensorSpec& made = method.outputs[method.output(spec.name)];
  demand(spec.shape.size() >= 2 && made.shape.size() == spec.shape.size(),
         "what goes in and what comes out differ in rank");
  demand(made.dtype == spec.dtype, "what goes in and what comes out differ in dtype");
  const Layout in = layout_of(form, spec);
  const Layout out = layout_of(form, made);
  demand(in.outer == out.outer && in.inner == out.inner && in.positions >= form.past &&
             out.positions >= width,
         "its shapes are not of the form");
}

void check_input(const StaticForm& form, const MethodSpec& method, const TensorSpec& spec) {
  const int64_t width = &method == &form.decode ? 1 : form.prefill_tokens;
  if (spec.name == "tokens" || spec.name == "positions") {
    demand(spec.dtype == Dtype::int32, "its dtype must be int32");
    demand_shape(spec, {1, width});
  } else if (spec.name == "write") {
    demand_shape(spec, {1, 1, width, form.past});
  } else if (is_mask(spec.name)) {
    check_mask(form, spec, width);
  } else {
    demand(is_cache(spec.name), "the static form knows no such input");
    check_cache(form, method, spec, width);
  }
}

void check_method(const StaticForm& form, const MethodSpec& method) {
  within(method.name, [&] {
    bool fed = false;
    for (const TensorSpec& spec : method.inputs) {
      within(spec.name, [&] { check_input(form, method, spec); });
      fed = fed || spec.name == "tokens";
    }
    demand(fed, "it takes no tokens");
    method.output("logits");
  });
}

// Both methods share one cache, so they must describe it alike.
void check_shared(const StaticForm& form) {
  const auto caches = [](const MethodSpec& method) {
    std::vector<std::pair<std::string, std::pair<Dtype, Shape>>> found;
    for (const TensorSpec& spec : method.inputs) {
      if (is_cache(spec.name)) found.push_back({spec.name, {spec.dtype, spec.shape}});
    }
    std::sort(found.begin(), found.end());
    return found;
  };
  demand(caches(form.prefill) == caches(form.decode), "prefill and decode have other caches");
}

StaticForm parse_form(const Json& raw, const Json& methods) {
  StaticForm form;
  within("static", [&] {
    form.past = whole(raw, "past", 1, 0);
    form.prefill_tokens = whole(raw, "prefill_tokens", 1, 0);
    demand(form.past < kIdLimit && form.prefill_tokens < kIdLimit, "its lengths are no lengths");
    form.mask_value = static_cast<float>(number(raw, "mask_value"));
    demand(form.mask_value < 0.0F, "mask_value must be below 0");
    form.windows = wholes(raw, "windows", 0, true);
    const std::string keys = text(raw, "keys", "channels_first");
    form.channels_first = keys == "channels_first";
    demand(form.channels_first || keys == "positions_first", "keys is '" + keys + "'");
    form.states = flag(raw, "states");
  });
  within("methods", [&] {
    form.prefill = parse_method(methods, "prefill");
    form.decode = parse_method(methods, "decode");
    check_method(form, form.prefill);
    check_method(form, form.decode);
    check_shared(form);
  });
  return form;
}

}  // namespace

size_t MethodSpec::output(const std::string& wanted) const {
  for (size_t n = 0; n < outputs.size(); ++n) {
    if (outputs[n].name == wanted) return n;
  }
  refuse(name + " has no output " + wanted);
}

bool is_cache(const std::string& name) {
  return (name.rfind("k_", 0) == 0 || name.rfind("v_", 0) == 0) && is_number(name.substr(2));
}

bool is_mask(const std::string& name) { return name.rfind("mask", 0) == 0; }

int64_t window_of(const std::string& name) {
  if (name == "mask") return 0;
  const std::string window = name.rfind("mask_", 0) == 0 ? name.substr(5) : "";
  return is_number(window) ? std::stoll(window) : -1;
}

Layout layout_of(const StaticForm& form, const TensorSpec& cache) {
  const bool columns = form.channels_first && cache.name[0] == 'k';
  const size_t place = cache.shape.size() - (columns ? 1 : 2);
  Layout layout;
  for (size_t n = 0; n < place; ++n) layout.outer *= cache.shape[n];
  layout.positions = cache.shape[place];
  if (!columns) layout.inner = cache.shape.back();
  return layout;
}

std::optional<StaticForm> parse_static_form(const std::string& manifest) {
  return within("manifest.json", [&]() -> std::optional<StaticForm> {
    const Json raw = Json::parse(manifest);
    demand(raw.is_object(), "it is no object");
    if (!raw.contains("static") || raw.at("static").is_null()) return std::nullopt;
    return parse_form(raw.at("static"), list(raw, "methods"));
  });
}

}  // namespace mobilepack
