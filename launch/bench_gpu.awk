# The table of launch/bench-gpu, out of its lines of JSON, which several programs print: tests/bench/op_bench, block_bench and
# gpu_peers.py, and smoe bench. Of what was measured in several turns, medians. `smoe is`: how many times as fast as that row.
#   awk -f bench_gpu.awk bench-gpu.jsonl

# What a key of a line's outer object has: a number, or a string without its quotes. Keys of inner objects come behind those asked for.
function get(key,   at, rest) {
  at = match($0, "\"" key "\": *")
  if (!at) return ""
  rest = substr($0, RSTART + RLENGTH)
  if (substr(rest, 1, 1) == "\"") {
    rest = substr(rest, 2)
    return substr(rest, 1, index(rest, "\"") - 1)
  }
  match(rest, /^[^,}\]]*/)
  return substr(rest, 1, RLENGTH)
}
# By its letters: as a piece of a line it is a string, and 12.50 is not the string that the number 12.5 becomes.
function is_number(value) { return value ~ /^-?[0-9.]+([eE][-+]?[0-9]+)?$/ }
function note(key, field, value) {
  if (!is_number(value)) return
  values[key, field, ++counts[key, field]] = value + 0
}
function median(key, field,   n, i, j, v, kept) {
  n = counts[key, field]
  if (!n) return ""
  for (i = 1; i <= n; i++) kept[i] = values[key, field, i] + 0
  for (i = 2; i <= n; i++)
    for (j = i; j > 1 && kept[j - 1] > kept[j]; j--) { v = kept[j]; kept[j] = kept[j - 1]; kept[j - 1] = v }
  return n % 2 ? kept[(n + 1) / 2] : (kept[n / 2] + kept[n / 2 + 1]) / 2
}
function sum(a, b) { return is_number(a) && is_number(b) ? sprintf("%.9g", a + b) : "" }
function product(a, b) { return is_number(a) ? sprintf("%.9g", a * b) : "" }
function scaled(factor, value) { return value == "" ? "" : factor * value }
function number(value, form) { return value == "" ? "-" : sprintf(form, value) }
function times(slower, faster) { return slower == "" || faster == "" || faster + 0 == 0 ? "" : sprintf("%.2fx", slower / faster) }
# What a line of the goals takes: the least of the ops that it speaks of.
function least(goal, value) { if (value != "" && (!(goal in reached) || value < reached[goal])) reached[goal] = value }
function tell(goal, wanted, unit) {
  if (goal in reached) printf "  %-78s %8.2f%-6s wanted %6.2f  %s\n", goal, reached[goal], unit, wanted, (reached[goal] >= wanted ? "reached" : "NOT reached")
}
function keep(list, key) {
  if (!((list, key) in known)) { known[list, key] = 1; order[list, ++sizes[list]] = key }
}

get("error") != "" || get("skipped") != "" {
  way_of = get("what") " " get("who") " " get("op") (get("how") != "" ? " by " get("how") : "") ": " substr(get("error") get("skipped"), 1, 120)
  if (!refused[way_of]++) failures[++failed] = way_of
  next
}
get("left_out") != "" { next }

get("what") == "block" {
  key = get("model") SUBSEP get("routing") (get("documents") + 0 ? ", documents of " get("documents") : "")
  row = key SUBSEP get("who") SUBSEP get("how")
  keep("block", row)
  note(row, "forward", get("forward_us")); note(row, "backward", get("backward_us")); note(row, "tflops", get("tflops"))
  note(row, "share", get("share")); note(row, "memory", get("peak_device_memory_mib"))
  note(row, "both", sum(get("forward_us"), get("backward_us")))
  if (get("who") == "smoe") note(key, "both", sum(get("forward_us"), get("backward_us")))
  note("card", "product", get("product_tflops")); note("card", "copy", get("copy_gbs"))
  next
}

get("what") == "step" {
  ours = get("who") == "smoe"
  key = (ours ? get("config") : "mixtral-" get("model")) SUBSEP get("layers") SUBSEP (ours ? get("sequence_length") : get("seq"))
  row = key SUBSEP get("who") SUBSEP get("how")
  keep("step", row)
  seconds = ours ? get("queued_step_seconds") : product(get("step_us"), 1e-6)
  note(row, "seconds", seconds); note(row, "tokens", get("tokens_per_sec"))
  note(row, "tflops", ours ? product(get("model_gflops"), 1e-3) : get("tflops")); note(row, "share", ours ? get("share_of_product") : get("share"))
  note(row, "memory", ours ? product(get("peak_device_memory_bytes"), 1 / 1048576) : get("peak_device_memory_mib"))
  if (ours) note(key, "seconds", seconds)
  next
}

get("op") != "" {
  key = get("op") SUBSEP get("shape")
  if (get("who") != "") {  # a peer's: the fastest of its ways is shown
    us = get("us")
    if (is_number(us) && us + 0 > 0 && (!(key in peer) || us + 0 < peer[key] + 0)) { peer[key] = us; way[key] = get("how") }
    next
  }
  keep("op", key)
  note(key, "us", get("us")); note(key, "share", get("share"))
  rate[key] = get("gflops") != "" ? sprintf("%.0f TF/s", get("gflops") / 1000) : sprintf("%.2f TB/s", get("gbs") / 1000)
  of[key] = get("ceiling_of")
}

END {
  if (sizes["block"]) {
    printf "A layer, forward and backward, without optimizer; a product of 8192^3 %s TFLOP/s, a copy %s GB/s (medians)\n", \
      number(median("card", "product"), "%.0f"), number(median("card", "copy"), "%.0f")
    printf "%-8s %-28s %-46s %9s %9s %8s %6s %8s %8s\n", "model", "routing", "by", "forward", "backward", "TFLOP/s", "share", "MiB", "smoe is"
    for (i = 1; i <= sizes["block"]; i++) {
      row = order["block", i]
      split(row, part, SUBSEP)
      printf "%-8s %-28s %-46s %7s ms %6s ms %8s %5s%% %8s %8s\n", part[1], part[2], part[3] (part[4] != "" ? ", " part[4] : ""),
        number(scaled(0.001, median(row, "forward")), "%.2f"), number(scaled(0.001, median(row, "backward")), "%.2f"), number(median(row, "tflops"), "%.0f"),
        number(scaled(100, median(row, "share")), "%.0f"), number(median(row, "memory"), "%.0f"),
        part[3] == "smoe" ? "" : times(median(row, "both"), median(part[1] SUBSEP part[2], "both"))
    }
  }
  if (sizes["step"]) {
    printf "\nA step, optimizer included\n%-16s %-8s %-52s %10s %9s %8s %6s %8s %8s\n", "model", "layers", "by", "ms", "tokens/s", "TFLOP/s", "share", "MiB", "smoe is"
    for (i = 1; i <= sizes["step"]; i++) {
      row = order["step", i]
      split(row, part, SUBSEP)
      printf "%-16s %-8s %-52s %10s %9s %8s %5s%% %8s %8s\n", part[1], part[2], part[4] (part[5] != "" ? ", " part[5] : ""),
        number(scaled(1000, median(row, "seconds")), "%.1f"), number(median(row, "tokens"), "%.0f"), number(median(row, "tflops"), "%.0f"),
        number(scaled(100, median(row, "share")), "%.0f"), number(median(row, "memory"), "%.0f"),
        part[4] == "smoe" ? "" : times(median(row, "seconds"), median(part[1] SUBSEP part[2] SUBSEP part[3], "seconds"))
    }
  }
  if (sizes["op"]) {
    printf "\n%-26s %-66s %10s %10s %6s of %-8s %10s %8s  %s\n", "op", "shape", "us", "rate", "share", "", "torch, us", "smoe is", "by"
    for (i = 1; i <= sizes["op"]; i++) {
      key = order["op", i]
      split(key, part, SUBSEP)
      printf "%-26s %-66s %10s %10s %5s%% of %-8s %10s %8s  %s\n", part[1], part[2], number(median(key, "us"), "%.1f"), rate[key],
        number(scaled(100, median(key, "share")), "%.0f"), of[key], number(peer[key], "%.1f"), times(peer[key], median(key, "us")), way[key]
    }
  }
  # Of Mixtral 8x7B in bf16; shares are of the product of 8192^3 or of the copy.
  for (i = 1; i <= sizes["op"]; i++) {
    key = order["op", i]
    split(key, part, SUBSEP)
    share = 100 * median(key, "share")
    if (part[1] == "grouped_gemm" && part[2] ~ /4096/) {
      if (part[2] ~ /skewed/) least("experts' products, skewed rows", share)
      else if (part[2] ~ /^tn.*assigned/) least("experts' weight gradients, in bf16", share)
      else if (part[2] ~ /^tn/) least("experts' weight gradients, accumulating in f32", share)
      else least("experts' products, forward and input gradients", share)
    }
    if (part[1] == "attention_forward" && part[2] == "B1 S4096 H32 G8 C128") least("attention forward, 4096 tokens, TFLOP/s", rate[key] + 0)
    if (part[1] == "attention_backward" && part[2] == "B1 S4096 H32 G8 C128") least("attention backward, 4096 tokens, TFLOP/s", rate[key] + 0)
    if (part[1] == "attention_forward" && part[2] == "B1 S8192 H32 G8 C128") least("attention forward, 8192 tokens, TFLOP/s", rate[key] + 0)
    if (part[1] == "attention_backward" && part[2] == "B1 S8192 H32 G8 C128") least("attention backward, 8192 tokens, TFLOP/s", rate[key] + 0)
    if (part[2] ~ /D4096$/ && part[1] ~ /^rms_norm/ || part[1] == "adamw" && of[key] == "copy" && part[2] !~ /n147456/) least("RMSNorm and AdamW, of a copy", share)
  }
  for (i = 1; i <= sizes["block"]; i++) {
    row = order["block", i]
    split(row, part, SUBSEP)
    if (part[1] != "8x7b" || part[2] != "even") continue
    if (part[3] == "smoe") least("a layer, forward and backward, of the product", 100 * median(row, "share"))
    else least("a layer, times as fast as transformers", times(median(row, "both"), median(part[1] SUBSEP part[2], "both")) + 0)
  }
  if (length(reached)) {
    printf "\nGoals, of Mixtral 8x7B\n"
    tell("a layer, forward and backward, of the product", 65, "%")
    tell("a layer, times as fast as transformers", 1.25, "x")
    tell("experts' products, forward and input gradients", 85, "%")
    tell("experts' weight gradients, in bf16", 80, "%")
    tell("experts' weight gradients, accumulating in f32", 70, "%")
    tell("experts' products, skewed rows", 78, "%")
    tell("attention forward, 4096 tokens, TFLOP/s", 530, "")
    tell("attention backward, 4096 tokens, TFLOP/s", 430, "")
    tell("attention forward, 8192 tokens, TFLOP/s", 600, "")
    tell("attention backward, 8192 tokens, TFLOP/s", 500, "")
    tell("RMSNorm and AdamW, of a copy", 85, "%")
  }
  if (failed) {
    printf "\nNot measured:\n"
    for (i = 1; i <= failed; i++) print "  " failures[i] (refused[failures[i]] > 1 ? " (" refused[failures[i]] " times)" : "")
  }
}
