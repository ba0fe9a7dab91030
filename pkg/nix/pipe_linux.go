package nix

import (
	"os"

	"golang.org/x/sys/unix"
)

// widen has a pipe hold more, so that both sides work at the same time. As it is it does
// too.
func widen(pipe *os.File) {
	const size = 1 << 20                            // the most that everybody may have
	if raw, err := pipe.SyscallConn(); err == nil { // Fd would make it one that can't be closed while it is written to
		_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, size) })
	}
}
