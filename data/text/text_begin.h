// Whether texts begin with bos, as the files of a tokenizer say it.
#pragma once

namespace smoe {

class Tokenizer;

// What `add_bos_token` of tokenizer_config.json says; without it, what `post_processor` of a tokenizer.json puts in front;
// without either, that of a tokenizer.model and of bytes does. False where there is no bos. Throws std::runtime_error
// where a file that the tokenizer carries is malformed.
bool texts_begin_with_bos(const Tokenizer& tokenizer);

}  // namespace smoe
