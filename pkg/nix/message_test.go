package nix

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/org/nix-matrix/internal/testbench"
)

// Some of the recorded messages are only about other derivations; the others name the failed
// derivation first.
func TestRecordedMessages(t *testing.T) {
	for _, version := range testbench.NixVersions {
		recorded, err := txtar.ParseFile(filepath.Join("..", "realise", "testdata", "failures-"+version))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range recorded.Files {
			t.Run(version+" "+f.Name, func(t *testing.T) {
				message := strings.TrimSuffix(string(f.Data), "\n")
				// The first message is that of the failure; needsTwo needs two failing ones.
				number := f.Name[len(f.Name)-1]
				others := number > '0' && (!strings.Contains(f.Name, "needsTwo") || number > '1')
				if got := OnlyOthers(message); got != others {
					t.Fatalf("it is about others: %t:\n%s", got, message)
				}
				named := Named(message)
				mute := version == "2.34" && strings.Contains(strings.ToLower(f.Name), "silent 0")
				switch {
				case others || mute:
					if named != nil {
						t.Errorf("it names %s", named)
					}
				case len(named) == 0 || !strings.HasSuffix(named[0], ".drv") && !strings.Contains(f.Name, "silent"):
					t.Errorf("it names %s:\n%s", named, message)
				}
			})
		}
	}
}

func TestNamed(t *testing.T) {
	const (
		drv  = "/nix/store/00000000000000000000000000000000-x.drv"
		out  = "/nix/store/11111111111111111111111111111111-x"
		dep  = "/nix/store/22222222222222222222222222222222-dep"
		log1 = "\nlast 1 log lines:\n> cannot read " + dep + "\nFor full logs, run:\n  nix log " + drv
	)
	for _, test := range []struct {
		message string
		others  bool
		named   []string
	}{
		{"1 dependencies of derivation '" + drv + "' failed to build", true, nil},
		{"Cannot build '" + drv + "'.\nReason: 1 dependency failed.\nOutput paths:\n  " + out, true, nil},
		{"Cannot build '" + drv + "'.\nReason: 12 dependencies failed.", true, nil},
		// It does not say which of them failed and which only ended with the others.
		{"build of '" + drv + "' failed", true, nil},
		{"build of '" + drv + "', '/nix/store/33333333333333333333333333333333-y.drv^out' failed", true, nil},
		// A log may contain anything.
		{"Cannot build '" + drv + "'.\nReason: builder failed with exit code 1.\nLast 1 log lines:\n> 3 dependencies failed", false, []string{drv}},
		{"builder for '" + drv + "' failed with exit code 1;\nlast 1 log lines:\n> 3 dependencies have failed", false, []string{drv}},
		{"builder for '" + drv + "' failed with exit code 1;" + log1, false, []string{drv}},
		{"builder failed;\n> build of 'x' failed\nlast 1 log lines:\n> " + dep, false, nil},
		// Errors of an output.
		{"file \"" + out + "/x\" has an unsupported type", false, []string{out}},
		{"output '" + out + "' is not allowed to refer to the following paths:\n  " + dep, false, []string{out, dep}},
		{"path '" + out + "' is too large at 136 bytes; limit is 5 bytes", false, []string{out}},
		{"getting status of " + drv + ".chroot/root" + dep + ": no such file", false, []string{drv, dep}},
		// Errors that no derivation caused.
		{"program '/etc/nix/hook' failed with exit code 3", false, nil},
		{"Nix daemon disconnected unexpectedly (maybe it crashed?)", false, nil},
		{"", false, nil},
	} {
		if got := OnlyOthers(test.message); got != test.others {
			t.Errorf("%q is about others: %t", test.message, got)
		}
		if diff := cmp.Diff(test.named, Named(test.message)); diff != "" {
			t.Errorf("%q names:\n%s", test.message, diff)
		}
	}
	if got := Named(strings.Repeat(out+"\n", 1000)); len(got) > 100 {
		t.Errorf("it names %d paths", len(got))
	}
}
