// Feeds a program of the static form whose methods are arithmetic, and says what they were given.
//
// static_session_main MANIFEST: each line of stdin is a position and token ids. Prints the method,
// the bytes of every input and of the logits, or why not. Number i of output n of call c (all from 0)
// is (7 i + 13 n + 5 c) mod 120: whole, and a number of every dtype.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>

#include "static_session.h"

using namespace mobilepack;

namespace {

void print(const void* data, size_t bytes) {
  for (size_t n = 0; n < bytes; ++n) std::printf("%02x", static_cast<const uint8_t*>(data)[n]);
  std::printf("\n");
}

std::vector<uint8_t> made(const TensorSpec& spec, size_t index, size_t call) {
  std::vector<uint8_t> bytes(spec.bytes());
  with_type(spec.dtype, [&](auto kind) {
    using T = decltype(kind);
    for (size_t n = 0; n < spec.count(); ++n) {
      const auto value = static_cast<float>((7 * n + 13 * index + 5 * call) % 120);
      reinterpret_cast<T*>(bytes.data())[n] = static_cast<T>(value);
    }
  });
  return bytes;
}

void feed(StaticSession& session, const std::string& line, size_t call) {
  std::istringstream words(line);
  int64_t position = 0;
  words >> position;
  std::vector<int64_t> ids;
  for (int64_t id = 0; words >> id;) ids.push_back(id);
  const MethodSpec& method = session.prepare(ids.data(), ids.size(), position);
  std::printf("%s\n", method.name.c_str());
  const auto& inputs = session.inputs(method);
  for (size_t n = 0; n < inputs.size(); ++n) print(inputs[n], method.inputs[n].bytes());
  std::vector<std::vector<uint8_t>> outputs;
  std::vector<const void*> pointers;
  for (size_t n = 0; n < method.outputs.size(); ++n) {
    outputs.push_back(made(method.outputs[n], n, call));
    pointers.push_back(outputs.back().data());
  }
  const Logits logits = session.finish(pointers);
  print(logits.data, logits.size * sizeof(float));
}

}  // namespace

int main(int, char** argv) {
  std::ifstream file(argv[1]);
  std::ostringstream text;
  text << file.rdbuf();
  try {
    const auto form = parse_static_form(text.str());
    if (!form) throw std::runtime_error("no static form");
    StaticSession session(*form);
    size_t call = 0;
    for (std::string line; std::getline(std::cin, line); ++call) feed(session, line, call);
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
  return 0;
}
