// Texts as gzip and zstd pack them.
#pragma once

#include <zlib.h>
#include <zstd.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

namespace smoe::test {

// One gzip member.
inline std::string gzip_of(std::string_view text) {
  z_stream deflater{};
  if (deflateInit2(&deflater, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) throw std::logic_error("deflate");
  std::string packed(deflateBound(&deflater, text.size()) + 64, '\0');
  deflater.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  deflater.avail_in = static_cast<uInt>(text.size());
  deflater.next_out = reinterpret_cast<Bytef*>(packed.data());
  deflater.avail_out = static_cast<uInt>(packed.size());
  if (deflate(&deflater, Z_FINISH) != Z_STREAM_END) throw std::logic_error("deflate");
  packed.resize(deflater.total_out);
  deflateEnd(&deflater);
  return packed;
}

// One zstd frame with a checksum, which says nothing of its size, as of a pipe; of that window, where it is given.
inline std::string zstd_of(std::string_view text, int window_log = 0) {
  const std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> context(ZSTD_createCCtx(), ZSTD_freeCCtx);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_checksumFlag, 1);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_contentSizeFlag, 0);
  if (window_log > 0) ZSTD_CCtx_setParameter(context.get(), ZSTD_c_windowLog, window_log);
  std::string packed(ZSTD_compressBound(text.size()) + 64, '\0');
  ZSTD_inBuffer in{text.data(), text.size(), 0};
  ZSTD_outBuffer out{packed.data(), packed.size(), 0};
  // In two steps: one alone would shrink the window to the text.
  std::size_t left = ZSTD_compressStream2(context.get(), &out, &in, ZSTD_e_flush);
  if (!ZSTD_isError(left)) left = ZSTD_compressStream2(context.get(), &out, &in, ZSTD_e_end);
  if (left != 0) throw std::logic_error("zstd");
  packed.resize(out.pos);
  return packed;
}

}  // namespace smoe::test
