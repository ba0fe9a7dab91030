package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// lazy runs nix for an evaluation.
func (f *fork) lazy(args []string) error {
	if f.kind != "determinate" || !slices.Contains(args, "metadata") || !slices.Contains(args, "--json") {
		return f.program("nix", args...).Run()
	}
	return f.editJSON(args, func(metadata map[string]any) any {
		delete(metadata, "path")
		locked, _ := metadata["locked"].(map[string]any)
		if _, ok := locked["rev"]; !ok {
			delete(locked, "narHash")
			delete(metadata, "fingerprint")
		}
		return metadata
	})
}

// editJSON runs nix and prints another JSON object in place of the one that it prints.
func (f *fork) editJSON(args []string, edit func(map[string]any) any) error {
	var out bytes.Buffer
	cmd := f.program("nix", args...)
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return err
	}
	object := map[string]any{}
	numbers := json.NewDecoder(&out)
	numbers.UseNumber()
	if err := numbers.Decode(&object); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(edit(object))
}

// lazily takes away the sources that a program has left in the store and that nothing
// refers to. Only one may run at a time.
func (f *fork) lazily(run func() error) error {
	before := sources()
	err := run()
	for source := range sources() {
		if !before[source] {
			cmd := f.program("nix-store", "--delete", source)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, nil, nil
			_ = cmd.Run() // which fails if something refers to it
		}
	}
	return err
}

// sources are the paths of trees that were fetched.
func sources() map[string]bool {
	all := map[string]bool{}
	entries, _ := os.ReadDir("/nix/store") // there may be none yet
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), "-source") {
			all[filepath.Join("/nix/store", entry.Name())] = true
		}
	}
	return all
}
