package nix

import (
	"os"

	"golang.org/x/sys/unix"
)

// widen enlarges the buffer of a pipe, if it can, so that both sides work at the same time.
func widen(pipe *os.File) {
	const size = 1 << 20                            // the limit for users other than root
	if raw, err := pipe.SyscallConn(); err == nil { // after Fd, Close would not interrupt a Write
		_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, size) })
	}
}
