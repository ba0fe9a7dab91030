package main

import (
	"bytes"
	"cmp"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// The parts of CycloneDX 1.6 that an SBOM of Go programs has.
type (
	bom struct {
		Format       string          `json:"bomFormat"`
		Spec         string          `json:"specVersion"`
		Version      int             `json:"version"`
		Metadata     bomMetadata     `json:"metadata"`
		Components   []bomComponent  `json:"components"`
		Dependencies []bomDependency `json:"dependencies"`
	}
	bomMetadata struct {
		Timestamp string       `json:"timestamp"`
		Component bomComponent `json:"component"`
	}
	bomComponent struct {
		Type    string    `json:"type"`
		Ref     string    `json:"bom-ref"`
		Name    string    `json:"name"`
		Version string    `json:"version,omitempty"`
		Hashes  []bomHash `json:"hashes,omitempty"`
		PURL    string    `json:"purl,omitempty"`
	}
	bomHash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	}
	bomDependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn"`
	}
)

// sbom returns the list of what the binaries consist of, from what Go has recorded in them: the modules, each
// with the hash of go.sum, and the release of Go whose standard library they have.
func (r *release) sbom() (file, error) {
	modules := map[string]bomComponent{}
	var binaries []bomComponent
	var dependencies []bomDependency
	program := bomComponent{Type: "application", Name: "nix-matrix", Version: r.version}
	for _, p := range platforms {
		name := p.binary()
		info, err := buildinfo.Read(bytes.NewReader(r.binaries[p]))
		if err != nil {
			return file{}, fmt.Errorf("cannot read what %s was built from: %w", name, err)
		}
		program.PURL = "pkg:golang/" + info.Main.Path + "@" + r.version
		uses := map[string]bool{}
		for _, m := range append(slices.Clone(info.Deps), &debug.Module{Path: "std", Version: info.GoVersion}) {
			component, err := moduleComponent(m)
			if err != nil {
				return file{}, fmt.Errorf("%s: %w", name, err)
			}
			modules[component.Ref] = component
			uses[component.Ref] = true
		}
		binaries = append(binaries, bomComponent{
			Type: "file", Ref: name, Name: name, Hashes: []bomHash{{"SHA-256", sha256Hex(r.binaries[p])}},
		})
		dependencies = append(dependencies, bomDependency{name, slices.Sorted(maps.Keys(uses))})
	}
	program.Ref = program.PURL
	top := bomDependency{Ref: program.Ref}
	for _, b := range binaries {
		top.DependsOn = append(top.DependsOn, b.Ref)
	}
	components := binaries
	for _, ref := range slices.Sorted(maps.Keys(modules)) {
		components = append(components, modules[ref])
	}
	data, err := json.MarshalIndent(bom{
		Format: "CycloneDX", Spec: "1.6", Version: 1,
		Metadata:     bomMetadata{r.time.Format(time.RFC3339), program},
		Components:   components,
		Dependencies: append([]bomDependency{top}, dependencies...),
	}, "", "  ")
	return file{"nix-matrix-" + r.version + ".cdx.json", 0o644, append(data, '\n')}, err
}

// moduleComponent returns the component for a module.
func moduleComponent(m *debug.Module) (bomComponent, error) {
	m = cmp.Or(m.Replace, m)
	version := m.Version
	if m.Path == "std" {
		version = strings.TrimPrefix(version, "go")
	}
	c := bomComponent{Type: "library", Name: m.Path, Version: version, PURL: "pkg:golang/" + m.Path + "@" + version}
	c.Ref = c.PURL
	if m.Sum == "" {
		return c, nil
	}
	sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:"))
	if err != nil {
		return c, fmt.Errorf("cannot read the checksum of %s: %w", m.Path, err)
	}
	c.Hashes = []bomHash{{"SHA-256", hex.EncodeToString(sum)}}
	return c, nil
}
