package main

import (
	"errors"
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
	junit   string
	badge   string
	json    bool // on the standard output, in place of text
}

func (p *pages) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.summary, "summary", "", "write the report as Markdown to `FILE`; - is the standard output")
	cmd.Flags().StringVar(&p.html, "html", "", "write the report as one page to `FILE`, or to report.html in a directory; it needs no network and runs no script")
	addFlag(cmd, flagvalue.Bool(&p.json, false), "json", "print the verdict as JSON")
}

// fileFlags adds the flags of files for other programs.
func (p *pages) fileFlags(cmd *cobra.Command) {
	addFlag(cmd, flagvalue.Text(&p.junit, "FILE", ""), "junit", "write the verdict to `FILE` as a JUnit report, with a test case for each target")
	addFlag(cmd, flagvalue.Text(&p.badge, "FILE", ""), "badge", "write the verdict to `FILE` as an endpoint of a shields.io badge")
}

// keep writes copies of the files for other programs into a new directory, which becomes an artifact of
// the run, and returns its name; it is empty if there are none. Foreign text is sealed if there is a key.
func (p *pages) keep(a *app, docs *documents.Store, v *verdict.Verdict) (dir string, err error) {
	if p.junit == "" && p.badge == "" {
		return "", nil
	}
	if dir, err = a.action.TempDir(a.id); err != nil {
		return "", err
	}
	if p.junit != "" {
		data, jerr := report.JUnit(v)
		err = errors.Join(jerr, docs.WriteReport(filepath.Join(dir, "junit.xml"), data))
	}
	if p.badge != "" {
		data, berr := report.Badge(v, a.id)
		err = errors.Join(err, berr, documents.WriteFile(filepath.Join(dir, "badge.json"), data))
	}
	return dir, err
}

// check returns an error if a file cannot be written, before any work is done.
func (p *pages) check() error {
	if p.json && p.summary == "-" {
		return usage.Errorf("--json and --summary - both write to the standard output. Give --summary a file")
	}
	if info, err := os.Stat(p.html); p.html != "" && (err == nil && info.IsDir() || strings.HasSuffix(p.html, "/")) {
		p.html = filepath.Join(p.html, "report.html")
	}
	for flag, file := range map[string]string{"summary": p.summary, "html": p.html, "junit": p.junit, "badge": p.badge} {
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

// write writes the report to the files. label is that of the badge.
func (p *pages) write(v *verdict.Verdict, label string, o report.SummaryOptions) error {
	for _, page := range []struct {
		flag, file string
		content    func() ([]byte, error)
	}{
		{"summary", p.summary, func() ([]byte, error) { return []byte(report.Summary(v, o)), nil }},
		{"html", p.html, func() ([]byte, error) { return report.HTML(v, o), nil }},
		{"junit", p.junit, func() ([]byte, error) { return report.JUnit(v) }},
		{"badge", p.badge, func() ([]byte, error) { return report.Badge(v, label) }},
	} {
		if page.file == "" || page.file == "-" && page.flag == "summary" {
			continue
		}
		content, err := page.content()
		if err != nil {
			return err
		}
		if err := documents.WriteFile(page.file, content); err != nil {
			return fmt.Errorf("cannot write the report to --%s: %w", page.flag, err)
		}
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
