package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/org/nix-matrix/pkg/report"
)

// pages are the files that the report on a verdict is written to. An empty name is none.
type pages struct {
	summary string // Markdown; - is the standard output
	html    string
}

func (p *pages) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.summary, "summary", "", "write the report as Markdown to `FILE`; - is the standard output")
	cmd.Flags().StringVar(&p.html, "html", "", "write the report as one page to `FILE`, or to report.html in a directory; it needs no network and runs no script")
}

// check refuses names that cannot be written to, before there is any work to lose.
func (p *pages) check() error {
	if info, err := os.Stat(p.html); p.html != "" && (err == nil && info.IsDir() || strings.HasSuffix(p.html, "/")) {
		p.html = filepath.Join(p.html, "report.html")
	}
	for flag, file := range map[string]string{"summary": p.summary, "html": p.html} {
		if file == "" || file == "-" && flag == "summary" {
			continue
		}
		dir := filepath.Dir(file)
		info, err := os.Stat(dir)
		switch {
		case err != nil || !info.IsDir():
			return usagef("--%s %s: there is no directory %s", flag, file, dir)
		case unix.Access(dir, unix.W_OK) != nil:
			return usagef("--%s %s: cannot write to the directory %s: permission denied", flag, file, dir)
		}
		if info, err := os.Stat(file); err == nil && info.IsDir() {
			return usagef("--%s %s: is a directory", flag, file)
		}
	}
	return nil
}

// write writes the report to the files, or to out.
func (p *pages) write(v *report.Verdict, o report.SummaryOptions, out io.Writer) error {
	if p.summary != "" {
		summary := v.Summary(o)
		var err error
		if p.summary == "-" {
			_, err = io.WriteString(out, summary)
		} else {
			err = writeFile(p.summary, []byte(summary))
		}
		if err != nil {
			return fmt.Errorf("write the summary: %w", err)
		}
	}
	return writeHTML(p.html, v, o)
}
