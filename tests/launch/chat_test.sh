#!/usr/bin/env bash
# smoe generate --chat: an answer to a message, and conversations through pipes and on a terminal.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"
. "$(dirname "${BASH_SOURCE[0]}")/tiny_run.sh"

# chatty [NAME=VALUE]...: a model on byte tokens that writes about documents, and ends what it writes.
chatty() { trained max_position_embeddings=256 steps=60 learning_rate=2.0e-2 interval=100 "$@" >/dev/null 2>&1; }

chat() { "$smoe" generate --model run --tokenizer bytes --threads 1 --seed 3 "$@"; }

# expect_answers FILE TEMPLATE: each answer of a saved conversation is what its prompt, put together here, is continued with.
expect_answers() {
  python3 - "$1" "$smoe" <<'END'
import json, subprocess, sys
messages = json.load(open(sys.argv[1]))["messages"]
system = ""
if messages[0]["role"] == "system":
    system = messages.pop(0)["content"] + "\n\n"
of = lambda text: [3 + b for b in text.encode()]
ids, answers = [1], 0
for i, message in enumerate(messages):
    if message["role"] == "user":
        ids += of(f"[INST] {system if i == 0 else ''}{message['content']} [/INST]")
        continue
    made = subprocess.run([sys.argv[2], "generate", "--model", "run", "--tokenizer", "bytes", "--threads", "1", "--seed", "3", "--max-tokens", "30",
                           "--prompt-ids", ",".join(map(str, ids))], check=True, capture_output=True, text=True).stdout.strip()
    text = bytes(int(id) - 3 for id in made.split(",") if int(id) > 2).decode(errors="replace")
    assert text == message["content"], (i, text, message["content"])
    ids += of(message["content"]) + [2]
    answers += 1
print(answers, "answers are those of their prompts")
END
}

case_a_message_is_answered() {
  chatty
  chat --chat mixtral-v1 --prompt 'document 1' --max-tokens 30 >answer
  [ "$(wc -l <answer)" = 1 ] || fail "found $(cat answer)"
  python3 -c 'import json; json.dump({"messages": [{"role": "user", "content": "document 1"}, {"role": "assistant", "content": open("answer").read()[:-1]}]}, open("c.json", "w"))'
  expect 0 '1 answers' -- expect_answers c.json
  chat --chat mixtral-v1 --system 'be brief' --prompt 'document 1' --max-tokens 30 >briefly
  cmp -s answer briefly && fail "the system message changes nothing"
  chat --chat plain --prompt 'document 1' --max-tokens 8 >plain
  expect 0 'smoe: the answer was cut at --max-tokens' -- chat --chat mixtral-v1 --prompt 'document 1' --max-tokens 1
  expect 1 'max_position_embeddings' -- "$smoe" generate --model run --tokenizer bytes --chat mixtral-v1 --prompt a --max-tokens 250
}

case_a_conversation_goes_through_pipes() {
  chatty
  printf '%s\n' 'document 1' '' '//two' '/save c.json' '/reset' 'document 1' '/save d.json' '/quit' 'never' |
    chat --chat mixtral-v1 --interactive --max-tokens 30 >answers 2>said
  [ "$(wc -l <answers)" = 3 ] || fail "found $(cat answers)"
  printf 'document \377\n/save f.json\n' | chat --chat mixtral-v1 --interactive --max-tokens 3 >none 2>said
  [ -s none ] && fail "a line that is no UTF-8 was asked: $(cat none)"
  grep -q 'this line is no UTF-8' said || fail "found $(cat said)"
  [ "$(sed -n 1p answers)" = "$(sed -n 3p answers)" ] || fail "/reset did not begin anew: $(cat answers)"
  grep -q '> ' answers && fail "a prompt sign without a terminal"
  expect 0 '2 answers' -- expect_answers c.json
  expect 0 '1 answers' -- expect_answers d.json
  [ "$(python3 -c 'import json; print([m["content"] for m in json.load(open("c.json"))["messages"]][2])')" = /two ] || fail "the slash is gone"
  printf 'document 1\n/save e.json' | chat --chat mixtral-v1 --interactive --system 'be brief' --max-tokens 30 >/dev/null
  expect 0 '1 answers' -- expect_answers e.json
  grep -q '"be brief"' e.json || fail "the system message is not saved"
  cp e.json e.jsonl
  for kind in json jsonl; do  # what was said can be learned
    expect 0 '1 examples with [0-9]+ targets' -- "$smoe" prepare "e.$kind" --out "said-$kind" --tokenizer bytes --chat mixtral-v1
  done
}

case_what_a_conversation_cannot_do_is_told() {
  chatty
  printf '%s\n' 'document 1' '/save nowhere/c.json' '/save' '/quit now' '/what' '/help' 'document 2' |
    chat --chat mixtral-v1 --interactive --max-tokens 4 >answers 2>said
  [ "$(wc -l <answers)" = 2 ] || fail "it did not go on: $(cat answers said)"
  for piece in 'not saved: .*nowhere' '/save wants a file' '/quit takes nothing behind it' 'unknown command /what' '/reset  ' 'cut at --max-tokens'; do
    grep -q -- "$piece" said || fail "no /$piece/ in $(cat said)"
  done
  absent nowhere
}

case_a_conversation_that_outgrows_the_model_is_told() {
  chatty
  for i in 1 2 3 4 5 6; do printf 'document %d of the corpus, with some words in it\n' "$i"; done >lines
  { cat lines; printf '/reset\ndocument 1 of the corpus, with some words in it\n/save c.json\n'; } |
    chat --chat mixtral-v1 --interactive --max-tokens 30 >answers 2>said
  grep -q 'the model reads 256 (max_position_embeddings).*/reset' said || fail "found $(cat said)"
  [ "$(wc -l <answers)" -lt 7 ] || fail "a question without room was answered"
  [ "$(head -n 1 answers)" = "$(tail -n 1 answers)" ] || fail "after /reset it should answer as at first"
  expect 0 '1 answers' -- expect_answers c.json
  printf '%s\n' "$(printf 'x%.0s' $(seq 236))" | chat --chat mixtral-v1 --interactive --max-tokens 1000 >answers 2>said
  grep -q 'cut: with it the conversation has the 256 tokens' said || fail "found $(cat answers said)"
}

case_a_template_without_turns_begins_anew_with_each_message() {
  chatty
  printf 'document 1\ndocument 2\ndocument 1\n/save c.json\n' | chat --chat plain --interactive --max-tokens 20 >answers
  [ "$(wc -l <answers)" = 3 ] || fail "found $(cat answers)"
  [ "$(sed -n 1p answers)" = "$(sed -n 3p answers)" ] || fail "the second message is remembered: $(cat answers)"
  [ "$(grep -o '"role"' c.json | wc -l)" = 2 ] || fail "found $(cat c.json)"
}

case_options_that_want_others_are_refused() {
  trained
  expect 2 '--interactive wants --chat' 'mixtral-v1' -- "$smoe" generate --model run --interactive
  expect 2 '--system wants --chat' -- "$smoe" generate --model run --system x --prompt y
  expect 2 '--chat wants a message' '--prompt' '--interactive' -- "$smoe" generate --model run --chat plain
  expect 2 '--chat' 'chat-ml' 'chatml' 'zephyr' -- "$smoe" generate --model run --chat chat-ml --prompt x
  expect 2 '--prompt-ids' '--chat' -- "$smoe" generate --model run --chat plain --prompt-ids 1
  expect 2 '--interactive' '--prompt' -- "$smoe" generate --model run --chat plain --interactive --prompt x
  expect 2 'alpaca has no place for a system message' -- "$smoe" generate --model run --tokenizer bytes --chat alpaca --system x --prompt y
  expect 1 'chatml needs <|im_start|>, <|im_end|>' -- "$smoe" generate --model run --tokenizer bytes --chat chatml --prompt x
  expect 1 'mixtral-v3' 'take mixtral-v1' -- "$smoe" generate --model run --tokenizer bytes --chat mixtral-v3 --prompt x
}

# On a terminal: signs, Ctrl-C during an answer that would not end, and twice at the prompt.
case_ctrl_c_ends_an_answer_and_twice_the_program() {
  trained max_position_embeddings=100000 steps=1 learning_rate=1.0e-6 >/dev/null 2>&1
  python3 - "$smoe" <<'END'
import os, pty, select, signal, sys, time
arguments = [sys.argv[1], "generate", "--model", "run", "--tokenizer", "bytes", "--threads", "1", "--chat", "mixtral-v1", "--interactive", "--max-tokens",
             "90000", "--greedy"]
child, terminal = pty.fork()
if child == 0:
    os.execv(arguments[0], arguments)
seen = ""

def wait_for(what, seconds=60):
    global seen
    end = time.time() + seconds
    while not what(seen):
        assert time.time() < end, "waited in vain; seen: " + seen[-2000:]
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                seen += os.read(terminal, 65536).decode(errors="replace")
            except OSError:
                assert what(seen), "it ended; seen: " + seen[-2000:]

def say(text):
    global seen
    seen = ""
    os.write(terminal, text)

wait_for(lambda s: s.endswith("> "))
for _ in range(2):
    say(b"hello\n")
    wait_for(lambda s: len(s) > 300)
    assert "\n> " not in seen, seen
    say(b"\x03")
    wait_for(lambda s: s.endswith("\n> "))
say(b"/quit now\n")
wait_for(lambda s: "takes nothing" in s and s.endswith("> "))
say(b"\x03")
wait_for(lambda s: "Ctrl-C again" in s and s.endswith("> "))
say(b"/what\n")
wait_for(lambda s: s.endswith("> "))
for i in range(2):
    say(b"\x03")
    if i == 0:
        wait_for(lambda s: s.endswith("> "))
for _ in range(600):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        break
    if select.select([terminal], [], [], 0.1)[0]:
        try:
            os.read(terminal, 65536)
        except OSError:  # it has closed its side
            time.sleep(0.1)
else:
    os.kill(child, signal.SIGKILL)
    sys.exit("it did not end")
assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, status
END
}

# A model that writes nothing but control characters, whose answer to one message may not reach a terminal as they are.
case_what_a_model_writes_cannot_command_the_terminal() {
  trained steps=1 >/dev/null 2>&1
  cp -r run/checkpoints/step-000001/model model  # by itself: the checkpoint's manifest would tell
  python3 - model/model.safetensors "$smoe" <<'END'
import json, os, pty, struct, subprocess, sys
file, smoe = sys.argv[1:]
content = bytearray(open(file, "rb").read())
size = struct.unpack("<Q", content[:8])[0]
entry = json.loads(content[8:8 + size])["lm_head.weight"]
rows, columns = entry["shape"]
assert entry["dtype"] == "F32", entry
head = [0.0] * (rows * columns)
for byte, sign in ((0x1b, 1), (0x07, -1)):  # whatever the sign of the first number, one of the two is far ahead
    head[(3 + byte) * columns] = sign * 1e4
begin = 8 + size + entry["data_offsets"][0]
content[begin:begin + 4 * len(head)] = struct.pack(f"<{len(head)}f", *head)
open(file, "wb").write(content)
arguments = [smoe, "generate", "--model", "model", "--tokenizer", "bytes", "--threads", "1", "--chat", "plain", "--prompt", "document", "--max-tokens", "8"]
raw = subprocess.run(arguments, check=True, capture_output=True).stdout
assert set(raw[:-1]) <= {0x1b, 0x07} and len(raw) == 9, raw  # in a pipe the bytes are the answer
shown = b""
def read(terminal):
    global shown
    data = os.read(terminal, 65536)
    shown += data
    return data
assert pty.spawn(arguments, read, lambda terminal: b"") == 0
assert b"\x1b" not in shown and b"\x07" not in shown, shown
assert shown.startswith((b"\\x1b", b"\\x07")), shown
END
}

run_case "$@"
