package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newManual makes the command that the build of a release writes the manual page with.
func newManual(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "manual",
		Short:  "Print the manual page, for man",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			// The defaults of some flags depend on the environment, such as that of a job which makes a release.
			anywhere := newApp(a.streams, func(string) string { return "" })
			defer anywhere.log.Close()
			_, err := io.WriteString(a.streams.out, manual(newRoot(anywhere)))
			return err
		},
	}
}

// manual returns the manual page of a program in the language of man(7), from the same texts as --help. Each flag
// is described once, with the commands that have it.
func manual(root *cobra.Command) string {
	var p manualPage
	p.macro("TH", strings.ToUpper(root.Name()), "1", "", root.Name()+" "+root.Version, "User Commands")
	p.macro("SH", "NAME")
	p.line(root.Name() + ` \- ` + roff(strings.ToLower(root.Short[:1])+root.Short[1:]))
	p.macro("SH", "SYNOPSIS")
	p.line(`\fB` + root.Name() + `\fR \fICOMMAND\fR [\fIARGUMENT\fR...]`)
	p.macro("SH", "DESCRIPTION")
	p.text(root.Long)
	p.macro("SH", "EXAMPLES")
	p.verbatim(root.Example)
	p.macro("SH", "COMMANDS")
	options := map[string]*manualOption{}
	for _, cmd := range root.Commands() {
		if cmd.Hidden {
			continue
		}
		p.macro("SS", cmd.UseLine())
		p.text(cmd.Long)
		if cmd.Example != "" {
			p.line(".PP", "Examples:")
			p.verbatim(cmd.Example)
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Hidden {
				return
			}
			kind, help := pflag.UnquoteUsage(f)
			key := f.Name + "\n" + kind + "\n" + help + "\n" + f.DefValue
			if options[key] == nil {
				options[key] = &manualOption{flag: f, kind: kind, help: help}
			}
			options[key].commands = append(options[key].commands, cmd.Name())
		})
	}
	p.macro("SH", "OPTIONS")
	for _, key := range slices.Sorted(maps.Keys(options)) {
		options[key].write(&p)
	}
	return p.String()
}

// A manualOption is a flag that several commands have.
type manualOption struct {
	flag       *pflag.Flag
	kind, help string
	commands   []string
}

func (o *manualOption) write(p *manualPage) {
	name := `\fB` + roff("--"+o.flag.Name) + `\fR`
	if o.flag.Shorthand != "" {
		name = `\fB` + roff("-"+o.flag.Shorthand) + `\fR, ` + name
	}
	if o.kind != "" {
		name += ` \fI` + roff(o.kind) + `\fR`
	}
	help := o.help
	if value := o.flag.DefValue; value != "" && value != "false" && value != "[]" && !strings.Contains(help, "default") {
		help += fmt.Sprintf(" (default %s)", value)
	}
	p.line(".TP", name, roff(help), ".br", "For "+strings.Join(o.commands, ", ")+".")
}

// A manualPage is a page in the making.
type manualPage struct{ strings.Builder }

// line writes lines that are escaped already.
func (p *manualPage) line(lines ...string) {
	for _, line := range lines {
		p.WriteString(line + "\n")
	}
}

// macro writes a line with a macro and its arguments.
func (p *manualPage) macro(name string, args ...string) {
	line := "." + name
	for _, arg := range args {
		line += ` "` + strings.ReplaceAll(roff(arg), `"`, `\(dq`) + `"`
	}
	p.line(line)
}

// text writes the paragraphs of a help text. Lines that are indented there stay as they are.
func (p *manualPage) text(help string) {
	for paragraph := range strings.SplitSeq(strings.TrimSpace(help), "\n\n") {
		p.line(".PP")
		if strings.HasPrefix(paragraph, "  ") {
			p.verbatim(paragraph)
			continue
		}
		for line := range strings.SplitSeq(paragraph, "\n") {
			p.line(roff(line))
		}
	}
}

// verbatim writes lines that are not filled.
func (p *manualPage) verbatim(lines string) {
	p.line(".nf")
	for line := range strings.SplitSeq(strings.Trim(lines, "\n"), "\n") {
		p.line(roff(line))
	}
	p.line(".fi")
}

// roffEscapes are the characters that man(7) reads otherwise.
var roffEscapes = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `…`, `...`, `'`, `\(aq`, "`", `\(ga`, `^`, `\(ha`, `~`, `\(ti`)

// roff returns a line of text as man(7) takes it: a hyphen is the character of a command line, and a line that
// begins with a full stop is no macro.
func roff(line string) string {
	line = roffEscapes.Replace(line)
	if strings.HasPrefix(line, ".") {
		line = `\&` + line
	}
	return line
}
