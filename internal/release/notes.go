package main

import (
	"fmt"
	"strings"
)

// notesOf returns the section of a changelog for a version, without its heading. A pre-release has the section
// Unreleased if it has none of its own.
func notesOf(changelog, version string) (string, error) {
	sections := map[string]string{}
	title := ""
	for line := range strings.Lines(changelog) {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			title, _, _ = strings.Cut(strings.TrimSpace(heading), " ")
			continue
		}
		sections[title] += line
	}
	notes := strings.TrimSpace(sections[version])
	if notes == "" && strings.Contains(version, "-") {
		notes = strings.TrimSpace(sections["Unreleased"])
	}
	if notes == "" {
		return "", fmt.Errorf(`CHANGELOG.md has nothing about %s: rename its heading "## Unreleased" to "## %s", and commit that`, version, version)
	}
	return notes + "\n", nil
}
