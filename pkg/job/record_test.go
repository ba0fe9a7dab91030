package job

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRecord(t *testing.T) {
	const drv = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-linux-6.12.1.drv"
	r := &Record{
		Version: Version, ID: "a", Created: time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC), Commit: "c", Branch: "main", URL: "u",
		Targets: []RecordTarget{{Attr: "a", Name: "b", Kind: NixOS, System: "x86_64-linux", DrvPath: drv, Closure: 7, Parts: map[string]int64{"linux": 7}}, {Attr: "failed"}},
		Proved:  map[string]int{DrvHash(drv): 20000}, Seconds: map[string]float64{TimeKey(drv, "x86_64-linux", false): 3},
		Entries: map[string]EntryTime{EntryKey("b", "x86_64-linux", true): {Seconds: 3, Fetched: 4, Day: 20000}},
	}
	data, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseRecord(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, got); diff != "" {
		t.Error(diff)
	}
	for _, change := range [][2]string{{`"version":1`, `"version":9`}, {drv, "/etc/passwd"}, {`"id":"a"`, `"id":"../a"`}, {"{", "["},
		{`x86_64-linux":3`, `x86_64-linux":-3`}, {`x86_64-linux":3`, `x86_64-linux":1e300`}, {`"seconds":3,"fetched"`, `"seconds":-3,"fetched"`},
		{`"seconds":3,"fetched"`, `"seconds":1e10,"fetched"`}, {`"fetched":4`, `"fetched":-4`},
	} {
		if !strings.Contains(string(data), change[0]) {
			t.Errorf("there is no %s in %s", change[0], data)
		}
		if _, err := ParseRecord([]byte(strings.Replace(string(data), change[0], change[1], 1))); err == nil {
			t.Errorf("%s in place of %s is taken", change[1], change[0])
		}
	}
}

func TestNamesOfRecords(t *testing.T) {
	const hash = "0123456789abcdfghijklmnpqrsvwxyz"
	for path, want := range map[string]string{
		"/nix/store/" + hash + "-linux-6.12.1-modules.drv":    "linux",
		"/nix/store/" + hash + "-perl5.40.0-Try-Tiny-0.31":    "perl5.40.0-Try-Tiny",
		"/nix/store/" + hash + "-nixos-system-a-26.05pre-git": "nixos-system-a",
		"/nix/store/" + hash + "-source":                      "source",
		"/nix/store/" + hash + "-a-_b":                        "a",
	} {
		if got := PackageName(path); got != want {
			t.Errorf("%s is %q, not %q", path, got, want)
		}
		if got := DrvHash(path); got != hash {
			t.Errorf("%s has the hash %q", path, got)
		}
	}
	if got := DrvHash("/etc/passwd"); got != "" {
		t.Errorf("no store path has the hash %q", got)
	}
	if a, b := TimeKey("/nix/store/"+hash+"-a-1.drv", "s", false), TimeKey("/nix/store/"+hash+"-a-2.drv", "s", true); a != "a s" || b != "a s emulated" {
		t.Errorf("%q, %q", a, b)
	}
}

// FuzzParseRecord: no time of a record that passes is negative or too long, and it can be written again.
func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"id":"a","proved":{},"targets":[{"attr":"a"}],"seconds":{"cc x86_64-linux":3},"entries":{"b x86_64-linux":{"seconds":3,"fetched":4,"day":20000}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRecord(data)
		if err != nil {
			return
		}
		for key, took := range r.Seconds {
			if !(took >= 0 && took <= 1e9) {
				t.Errorf("%q takes %v s", key, took)
			}
		}
		for key, took := range r.Entries {
			if !(took.Seconds >= 0 && took.Seconds <= 1e9 && took.Fetched >= 0) {
				t.Errorf("%q takes %+v", key, took)
			}
		}
		again, err := r.Marshal()
		if err == nil {
			_, err = ParseRecord(again)
		}
		if err != nil {
			t.Error(err)
		}
	})
}
