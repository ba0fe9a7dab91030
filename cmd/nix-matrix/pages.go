package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/report"
	"github.com/org/nix-matrix/pkg/verdict"
)

// pages have the files and formats of a verdict. An empty file name is none.
type pages struct {
	summary string // Markdown; - is the standard output
	html    string
	json    bool // on the standard output, in place of text
}

func (p *pages) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.summary, "summary", "", "write the report as Markdown to `FILE`; - is the standard output")
	cmd.Flags().StringVar(&p.html, "html", "", "write the report as one page to `FILE`, or to report.html in a directory; it needs no network and runs no script")
	addFlag(cmd, flagvalue.Bool(&p.json, false), "json", "print the verdict as JSON")
}

// check returns an error if a file cannot be written, before any work is done.
func (p *pages) check() error {
	if p.json && p.summary == "-" {
		return usage.Errorf("--json and --summary - both write to the standard output. Give --summary a file")
	}
	if info, err := os.Stat(p.html); p.html != "" && (err == nil && info.IsDir() || strings.HasSuffix(p.html, "/")) {
		p.html = filepath.Join(p.html, "report.html")
	}
	for flag, file := range map[string]string{"summary": p.summary, "html": p.html} {
		if file == "" || file == "-" && flag == "summary" {
			continue
		}
		if err := documents.CheckWritable(file); err != nil {
			return usage.Errorf("--%s %s: %w", flag, file, err)
		}
	}
	return nil
}

// origin returns the origin of a plan, with the commit in a workflow.
func (a *app) origin(p *job.Plan) *verdict.Origin {
	if p == nil {
		return nil
	}
	o := &verdict.Origin{Source: p.Source, Created: p.Created, Machine: p.System, Nix: p.Nix}
	if a.action.Running() {
		o.Repository, o.Commit = a.getenv("GITHUB_REPOSITORY"), a.getenv("GITHUB_SHA")
	}
	return o
}

// write writes the report to the files.
func (p *pages) write(v *verdict.Verdict, o report.SummaryOptions) error {
	if p.summary != "" && p.summary != "-" {
		if err := documents.WriteFile(p.summary, []byte(report.Summary(v, o))); err != nil {
			return fmt.Errorf("cannot write the summary: %w", err)
		}
	}
	if p.html == "" {
		return nil
	}
	page, err := report.HTML(v, o)
	if err != nil {
		return err
	}
	if err := documents.WriteFile(p.html, page); err != nil {
		return fmt.Errorf("cannot write the report to --html: %w", err)
	}
	return nil
}

// print prints the verdict: as JSON, as Markdown, or as text.
func (p *pages) print(a *app, v *verdict.Verdict, o report.SummaryOptions) error {
	if p.json {
		return a.printJSON(v)
	}
	shown := report.Text(v)
	if p.summary == "-" {
		shown = report.Summary(v, o)
	}
	return a.print(shown)
}
