package evaluate

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
)

func TestKept(t *testing.T) {
	const drv = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a.drv"
	c := &Cached{
		Plan: &job.Plan{
			Version: job.Version, ID: "a", Created: time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC),
			Targets:      []job.Target{{Attr: "packages.a", Name: "packages.a", Kind: job.Package, System: "x86_64-linux", DrvPath: drv, Outputs: []string{"out"}, State: job.StateBuild}},
			Substituters: []string{"file:///a"}, Drvs: &job.DrvPack{Key: "a-drvs0-b", SHA256: "c"},
		},
		Meta:    []json.RawMessage{json.RawMessage(`{"a":1}`)},
		Omitted: []string{"packages.b"},
		Passed:  []string{"packages.c (a function)"},
		Packed:  []string{drv},
	}
	data, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseCached(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, got); diff != "" {
		t.Error(diff)
	}
	for _, change := range [][2]string{
		{fmt.Sprintf(`{"version":%d`, cachedVersion), `{"version":1`},
		{drv, "/etc/passwd"},
		{`"plan":{"version":1`, `"plan":{"version":9`},
		{`"state":"build"`, `"state":"skip","reason":"at cachix:fleet"`},
		{`"state":"build"`, `"state":"build","available":true`},
		{`"state":"build"`, `"state":"failed"`},
		{`"meta":[`, `"meta":[{},`},
		{`"plan":{`, `"plan":[{`},
		{`"packed":["`, `"packed":["--plugin-files","`},
		{`"omitted":["`, `"omitted":["a\nb","`},
		{`"file:///a"`, `"file:///a","--plugin-files"`},
		{`"file:///a"`, `"file:///a https://b"`},
		{`"outputs":["out"]`, `"outputs":[]`},
		{`"system":"x86_64-linux"`, `"system":"x86_64-linux --x"`},
	} {
		if bad := strings.Replace(string(data), change[0], change[1], 1); bad == string(data) {
			t.Errorf("%s has no %s", data, change[0])
		} else if _, err := ParseCached([]byte(bad)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// The fingerprint depends on all that decides the result, and on nothing else.
func TestFingerprint(t *testing.T) {
	o := Options{Installables: []string{".#a"}, Systems: []string{"x86_64-linux"}, System: "x86_64-linux"}
	first := o.Fingerprint("nix", []string{"flake"})
	same := o
	same.Workers, same.Timeout, same.MemoryLimit = 3, time.Hour, 1<<30
	if same.Fingerprint("nix", []string{"flake"}) != first {
		t.Error("how it is evaluated makes a difference")
	}
	seen := []string{first, o.Fingerprint("other", []string{"flake"}), o.Fingerprint("nix", []string{"other"})}
	for _, change := range []func(*Options){
		func(o *Options) { o.Installables = []string{".#b"} },
		func(o *Options) { o.Systems = append(slices.Clone(o.Systems), "aarch64-linux") },
		func(o *Options) { o.System = "aarch64-linux" },
		func(o *Options) { o.HostAttr = "vm" },
		func(o *Options) { o.Include = []string{"**"} },
		func(o *Options) { o.Exclude = []string{"**"} },
		func(o *Options) { o.AllowEmpty = true },
		func(o *Options) { o.Meta = true },
	} {
		other := o
		change(&other)
		seen = append(seen, other.Fingerprint("nix", []string{"flake"}))
	}
	slices.Sort(seen)
	if len(slices.Compact(seen)) != 11 {
		t.Errorf("some are the same: %v", seen)
	}
}

func TestFlakes(t *testing.T) {
	for want, o := range map[string]Options{
		".":                  {},
		". path:/a":          {Installables: []string{"#a", ".#b", "path:/a", "path:/a#c^out"}},
		"":                   {File: "default.nix"},
		"github:a/b?dir=c .": {Installables: []string{"github:a/b?dir=c", "."}},
	} {
		if got := strings.Join(o.Flakes(), " "); got != want {
			t.Errorf("%+v has the flakes %q, not %q", o, got, want)
		}
	}
}
