package storecache

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"github.com/nix-community/go-nix/pkg/nixbase32"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/nix/nixtest"
)

// If the writers of packs are not trusted, every engine restores only paths with a content
// address or a signature by a trusted key.
func TestProven(t *testing.T) {
	n := inputsNix(t)
	paths := fleet(t, n)
	dir := t.TempDir()
	nixtest.Run(t, "nix-store", "--generate-binary-cache-key", "signs-1", filepath.Join(dir, "secret"), filepath.Join(dir, "public"))
	nixtest.Run(t, "nix", "store", "sign", "--key-file", filepath.Join(dir, "secret"), paths["left"])
	public, err := os.ReadFile(filepath.Join(dir, "public"))
	must(t, err)
	c := open(t)
	closure, err := n.Requisites(t.Context(), slices.Collect(maps.Values(paths))...)
	must(t, err)
	packs, err := saver(n, c, nil).Save(t.Context(), infosOf(t, n, closure...))
	must(t, err)
	stranger, _, err := signature.GenerateKeypair("signs-1", nil)
	must(t, err)
	for name, test := range map[string]struct {
		accepts Acceptance
		want    string
	}{
		"all":              {Everything(), "alone large left low right top"},
		"nobody's":         {Acceptance{}, "large low"},
		"no key's":         {Proven(), "large low"},
		"a key's":          {Proven("other-1:AAAA", string(public), "no key"), "large left low"},
		"another of them":  {Proven("other-1:" + strings.TrimPrefix(string(public), "signs-1:")), "large low"},
		"one called alike": {Proven(stranger.ToPublicKey().String()), "large low"},
	} {
		t.Run(name, func(t *testing.T) {
			ix, refused, err := NewIndex(packs...).In(c, nil).Accepting(t.Context(), test.accepts)
			must(t, err)
			others, err := ix.Without(t.Context(), "other")
			must(t, err)
			want := strings.Fields(test.want)
			var accepted []string
			for name, path := range paths {
				if ix.Has(path) {
					accepted = append(accepted, name)
				}
				if !ix.saved(path) || !others.saved(path) || others.Has(path) != ix.Has(path) {
					t.Errorf("%s: it is not known that a pack has it", name)
				}
			}
			if slices.Sort(accepted); !slices.Equal(accepted, want) || refused != len(paths)-len(want) {
				t.Fatalf("%q are accepted and %d are not", accepted, refused)
			}
			for engine, e := range engines(t, n) {
				testbench.UseStore(t, t.TempDir())
				r := &Restorer{Nix: n, Engine: e, Cache: c, Index: ix}
				got, err := r.Restore(t.Context(), slices.Collect(maps.Values(paths))...)
				must(t, err)
				valid, err := n.Valid(t.Context(), slices.Collect(maps.Values(paths))...)
				must(t, err)
				if got.Paths != len(want) || len(valid) != len(want) {
					t.Errorf("%s: %+v, %v", engine, got, valid)
				}
				for _, name := range want {
					if !valid[paths[name]] {
						t.Errorf("%s: %s is not there", engine, name)
					}
				}
				nixtest.Verify(t)
			}
		})
	}
}

// A signature covers a path with its content and references.
func TestForgedSignatures(t *testing.T) {
	secret, public, err := signature.GenerateKeypair("signs-1", nil)
	must(t, err)
	accepts := Proven(public.String())
	info := nix.PathInfo{Path: pathOf("signed"), NarHash: strings.Repeat("0a", sha256.Size), NarSize: 120, References: []string{pathOf("b"), pathOf("a"), pathOf("signed")}}
	sum := bytes.Repeat([]byte{10}, sha256.Size)
	sorted := slices.Sorted(slices.Values(info.References))
	s, err := secret.Sign(nil, fmt.Sprintf("1;%s;sha256:%s;120;%s", info.Path, nixbase32.EncodeToString(sum), strings.Join(sorted, ",")))
	must(t, err)
	other, err := secret.Sign(nil, "something else")
	must(t, err)
	info.Signatures = []string{"no signature", "other-1:AAAA", other.String(), s.String()}
	if !accepts.signed(&info) {
		t.Error("it is not accepted as it was signed")
	}
	for name, change := range map[string]func(*nix.PathInfo){
		"path":       func(i *nix.PathInfo) { i.Path = pathOf("other") },
		"content":    func(i *nix.PathInfo) { i.NarHash = strings.Repeat("0b", sha256.Size) },
		"size":       func(i *nix.PathInfo) { i.NarSize++ },
		"references": func(i *nix.PathInfo) { i.References = i.References[1:] },
		"signature":  func(i *nix.PathInfo) { i.Signatures = i.Signatures[:3] },
		"name":       func(i *nix.PathInfo) { i.Signatures = []string{"signs-2" + strings.TrimPrefix(s.String(), "signs-1")} },
		"no hash":    func(i *nix.PathInfo) { i.NarHash = "?" },
	} {
		changed := info
		change(&changed)
		if accepts.signed(&changed) {
			t.Errorf("it is accepted with another %s", name)
		}
	}
	if Proven().signed(&info) {
		t.Error("it is accepted without a key")
	}
}

// addressed returns paths with the content addresses that Nix 2.34 gives them (see package
// storepath), with their own content and with others.
var addressedPaths = []struct {
	name, path, ca, nar string
	good                bool
}{
	{"text", lowPath, lowCA, narFile("nothing"), true},
	{"text, another content", lowPath, lowCA, narFile("evil"), false},
	{"text, a program", lowPath, lowCA, narWords("(", "type", "regular", "executable", "", "contents", "nothing", ")"), false},
	{"text, a link", lowPath, lowCA, narLink("nothing"), false},
	{"flat", flatPath, flatCA, narFile("flat\n"), true},
	{"flat, another content", flatPath, flatCA, narFile("evil\n"), false},
	{"flat, a program", flatPath, flatCA, narWords("(", "type", "regular", "executable", "", "contents", "flat\n", ")"), false},
	{"flat, a directory", flatPath, flatCA, narDir("flat", narFile("flat\n")), false},
	{"tree", treePath, treeCA, narDir("f", narFile("x\n")), true},
	{"tree, another content", treePath, treeCA, narDir("f", narFile("evil\n")), false},
	{"SHA-512", longPath, longCA, narFile("flat\n"), true},
	{"SHA-512, another content", longPath, longCA, narFile("evil\n"), false},
	{"another path", pathOf("evil"), flatCA, narFile("flat\n"), false},
	{"another method", flatPath, lowCA, narFile("nothing"), false},
	{"another name", flatPath + "x", flatCA, narFile("flat\n"), false},
}

const (
	lowPath  = "/nix/store/if9zpja0xay0q5h6490404qnq6if2cs4-low"
	lowCA    = "text:sha256:0sibfw7qrgx16vrpmq3hj0mkqmhjmz8wrk9qif777ivapk1wz18p"
	flatPath = "/nix/store/ca1y6c916z1ck1dxi4rcrsfs9rzp728w-flat"
	flatCA   = "fixed:sha256:1xk2hhjr0f2n4adj1h688wlz59xpl86y1r8bd2pjasg8gy16mikb"
	treePath = "/nix/store/rhb9m3nc5lfs3b87chr7r28lyyrrh7wf-tree"
	treeCA   = "fixed:r:sha256:0fzd3xy0rg1gdxfi7wg675q1vs7hh332lz0x4ml9l3arvl37yx9d"
	longPath = "/nix/store/z46g1zmppfp89dr01wmlrj9x041rl4z0-rec512"
	longCA   = "fixed:r:sha512:2qd7nq5xzr6jah0kkhxbsf84w7mv9hy6xp7s7430zrasbglwnyca1b908d8cpwfavxr69g85xn11qqq6ac55hyly2ck39hbwq2dvv2c"
)

// With every engine, and even if the writers of packs are trusted, a path with a content address
// must have that content.
func TestForgedAddresses(t *testing.T) {
	n := nixtest.Newest(t)
	for _, test := range addressedPaths {
		t.Run(test.name, func(t *testing.T) {
			for engine, e := range engines(t, n) {
				for _, accepts := range []Acceptance{Everything(), Proven()} {
					nixtest.UseMemory(t, "")
					p, data := packOfNARs(t, "pack", []string{test.path, pathOf("user")}, []string{test.nar, narFile("user")})
					p.Index.Records[0].CA = test.ca
					p.Index.Records[1].References = []string{test.path}
					c := open(t)
					must(t, c.Save(t.Context(), p.Key, bytes.NewReader(data), p.Size))
					ix, _, err := NewIndex(p).Accepting(t.Context(), accepts)
					must(t, err)
					r := &Restorer{Nix: n, Engine: e, Cache: c, Index: ix}
					_, err = r.Restore(t.Context(), test.path, pathOf("user"))
					if errors.Is(err, ErrSource) == test.good && ix.Has(test.path) {
						t.Errorf("%s: %v", engine, err)
					}
					valid, err := n.Valid(t.Context(), test.path, pathOf("user"))
					must(t, err)
					if valid[test.path] != test.good || valid[pathOf("user")] != (test.good && accepts.everything) {
						t.Errorf("%s: valid are %v", engine, valid)
					}
					nixtest.Verify(t)
				}
			}
		})
	}
}

// The same holds for the paths of a drv pack.
func TestForgedHandOver(t *testing.T) {
	nixtest.Each(t, func(t *testing.T, n *nix.Nix) {
		for _, test := range addressedPaths {
			testbench.UseStore(t, t.TempDir())
			p, data := packOfNARs(t, "pack", []string{test.path}, []string{test.nar})
			p.Index.Records[0].CA = test.ca
			c := open(t)
			must(t, c.Save(t.Context(), p.Key, bytes.NewReader(data), p.Size))
			blob, err := c.Open(t.Context(), p.Key)
			must(t, err)
			_, err = restoreRecords(t.Context(), n, engine.Protocol(n), blob, p.Index, []int{0}, Everything())
			if (err == nil) != test.good {
				t.Errorf("%s: %v", test.name, err)
			}
			valid, err := n.Valid(t.Context(), test.path)
			must(t, err)
			if valid[test.path] != test.good {
				t.Errorf("%s: valid are %v", test.name, valid)
			}
		}
	})
}

// A drv pack with an unproven path is refused if its writer is not trusted.
func TestUnprovenHandOver(t *testing.T) {
	n := inputsNix(t)
	file, packed, drvs := sample(t, n)
	all := slices.Sorted(maps.Values(drvs))
	testbench.UseStore(t, t.TempDir())
	src, err := File(file)
	must(t, err)
	defer src.Close()
	// A built and signed output is not proven without the key.
	if _, err := RestoreDrvs(t.Context(), n, engine.Protocol(n), src, packed.SHA256, all, nil, Proven()); !errors.Is(err, ErrUnproven) || !strings.Contains(fmt.Sprint(err), "-built:") {
		t.Errorf("%v", err)
	}
	valid, err := n.Valid(t.Context(), all...)
	must(t, err)
	if diff := cmp.Diff(map[string]bool{}, valid); diff != "" {
		t.Error(diff)
	}
	got, err := RestoreDrvs(t.Context(), n, engine.Protocol(n), src, packed.SHA256, []string{drvs["takes"]}, nil, Proven())
	must(t, err)
	if got.Paths != 3 {
		t.Errorf("%+v", got)
	}
}
