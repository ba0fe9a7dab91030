//go:build !linux

package access

// HideMemory does nothing: on other systems, the environment of a process is only for
// its user, and there is no way to hide it from other processes of that user.
func HideMemory() {}
