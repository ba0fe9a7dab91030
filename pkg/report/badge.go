package report

import (
	"encoding/json"
	"fmt"

	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// A badge is a document from which shields.io makes a badge:
// https://shields.io/badges/endpoint-badge
type badge struct {
	SchemaVersion int    `json:"schemaVersion"` // 1
	Label         string `json:"label"`
	Message       string `json:"message"`
	Color         string `json:"color"`
}

// Badge returns the verdict as a badge endpoint of shields.io. It has the label and numbers, and no
// text of a flake.
func Badge(of *verdict.Verdict, label string) ([]byte, error) {
	b := badge{SchemaVersion: 1, Label: label}
	total := len(of.Targets)
	switch red := of.Counts.Failed + of.Counts.Missing; {
	case of.Status == verdict.Success && total == 0:
		b.Message, b.Color = "nothing to build", "lightgrey"
	case of.Status == verdict.Success:
		b.Message, b.Color = text.Plural(total, "target"), "brightgreen"
	case of.Status == verdict.Cancelled:
		b.Message, b.Color = "cancelled", "lightgrey"
	case red > 0:
		b.Message, b.Color = fmt.Sprintf("%d of %s red", red, text.Plural(total, "target")), "red"
	default:
		b.Message, b.Color = "failed", "red"
	}
	data, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("cannot write the badge: %w", err)
	}
	return append(data, '\n'), nil
}
