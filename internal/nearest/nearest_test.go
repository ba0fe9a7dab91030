package nearest_test

import (
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/nearest"
)

func TestHint(t *testing.T) {
	systems := []string{"x86_64-linux", "aarch64-linux", "aarch64-darwin"}
	for _, test := range []struct {
		text  string
		names []string
		want  string
	}{
		{"x86-64-linux", systems, " (did you mean x86_64-linux?)"},
		{"aarch64", systems, " (did you mean aarch64-linux?)"},
		{"AARCH64-Linux", systems, " (did you mean aarch64-linux?)"},
		{"riscv64-none", systems, ""},
		{"KVM", []string{"kvm"}, " (did you mean kvm?)"},
		{"kvm", []string{"kvm"}, ""},
		{"x", []string{"y", "zebra"}, " (did you mean y?)"},
		{"", systems, ""},
		{"kvm", []string{"kvm" + strings.Repeat("x", 1<<20)}, ""},
		{strings.Repeat("x", 1<<10), systems, ""},
		{"anything", nil, ""},
	} {
		t.Run(test.text[:min(20, len(test.text))], func(t *testing.T) {
			if got := nearest.Hint(test.text, test.names); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
