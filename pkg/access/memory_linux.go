package access

import "golang.org/x/sys/unix"

// HideMemory keeps other processes of this user from the memory, the environment and the
// open files of this one, which have secrets. It does not hold for the programs that this
// one starts, nor against root.
func HideMemory() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
