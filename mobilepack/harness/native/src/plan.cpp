#include "plan.h"

#include <set>
#include <stdexcept>

#include "fields.h"
#include "sha256.h"

namespace mobilepack {
namespace {

constexpr const char* kSchema = "mobilepack/run-plan/1";

// A field that a file has and this runner does not know could change what the plan means.
void refuse_unknown(const Json& object, const std::set<std::string>& known) {
  for (const auto& field : object.items()) {
    if (known.count(field.key()) == 0) {
      throw std::runtime_error("unknown field " + field.key());
    }
  }
}

Item parse_teacher(const Json& raw) {
  refuse_unknown(raw, {"kind", "name", "token_ids", "calls"});
  Item item;
  item.kind = Kind::teacher;
  item.calls = wholes(raw, "calls", 1, true);
  return item;
}

Item parse_generate(const Json& raw) {
  refuse_unknown(raw, {"kind", "name", "token_ids", "max_new_tokens", "stop_ids"});
  Item item;
  item.kind = Kind::generate;
  item.max_new_tokens = whole(raw, "max_new_tokens", 1, -1);
  item.stop_ids = wholes(raw, "stop_ids", 0, false);
  return item;
}

Item parse_time(const Json& raw) {
  refuse_unknown(raw, {"kind", "name", "token_ids", "n_prompt", "n_gen", "n_depth", "warmups",
                       "repetitions", "cooldown_s"});
  Item item;
  item.kind = Kind::time;
  item.n_prompt = whole(raw, "n_prompt", 0, -1);
  item.n_gen = whole(raw, "n_gen", 0, -1);
  item.n_depth = whole(raw, "n_depth", 0, 0);
  item.warmups = whole(raw, "warmups", 0, 1);
  item.repetitions = whole(raw, "repetitions", 1, 5);
  item.cooldown_s = raw.value("cooldown_s", 0.0);
  if (!(item.cooldown_s >= 0.0)) throw std::runtime_error("cooldown_s must not be negative");
  if (item.n_prompt + item.n_gen == 0) throw std::runtime_error("an item times nothing");
  return item;
}

Item parse_item(const Json& raw) {
  const std::string kind = text(raw, "kind", "");
  Item item;
  if (kind == "teacher") {
    item = parse_teacher(raw);
  } else if (kind == "generate") {
    item = parse_generate(raw);
  } else if (kind == "time") {
    item = parse_time(raw);
  } else {
    throw std::runtime_error("unknown kind of item " + kind);
  }
  item.name = text(raw, "name", "");
  if (item.name.empty()) throw std::runtime_error("an item has no name");
  item.token_ids = wholes(raw, "token_ids", 0, true);
  return item;
}

void check(const Plan& plan) {
  std::set<std::string> names;
  for (const Item& item : plan.items) {
    if (!names.insert(item.name).second) {
      throw std::runtime_error("two items are named " + item.name);
    }
    if (item.positions() > plan.max_seq_len) {
      throw std::runtime_error(item.name + " needs more positions than max_seq_len");
    }
    if (item.kind != Kind::teacher) continue;
    if (item.positions() > static_cast<int64_t>(item.token_ids.size())) {
      throw std::runtime_error(item.name + " feeds more ids than it has");
    }
    for (int64_t call : item.calls) {
      if (call > plan.prefill_chunk) {
        throw std::runtime_error(item.name + " has a call longer than prefill_chunk");
      }
    }
  }
}

}  // namespace

int64_t Item::positions() const {
  if (kind == Kind::generate) return static_cast<int64_t>(token_ids.size()) + max_new_tokens - 1;
  if (kind == Kind::time) return n_depth + n_prompt + n_gen;
  int64_t sum = 0;
  for (int64_t call : calls) sum += call;
  return sum;
}

Plan parse_plan(const std::string& bytes) {
  const Json raw = Json::parse(bytes);
  refuse_unknown(raw, {"schema", "program", "method", "max_seq_len", "prefill_chunk", "sample_ids",
                       "top_k", "threads", "weight_cache", "items"});
  if (text(raw, "schema", kSchema) != kSchema) {
    throw std::runtime_error("schema is not " + std::string(kSchema));
  }
  Plan plan;
  plan.sha256 = sha256_hex(bytes);
  plan.program = text(raw, "program", plan.program);
  plan.method = text(raw, "method", plan.method);
  plan.max_seq_len = whole(raw, "max_seq_len", 1, -1);
  plan.prefill_chunk = whole(raw, "prefill_chunk", 1, -1);
  plan.sample_ids = wholes(raw, "sample_ids", 0, false);
  plan.top_k = whole(raw, "top_k", 1, 64);
  plan.threads = whole(raw, "threads", 0, 0);
  for (const Json& item : raw.at("items")) plan.items.push_back(parse_item(item));
  if (plan.items.empty()) throw std::runtime_error("items is empty");
  check(plan);
  return plan;
}

}  // namespace mobilepack
