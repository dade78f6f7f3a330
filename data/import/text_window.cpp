#include "data/import/text_window.h"

#include <algorithm>
#include <utility>

namespace smoe {

TextWindow::TextWindow(const CorpusFile& file) : name_(file.name()) {
  constexpr std::string_view mark = "\xEF\xBB\xBF";
  if (file.is_stream()) {
    ahead_ = std::make_unique<ReadAhead>(file.open_stream());
    while (text_.size() < mark.size() && grow()) {
    }
  } else {
    auto mapped = std::make_shared<MappedFile>(file.path);
    text_ = {reinterpret_cast<const char*>(mapped->bytes().data()), mapped->bytes().size()};
    memory_ = std::move(mapped);
    whole_ = true;
  }
  if (text_.starts_with(mark)) {
    take(mark.size());
    behind_ = 0;
  }
}

bool TextWindow::grow() {
  if (whole_) return false;
  const std::size_t wanted = std::max(ReadAhead::block_bytes, text_.size());
  auto longer = std::make_shared<std::string>();
  longer->reserve(behind_ + text_.size() + wanted + ReadAhead::block_bytes);
  longer->append(behind()).append(text_);
  const std::size_t before = longer->size();
  for (ReadAhead::Block block; longer->size() - before < wanted;) {
    if (!ahead_->next(block)) {
      whole_ = true;
      break;
    }
    longer->append(block.bytes);
    file_bytes_ = block.file_bytes;
  }
  const bool more = longer->size() > before;
  text_ = std::string_view(*longer).substr(behind_);
  memory_ = std::move(longer);
  return more;
}

void TextWindow::take(std::size_t bytes) {
  text_.remove_prefix(bytes);
  taken_ += bytes;
  behind_ = std::min<std::size_t>(behind_ + bytes, 4);
}

std::uint64_t TextWindow::take_file_bytes() {
  const std::uint64_t now = ahead_ ? file_bytes_ : taken_;
  return now - std::exchange(told_, now);
}

}  // namespace smoe
