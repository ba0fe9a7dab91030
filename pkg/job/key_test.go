package job_test

import (
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/job"
)

const (
	hex16 = "0123456789abcdef"
	hex32 = hex16 + hex16
)

func TestParseKey(t *testing.T) {
	for key, want := range map[string]job.KeyKind{
		"nix-matrix-plan0-" + hex32:                              job.KeyPlan,
		"nix-matrix-plan4-" + hex16 + "-" + hex32:                job.KeyPlan, // sealed
		job.PlanKey("nix-matrix", "", nil)(0):                    job.KeyPlan,
		"nix-matrix-result-123456-0123456789-2-0":                job.KeyResult,
		job.PlanKey("nix-matrix", hex16, nil)(3):                 job.KeyPlan,
		"nix-matrix-drvs0-" + hex32:                              job.KeyDrvs,
		"nix-matrix-evaluation-" + hex32 + "-" + hex16:           job.KeyEvaluation,
		"nix-matrix-inputs--" + hex32 + "-" + hex32:              job.KeyInputs,
		"nix-matrix-inputs-" + hex16 + "-" + hex32 + "-" + hex32: job.KeyInputs,
		"nix-matrix-record-main+12+1":                            job.KeyRecord,
		"nix-matrix-index-x86_64-linux+refs=2fheads=2fa-b+12":    job.KeyIndex,
		"nix-matrix-pack-" + hex32 + "-1":                        job.KeyPack,

		// Keys of others.
		"":                                "",
		"nix-matrix":                      "",
		"nix-matrix-":                     "",
		"nix-matrix-plan0-":               "",
		"nix-matrix-plan-" + hex32:        "",
		"nix-matrix-plan0-" + hex16:       "",
		"nix-matrix-plan0-" + hex32 + "0": "",
		"nix-matrix-plan0-" + strings.ToUpper(hex32): "",
		"nix-matrix-node-modules":                    "",
		"nix-matrixplan0-" + hex32:                   "",
		"other-plan0-" + hex32:                       "",
		"xnix-matrix-plan0-" + hex32:                 "",
		"nix-matrix-record-":                         "",

		// Ids that begin with this one.
		"nix-matrix-two-plan0-" + hex32:                         "",
		"nix-matrix-plan0-plan0-" + hex32:                       "",
		"nix-matrix-evaluation-drvs0-" + hex32:                  "",
		"nix-matrix-record-drvs0-" + hex32:                      "",
		"nix-matrix-record-a-evaluation-" + hex32 + "-" + hex16: "",
		"nix-matrix-pack-record-x":                              "",
		"nix-matrix-index-a-pack-" + hex32:                      "",
	} {
		if got, ok := job.ParseKey("nix-matrix", key); got != want || ok != (want != "") {
			t.Errorf("ParseKey(%q) = %q, %v, want %q", key, got, ok, want)
		}
	}
	if got, _ := job.ParseKey("nix-matrix-record-a", "nix-matrix-record-a-plan0-"+hex32); got != job.KeyPlan {
		t.Errorf("the longer id's key is %q for it", got)
	}
}

// No key belongs to two ids.
func FuzzParseKey(f *testing.F) {
	f.Add("a", "a-record-b", "record-c")
	f.Add("a-plan0", "a", "plan0-"+hex32)
	f.Fuzz(func(t *testing.T, id, other, rest string) {
		if id == other || job.CheckID(id) != nil || job.CheckID(other) != nil {
			return
		}
		key := id + "-" + rest
		_, one := job.ParseKey(id, key)
		_, two := job.ParseKey(other, key)
		if one && two {
			t.Errorf("%q is of %q and of %q", key, id, other)
		}
	})
}

// Each key is parsed as its kind, and has the same bytes as in earlier versions.
func TestKeys(t *testing.T) {
	const id, seal = "nix-matrix", hex16
	data := []byte("{}")
	for _, test := range []struct {
		kind job.KeyKind
		key  string
		want string
	}{
		{job.KeyPlan, job.PlanKey(id, "", data)(0), "nix-matrix-plan0-44136fa355b3678a1146ad16f7e8649e"},
		{job.KeyPlan, job.PlanKey(id, seal, data)(3), "nix-matrix-plan3-0123456789abcdef-44136fa355b3678a1146ad16f7e8649e"},
		{job.KeyDrvs, job.DrvsKey(id, hex32)(1), "nix-matrix-drvs1-" + hex32},
		{job.KeyResult, job.ResultKey(id, 123, "0123456789", 2)(1), "nix-matrix-result-123-0123456789-2-1"},
		{job.KeyRecord, job.RecordKey(id, "", "o/r/.github/workflows/ci.yml", 12, 1), "nix-matrix-record-b3240ccc--12-1"},
		{job.KeyEvaluation, job.EvaluationKey(id, hex32, data), "nix-matrix-evaluation-" + hex32 + "-44136fa355b3678a"},
		{job.KeyInputs, job.InputsPrefix(id, seal) + hex32 + "-" + hex32, "nix-matrix-inputs-" + seal + "-" + hex32 + "-" + hex32},
		{job.KeyIndex, job.IndexPrefix(id) + "1++x86_64-linux+local+0.0", "nix-matrix-index-1++x86_64-linux+local+0.0"},
		{job.KeyPack, job.PackKey(id, hex32)(0), "nix-matrix-pack-" + hex32 + "-0"},
	} {
		t.Run(test.want, func(t *testing.T) {
			if test.key != test.want {
				t.Errorf("got %s", test.key)
			}
			if kind, ok := job.ParseKey(id, test.key); !ok || kind != test.kind {
				t.Errorf("it is parsed as %q, %v", kind, ok)
			}
		})
	}
}
