package evaluate

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

// machineMemory returns the bytes of memory that are left for programs on this machine,
// or 0 where the system does not say.
func machineMemory() int64 {
	return freeMemory(func(name string) string {
		data, _ := os.ReadFile(name)
		return string(data)
	})
}

// freeMemory returns the memory that the machine has available, or less where a control group
// of this process has a limit, as in a container. read returns a file, "" if there is none.
func freeMemory(read func(name string) string) int64 {
	free := field(read("/proc/meminfo"), "MemAvailable:") << 10
	limit := func(most, used string, cached int64) {
		m, err := strconv.ParseInt(strings.TrimSpace(most), 10, 64)
		if err != nil || m > 1<<60 { // "max", or none of version 1
			return
		}
		u, _ := strconv.ParseInt(strings.TrimSpace(used), 10, 64)
		if left := max(1, m-max(0, u-cached)); free == 0 || left < free {
			free = left
		}
	}
	at := "/"
	for line := range strings.Lines(read("/proc/self/cgroup")) {
		if rest, ok := strings.CutPrefix(line, "0::"); ok {
			at = path.Clean("/" + strings.TrimSpace(rest))
		}
	}
	for {
		dir := path.Join("/sys/fs/cgroup", at)
		limit(read(dir+"/memory.max"), read(dir+"/memory.current"), field(read(dir+"/memory.stat"), "inactive_file "))
		if at == "/" {
			break
		}
		at = path.Dir(at)
	}
	const v1 = "/sys/fs/cgroup/memory"
	limit(read(v1+"/memory.limit_in_bytes"), read(v1+"/memory.usage_in_bytes"), field(read(v1+"/memory.stat"), "total_inactive_file "))
	return free
}

// field returns the number in the line of a text that begins with a name, 0 if there is none.
func field(text, name string) int64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n
		}
	}
	return 0
}

// describeEvaluators returns a line with the number and the size of the evaluators.
func describeEvaluators(workers int, limit, memory int64) string {
	text := fmt.Sprintf("evaluating with %d evaluators", workers)
	if workers == 1 {
		text = "evaluating with 1 evaluator"
	}
	switch {
	case limit > 0:
		text += fmt.Sprintf(", at most %.1f GiB each", float64(limit)/(1<<30))
	case memory > 0:
		text += fmt.Sprintf(", of %.1f GiB of free memory %.1f GiB each", float64(memory)/(1<<30), float64(memory/int64(workers))/(1<<30))
	}
	return text
}

// smallEvaluator is how many bytes of memory an evaluator may have without a reason.
const smallEvaluator = 512 << 20

// outgrown reports whether a new evaluator should continue at the item that this one has come
// to. An evaluator keeps all values that it has evaluated. A new one needs less memory, but
// repeats the work that the items have in common, which takes no longer than the first item
// did. So an evaluator may become twice as large as after its first item, and the later items
// have to take at least a quarter of the first one's time.
func (w *worker) outgrown() bool {
	p := w.pool
	used := w.memory.Load()
	switch {
	case w.only != nil || w.finished == 0 || used == 0:
		return false
	case w.firstItemMemory == 0:
		w.firstItemMemory, w.firstItemTime = used, time.Since(w.started)
		return false
	}
	growth := (used - w.firstItemMemory) / int64(max(1, w.finished-1))
	tight := p.memoryShare > 0 && used+growth > p.memoryShare*3/4
	return tight || used+growth > max(2*w.firstItemMemory, smallEvaluator) && time.Since(w.started) > w.firstItemTime*5/4
}

// initialHeap returns the size of an evaluator's heap at the start, in bytes, for its share
// of memory and its limit, if there is one. 0 leaves the size to Nix. A large evaluation takes
// a fifth less time with a heap of 1 GiB than with the 384 MiB that Nix itself takes at most;
// more than that does not help.
func initialHeap(memory, limit int64) int64 {
	const least, most = 384 << 20, 1 << 30
	heap := min(memory/4, most)
	switch {
	case limit > 0: // with Nix's own size, garbage alone might exceed it
		return min(max(heap, least), limit/4)
	case heap > least:
		return heap
	}
	return 0
}
