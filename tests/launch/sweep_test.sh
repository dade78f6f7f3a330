#!/usr/bin/env bash
# smoe sweep: points one after another, resumed, skipped, failed and asked about; and every sweep's file that is refused.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"
. "$(dirname "${BASH_SOURCE[0]}")/tiny_run.sh"

# write_sweep [LINE]...: sweep.yaml over config.yaml; the lines are its parameters.
write_sweep() {
  printf 'base: config.yaml\noutput_dir: study\nmethod: grid\nparameters:\n' >sweep.yaml
  printf '  %s\n' "$@" >>sweep.yaml
}
two_by_two() { write_sweep 'train.seed: {values: [1, 2]}' 'router.aux_loss_coef: {values: [0, 0.01]}'; }

# same_results A B: but for times.
same_results() {
  python3 - "$1" "$2" <<'END'
import csv, json, sys
def rows(folder):
    lines = [json.loads(line, parse_float=str) for line in open(folder + "/results.jsonl")]
    table = list(csv.DictReader(open(folder + "/results.csv")))
    for row in lines + table: del row["seconds"]
    return lines, table
assert rows(sys.argv[1]) == rows(sys.argv[2]), (rows(sys.argv[1]), rows(sys.argv[2]))
END
}

case_grid_of_two_by_two() {
  prepared
  two_by_two
  expect 0 'point 1 of 4: seed-1_aux_loss_coef-0$' 'point 4 of 4: seed-2_aux_loss_coef-0.01' '4 done' -- "$smoe" sweep sweep.yaml
  python3 - <<'END'
import csv, json
rows = [json.loads(line) for line in open("study/results.jsonl")]
assert [row["point"] for row in rows] == [f"seed-{s}_aux_loss_coef-{c}" for s in (1, 2) for c in ("0", "0.01")], rows
assert [row["parameters"] for row in rows] == [{"train.seed": s, "router.aux_loss_coef": c} for s in (1, 2) for c in (0, 0.01)]
assert all(row["status"] == "done" and row["seconds"] > 0 for row in rows), rows
for key in ("initial_weights", "data_order"):  # shared within a seed, and by no others
    a, b, c, d = (row[key] for row in rows)
    assert a == b and c == d and a != c and len(a) == 64, (key, a, b, c, d)
for row in rows:
    metrics = [json.loads(line) for line in open(f"study/points/{row['point']}/metrics.jsonl")]
    assert row["lm_loss"] == [m for m in metrics if "lm_loss" in m][-1]["lm_loss"]
    assert row["eval"] == {name: m["loss"] for name, m in [m for m in metrics if "eval" in m][-1]["eval"].items()}
assert len({row["lm_loss"] for row in rows}) == 4
table = list(csv.DictReader(open("study/results.csv")))
assert [t["point"] for t in table] == [r["point"] for r in rows] and float(table[0]["lm_loss"]) == rows[0]["lm_loss"]
assert table[1]["router.aux_loss_coef"] == "0.01" and float(table[1]["eval.test"]) == rows[1]["eval"]["test"]
END
  # A point is the run that train makes of the same overrides.
  "$smoe" train config.yaml train.seed=2 router.aux_loss_coef=0.01 train.output_dir=alone
  cmp alone/checkpoints/step-000002/model/model.safetensors \
    study/points/seed-2_aux_loss_coef-0.01/checkpoints/step-000002/model/model.safetensors
}
case_again_does_nothing() {
  prepared
  two_by_two
  "$smoe" sweep sweep.yaml
  cp -r study before
  find study/points -type f | xargs stat -c '%n %Y %s' | sort >before.txt
  expect 0 '4 done' -- "$smoe" sweep sweep.yaml
  find study/points -type f | xargs stat -c '%n %Y %s' | sort >after.txt
  diff before.txt after.txt
  cmp before/results.jsonl study/results.jsonl
  cmp before/results.csv study/results.csv
}
case_removed_point_runs_again() {
  prepared
  write_sweep 'train.seed: {values: [1, 2]}'
  "$smoe" sweep sweep.yaml
  cp -r study before
  rm -r study/points/seed-2
  expect 0 'point 2 of 2: seed-2' '2 done' -- "$smoe" sweep sweep.yaml
  same_results before study
}
case_settings_are_runs_with_several_overrides() {
  prepared
  write_sweep 'balancer: {settings: {none: {}, strong: {router.aux_loss_coef: 0.5, router.aux_loss_scope: sequence}}}' \
    'train.seed: {values: [1]}'
  expect 0 'point 2 of 2: balancer-strong_seed-1' '2 done' -- "$smoe" sweep sweep.yaml
  grep -q '"parameters":{"balancer":"strong","train.seed":1}' study/results.jsonl || fail 'the setting is not named'
  "$smoe" train config.yaml router.aux_loss_coef=0.5 router.aux_loss_scope=sequence train.seed=1 train.output_dir=alone
  cmp alone/checkpoints/step-000002/model/model.safetensors \
    study/points/balancer-strong_seed-1/checkpoints/step-000002/model/model.safetensors
  write_sweep 'balancer: {settings: {none: {}, strong: {router.aux_loss_coef: 0.25}}}' 'train.seed: {values: [1]}'
  expect 1 'another study' 'parameters.balancer: "strong" is ' -- "$smoe" sweep sweep.yaml
  write_sweep 'balancer: {settings: {typo: {router.aux_loss_cof: 1}}}'
  sed -i 's/output_dir: study/output_dir: other/' sweep.yaml
  expect 2 'parameters.router.aux_loss_cof: unknown key' '(point balancer-typo)' -- "$smoe" sweep sweep.yaml
  write_sweep 'balancer: {settings: {here: {train.output_dir: x}}}'
  expect 2 'parameters.train.output_dir: the sweep sets it' -- "$smoe" sweep sweep.yaml
  write_sweep 'balancer: {settings: {a: {router.aux_loss_coef: 1}, b: {router.aux_loss_coef: 1.0}}}'
  expect 2 'two points with the same values, balancer-a and balancer-b' -- "$smoe" sweep sweep.yaml
}
case_values_may_be_added() {
  prepared
  write_sweep 'train.seed: {values: [1, 2]}'
  "$smoe" sweep sweep.yaml
  write_sweep 'train.seed: {values: [3, 1, 2]}'
  expect 0 'point 1 of 3: seed-3' '3 done' -- "$smoe" sweep sweep.yaml
  [ "$(grep -o 'seed-[0-9]"' study/results.jsonl | tr -d '\n')" = 'seed-3"seed-1"seed-2"' ] || fail 'not in the order of the points'
  write_sweep 'train.seed: {values: [1, 2]}'
  expect 1 'another study' 'train.seed: the value 3 is gone' -- "$smoe" sweep sweep.yaml
}
case_two_ranks_give_the_same_weights() {
  prepared num_key_value_heads=2
  write_sweep 'train.seed: {values: [1]}'
  "$smoe" sweep sweep.yaml
  sed -i 's/output_dir: study/output_dir: both/' sweep.yaml
  printf 'parallel:\n  tp: 2\n  ep: 2\n' >>config.yaml
  mpirun --oversubscribe --bind-to none -n 2 "$smoe" sweep sweep.yaml
  python3 - <<'END'
import json
a, b = (json.loads(open(f"{name}/results.jsonl").readline()) for name in ("study", "both"))
assert a["initial_weights"] == b["initial_weights"] and a["data_order"] == b["data_order"], (a, b)
assert abs(a["lm_loss"] - b["lm_loss"]) < 1e-4 and b["status"] == "done", (a, b)
END
}
# Points on slices of one job are those of a job each, and every point is run once.
case_slices() {
  prepared num_key_value_heads=2
  write_sweep 'train.seed: {values: [1, 2, 3]}' 'router.aux_loss_coef: {values: [0, 0.01]}'
  "$smoe" sweep sweep.yaml
  mv study before
  expect 0 'point 6 of 6' 'point seed-3_aux_loss_coef-0.01: done' '6 done' -- \
    mpirun --oversubscribe --bind-to none -n 2 "$smoe" sweep sweep.yaml --slices 2
  same_results before study
  for point in before/points/*; do
    cmp "$point/checkpoints/step-000002/model/model.safetensors" \
      "study/points/${point##*/}/checkpoints/step-000002/model/model.safetensors"
    [ "$(grep -c 'train.*100%\|saved ' "study/points/${point##*/}/train.log")" -ge 1 ] || fail 'its log tells nothing'
  done
  expect 0 '6 done' -- mpirun --oversubscribe --bind-to none -n 2 "$smoe" sweep sweep.yaml --slices 2
  # Two ranks a slice: a point is the same as on a job of two, and the last slice has nothing to do.
  sed -i 's/output_dir: study/output_dir: pair/; s/\[1, 2, 3\]/[1]/' sweep.yaml
  printf 'parallel:\n  tp: 2\n' >>config.yaml
  mpirun --oversubscribe --bind-to none -n 2 "$smoe" sweep sweep.yaml
  sed -i 's/output_dir: pair/output_dir: pairs/' sweep.yaml
  mpirun --oversubscribe --bind-to none -n 6 "$smoe" sweep sweep.yaml --slices 3
  same_results pair pairs
}
# A slice that has nothing left to do waits for the others for as long as they take, whatever the limit of a collective is.
case_slices_that_end_apart() {
  prepared
  sed -i 's/^  interval: 1$/  interval: 4000/' config.yaml
  printf 'parallel:\n  timeout: 1\n' >>config.yaml
  write_sweep 'train.steps: {values: [1, 4000]}'
  expect 0 '2 done' -- mpirun --oversubscribe --bind-to none -n 2 "$smoe" sweep sweep.yaml --slices 2
  python3 - <<'END'
import json
short, long = (json.loads(line)["seconds"] for line in open("study/results.jsonl"))
assert long - short > 1, (short, long)
END
}
case_slices_with_a_failing_point() {
  prepared
  write_sweep 'optimizer.learning_rate: {values: [0.001, 1.0e+30, 0.002]}'
  sed -i 's/steps: 2/steps: 8/; s/^train:/train:\n  max_skipped_steps: 2/' config.yaml
  expect 1 '2 done, 0 running, 1 failed' '1 of 3 points failed' -- \
    mpirun --oversubscribe --bind-to none -n 2 "$smoe" sweep sweep.yaml --slices 2
  expect 1 '2 done, 0 running, 1 failed' -- \
    mpirun --oversubscribe --bind-to none -n 3 "$smoe" sweep sweep.yaml --slices 3 --retry-failed
  expect 2 '--slices: found 2 of 3 ranks' -- mpirun --oversubscribe --bind-to none -n 3 "$smoe" sweep sweep.yaml --slices 2
  expect 2 '--slices: found 2 of 1 rank,' -- "$smoe" sweep sweep.yaml --slices 2
  expect 2 'slices' -- "$smoe" sweep sweep.yaml --slices 2 --point 1
}
# Other processes run other points: none is run twice, whoever comes first.
case_several_sweeps_of_points() {
  prepared
  write_sweep 'train.seed: {values: [1, 2, 3]}'
  for try in 1 2 3; do
    for point in 1 2 3 1 2 3; do "$smoe" sweep sweep.yaml --point "$point" >"log-$point-$RANDOM" 2>&1 & done
    wait
    [ "$(grep -c '"status":"done"' study/results.jsonl)" = 3 ] || fail "$(cat study/results.jsonl)"
    for point in 1 2 3; do
      [ "$(grep -c '"lm_loss"' "study/points/seed-$point/metrics.jsonl")" = 2 ] || fail "point $point was run twice"
    done
    rm -r study
  done
}
case_keys_of_the_sweep_on_the_command_line() {
  prepared
  printf 'program: train.py\nmethod: bayes\nmetric: {name: val_loss, goal: minimize}\n' >wild.yaml
  printf 'early_terminate: {type: hyperband, min_iter: 3}\nparameters:\n  train.seed: {min: 1, max: 1000}\n' >>wild.yaml
  expect 2 'wild.yaml: base: missing' -- "$smoe" sweep wild.yaml method=random runs=2
  expect 0 'program, early_terminate .every point runs to its end. in the sweep.s file: passed over' '2 done' -- \
    "$smoe" sweep wild.yaml method=random runs=2 base=config.yaml output_dir=study
  expect 0 '2 done' -- "$smoe" sweep wild.yaml method=random runs=2 base=config.yaml output_dir=study --status
  expect 2 'runs: found .0.' -- "$smoe" sweep wild.yaml method=random runs=0 base=config.yaml
  expect 2 'run: unknown key; did you mean .runs.' -- "$smoe" sweep wild.yaml method=random run=2 base=config.yaml
}
case_failed_point_does_not_stop_the_rest() {
  prepared
  # No step of the second is finite, and two in a row end a run.
  write_sweep 'optimizer.learning_rate: {values: [0.001, 1.0e+30, 0.002]}'
  sed -i 's/steps: 2/steps: 8/; s/^train:/train:\n  max_skipped_steps: 2/' config.yaml
  expect 1 '2 done, 0 running, 1 failed' '1 of 3 points failed' -- "$smoe" sweep sweep.yaml
  python3 - <<'END'
import json
rows = [json.loads(line) for line in open("study/results.jsonl")]
assert [row["status"] for row in rows] == ["done", "failed", "done"], rows
assert "not finite" in rows[1]["error"] and rows[1]["lm_loss"] is None, rows[1]
assert len({row["initial_weights"] for row in rows}) == 1
END
  cp -r study before
  expect 1 '1 of 3 points failed' -- "$smoe" sweep sweep.yaml
  cmp before/results.jsonl study/results.jsonl
  expect 1 'point 2 of 3' 'point .* failed: ' -- "$smoe" sweep sweep.yaml --retry-failed
}
case_status() {
  prepared
  two_by_two
  printf 'metric: {name: val_loss, goal: minimize}\n' >>sweep.yaml
  expect 0 '4 points: 0 done, 0 running, 0 failed, 0 stopped, 4 left' 'not known' -- "$smoe" sweep sweep.yaml --status
  absent study
  expect 2 '--json: found without --status' -- "$smoe" sweep sweep.yaml --json
  "$smoe" sweep sweep.yaml
  expect 0 '4 done.* 0 left' 'best by eval: seed-' -- "$smoe" sweep sweep.yaml --status
  rm -r study/points/seed-1_aux_loss_coef-0 study/results.jsonl
  "$smoe" sweep sweep.yaml --status --json >status.json
  python3 - <<'END'
import json
status = json.load(open("status.json"))
assert (status["done"], status["left"]) == (3, 1) and status["seconds_to_come"] > 0, status
assert [p["status"] for p in status["points"]] == ["left", "done", "done", "done"], status
assert status["best"]["metric"] == "eval" and status["best"]["point"] and status["best"]["value"] > 0, status
END
}
case_metric_of_a_source_that_no_point_evaluates() {
  prepared
  two_by_two
  printf 'metric: {name: eval.tset, goal: minimize}\n' >>sweep.yaml
  expect 1 'metric\.name: found eval\.tset, but point seed-1_.* evaluates test: expected' -- "$smoe" sweep sweep.yaml
  absent study/points study/results.jsonl
  sed -i 's/eval\.tset/eval.test/' sweep.yaml
  expect 0 'best by eval\.test: ' -- "$smoe" sweep sweep.yaml
}
case_signal_stops_after_saving() {
  prepared steps=100000
  write_sweep 'train.seed: {values: [1, 2]}'
  "$smoe" sweep sweep.yaml >log 2>&1 &
  local pid=$! status=0 tries
  for tries in $(seq 1000); do
    [ -f study/points/seed-1/checkpoints/latest ] && break
    sleep 0.02
  done
  expect 0 'running .*seed-1' '1 running' '1 left' 'to come' -- "$smoe" sweep sweep.yaml --status
  expect 1 'another sweep is writing here' -- "$smoe" sweep sweep.yaml
  kill -TERM "$pid"
  wait "$pid" || status=$?
  [ "$status" = 18 ] || fail "status $status"
  absent study/points/seed-2
  expect 0 'stopped .*seed-1' '1 stopped, 1 left' -- "$smoe" sweep sweep.yaml --status
}
case_points_beside_one_another() {
  prepared
  two_by_two
  "$smoe" sweep sweep.yaml
  cp -r study whole
  rm -r study
  local point pids=()
  for point in 4 3 seed-1_aux_loss_coef-0.01 1; do
    "$smoe" sweep sweep.yaml --point "$point" >"$point.log" 2>&1 &
    pids+=($!)
  done
  for point in "${pids[@]}"; do wait "$point" || fail "a task ended with status $?: $(cat ./*.log)"; done
  same_results whole study
  expect 0 '4 done' -- "$smoe" sweep sweep.yaml --point 1
  expect 2 '--point: found .5., expected a number from 1 to 4' -- "$smoe" sweep sweep.yaml --point 5
}
case_running_point_is_left_to_who_runs_it() {
  prepared steps=100000
  write_sweep 'train.seed: {values: [1]}'
  "$smoe" sweep sweep.yaml --point 1 >log 2>&1 &
  local pid=$! tries
  for tries in $(seq 1000); do
    [ -f study/points/seed-1/checkpoints/latest ] && break
    sleep 0.02
  done
  expect 1 'point seed-1: another process runs it' 'run it again when' -- "$smoe" sweep sweep.yaml
  grep -q begun study/points/seed-1/point.json || fail "$(cat study/points/seed-1/point.json)"
  kill -TERM "$pid"
  wait "$pid" || true
}
case_random_draws_are_prefixes() {
  prepared
  printf 'base: config.yaml\noutput_dir: study\nmethod: random\nruns: 2\nseed: 5\nparameters:\n  optimizer.learning_rate: {distribution: log_uniform_values, min: 1.0e-4, max: 1.0e-2}\n' >sweep.yaml
  "$smoe" sweep sweep.yaml
  cp study/results.jsonl before.jsonl
  sed -i 's/runs: 2/runs: 3/' sweep.yaml
  "$smoe" sweep sweep.yaml
  head -n 2 study/results.jsonl | cmp - before.jsonl
  [ "$(wc -l <study/results.jsonl)" = 3 ] || fail 'expected 3 rows'
  sed -i 's/seed: 5/seed: 6/' sweep.yaml
  expect 1 'another study' 'seed: 5 -> 6' -- "$smoe" sweep sweep.yaml
}
case_file_of_weights_and_biases() {
  prepared
  # As such files stand in repositories, its keys renamed: base for program, and the parameters' names.
  cat >sweep.yaml <<'END'
base: config.yaml
project: moe-balance
entity: someone
name: aux-loss-sweep
description: load balancing against quality
method: random
runs: 3
metric:
  name: val_loss
  goal: minimize
parameters:
  optimizer:
    parameters:
      learning_rate:
        distribution: log_uniform_values
        min: 1e-4
        max: 1e-2
      weight_decay:
        distribution: uniform
        min: 0.0
        max: 0.2
  router.aux_loss_coef:
    values: [0.0, 0.001, 0.01]
  train.global_batch_size:
    distribution: q_uniform
    q: 4
    min: 4
    max: 8
  train.seed:
    distribution: int_uniform
    min: 1
    max: 100
  schedule.warmup_steps:
    value: 1
command:
  - ${env}
  - python3
  - ${program}
  - ${args}
END
  expect 0 'project, entity, name, description, command in the sweep.s file: passed over' '3 done' 'best by eval' -- \
    "$smoe" sweep sweep.yaml
  [ -f sweeps/sweep/results.jsonl ] || fail 'expected sweeps/sweep/results.jsonl'
  # The shape of W&B's tutorial: a batch size whose logarithm is uniform, a metric that is not measured here.
  cat >tutorial.yaml <<'END'
base: config.yaml
method: random
runs: 2
metric: {name: val_auroc, goal: maximize}
parameters:
  model.num_experts_per_tok: {values: [1, 2, 3]}
  optimizer.weight_decay: {distribution: uniform, min: 0, max: 0.1}
  model.intermediate_size: {distribution: q_log_uniform, q: 1, min: 3.465736, max: 4.158883}
  train.steps: {value: 2}
END
  expect 0 'metric.name: val_auroc in the sweep.s file: passed over' '2 done' -- "$smoe" sweep tutorial.yaml
}

case_report_of_a_sweep() {
  prepared
  two_by_two
  "$smoe" sweep sweep.yaml --point 1
  grep -q '"done":1,"failed":0,"left":3' study/report.html || fail 'the report of one point of four'
  "$smoe" sweep sweep.yaml
  grep -q '"done":4,"failed":0,"left":0' study/report.html || fail 'the report of four points'
  cp study/report.html before.html
  rm study/report.html
  expect 0 '^study/report.html$' -- "$smoe" report study
  cmp before.html study/report.html
  expect 0 "4 done" -- "$smoe" sweep study/sweep.yaml
  # A copy of it elsewhere, where neither base nor checkpoints are.
  mkdir elsewhere
  cp -r study elsewhere/
  rm -r elsewhere/study/points/*/checkpoints elsewhere/study/report.html
  expect 0 '^page.html$' -- "$smoe" report elsewhere/study --out page.html
  cmp <(sed 's/"directory":"[^"]*"//' before.html) <(sed 's/"directory":"[^"]*"//' page.html)
  cd elsewhere
  "$smoe" report study --markdown >tables.md
  cd ..
  # The numbers of results.jsonl, worked out again: seed 1 is paired with seed 1, seed 2 with seed 2.
  python3 - <<'END'
import json, math
rows = {tuple(row["parameters"].values()): row for row in map(json.loads, open("study/results.jsonl"))}
loss = {key: sum(row["eval"].values()) / len(row["eval"]) for key, row in rows.items()}
a, b = [loss[s, 0] for s in (1, 2)], [loss[s, 0.01] for s in (1, 2)]
mean = lambda x: sum(x) / len(x)
sd = lambda x: math.sqrt(sum((v - mean(x)) ** 2 for v in x) / (len(x) - 1))
difference = [y - x for x, y in zip(a, b)]
half = 12.7062047 * sd(difference) / math.sqrt(2)
text = open("elsewhere/tables.md").read()
for piece in (f"| 0 | 2 | {mean(a):.4f} ± {sd(a):.4f} |", f"| 0.01 | 2 | {mean(b):.4f} ± {sd(b):.4f} |",
              f"{mean(difference):+.4f} ± {half:.4f}"):
    assert piece in text, (piece, text)
END
  expect 2 'found 2 directories with a sweep' -- "$smoe" report study study/points/seed-1_aux_loss_coef-0
  expect 2 '--markdown: found no sweep.yaml' -- "$smoe" report study/points/seed-1_aux_loss_coef-0 --markdown
  expect 2 '--markdown: found beside --out' -- "$smoe" report study --markdown --out x.html
  # A report that cannot be made is no failure of the study.
  rm study/report.html
  mkdir study/report.html
  expect 0 'no report: cannot write the report study/report.html' '4 done' -- "$smoe" sweep sweep.yaml
}

# ---- what is refused ----
refuse_parameter() { # LINE PIECE...
  write_sweep "$1"
  shift
  expect 2 "$@" -- "$smoe" sweep sweep.yaml
  absent study
}
case_bad_parameters() {
  prepared
  refuse_parameter 'router.aux_loss_coeff: {values: [0]}' 'sweep.yaml:5:3: parameters.router.aux_loss_coeff: unknown key.*router.aux_loss_coef'
  refuse_parameter 'learning_rate: {values: [0.1]}' 'parameters.learning_rate: unknown key.*optimizer.learning_rate'
  refuse_parameter 'train.seed: {values: [1, one]}' "parameters.train.seed: found .*one.*expected an integer.*point seed-one"
  refuse_parameter 'optimizer.learning_rate: {values: [0.01, 1.0e-2]}' 'two points with the same values'
  refuse_parameter 'train.seed: {values: [1, 1]}' 'parameters.train.seed.values: found 1 again'
  refuse_parameter 'train.seed: {min: 5, max: 1}' 'empty range, min 5 and max 1'
  refuse_parameter 'train.output_dir: {values: [a, b]}' 'the sweep sets it'
  refuse_parameter 'checkpoint.resume: {values: [never, auto]}' 'the sweep sets it'
}
case_bad_files() {
  prepared
  printf 'base: nowhere.yaml\nmethod: grid\nparameters:\n  train.seed: {values: [1]}\n' >sweep.yaml
  expect 2 'nowhere.yaml: cannot be read' -- "$smoe" sweep sweep.yaml
  expect 2 'absent.yaml: cannot be read' -- "$smoe" sweep absent.yaml
  write_sweep 'train.seed: {values: [1]}'
  printf 'metric: {name: eval}\n' >>sweep.yaml
  sed -i '/eval:/d' config.yaml
  expect 2 'metric.name: found eval, but the base config.yaml has no data.eval' -- "$smoe" sweep sweep.yaml
  printf 'checkpoint:\n  resume: never\n' >part
  sed -i '/^metric/d' sweep.yaml
  sed -i 's/^checkpoint:/checkpoint:\n  resume: never/' config.yaml
  expect 2 'checkpoint.resume: found .never. in the base' -- "$smoe" sweep sweep.yaml
}
case_results_edited_by_hand() {
  prepared
  write_sweep 'train.seed: {values: [1, 2]}'
  "$smoe" sweep sweep.yaml
  cp study/results.jsonl kept
  sed -i '2s/"lm_loss":[0-9.]*/"lm_loss":1.5/' study/results.jsonl
  expect 1 'results.jsonl:2: point seed-2: .lm_loss.: found 1.5, its own files say' 'changed by hand' -- "$smoe" sweep sweep.yaml
  sed 's/seed-2/seed-9/' kept >study/results.jsonl
  expect 1 'results.jsonl:2: found the point .seed-9., which is none of this study;' -- "$smoe" sweep sweep.yaml
  echo '{"point": ' >study/results.jsonl
  expect 1 'results.jsonl:1' -- "$smoe" sweep sweep.yaml
  rm study/results.jsonl
  expect 0 '2 done' -- "$smoe" sweep sweep.yaml
  cmp kept study/results.jsonl
  sed -i '/"step":2,/d' study/points/seed-1/metrics.jsonl
  expect 1 'seed-1/metrics.jsonl: found no row of step 2' -- "$smoe" sweep sweep.yaml
}
case_directory_of_another() {
  prepared
  write_sweep 'train.seed: {values: [1]}'
  mkdir study
  touch study/metrics.jsonl
  expect 1 'study: found metrics.jsonl and no sweep.yaml' -- "$smoe" sweep sweep.yaml
  rm -r study
  "$smoe" sweep sweep.yaml
  sed -i 's/learning_rate: 1.0e-3/learning_rate: 2.0e-3/' config.yaml
  expect 1 'another study' 'base: optimizer.learning_rate: 0.001 -> 0.002' -- "$smoe" sweep sweep.yaml
  expect 1 'another study' -- "$smoe" sweep sweep.yaml --status
}
case_data_that_moved() {
  prepared
  write_sweep 'train.seed: {values: [1, 2]}'
  "$smoe" sweep sweep.yaml
  mv shards elsewhere
  expect 1 'data.train.0.path of point seed-1: found no shards/manifest.json.*put them back' -- "$smoe" sweep sweep.yaml
  write_text 61
  "$smoe" prepare text.jsonl --out shards --tokenizer bytes --source test
  expect 1 'shards: its manifest is not what it was' -- "$smoe" sweep sweep.yaml
}
# Every point of theirs is a whole configuration.
case_shipped_studies() {
  local here=$PWD study count=0
  cd "$root"
  for study in docs/studies/*/study.yaml; do
    expect 0 'none: [0-9]+ points: 0 done' -- "$smoe" sweep "$study" output_dir="$here/none" --status
    count=$((count + 1))
  done
  [ "$count" -ge 2 ] || fail "found $count studies"
  absent "$here/none"
}
case_layout_that_does_not_fit() {
  prepared
  write_sweep 'parallel.ep: {values: [1, 2]}'
  expect 2 'point ep-2: ' -- "$smoe" sweep sweep.yaml
  absent study
}

run_case "$@"
