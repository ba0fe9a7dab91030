package discover

import (
	"os"
	"strconv"
	"strings"
)

// machineMemory gives the bytes of memory that this machine has left for
// programs, or 0 where the system does not say.
func machineMemory() int64 {
	data, _ := os.ReadFile("/proc/meminfo")
	memory := int64(0)
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			memory = kib << 10
		}
	}
	// A container may have less.
	data, _ = os.ReadFile("/sys/fs/cgroup/memory.max")
	if most, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err == nil && (memory == 0 || most < memory) {
		memory = most
	}
	return memory
}

// initialHeap says what an evaluator may take before it looks for garbage the
// first time, in bytes, when it has so much memory and may use so much, if that
// is limited. A large evaluation takes a fifth less time with a heap of 1 GiB than
// with the 384 MiB that Nix takes at most by itself; more helps no more. 0 leaves
// it to Nix.
func initialHeap(memory, limit int64) int64 {
	const least, most = 384 << 20, 1 << 30
	heap := min(memory/4, most)
	switch {
	case limit > 0: // with Nix's own, garbage alone might exceed it
		return min(max(heap, least), limit/4)
	case heap > least:
		return heap
	}
	return 0
}
