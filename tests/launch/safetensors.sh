#!/usr/bin/env bash
# A file of weights that is what a script test says; sourced behind cases.sh.

# safetensors FILE HEADER [BYTES]: a file with that JSON header and so many zero bytes of data.
safetensors() {
  python3 - "$@" <<'END'
import struct, sys
header = sys.argv[2].encode()
data = bytes(int(sys.argv[3]) if len(sys.argv) > 3 else 0)
open(sys.argv[1], "wb").write(struct.pack("<Q", len(header)) + header + data)
END
}
