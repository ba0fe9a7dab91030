package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNotes(t *testing.T) {
	const changelog = "# Changelog\n\nText.\n\n## Unreleased\n\n- New.\n\n## v1.2.3 (2026-11-30)\n\n- One.\n\n### More\n\n- Two.\n\n## v1.2.2\n\n## v1.2.1\n- Old.\n"
	for version, want := range map[string]string{
		"v1.2.3":      "- One.\n\n### More\n\n- Two.\n",
		"v1.2.1":      "- Old.\n",
		"v1.3.0-rc.1": "- New.\n",
		"v1.2.2":      "",
		"v1.3.0":      "",
		"Unreleased":  "- New.\n",
	} {
		got, err := notesOf(changelog, version)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v, want %q", version, got, err, want)
		}
	}
}

func TestVersions(t *testing.T) {
	for version, want := range map[string]bool{
		"v1.2.3": true, "v0.0.0": true, "v1.2.3-rc.1": true,
		"1.2.3": false, "v1.2": false, "v1.02.3": false, "v1.2.3+x": false, "v1.2.3 -X": false, "v1.2.3/../x": false, "": false,
	} {
		if err := checkVersion(version); (err == nil) != want {
			t.Errorf("%q: %v", version, err)
		}
	}
}

var testTime = time.Unix(1_790_000_000, 0).UTC()

// testRelease returns a release whose binaries are this test.
func testRelease(t *testing.T) *release {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	r := &release{version: "v1.2.3", time: testTime, binaries: map[platform][]byte{}}
	for _, p := range platforms {
		r.binaries[p] = binary
	}
	return r
}

// The SBOM has the modules of each binary, with the hashes of go.sum, and the release of Go.
func TestSBOM(t *testing.T) {
	sbom, err := testRelease(t).sbom()
	if err != nil {
		t.Fatal(err)
	}
	var got bom
	if err := json.Unmarshal(sbom.data, &got); err != nil {
		t.Fatal(err)
	}
	if sbom.name != "nix-matrix-v1.2.3.cdx.json" || got.Format != "CycloneDX" || got.Metadata.Component.Ref != "pkg:golang/github.com/org/nix-matrix@v1.2.3" || got.Metadata.Timestamp != "2026-09-21T14:13:20Z" {
		t.Errorf("got %s: %+v", sbom.name, got.Metadata)
	}
	refs := map[string]bomComponent{}
	for _, c := range append(got.Components, got.Metadata.Component) {
		refs[c.Ref] = c
	}
	std := refs["pkg:golang/std@"+strings.TrimPrefix(runtime.Version(), "go")]
	if std.Name != "std" {
		t.Errorf("the standard library is not among %v", refs)
	}
	for _, d := range got.Dependencies {
		for _, on := range append(d.DependsOn, d.Ref) {
			if refs[on].Name == "" {
				t.Errorf("%s depends on %s, which is no component", d.Ref, on)
			}
		}
	}
	if len(got.Dependencies) != 1+len(platforms) || len(got.Dependencies[0].DependsOn) != len(platforms) {
		t.Errorf("dependencies: %+v", got.Dependencies)
	}
}

// A module has the hash of go.sum, in the form of the SBOM.
func TestModuleComponent(t *testing.T) {
	sum := "h1:" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xab}, 32))
	got, err := moduleComponent(&debug.Module{Path: "example.org/old", Version: "v1.0.0", Replace: &debug.Module{Path: "example.org/new", Version: "v1.2.3", Sum: sum}})
	want := bomComponent{
		Type: "library", Ref: "pkg:golang/example.org/new@v1.2.3", Name: "example.org/new", Version: "v1.2.3", PURL: "pkg:golang/example.org/new@v1.2.3",
		Hashes: []bomHash{{"SHA-256", strings.Repeat("ab", 32)}},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, err := moduleComponent(&debug.Module{Path: "example.org/new", Version: "v1.2.3", Sum: "h1:-"}); err == nil {
		t.Error("a checksum that is none is taken")
	}
}

// An archive has each directory before what is in it, and nobody's name.
func TestTarball(t *testing.T) {
	r := &release{time: testTime}
	data, err := r.tarball("./", []file{{"usr/bin/x", 0o755, []byte("x")}, {"usr/share/y", 0o644, []byte("yy")}})
	if err != nil {
		t.Fatal(err)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for archive := tar.NewReader(unzipped); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "root" || h.Gname != "root" || !h.ModTime.Equal(r.time) {
			t.Errorf("%s: %+v", h.Name, h)
		}
		got = append(got, h.FileInfo().Mode().String()+" "+h.Name)
	}
	want := []string{"drwxr-xr-x ./", "drwxr-xr-x ./usr/", "drwxr-xr-x ./usr/bin/", "-rwxr-xr-x ./usr/bin/x", "drwxr-xr-x ./usr/share/", "-rw-r--r-- ./usr/share/y"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A Debian package is an archive of three members in this order, each at an even offset.
func TestDeb(t *testing.T) {
	arm := platform{"linux", "arm64"}
	r := &release{version: "v1.2.3-rc.1", time: testTime, binaries: map[platform][]byte{arm: []byte("binary")}}
	deb, err := r.deb(arm)
	if err != nil {
		t.Fatal(err)
	}
	if deb.name != "nix-matrix_1.2.3~rc.1_arm64.deb" {
		t.Errorf("it is %s", deb.name)
	}
	for _, want := range []string{"!<arch>\ndebian-binary   1790000000  0     0     100644  4         `\n2.0\ncontrol.tar.gz  ", "data.tar.gz     1790000000  0     0     100644  "} {
		if !bytes.Contains(deb.data, []byte(want)) {
			t.Errorf("%q is not in it", want)
		}
	}
}
