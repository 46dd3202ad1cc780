// run_plan.json: what to run (mobilepack/contract/run_plan.py is the contract's source).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mobilepack {

enum class Kind { teacher, generate, time };

// One item. Which members count depends on the kind, as in the contract.
struct Item {
  Kind kind = Kind::teacher;
  std::string name;
  std::vector<int64_t> token_ids;
  std::vector<int64_t> calls;     // teacher: tokens of each successive call
  std::vector<int64_t> stop_ids;  // generate
  int64_t max_new_tokens = 0;     // generate
  int64_t n_prompt = 0;           // time, and the following
  int64_t n_gen = 0;
  int64_t n_depth = 0;
  int64_t warmups = 1;
  int64_t repetitions = 5;
  double cooldown_s = 0.0;

  int64_t positions() const;
};

struct Plan {
  std::string sha256;  // hex, of the bytes that were read
  std::string program = "model.pte";
  std::string method = "forward";
  int64_t max_seq_len = 0;
  int64_t prefill_chunk = 0;
  std::vector<int64_t> sample_ids;
  int64_t top_k = 64;
  int64_t threads = 0;
  std::vector<Item> items;
};

// Throws std::runtime_error with every reason if the text is no plan that this runner can obey.
Plan parse_plan(const std::string& text);

}  // namespace mobilepack
