#!/usr/bin/env python3
"""Writes chat_templates.json: conversations as ids, with the ids of answers marked, as transformers and mistral-common make them.

Vocabularies are learned here from made-up text, as in make_bpe_goldens.py and make_tokenizer_goldens.py, whose functions this
uses. The templates are written out below, with {% generation %} around answers. Conversations of chatml, llama3 and zephyr are
those of apply_chat_template(return_assistant_tokens_mask=True); alpaca and plain are the text that they stand for, tokenized whole,
with eos behind it. mixtral-v1 and mixtral-v3 are mistral-common's, over a small tokenizer.model of the v1 and of the v3 kind, and
over the real ones that the package carries, of which only ids are kept.

The file holds "conversations"; "models", tokenizer.model files by their pieces (what follows unk, bos, eos, "controls" and the 256
bytes; piece i has the score -i); "tokenizers", a tokenizer.json or the name of a model, with a tokenizer_config.json; "cases", each
with "template", "tokenizer" and for each of its "conversations" the ids and which of them are an answer's; and "real", the same of the
files of the package, by their SHA-256.

Needs transformers, jinja2, tokenizers, sentencepiece, protobuf and mistral-common.
"""

import argparse
import hashlib
import json
import tempfile
from pathlib import Path

import mistral_common
from mistral_common.protocol.instruct.messages import AssistantMessage, UserMessage
from mistral_common.protocol.instruct.request import InstructRequest
from mistral_common.tokens.tokenizers.instruct import InstructTokenizerV1, InstructTokenizerV3
from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from transformers import PreTrainedTokenizerFast

import make_bpe_goldens as bpe
import make_tokenizer_goldens as spm

CONTROLS = ["[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[IMG]", "[PREFIX]",
            "[MIDDLE]", "[SUFFIX]"]
ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n{}\n\n### Response:"
ALPACA_WITH_INPUT = ("Below is an instruction that describes a task, paired with an input that provides further context. Write a response that "
                     "appropriately completes the request.\n\n### Instruction:\n{}\n\n### Input:\n{}\n\n### Response:")

TEMPLATES = {
    "chatml": "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}{% generation %}"
              "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama3": "{{ '<|begin_of_text|>' }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
              "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}{% else %}"
              "{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "zephyr": "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' }}{% if message['role'] == 'assistant' %}{% generation %}"
              "{{ message['content'] + eos_token }}{% endgeneration %}{% else %}{{ message['content'] + eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
}


def conversation(*texts, system=None, input=None):
    messages = [{"role": "system", "content": system}] if system is not None else []
    for i, text in enumerate(texts):
        messages.append({"role": "assistant" if i % 2 else "user", "content": text})
        if input and i == 0:
            messages[-1]["input"] = input
    return messages


CONVERSATIONS = [
    conversation("hello world", "I am fine, thanks!"),
    conversation("how are you", "fine", "and the fox?", "the quick brown fox"),
    conversation("hello", "the assistant", system="you are a tool"),
    conversation("a", "b", "c", "d", "e", "résumé naïve 日本 😀", system="system\nof two lines"),
    conversation("  hello  \n", "the\n\n  quick\tfox \n", "\n\n", "I  am", system=" "),
    conversation("", "then 42", system=""),
    conversation("Übung 日本 語 1234567", "<b>x</b> {y} $z [0] ...\n```\ndef f():\n    return 'a'\n```", "don't I'LL", "you're <|end|"),
    conversation("the tool", "brown ", "[INST] x [/INST]", "[/INST] [INST]"),
    conversation("call the tool", "fine", input="hello world\nand 42"),
    conversation("\x1c\x1f the fox\x1d \x0b", "\x1efine\x1c"),
    conversation("the \u00a0user \u3000", "assistant\r\n\r\nhello\u2003", "e\u0301", "👨‍👩‍👧 한국어"),
]
# The next two are encoded otherwise here, and why is said in the test: answers that begin with white space, and what the
# rendered text of transformers reads as special tokens.
WHITE = [conversation("hello", "\n\nthe fox", "and", "\n 42"), conversation("hello", "  the fox")]
SPELLED = [conversation("</s> <s>[INST] hello", "the</s>", "<unk> and", "[/INST] fine <s>", system="<s>")]


def of_bytes(pattern, tokens, eos, bos=None):
    """A byte-level vocabulary with the tokens of a template behind it, and bos in front of texts where there is one."""
    steps = [bpe.pre_tokenizers.Split(bpe.Regex(pattern), "isolated", False), bpe.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    document = bpe.byte_level(None, steps, size=700, added=[AddedToken(t, special=True, normalized=False) for t in tokens])
    tokenizer = Tokenizer.from_str(json.dumps(document))
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))])
    return wrapped(tokenizer, {"bos_token": bos, "eos_token": eos})


def wrapped(tokenizer, config):
    config = {key: value for key, value in config.items() if value}
    return {"json": json.loads(tokenizer.to_str()), "config": config, "tokenizer": PreTrainedTokenizerFast(tokenizer_object=tokenizer, **config)}


def of_characters(tokens, eos):
    """As transformers 4 saved a Mixtral directory: a space in front of what follows each special token."""
    spaces_back = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    document = bpe.of_characters(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None, spaces_back)
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in tokens])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return wrapped(tokenizer, {"bos_token": "<s>", "eos_token": eos, "unk_token": "<unk>"})


def of_model(pieces, legacy, tokens, eos):
    """As AutoTokenizer makes it of a tokenizer.model and a tokenizer_config.json; bos in front of texts."""
    size = 259 + len(pieces)
    restated = {str(i): spm.token(content) for i, content in enumerate(spm.SPECIAL)}
    added = {str(size + i): spm.token(content) for i, content in enumerate(tokens)}
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>", "unk_token": "<unk>", "legacy": legacy, "eos_token": eos,
              "added_tokens_decoder": restated | added}
    tokenizer = spm.build(config, pieces)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return {"model": "v1", "config": config, "tokenizer": tokenizer}


def model_file(pieces, controls):
    model = sentencepiece_model_pb2.ModelProto()
    kinds = [("<unk>", 2), ("<s>", 3), ("</s>", 3)] + [(c, 3) for c in controls] + [(b, 6) for b in spm.BYTES] + [(p, 1) for p in pieces]
    first = len(kinds) - len(pieces)
    for i, (piece, kind) in enumerate(kinds):
        model.pieces.add(piece=piece, type=kind, score=-float(max(0, i - first)))
    model.trainer_spec.model_type = 2
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(kinds)
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    return model.SerializeToString()


def of_mistral(instruct, messages):
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    turns = [UserMessage(content="\n".join(filter(None, [m["content"], m.get("input")]))) if m["role"] == "user" else AssistantMessage(content=m["content"])
             for m in messages if m["role"] != "system"]
    request = InstructRequest(messages=turns, system_prompt=system)
    ids, mask = instruct.encode_instruct(request).tokens, [0]
    first, last = instruct.find_first_last_user(request)
    for i, turn in enumerate(turns):
        if isinstance(turn, UserMessage):
            length = len(instruct.encode_user_message(turn, None, i == last, i == first, system_prompt=system)[0])
        else:
            length = len(instruct.encode_assistant_message(turn, i < last))
        mask += [int(isinstance(turn, AssistantMessage))] * length
    assert len(ids) == len(mask)
    return {"ids": ids, "mask": mask}


def joined(message):
    return "\n".join(filter(None, [message["content"], message.get("input")]))


def of_template(tokenizer, template, messages):
    messages = [{"role": m["role"], "content": joined(m)} for m in messages]
    made = tokenizer.apply_chat_template(messages, chat_template=TEMPLATES[template], tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    prompt = tokenizer.apply_chat_template(messages[:-1], chat_template=TEMPLATES[template], tokenize=True, return_dict=True, add_generation_prompt=True)
    return {"ids": made["input_ids"], "mask": made["assistant_masks"], "prompt": prompt["input_ids"]}


def of_text(tokenizer, template, messages):
    question, answer = messages
    if template == "plain":
        prompt = joined(question)
    else:
        prompt = ALPACA_WITH_INPUT.format(question["content"], question["input"]) if question.get("input") else ALPACA.format(question["content"])
    made = tokenizer(prompt + answer["content"], return_offsets_mapping=True)
    # A special token in front has the offsets (0, 0), and so has SentencePiece's space.
    mask = [int(begin >= len(prompt) and end > 0) for begin, end in made["offset_mapping"]]
    return {"ids": made["input_ids"] + [tokenizer.eos_token_id], "mask": mask + [1], "prompt": tokenizer(prompt)["input_ids"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("chat_templates.json"))
    out = parser.parse_args().out

    pieces = spm.learn_pieces(220)
    im = ["<|im_end|>", "<|im_start|>"]
    llama = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    marks = ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>"]
    tokenizers = {
        "qwen": of_bytes(bpe.QWEN, [], "<|end|>"),
        "llama3": of_bytes(bpe.LLAMA3, llama, "<|eot_id|>", bos="<|begin_of_text|>"),
        "marks": of_bytes(bpe.LLAMA3, marks, "<|endoftext|>"),
        "mixtral": of_characters(im, "</s>"),
        "model, legacy": of_model(pieces, True, im, "<|im_end|>"),
        "model, not legacy": of_model(pieces, False, im, "<|im_end|>"),
        "model, eos of its own": of_model(pieces, True, [], "</s>"),
    }
    # <|im_start|> is one of make_bpe_goldens.py's own; <|im_end|> is not.
    qwen = tokenizers["qwen"]["tokenizer"]
    qwen.backend_tokenizer.add_special_tokens([AddedToken("<|im_end|>", normalized=False, special=True)])
    tokenizers["qwen"]["json"] = json.loads(qwen.backend_tokenizer.to_str())

    everything = range(len(CONVERSATIONS))
    single = [i for i in everything if [m["role"] for m in CONVERSATIONS[i]] == ["user", "assistant"]]
    cases = []
    for template, of, names, make in [
            ("chatml", everything, ["qwen", "mixtral", "model, legacy", "model, not legacy"], of_template),
            ("llama3", everything, ["llama3"], of_template),
            ("zephyr", everything, ["marks", "model, eos of its own"], of_template),
            ("alpaca", single, ["mixtral", "model, legacy", "model, not legacy", "model, eos of its own"], of_text),
            ("plain", single, ["qwen", "llama3", "mixtral", "model, not legacy", "model, eos of its own"], of_text)]:
        for name in names:
            tokenizer = tokenizers[name]["tokenizer"]
            cases.append({"template": template, "tokenizer": name,
                          "conversations": [{"of": i} | make(tokenizer, template, CONVERSATIONS[i]) for i in of]})
    white = [{"template": "chatml", "tokenizer": name,
              "conversations": [{"of": i} | of_template(tokenizers[name]["tokenizer"], "chatml", messages) for i, messages in enumerate(WHITE)]}
             for name in ("qwen", "model, legacy")]

    models = {"v1": {"controls": [], "pieces": pieces}, "v3": {"controls": CONTROLS, "pieces": pieces}}
    mistral, real = [], []
    package = Path(mistral_common.__file__).parent / "data"
    kinds = [("mixtral-v1", "v1", InstructTokenizerV1, package / "tokenizer.model.v1"),
             ("mixtral-v3", "v3", InstructTokenizerV3, package / "mistral_instruct_tokenizer_240323.model.v3")]
    for template, name, instruct, file in kinds:
        with tempfile.TemporaryDirectory() as directory:
            small = Path(directory) / f"tokenizer.model.{name}"
            small.write_bytes(model_file(models[name]["pieces"], models[name]["controls"]))
            over = instruct(SentencePieceTokenizer(small))
            mistral.append({"template": template, "model": name, "conversations": [of_mistral(over, m) for m in CONVERSATIONS + SPELLED]})
        over = instruct(SentencePieceTokenizer(file))
        paper = [of_mistral(over, conversation("a", "b", "c", "d"))]
        real.append({"template": template, "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "abcd": paper[0],
                     "conversations": [of_mistral(over, m) for m in CONVERSATIONS + SPELLED]})

    golden = {"conversations": CONVERSATIONS, "white": WHITE, "spelled": SPELLED, "models": models,
              "tokenizers": {name: {key: value for key, value in one.items() if key != "tokenizer"} for name, one in tokenizers.items()},
              "cases": cases, "cases_of_white_space": white, "mistral": mistral, "real": real}
    out.write_text(json.dumps(golden, ensure_ascii=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
