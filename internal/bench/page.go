package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// page is where the documentation has the rows.
const page = "docs/performance.md"

const pageHead = `# Performance

Written by ` + "`make bench`" + `, which measures both sides of a row in one run, in turn, and takes the medians. It builds
everything in memory, because disks are noisy, and needs root and Linux. ` + "`go run ./internal/bench NAME`" + ` measures
some rows again. A goal that is missed stays here with its number.

| Work | Against | Measured | Goal | Met | On |
|---|---|---|---|---|---|
`

// writePage puts rows into the page.
func writePage(rows []row) error {
	old, err := os.ReadFile(page)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	on := fmt.Sprintf("%s, %d cores, %s", time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), memory())
	return os.WriteFile(page, []byte(pageWith(string(old), rows, on)), 0o644)
}

// pageWith returns the page with rows in place of the rows of the same work, and the other rows as
// they are. on says when and where the new rows were measured.
func pageWith(old string, rows []row, on string) string {
	lines := map[string]string{}
	var order []string
	put := func(line string) {
		key := rowKey(line)
		if lines[key] == "" {
			order = append(order, key)
		}
		lines[key] = line
	}
	for line := range strings.Lines(old) {
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| Work |") {
			put(line)
		}
	}
	for _, r := range rows {
		met := "no"
		if r.Met {
			met = "yes"
		}
		put("| " + strings.Join([]string{cell(r.Work), cell(r.Against), cell(r.Value), cell(r.Goal), met, on}, " | ") + " |\n")
	}
	text := pageHead
	for _, key := range order {
		text += lines[key]
	}
	return text
}

// rowKey returns the first two cells of a line of the table.
func rowKey(line string) string {
	cells := strings.SplitN(line, " | ", 3)
	return strings.Join(cells[:min(2, len(cells))], " | ")
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

// memory returns how much memory this machine has.
func memory() string {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return "unknown memory"
	}
	return fmt.Sprintf("%d GiB", (info.Totalram*uint64(info.Unit)+1<<29)>>30)
}
