package job

import (
	"cmp"
	"fmt"

	"github.com/org/nix-matrix/internal/valid"
)

// A Program is a program that discovery has evaluated for the workers.
type Program struct {
	Name    string `json:"name"`              // as on PATH, "cachix"
	System  string `json:"system"`            // of the machine that runs it
	Nixpkgs string `json:"nixpkgs"`           // its flake
	DrvPath string `json:"drvPath,omitempty"` // in the drv pack; empty where a substituter has OutPath
	Output  string `json:"output"`            // of the derivation
	OutPath string `json:"outPath"`           // has bin/Name
}

// Program returns the program of that name for a system.
func (p *Plan) Program(name, system string) (Program, bool) {
	for _, program := range p.Programs {
		if program.Name == name && program.System == system {
			return program, true
		}
	}
	return Program{}, false
}

// maxPrograms is more than there are programs and systems of workers.
const maxPrograms = 64

// checkPrograms returns an error unless all paths are store paths: they become arguments, and a
// worker runs the programs with its secrets.
func checkPrograms(programs []Program) error {
	const longest = 4096
	if len(programs) > maxPrograms {
		return fmt.Errorf("%d programs are too many", len(programs))
	}
	for _, p := range programs {
		err := cmp.Or(
			field("name", valid.Name(p.Name)),
			field("system", valid.System(p.System)),
			field("nixpkgs", valid.Line(p.Nixpkgs, longest)),
			field("drvPath", optional(valid.Derivation, p.DrvPath)),
			field("output", valid.Output(p.Output)),
			field("outPath", valid.StorePath(p.OutPath)),
		)
		if err != nil {
			return fmt.Errorf("program %s: %w", valid.Quote(p.Name), err)
		}
	}
	return nil
}
