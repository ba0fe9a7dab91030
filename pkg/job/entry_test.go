package job_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
)

const (
	hash    = "0123456789abcdfghijklmnpqrsvwxyz"
	drv     = "/nix/store/" + hash + "-hello-2.12.drv"
	other   = "/nix/store/" + hash + "-other.drv"
	outPath = "/nix/store/" + hash + "-hello-2.12"
)

// Texts that are invalid as an id, a derivation or the name of an output.
var (
	badIDs     = []string{"", ".", "..", "../../etc/passwd", "a/b", `a\b`, "a.json", "A", "a b", "a\n", "a\x00", "ä", "$(id)", strings.Repeat("a", 65)}
	badDrvs    = []string{"/etc/passwd", "hello.drv", outPath, drv + "!out", drv + " ", "/nix/store/../../etc/x.drv", "/nix/store/" + hash + "-a/../../../b.drv", "--help", "-x.drv"}
	badOutputs = []string{"", "a b", "out;id", "$(id)", "out,dev", "out!", "a/b", "out\n", "*", "'", "ä"}
)

func entry() job.Entry {
	host := "pi3"
	return job.Entry{
		Name: "nixosConfigurations.pi3", ID: "7f3a", Host: &host,
		Platform: "aarch64-linux", System: "aarch64-linux",
		Attr: "nixosConfigurations.pi3", DrvPath: drv, Outputs: []string{"out"},
		Runner: []string{"ubuntu-latest"}, QEMU: true,
		Plan:    "nix-matrix-plan0-" + strings.Repeat("0", 32),
		Targets: []job.Ref{{N: 0, Attr: "nixosConfigurations.pi3", DrvPath: drv}, {N: 1}},
	}
}

func marshal(t *testing.T, doc any) []byte {
	t.Helper()
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestParseEntry(t *testing.T) {
	want := entry()
	got, err := job.ParseEntry(marshal(t, want))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Errorf("an entry comes back as another one:\n%s", diff)
	}
}

func TestParseEntryRefuses(t *testing.T) {
	refuse := func(what string, change func(*job.Entry)) {
		t.Helper()
		e := entry()
		change(&e)
		if _, err := job.ParseEntry(marshal(t, e)); err == nil {
			t.Errorf("an entry with %s passes", what)
		}
	}
	refuse("no name", func(e *job.Entry) { e.Name = "" })
	refuse("no targets", func(e *job.Entry) { e.Targets = nil })
	refuse("no derivation", func(e *job.Entry) { e.DrvPath = "" })
	for _, bad := range badIDs {
		refuse("the id "+bad, func(e *job.Entry) { e.ID = bad })
	}
	for _, bad := range badDrvs {
		refuse("the derivation "+bad, func(e *job.Entry) { e.DrvPath = bad })
		refuse("a target's derivation "+bad, func(e *job.Entry) { e.Targets[1].DrvPath = bad })
	}
	for _, bad := range badOutputs {
		refuse("the output "+bad, func(e *job.Entry) { e.Outputs = []string{"out", bad} })
	}
}

func TestParseEntryText(t *testing.T) {
	data := string(marshal(t, entry()))
	for text, want := range map[string]string{
		"":                  "toJSON(matrix)",
		" \n":               "toJSON(matrix)",
		"null":              "name: it is empty",
		"{}":                "name: it is empty",
		"[" + data + "]":    "not an entry",
		`{"include":[]}`:    "name: it is empty",
		data[:len(data)/2]:  "not an entry",
		data[:len(data)-1]:  "not an entry",
		data + "}":          "not an entry",
		`"` + outPath + `"`: "not an entry",
	} {
		if _, err := job.ParseEntry([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseEntry(%.40q) = %v, want it to say %q", text, err, want)
		}
	}
}

func TestCheckID(t *testing.T) {
	for _, id := range []string{"a", "0", job.DefaultID, "my_fleet-2", strings.Repeat("a", 64), job.NewEntryID("../../$(id)")} {
		if err := job.CheckID(id); err != nil {
			t.Error(err)
		}
	}
	for _, id := range badIDs {
		if job.CheckID(id) == nil {
			t.Errorf("the id %q passes", id)
		}
	}
}

func TestNewEntryID(t *testing.T) {
	if got, want := job.NewEntryID("nixosConfigurations.notado"), "94b9b5515e"; got != want {
		t.Errorf("got %s, want %s: ids name what earlier runs stored", got, want)
	}
	if job.NewEntryID("a") == job.NewEntryID("b") {
		t.Error("two names have the same id")
	}
}

// FuzzParseEntry: an entry that passes is safe and survives the way to the next job.
func FuzzParseEntry(f *testing.F) {
	e := entry()
	data, _ := json.Marshal(e)
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Add([]byte(`{"name":"\ud800","id":"a","drvPath":"` + drv + `","targets":[{"n":-1}],"outputs":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := job.ParseEntry(data)
		if err != nil {
			return
		}
		safeEntry(t, e)
		once := marshal(t, e)
		again, err := job.ParseEntry(once)
		if err != nil {
			t.Fatalf("what passed once does not pass again: %v\n%s", err, once)
		}
		if diff := cmp.Diff(once, marshal(t, again)); diff != "" {
			t.Error(diff)
		}
	})
}

// The functions below define safe values independently of the parsers.

func safeEntry(t *testing.T, e *job.Entry) {
	t.Helper()
	safeID(t, e.ID)
	safePath(t, e.DrvPath, ".drv")
	for _, r := range e.Targets {
		if r.DrvPath != "" {
			safePath(t, r.DrvPath, ".drv")
		}
	}
	for _, o := range e.Outputs {
		safeOutput(t, o)
	}
}

func safeID(t *testing.T, id string) {
	t.Helper()
	if id == "" || len(id) > 64 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || strings.ContainsAny(id, "/. \n") {
		t.Errorf("the id %q passed", id)
	}
}

func safePath(t *testing.T, path, suffix string) {
	t.Helper()
	name, ok := strings.CutPrefix(path, "/nix/store/")
	if !ok || len(name) < 34 || strings.ContainsAny(name, "/ \x00\n\"'$`\\;&|<>*!") || !strings.HasSuffix(name, suffix) {
		t.Errorf("the store path %q passed", path)
	}
}

func safeOutput(t *testing.T, name string) {
	t.Helper()
	if name == "" || strings.ContainsAny(name, "/ \x00\n\"'$`\\;&|<>*!,") {
		t.Errorf("the output %q passed", name)
	}
}
