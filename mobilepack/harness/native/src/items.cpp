#include "items.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <thread>
#include <utility>

#include "marks.h"

namespace mobilepack {
namespace {

// Feeds any number of tokens in calls of at most the plan's chunk.
Logits prefill(const Plan& plan, Program& program, const int64_t* tokens, size_t count,
               int64_t position) {
  const auto chunk = static_cast<size_t>(plan.prefill_chunk);
  Logits last;
  for (size_t at = 0; at < count; at += chunk) {
    last = program.step(tokens + at, std::min(chunk, count - at),
                        position + static_cast<int64_t>(at));
  }
  return last;
}

void teach(const Plan& plan, const Item& item, Program& program, Outcome& out) {
  int64_t position = 0;
  for (int64_t count : item.calls) {
    const Logits logits =
        program.step(item.token_ids.data() + position, static_cast<size_t>(count), position);
    const auto end = static_cast<size_t>(position + count);
    const int64_t next = end < item.token_ids.size() ? item.token_ids[end] : -1;
    out.rows.emplace_back(item.name, make_row(plan, logits, position, count, next));
    position += count;
  }
}

Generated generate(const Plan& plan, const Item& item, Program& program) {
  const auto stops = [&](int64_t id) {
    return std::count(item.stop_ids.begin(), item.stop_ids.end(), id) > 0;
  };
  Generated found;
  int64_t start = now_ns();
  found.token_ids.push_back(
      greedy(prefill(plan, program, item.token_ids.data(), item.token_ids.size(), 0)));
  found.ttft_ns = now_ns() - start;
  while (static_cast<int64_t>(found.token_ids.size()) < item.max_new_tokens &&
         !stops(found.token_ids.back())) {
    start = now_ns();
    const auto position =
        static_cast<int64_t>(item.token_ids.size() + found.token_ids.size()) - 1;
    found.token_ids.push_back(greedy(program.step(&found.token_ids.back(), 1, position)));
    found.decode_ns.push_back(now_ns() - start);
  }
  found.stopped = stops(found.token_ids.back());
  return found;
}

struct Round {
  int64_t prompt_ns = 0;
  std::vector<int64_t> token_ns;
};

Round one_round(const Plan& plan, const Item& item, const std::vector<int64_t>& ids,
                Program& program) {
  Round round;
  int64_t position = item.n_depth + item.n_prompt;
  int64_t mark = now_ns();
  if (item.n_prompt > 0) {
    mark_instructions(Mark::prefill);
    prefill(plan, program, ids.data() + item.n_depth, static_cast<size_t>(item.n_prompt),
            item.n_depth);
  }
  round.prompt_ns = now_ns() - mark;
  for (int64_t n = 0; n < item.n_gen; ++n, ++position) {
    mark = now_ns();
    mark_instructions(Mark::decode);
    program.step(ids.data() + position, 1, position);
    round.token_ns.push_back(now_ns() - mark);
  }
  mark_instructions(Mark::end);
  return round;
}

Timing time(const Plan& plan, const Item& item, Program& program, Outcome& seen) {
  std::vector<int64_t> ids;
  for (int64_t p = 0; p < item.positions(); ++p) {
    ids.push_back(item.token_ids[static_cast<size_t>(p) % item.token_ids.size()]);
  }
  Timing timing;
  for (int64_t number = 0; number < item.warmups + item.repetitions; ++number) {
    if (item.cooldown_s > 0.0 && (number == 0 || number > item.warmups)) {
      std::this_thread::sleep_for(std::chrono::duration<double>(item.cooldown_s));
    }
    // Again for every round: a recurrent state cannot be rewound.
    if (item.n_depth > 0) {
      prefill(plan, program, ids.data(), static_cast<size_t>(item.n_depth), 0);
    }
    Round round = one_round(plan, item, ids, program);
    if (number < item.warmups) continue;
    seen.frequencies.sample();  // right after the load, outside the clock
    seen.temperatures.sample();
    if (item.n_prompt > 0) timing.prefill_ns.push_back(round.prompt_ns);
    timing.decode_ns.push_back(std::move(round.token_ns));
  }
  return timing;
}

template <typename T>
void append(std::vector<T>& all, std::vector<T>& more) {
  std::move(more.begin(), more.end(), std::back_inserter(all));
}

}  // namespace

int64_t now_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

Outcome run_items(const Plan& plan, Program& program,
                  const std::function<void(const std::string&, size_t)>& tell,
                  const std::function<void(const std::string&, const Outcome&)>& finished) {
  Outcome all;
  size_t done = 0;
  for (const Item& item : plan.items) {
    tell(item.name, done++);
    Outcome one;
    if (item.kind == Kind::teacher) {
      teach(plan, item, program, one);
    } else if (item.kind == Kind::generate) {
      one.generated.emplace_back(item.name, generate(plan, item, program));
    } else {
      one.timings.emplace_back(item.name, time(plan, item, program, all));
    }
    finished(item.name, one);
    append(all.rows, one.rows);
    append(all.generated, one.generated);
    append(all.timings, one.timings);
  }
  tell("", done);
  return all;
}

}  // namespace mobilepack
