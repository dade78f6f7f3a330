// gzip by zlib, zstd by libzstd: each as a stream over a stream.
#include <fmt/format.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include "data/files/byte_stream.h"
#include "data/files/json.h"

namespace smoe {

namespace {

constexpr std::size_t packed_block = 128 << 10;
constexpr int most_window_log = 27;  // 128 MiB; also the library's own default

// The packed bytes that a decoder has not taken yet.
class PackedInput {
 public:
  PackedInput(std::unique_ptr<ByteStream> stream, std::string name)
      : name(std::move(name)), stream_(std::move(stream)), block_(packed_block) {}

  bool refill() {
    at_ = 0;
    size_ = stream_->read(block_.data(), block_.size());
    return size_ > 0;
  }
  const char* data() const { return block_.data() + at_; }
  std::size_t size() const { return size_ - at_; }
  void take(std::size_t bytes) { at_ += bytes; }
  std::uint64_t taken() const { return stream_->file_bytes() - size(); }
  ByteStream& stream() { return *stream_; }

  [[noreturn]] void refuse(const std::string& what) const {
    throw std::runtime_error(fmt::format("{}: byte {} of the file: {}", name, taken(), what));
  }
  // Where it is known no closer than that: from `first` to what was last read of the file.
  [[noreturn]] void refuse_between(std::uint64_t first, const std::string& what) const {
    throw std::runtime_error(
        fmt::format("{}: between bytes {} and {} of the file: {}", name, first, stream_->file_bytes(), what));
  }

  const std::string name;

 private:
  std::unique_ptr<ByteStream> stream_;
  std::vector<char> block_;
  std::size_t at_ = 0, size_ = 0;
};

class GzipStream final : public ByteStream {
 public:
  GzipStream(std::unique_ptr<ByteStream> packed, std::string name) : input_(std::move(packed), std::move(name)) {
    constexpr int gzip_only = 15 + 16;
    if (inflateInit2(&inflate_, gzip_only) != Z_OK) throw std::runtime_error("zlib does not start");
  }
  ~GzipStream() override { inflateEnd(&inflate_); }
  GzipStream(const GzipStream&) = delete;
  GzipStream& operator=(const GzipStream&) = delete;

  std::size_t read(char* out, std::size_t bytes) override {
    bytes = std::min<std::size_t>(bytes, 1 << 30);  // zlib counts in 32 bits
    std::size_t given = 0;
    while (given == 0) {
      if (input_.size() == 0 && !input_.refill()) {
        if (!inside_) return 0;
        input_.refuse("the gzip data end within a member; is the copy complete?");
      }
      if (!inside_ && take_padding()) continue;
      if (!inside_) begin_member();
      inflate_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(input_.data()));
      inflate_.avail_in = static_cast<uInt>(input_.size());
      inflate_.next_out = reinterpret_cast<Bytef*>(out);
      inflate_.avail_out = static_cast<uInt>(bytes);
      const int status = inflate(&inflate_, Z_NO_FLUSH);
      input_.take(input_.size() - inflate_.avail_in);
      given = bytes - inflate_.avail_out;
      if (status == Z_STREAM_END)
        inside_ = false;
      else if (status == Z_MEM_ERROR)
        throw std::bad_alloc();
      else if (status != Z_OK)
        input_.refuse(fmt::format("the gzip data are damaged ({})", inflate_.msg ? inflate_.msg : "no more is known"));
    }
    return given;
  }

  std::uint64_t file_bytes() const override { return input_.taken(); }
  void cancel() override { input_.stream().cancel(); }

 private:
  // Zeros behind the last member, as tapes and block devices leave them: gzip(1) takes them without a word.
  bool take_padding() {
    const std::string_view rest(input_.data(), input_.size());
    padded_ = padded_ || rest.front() == '\0';
    if (!padded_) return false;
    input_.take(std::min(rest.find_first_not_of('\0'), rest.size()));
    if (input_.size() > 0)
      input_.refuse(fmt::format("{} follows the zeros behind a gzip member, where the file ends",
                                quote_for_message({input_.data(), 1})));
    return true;
  }

  void begin_member() {
    if (static_cast<unsigned char>(*input_.data()) != 0x1F)
      input_.refuse(fmt::format("{} follows a gzip member, where the file ends or another member begins",
                                quote_for_message({input_.data(), 1})));
    inflateReset(&inflate_);
    inside_ = true;
  }

  PackedInput input_;
  z_stream inflate_{};
  bool inside_ = false;  // a member
  bool padded_ = false;  // zeros have begun
};

class ZstdStream final : public ByteStream {
 public:
  ZstdStream(std::unique_ptr<ByteStream> packed, std::string name)
      : input_(std::move(packed), std::move(name)), decoder_(ZSTD_createDCtx(), ZSTD_freeDCtx) {
    if (!decoder_ || ZSTD_isError(ZSTD_DCtx_setParameter(decoder_.get(), ZSTD_d_windowLogMax, most_window_log)))
      throw std::runtime_error("libzstd does not start");
  }

  std::size_t read(char* out, std::size_t bytes) override {
    for (;;) {
      const bool at_end = input_.size() == 0 && !input_.refill();
      if (at_end && expected_ == 0) return 0;
      if (expected_ == 0) frame_begin_ = input_.taken();
      ZSTD_inBuffer in{input_.data(), input_.size(), 0};
      ZSTD_outBuffer to{out, bytes, 0};
      const std::size_t result = ZSTD_decompressStream(decoder_.get(), &to, &in);
      input_.take(in.pos);
      if (ZSTD_isError(result)) refuse_error(result);
      expected_ = result;
      if (to.pos > 0) return to.pos;
      if (at_end && expected_ != 0) input_.refuse("the zstd data end within a frame; is the copy complete?");
    }
  }

  std::uint64_t file_bytes() const override { return input_.taken(); }
  void cancel() override { input_.stream().cancel(); }

 private:
  [[noreturn]] void refuse_error(std::size_t result) const {
    switch (ZSTD_getErrorCode(result)) {
      case ZSTD_error_frameParameter_windowTooLarge:
        throw std::runtime_error(fmt::format(
            "{}: was compressed with a window of more than 128 MiB (zstd --long=28 or above), which would have to be held "
            "in memory; unpack it ahead: zstd -d --long=31 --stdout, and name the output or pipe it in",
            input_.name));
      case ZSTD_error_memory_allocation: throw std::bad_alloc();
      case ZSTD_error_prefix_unknown:
        input_.refuse("no zstd frame begins here, where the file ends or another frame begins");
      // A frame's checksum is of all of it; and a block may be decoded by the tables of an earlier one, whose damage then shows there.
      default:
        input_.refuse_between(frame_begin_, fmt::format("the zstd data are damaged ({})", ZSTD_getErrorName(result)));
    }
  }

  PackedInput input_;
  std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> decoder_;
  std::size_t expected_ = 0;       // 0 between two frames
  std::uint64_t frame_begin_ = 0;  // in the file
};

}  // namespace

Compression compression_of(std::string_view head) {
  using namespace std::string_view_literals;
  if (head.starts_with("\x1F\x8B\x08"sv)) return Compression::gzip;
  if (head.starts_with("\x28\xB5\x2F\xFD"sv)) return Compression::zstd;
  // A skippable frame, of any of 16 kinds: pzstd and seekable formats begin with one.
  if (head.size() >= 4 && (static_cast<unsigned char>(head[0]) & 0xF0) == 0x50 && head.substr(1, 3) == "\x2A\x4D\x18"sv)
    return Compression::zstd;
  return Compression::none;
}

const char* name_of(Compression compression) {
  switch (compression) {
    case Compression::gzip: return "gzip-compressed";
    case Compression::zstd: return "compressed with zstd";
    case Compression::none: break;
  }
  return "not compressed";
}

std::unique_ptr<ByteStream> decompress(std::unique_ptr<ByteStream> packed, Compression compression, std::string name) {
  switch (compression) {
    case Compression::gzip: return std::make_unique<GzipStream>(std::move(packed), std::move(name));
    case Compression::zstd: return std::make_unique<ZstdStream>(std::move(packed), std::move(name));
    case Compression::none: break;
  }
  return packed;
}

}  // namespace smoe
